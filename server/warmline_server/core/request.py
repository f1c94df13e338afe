"""One call's request body: its settings, its input, and the bytes that go upstream.

A request is held as the JSON of its parts, never decoded as a whole: items leave as they came. Source: wire-behaviour
§4.2 and §4.3.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from warmline_server.core import delta
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.items import Conversation, check_calls, of_provider
from warmline_server.core.lenient import NOT_JSON
from warmline_server.core.request_reader import RequestReader

# What the server itself sets; a caller that sets them too would be ignored or break the chain.
RESERVED_KEYS = frozenset(
    {"type", "stream", "stream_id", "background", "generate", "input", "previous_response_id", "conversation"}
)

# Order of the body's fields on the wire; others follow in the caller's order.
_FIELD_ORDER = (
    "model",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "store",
    "include",
    "service_tier",
    "prompt_cache_key",
    "text",
)

Settings = Mapping[str, bytes]
NOTHING = Conversation()


_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ModelRequest(msgspec.Struct, frozen=True):
    """The whole logical request of a call.

    `settings`: every field but `input`, each as JSON, `client_metadata` without what the server adds to it;
    `canonical_settings` the same in canonical form; `conversation`: its input; `history` the digests of that, one after
    the other.
    """

    settings: Settings
    canonical_settings: Settings
    conversation: Conversation
    history: bytes

    @property
    def input(self) -> tuple[bytes, ...]:
        """Items as JSON, oldest first."""
        return self.conversation.items

    @property
    def model(self) -> str:
        """The model's slug; blank when it is not a string."""
        value = msgspec.json.decode(self.settings.get("model", b'""'))
        return value if isinstance(value, str) else ""

    def extended(self, items: Sequence[bytes]) -> "ModelRequest":
        """The same request with finished output items of a lost attempt at its end (D-12)."""
        longer = self.conversation.followed_by(of_provider(items))
        return ModelRequest(self.settings, self.canonical_settings, longer, longer.digests)


def base_settings(conversation_id: str, *, store: bool) -> dict[str, bytes]:
    """Body fields that are sent when nobody says otherwise. Source: wire-behaviour §4.2."""
    return {
        "tool_choice": b'"auto"',
        "parallel_tool_calls": b"false",
        "reasoning": b"null",
        "store": b"true" if store else b"false",
        "prompt_cache_key": msgspec.json.encode(conversation_id),
    }


def merge(base: Settings, extra: Settings, defaults: Settings, overrides: Settings | None = None) -> dict[str, bytes]:
    """A request's settings: `base` beneath the caller's further fields, beneath the session's and the call's own.

    Raises: CallerError when no model is named.
    """
    merged = {**base, **extra, **defaults, **(overrides or {})}
    if merged.get("model") in (None, b'""'):
        raise CallerError(
            Reason.INVALID_REQUEST,
            "options.model: no model is named, neither here nor in the session's request_defaults",
            field="options.model",
        )
    if merged.get("instructions") == b'""':
        del merged["instructions"]
    if "include" not in merged:
        reasons = merged.get("reasoning", b"null") != b"null"
        merged["include"] = b'["reasoning.encrypted_content"]' if reasons else b"[]"
    return merged


def warm_up(settings: Settings) -> ModelRequest:
    """A request without input: what a warm-up sends."""
    return _assemble(settings, Conversation(), RequestReader())


def build(
    settings: Settings,
    items: Sequence[bytes],
    *,
    before: Conversation = NOTHING,
    reader: RequestReader | None = None,
) -> ModelRequest:
    """Checks a request's parts and puts them together.

    Args: `settings` in any order; `items` what the caller sent, oldest first; `before`: what the server holds of the
        conversation, and read before; `reader` of the lane, which knows what comes again.
    Raises: CallerError naming the setting that is not JSON, or the item that is not JSON, not an object, or lacks its
        call or its output.
    """
    if not items:
        raise CallerError(Reason.INVALID_REQUEST, "input is empty; expected at least one item", field="input")
    reader = reader or RequestReader()
    whole = before.followed_by(reader.read_items(items))
    check_calls(whole.facts, first_index=len(before.items))
    return _assemble(settings, whole, reader)


def _assemble(settings: Settings, conversation: Conversation, reader: RequestReader) -> ModelRequest:
    ordered = {name: settings[name] for name in (*_FIELD_ORDER, *settings) if name in settings}
    return ModelRequest(ordered, reader.read_settings(ordered), conversation, conversation.digests)


def parse_extra(request_json: bytes, reserved_metadata: frozenset[str]) -> dict[str, bytes]:
    """The caller's further body fields, by name, as JSON.

    Raises: CallerError when it is not one JSON object, or holds a key that the server itself sets.
    """
    if not request_json:
        return {}
    fields = _decode_object(request_json, "request_json")
    for name in fields:
        if name in RESERVED_KEYS:
            raise _reserved(name)
    if "prewarm" in _decode_object(fields.get("prompt_cache_options", b"{}"), "request_json.prompt_cache_options"):
        raise _reserved("prompt_cache_options.prewarm")
    for name in _decode_object(fields.get("client_metadata", b"{}"), "request_json.client_metadata"):
        if name in reserved_metadata:
            raise _reserved(f"client_metadata.{name}")
    return fields


def body(request: ModelRequest, client_metadata: Mapping[str, str]) -> bytes:
    """The body of a POST: the whole conversation."""
    return _join(request, request.input, client_metadata, [b'"stream":true'])


def frame(request: ModelRequest, plan: delta.Plan, client_metadata: Mapping[str, str], *, stream_field: bool) -> bytes:
    """The text frame of a WebSocket request. `stream_field`: send `stream`, which the public API only implies."""
    extra = [b'"type":"response.create"']
    if plan.previous_response_id:
        extra.append(b'"previous_response_id":' + msgspec.json.encode(plan.previous_response_id))
    if stream_field:
        extra.append(b'"stream":true')
    return _join(request, request.input[plan.start :], client_metadata, extra)


def warm_up_frame(request: ModelRequest, client_metadata: Mapping[str, str], *, stream_field: bool) -> bytes:
    """The text frame of a warm-up that generates nothing."""
    extra = [b'"type":"response.create"', b'"generate":false']
    if stream_field:
        extra.append(b'"stream":true')
    return _join(request, request.input, client_metadata, extra)


def _join(
    request: ModelRequest, items: Iterable[bytes], client_metadata: Mapping[str, str], extra: Sequence[bytes]
) -> bytes:
    fields = [*extra]
    fields += [msgspec.json.encode(n) + b":" + v for n, v in request.settings.items() if n != "client_metadata"]
    fields.append(b'"input":[' + b",".join(items) + b"]")
    metadata = _merged_metadata(request.settings.get("client_metadata"), client_metadata)
    if metadata:
        fields.append(b'"client_metadata":' + metadata)
    return b"{" + b",".join(fields) + b"}"


def _merged_metadata(theirs: bytes | None, ours: Mapping[str, str]) -> bytes:
    merged: dict[str, msgspec.Raw | str] = dict(_object(theirs)) if theirs else {}
    merged.update(ours)
    return msgspec.json.encode(merged) if merged else b""


def _decode_object(value: bytes, field: str) -> dict[str, bytes]:
    try:
        return {name: bytes(raw) for name, raw in _object(value).items()}
    except NOT_JSON as error:
        raise CallerError(Reason.INVALID_REQUEST, f"{field} is not a JSON object: {error}", field=field) from error


def _reserved(name: str) -> CallerError:
    return CallerError(
        Reason.RESERVED_KEY, f"request_json holds {name!r}, which the server sets itself", field=f"request_json.{name}"
    )

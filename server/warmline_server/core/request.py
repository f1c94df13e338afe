"""One call's request body: its settings, its input, and the bytes that go upstream.

A request is held as the JSON of its parts, never decoded as a whole: items leave as they came. Source: wire-behaviour
§4.2 and §4.3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from warmline_server.core import delta
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.lenient import NOT_JSON, LenientDecoder, mend
from warmline_server.core.nesting import MAX_DEPTH, is_too_deep

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

# Calls that the caller executes: each needs its output, and no resend may follow one that is finished (D-12).
CLIENT_CALLS = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "computer_call",
        "tool_search_call",
    }
)
# Where the output's type is not the call's plus "_output".
_OUTPUT_SUFFIX = "_output"
_OTHER_OUTPUTS = {"tool_search_output": "tool_search_call"}

Settings = Mapping[str, bytes]


class _ItemHead(msgspec.Struct):
    """The fields of an item that the server looks at."""

    type: str = ""
    call_id: str | None = None
    execution: str = ""


_item_head = LenientDecoder(_ItemHead)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """The whole logical request of a call.

    `settings`: every field but `input`, each as JSON, `client_metadata` without what the server adds to it;
    `canonical_settings` the same in canonical form; `input`: items as JSON, oldest first; `history` their digests, one
    after the other.
    """

    settings: Settings
    canonical_settings: Settings
    input: tuple[bytes, ...]
    history: bytes

    @property
    def model(self) -> str:
        """The model's slug; blank when it is not a string."""
        value = msgspec.json.decode(self.settings.get("model", b'""'))
        return value if isinstance(value, str) else ""

    def extended(self, items: Sequence[bytes]) -> "ModelRequest":
        """The same request with finished output items of a lost attempt at its end (D-12)."""
        return ModelRequest(
            self.settings, self.canonical_settings, (*self.input, *items), self.history + delta.digests(items)
        )


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
    return _assemble(settings, (), b"")


def build(settings: Settings, items: Sequence[bytes], *, first_index: int = 0) -> ModelRequest:
    """Checks a request's parts and puts them together.

    Args: `settings` in any order; `items` the whole conversation, oldest first; `first_index`: the caller's index of
        the first item that the caller itself sent (what comes before is ours), for error texts.
    Raises: CallerError naming the setting that is not JSON, or the item that is not JSON, not an object, or lacks its
        call or its output.
    """
    if not items:
        raise CallerError(Reason.INVALID_REQUEST, "input is empty; expected at least one item", field="input")
    history = b"".join(_digest(index - first_index, item) for index, item in enumerate(items))
    check_calls(items, first_index=first_index)
    return _assemble(settings, tuple(items), history)


def _assemble(settings: Settings, items: tuple[bytes, ...], history: bytes) -> ModelRequest:
    ordered = {name: settings[name] for name in (*_FIELD_ORDER, *settings) if name in settings}
    canonical = {name: _canonical(name, value) for name, value in ordered.items()}
    return ModelRequest(ordered, canonical, items, history)


def check_calls(items: Sequence[bytes], *, first_index: int = 0) -> None:
    """Every tool output needs its call before it, and every call that the caller executes its output.

    Raises: CallerError naming the first item without its other half.
    """
    calls: dict[tuple[str, str], int] = {}
    answered: set[tuple[str, str]] = set()
    for index, item in enumerate(items):
        head = item_head(item)
        if head.execution == "server":  # both halves are the provider's
            continue
        call_type = _OTHER_OUTPUTS.get(head.type) or head.type.removesuffix(_OUTPUT_SUFFIX)
        if head.type in CLIENT_CALLS:
            if head.call_id is not None:
                calls[head.type, head.call_id] = index
        elif call_type in CLIENT_CALLS:
            key = (call_type, head.call_id or "")
            if not head.call_id:
                raise _item_error(index - first_index, f"{head.type} has no call_id")
            if key not in calls:
                raise _item_error(
                    index - first_index, f"{head.type} for call_id {head.call_id!r} has no call before it"
                )
            answered.add(key)
    for key, index in calls.items():
        if key not in answered:
            raise _item_error(index - first_index, f"{key[0]} with call_id {key[1]!r} has no output")


def item_head(item: bytes) -> _ItemHead:
    """The routing fields of an item; blanks for those that are absent or of another kind."""
    return _item_head.decode(item) or _item_head.decode(mend(item)[0]) or _ItemHead()


def is_client_call(item: bytes) -> bool:
    """Whether a finished output item is a call that the caller executes."""
    head = item_head(item)
    return head.type in CLIENT_CALLS and head.execution != "server"


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


def _digest(index: int, item: bytes) -> bytes:
    if not item.lstrip().startswith(b"{"):
        raise _item_error(index, "expected one JSON object")
    if is_too_deep(item):
        raise _item_error(index, f"nested deeper than {MAX_DEPTH} levels")
    try:
        return delta.digest(item)
    except NOT_JSON as error:
        raise _item_error(index, f"is not JSON: {error}") from error


def _canonical(name: str, value: bytes) -> bytes:
    try:
        return delta.canonical(value)
    except NOT_JSON as error:
        raise CallerError(Reason.INVALID_REQUEST, f"{name} is not JSON: {error}", field=name) from error


def _decode_object(value: bytes, field: str) -> dict[str, bytes]:
    try:
        return {name: bytes(raw) for name, raw in _object(value).items()}
    except NOT_JSON as error:
        raise CallerError(Reason.INVALID_REQUEST, f"{field} is not a JSON object: {error}", field=field) from error


def _item_error(index: int, text: str) -> CallerError:
    field = f"input[{index}]" if index >= 0 else "transcript"
    return CallerError(Reason.INVALID_REQUEST, f"{field}: {text}", field=field)


def _reserved(name: str) -> CallerError:
    return CallerError(
        Reason.RESERVED_KEY, f"request_json holds {name!r}, which the server sets itself", field=f"request_json.{name}"
    )

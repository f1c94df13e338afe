"""The headers of an upstream's reply, and the events that they mean.

Source: wire-behaviour.md §5.1.
"""

from collections.abc import Iterable, Mapping

import msgspec

from warmline_server.core import rate_limits
from warmline_server.core.events import ModelEvent, ModelsEtag, ReasoningIncluded, ServerModel, Transport
from warmline_server.core.lenient import NOT_JSON

Headers = Mapping[str, str]
"""Names in lower case; of a header that came twice, the first value."""

NO_HEADERS: Headers = {}

_JSON_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_JSON_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_JSON_STRING = msgspec.json.Decoder(str)

# A request id is shown to callers in ASCII metadata; nothing known is longer than a UUID with a prefix.
_LONGEST_ID = 256


def fold(pairs: Iterable[tuple[str, str]]) -> Headers:
    """Headers out of name and value pairs in the order of arrival."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers.setdefault(name.lower(), value.strip())
    return headers


def fold_json(raw: bytes | msgspec.Raw) -> Headers:
    """Headers out of the JSON object that some events carry.

    Strings are taken as they are, numbers and booleans as their JSON text, of an array the first element; members of
    any other shape are left out. What is no object has no headers.
    """
    try:
        members = _JSON_OBJECT.decode(raw)
    except NOT_JSON:
        return NO_HEADERS
    values = ((name, _json_header_value(bytes(member))) for name, member in members.items())
    return fold((name, value) for name, value in values if value is not None)


def _json_header_value(member: bytes) -> str | None:
    try:
        if member.startswith(b"["):
            elements = _JSON_ARRAY.decode(member)
            return _json_header_value(bytes(elements[0])) if elements else None
        if member.startswith(b'"'):
            return _JSON_STRING.decode(member)
    except NOT_JSON:
        return None
    return None if member[:1] in (b"{", b"n") else member.decode("ascii")


def request_id(headers: Headers) -> str | None:
    """The provider's id of the request; None when it told none that can be passed on."""
    return _printable(headers.get("x-request-id")) or _printable(headers.get("x-oai-request-id"))


def tracking_id(headers: Headers) -> str | None:
    """The id that the network in front of the provider gave the request, for a person who asks there."""
    return _printable(headers.get("cf-ray"))


def _printable(value: str | None) -> str | None:
    if value and len(value) <= _LONGEST_ID and value.isascii() and value.isprintable():
        return value
    return None


def turn_state(headers: Headers) -> str | None:
    """The sticky-routing token; None when not told."""
    return headers.get("x-codex-turn-state") or None


def server_model(headers: Headers) -> str:
    """The model that serves the request; blank when not told."""
    return headers.get("openai-model") or headers.get("x-openai-model") or ""


def head_events(headers: Headers, transport: Transport) -> tuple[ModelEvent, ...]:
    """The events that a reply's headers mean, in the order of their delivery: before the first event of the body.

    Rate limits are read from HTTP replies only: a handshake's describe no request.
    """
    events: list[ModelEvent] = []
    if model := server_model(headers):
        events.append(ServerModel(model))
    if transport is not Transport.WEBSOCKET:
        events.extend(rate_limits.from_headers(headers))
    if etag := headers.get("x-models-etag"):
        events.append(ModelsEtag(etag))
    if "x-reasoning-included" in headers:
        events.append(ReasoningIncluded())
    return tuple(events)

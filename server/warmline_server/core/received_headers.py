"""The headers of an upstream's reply, and the events that they mean.

Source: wire-behaviour.md §5.1.
"""

from collections.abc import Iterable, Mapping, Sequence

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

LONGEST_ID = 256
"""Ids, names of models and tags are kept no longer; nothing known is longer than a UUID with a prefix."""

# Of one reply. Those of providers and the networks before them have some forty, of a few KiB in all.
MAX_HEADERS = 256
MAX_HEADERS_BYTES = 64 * 1024

# It goes back in a header, and servers take 8 KiB of one.
_LONGEST_TOKEN = 4096


def are_too_many(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether a reply has more headers, or more bytes of them, than are read."""
    return len(pairs) > MAX_HEADERS or sum(len(name) + len(value) for name, value in pairs) > MAX_HEADERS_BYTES


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
    return printable(headers.get("x-request-id")) or printable(headers.get("x-oai-request-id"))


def tracking_id(headers: Headers) -> str | None:
    """The id that the network in front of the provider gave the request, for a person who asks there."""
    return printable(headers.get("cf-ray"))


def printable(value: str | None, longest: int = LONGEST_ID) -> str | None:
    """The value where it is visible ASCII of a sensible length, which headers and metadata can carry; else None."""
    if value and len(value) <= longest and value.isascii() and value.isprintable():
        return value
    return None


def turn_state(headers: Headers) -> str | None:
    """The sticky-routing token; None when none was told that a header can carry back."""
    return printable(headers.get("x-codex-turn-state"), _LONGEST_TOKEN)


def etag(headers: Headers) -> str:
    """The tag of the model list; blank when none was told that a header can carry back."""
    return printable(headers.get("x-models-etag")) or ""


def server_model(headers: Headers) -> str:
    """The model that serves the request; blank when not told."""
    return printable(headers.get("openai-model")) or printable(headers.get("x-openai-model")) or ""


def head_events(headers: Headers, transport: Transport) -> tuple[ModelEvent, ...]:
    """The events that a reply's headers mean, in the order of their delivery: before the first event of the body.

    Rate limits are read from HTTP replies only: a handshake's describe no request.
    """
    events: list[ModelEvent] = []
    if model := server_model(headers):
        events.append(ServerModel(model))
    if transport is not Transport.WEBSOCKET:
        events.extend(rate_limits.from_headers(headers))
    if tag := etag(headers):
        events.append(ModelsEtag(tag))
    if "x-reasoning-included" in headers:
        events.append(ReasoningIncluded())
    return tuple(events)

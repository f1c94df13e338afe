"""What goes upstream beside the request's own fields: URLs, headers and client metadata.

One table says which header goes where. Source: wire-behaviour.md §4.1, §4.4, §4.5, and D-17 for `x-client-request-id`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Literal

import msgspec

from warmline_server.core.config import Source

Dialect = Literal["openai", "codex", "azure"]
"""Only `codex` has a place for the lineage headers and client metadata; the others speak the public API."""

TurnStateVia = Literal["handshake", "client_metadata"]

WEBSOCKET_BETA = "responses_websockets=2026-02-06"


class Facts(msgspec.Struct, frozen=True):
    """What there is to tell about a session and one request of it. Blank strings and empty bytes: nothing to tell.

    `request_id` names the attempt, or the connection for a handshake. `turn_metadata` is a JSON object. `turn_state` is
    None while no token is known. `traceparent` and `tracestate` are the request's own span's.
    """

    dialect: Dialect
    conversation_id: str
    request_id: str
    window_generation: int = 0
    installation_id: str = ""
    source: Source = Source.UNSPECIFIED
    sub_agent_label: str = ""
    parent_thread_id: str = ""
    turn_id: str = ""
    turn_metadata: bytes = b""
    turn_state: str | None = None
    turn_state_via: TurnStateVia = "handshake"
    beta_features: tuple[str, ...] = ()
    timing_metrics: bool = False
    originator: str = ""
    user_agent: str = ""
    traceparent: str = ""
    tracestate: str = ""


class _On(Flag):
    """The requests that a header goes on."""

    HANDSHAKE = auto()
    RESPONSES = auto()
    COMPACT = auto()
    MEMORIES = auto()
    TURN = HANDSHAKE | RESPONSES
    THREAD = HANDSHAKE | RESPONSES | COMPACT
    ALL = HANDSHAKE | RESPONSES | COMPACT | MEMORIES


_SUB_AGENT_LABELS = {
    Source.REVIEW: "review",
    Source.COMPACT: "compact",
    Source.THREAD_SPAWN: "collab_spawn",
    Source.MEMORY_CONSOLIDATION: "memory_consolidation",
}


def _sub_agent(facts: Facts) -> str:
    if facts.source is Source.SUB_AGENT:
        return facts.sub_agent_label
    return _SUB_AGENT_LABELS.get(facts.source, "")


def _parent_thread(facts: Facts) -> str:
    return facts.parent_thread_id if facts.source is Source.THREAD_SPAWN else ""


def _memory_generation(facts: Facts) -> str:
    return "true" if facts.source is Source.MEMORY_CONSOLIDATION else ""


def _window(facts: Facts) -> str:
    return f"{facts.conversation_id}:{facts.window_generation}"


def _handshake_turn_state(facts: Facts) -> str:
    return facts.turn_state or "" if facts.turn_state_via == "handshake" else ""


def _timing_metrics(facts: Facts) -> str:
    return "true" if facts.timing_metrics else ""


def _turn_metadata(facts: Facts) -> str:
    """The turn's metadata in a header's characters: JSON may write any character as an escape. Source: PR #19620."""
    try:
        text = facts.turn_metadata.decode()
    except UnicodeDecodeError:
        return ""
    escaped = "".join(c if c.isascii() else _json_escape(c) for c in text)
    # Line breaks stand between JSON's tokens only, where a space does as well.
    return escaped.translate(_LINE_BREAKS_TO_SPACES).strip()


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


_LINE_BREAKS_TO_SPACES = str.maketrans("\r\n", "  ")


@dataclass(frozen=True, slots=True)
class _Row:
    """One header: a blank value is not sent, a `private` one only in the dialect `codex`."""

    name: str
    on: _On
    value: Callable[[Facts], str]
    private: bool = True


_HEADERS = (
    _Row("Accept", _On.RESPONSES, lambda facts: "text/event-stream", private=False),
    _Row("x-client-request-id", _On.TURN, lambda facts: facts.request_id, private=False),
    _Row("OpenAI-Beta", _On.HANDSHAKE, lambda facts: WEBSOCKET_BETA),
    # Renamed in mid-2026; both spellings are sent, since older gateways route by the first.
    _Row("session_id", _On.THREAD, lambda facts: facts.conversation_id),
    _Row("session-id", _On.THREAD, lambda facts: facts.conversation_id),
    _Row("thread-id", _On.THREAD, lambda facts: facts.conversation_id),
    _Row("x-codex-beta-features", _On.TURN, lambda facts: ",".join(facts.beta_features)),
    _Row("x-codex-turn-state", _On.HANDSHAKE, _handshake_turn_state),
    _Row("x-codex-turn-state", _On.RESPONSES | _On.COMPACT, lambda facts: facts.turn_state or ""),
    _Row("x-codex-turn-metadata", _On.TURN, _turn_metadata),
    _Row("x-codex-window-id", _On.THREAD, _window),
    _Row("x-codex-parent-thread-id", _On.ALL, _parent_thread),
    _Row("x-openai-subagent", _On.ALL, _sub_agent),
    _Row("x-openai-memgen-request", _On.ALL, _memory_generation),
    _Row("x-codex-installation-id", _On.COMPACT, lambda facts: facts.installation_id),
    _Row("x-responsesapi-include-timing-metrics", _On.HANDSHAKE, _timing_metrics),
)

# What fills a gap only.
_DEFAULT_HEADERS = (
    _Row("originator", _On.ALL, lambda facts: facts.originator, private=False),
    _Row("User-Agent", _On.ALL, lambda facts: facts.user_agent, private=False),
)

_CLIENT_METADATA: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("x-codex-installation-id", lambda facts: facts.installation_id),
    ("x-codex-window-id", _window),
    ("x-openai-subagent", _sub_agent),
    ("x-codex-parent-thread-id", _parent_thread),
    ("x-codex-turn-metadata", _turn_metadata),
    ("ws_request_header_traceparent", lambda facts: facts.traceparent),
    ("ws_request_header_tracestate", lambda facts: facts.tracestate),
)
# What newer providers expect besides, together with the turn state: they read no header of a handshake for a turn.
_NEWER_CLIENT_METADATA: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("session_id", lambda facts: facts.conversation_id),
    ("thread_id", lambda facts: facts.conversation_id),
    ("turn_id", lambda facts: facts.turn_id),
)
_TURN_STATE = "x-codex-turn-state"

RESERVED_CLIENT_METADATA = frozenset({_TURN_STATE, *(name for name, _ in _CLIENT_METADATA + _NEWER_CLIENT_METADATA)})
"""Names in `client_metadata` that a caller may not set."""


def handshake_headers(
    facts: Facts,
    provider_headers: Mapping[str, str],
    extra_headers: Mapping[str, str],
    credential: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Headers of a WebSocket handshake.

    Of one name the last of these counts: `provider_headers`, the table's, the operator's `extra_headers`, `credential`;
    `originator` and `User-Agent` fill gaps. A name or value that HTTP does not allow is left out, never an error.
    """
    return _merge(_On.HANDSHAKE, facts, provider_headers, extra_headers, credential)


def post_headers(
    facts: Facts,
    provider_headers: Mapping[str, str],
    extra_headers: Mapping[str, str],
    credential: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Headers of a POST to `responses`, merged as `handshake_headers` merges."""
    return _merge(_On.RESPONSES, facts, provider_headers, extra_headers, credential)


def compact_headers(
    facts: Facts,
    provider_headers: Mapping[str, str],
    extra_headers: Mapping[str, str],
    credential: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Headers of a POST to `responses/compact`, merged as `handshake_headers` merges."""
    return _merge(_On.COMPACT, facts, provider_headers, extra_headers, credential)


def memories_headers(
    facts: Facts,
    provider_headers: Mapping[str, str],
    extra_headers: Mapping[str, str],
    credential: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Headers of a POST to `memories/trace_summarize`, merged as `handshake_headers` merges."""
    return _merge(_On.MEMORIES, facts, provider_headers, extra_headers, credential)


def client_metadata(facts: Facts) -> dict[str, str]:
    """`client_metadata` of a WebSocket request, which stands for the headers that a reused socket cannot carry.

    Empty in the dialects that have no place for it.
    """
    if facts.dialect != "codex":
        return {}
    newer = facts.turn_state_via == "client_metadata"
    rows = _CLIENT_METADATA + _NEWER_CLIENT_METADATA if newer else _CLIENT_METADATA
    told = ((name, value(facts)) for name, value in rows)
    metadata = {name: value for name, value in told if value and _is_legal_value(value)}
    if newer:
        # Empty until a token is known: the provider then tells one.
        metadata[_TURN_STATE] = facts.turn_state or ""
    return metadata


def body_metadata(facts: Facts) -> dict[str, str]:
    """`client_metadata` of a POST's body; its headers say the rest."""
    if facts.dialect != "codex" or not facts.installation_id:
        return {}
    return {"x-codex-installation-id": facts.installation_id}


def http_url(base_url: str, path: str, query: Mapping[str, str]) -> str:
    """URL of an HTTP request.

    Args: `query` is appended as it is, without percent-encoding; what `base_url` itself has of one comes before it.
    """
    return _url({"ws": "http", "wss": "https"}, base_url, path, query)


def websocket_url(base_url: str, path: str, query: Mapping[str, str]) -> str:
    """URL of a WebSocket handshake; see `http_url`."""
    return _url({"http": "ws", "https": "wss"}, base_url, path, query)


def _url(schemes: Mapping[str, str], base_url: str, path: str, query: Mapping[str, str]) -> str:
    scheme, _, rest = base_url.partition("://")
    place, _, own_query = rest.partition("?")
    parts = [own_query] if own_query else []
    parts += [f"{name}={value}" for name, value in query.items()]
    url = f"{schemes.get(scheme, scheme)}://{place.rstrip('/')}/{path}"
    return f"{url}?{'&'.join(parts)}" if parts else url


def _merge(
    on: _On,
    facts: Facts,
    provider_headers: Mapping[str, str],
    extra_headers: Mapping[str, str],
    credential: Mapping[str, str],
) -> list[tuple[str, str]]:
    merged: dict[str, tuple[str, str]] = {}
    for headers in (provider_headers.items(), _told(_HEADERS, on, facts), extra_headers.items()):
        merged.update(_legal(headers))
    merged = {**dict(_legal(_told(_DEFAULT_HEADERS, on, facts))), **merged}
    for name, header in _legal(credential.items()):
        merged.pop(name, None)
        merged[name] = header
    return list(merged.values())


def _told(rows: Iterable[_Row], on: _On, facts: Facts) -> Iterable[tuple[str, str]]:
    for row in rows:
        if on in row.on and (facts.dialect == "codex" or not row.private) and (value := row.value(facts)):
            yield row.name, value


# Source: RFC 9110 §5.1 and §5.5, without the bytes beyond ASCII that no two peers read alike.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


def _is_legal_value(value: str) -> bool:
    return _VALUE.fullmatch(value) is not None


def _legal(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, tuple[str, str]]]:
    for name, value in headers:
        if _NAME.fullmatch(name) and _is_legal_value(value):
            yield name.lower(), (name, value.strip())

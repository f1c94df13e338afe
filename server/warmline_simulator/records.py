"""What the simulator saw and did: handshakes, requests, counters. Plain values; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Outcome = Literal[
    "running",  # not over yet
    "completed",  # response.completed was sent
    "incomplete",  # response.incomplete was sent
    "failed",  # response.failed was sent
    "error",  # an error frame, a flat SSE error or an HTTP error status was sent
    "refused",  # the simulator itself refused the request
    "ended",  # the script ended the answer without a terminal event
    "cut",  # the script dropped or closed the connection
    "aborted",  # the client went away before the answer was finished
]


class Headers(Mapping[str, str]):
    """HTTP headers: names without regard to case, several values per name in order of arrival."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple((name.lower(), value) for name, value in pairs)

    def __getitem__(self, name: str) -> str:
        """The first value of `name`; KeyError when it is absent."""
        wanted = name.lower()
        for key, value in self._pairs:
            if key == wanted:
                return value
        raise KeyError(name)

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`, oldest first; empty when it is absent."""
        wanted = name.lower()
        return [value for key, value in self._pairs if key == wanted]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All headers as they came, names in lower case."""
        return self._pairs

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for key, _ in self._pairs))

    def __len__(self) -> int:
        return len({key for key, _ in self._pairs})

    def __repr__(self) -> str:
        return f"Headers({list(self._pairs)!r})"


@dataclass(slots=True, kw_only=True)
class HandshakeRecord:
    """One WebSocket upgrade that arrived."""

    index: int
    """Position among all upgrades, from 0, in order of arrival."""
    connection_id: str
    """Name of the TCP connection; the same in the records of its requests."""
    path: str
    """Path with query, as received."""
    headers: Headers
    received_at_s: float
    """Seconds on the simulator's clock."""
    status: int | None = None
    """Status answered; None while unanswered, and for ever when the script swallows the upgrade."""
    response_headers: Headers = field(default_factory=Headers)
    """Headers answered; empty while unanswered."""
    answered_at_s: float | None = None
    compressed: bool = False
    """permessage-deflate was agreed."""
    closed_at_s: float | None = None
    """When the TCP connection ended, whoever ended it."""
    close_code: int | None = None
    """Code of the client's close frame; 1005 when it had none; None when no close frame came."""

    @property
    def at_s(self) -> float:
        """When the upgrade arrived."""
        return self.received_at_s


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request: a `response.create` frame, or an HTTP request."""

    index: int
    """Position in its list, from 0, in order of arrival."""
    transport: Literal["ws", "http"]
    connection: int
    """Index of the handshake the frame came through; -1 for HTTP."""
    connection_id: str
    method: str
    """HTTP method; GET, that of the upgrade, for a frame."""
    path: str
    """Path with query."""
    headers: Headers
    """Headers of the request; those of the upgrade for a frame."""
    received_at_s: float
    body: Json
    """The JSON object; empty when there was none or it could not be read."""
    raw: bytes
    """The body as received, after content decoding."""
    response_id: str | None = None
    """Id of the response it was answered with; None when no response came to be."""
    request_id: str | None = None
    """The x-request-id answered over HTTP. None for a frame: only the handshake has one."""
    status: int | None = None
    """HTTP status, or the status of an error frame; None while unanswered and for frames without an error."""
    error_code: str | None = None
    """Code of the error that ended it, if any."""
    outcome: Outcome = "running"
    finished: bool = False
    """Everything there was to send was handed to the network."""
    events_sent: int = 0
    hydrated: bool = False
    """Its previous response came from the store, not from the connection's memory."""
    scripted: bool = False
    """A scripted reply answered it."""
    visible_input: list[Json] | None = None
    """The whole conversation the model sees, oldest first; None when part of it is unknown."""
    queued_input: list[Json] = field(default_factory=list)
    """Items that steering queued before it; the model sees them ahead of its own input."""
    frames: list[bytes] = field(default_factory=list)
    """JSON texts sent, in order; kept only when the simulator was told to."""
    answered_at_s: float | None = None
    """When the first byte of an answer was handed to the network."""
    ended_at_s: float | None = None
    disconnected_at_s: float | None = None
    """When the connection was lost under it."""
    aborted_at_s: float | None = None
    """When the answer was given up because the client had gone."""

    @property
    def stream_id(self) -> str | None:
        """The lane it names; None for the default lane and for HTTP."""
        lane = self.body.get("stream_id") if self.transport == "ws" else None
        return lane if isinstance(lane, str) else None

    @property
    def previous_response_id(self) -> str | None:
        """The response it continues; None for a full request."""
        previous = self.body.get("previous_response_id")
        return previous if isinstance(previous, str) else None

    @property
    def is_warm_up(self) -> bool:
        """It prepares state and asks for no output."""
        options = self.body.get("prompt_cache_options")
        prewarm = isinstance(options, dict) and options.get("prewarm") is True
        return self.body.get("generate") is False or prewarm


@dataclass(slots=True, kw_only=True)
class SteerRecord:
    """One `response.steer` frame."""

    connection: int
    body: Json
    received_at_s: float
    steer_id: str | None = None
    """Id given to it; None when it was refused."""
    error_code: str | None = None
    successor: RequestRecord | None = None
    """The response that took the input up by itself; it is not among the requests, as nobody sent it."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """Totals since the start, except the `*_open` and `*_running` gauges."""

    sockets_open: int = 0
    sockets_total: int = 0
    """TCP connections, of either transport."""
    handshakes: int = 0
    """Upgrades that arrived."""
    handshakes_answered: int = 0
    upgrades_accepted: int = 0
    websockets_open: int = 0
    warm_ups: int = 0
    creates_full: int = 0
    """Frames without a previous response id, warm-ups not counted."""
    creates_delta: int = 0
    posts: int = 0
    """POST responses."""
    unary: int = 0
    """Other HTTP requests."""
    steers: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    events_sent: int = 0
    responses_running: int = 0
    responses_completed: int = 0
    responses_failed: int = 0
    """Failed, incomplete, or ended by an error."""
    refused: int = 0
    aborted_turns: int = 0
    """Answers given up because the client had gone."""

"""What a script can say: connections, replies and the steps inside a reply. Values only; `stage.py` keeps the place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from warmline_simulator.records import RequestRecord

Event = Mapping[str, Any]
Match = Callable[[RequestRecord], bool]
HeaderValues = Mapping[str, str | None]
"""Headers to add; None takes a header away that would be sent by default."""


class Waitable(Protocol):
    """Anything like asyncio.Event: something else decides when to go on."""

    def wait(self) -> Awaitable[Any]:
        """Return when the step may go on."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A WebSocket ping; on SSE a comment line."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for a while; pings are still answered."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Gate:
    """Hold here until `Simulator.release(name)`. Once released, a gate stays open."""

    name: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Reset the TCP connection at once (RST)."""


@dataclass(frozen=True, slots=True)
class Close:
    """WebSocket: a close frame, no code when `code` is None. HTTP: end the connection without ending the body."""

    code: int | None = 1000
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stall:
    """Half-open silence: from here on nothing is read, answered or sent, and the connection stays."""


@dataclass(frozen=True, slots=True)
class Hang:
    """The answer never goes on, but the connection lives: pings are answered, other lanes work."""


@dataclass(frozen=True, slots=True)
class Oversize:
    """One text delta of `size_bytes` bytes."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket frame with the given opcode and bits, correct or not. WebSocket only."""

    payload: bytes
    opcode: int = 1
    fin: bool = True
    rsv1: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """End the answer here, with or without a terminal event."""


@dataclass(frozen=True, slots=True)
class TextDeltas:
    """Many text deltas of one part, without silence between them: the model's fast form of as many events."""

    pieces: Sequence[str]
    item_id: str
    output_index: int
    content_index: int = 0


Step = Event | str | bytes | Ping | Pause | Gate | Drop | Close | Stall | Hang | Oversize | Frame | Nothing | TextDeltas


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer to one request (or to `times` of them).

    `events` are sent in order. An event is a dict; what it leaves out (`sequence_number`, the lane) is filled in, and
    the texts `{{response_id}}`, `{{key}}` and `{{model}}` in it are replaced. A str goes out as it is, bytes as a
    binary frame (HTTP: as raw bytes of the body).
    """

    events: Sequence[Step] = ()
    headers: HeaderValues = field(default_factory=dict)
    """HTTP response headers; on a WebSocket only with an error `status`, as the headers of the error frame."""
    status: int = 200
    """Other than 200: HTTP answers with it and `body`; a WebSocket sends an error frame with it."""
    body: str | bytes | Mapping[str, Any] | None = None
    """Body in place of events. Mapping: JSON. None with an error status: an error object that fits the status."""
    content_type: str | None = None
    """None: application/json, or text/event-stream with events."""
    delay_s: float = 0.0
    """Silence before the first byte of the answer, on HTTP before the headers."""
    between_s: float | None = None
    """Silence between events. None: none for scripted events, the simulator's pace for the model's."""
    then: Step | None = None
    """One more step after the events."""
    gate: str | Waitable | None = None
    """Hold the whole answer until a gate of that name, or an asyncio.Event, opens."""
    match: Match | None = None
    """Only for requests that satisfy it. None: any."""
    times: int | None = 1
    """How often it answers, and must answer. None: any number of times, also none."""
    response_id: str | None = None
    """Id for `{{response_id}}`. None: the first one the events spell out, else a new one."""
    by_model: bool = False
    """The built-in model answers; only delays, gate, headers and `then` of this reply apply."""

    @classmethod
    def model(cls, **options: Any) -> Reply:
        """A reply that the built-in model makes; takes the other fields as options."""
        return cls(by_model=True, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One WebSocket upgrade, taken in the order in which upgrades arrive."""

    accept_delay_s: float = 0.0
    """Silence before the upgrade is answered."""
    gate: str | Waitable | None = None
    """Hold the upgrade until a gate of that name, or an asyncio.Event, opens."""
    status: int = 101
    """Other than 101: the upgrade is refused with it."""
    headers: HeaderValues = field(default_factory=dict)
    body: str | bytes | Mapping[str, Any] | None = None
    """Body of a refusal. Mapping: JSON. None: an error object that fits the status."""
    replies: Sequence[Reply] = ()
    """Answers to this connection's creates, in order. After them the script's `creates`, then its `rest`."""
    then: Sequence[Step] = ()
    """Steps played right after the upgrade, beside whatever requests come."""
    close_after: int | None = None
    """Close once that many answers are finished. None: never."""
    close_code: int | None = 1000
    """Code for `close_after`."""
    swallow: bool = False
    """Read the upgrade and never answer it."""
    reset_after_bytes: int | None = None
    """Reset the TCP connection once that many bytes were sent after the upgrade. None: never."""
    read_bytes_per_s: float | None = None
    """Read no faster than this. None: as fast as it comes."""
    compression: bool = True
    """Agree to permessage-deflate when it is offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A run of the simulator. Everything listed must be asked for, or the run fails."""

    connections: Sequence[Connection] = ()
    """Upgrades, in order of arrival."""
    creates: Sequence[Reply] = ()
    """Answers to `response.create` frames of any connection whose own replies are used up."""
    posts: Sequence[Reply] = ()
    """Answers to POST responses."""
    compact: Sequence[Reply] = ()
    memories: Sequence[Reply] = ()
    model_replies: Sequence[Reply] = ()
    """Answers to GET models; after them the list is served."""
    models: Sequence[str] | None = None
    """Names GET models lists. None: the built-in list."""
    rest: Literal["model", "refuse"] = "model"
    """What happens after the scripted steps: the built-in model, or a refusal that also fails the run."""

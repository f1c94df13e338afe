"""What is known of each call, attempt and connect: filled in by the session, read by every observer.

The session is the only writer, but for `span`, which the tracing observer sets. An observer that needs a fact later
copies it. Times are `_unix_ns` for telemetry and `_at_s` (monotonic) for durations; None where the moment has not come.
Payloads are bytes as sent or received and leave the process only where content capture is switched on.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto

import msgspec

from warmline_server.core.errors import WarmlineError
from warmline_server.core.events import FullReason, Mismatch, SlotOutcome, Transport, Usage


class AttemptKind(Enum):
    TURN = auto()
    WARM_UP = auto()


class AttemptStatus(Enum):
    RUNNING = auto()
    COMPLETED = auto()
    INCOMPLETE = auto()
    FAILED = auto()
    CANCELLED = auto()


class CallOutcome(Enum):
    RUNNING = auto()
    COMPLETED = auto()
    INCOMPLETE = auto()
    FAILED = auto()
    CANCELLED = auto()


class SpanIds(msgspec.Struct, frozen=True):
    """A span's place: 32 and 16 hex digits. `sampled` False: the span is not kept, and says nothing of its links."""

    trace_id: str
    span_id: str
    sampled: bool


class SessionRecord(msgspec.Struct, eq=False):
    """Who a call or a connect belongs to."""

    session_id: str
    conversation_id: str
    tenant: str
    upstream: str
    provider: str
    server_address: str
    server_port: int


class CallRecord(msgspec.Struct, eq=False):
    """One StreamTurn call.

    `trace_carrier` holds the `traceparent` and `tracestate` of the RPC's span, empty when there is none. `error` is why
    it failed or was cancelled, None otherwise. `attempts` counts those that were begun: they know their call, and one
    that held them would keep them, requests and all, until the collector comes by. `queued`: payloads read from
    upstream and not yet written to the caller, now. `held_s`: the longest that an event waited in this server between
    its arrival and the start of its write; None before the first. `span` is None while it is not traced.
    """

    session: SessionRecord
    lane: str
    turn_id: str
    request_id: str
    started_unix_ns: int
    started_at_s: float
    trace_carrier: Mapping[str, str] = msgspec.field(default_factory=dict)
    ended_unix_ns: int | None = None
    ended_at_s: float | None = None
    outcome: CallOutcome = CallOutcome.RUNNING
    error: WarmlineError | None = None
    attempts: int = 0
    events_sent: int = 0
    response_id: str = ""
    upstream_request_id: str | None = None
    output_delivered: bool = False
    queued: Sequence[bytes] = ()
    held_s: float | None = None
    span: SpanIds | None = None


class ConnectRecord(msgspec.Struct, eq=False):
    """One WebSocket handshake. `began` is False while it waits for its place among the connects in flight.

    `call` is None for a warm-up; `status` is the HTTP status, None when none came; `span` None while it is not traced.
    """

    connection_id: str
    session: SessionRecord
    call: CallRecord | None
    started_unix_ns: int
    started_at_s: float
    ended_unix_ns: int | None = None
    ended_at_s: float | None = None
    status: int | None = None
    upstream_handshake_request_id: str | None = None
    error: WarmlineError | None = None
    began: bool = False
    abandoned: bool = False
    span: SpanIds | None = None


class AttemptRecord(msgspec.Struct, eq=False):
    """One concrete upstream request.

    `call` is None and `number` 0 for a warm-up. `request` is the body or frame as sent; `output_items` the finished
    items seen, verbatim. `full_reason` is None for an incremental request, and `incremental` tells it from "not sent".
    `replaces` is the attempt that this one was sent instead of. `longest_gap_s` is the longest wait between two events,
    None before the second. `span` is None while it is not traced. `auth_mode` and `auth_recovery_step` tell how the
    credential came, and which step of its recovery came before this attempt; blank: none did.
    """

    attempt_id: str
    session: SessionRecord
    call: CallRecord | None
    number: int
    kind: AttemptKind
    model: str
    transport: Transport
    started_unix_ns: int
    started_at_s: float
    slot_outcome: SlotOutcome = SlotOutcome.NONE
    connection_id: str = ""
    connect: ConnectRecord | None = None
    incremental: bool = False
    full_reason: FullReason | None = None
    mismatch: Mismatch | None = None
    previous_response_id: str = ""
    request: bytes = b""
    replaces: "AttemptRecord | None" = None
    first_event_unix_ns: int | None = None
    first_event_at_s: float | None = None
    ended_unix_ns: int | None = None
    ended_at_s: float | None = None
    status: AttemptStatus = AttemptStatus.RUNNING
    response_id: str = ""
    response_model: str = ""
    upstream_request_id: str | None = None
    http_status: int | None = None
    usage: Usage | None = None
    incomplete_reason: str = ""
    output_items: list[bytes] = msgspec.field(default_factory=list)
    events_received: int = 0
    longest_gap_s: float | None = None
    auth_mode: str = ""
    auth_recovery_step: str = ""
    error: WarmlineError | None = None
    span: SpanIds | None = None

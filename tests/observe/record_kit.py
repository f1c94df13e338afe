"""Records as a session fills them, for the tests of single observers."""

from collections.abc import Mapping
from itertools import count

from warmline_server.core.errors import Reason, UpstreamFailure, WarmlineError
from warmline_server.core.events import FullReason, SlotOutcome, Transport, Usage
from warmline_server.core.records import (
    AttemptKind,
    AttemptRecord,
    AttemptStatus,
    CallOutcome,
    CallRecord,
    ConnectRecord,
    SessionRecord,
)
from warmline_server.session.observer import Observer

_numbers = count(1)
START_NS = 1_700_000_000_000_000_000
USAGE = Usage(input_tokens=100, cached_input_tokens=60, output_tokens=20, reasoning_output_tokens=5, total_tokens=120)


def session(session_id: str = "s-1", *, tenant: str = "") -> SessionRecord:
    return SessionRecord(
        session_id=session_id,
        conversation_id="11111111-2222-4333-8444-555555555555",
        tenant=tenant,
        upstream="simulator",
        provider="openai",
        server_address="127.0.0.1",
        server_port=8080,
    )


def call(
    of: SessionRecord, turn_id: str = "turn-1", *, lane: str = "", carrier: Mapping[str, str] | None = None
) -> CallRecord:
    return CallRecord(
        session=of,
        lane=lane,
        turn_id=turn_id,
        request_id=f"request-{next(_numbers)}",
        started_unix_ns=START_NS,
        started_at_s=10.0,
        trace_carrier=carrier or {},
    )


def connect(of: SessionRecord, by: CallRecord | None = None) -> ConnectRecord:
    return ConnectRecord(
        connection_id=f"connection-{next(_numbers)}",
        session=of,
        call=by,
        started_unix_ns=START_NS + 1_000_000,
        started_at_s=10.001,
    )


def attempt(
    of: SessionRecord,
    by: CallRecord | None,
    over: ConnectRecord | None = None,
    *,
    slot_outcome: SlotOutcome = SlotOutcome.ADOPTED,
    request: bytes = b'{"type":"response.create","model":"m-1","input":[]}',
    replaces: AttemptRecord | None = None,
) -> AttemptRecord:
    """The next attempt of `by`, or (None) a warm-up's; over HTTP when `over` is None."""
    if by is not None:
        by.attempts += 1
    return AttemptRecord(
        attempt_id=f"attempt-{next(_numbers)}",
        session=of,
        call=by,
        number=by.attempts if by is not None else 0,
        kind=AttemptKind.TURN if by is not None else AttemptKind.WARM_UP,
        model="m-1",
        transport=Transport.HTTP if over is None else Transport.WEBSOCKET,
        started_unix_ns=START_NS + 5_000_000,
        started_at_s=10.005,
        slot_outcome=SlotOutcome.NONE if over is None else slot_outcome,
        connection_id=over.connection_id if over is not None else "",
        connect=over,
        full_reason=FullReason.TRANSPORT if over is None else FullReason.NEW_SOCKET,
        request=request,
        replaces=replaces,
    )


def refused(reason: Reason = Reason.UPSTREAM_FAILED, text: str = "refused", **more: object) -> UpstreamFailure:
    return UpstreamFailure(reason, text, **more)  # type: ignore[arg-type]


class Play:
    """Takes records through their steps on one observer, as a session would."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def warm(self, of: SessionRecord, *, request_id: str | None = "hs-1") -> ConnectRecord:
        return self.open(connect(of), request_id=request_id)

    def open(
        self, record: ConnectRecord, *, request_id: str | None = "hs-1", error: WarmlineError | None = None
    ) -> ConnectRecord:
        self.observer.connect_started(record)
        record.status, record.error = (101 if error is None else 503), error
        record.upstream_handshake_request_id = request_id
        record.ended_unix_ns, record.ended_at_s = record.started_unix_ns + 2_000_000, record.started_at_s + 0.002
        self.observer.connect_ended(record)
        return record

    def start(self, record: CallRecord) -> CallRecord:
        self.observer.call_started(record)
        return record

    def send(self, record: AttemptRecord) -> AttemptRecord:
        self.observer.attempt_started(record)
        return record

    def first_event(self, record: AttemptRecord) -> None:
        record.first_event_unix_ns, record.first_event_at_s = (
            record.started_unix_ns + 30_000_000,
            record.started_at_s + 0.03,
        )
        record.events_received = 1
        self.observer.attempt_first_event(record)

    def complete(
        self,
        record: AttemptRecord,
        response_id: str = "resp-1",
        *,
        request_id: str | None = None,
        items: tuple[bytes, ...] = (),
        usage: Usage | None = USAGE,
    ) -> None:
        self.first_event(record)
        record.events_received, record.longest_gap_s = 11, 0.02
        record.output_items = list(items)
        record.upstream_request_id, record.usage = request_id, usage
        self.finish(record, AttemptStatus.COMPLETED, response_id=response_id)

    def finish(
        self, record: AttemptRecord, status: AttemptStatus, error: WarmlineError | None = None, *, response_id: str = ""
    ) -> None:
        record.status, record.error, record.response_id = status, error, response_id
        record.ended_unix_ns, record.ended_at_s = record.started_unix_ns + 130_000_000, record.started_at_s + 0.13
        if record.call is not None:
            record.call.response_id = response_id or record.call.response_id
            record.call.upstream_request_id = record.upstream_request_id
        self.observer.attempt_ended(record)

    def end(self, record: CallRecord, outcome: CallOutcome, error: WarmlineError | None = None) -> None:
        record.outcome, record.error = outcome, error
        record.ended_unix_ns, record.ended_at_s = record.started_unix_ns + 200_000_000, record.started_at_s + 0.2
        self.observer.call_ended(record)

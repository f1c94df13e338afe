"""The observer that writes bundles: copies facts on the loop, and leaves the writing to a thread.

Best effort: whatever goes wrong ends the bundle with a `truncated` event, is logged once, and no call notices.
"""

from pathlib import Path

import msgspec

from warmline_server.core.errors import WarmlineError
from warmline_server.core.events import Usage
from warmline_server.core.records import (
    AttemptKind,
    AttemptRecord,
    AttemptStatus,
    CallOutcome,
    CallRecord,
    ConnectRecord,
    SessionRecord,
    SpanIds,
)
from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle.disk import (
    Build,
    Bundle,
    Disk,
    Files,
    LaneState,
    Payloads,
    Refs,
    TurnState,
    Write,
    now_ms,
)
from warmline_server.observe.bundle.format import Status
from warmline_server.session.observer import Observer

# Copies of requests and answers that wait for the disk, of all sessions together.
MAX_QUEUED_BYTES = 64 * 1024 * 1024

_STATUSES = {
    CallOutcome.COMPLETED: Status.COMPLETED,
    CallOutcome.INCOMPLETE: Status.COMPLETED,
    CallOutcome.CANCELLED: Status.CANCELLED,
}


class BundleObserver(Observer):
    """A bundle per session under `root`. `dropped` counts events that were not written."""

    def __init__(self, root: Path, *, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._root = root
        self._bundles: dict[SessionRecord, Bundle] = {}
        self._disk = Disk(max_queued_bytes)

    @property
    def dropped(self) -> int:
        """Events lost to a full queue or a failing disk."""
        return self._disk.dropped

    def close(self) -> None:
        """Writes what waits. Blocks for up to CLOSE_S."""
        self._disk.close()

    def session_opened(self, session: SessionRecord) -> None:
        bundle = self._bundles[session] = Bundle(self._root, session, now_ms())
        self._put(bundle, fmt.RolloutStarted(bundle.manifest.trace_id, bundle.manifest.root_thread_id))

    def session_closed(self, session: SessionRecord, reason: str) -> None:
        bundle = self._bundles[session]
        bundle.closing = True
        self._finish_when_idle(session, bundle)

    def _finish_when_idle(self, session: SessionRecord, bundle: Bundle) -> None:
        """A session is closed before its running calls have ended, and their ends belong into the bundle."""
        if not bundle.closing or bundle.running_calls:
            return
        del self._bundles[session]
        for lane in bundle.lanes.values():
            lane.newest = ""
            self._end_turns(bundle, lane)
            self._put(bundle, fmt.ThreadEnded(lane.thread_id, Status.COMPLETED), lane)
        self._put(bundle, fmt.RolloutEnded(Status.COMPLETED))

    def call_started(self, call: CallRecord) -> None:
        bundle = self._bundles[call.session]
        bundle.running_calls += 1
        lane = self._lane(bundle, call.lane)
        lane.newest = call.turn_id
        self._end_turns(bundle, lane)
        turn = lane.turns.get(call.turn_id)
        if turn is None:
            turn = lane.turns[call.turn_id] = TurnState(bundle.new_turn_key(call.turn_id))
            self._put(bundle, fmt.TurnStarted(turn.key, lane.thread_id), lane)
        turn.running_calls += 1
        trace_id, span_id = _span(call.span)
        started = fmt.CallStarted(call.request_id, call.turn_id, call.lane, call.started_unix_ns, trace_id, span_id)
        self._put(bundle, fmt.Other(started), lane)

    def call_ended(self, call: CallRecord) -> None:
        bundle = self._bundles[call.session]
        bundle.running_calls -= 1
        lane = bundle.lanes[call.lane]
        turn = lane.turns[call.turn_id]
        turn.status = _STATUSES.get(call.outcome, Status.FAILED)
        turn.running_calls -= 1
        fact = fmt.CallEnded(call.request_id, call.ended_unix_ns or 0, call.outcome.name.lower(), _reason(call.error))
        self._put(bundle, fmt.Other(fact), lane)
        self._end_turns(bundle, lane)
        self._finish_when_idle(call.session, bundle)

    def connect_ended(self, connect: ConnectRecord) -> None:
        bundle = self._bundles.get(connect.session)
        if bundle is None:
            return
        fact = fmt.Connect(
            connect.connection_id,
            connect.started_unix_ns,
            connect.ended_unix_ns or connect.started_unix_ns,
            connect.call.request_id if connect.call is not None else "",
            connect.status,
            connect.upstream_handshake_request_id,
            _reason(connect.error),
            connect.abandoned,
        )
        self._put(bundle, fmt.Other(fact))

    def attempt_started(self, attempt: AttemptRecord) -> None:
        if attempt.kind is AttemptKind.WARM_UP:  # C-026: a warm-up is no inference
            return
        bundle, call = self._bundles[attempt.session], attempt.call
        assert call is not None, "an attempt of a turn has its call"
        lane = bundle.lanes[call.lane]
        build = _start_builder(attempt, lane.thread_id, lane.turns[call.turn_id].key)
        self._write(bundle, build, {fmt.PayloadType.REQUEST: attempt.request}, lane)

    def attempt_ended(self, attempt: AttemptRecord) -> None:
        bundle = self._bundles.get(attempt.session)
        if bundle is None:
            return
        if attempt.kind is AttemptKind.WARM_UP:
            self._remember_warm_up(bundle, attempt)
            return
        assert attempt.call is not None, "an attempt of a turn has its call"
        completed = attempt.status in (AttemptStatus.COMPLETED, AttemptStatus.INCOMPLETE)
        has_payload = completed or bool(attempt.output_items)
        payloads = {fmt.PayloadType.RESPONSE: _response(attempt)} if has_payload else {}
        self._write(bundle, _end_builder(attempt), payloads, bundle.lanes[attempt.call.lane])

    def attempt_evidence(self, attempt: AttemptRecord) -> None:
        bundle = self._bundles.get(attempt.session)
        if bundle is not None and attempt.kind is AttemptKind.TURN:
            fact = fmt.Evidence(attempt.attempt_id, attempt.response_id or None, attempt.upstream_request_id)
            self._put(bundle, fmt.Other(fact))

    def retry_scheduled(
        self, call: CallRecord, attempt: AttemptRecord | None, failure: WarmlineError, delay_s: float
    ) -> None:
        failed = attempt.attempt_id if attempt is not None else ""
        self._put(self._bundles[call.session], fmt.Other(fmt.Retry(failed, delay_s, failure.reason.value)))

    def fell_back(self, session: SessionRecord, call: CallRecord | None, reason: str, *, latched: bool) -> None:
        fact = fmt.FellBack(reason, latched, call.request_id if call is not None else "")
        self._put(self._bundles[session], fmt.Other(fact))

    def _lane(self, bundle: Bundle, name: str) -> LaneState:
        lane = bundle.lanes.get(name)
        if lane is None:
            root = bundle.manifest.root_thread_id
            lane = bundle.lanes[name] = LaneState(f"{root}/{name}" if name else root)
            self._put(bundle, fmt.ThreadStarted(lane.thread_id, name), lane)
        return lane

    def _end_turns(self, bundle: Bundle, lane: LaneState) -> None:
        """Ends what the lane has left behind. Nobody tells when a turn had its last call, so the newest stays open."""
        for turn_id, turn in list(lane.turns.items()):
            if turn_id != lane.newest and not turn.running_calls:
                del lane.turns[turn_id]
                self._put(bundle, fmt.TurnEnded(turn.key, turn.status), lane)

    def _remember_warm_up(self, bundle: Bundle, attempt: AttemptRecord) -> None:
        if attempt.response_id:
            self._disk.do(len(attempt.request), bundle, lambda: bundle.files.remember_warm_up(attempt))

    def _put(self, bundle: Bundle, event: fmt.Event, lane: LaneState | None = None) -> None:
        self._write(bundle, lambda _files, _refs: event, {}, lane)

    def _write(self, bundle: Bundle, build: Build, payloads: Payloads, lane: LaneState | None) -> None:
        write = Write(now_ms(), build, payloads, lane.thread_id if lane is not None else None)
        self._disk.do(sum(map(len, payloads.values())), bundle, lambda: bundle.files.write(write))


def _start_builder(attempt: AttemptRecord, thread_id: str, turn_key: str) -> Build:
    # The record goes on changing while the event waits: everything is copied now.
    attempt_id, model, provider = attempt.attempt_id, attempt.model, attempt.session.provider
    previous_response_id, facts = attempt.previous_response_id, _attempt_facts(attempt)

    def build(files: Files, refs: Refs) -> fmt.Event:
        mode = files.input_mode(previous_response_id)
        return fmt.InferenceStarted(
            attempt_id, thread_id, turn_key, model, provider, refs[fmt.PayloadType.REQUEST], mode, facts
        )

    return build


def _end_builder(attempt: AttemptRecord) -> Build:
    """The terminal event; the first is the only one, because an attempt ends once (C-104)."""
    attempt_id, response_id = attempt.attempt_id, attempt.response_id or None
    request_id, reason = attempt.upstream_request_id, _reason(attempt.error)
    status = attempt.status
    facts = fmt.EndFacts(
        attempt.first_event_unix_ns,
        attempt.ended_unix_ns,
        attempt.http_status,
        attempt.events_received,
        attempt.incomplete_reason,
    )

    def build(files: Files, refs: Refs) -> fmt.Event:
        if response_id is not None:
            files.note_response(response_id)
        payload = refs.get(fmt.PayloadType.RESPONSE)
        if status is AttemptStatus.FAILED:
            return fmt.InferenceFailed(attempt_id, reason, request_id, payload, response_id, facts)
        if status is AttemptStatus.CANCELLED:
            return fmt.InferenceCancelled(attempt_id, reason or "caller", request_id, payload, response_id, facts)
        return fmt.InferenceCompleted(attempt_id, refs[fmt.PayloadType.RESPONSE], response_id, request_id, facts)

    return build


def _attempt_facts(attempt: AttemptRecord) -> fmt.AttemptFacts:
    trace_id, span_id = _span(attempt.span)
    connect = attempt.connect
    return fmt.AttemptFacts(
        request_id=attempt.call.request_id if attempt.call is not None else "",
        attempt=attempt.number,
        transport=attempt.transport.name.lower(),
        slot_outcome=attempt.slot_outcome.name.lower(),
        connection_id=attempt.connection_id,
        upstream_handshake_request_id=connect.upstream_handshake_request_id if connect is not None else None,
        incremental=attempt.incremental,
        full_reason=attempt.full_reason.name.lower() if attempt.full_reason is not None else "",
        replaces=attempt.replaces.attempt_id if attempt.replaces is not None else "",
        started_unix_ns=attempt.started_unix_ns,
        trace_id=trace_id,
        span_id=span_id,
    )


def _response(attempt: AttemptRecord) -> bytes:
    items = [msgspec.Raw(item) for item in attempt.output_items]
    usage = _usage(attempt.usage)
    return msgspec.json.encode(
        fmt.ResponsePayload(attempt.response_id or None, attempt.upstream_request_id, usage, items)
    )


def _usage(usage: Usage | None) -> fmt.TokenUsage | None:
    if usage is None:
        return None
    return fmt.TokenUsage(
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_output_tokens,
        usage.total_tokens,
    )


def _reason(error: WarmlineError | None) -> str:
    """The code alone: an error's text can quote a provider."""
    return error.reason.value if error is not None else ""


def _span(span: SpanIds | None) -> tuple[str, str]:
    return (span.trace_id, span.span_id) if span is not None else ("", "")

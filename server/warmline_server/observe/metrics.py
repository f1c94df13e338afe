"""Records made into metrics. No session, tenant, turn or request is ever an attribute: their number has no bound."""

from collections.abc import Callable
from enum import StrEnum

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation, UpDownCounter

from warmline_server.core.errors import WarmlineError
from warmline_server.core.records import (
    AttemptRecord,
    CallOutcome,
    CallRecord,
    ConnectRecord,
    SessionRecord,
)
from warmline_server.observe import metric_table as table
from warmline_server.observe import names
from warmline_server.observe.attributes import Attributes
from warmline_server.observe.metric_table import Metric
from warmline_server.session.observer import Observer

_CIRCUIT_LEVELS = {"CLOSED": 0, "PROBING": 1, "OPEN": 2}


class GenAiNames(StrEnum):
    """Which generation of the GenAI metric names is emitted."""

    LATEST = "latest"
    V1_3X = "v1_3x"
    BOTH = "both"


def open_meter(provider: MeterProvider) -> Meter:
    """The meter of all our metrics."""
    return provider.get_meter(names.SCOPE, schema_url=names.SCHEMA_URL)


def counter(meter: Meter, metric: Metric) -> Counter:
    """The instrument of a COUNTER of the table."""
    return meter.create_counter(metric.name, metric.unit, metric.says)


def up_down(meter: Meter, metric: Metric) -> UpDownCounter:
    """The instrument of an UP_DOWN of the table."""
    return meter.create_up_down_counter(metric.name, metric.unit, metric.says)


def histogram(meter: Meter, metric: Metric) -> Histogram:
    """The instrument of a HISTOGRAM of the table, with its buckets."""
    return meter.create_histogram(
        metric.name, metric.unit, metric.says, explicit_bucket_boundaries_advisory=metric.buckets
    )


def observe_dropped(provider: MeterProvider, read: Callable[[], int]) -> None:
    """Tells how many bundle events were lost, whenever metrics are collected."""
    metric = table.BUNDLE_DROPPED
    open_meter(provider).create_observable_counter(
        metric.name, [lambda _options: [Observation(read())]], metric.unit, metric.says
    )


class MetricsObserver(Observer):
    """Counts what sessions, calls, connects and attempts do."""

    def __init__(self, provider: MeterProvider, genai: GenAiNames = GenAiNames.LATEST) -> None:
        meter = open_meter(provider)
        self._genai: list[_GenAi] = []
        if genai is not GenAiNames.V1_3X:
            self._genai.append(_LatestGenAi(meter))
        if genai is not GenAiNames.LATEST:
            self._genai.append(_OlderGenAi(meter))
        self._running: set[CallRecord] = set()
        self._latched: set[SessionRecord] = set()
        self._slot_states: dict[SessionRecord, str] = {}
        self._circuits: dict[str, int] = {}
        self._sessions, self._slots = up_down(meter, table.SESSIONS), up_down(meter, table.SLOTS)
        self._sockets, self._calls_active = up_down(meter, table.SOCKETS), up_down(meter, table.CALLS_ACTIVE)
        self._slot_outcomes = counter(meter, table.SLOT_OUTCOMES)
        self._connects, self._closes = counter(meter, table.CONNECTS), counter(meter, table.SOCKET_CLOSES)
        self._calls, self._refusals = counter(meter, table.CALLS), counter(meter, table.REFUSALS)
        self._attempts, self._events = counter(meter, table.ATTEMPTS), counter(meter, table.EVENTS)
        self._retries, self._fallbacks = counter(meter, table.RETRIES), counter(meter, table.FALLBACKS)
        self._connect_duration = histogram(meter, table.CONNECT_DURATION)
        self._call_duration, self._held = histogram(meter, table.CALL_DURATION), histogram(meter, table.CALL_HELD)
        self._time_to_send = histogram(meter, table.CALL_TIME_TO_SEND)
        self._longest_gap = histogram(meter, table.LONGEST_GAP)
        meter.create_observable_gauge(
            table.QUEUE_BYTES.name, [self._read_queues], table.QUEUE_BYTES.unit, table.QUEUE_BYTES.says
        )
        meter.create_observable_gauge(table.CIRCUIT.name, [self._read_circuits], table.CIRCUIT.unit, table.CIRCUIT.says)

    def session_opened(self, session: SessionRecord) -> None:
        self._sessions.add(1, _session_state(session, latched=False))
        self._move_slot(session, "IDLE")

    def session_closed(self, session: SessionRecord, reason: str) -> None:
        self._sessions.add(-1, _session_state(session, latched=session in self._latched))
        self._latched.discard(session)
        self._move_slot(session, "CLOSED")

    def slot_changed(self, session: SessionRecord, former: str, state: str) -> None:
        self._move_slot(session, state)

    def fell_back(self, session: SessionRecord, call: CallRecord | None, reason: str, *, latched: bool) -> None:
        found = _of(session) | {names.REASON: reason, names.LATCHED: latched}
        self._fallbacks.add(1, found)
        if latched and session not in self._latched:
            self._move(session, latched=True)

    def unlatched(self, session: SessionRecord) -> None:
        if session in self._latched:
            self._move(session, latched=False)

    def circuit_changed(self, upstream: str, state: str) -> None:
        self._circuits[upstream] = _CIRCUIT_LEVELS[state]

    def call_refused(self, reason: str) -> None:
        self._refusals.add(1, {names.REASON: reason})

    def call_started(self, call: CallRecord) -> None:
        self._running.add(call)
        self._calls_active.add(1, _of(call.session))

    def call_ended(self, call: CallRecord) -> None:
        self._running.discard(call)
        found = _of(call.session)
        self._calls_active.add(-1, found)
        outcome = CallOutcome.FAILED if call.outcome is CallOutcome.RUNNING else call.outcome
        ended = found | {names.OUTCOME: outcome.name.lower()}
        self._calls.add(1, ended | _reason(call.error))
        if call.ended_at_s is not None:
            self._call_duration.record(call.ended_at_s - call.started_at_s, ended)
        if call.held_s is not None:
            self._held.record(call.held_s, found)

    def connect_ended(self, connect: ConnectRecord) -> None:
        opened = connect.error is None and not connect.abandoned
        outcome = "open" if opened else "abandoned" if connect.abandoned else "failed"
        kind = "preconnect" if connect.call is None else "call"
        found = _of(connect.session) | {table.CONNECT_KIND: kind, names.OUTCOME: outcome}
        self._connects.add(1, found | _reason(connect.error))
        if connect.ended_at_s is not None:
            self._connect_duration.record(connect.ended_at_s - connect.started_at_s, found)
        if opened:
            self._sockets.add(1, _of(connect.session))

    def socket_closed(self, connect: ConnectRecord, cause: str, code: int | None) -> None:
        found = _of(connect.session)
        self._sockets.add(-1, found)
        self._closes.add(1, found | {table.CAUSE: cause} | ({} if code is None else {table.CODE: code}))

    def attempt_started(self, attempt: AttemptRecord) -> None:
        call = attempt.call
        if call is None:
            return
        found = _of(attempt.session) | {names.SLOT_OUTCOME: attempt.slot_outcome.name.lower()}
        self._slot_outcomes.add(1, found)
        if attempt.number == 1:
            self._time_to_send.record(attempt.started_at_s - call.started_at_s, found)

    def attempt_ended(self, attempt: AttemptRecord) -> None:
        found = _of(attempt.session)
        self._events.add(attempt.events_received, found)
        found[names.TRANSPORT] = attempt.transport.name.lower()
        if attempt.longest_gap_s is not None:
            self._longest_gap.record(attempt.longest_gap_s, found)
        found[names.ATTEMPT_KIND] = attempt.kind.name.lower()
        found[names.OUTCOME] = attempt.status.name.lower()
        found[names.INCREMENTAL] = attempt.incremental
        self._attempts.add(1, found | _reason(attempt.error))
        for genai in self._genai:
            genai.record(attempt)

    def retry_scheduled(self, attempt: AttemptRecord, delay_s: float) -> None:
        self._retries.add(1, _of(attempt.session) | _reason(attempt.error))

    def _move(self, session: SessionRecord, *, latched: bool) -> None:
        (self._latched.add if latched else self._latched.discard)(session)
        self._sessions.add(-1, _session_state(session, latched=not latched))
        self._sessions.add(1, _session_state(session, latched=latched))

    def _move_slot(self, session: SessionRecord, state: str) -> None:
        known = self._slot_states.pop(session, None)
        if known is not None:
            self._slots.add(-1, _slot_state(session, known))
        if state != "CLOSED":
            self._slot_states[session] = state
            self._slots.add(1, _slot_state(session, state))

    # Called by the reader's own thread: one copy, made in one step, then plain reads.

    def _read_queues(self, _options: CallbackOptions) -> list[Observation]:
        return [Observation(sum(call.queued_bytes for call in tuple(self._running)))]

    def _read_circuits(self, _options: CallbackOptions) -> list[Observation]:
        return [Observation(level, {names.UPSTREAM: name}) for name, level in tuple(self._circuits.items())]


class _GenAi:
    """One generation of the GenAI metrics of an attempt."""

    duration: Histogram
    first_chunk: Histogram
    per_chunk: Histogram

    def record(self, attempt: AttemptRecord) -> None:
        found = _inference(attempt)
        if attempt.ended_at_s is not None:
            failed: Attributes = {} if attempt.error is None else {names.ERROR_TYPE: attempt.error.reason.value}
            self.duration.record(attempt.ended_at_s - attempt.started_at_s, found | failed)
        if attempt.first_event_at_s is not None:
            self.first_chunk.record(attempt.first_event_at_s - attempt.started_at_s, found)
            gaps = attempt.events_received - 1
            if gaps > 0 and attempt.ended_at_s is not None:
                self.per_chunk.record((attempt.ended_at_s - attempt.first_event_at_s) / gaps, found)
        self.record_usage(attempt, found)

    def record_usage(self, attempt: AttemptRecord, found: Attributes) -> None:
        raise NotImplementedError


class _LatestGenAi(_GenAi):
    def __init__(self, meter: Meter) -> None:
        self.duration = histogram(meter, table.GENAI_DURATION)
        self.first_chunk = histogram(meter, table.GENAI_FIRST_CHUNK)
        self.per_chunk = histogram(meter, table.GENAI_PER_CHUNK)
        self._input, self._cached = counter(meter, table.GENAI_INPUT), counter(meter, table.GENAI_CACHED)
        self._output, self._reasoning = counter(meter, table.GENAI_OUTPUT), counter(meter, table.GENAI_REASONING)

    def record_usage(self, attempt: AttemptRecord, found: Attributes) -> None:
        usage = attempt.usage
        if usage is None:
            return
        found = found | {table.USAGE_MODALITY: "unknown"}
        self._input.add(usage.input_tokens, found)
        self._cached.add(usage.cached_input_tokens, found)
        self._output.add(usage.output_tokens, found)
        self._reasoning.add(usage.reasoning_output_tokens, found)


class _OlderGenAi(_GenAi):
    def __init__(self, meter: Meter) -> None:
        self.duration = histogram(meter, table.OLD_DURATION)
        self.first_chunk = histogram(meter, table.OLD_FIRST_CHUNK)
        self.per_chunk = histogram(meter, table.OLD_PER_CHUNK)
        self._tokens = histogram(meter, table.OLD_TOKENS)

    def record_usage(self, attempt: AttemptRecord, found: Attributes) -> None:
        if attempt.usage is not None:
            self._tokens.record(attempt.usage.input_tokens, found | {table.USAGE_SIDE: "input"})
            self._tokens.record(attempt.usage.output_tokens, found | {table.USAGE_SIDE: "output"})


def _of(session: SessionRecord) -> Attributes:
    return {names.UPSTREAM: session.upstream}


def _session_state(session: SessionRecord, *, latched: bool) -> Attributes:
    return _of(session) | {table.STATE: "latched" if latched else "websocket"}


def _slot_state(session: SessionRecord, state: str) -> Attributes:
    return _of(session) | {table.STATE: state.lower()}


def _reason(error: WarmlineError | None) -> Attributes:
    return {} if error is None else {names.REASON: error.reason.value}


def _inference(attempt: AttemptRecord) -> Attributes:
    return {
        names.GEN_AI_OPERATION: names.CHAT,
        names.GEN_AI_PROVIDER: attempt.session.provider,
        names.GEN_AI_REQUEST_MODEL: attempt.model,
        names.ATTEMPT_KIND: attempt.kind.name.lower(),
    }

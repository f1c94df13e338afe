"""Records made into metrics. No session, tenant, turn or request is ever an attribute: their number has no bound."""

from collections.abc import Callable
from enum import StrEnum

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
from opentelemetry.util.types import AttributeValue

from warmline_server.core.errors import WarmlineError
from warmline_server.core.events import Usage
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
from warmline_server.observe.metric_table import Kind, Metric
from warmline_server.session.observer import Observer

_WEBSOCKET, _LATCHED = "websocket", "latched"
_CIRCUIT_LEVELS = {"CLOSED": 0, "PROBING": 1, "OPEN": 2}


# Streams of one metric. A caller chooses the model's name, so there could be any number.
# Source: OpenTelemetry's own default limit.
MAX_STREAMS = 2000
OVERFLOW: tuple[AttributeValue | None, ...] = ("otel.metric.overflow",)


class GenAiNames(StrEnum):
    """Which generation of the GenAI metric names is emitted."""

    LATEST = "latest"
    V1_3X = "v1_3x"
    BOTH = "both"


def open_meter(provider: MeterProvider) -> Meter:
    """The meter of all our metrics."""
    return provider.get_meter(names.SCOPE, schema_url=names.SCHEMA_URL)


class Tally:
    """A COUNTER, UP_DOWN or GAUGE of the table, kept in a dictionary and read when metrics are collected.

    An addition to the SDK's own counter takes 7 µs, and a turn makes ten (measured, opentelemetry-sdk 1.45.2).
    Values of attributes are given in the table's order, None for one that does not apply.
    """

    def __init__(self, meter: Meter, metric: Metric) -> None:
        self._metric = metric
        self._sums: dict[tuple[AttributeValue | None, ...], int] = {}
        create = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.UP_DOWN: meter.create_observable_up_down_counter,
            Kind.GAUGE: meter.create_observable_gauge,
        }[metric.kind]
        create(metric.name, [self._read], metric.unit, metric.says)

    def add(self, amount: int, *values: AttributeValue | None) -> None:
        """Adds to the sum of these attributes."""
        key = self._key(values)
        self._sums[key] = self._sums.get(key, 0) + amount

    def set(self, amount: int, *values: AttributeValue | None) -> None:
        """Sets the sum of these attributes."""
        self._sums[self._key(values)] = amount

    def _key(self, values: tuple[AttributeValue | None, ...]) -> tuple[AttributeValue | None, ...]:
        return values if values in self._sums or len(self._sums) < MAX_STREAMS else OVERFLOW

    def _read(self, _options: CallbackOptions) -> list[Observation]:
        # In the reader's thread: one copy, made in one step.
        return [Observation(amount, self._attributes(values)) for values, amount in tuple(self._sums.items())]

    def _attributes(self, values: tuple[AttributeValue | None, ...]) -> Attributes:
        if values == OVERFLOW:
            return {"otel.metric.overflow": True}
        return {name: value for name, value in zip(self._metric.attributes, values, strict=True) if value is not None}


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
        self._sessions, self._slots = Tally(meter, table.SESSIONS), Tally(meter, table.SLOTS)
        self._sockets, self._calls_active = Tally(meter, table.SOCKETS), Tally(meter, table.CALLS_ACTIVE)
        self._slot_outcomes, self._circuit = Tally(meter, table.SLOT_OUTCOMES), Tally(meter, table.CIRCUIT)
        self._connects, self._closes = Tally(meter, table.CONNECTS), Tally(meter, table.SOCKET_CLOSES)
        self._calls, self._refusals = Tally(meter, table.CALLS), Tally(meter, table.REFUSALS)
        self._attempts, self._events = Tally(meter, table.ATTEMPTS), Tally(meter, table.EVENTS)
        self._retries, self._fallbacks = Tally(meter, table.RETRIES), Tally(meter, table.FALLBACKS)
        self._connect_duration = histogram(meter, table.CONNECT_DURATION)
        self._call_duration, self._held = histogram(meter, table.CALL_DURATION), histogram(meter, table.CALL_HELD)
        self._time_to_send = histogram(meter, table.CALL_TIME_TO_SEND)
        self._longest_gap = histogram(meter, table.LONGEST_GAP)
        queue = table.QUEUE_BYTES
        meter.create_observable_gauge(queue.name, [self._read_queues], queue.unit, queue.says)

    def session_opened(self, session: SessionRecord) -> None:
        self._sessions.add(1, session.upstream, _WEBSOCKET)
        self._move_slot(session, "IDLE")

    def session_closed(self, session: SessionRecord, reason: str) -> None:
        self._sessions.add(-1, session.upstream, _LATCHED if session in self._latched else _WEBSOCKET)
        self._latched.discard(session)
        self._move_slot(session, "CLOSED")

    def slot_changed(self, session: SessionRecord, former: str, state: str) -> None:
        self._move_slot(session, state)

    def fell_back(self, session: SessionRecord, call: CallRecord | None, reason: str, *, latched: bool) -> None:
        self._fallbacks.add(1, session.upstream, reason, latched)
        if latched and session not in self._latched:
            self._latched.add(session)
            self._sessions.add(-1, session.upstream, _WEBSOCKET)
            self._sessions.add(1, session.upstream, _LATCHED)

    def unlatched(self, session: SessionRecord) -> None:
        if session in self._latched:
            self._latched.discard(session)
            self._sessions.add(-1, session.upstream, _LATCHED)
            self._sessions.add(1, session.upstream, _WEBSOCKET)

    def circuit_changed(self, upstream: str, state: str) -> None:
        self._circuit.set(_CIRCUIT_LEVELS[state], upstream)

    def call_refused(self, reason: str) -> None:
        self._refusals.add(1, str(reason))

    def caller_refused(self, reason: str) -> None:
        self.call_refused(reason)

    def call_started(self, call: CallRecord) -> None:
        self._running.add(call)
        self._calls_active.add(1, call.session.upstream)

    def call_ended(self, call: CallRecord) -> None:
        self._running.discard(call)
        upstream = call.session.upstream
        outcome = CallOutcome.FAILED if call.outcome is CallOutcome.RUNNING else call.outcome
        ended = outcome.name.lower()
        self._calls_active.add(-1, upstream)
        self._calls.add(1, upstream, ended, _reason(call.error))
        if call.ended_at_s is not None:
            found: Attributes = {names.UPSTREAM: upstream, names.OUTCOME: ended}
            self._call_duration.record(call.ended_at_s - call.started_at_s, found)
        if call.held_s is not None:
            self._held.record(call.held_s, {names.UPSTREAM: upstream})

    def connect_ended(self, connect: ConnectRecord) -> None:
        upstream = connect.session.upstream
        opened = connect.error is None and not connect.abandoned
        outcome = "open" if opened else "abandoned" if connect.abandoned else "failed"
        kind = "preconnect" if connect.call is None else "call"
        self._connects.add(1, upstream, kind, outcome, _reason(connect.error))
        if connect.ended_at_s is not None:
            found: Attributes = {names.UPSTREAM: upstream, table.CONNECT_KIND: kind, names.OUTCOME: outcome}
            self._connect_duration.record(connect.ended_at_s - connect.started_at_s, found)
        if opened:
            self._sockets.add(1, upstream)

    def socket_closed(self, connect: ConnectRecord, cause: str, code: int | None) -> None:
        self._sockets.add(-1, connect.session.upstream)
        self._closes.add(1, connect.session.upstream, cause, code)

    def attempt_started(self, attempt: AttemptRecord) -> None:
        call = attempt.call
        if call is None:
            return
        upstream, outcome = attempt.session.upstream, attempt.slot_outcome.name.lower()
        self._slot_outcomes.add(1, upstream, outcome)
        if attempt.number == 1:
            found: Attributes = {names.UPSTREAM: upstream, names.SLOT_OUTCOME: outcome}
            self._time_to_send.record(attempt.started_at_s - call.started_at_s, found)

    def attempt_ended(self, attempt: AttemptRecord) -> None:
        upstream, transport = attempt.session.upstream, attempt.transport.name.lower()
        self._events.add(attempt.events_received, upstream)
        self._attempts.add(
            1,
            upstream,
            transport,
            attempt.kind.name.lower(),
            attempt.status.name.lower(),
            _reason(attempt.error),
            attempt.incremental,
        )
        if attempt.longest_gap_s is not None:
            found: Attributes = {names.UPSTREAM: upstream, names.TRANSPORT: transport}
            self._longest_gap.record(attempt.longest_gap_s, found)
        for genai in self._genai:
            genai.record(attempt)

    def retry_scheduled(
        self, call: CallRecord, attempt: AttemptRecord | None, failure: WarmlineError, delay_s: float
    ) -> None:
        self._retries.add(1, call.session.upstream, failure.reason.value)

    def _move_slot(self, session: SessionRecord, state: str) -> None:
        known = self._slot_states.pop(session, None)
        if known is not None:
            self._slots.add(-1, session.upstream, known.lower())
        if state != "CLOSED":
            self._slot_states[session] = state
            self._slots.add(1, session.upstream, state.lower())

    def _read_queues(self, _options: CallbackOptions) -> list[Observation]:
        # In the reader's thread: one copy, made in one step, then plain reads.
        return [Observation(sum(len(payload) for call in tuple(self._running) for payload in call.queued))]


class _GenAi:
    """One generation of the GenAI metrics of an attempt."""

    duration: Histogram
    first_chunk: Histogram
    per_chunk: Histogram

    def record(self, attempt: AttemptRecord) -> None:
        """Measures an attempt that has ended."""
        found: Attributes = dict(zip(table.INFERENCE, _inference(attempt), strict=True))
        if attempt.ended_at_s is not None:
            failed: Attributes = {} if attempt.error is None else {names.ERROR_TYPE: attempt.error.reason.value}
            self.duration.record(attempt.ended_at_s - attempt.started_at_s, found | failed)
        if attempt.first_event_at_s is not None:
            self.first_chunk.record(attempt.first_event_at_s - attempt.started_at_s, found)
            gaps = attempt.events_received - 1
            if gaps > 0 and attempt.ended_at_s is not None:
                self.per_chunk.record((attempt.ended_at_s - attempt.first_event_at_s) / gaps, found)
        if attempt.usage is not None:
            self.record_usage(attempt, attempt.usage)

    def record_usage(self, attempt: AttemptRecord, usage: Usage) -> None:
        """Measures what it used."""
        raise NotImplementedError


class _LatestGenAi(_GenAi):
    def __init__(self, meter: Meter) -> None:
        self.duration = histogram(meter, table.GENAI_DURATION)
        self.first_chunk = histogram(meter, table.GENAI_FIRST_CHUNK)
        self.per_chunk = histogram(meter, table.GENAI_PER_CHUNK)
        self._input, self._cached = Tally(meter, table.GENAI_INPUT), Tally(meter, table.GENAI_CACHED)
        self._output, self._reasoning = Tally(meter, table.GENAI_OUTPUT), Tally(meter, table.GENAI_REASONING)

    def record_usage(self, attempt: AttemptRecord, usage: Usage) -> None:
        values = (*_inference(attempt), "unknown")
        self._input.add(usage.input_tokens, *values)
        self._cached.add(usage.cached_input_tokens, *values)
        self._output.add(usage.output_tokens, *values)
        self._reasoning.add(usage.reasoning_output_tokens, *values)


class _OlderGenAi(_GenAi):
    def __init__(self, meter: Meter) -> None:
        self.duration = histogram(meter, table.OLD_DURATION)
        self.first_chunk = histogram(meter, table.OLD_FIRST_CHUNK)
        self.per_chunk = histogram(meter, table.OLD_PER_CHUNK)
        self._tokens = histogram(meter, table.OLD_TOKENS)

    def record_usage(self, attempt: AttemptRecord, usage: Usage) -> None:
        found: Attributes = dict(zip(table.INFERENCE, _inference(attempt), strict=True))
        self._tokens.record(usage.input_tokens, found | {table.USAGE_SIDE: "input"})
        self._tokens.record(usage.output_tokens, found | {table.USAGE_SIDE: "output"})


def _reason(error: WarmlineError | None) -> str | None:
    return None if error is None else error.reason.value


def _inference(attempt: AttemptRecord) -> tuple[str, ...]:
    """Values of `table.INFERENCE`."""
    return names.CHAT, attempt.session.provider, attempt.model, attempt.kind.name.lower()

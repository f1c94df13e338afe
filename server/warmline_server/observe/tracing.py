"""Records made into spans: RPC ▸ turn ▸ `chat {model}`, `connect` beside it, `preconnect` as a root of its own.

Parents are passed by value and no span is ever current across an await: the steps of many calls interleave on one
thread. Every span that starts here ends here, with the ids that are known by then.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from warmline_server.core.errors import Reason, WarmlineError
from warmline_server.core.records import (
    AttemptRecord,
    CallOutcome,
    CallRecord,
    ConnectRecord,
    SessionRecord,
    SpanIds,
)
from warmline_server.observe import attributes, names
from warmline_server.observe.attributes import Attributes, Capture
from warmline_server.session.observer import Observer

rpc_span: ContextVar[Span] = ContextVar("rpc_span", default=INVALID_SPAN)
"""The SERVER span of the RPC that this task serves, set by the interceptor; never OTel's current span."""

# The caller wished it, or another call of the caller's did: nothing is wrong with the service.
WISHED = frozenset({Reason.TURN_CANCELLED, Reason.TURN_PREEMPTED, Reason.SESSION_CLOSED})

_propagator = TraceContextTextMapPropagator()
_ROOT = Context()


def open_tracer(provider: TracerProvider) -> Tracer:
    """The tracer of all our spans."""
    return provider.get_tracer(names.SCOPE, schema_url=names.SCHEMA_URL)


def carrier_of(span: Span) -> Mapping[str, str]:
    """`traceparent` and `tracestate` that name `span` as the parent; empty for an invalid span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, set_span_in_context(span, _ROOT))
    return carrier


class TracingObserver(Observer):
    """Spans of calls, connects and attempts. Sets `span` on each record, so observers after it can name the span.

    Args: `capture`: None keeps content out of spans; `is_recorded` False: nobody takes spans, so they have ids, for the
        logs, and say nothing.
    """

    def __init__(self, provider: TracerProvider, *, capture: Capture | None = None, is_recorded: bool = True) -> None:
        self._tracer = open_tracer(provider)
        self._capture = capture
        self._is_recorded = is_recorded
        self._calls: dict[CallRecord, Span] = {}
        self._rpcs: dict[CallRecord, Span] = {}
        self._connects: dict[ConnectRecord, Span] = {}
        self._attempts: dict[AttemptRecord, Span] = {}

    @property
    def live(self) -> int:
        """Spans that have started and not ended."""
        return len(self._calls) + len(self._connects) + len(self._attempts)

    def call_started(self, call: CallRecord) -> None:
        parent = _propagator.extract(call.trace_carrier, _ROOT)
        found = attributes.of_call(call) if self._is_recorded else {}
        span = self._start(names.CALL_SPAN, SpanKind.INTERNAL, parent, found, call.started_unix_ns)
        self._calls[call], call.span = span, _ids_of(span)
        rpc = rpc_span.get()
        # A contextvar is inherited by tasks; the carrier says whether the call really hangs beneath this RPC.
        if rpc.is_recording() and _ids_of(rpc) == _ids_of(get_current_span(parent)):
            self._rpcs[call] = rpc
            rpc.set_attributes({names.TURN_ID: call.turn_id, names.SESSION_ID: call.session.session_id})

    def call_ended(self, call: CallRecord) -> None:
        span = self._calls.pop(call)
        rpc = self._rpcs.pop(call, None)
        if not span.is_recording():
            return
        found = attributes.of_call_end(call)
        if rpc is not None and rpc.is_recording():
            ids = (names.RESPONSE_ID, names.UPSTREAM_REQUEST_ID)
            rpc.set_attributes({name: found[name] for name in ids if name in found})
        if call.outcome is CallOutcome.RUNNING:  # only a fault of ours ends a call without an outcome
            span.set_status(Status(StatusCode.ERROR, Reason.INTERNAL.value))
        _end(span, found, call.error, call.ended_unix_ns)

    def connect_started(self, connect: ConnectRecord) -> None:
        name = names.PRECONNECT_SPAN if connect.call is None else names.CONNECT_SPAN
        parent = self._beneath_call(connect.call) if connect.call is not None else _ROOT
        found = attributes.of_connect(connect) if self._is_recorded else {}
        span = self._start(name, SpanKind.CLIENT, parent, found, connect.started_unix_ns)
        self._connects[connect], connect.span = span, _ids_of(span)

    def connect_ended(self, connect: ConnectRecord) -> None:
        _end(self._connects.pop(connect), attributes.of_connect_end(connect), connect.error, connect.ended_unix_ns)

    def attempt_started(self, attempt: AttemptRecord) -> None:
        links = [link for link in (_connection_link(attempt), _replaces_link(attempt)) if link is not None]
        name = f"{names.CHAT} {attempt.model}"
        found = attributes.of_attempt(attempt) if self._is_recorded else {}
        parent = self._parent_of(attempt)
        span = self._start(name, SpanKind.CLIENT, parent, found, attempt.started_unix_ns, links)
        self._attempts[attempt], attempt.span = span, _ids_of(span)

    def attempt_first_event(self, attempt: AttemptRecord) -> None:
        self._attempts[attempt].add_event(names.FIRST_EVENT, timestamp=attempt.first_event_unix_ns)

    def attempt_ended(self, attempt: AttemptRecord) -> None:
        span = self._attempts.pop(attempt)
        if span.is_recording():
            _end(span, attributes.of_attempt_end(attempt, self._capture), attempt.error, attempt.ended_unix_ns)

    def attempt_evidence(self, attempt: AttemptRecord) -> None:
        """A span that has ended takes nothing more, so what came late is a span of its own beneath it."""
        if attempt.span is None:
            return
        found = attributes.of_evidence(attempt) | {names.ATTEMPT_ID: attempt.attempt_id}
        if attempt.call is not None:
            found[names.TURN_ID] = attempt.call.turn_id
        self._start(names.EVIDENCE_SPAN, SpanKind.INTERNAL, _beneath(attempt.span), found, None).end()

    def retry_scheduled(
        self, call: CallRecord, attempt: AttemptRecord | None, failure: WarmlineError, delay_s: float
    ) -> None:
        span = self._calls.get(call)
        if span is not None:
            found = attributes.of_error(failure) | {names.DELAY: delay_s}
            if attempt is not None:
                found[names.ATTEMPT_NUMBER] = attempt.number
            span.add_event(names.RETRY_SCHEDULED, found)

    def fell_back(self, session: SessionRecord, call: CallRecord | None, reason: str, *, latched: bool) -> None:
        span = self._calls.get(call) if call is not None else None
        if span is not None:
            span.add_event(names.FELL_BACK, {names.REASON: reason, names.LATCHED: latched})

    def _start(
        self,
        name: str,
        kind: SpanKind,
        parent: Context,
        found: Attributes,
        started_unix_ns: int | None,
        links: Sequence[Link] = (),
    ) -> Span:
        return self._tracer.start_span(
            name,
            context=parent,
            kind=kind,
            attributes=found,
            links=links,
            start_time=started_unix_ns,
            # An exception's text could hold anything; the reason's code is set by `_end`.
            record_exception=False,
            set_status_on_exception=False,
        )

    def _parent_of(self, attempt: AttemptRecord) -> Context:
        """The call's span; a warm-up's attempt hangs beneath the handshake that it follows."""
        if attempt.call is not None:
            return self._beneath_call(attempt.call)
        return _beneath(attempt.connect.span) if attempt.connect is not None else _ROOT

    def _beneath_call(self, call: CallRecord) -> Context:
        """Also of a call that has ended: a handshake that waited for its turn to connect may begin after it."""
        live = self._calls.get(call)
        return set_span_in_context(live, _ROOT) if live is not None else _beneath(call.span)


def _beneath(ids: SpanIds | None) -> Context:
    return set_span_in_context(NonRecordingSpan(_context_of(ids)), _ROOT) if ids is not None else _ROOT


def _end(span: Span, found: Attributes, error: WarmlineError | None, ended_unix_ns: int | None) -> None:
    span.set_attributes(found)
    if error is not None and error.reason not in WISHED:
        span.set_status(Status(StatusCode.ERROR, error.reason.value))
    span.end(ended_unix_ns)


def _connection_link(attempt: AttemptRecord) -> Link | None:
    """To the handshake that opened the socket; it may be another trace's, and hours old."""
    if attempt.connect is None or attempt.connect.span is None:
        return None
    return Link(_context_of(attempt.connect.span), {names.LINK: names.LINK_CONNECTION})


def _replaces_link(attempt: AttemptRecord) -> Link | None:
    if attempt.replaces is None or attempt.replaces.span is None:
        return None
    return Link(_context_of(attempt.replaces.span), {names.LINK: names.LINK_REPLACES})


def _ids_of(span: Span) -> SpanIds | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return SpanIds(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def _context_of(ids: SpanIds) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if ids.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(ids.trace_id, 16), int(ids.span_id, 16), is_remote=False, trace_flags=flags)

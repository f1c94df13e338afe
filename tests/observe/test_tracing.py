"""Spans of calls, connects and attempts: parents, links, ids, statuses, and that every path ends what it started."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from observe import record_kit as kit
from observe.record_kit import Play
from observe.spans import EndedSpans, attribute, provider_of
from warmline_server.core.errors import Reason, ServiceError, WarmlineError
from warmline_server.core.events import FullReason, Mismatch
from warmline_server.core.records import AttemptStatus, CallOutcome, SpanIds
from warmline_server.observe import attributes, names
from warmline_server.observe.attributes import Capture
from warmline_server.observe.tracing import TracingObserver, carrier_of, open_tracer, rpc_span


class Traced:
    """A tracing observer on a real provider, and what it ended."""

    def __init__(self, capture: Capture | None = None) -> None:
        self.spans = EndedSpans()
        self.provider = provider_of(self.spans)
        self.observer = TracingObserver(self.provider, capture=capture)
        self.play = Play(self.observer)

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.spans.named(name)
        return span


@pytest.fixture
async def traced() -> Traced:
    return Traced()


def ids(span: ReadableSpan) -> SpanIds:
    assert span.context is not None
    return SpanIds(f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", span.context.trace_flags.sampled)


def parent_id(span: ReadableSpan) -> str | None:
    return f"{span.parent.span_id:016x}" if span.parent is not None else None


def links(span: ReadableSpan) -> dict[object, str]:
    return {(link.attributes or {}).get(names.LINK): f"{link.context.span_id:016x}" for link in span.links}


async def test_turn_adopting_the_slot_hangs_beneath_the_rpc_and_links_to_the_preconnect(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    warm = play.warm(session)
    rpc = open_tracer(traced.provider).start_span("rpc", kind=SpanKind.SERVER)
    token = rpc_span.set(rpc)
    call = play.start(kit.call(session, carrier=carrier_of(rpc)))
    rpc_span.reset(token)
    attempt = play.send(kit.attempt(session, call, warm))

    play.complete(attempt)
    play.end(call, CallOutcome.COMPLETED)
    rpc.end()

    preconnect, chat, turn, server = traced.spans.spans
    assert [s.name for s in traced.spans.spans] == ["preconnect", "chat m-1", "turn", "rpc"]
    assert preconnect.parent is None
    assert preconnect.kind is SpanKind.CLIENT
    assert (turn.kind, chat.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT)
    assert parent_id(turn) == ids(server).span_id
    assert parent_id(chat) == ids(turn).span_id
    assert ids(turn).trace_id == ids(server).trace_id != ids(preconnect).trace_id
    assert links(chat) == {names.LINK_CONNECTION: ids(preconnect).span_id}
    assert {attribute(s, "turn_id") for s in (chat, turn, server)} == {"turn-1"}
    assert {attribute(s, "response_id") for s in (chat, turn, server)} == {"resp-1"}
    assert traced.observer.live == 0


async def test_records_carry_the_ids_of_their_spans(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    warm = play.warm(session)
    call = play.start(kit.call(session))
    attempt = play.send(kit.attempt(session, call, warm))
    play.complete(attempt)
    play.end(call, CallOutcome.COMPLETED)

    assert warm.span == ids(traced.one("preconnect"))
    assert call.span == ids(traced.one("turn"))
    assert attempt.span == ids(traced.one("chat m-1"))


async def test_attempt_carries_what_was_sent_and_what_came_back(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    warm = play.warm(session, request_id="hs-7")
    call = play.start(kit.call(session, lane="side"))
    request = b'{"model":"m-1","input":[],"max_output_tokens":9,"temperature":0.5,"reasoning":{"effort":"low"}}'
    attempt = kit.attempt(session, call, warm, request=request)
    attempt.full_reason, attempt.mismatch = FullReason.NOT_A_PREFIX, Mismatch(input_index=3)
    play.send(attempt)
    play.complete(attempt, items=(b"{}",))

    span = traced.one("chat m-1")
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.response.id": "resp-1",
        "gen_ai.conversation.id": session.conversation_id,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "server.address": "127.0.0.1",
        "server.port": 8080,
        "session_id": "s-1",
        "turn_id": "turn-1",
        "response_id": "resp-1",
        "upstream_handshake_request_id": "hs-7",
        "upstream_request_id": None,
        "warmline.lane": "side",
        "warmline.attempt.id": attempt.attempt_id,
        "warmline.attempt.number": 1,
        "warmline.attempt.kind": "turn",
        "warmline.transport": "websocket",
        "warmline.slot.outcome": "adopted",
        "warmline.connection.id": warm.connection_id,
        "warmline.request.incremental": False,
        "warmline.request.full_reason": "not_a_prefix",
        "warmline.request.mismatch.index": 3,
        "warmline.request.mismatch.field": None,
        "warmline.output_items": 1,
        "warmline.outcome": "completed",
        "error.type": None,
    }
    assert {name: attribute(span, name) for name in expected} == expected
    assert attribute(span, "gen_ai.response.time_to_first_chunk") == pytest.approx(0.03)
    assert [event.name for event in span.events] == ["first_event"]
    assert span.status.status_code is StatusCode.UNSET


async def test_incremental_attempt_names_the_response_that_it_continues(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    call = play.start(kit.call(session))
    attempt = kit.attempt(session, call, play.warm(session))
    attempt.incremental, attempt.full_reason, attempt.previous_response_id = True, None, "resp-0"
    play.send(attempt)
    play.complete(attempt)

    span = traced.one("chat m-1")
    assert attribute(span, "warmline.request.incremental") is True
    assert attribute(span, "warmline.request.full_reason") is None
    assert attribute(span, "gen_ai.request.previous_response.id") == "resp-0"


async def test_retry_is_a_sibling_linked_to_what_it_replaces(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    call = play.start(kit.call(session))
    first = play.send(kit.attempt(session, call))
    first.http_status, first.upstream_request_id = 503, "req-1"
    play.finish(first, AttemptStatus.FAILED, kit.refused(text="MARKER words"))
    traced.observer.retry_scheduled(call, first, kit.refused(), 0.2)
    second = play.send(kit.attempt(session, call, replaces=first))
    play.complete(second, request_id="req-2")
    play.end(call, CallOutcome.COMPLETED)

    failed, done = traced.spans.named("chat m-1")
    turn = traced.one("turn")
    assert links(done) == {names.LINK_REPLACES: ids(failed).span_id}
    assert parent_id(failed) == parent_id(done) == ids(turn).span_id
    assert (attribute(failed, "upstream_request_id"), attribute(done, "upstream_request_id")) == ("req-1", "req-2")
    assert attribute(failed, "http.response.status_code") == 503
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "UPSTREAM_FAILED")
    assert attribute(failed, "error.type") == "UPSTREAM_FAILED"
    assert attribute(failed, "gen_ai.response.finish_reasons") == ("error",)
    assert [event.name for event in turn.events] == ["retry_scheduled"]
    assert turn.status.status_code is StatusCode.UNSET
    assert "MARKER" not in failed.to_json() + turn.to_json()


async def test_handshake_within_a_call_is_its_child_and_keeps_the_refusals_id(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    call = play.start(kit.call(session))
    error = kit.refused(Reason.UPSTREAM_UNREACHABLE, handshake=True)
    play.open(kit.connect(session, call), request_id="hs-9", error=error)
    play.end(call, CallOutcome.FAILED, error)

    connect, turn = traced.one("connect"), traced.one("turn")
    assert parent_id(connect) == ids(turn).span_id
    assert attribute(connect, "upstream_handshake_request_id") == "hs-9"
    assert attribute(connect, "http.response.status_code") == 503
    assert attribute(connect, "turn_id") == "turn-1"
    assert connect.status.description == turn.status.description == "UPSTREAM_UNREACHABLE"


async def test_handshake_that_begins_after_its_call_has_ended_is_still_its_child(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    call = play.start(kit.call(session))
    play.end(call, CallOutcome.CANCELLED)
    play.open(kit.connect(session, call))

    assert parent_id(traced.one("connect")) == ids(traced.one("turn")).span_id


@pytest.mark.parametrize(
    ("outcome", "error", "status"),
    [
        pytest.param(CallOutcome.CANCELLED, None, StatusCode.UNSET, id="caller-gone"),
        pytest.param(
            CallOutcome.CANCELLED, ServiceError(Reason.TURN_CANCELLED, "x"), StatusCode.UNSET, id="cancel-turn"
        ),
        pytest.param(CallOutcome.CANCELLED, ServiceError(Reason.TURN_DRAINED, "x"), StatusCode.ERROR, id="drained"),
        pytest.param(
            CallOutcome.CANCELLED, ServiceError(Reason.DEADLINE_EXCEEDED, "x"), StatusCode.ERROR, id="deadline"
        ),
        pytest.param(CallOutcome.FAILED, ServiceError(Reason.SLOW_READER, "x"), StatusCode.ERROR, id="slow-reader"),
        pytest.param(CallOutcome.RUNNING, None, StatusCode.ERROR, id="fault-of-ours"),
        pytest.param(CallOutcome.INCOMPLETE, None, StatusCode.UNSET, id="incomplete"),
    ],
)
async def test_status_of_a_call_says_whose_fault_it_was(
    traced: Traced, outcome: CallOutcome, error: WarmlineError | None, status: StatusCode
) -> None:
    call = traced.play.start(kit.call(kit.session()))
    traced.play.end(call, outcome, error)

    turn = traced.one("turn")
    assert turn.status.status_code is status
    assert attribute(turn, "warmline.outcome") == outcome.name.lower()
    assert attribute(turn, "warmline.reason") == (error.reason.value if error is not None else None)


async def test_cancelled_attempt_keeps_the_ids_it_has(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    call = play.start(kit.call(session))
    attempt = play.send(kit.attempt(session, call))
    attempt.upstream_request_id = "req-3"
    play.first_event(attempt)
    play.finish(attempt, AttemptStatus.CANCELLED, response_id="resp-3")
    play.end(call, CallOutcome.CANCELLED)

    chat, turn = traced.one("chat m-1"), traced.one("turn")
    for span in (chat, turn):
        assert attribute(span, "response_id") == "resp-3"
        assert attribute(span, "upstream_request_id") == "req-3"
        assert span.status.status_code is StatusCode.UNSET


@pytest.mark.conformance("C-112")
async def test_late_evidence_is_a_span_beneath_the_attempt(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    call = play.start(kit.call(session))
    attempt = play.send(kit.attempt(session, call))
    play.finish(attempt, AttemptStatus.CANCELLED)
    play.end(call, CallOutcome.CANCELLED)
    attempt.response_id, attempt.upstream_request_id = "resp-late", "req-late"

    traced.observer.attempt_evidence(attempt)

    late = traced.one("late evidence")
    assert parent_id(late) == ids(traced.one("chat m-1")).span_id
    assert attribute(late, "response_id") == "resp-late"
    assert attribute(late, "upstream_request_id") == "req-late"
    assert attribute(late, "turn_id") == "turn-1"


async def test_warm_up_request_hangs_beneath_its_preconnect_and_is_tagged(traced: Traced) -> None:
    play, session = traced.play, kit.session()
    warm = play.warm(session)
    attempt = play.send(kit.attempt(session, None, warm))
    play.complete(attempt)

    chat = traced.one("chat m-1")
    assert parent_id(chat) == ids(traced.one("preconnect")).span_id
    assert attribute(chat, "warmline.attempt.kind") == "warm_up"
    assert attribute(chat, "turn_id") is None


async def test_fallback_is_an_event_of_its_turn(traced: Traced) -> None:
    call = traced.play.start(kit.call(kit.session()))
    traced.observer.fell_back(call.session, call, "upgrade_required", latched=True)
    traced.play.end(call, CallOutcome.COMPLETED)

    (event,) = traced.one("turn").events
    assert event.name == "fell_back"
    assert dict(event.attributes or {}) == {"warmline.reason": "upgrade_required", "warmline.latched": True}


CONTENT = '{"input":"PROMPT-äöü"}'.encode()


async def test_no_content_leaves_unless_capture_is_switched_on(traced: Traced) -> None:
    call = traced.play.start(kit.call(kit.session()))
    attempt = traced.play.send(kit.attempt(call.session, call, request=CONTENT))
    traced.play.complete(attempt, items=(b'{"text":"ANSWER"}',))

    text = traced.one("chat m-1").to_json()
    assert "PROMPT" not in text
    assert "ANSWER" not in text


@pytest.mark.parametrize("max_bytes", [0, 5, 19, 20, 21, 4096])
async def test_captured_content_is_cut_to_its_limit(max_bytes: int) -> None:
    traced = Traced(Capture(max_bytes))
    call = traced.play.start(kit.call(kit.session()))
    attempt = traced.play.send(kit.attempt(call.session, call, request=CONTENT))
    traced.play.complete(attempt, items=(b'{"text":"ANSWER"}', b"{}"))

    span = traced.one("chat m-1")
    request, output = attribute(span, "warmline.content.request"), attribute(span, "warmline.content.output")
    assert isinstance(request, str)
    assert isinstance(output, str)
    assert max_bytes - 1 <= len(request.encode()) <= max_bytes or request == CONTENT.decode()
    assert CONTENT.decode().startswith(request)
    assert output == '[{"text":"ANSWER"},{}]'[:max_bytes]


def test_number_that_telemetry_cannot_carry_is_left_out() -> None:
    sent = attributes._of_settings(
        b'{"max_output_tokens":' + b"9" * 30 + b',"temperature":1e30,"top_p":0.5,"x":' + b"[" * 5000
    )
    assert sent == {}

    sent = attributes._of_settings(b'{"max_output_tokens":' + b"9" * 30 + b',"temperature":1e30,"top_p":0.5}')
    assert sent == {names.GEN_AI_REQUEST_TOP_P: 0.5}

"""Where Warmline deliberately does otherwise than the reference: docs/differences.md, number by number."""

from typing import Any

import grpc
import pytest

import warmline
from e2e.line import (
    NO_CARE,
    TRANSPORTS,
    Heard,
    answer,
    config_for,
    hear,
    inferences,
    open_line,
    read_until,
    script_for,
    session_config,
    slot_state,
    until_warm_up_failed,
)
from manual_clock import ManualClock
from warmline.v1 import trace_service_pb2
from warmline_simulator import Connection, Drop, Gate, Hang, Ping, Reply, Script, ev
from warmline_simulator.script import Step

TOKEN = "x-codex-turn-state"


async def hear_once(transport: str, *steps: Step) -> Heard:
    """What a caller that wants no resend hears of a reply. No time passes."""
    script = script_for(transport, Reply(events=steps))
    async with (
        open_line(script, clock=ManualClock()) as line,
        line.session(config=config_for(transport)) as session,
    ):
        return await hear(session.turn("hello", retry="never"))


# D-1 to D-3: what is told


@pytest.mark.conformance("C-075")
@pytest.mark.conformance("D-1")
@TRANSPORTS
async def test_a_failed_response_is_told_though_the_stream_goes_on(transport: str) -> None:
    heard = await hear_once(transport, ev.created(), ev.failed("invalid_prompt", "no"), Hang())
    assert heard.failure.reason == "UPSTREAM_REJECTED"


@pytest.mark.conformance("C-075")
@pytest.mark.conformance("D-1")
async def test_a_failed_response_is_told_when_the_stream_ends_with_it() -> None:
    heard = await hear_once("http", ev.created(), ev.failed("invalid_prompt", "no"))
    assert heard.failure.reason == "UPSTREAM_REJECTED"


@pytest.mark.conformance("C-082")
@pytest.mark.conformance("D-2")
@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(ev.error(None, "context_length_exceeded"), "CONTEXT_TOO_LONG", id="no status"),
        pytest.param({**ev.error(200, "cyber_policy")}, "POLICY_VIOLATION", id="status 200"),
        pytest.param(
            {**ev.error(None, "insufficient_quota"), "status": "odd"}, "UPSTREAM_QUOTA", id="status no number"
        ),
        pytest.param(ev.error(None, kind="invalid_request_error"), "UPSTREAM_REJECTED", id="type alone"),
        pytest.param(ev.error(None, "unheard_of", kind="odd"), "UPSTREAM_FAILED", id="unknown code"),
        pytest.param(ev.sse_error("model_not_found", "no such model"), "UPSTREAM_NOT_FOUND", id="flat"),
        pytest.param({"type": "error"}, "UPSTREAM_FAILED", id="bare"),
    ],
)
@TRANSPORTS
async def test_an_error_event_without_a_status_ends_the_attempt_by_its_code(
    transport: str, frame: dict[str, Any], reason: str
) -> None:
    heard = await hear_once(transport, ev.created(), frame, Hang())
    assert heard.failure.reason == reason


@pytest.mark.conformance("D-3")
@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_an_attempt_that_ended_early_keeps_both_its_ids(how: str) -> None:
    end: list[Step] = [Gate("never")] if how == "cancelled" else [ev.failed("invalid_prompt", "no")]
    script = Script(posts=[Reply(events=[ev.created("resp-1"), *end], headers={"x-request-id": "req-1"})])
    async with open_line(script) as line, line.session(config=config_for("http")) as session:
        if how == "cancelled":
            async with session.turn("hello") as turn:
                await read_until(turn, "created")
            await line.sim.wait_for_aborts(1)
            await line.until_calls(session, 0)
        else:
            failure = (await hear(session.turn("hello"))).failure
            assert (failure.response_id, failure.upstream_request_id) == ("resp-1", "req-1")
        (inference,) = await inferences(session)
        assert (inference.response_id, inference.upstream_request_id) == ("resp-1", "req-1")


# D-6: waits that the upstream asks for


def limited(**headers: str) -> Reply:
    """A refusal for the rate of requests."""
    body = ev.http_error(429, "rate_limit_exceeded", "slow")
    return Reply(status=429, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


IN_30_S = {"retry_after": "Tue, 14 Nov 2023 22:13:50 GMT"}


@pytest.mark.conformance("D-6")
@pytest.mark.conformance("C-039")
@pytest.mark.parametrize(
    ("transport", "headers", "delay_s"),
    [
        ("ws", {"retry_after": "7"}, 7.0),
        ("http", {"retry_after": "7"}, 7.0),
        ("ws", {"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ("http", {"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ("ws", IN_30_S, 30.0),
        ("http", IN_30_S, 30.0),
        ("ws", {}, None),
        ("http", {}, None),
    ],
)
async def test_a_rate_limit_waits_as_long_as_it_is_told(
    transport: str, headers: dict[str, str], delay_s: float | None
) -> None:
    clock = ManualClock()  # its wall time is 22:13:20 of that day
    script = script_for(transport, limited(**headers))
    async with open_line(script, clock=clock) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello"), clock)
        expected = pytest.approx(0.2, rel=0.1) if delay_s is None else pytest.approx(delay_s)
        assert heard.delays_s == [expected]
        assert [retrying.reason for retrying in heard.of("retrying")] == ["UPSTREAM_RATE_LIMITED"]
        assert heard.result.ending == "completed"


@pytest.mark.conformance("D-6")
async def test_a_longer_wait_than_the_cap_is_the_callers() -> None:
    async with open_line(script_for("ws", limited(retry_after="61"))) as line, line.session() as session:
        heard = await hear(session.turn("hello"))
        assert heard.failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert heard.failure.retry_after_s == 61.0
        assert len(line.sim.requests) == 1
        assert not (await session.get()).fallback.active


@pytest.mark.conformance("D-6")
async def test_a_wait_that_would_pass_the_calls_limit_is_not_begun() -> None:
    async with open_line(script_for("ws", limited(retry_after="20"))) as line, line.session() as session:
        heard = await hear(session.turn("hello", max_duration_s=19.0))
        assert heard.failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert heard.failure.retry_after_s == 20.0


@pytest.mark.conformance("D-6")
async def test_a_cap_of_zero_ignores_what_is_asked_for() -> None:
    clock = ManualClock()
    script, profile = script_for("ws", limited(retry_after="61")), {"retry_after_cap_s": 0.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        heard = await hear(session.turn("hello"), clock)
        assert heard.delays_s == [pytest.approx(0.2, rel=0.1)]


@pytest.mark.conformance("D-6")
async def test_rate_limits_that_use_the_budget_up_do_not_lead_to_http() -> None:
    clock = ManualClock()
    script = script_for("ws", limited(), limited())
    async with open_line(script, clock=clock) as line, line.session(config=session_config(retries=1)) as session:
        heard = await hear(session.turn("hello"), clock)
        assert heard.failure.reason == "UPSTREAM_RATE_LIMITED"
        assert line.sim.posts() == []
        assert not (await session.get()).fallback.active


# D-9: clocks


@pytest.mark.conformance("D-9")
@TRANSPORTS
async def test_the_first_event_has_a_limit_of_its_own(transport: str) -> None:
    clock = ManualClock()
    script = script_for(transport, Reply(events=[Hang()]))
    profile = {"first_event_timeout_s": 20.0}
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session(config=config_for(transport)) as session,
        session.turn("hello", retry="never") as turn,
    ):
        await line.sim.wait_for_requests(1)
        await read_until(turn, "attempt_started")
        await session.get()
        await clock.advance(20.0)
        with pytest.raises(warmline.UnavailableError, match="no first event within 20"):
            await turn.result()


@pytest.mark.conformance("D-9")
@TRANSPORTS
async def test_after_the_first_event_the_longer_limit_holds(transport: str) -> None:
    clock = ManualClock()
    events = ev.text_response("words")
    script = script_for(transport, Reply(events=[events[0], Gate("silence"), *events[1:]]))
    profile, limits = {"first_event_timeout_s": 20.0}, {"slow_reader_s": 0.0}
    async with (
        open_line(script, profile=profile, limits=limits, clock=clock) as line,
        line.session(config=config_for(transport)) as session,
        session.turn("hello", retry="never") as turn,
    ):
        await read_until(turn, "created")
        await clock.advance(299.0)
        line.sim.release("silence")
        assert (await turn.result()).text == "words"


@pytest.mark.conformance("D-9")
@pytest.mark.conformance("C-087")
@pytest.mark.parametrize("counts", [False, True])
async def test_whether_a_ping_ends_a_silence_is_a_setting(counts: bool) -> None:
    clock = ManualClock()
    events = ev.text_response("words")
    script = script_for("ws", Reply(events=[events[0], Gate("ping"), Ping(b"are you there"), Gate("on"), *events[1:]]))
    profile, limits = {**NO_CARE, "ping_counts_as_activity": counts}, {"slow_reader_s": 0.0}
    async with (
        open_line(script, profile=profile, limits=limits, clock=clock) as line,
        line.session() as session,
        session.turn("hello", retry="never") as turn,
    ):
        await read_until(turn, "created")
        await clock.advance(200.0)
        received = line.sim.counters.bytes_in
        line.sim.release("ping")
        # The pong: a masked frame of the same payload.
        while line.sim.counters.bytes_in < received + 2 + 4 + len(b"are you there"):
            await session.get()
        await clock.advance(200.0)
        line.sim.release("on")
        if counts:
            assert (await turn.result()).text == "words"
        else:
            with pytest.raises(warmline.UnavailableError, match="idle timeout"):
                await turn.result()


# D-10: ids


@pytest.mark.conformance("D-10")
async def test_the_handshakes_id_is_kept_beside_the_attempt_and_is_not_its_request_id() -> None:
    async with open_line() as line, line.session() as session:
        result = await answer(session.turn("hello"))
        (inference,) = await inferences(session)
        (handshake,) = line.sim.handshakes
        assert inference.upstream_handshake_request_id == handshake.response_headers["x-request-id"]
        assert not inference.HasField("upstream_request_id")
        assert result.upstream_request_id is None


@pytest.mark.conformance("D-10")
@pytest.mark.parametrize("place", ["in the error", "beside it"])
async def test_the_headers_of_an_error_frame_name_the_request(place: str) -> None:
    headers = {"x-request-id": "req-frame"}
    frame = ev.error(400, "invalid_value", "no", headers=headers if place == "in the error" else None)
    if place == "beside it":
        frame["headers"] = headers
    heard = await hear_once("ws", ev.created(), frame)
    assert heard.failure.upstream_request_id == "req-frame"


# D-11: incomplete


@pytest.mark.conformance("C-079")
@pytest.mark.conformance("D-11")
@TRANSPORTS
async def test_an_incomplete_response_ends_the_call_with_its_reason(transport: str) -> None:
    events = [*ev.text_response("half")[:-1], ev.incomplete("max_output_tokens", response_id="resp-1")]
    async with (
        open_line(script_for(transport, Reply(events=events))) as line,
        line.session(config=config_for(transport)) as session,
    ):
        heard = await hear(session.turn("hello"))
        assert heard.kinds[-1] == "incomplete"
        assert (heard.result.ending, heard.result.incomplete_reason) == ("incomplete", "max_output_tokens")
        assert heard.result.text == "half"
        assert len(line.sim.requests) == 1
        (inference,) = await inferences(session)
        assert inference.status == trace_service_pb2.INFERENCE_STATUS_INCOMPLETE


@pytest.mark.conformance("D-11")
async def test_after_an_incomplete_response_the_socket_is_kept_and_the_request_is_whole() -> None:
    events = [*ev.text_response("half")[:-1], ev.incomplete()]
    async with open_line(script_for("ws", Reply(events=events), Reply.model())) as line, line.session() as session:
        first = await answer(session.turn("hello"))
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert (second.slot_outcome, second.full_reason) == ("REUSED", "NO_BASELINE")
        assert line.sim.requests[1].previous_response_id is None


# D-15: what cannot heal


@pytest.mark.conformance("D-15")
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, None, "UPSTREAM_PERMISSION"),
        (404, "model_not_found", "UPSTREAM_NOT_FOUND"),
        (400, "cyber_policy", "POLICY_VIOLATION"),
        (400, "model_not_found", "UPSTREAM_NOT_FOUND"),
    ],
)
async def test_a_handshake_that_is_refused_for_good_ends_the_call_and_latches_nothing(
    status: int, code: str | None, reason: str
) -> None:
    refusal = Connection(status=status, body=ev.http_error(status, code, "no"))
    config = session_config(warm_up="none")
    async with open_line(Script(connections=[refusal])) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"))
        assert (heard.failure.reason, heard.failure.code) == (reason, grpc.StatusCode.FAILED_PRECONDITION)
        assert not {"retrying", "fell_back"} & {*heard.kinds}
        assert not (await session.get()).fallback.active
        assert (await answer(session.turn("hello"))).transport == "WEBSOCKET"
        assert line.sim.posts() == []


@pytest.mark.conformance("D-15")
@pytest.mark.parametrize("code", ["model_not_found", "invalid_image", "content_policy_violation", "bio_policy"])
async def test_a_failed_response_that_cannot_heal_is_final(code: str) -> None:
    script = script_for("ws", Reply(events=[ev.created(), ev.failed(code, "no")]))
    async with open_line(script) as line, line.session(config=session_config(retries=0)) as session:
        heard = await hear(session.turn("hello"))
        assert not {"retrying", "fell_back"} & {*heard.kinds}
        assert len(line.sim.requests) == 1
        assert heard.failure.upstream is not None
        assert heard.failure.upstream.code == code


# D-17 and D-18


@pytest.mark.conformance("D-17")
@pytest.mark.conformance("D-18")
async def test_each_post_has_an_id_of_its_own_and_each_resend_is_announced() -> None:
    clock = ManualClock()
    script = Script(posts=[Reply(status=500, body=ev.http_error(500), times=2), Reply.model()])
    async with open_line(script, clock=clock) as line, line.session(config=config_for("http")) as session:
        heard = await hear(session.turn("hello"), clock)
        sent = [post.headers["x-client-request-id"] for post in line.sim.posts()]
        assert sent == [started.attempt_id for started in heard.of("attempt_started")]
        assert len(set(sent)) == 3
        assert [kind for kind in heard.kinds if kind in ("retrying", "attempt_started")] == [
            "attempt_started",
            "retrying",
            "attempt_started",
            "retrying",
            "attempt_started",
        ]


@pytest.mark.conformance("D-17")
async def test_each_handshake_has_an_id_of_its_own() -> None:
    script = Script(connections=[Connection(status=500), Connection(replies=[Reply(events=[Drop()])]), Connection()])
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await until_warm_up_failed(session)
        heard = await hear(session.turn("hello"), clock)
        sent = [handshake.headers["x-client-request-id"] for handshake in line.sim.handshakes]
        assert sent[1:] == [started.connection_id for started in heard.of("attempt_started")]
        assert len(set(sent)) == 3
        assert await slot_state(session) == "IDLE"

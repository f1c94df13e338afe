"""Where Warmline deliberately does otherwise than the reference: docs/differences.md, number by number."""

from typing import Any

import grpc
import pytest

import warmline
from e2e.line import (
    Heard,
    answer,
    hear,
    open_line,
    pass_by,
    read_until,
    seconds,
    session_config,
    slot_state,
    until_session,
    until_slot,
    until_warm_up_failed,
)
from manual_clock import ManualClock
from warmline.v1 import trace_service_pb2, types_pb2
from warmline_simulator import Connection, Drop, Frame, Gate, Hang, Ping, Reply, Script, Stall, ev
from warmline_simulator.script import Step

TRANSPORTS = pytest.mark.parametrize("transport", ["ws", "http"])
TOKEN = "x-codex-turn-state"
# An idle socket stays as it is.
NO_CARE = {"warm_socket_idle_ttl_s": 0.0, "idle_ping_interval_s": 0.0, "max_connection_age_s": 0.0}


def config_for(transport: str, **fields: Any) -> types_pb2.SessionConfig:
    """A config of a session that uses that transport."""
    return session_config(fallback_policy={"http_only": transport == "http"}, **fields)


def script_for(transport: str, *replies: Reply) -> Script:
    """The replies, over the one transport or the other."""
    return Script(posts=replies) if transport == "http" else Script(creates=replies)


async def hear_once(transport: str, *steps: Step) -> Heard:
    """What a caller that wants no resend hears of a reply. No time passes."""
    script = script_for(transport, Reply(events=steps))
    async with (
        open_line(script, clock=ManualClock()) as line,
        line.session(config=config_for(transport)) as session,
    ):
        return await hear(session.turn("hello", retry="never"))


async def inferences(session: warmline.Session) -> list[trace_service_pb2.Inference]:
    """The session's attempts, newest first."""
    return [inference async for inference in session.list_inferences()]


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


# D-7 and D-8: idle sockets


@pytest.mark.conformance("D-7")
async def test_an_idle_socket_that_answers_no_ping_is_replaced() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "idle_ping_interval_s": 30.0, "idle_ping_timeout_s": 10.0}
    script = Script(connections=[Connection(then=[Stall()]), Connection()])
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        await clock.advance(39.9)
        assert len(line.sim.handshakes) == 1
        await clock.advance(0.2)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        await clock.advance(1.0)  # it does not answer the goodbye either
        await line.until_handshake_ended(0)
        assert (await answer(session.turn("hello"))).slot_outcome == "ADOPTED"


@pytest.mark.conformance("D-7")
async def test_an_idle_socket_that_answers_pings_stays() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "idle_ping_interval_s": 30.0}
    async with open_line(profile=profile, clock=clock) as line, line.session() as session:
        first = await answer(session.turn("hello"))
        for _ in range(4):
            received = line.sim.counters.bytes_in
            await clock.advance(30.0)
            while line.sim.counters.bytes_in == received:
                await session.get()
            await session.get()
            await clock.advance(11.0)
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert second.slot_outcome == "REUSED"
        assert second.incremental


@pytest.mark.conformance("D-7")
async def test_a_socket_is_not_pinged_while_a_response_runs() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "idle_ping_interval_s": 30.0, "idle_timeout_s": 0.0}
    script = script_for("ws", Reply(events=[ev.created(), Gate("silence"), *ev.text_response("words")[1:]]))
    limits = {"slow_reader_s": 0.0}
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "created")
            received = line.sim.counters.bytes_in
            await clock.advance(300.0)
            line.sim.release("silence")
            await turn.result()
        assert line.sim.counters.bytes_in == received


@pytest.mark.conformance("D-7")
@pytest.mark.parametrize("owner", ["slot", "lane"])
@pytest.mark.parametrize("end", ["reset", "close", "close without an end", "a stray response"])
async def test_an_idle_socket_that_ends_is_replaced_before_anyone_needs_it(owner: str, end: str) -> None:
    close_frame = Frame(b"\x03\xe8", opcode=8)
    first = Connection(then=[Gate("bye"), close_frame, Stall()] if end == "close without an end" else [])
    async with open_line(Script(connections=[first, Connection()])) as line, line.session() as session:
        await session.preconnect(wait=True)
        if owner == "lane":
            await answer(session.turn("hello"))
        match end:
            case "reset":
                line.sim.drop_connection(0)
            case "close":
                line.sim.close_connection(0, 1001)
            case "a stray response":
                line.sim.send_event(0, ev.created("resp-stray"))
            case _:
                line.sim.release("bye")
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        result = await answer(session.turn("hello again"))
        assert result.slot_outcome == "ADOPTED"
        assert line.sim.requests[-1].connection == 1


@pytest.mark.conformance("D-7")
async def test_notices_on_an_idle_socket_do_it_no_harm() -> None:
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn("hello"))
        line.sim.send_event(0, ev.codex_rate_limits())
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert second.slot_outcome == "REUSED"


@pytest.mark.conformance("D-8")
@pytest.mark.parametrize("owner", ["slot", "lane"])
async def test_a_socket_is_rotated_while_idle_before_it_is_an_hour_old(owner: str) -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "max_connection_age_s": 3300.0}
    limits = {"session_idle_ttl_s": 0.0}
    async with open_line(profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        if owner == "lane":
            await answer(session.turn("hello"))
        await clock.advance(3299.0)
        assert len(line.sim.handshakes) == 1
        await clock.advance(2.0)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        await line.until_handshake_ended(0)
        assert line.sim.handshakes[0].close_code == 1000
        result = await answer(session.turn("hello"))
        assert (result.slot_outcome, result.full_reason) == ("ADOPTED", "NEW_SOCKET")


@pytest.mark.conformance("D-8")
async def test_a_socket_that_grew_old_in_a_call_is_rotated_after_it() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "max_connection_age_s": 3300.0, "idle_timeout_s": 0.0}
    limits = {"slow_reader_s": 0.0, "max_turn_duration_s": 7200.0}
    events = ev.text_response("words")
    script = script_for("ws", Reply(events=[events[0], Gate("hour"), *events[1:]]))
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "created")
            await clock.advance(3500.0)
            assert len(line.sim.handshakes) == 1
            line.sim.release("hour")
            assert (await turn.result()).ending == "completed"
        await line.until_calls(session, 0)
        await clock.advance(0.0)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        assert (await answer(session.turn("hello"))).slot_outcome == "ADOPTED"


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


# D-13 and D-14: what one session learns spares the others


@pytest.mark.conformance("D-13")
async def test_what_used_up_one_sessions_budget_sends_the_others_over_http_at_once() -> None:
    clock = ManualClock()
    config = session_config(warm_up="none", retries=1)
    profile = {"circuit_open_s": 30.0}
    async with (
        open_line(refuse_upgrades=500, profile=profile, clock=clock) as line,
        line.session("one", config=config) as one,
        line.session("two", config=config) as two,
    ):
        first = await hear(one.turn("hello"), clock)
        assert first.of("fell_back")[0].latched
        assert len(line.sim.handshakes) == 2
        second = await hear(two.turn("hello"))
        (fell_back,) = second.of("fell_back")
        assert (fell_back.latched, fell_back.reason) == (False, "circuit_open")
        assert second.result.transport == "HTTP"
        assert len(line.sim.handshakes) == 2
        assert not (await two.get()).fallback.active


@pytest.mark.conformance("D-13")
async def test_an_open_circuit_is_probed_by_one_and_closed_by_its_success() -> None:
    clock = ManualClock()
    config = session_config(warm_up="none", retries=0)
    profile = {"circuit_open_s": 30.0}
    script = Script(connections=[Connection(status=500), Connection(gate="probe")])
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session("one", config=config) as one,
        line.session("two", config=config) as two,
    ):
        await hear(one.turn("hello"))
        await clock.advance(30.0)
        results = [await answer(two.turn("hello", lane=lane)) for lane in ("a", "b", "c")]
        assert [result.transport for result in results] == ["HTTP"] * 3
        await line.sim.wait_for_gate("probe")
        assert len(line.sim.handshakes) == 2
        line.sim.release("probe")
        # Nothing is kept warm in this mode, so the probe's socket is closed.
        await line.until_handshake_ended(1)
        result = await answer(two.turn("hello", lane="a"))
        assert (result.transport, result.slot_outcome) == ("WEBSOCKET", "COLD")


@pytest.mark.conformance("D-13")
async def test_a_circuit_that_never_opens_lets_each_session_find_out_by_itself() -> None:
    config = session_config(warm_up="none", retries=0)
    async with open_line(refuse_upgrades=500, profile={"circuit_open_s": 0.0}) as line:
        for name in ("one", "two"):
            async with line.session(name, config=config) as session:
                heard = await hear(session.turn("hello"))
                assert heard.of("fell_back")[0].latched
        assert len(line.sim.handshakes) == 2


@pytest.mark.conformance("D-14")
@pytest.mark.parametrize("warm_up", ["none", "handshake"])
async def test_a_swallowed_upgrade_costs_two_seconds_and_latches_nothing(warm_up: Any) -> None:
    clock = ManualClock()
    config = session_config(warm_up=warm_up, retries=0)
    script = Script(connections=[Connection(swallow=True)])
    profile = {"fallback_after_s": 2.0}
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session(config=config) as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_handshakes(1)
        await read_until(turn, "admitted")
        await session.get()
        await clock.advance(1.999)
        assert line.sim.requests == []
        await clock.advance(0.001)
        fell_back = (await read_until(turn, "fell_back")).fell_back
        assert (fell_back.latched, fell_back.reason) == (False, "handshake_unanswered")
        assert (await turn.result()).transport == "HTTP"
        assert not (await session.get()).fallback.active
        # It runs on to its own limit.
        await clock.advance(12.9)
        assert line.sim.handshakes[0].closed_at_s is None
        await clock.advance(0.2)
        await line.until_handshake_ended(0)


@pytest.mark.conformance("D-14")
@pytest.mark.parametrize(("told", "replayed"), [(None, "late"), ("ts-1", "ts-1")])
async def test_a_late_handshake_serves_the_next_call_and_its_token_fills_an_empty_cell_only(
    told: str | None, replayed: str
) -> None:
    clock = ManualClock()
    script = Script(
        connections=[
            Connection(gate="late", headers={TOKEN: "late"}, replies=[Reply(events=[Drop()])]),
            Connection(replies=[Reply.model()]),
        ],
        posts=[Reply.model(headers={TOKEN: told})],
    )
    profile = {"fallback_after_s": 2.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        async with session.turn("hello", turn_id="T") as turn:
            await line.sim.wait_for_gate("late")
            await read_until(turn, "admitted")
            await session.get()
            await clock.advance(2.0)
            first = await turn.result()
        line.sim.release("late")
        await until_slot(session, "READY")
        heard = await hear(session.turn(["hello", *first.items, "go on"], turn_id="T"), clock)
        assert heard.outcomes == ["ADOPTED", "COLD"]
        assert [handshake.headers.get(TOKEN) for handshake in line.sim.handshakes] == [None, replayed]


@pytest.mark.conformance("D-14")
async def test_a_late_handshake_of_a_session_that_warms_nothing_is_closed() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(gate="late")])
    config, profile = session_config(warm_up="none"), {"fallback_after_s": 2.0}
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session(config=config) as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_gate("late")
        await read_until(turn, "admitted")
        await session.get()
        await clock.advance(2.0)
        await turn.result()
        line.sim.release("late")
        await line.until_handshake_ended(0)
        assert await slot_state(session) == "IDLE"


@pytest.mark.conformance("D-14")
async def test_the_limit_counts_from_the_start_of_the_handshake() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(swallow=True)])
    profile = {"fallback_after_s": 2.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        await line.sim.wait_for_handshakes(1)
        await clock.advance(5.0)
        # Nobody moves the clock any more.
        assert (await answer(session.turn("hello"))).transport == "HTTP"


@pytest.mark.conformance("D-14")
async def test_a_swallowed_upgrade_opens_the_circuit_for_other_sessions() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(swallow=True)])
    profile = {"fallback_after_s": 2.0, "circuit_open_s": 30.0}
    config = session_config(warm_up="none")
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session("one", config=config) as one,
        line.session("two", config=config) as two,
    ):
        async with one.turn("hello") as turn:
            await line.sim.wait_for_handshakes(1)
            await read_until(turn, "admitted")
            await one.get()
            await clock.advance(2.0)
            await turn.result()
        second = await hear(two.turn("hello"))
        assert [event.reason for event in second.of("fell_back")] == ["circuit_open"]
        assert len(line.sim.handshakes) == 1


@pytest.mark.conformance("D-14")
async def test_a_late_handshake_that_names_a_former_window_is_closed() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(status=500), Connection(gate="late"), Connection(status=500)])
    profile = {"fallback_after_s": 2.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        await until_warm_up_failed(session)
        async with session.turn("hello") as turn:
            await line.sim.wait_for_gate("late")
            await read_until(turn, "admitted")
            await session.get()
            await clock.advance(2.0)
            await turn.result()
        await session.advance_window()
        await line.until(lambda: len(line.sim.handshakes) == 3, "a warm-up for the new window")
        await line.until_handshake_ended(2)
        await until_slot(session, "IDLE")
        line.sim.release("late")
        await line.until_handshake_ended(1)
        assert await slot_state(session) == "IDLE"


@pytest.mark.conformance("D-14")
async def test_a_post_in_a_swallowed_upgrades_place_has_its_own_budget_and_latches_nothing() -> None:
    clock = ManualClock()
    script = Script(
        connections=[Connection(swallow=True)],
        posts=[Reply(status=500, body=ev.http_error(500), times=2), Reply(status=500, body=ev.http_error(500))],
    )
    config = session_config(warm_up="none", retries=0, request_retries=2)
    profile = {"fallback_after_s": 2.0, "circuit_open_s": 600.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session(config=config) as session:
        async with session.turn("hello") as turn:
            await line.sim.wait_for_handshakes(1)
            await read_until(turn, "admitted")
            await session.get()
            await clock.advance(2.0)
            for number in (1, 2):
                retrying = (await read_until(turn, "retrying")).retrying
                assert (retrying.retry, retrying.max_retries) == (number, 2)
                await pass_by(clock, seconds(retrying))
            with pytest.raises(warmline.UnavailableError):
                await turn.result()
        assert not (await session.get()).fallback.active
        assert len(line.sim.posts()) == 3


@pytest.mark.conformance("D-14")
async def test_zero_waits_for_the_handshake_to_its_end() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(gate="late")])
    profile = {"fallback_after_s": 0.0, "connect_timeout_s": 15.0}
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session() as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_gate("late")
        await read_until(turn, "admitted")
        await session.get()
        await clock.advance(14.0)
        line.sim.release("late")
        assert (await turn.result()).slot_outcome == "AWAITED"


# D-15: what cannot heal


@pytest.mark.conformance("D-15")
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, None, "UPSTREAM_PERMISSION"),
        (404, None, "UPSTREAM_NOT_FOUND"),
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


# D-16: the latch


@pytest.mark.conformance("D-16")
async def test_a_latched_session_tries_the_websocket_again_and_no_call_waits_for_it() -> None:
    clock = ManualClock()
    profile = {"latch_reprobe_s": 600.0}
    script = Script(connections=[Connection(status=426), Connection(status=500), Connection(gate="probe")])
    limits = {"session_idle_ttl_s": 0.0}
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        await until_session(session, lambda found: found.fallback.active)
        await clock.advance(599.0)
        assert len(line.sim.handshakes) == 1
        await clock.advance(2.0)
        await line.sim.wait_for_answered_handshakes(2)
        await line.until_handshake_ended(1)
        await session.get()
        await clock.advance(600.0)
        await line.sim.wait_for_gate("probe")
        assert (await answer(session.turn("hello"))).transport == "HTTP"
        line.sim.release("probe")
        await until_session(session, lambda found: not found.fallback.active)
        result = await answer(session.turn("hello"))
        assert (result.transport, result.slot_outcome) == ("WEBSOCKET", "ADOPTED")
        assert len(line.sim.handshakes) == 3


@pytest.mark.conformance("D-16")
async def test_zero_makes_the_latch_last_for_ever() -> None:
    clock = ManualClock()
    profile, limits = {"latch_reprobe_s": 0.0}, {"session_idle_ttl_s": 0.0}
    script = Script(connections=[Connection(status=426)], rest="refuse", posts=[Reply.model()])
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        await until_session(session, lambda found: found.fallback.active)
        await clock.advance(1_000_000.0)
        assert (await answer(session.turn("hello"))).transport == "HTTP"
        assert len(line.sim.handshakes) == 1


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

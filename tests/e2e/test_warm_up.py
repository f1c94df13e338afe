"""The warm-up that sends a request: what it sends, what the first turn gains by it, and what its failure costs."""

from typing import Any

import pytest

from e2e.line import (
    admitted,
    answer,
    hear,
    open_line,
    read_until,
    session_config,
    slot_state,
    until_session,
    until_slot,
    until_warm_up_failed,
)
from manual_clock import ManualClock
from warmline.v1 import trace_service_pb2
from warmline_simulator import Connection, Drop, Gate, Hang, Reply, Script, ev, read

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
WARM = Reply(events=ev.warm_up_response(response_id="warm-1"))


def generate_false(**fields: Any) -> Any:
    """A config of a session whose warm-up sends a request."""
    return session_config(warm_up="generate_false", **fields)


@pytest.mark.conformance("C-020")
async def test_the_warm_ups_request_has_tools_and_instructions_generates_nothing_and_is_read_to_its_end() -> None:
    warm = Reply(events=[ev.created("warm-1"), Gate("warm"), ev.completed("warm-1")])
    script = Script(connections=[Connection(replies=[warm])])
    session_of = {"instructions": "Be brief.", "tools": [TOOL], "service_tier": "priority"}
    async with open_line(script) as line, line.session(config=generate_false(), **session_of) as session:  # type: ignore[arg-type]
        await line.sim.wait_for_gate("warm")
        assert await slot_state(session) == "IN_FLIGHT"
        line.sim.release("warm")
        await until_slot(session, "READY")
        (request,) = line.sim.requests
        assert request.body["type"] == "response.create"
        assert request.body["generate"] is False
        assert request.body["input"] == []
        assert request.body["instructions"] == "Be brief."
        assert request.body["tools"] == [TOOL]
        assert request.body["service_tier"] == "priority"
        assert request.previous_response_id is None
        assert len(line.sim.handshakes) == 1


@pytest.mark.conformance("C-021")
async def test_the_first_turn_continues_the_warm_up_and_repeats_nothing_of_it() -> None:
    """A warm-up has no prompt, so a turn has items of its own: its delta is they alone, never empty."""
    script = Script(connections=[Connection(replies=[WARM, Reply.model()])])
    async with open_line(script) as line, line.session(config=generate_false(), instructions="Be brief.") as session:
        await until_slot(session, "READY")
        result = await answer(session.turn("hello"))
        request = line.sim.requests[1]
        assert (request.connection, request.previous_response_id) == (0, "warm-1")
        assert read.message_texts(request.body) == ["hello"]
        assert request.body["instructions"] == "Be brief."
        assert "generate" not in request.body
        assert (result.slot_outcome, result.incremental, result.full_reason) == ("ADOPTED", True, "")


@pytest.mark.conformance("C-021")
async def test_a_warm_up_that_answers_with_items_is_continued_by_a_whole_request() -> None:
    warm = Reply(events=ev.text_response("I am warm", response_id="warm-1"))
    script = Script(connections=[Connection(replies=[warm, Reply.model()])])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        await until_slot(session, "READY")
        result = await answer(session.turn("hello"))
        assert line.sim.requests[1].previous_response_id is None
        assert (result.slot_outcome, result.full_reason) == ("ADOPTED", "NOT_A_PREFIX")


@pytest.mark.conformance("C-022")
async def test_ids_chain_from_the_warm_up_to_the_turn_to_its_tool_follow_up() -> None:
    call = Reply(events=ev.function_call_response("look", "{}", "call-1", response_id="resp-1"))
    script = Script(connections=[Connection(replies=[WARM, call, Reply.model()])])
    async with open_line(script) as line, line.session(config=generate_false(), tools=[TOOL]) as session:
        await until_slot(session, "READY")
        first = await answer(session.turn("hello", turn_id="T"))
        output = first.function_calls[0].answer("a tree")
        await answer(session.turn(["hello", *first.items, output], turn_id="T"))
        assert [request.previous_response_id for request in line.sim.requests] == [None, "warm-1", "resp-1"]
        assert read.call_output_text(line.sim.requests[2].body, "call-1") == "a tree"
        assert len(line.sim.requests[2].body["input"]) == 1
        assert len(line.sim.handshakes) == 1


@pytest.mark.conformance("C-023")
async def test_a_setting_that_changed_since_the_warm_up_makes_a_whole_request_on_its_socket() -> None:
    script = Script(connections=[Connection(replies=[WARM, Reply.model(), Reply.model()])])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        await until_slot(session, "READY")
        heard = await hear(session.turn("hello", service_tier="priority"))
        (started,) = heard.of("attempt_started")
        assert started.first_mismatch.field == "service_tier"
        # And back again in the next turn.
        await answer(session.turn(["hello", *heard.result.items, "go on"]))
        assert [request.previous_response_id for request in line.sim.requests] == [None, None, None]
        assert [request.body.get("service_tier") for request in line.sim.requests] == [None, "priority", None]
        assert [request.connection for request in line.sim.requests] == [0, 0, 0]


@pytest.mark.conformance("C-024")
async def test_a_warm_up_that_hangs_holds_the_first_turn_for_the_rest_of_the_connect_limit() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(replies=[Reply(events=[ev.created("warm-1"), Hang()])]), Connection()])
    profile, config = {"connect_timeout_s": 15.0}, generate_false(retries=0)
    async with open_line(script, profile=profile, clock=clock) as line, line.session(config=config) as session:
        await line.sim.wait_for_requests(1)
        await clock.advance(5.0)
        async with session.turn("hello") as turn:
            await admitted(turn)
            await session.get()
            await clock.advance(9.9)
            assert len(line.sim.handshakes) == 1
            await clock.advance(0.2)
            result = await turn.result()
        assert (result.slot_outcome, result.attempts, result.fell_back) == ("COLD", 1, None)
        await line.until_handshake_ended(0)
        assert line.sim.requests[1].previous_response_id is None


@pytest.mark.conformance("C-024")
async def test_a_turn_that_waits_for_a_hanging_warm_up_can_be_cancelled() -> None:
    script = Script(connections=[Connection(replies=[Reply(events=[Hang()])])])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        await line.sim.wait_for_requests(1)
        async with session.turn("hello") as turn:
            await admitted(turn)
        await line.until_calls(session, 0)
        assert len(line.sim.requests) == 1


@pytest.mark.conformance("C-025")
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(status=400), id="rejected"),
        pytest.param(Reply(events=[ev.created(), ev.failed()]), id="failed"),
        pytest.param(Reply(events=[ev.created(), Drop()]), id="lost"),
    ],
)
async def test_a_warm_up_that_fails_leaves_the_first_turn_its_whole_budget(reply: Reply) -> None:
    # The first turn's only resend is still there for a loss of its own.
    script = Script(
        connections=[Connection(replies=[reply]), Connection(replies=[Reply(events=[Drop()])]), Connection()]
    )
    clock = ManualClock()
    config = generate_false(retries=1)
    async with open_line(script, clock=clock) as line, line.session(config=config) as session:
        await until_warm_up_failed(session)
        heard = await hear(session.turn("hello"), clock)
        assert heard.result.transport == "WEBSOCKET"
        assert [retrying.retry for retrying in heard.of("retrying")] == [1]
        assert not heard.of("fell_back")


@pytest.mark.conformance("C-025")
async def test_a_warm_up_that_ends_incomplete_leaves_its_socket_and_nothing_to_continue() -> None:
    warm = Reply(events=[ev.created("warm-1"), ev.incomplete(response_id="warm-1")])
    script = Script(connections=[Connection(replies=[warm, Reply.model()])])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        await until_slot(session, "READY")
        result = await answer(session.turn("hello"))
        assert (result.slot_outcome, result.incremental) == ("ADOPTED", False)
        assert line.sim.requests[1].previous_response_id is None


@pytest.mark.conformance("C-026")
async def test_a_warm_up_is_told_as_a_warm_up_and_its_tokens_are_no_turns() -> None:
    warm = Reply(events=[ev.created("warm-1"), ev.completed("warm-1", usage=ev.usage(1000, 0))])
    script = Script(connections=[Connection(replies=[warm, Reply(events=ev.text_response("a", usage=ev.usage(7, 3)))])])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        await until_slot(session, "READY")
        result = await answer(session.turn("hello"))
        turn, warm_up = [inference async for inference in session.list_inferences()]
        assert warm_up.kind == trace_service_pb2.INFERENCE_KIND_WARM_UP
        assert (warm_up.turn_id, warm_up.usage.input_tokens) == ("", 1000)
        assert turn.kind == trace_service_pb2.INFERENCE_KIND_TURN
        assert result.usage is not None
        assert (result.usage.input_tokens, result.usage.output_tokens) == (7, 3)
        assert result.attempts == 1


@pytest.mark.conformance("C-027")
async def test_after_the_first_call_a_warm_up_sends_nothing() -> None:
    script = Script(connections=[Connection(replies=[WARM, Reply.model()]), Connection()])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        await until_slot(session, "READY")
        first = await answer(session.turn("hello"))
        line.sim.drop_connection(0)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert second.slot_outcome == "ADOPTED"
        assert [request.is_warm_up for request in line.sim.requests] == [True, False, False]


@pytest.mark.conformance("C-027")
async def test_without_websockets_no_warm_up_is_sent() -> None:
    config = generate_false(fallback_policy={"http_only": True})
    async with open_line() as line, line.session(config=config) as session:
        await session.preconnect(wait=True)
        await answer(session.turn("hello"))
        assert [request.is_warm_up for request in line.sim.requests] == [False]


@pytest.mark.conformance("C-030")
async def test_a_warm_up_request_that_cannot_upgrade_goes_to_http_at_once() -> None:
    async with open_line(refuse_upgrades=426) as line, line.session(config=generate_false()) as session:
        await until_session(session, lambda found: found.fallback.active)
        assert (await answer(session.turn("hello"))).transport == "HTTP"
        assert len(line.sim.handshakes) == 1


async def test_a_turn_that_starts_during_the_warm_up_request_waits_for_it_and_continues_it() -> None:
    warm = Reply(events=[ev.created("warm-1"), Gate("warm"), ev.completed("warm-1")])
    script = Script(connections=[Connection(replies=[warm, Reply.model()])])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        await line.sim.wait_for_gate("warm")
        async with session.turn("hello") as turn:
            await admitted(turn)
            await session.get()
            line.sim.release("warm")
            await read_until(turn, "attempt_started")
            result = await turn.result()
        assert (result.slot_outcome, result.incremental) == ("AWAITED", True)
        assert await slot_state(session) == "IDLE"


async def test_a_warm_up_that_failed_is_named_in_the_slot() -> None:
    script = Script(connections=[Connection(replies=[Reply(status=400)])])
    async with open_line(script) as line, line.session(config=generate_false()) as session:
        state = await until_warm_up_failed(session)
        assert state.slot.last_failure_reason == "UPSTREAM_REJECTED"
        assert not state.fallback.active
        await line.until_handshake_ended(0)

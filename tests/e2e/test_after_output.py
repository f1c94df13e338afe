"""What becomes of a call that has delivered something: cancelled, failed, or resent (D-12)."""

from typing import Any

import grpc
import pytest

import warmline
from e2e.line import TRANSPORTS, config_for, hear, inferences, open_line, read_until, script_for, session_config
from manual_clock import ManualClock
from warmline.v1 import trace_service_pb2
from warmline_simulator import Connection, Drop, Gate, Reply, Script, ev, read


@pytest.mark.conformance("C-090")
@TRANSPORTS
async def test_an_attempt_whose_caller_leaves_is_cancelled_with_the_items_so_far(transport: str) -> None:
    reply = Reply(events=[*ev.text_response("words", response_id="resp-1")[:-1], Gate("never")])
    script = script_for(transport, reply)
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "item_done")
        await line.sim.wait_for_aborts(1)
        await line.until_calls(session, 0)
        (inference,) = await inferences(session)
        assert inference.status == trace_service_pb2.INFERENCE_STATUS_CANCELLED
        assert inference.output_items == 1
        assert inference.response_id == "resp-1"


@pytest.mark.conformance("C-091")
@TRANSPORTS
async def test_an_attempt_whose_caller_stopped_reading_and_leaves_is_cancelled_likewise(transport: str) -> None:
    """Flow control, not a queue of 1600, holds the line back: the upstream cannot write all of it."""
    start = ev.text_response("words", response_id="resp-1")[:-1]
    flood = [ev.text_delta("x" * 60_000)] * 1600
    reply = Reply(events=[*start, *flood, ev.completed()])
    script = script_for(transport, reply)
    profile = {"compression": False}  # else it fits into the network's own buffers
    async with open_line(script, profile=profile) as line, line.session(config=config_for(transport)) as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "item_done")
            sent = -1
            while sent != (sent := line.sim.requests[0].events_sent):
                await session.get()
        await line.sim.wait_for_aborts(1)
        await line.until_calls(session, 0)
        assert sent < 1600
        (inference,) = await inferences(session)
        assert inference.status == trace_service_pb2.INFERENCE_STATUS_CANCELLED
        assert inference.output_items == 1


@pytest.mark.conformance("C-094")
@TRANSPORTS
async def test_an_attempt_that_fails_after_an_item_is_failed_once_with_that_item(transport: str) -> None:
    reply = Reply(events=[*ev.text_response("words", response_id="resp-1")[:-1], ev.failed(), ev.failed()])
    script = script_for(transport, reply)
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello"))
        assert heard.failure.code is grpc.StatusCode.ABORTED
        (inference,) = await inferences(session)
        assert inference.status == trace_service_pb2.INFERENCE_STATUS_FAILED
        assert (inference.output_items, inference.response_id) == (1, "resp-1")
        assert inference.error_reason == "UPSTREAM_FAILED"


# Resends after output (D-12)


@pytest.mark.conformance("D-12")
@TRANSPORTS
@pytest.mark.parametrize("mode", ["before_output", "reference", "never"])
async def test_a_loss_before_output_is_resent_unless_the_caller_wants_none(transport: str, mode: Any) -> None:
    reply = Reply(events=[ev.created(), Drop()])
    script = script_for(transport, reply)
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello", retry=mode), clock)
        if mode == "never":
            assert heard.failure.code is grpc.StatusCode.UNAVAILABLE
            assert len(line.sim.requests) == 1
            return
        assert heard.result.attempts == 2
        assert not heard.of("restarted")
        assert line.sim.requests[1].body["input"] == line.sim.requests[0].body["input"]


@pytest.mark.conformance("D-12")
@TRANSPORTS
@pytest.mark.parametrize("mode", ["before_output", "never"])
async def test_a_loss_after_a_piece_of_text_is_final(transport: str, mode: Any) -> None:
    reply = Reply(events=[*ev.text_response("half a sentence")[:5], Drop()])
    script = script_for(transport, reply)
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello", retry=mode))
        assert heard.failure.code is grpc.StatusCode.ABORTED
        assert heard.failure.reason == "UPSTREAM_STREAM_LOST"
        assert not {"retrying", "restarted", "fell_back"} & {*heard.kinds}
        assert len(line.sim.requests) == 1


@pytest.mark.conformance("D-12")
@TRANSPORTS
async def test_under_reference_a_loss_after_a_piece_of_text_is_resent_and_the_piece_is_void(transport: str) -> None:
    lost = Reply(events=[*ev.text_response("half a sentence")[:5], Drop()])
    whole = Reply(events=ev.text_response("all of it"))
    script = script_for(transport, lost, whole)
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello", retry="reference"), clock)
        assert heard.result.text == "all of it"
        assert len(heard.result.items) == 1
        (restarted,) = heard.of("restarted")
        assert (restarted.attempt, list(restarted.kept_item_sequences)) == (2, [])
        assert line.sim.requests[1].body["input"] == line.sim.requests[0].body["input"]


@pytest.mark.conformance("D-12")
@TRANSPORTS
async def test_under_reference_finished_items_stay_and_go_back_to_the_model(transport: str) -> None:
    thought, said = ev.reasoning("thought", encrypted_content="opaque", id="rs-1"), ev.message("one", id="msg-1")
    begun = [*ev.item_events(ev.message("two"), 2)][:-2]
    lost = Reply(events=[*ev.response_of(thought, said)[:-1], *begun, Drop()])
    whole = Reply(events=ev.text_response("two"))
    script = script_for(transport, lost, whole)
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello", retry="reference"), clock)
        (restarted,) = heard.of("restarted")
        kept = [event for event in heard.events if event.sequence in restarted.kept_item_sequences]
        assert [event.item_done.item.json for event in kept] == list(heard.result.items[:2])
        assert [item["id"] for item in line.sim.requests[1].body["input"][1:]] == ["rs-1", "msg-1"]
        assert heard.result.text == "onetwo"
        assert len(heard.result.items) == 3


@pytest.mark.conformance("D-12")
async def test_what_a_resend_kept_is_the_prefix_of_the_next_turn() -> None:
    lost = Reply(events=[*ev.text_response("one")[:-1], Drop()])
    script = Script(creates=[lost, Reply(events=ev.text_response("two")), Reply.model()])
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        heard = await hear(session.turn("hello", retry="reference"), clock)
        await hear(session.turn(["hello", *heard.result.items, "go on"]))
        assert line.sim.requests[2].previous_response_id == heard.result.response_id
        assert read.message_texts(line.sim.requests[2].body) == ["go on"]


@pytest.mark.conformance("D-12")
@TRANSPORTS
@pytest.mark.parametrize("mode", ["before_output", "reference", "never"])
@pytest.mark.parametrize("call", ["function_call", "custom_tool_call", "local_shell_call", "apply_patch_call"])
async def test_after_a_finished_tool_call_nothing_is_ever_resent(transport: str, mode: Any, call: str) -> None:
    item = {
        "function_call": ev.function_call("look", call_id="call-1"),
        "custom_tool_call": ev.custom_tool_call("look", "there", call_id="call-1"),
        "local_shell_call": ev.local_shell_call(["ls"], call_id="call-1"),
        "apply_patch_call": ev.apply_patch_call("a.txt", call_id="call-1"),
    }[call]
    # Interleaved: the message before the call is finished, the one after it is not.
    steps = [*ev.response_of(ev.message("one"), item)[:-1], *ev.item_events(ev.message("two"), 2)][:-1]
    reply = Reply(events=[*steps, Drop()])
    script = script_for(transport, reply)
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello", retry=mode))
        assert (heard.failure.reason, heard.failure.code) == ("LOST_AFTER_TOOL_CALL", grpc.StatusCode.ABORTED)
        assert heard.failure.retry_after_s is None
        assert len(heard.so_far.items) == 2
        assert not {"retrying", "restarted", "fell_back"} & {*heard.kinds}
        assert len(line.sim.requests) == 1


@pytest.mark.conformance("D-12")
async def test_under_reference_a_call_that_the_provider_itself_ran_is_kept_and_sent_back() -> None:
    search = ev.web_search_call("weather", id="ws-1")
    lost = Reply(events=[*ev.response_of(search)[:-1], Drop()])
    script = Script(creates=[lost, Reply(events=ev.text_response("sunny"))])
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        heard = await hear(session.turn("hello", retry="reference"), clock)
        assert heard.result.text == "sunny"
        assert [item.get("id") for item in line.sim.requests[1].body["input"][1:]] == ["ws-1"]


@pytest.mark.conformance("D-12")
async def test_an_unfinished_tool_call_is_void_after_a_resend() -> None:
    events = ev.function_call_response("look", '{"at":"it"}', "call-1")
    begun = events[: next(n for n, event in enumerate(events) if event["type"] == "response.output_item.done")]
    script = Script(creates=[Reply(events=[*begun, Drop()]), Reply(events=ev.text_response("no tool"))])
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        heard = await hear(session.turn("hello", retry="reference"), clock)
        assert heard.result.function_calls == ()
        assert read.calls(line.sim.requests[1].body) == []


@pytest.mark.conformance("D-12")
async def test_a_budget_used_up_after_output_ends_over_http_under_reference_with_what_was_kept() -> None:
    lost = Reply(events=[*ev.text_response("one")[:-1], Drop()])
    script = Script(creates=[lost], posts=[Reply(events=ev.text_response("two"))])
    async with open_line(script) as line, line.session(config=session_config(retries=0)) as session:
        heard = await hear(session.turn("hello", retry="reference"))
        assert heard.result.transport == "HTTP"
        assert heard.result.text == "onetwo"
        (post,) = line.sim.posts()
        assert [item["role"] for item in post.body["input"]] == ["user", "assistant"]
        assert len(heard.of("restarted")) == 1


async def test_a_wait_ends_with_its_call() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(status=500)])
    config = session_config(warm_up="none", retries=5)
    async with open_line(script, clock=clock) as line, line.session(config=config) as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "retrying")
            await session.cancel_turn(request_id=turn.request_id)
            with pytest.raises(warmline.TurnCancelledError):
                await turn.result()
        await line.until_calls(session, 0)
        await clock.advance(10.0)
        await session.get()
        assert len(line.sim.handshakes) == 1

"""How a response ends, well and badly, on both transports."""

from typing import Any

import grpc
import pytest

import warmline
from e2e.line import (
    TRANSPORTS,
    Heard,
    Line,
    answer,
    config_for,
    hear,
    inferences,
    open_line,
    read_until,
    script_for,
)
from manual_clock import ManualClock
from warmline.v1 import trace_service_pb2
from warmline_simulator import Close, Frame, Gate, Hang, Nothing, Reply, Stall, ev
from warmline_simulator.script import Step

CLOSED = "stream closed before response.completed"
WEBSOCKET_CLOSED = "websocket closed by server before response.completed"


async def hear_reply(transport: str, *steps: Step, then: Step | None = None, **options: Any) -> Heard:
    """What a caller that wants no resend hears of a reply."""
    script = script_for(transport, Reply(events=steps, then=then))
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        return await hear(session.turn("hello", retry="never", **options))


@pytest.mark.conformance("C-057")
async def test_a_failed_response_ends_the_call_without_a_goodbye_to_the_socket() -> None:
    """No clock moves, and the upstream reads nothing more: whatever waited for it would wait for ever."""
    failing = Reply(events=[ev.created(), ev.failed("invalid_prompt", "no")], then=Stall())
    async with open_line(script_for("ws", failing), clock=ManualClock()) as line, line.session() as session:
        heard = await hear(session.turn("hello"))
        assert heard.failure.reason == "UPSTREAM_REJECTED"


@pytest.mark.conformance("C-073")
@TRANSPORTS
async def test_a_completed_response_ends_the_call_without_an_end_of_the_stream(transport: str) -> None:
    heard = await hear_reply(transport, *ev.text_response("words"), then=Hang())
    assert heard.result.text == "words"
    assert heard.kinds[-1] == "completed"


@pytest.mark.conformance("C-073")
async def test_a_post_that_goes_on_after_its_response_leaves_the_line_usable() -> None:
    endless = Reply(events=ev.text_response("words"), then=Hang())
    config = config_for("http")
    async with open_line(script_for("http", endless, Reply.model())) as line, line.session(config=config) as session:
        first = await answer(session.turn("hello"))
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert second.ending == "completed"


@pytest.mark.conformance("C-074")
async def test_a_stream_that_ends_before_its_response_is_an_error() -> None:
    heard = await hear_reply("http", ev.created(), Nothing())
    assert (heard.failure.reason, heard.failure.message) == ("UPSTREAM_STREAM_LOST", CLOSED)
    assert heard.failure.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.conformance("C-074")
async def test_a_stream_that_ends_after_output_is_an_error_that_says_so() -> None:
    heard = await hear_reply("http", *ev.text_response("half")[:5], Nothing())
    assert (heard.failure.reason, heard.failure.message) == ("UPSTREAM_STREAM_LOST", CLOSED)
    assert heard.failure.code is grpc.StatusCode.ABORTED
    assert isinstance(heard.failure, warmline.TurnInterruptedError)


@pytest.mark.conformance("C-074")
async def test_a_socket_that_closes_before_its_response_is_an_error() -> None:
    heard = await hear_reply("ws", ev.created(), Close(1000))
    assert (heard.failure.reason, heard.failure.message) == ("UPSTREAM_STREAM_LOST", WEBSOCKET_CLOSED)


@pytest.mark.conformance("C-076")
@TRANSPORTS
@pytest.mark.parametrize(
    "oddity",
    [
        pytest.param("{not json", id="bad JSON"),
        pytest.param('["an", "array"]', id="no object"),
        pytest.param('{"no":"type"}', id="no type"),
        pytest.param({"type": "response.output_item.done", "item": "no object"}, id="bad item"),
        pytest.param({"type": "response.output_item.done"}, id="no item"),
        pytest.param({"type": "response.output_text.delta", "item_id": "x"}, id="no delta"),
        pytest.param({"type": "response.created"}, id="no response"),
    ],
)
async def test_what_cannot_be_understood_is_passed_over(transport: str, oddity: Step) -> None:
    if transport == "http" and isinstance(oddity, str):
        oddity = f"data: {oddity}\n\n".encode()
    events = ev.text_response("words")
    plain = await hear_reply(transport, *events)
    heard = await hear_reply(transport, events[0], oddity, *events[1:])
    assert heard.result.text == "words"
    assert heard.kinds == plain.kinds


@pytest.mark.conformance("C-076")
@TRANSPORTS
async def test_an_unknown_event_passes_raw_and_the_stream_goes_on(transport: str) -> None:
    """Ours does not drop what it does not know: it is an event named `raw`."""
    unknown = {"type": "response.done", "future": 1}
    events = ev.text_response("words")
    heard = await hear_reply(transport, events[0], unknown, *events[1:])
    assert "response.done" in [event.upstream_type for event in heard.events if event.HasField("raw")]
    assert heard.result.text == "words"


async def hear_loss_and_reconnect(step: Step, codes: list[int | None]) -> tuple[Heard, Line]:
    script = script_for("ws", Reply(events=[ev.created(), step]), Reply.model())
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        heard = await hear(session.turn("hello"), clock)
        await line.until_handshake_ended(0)
        codes.append(line.sim.handshakes[0].close_code)
    return heard, line


@pytest.mark.conformance("C-085")
@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, None])
async def test_a_close_frame_mid_stream_is_the_same_retryable_loss_whatever_its_code(code: int | None) -> None:
    heard, line = await hear_loss_and_reconnect(Close(code, "reason"), [])
    (retrying,) = heard.of("retrying")
    assert (retrying.reason, retrying.retry) == ("UPSTREAM_STREAM_LOST", 1)
    assert heard.result.ending == "completed"
    assert heard.outcomes[1] == "COLD"
    assert [request.connection for request in line.sim.requests] == [0, 1]
    final = await hear_reply("ws", ev.created(), Close(code, "reason"))
    assert (final.failure.reason, final.failure.message) == ("UPSTREAM_STREAM_LOST", WEBSOCKET_CLOSED)


@pytest.mark.conformance("C-085")
async def test_a_close_frame_is_the_end_though_the_connection_stays() -> None:
    """No time passes, and the upstream never ends the connection."""
    close_frame = Frame(b"\x03\xe8", opcode=8)
    script = script_for("ws", Reply(events=[*ev.text_response("half")[:5], close_frame], then=Stall()))
    async with open_line(script, clock=ManualClock()) as line, line.session() as session:
        heard = await hear(session.turn("hello", retry="never"))
        assert heard.so_far.text == "half"
        assert (heard.failure.reason, heard.failure.message) == ("UPSTREAM_STREAM_LOST", WEBSOCKET_CLOSED)


@pytest.mark.conformance("C-086")
async def test_a_binary_frame_mid_stream_is_retried_on_another_socket() -> None:
    codes: list[int | None] = []
    heard, line = await hear_loss_and_reconnect(b"\x00\x01", codes)
    (retrying,) = heard.of("retrying")
    assert (retrying.reason, retrying.retry) == ("UPSTREAM_PROTOCOL", 1)
    assert heard.result.ending == "completed"
    assert [request.connection for request in line.sim.requests] == [0, 1]
    # Dropped, without a goodbye.
    assert codes == [None]


@pytest.mark.conformance("C-088")
@TRANSPORTS
async def test_silence_beyond_the_idle_limit_ends_the_attempt(transport: str) -> None:
    clock = ManualClock()
    script = script_for(transport, Reply(events=[ev.created(), Hang()]))
    config = config_for(transport)
    async with open_line(script, clock=clock) as line, line.session(config=config) as session:
        async with session.turn("hello", retry="never") as turn:
            await read_until(turn, "created")
            await clock.advance(299.9)
            assert line.sim.counters.aborted_turns == 0
            await clock.advance(0.1)
            with pytest.raises(warmline.UnavailableError, match="idle timeout waiting for") as caught:
                await turn.result()
        assert caught.value.reason == "UPSTREAM_IDLE"
        await line.sim.wait_for_aborts(1)
        if transport == "ws":
            await line.until_handshake_ended(0)
            assert line.sim.handshakes[0].close_code is None


@pytest.mark.conformance("C-088")
@TRANSPORTS
async def test_each_event_begins_the_silence_anew(transport: str) -> None:
    clock = ManualClock()
    steps: list[Step] = [
        ev.created(),
        Gate("1"),
        ev.text_delta("a "),
        Gate("2"),
        ev.text_delta("b"),
        Gate("3"),
        ev.completed(),
    ]
    script = script_for(transport, Reply(events=steps))
    config, limits = config_for(transport), {"slow_reader_s": 0.0}
    async with open_line(script, clock=clock, limits=limits) as line, line.session(config=config) as session:
        async with session.turn("hello", retry="never") as turn:
            for gate, kind in enumerate(("created", "text_delta", "text_delta"), start=1):
                await read_until(turn, kind)
                await clock.advance(200.0)
                line.sim.release(str(gate))
            result = await turn.result()
        assert result.text == "a b"


@pytest.mark.conformance("C-088")
@TRANSPORTS
async def test_silence_before_the_first_event_counts_too(transport: str) -> None:
    clock = ManualClock()
    script = script_for(transport, Reply(events=[Hang()]))
    config = config_for(transport)
    async with (
        open_line(script, clock=clock) as line,
        line.session(config=config) as session,
        session.turn("hello", retry="never") as turn,
    ):
        await line.sim.wait_for_requests(1)
        await read_until(turn, "attempt_started")
        await session.get()
        await clock.advance(300.0)
        with pytest.raises(warmline.UnavailableError, match="idle timeout waiting for"):
            await turn.result()


@pytest.mark.conformance("C-095")
async def test_a_caller_that_leaves_with_the_completed_event_leaves_a_completed_attempt() -> None:
    async with open_line() as line, line.session() as session:
        async with session.turn("hello") as turn:
            completed = (await read_until(turn, "completed")).completed
            turn.cancel()
        (inference,) = await inferences(session)
        assert inference.status == trace_service_pb2.INFERENCE_STATUS_COMPLETED
        assert inference.response_id == completed.response_id
        # The socket kept its memory, too.
        await answer(session.turn(["hello", *turn.snapshot().items, "go on"]))
        assert line.sim.requests[1].previous_response_id == completed.response_id

"""A turn against a scripted server: events, text, outcome, and every way to leave."""

import asyncio
import gc
import time

import grpc
import pytest

import warmline
from client.fake_server import (
    Call,
    FakeServer,
    Refusal,
    admitted,
    call_item,
    completed,
    created,
    done,
    message_item,
    refuse,
    retry_info,
    says,
    started,
    text,
)
from warmline.v1 import turn_service_pb2, types_pb2


async def test_turn_text_gives_the_pieces_in_order(server: FakeServer, session: warmline.Session) -> None:
    server.on("StreamTurn", says("Hel", "lo", ", wörld"))

    async with session.turn("Say hello.") as turn:
        pieces = [piece async for piece in turn.text()]

    assert pieces == ["Hel", "lo", ", wörld"]


async def test_turn_events_of_batches_come_one_by_one_in_order(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted(), started(), created())
        await call.send(*[text(str(n)) for n in range(50)])
        await call.send(done(message_item("all")), completed())

    server.on("StreamTurn", step)

    async with session.turn("Count.") as turn:
        events = [event async for event in turn]

    assert server.calls[0].messages_written == 3
    assert [event.sequence for event in events] == list(range(1, 56))
    assert [event.text_delta.delta for event in events if event.HasField("text_delta")] == [str(n) for n in range(50)]
    assert events[0].WhichOneof("event") == "admitted"
    assert events[-1].WhichOneof("event") == "completed"


async def test_turn_result_holds_the_outcome(server: FakeServer, session: warmline.Session) -> None:
    call = call_item("call_7", "weather", '{"city":"Köln"}')

    async def step(running: Call) -> None:
        await running.send(admitted("turn-9", running.request.request_id), started(), created("resp_9"))
        await running.send(text("Let me look."), done(message_item("Let me look.")), done(call))
        end = completed("resp_9", upstream_request_id="req_9", history_position=3)
        end.end_turn = False
        await running.send(end)

    server.on("StreamTurn", step)

    async with session.turn("Weather?") as turn:
        result = await turn.result()
        again = await turn.result()

    assert again == result
    assert result.ending == "completed"
    assert result.text == "Let me look."
    assert result.items == (message_item("Let me look."), call)
    assert result.function_calls == (warmline.FunctionCall("call_7", "weather", '{"city":"Köln"}'),)
    assert result.response_id == "resp_9"
    assert result.upstream_request_id == "req_9"
    assert result.usage == types_pb2.Usage(input_tokens=12, cached_input_tokens=4, output_tokens=5, total_tokens=17)
    assert result.end_turn is False
    assert result.incomplete_reason is None
    assert (result.slot_outcome, result.transport, result.attempts) == ("ADOPTED", "WEBSOCKET", 1)
    assert (result.turn_id, result.conversation_id) == ("turn-9", "conversation-1")
    assert result.request_id == server.calls[0].request.request_id
    assert result.history_position == 3


async def test_turn_result_without_upstream_request_id_says_unknown(
    server: FakeServer, session: warmline.Session
) -> None:
    server.on("StreamTurn", says("yes"))

    async with session.turn("Well?") as turn:
        result = await turn.result()

    assert result.upstream_request_id is None
    assert result.end_turn is None


async def test_turn_incomplete_ends_with_its_reason(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted(), started(), created(), text("Half a sen"))
        await call.send(turn_service_pb2.Incomplete(response_id="resp_1", reason="max_output_tokens"))

    server.on("StreamTurn", step)

    async with session.turn("Talk.") as turn:
        result = await turn.result()

    assert (result.ending, result.incomplete_reason) == ("incomplete", "max_output_tokens")
    assert result.text == "Half a sen"
    assert result.usage is None


async def test_turn_failure_after_completed_is_a_success(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted(), completed())
        raise Refusal(grpc.StatusCode.INTERNAL, "INTERNAL")

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        result = await turn.result()

    assert result.ending == "completed"


async def test_turn_ok_without_terminal_event_is_a_protocol_error(
    server: FakeServer, session: warmline.Session
) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted("turn-3"), text("cut"))

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        with pytest.raises(warmline.ProtocolError) as caught:
            await turn.result()

    assert caught.value.turn_id == "turn-3"
    assert turn.snapshot().text == "cut"


async def test_turn_missing_event_raises_a_gap_and_cancels_the_call(
    server: FakeServer, session: warmline.Session
) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted())
        call.event(text("lost"))
        await call.send(text("after"))
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        with pytest.raises(warmline.SequenceGapError, match="event 3 came, expected 2"):
            await turn.result()
        await server.calls[0].wait_ended()
        with pytest.raises(warmline.SequenceGapError):
            await anext(turn)

    assert server.calls[0].was_cancelled


async def test_turn_doubled_event_raises_a_gap(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        event = call.event(admitted())
        await call.write(turn_service_pb2.StreamTurnResponse(events=[event, event]))
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        with pytest.raises(warmline.SequenceGapError, match="event 1 came, expected 2"):
            await turn.result()


async def test_turn_member_of_a_newer_server_is_counted_and_skipped(
    server: FakeServer, session: warmline.Session
) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted())
        newer = call.event(text(""))
        newer.ClearField("text_delta")
        # Field 999 of TurnEvent, a message: what this client's descriptor does not have.
        newer.MergeFromString(b"\xba\x3e\x03\x0a\x01x")
        assert newer.WhichOneof("event") is None
        await call.write(turn_service_pb2.StreamTurnResponse(events=[newer]))
        await call.send(text("known"), completed())

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        events = [event async for event in turn]

    assert [event.sequence for event in events] == [1, 3, 4]
    assert turn.unknown_events == 1
    assert turn.snapshot().unknown_events == 1


async def test_turn_enum_value_of_a_newer_server_is_no_fault(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        newer = turn_service_pb2.AttemptStarted()
        newer.MergeFromString(b"\x10\x4d\x18\x63")  # transport 77, slot_outcome 99
        await call.send(admitted(), newer, completed())

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        result = await turn.result()

    assert (result.transport, result.slot_outcome) == ("77", "99")
    assert result.unknown_values == 2


async def test_turn_left_early_is_cancelled_at_the_server(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted(), text("first"))
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        async for _ in turn:
            break

    await server.calls[0].wait_ended()
    assert server.calls[0].was_cancelled


async def test_turn_text_iterator_dropped_is_cancelled_on_exit(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted(), text("first"))
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        pieces = turn.text()
        assert await anext(pieces) == "first"
        del pieces
        gc.collect()

    await server.calls[0].wait_ended()
    assert server.calls[0].was_cancelled


async def test_turn_never_read_is_cancelled_on_exit(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go."):
        await server.wait_call("StreamTurn")

    await server.calls[0].wait_ended()
    assert server.calls[0].was_cancelled


async def test_turn_body_that_raises_cancels_the_call(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted())
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async def run() -> None:
        async with session.turn("Go.") as turn:
            await anext(turn)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run()

    await server.calls[0].wait_ended()
    assert server.calls[0].was_cancelled


async def test_turn_task_cancelled_cancels_the_call_and_stays_cancelled(
    server: FakeServer, session: warmline.Session
) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted())
        await call.wait_cancelled()

    async def run() -> None:
        async with session.turn("Go.") as turn:
            await turn.result()

    server.on("StreamTurn", step)
    task = asyncio.create_task(run())
    call = await server.wait_call("StreamTurn")

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await call.wait_ended()
    assert call.was_cancelled


async def test_turn_read_cancelled_by_a_timeout_ends_the_turn_with_its_own_error(
    server: FakeServer, session: warmline.Session
) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted())
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        await anext(turn)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(turn)
        with pytest.raises(warmline.TurnCancelledError):
            await anext(turn)


async def test_turn_cancel_ends_a_pending_read_with_a_typed_error(
    server: FakeServer, session: warmline.Session
) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted("turn-5"))
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        await anext(turn)
        reader = asyncio.create_task(turn.result())
        asyncio.get_running_loop().call_soon(turn.cancel)
        with pytest.raises(warmline.TurnCancelledError) as caught:
            await reader

    assert caught.value.turn_id == "turn-5"
    assert not reader.cancelled()


async def test_turn_left_after_its_end_is_not_cancelled(server: FakeServer, session: warmline.Session) -> None:
    finish = asyncio.Event()

    async def step(call: Call) -> None:
        await call.send(admitted(), completed())
        await finish.wait()

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        async for event in turn:
            if event.HasField("completed"):
                asyncio.get_running_loop().call_later(0.02, finish.set)
                break

    await server.calls[0].wait_ended()
    assert not server.calls[0].was_cancelled


async def test_turn_entered_twice_is_refused(server: FakeServer, session: warmline.Session) -> None:
    server.on("StreamTurn", says("once"))
    turn = session.turn("Go.")
    async with turn:
        await turn.result()

    with pytest.raises(RuntimeError, match="sent once"):
        await turn.__aenter__()


async def test_turn_not_entered_cannot_be_read(session: warmline.Session) -> None:
    with pytest.raises(RuntimeError, match="not entered"):
        await session.turn("Go.").result()


async def test_turn_refused_with_retry_info_is_sent_again(server: FakeServer, session: warmline.Session) -> None:
    draining = Refusal(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", details=[retry_info(0.01)])
    server.on("StreamTurn", refuse(draining), refuse(draining), says("there"))

    async with session.turn("Go.") as turn:
        result = await turn.result()

    assert result.text == "there"
    assert len({call.request.request_id for call in server.calls}) == 1
    assert len(server.calls) == 3


async def test_turn_unavailable_without_error_info_is_sent_again(server: FakeServer, session: warmline.Session) -> None:
    server.on("StreamTurn", refuse(Refusal(grpc.StatusCode.UNAVAILABLE)), says("there"))

    async with session.turn("Go.") as turn:
        result = await turn.result()

    assert result.text == "there"


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_FAILED"),
        Refusal(grpc.StatusCode.ABORTED, "LANE_BUSY"),
        Refusal(grpc.StatusCode.INTERNAL),
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    ],
    ids=lambda refusal: refusal.reason or refusal.code.name,
)
async def test_turn_other_refusal_is_final(server: FakeServer, session: warmline.Session, refusal: Refusal) -> None:
    server.on("StreamTurn", refuse(refusal))

    async with session.turn("Go.") as turn:
        with pytest.raises(warmline.WarmlineError):
            await turn.result()

    assert len(server.calls) == 1


async def test_turn_is_never_sent_again_after_an_event(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted())
        raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", details=[retry_info(0.01)])

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        with pytest.raises(warmline.RateLimitedError) as caught:
            await turn.result()

    assert caught.value.retry_after_s == pytest.approx(0.01)
    assert len(server.calls) == 1


async def test_turn_resends_are_bounded(server: FakeServer) -> None:
    server.on("StreamTurn", *[refuse(Refusal(grpc.StatusCode.UNAVAILABLE))] * 3)
    retry = warmline.CallRetry(max_tries=3, first_wait_s=0.001)

    async with (
        warmline.Client(server.target, retry=retry) as client,
        client.session("s", start="lazy").turn("Go.") as turn,
    ):
        with pytest.raises(warmline.UnavailableError):
            await turn.result()

    assert len(server.calls) == 3


async def test_turn_deadline_is_the_calls_and_typed(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.wait_cancelled()

    server.on("StreamTurn", step)

    async with session.turn("Go.", turn_id="turn-8", timeout_s=0.5) as turn:
        with pytest.raises(warmline.DeadlineExceededError) as caught:
            await turn.result()

    assert caught.value.turn_id == "turn-8"
    assert server.calls[0].time_remaining_s is not None
    assert server.calls[0].time_remaining_s < 0.6


async def test_turn_survives_a_server_restart_and_sends_the_session_config() -> None:
    async with FakeServer() as first:
        first.on("StreamTurn", says("before"))
        async with warmline.Client(first.target) as client:
            session = client.session("survivor", start="lazy", upstream="main", model="small")
            async with session.turn("One.") as turn:
                await turn.result()
            await first.stop()

            async with session.turn("Two.") as turn:
                reading = asyncio.create_task(turn.result())
                async with FakeServer(port=first.port) as second:
                    second.on("StreamTurn", says("after"))
                    result = await reading

    assert result.text == "after"
    config = second.calls[0].request.session_config
    assert (config.upstream, config.request_defaults.model) == ("main", "small")


async def test_turn_of_ten_thousand_events_is_linear(server: FakeServer, session: warmline.Session) -> None:
    async def read_s(count: int) -> float:
        async def step(call: Call) -> None:
            await call.send(admitted())
            for _ in range(count // 100):
                await call.send(*[text("word ")] * 100)
            await call.send(completed())

        server.on("StreamTurn", step)
        begin_s = time.process_time()
        async with session.turn("Go.") as turn:
            result = await turn.result()
        assert len(result.text) == 5 * count
        return time.process_time() - begin_s

    await read_s(1_000)
    small_s = min([await read_s(1_000) for _ in range(3)])
    large_s = min([await read_s(10_000) for _ in range(2)])

    # Ten times the work; a quadratic fold would cost a hundred times.
    assert large_s < 30 * small_s


async def test_turns_leave_no_call_task_or_channel_behind(server: FakeServer) -> None:
    async def hangs(call: Call) -> None:
        await call.send(admitted(), text("never ends"))
        await call.wait_cancelled()

    server.on("StreamTurn", *[says("a"), hangs] * 10)
    former = {id(kept) for kept in calls_and_channels()}

    async with warmline.Client(server.target) as client:
        session = client.session("s", start="lazy")
        for _ in range(10):
            async with session.turn("Go.") as turn:
                await turn.result()
            async with session.turn("Go.") as turn:
                await anext(turn)
    for call in server.calls:
        await call.wait_ended()
    del client, session, turn

    if left := client_tasks():
        # Those of gRPC that were cancelled need a turn of the loop to end.
        await asyncio.wait(left, timeout=2)
    assert client_tasks() == set()
    kept = [found for found in calls_and_channels() if id(found) not in former]
    # Of 20 calls; gRPC 1.76 holds on to the newest.
    assert len(kept) <= 2
    assert sum(call.was_cancelled for call in server.calls) == 10


def calls_and_channels() -> list[object]:
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, grpc.aio.UnaryStreamCall | grpc.aio.Channel)]


def client_tasks() -> set["asyncio.Task[object]"]:
    """All tasks but this one and the scripted server's own."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return {task for task in tasks if "AioServer" not in repr(task) and "_handle_rpc" not in repr(task)}

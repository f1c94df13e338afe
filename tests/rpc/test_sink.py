"""The writer to a caller's stream, on real channels: its numbers, its limits, and a status after every kind of stop."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from manual_clock import ManualClock, settle
from warmline.v1 import turn_service_pb2 as pb
from warmline_server.core.errors import Reason, WarmlineError
from warmline_server.core.events import Emission, Raw, TextDelta
from warmline_server.rpc.sink import GrpcSink
from warmline_server.session.call_spec import CallerGone

METHOD = "/warmline.probe.Probe/Stream"
# Far beyond the window that a reader who does not read leaves open.
MUCH = "x" * 8_000_000
LIMIT_S = 30.0

Handler = Callable[[Any], Awaitable[None]]
Call = Any


@asynccontextmanager
async def stream(handler: Handler) -> AsyncIterator[Call]:
    """A streamed call that `handler` serves, with the server's context as its argument."""

    async def serve(_request: bytes, context: Any) -> None:
        await handler(context)

    server = grpc.aio.server()
    method: Any = grpc.unary_stream_rpc_method_handler(serve)
    service, name = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    # Otherwise the window may grow in the midst of a test, and take in everything that waits.
    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        method = channel.unary_stream(METHOD, response_deserializer=pb.StreamTurnResponse.FromString)
        call = method(b"")
        yield call
        call.cancel()
    await server.stop(None)


def sink_of(context: Any, stops: list[WarmlineError], clock: ManualClock | None = None, limit_s: float = 0) -> GrpcSink:
    return GrpcSink(
        context, pb.EVENT_MODE_TYPED, clock=clock or ManualClock(), slow_reader_s=limit_s, stop=stops.append
    )


def delta(text: str) -> Emission:
    return Emission(TextDelta(text), 1, "response.output_text.delta")


async def read(call: Call) -> Any:
    """The next message; fails the test when none comes."""
    async with asyncio.timeout(5):
        return await call.read()


async def read_all(call: Call) -> None:
    while await read(call) is not grpc.aio.EOF:
        pass


async def test_each_batch_is_one_message_and_numbers_go_on_without_gaps() -> None:
    async def handler(context: Any) -> None:
        sink = sink_of(context, [])
        await sink.send([delta("a"), delta("b")])
        await sink.send([delta("c")])
        assert sink.sequence == 3

    async with stream(handler) as call:
        messages = [await read(call), await read(call)]
        assert await read(call) is grpc.aio.EOF

    assert [[(e.sequence, e.text_delta.delta) for e in m.events] for m in messages] == [
        [(1, "a"), (2, "b")],
        [(3, "c")],
    ]


@pytest.mark.parametrize("written", [0, 1], ids=["first write", "later write"])
async def test_status_arrives_when_a_write_was_cancelled(written: int) -> None:
    """A call that is stopped from outside is cancelled wherever it is, also inside the write that opens the stream."""

    async def handler(context: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        sink = sink_of(context, [])
        for _ in range(written):
            await sink.send([delta("before")])
        asyncio.get_running_loop().call_soon(task.cancel)
        with suppress(asyncio.CancelledError):
            await sink.send([delta("cancelled")])
        task.uncancel()
        await sink.settled()
        await context.abort(grpc.StatusCode.ABORTED, "stopped")

    async with stream(handler) as call:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await read_all(call)

    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.ABORTED, "stopped")


async def test_caller_that_left_is_told_apart() -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(context: Any) -> None:
        sink = sink_of(context, [])
        try:
            while True:
                await sink.send([delta(MUCH)])
        except CallerGone:
            outcome.set_result("CallerGone")
        except asyncio.CancelledError:
            outcome.set_result("cancelled")

    async with stream(handler) as call:
        await read(call)
        call.cancel()
        async with asyncio.timeout(5):
            assert await outcome in ("CallerGone", "cancelled")


async def test_caller_that_leaves_a_stopped_call_in_its_first_write_leaves_no_failure_behind() -> None:
    told: list[Any] = []
    loop, stopped, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.set_exception_handler(lambda _loop, context: told.append(context))

    async def handler(context: Any) -> None:
        task, sink = asyncio.current_task(), sink_of(context, [])
        assert task is not None
        loop.call_soon(task.cancel)
        with suppress(asyncio.CancelledError):
            await sink.send([delta(MUCH)])
        task.uncancel()
        stopped.set()
        with suppress(asyncio.CancelledError):
            await sink.settled()
        ended.set()

    async with stream(handler) as call:
        await stopped.wait()
        call.cancel()
        async with asyncio.timeout(5):
            await ended.wait()
        await settle()
        gc.collect()

    assert told == []


async def test_write_that_nobody_takes_stops_the_call_once_after_its_limit() -> None:
    clock, stops = ManualClock(), list[WarmlineError]()
    begun = asyncio.Event()

    async def handler(context: Any) -> None:
        sink = sink_of(context, stops, clock, LIMIT_S)
        await sink.send([delta("a")])
        begun.set()
        await sink.send([delta(MUCH)])

    async with stream(handler) as call:
        await read(call)
        await begun.wait()
        await clock.advance(LIMIT_S * 0.9)
        assert stops == []
        await clock.advance(LIMIT_S * 0.6 + 0.1)
        assert [stop.reason for stop in stops] == [Reason.SLOW_READER]
        await clock.advance(LIMIT_S * 10)
        assert len(stops) == 1


async def test_reader_that_takes_what_there_is_may_take_any_time() -> None:
    clock, stops = ManualClock(), list[WarmlineError]()
    more, sent = asyncio.Queue[None](), asyncio.Event()

    async def handler(context: Any) -> None:
        sink = sink_of(context, stops, clock, LIMIT_S)
        for _ in range(3):
            await sink.send([delta("a")])
            sent.set()
            await more.get()
        sink.close()
        assert clock.pending_at_s == []

    async with stream(handler) as call:
        for _ in range(3):
            await read(call)
            await sent.wait()
            sent.clear()
            await clock.advance(LIMIT_S * 5)
            more.put_nowait(None)
        assert await read(call) is grpc.aio.EOF

    assert stops == []


async def test_without_a_limit_nothing_is_watched() -> None:
    clock = ManualClock()

    async def handler(context: Any) -> None:
        await sink_of(context, [], clock, 0).send([delta("a")])

    async with stream(handler) as call:
        await read(call)
        await settle()

    assert clock.pending_at_s == []


async def test_raw_mode_sends_the_payload_and_no_typed_form() -> None:
    async def handler(context: Any) -> None:
        sink = GrpcSink(context, pb.EVENT_MODE_RAW, clock=ManualClock(), slow_reader_s=0, stop=lambda _: None)
        payload = b'{"type":"response.output_text.delta","delta":"a"}'
        await sink.send([Emission(TextDelta("a"), 1, "response.output_text.delta", payload)])
        await sink.send([Emission(Raw(), 1, "response.new", b'{"type":"response.new"}')])

    async with stream(handler) as call:
        events = [(await read(call)).events[0] for _ in range(2)]

    assert [event.WhichOneof("event") for event in events] == ["raw", "raw"]
    assert [event.payload_json for event in events] == [
        b'{"type":"response.output_text.delta","delta":"a"}',
        b'{"type":"response.new"}',
    ]

"""The sync twin: the same calls without asyncio, from the same code."""

import inspect
import threading
from collections.abc import Iterator
from typing import assert_type

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

import warmline
import warmline.sync
from client.fake_server import Call, FakeServer, Refusal, admitted, answer, refuse, says, text
from warmline.sync import LoopThread, shared_loop
from warmline.v1 import session_service_pb2

GOT = session_service_pb2.GetSessionResponse(session=session_service_pb2.Session(session_id="s"))


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    with shared_loop() as held:
        yield held


@pytest.fixture
def server(loop: LoopThread) -> Iterator[FakeServer]:
    """The scripted server on the twin's own loop, because gRPC wants one per process."""

    async def make() -> FakeServer:
        return await FakeServer().__aenter__()

    fake = loop.run(make())
    yield fake
    loop.run(fake.__aexit__(None, None, None))


@pytest.fixture
def client(server: FakeServer) -> Iterator[warmline.sync.Client]:
    with warmline.sync.Client(server.target) as opened:
        yield opened


async def hangs(call: Call) -> None:
    await call.send(admitted("turn-1"), text("first"))
    await call.wait_cancelled()


def test_sync_turn_streams_and_ends_like_the_async_one(server: FakeServer, client: warmline.sync.Client) -> None:
    server.on("StreamTurn", says("Hel", "lo"))

    with client.session("s", start="lazy", model="small") as session, session.turn("Hi", turn_id="t") as turn:
        pieces = list(turn.text())
        result = turn.result()

    assert_type(result, warmline.TurnResult)
    assert pieces == ["Hel", "lo"]
    assert (result.text, result.turn_id, turn.turn_id) == ("Hello", "t", "t")
    assert turn.snapshot() == result
    assert turn.request_id == turn.request.request_id == server.calls[0].request.request_id
    assert turn.unknown_events == 0


def test_sync_turn_iterates_events(server: FakeServer, client: warmline.sync.Client) -> None:
    server.on("StreamTurn", says("Hi"))

    with client.session("s", start="lazy").turn("Hi") as turn:
        assert [event.sequence for event in turn] == [1, 2, 3, 4, 5, 6]


def test_sync_turn_left_early_is_cancelled_at_the_server(
    server: FakeServer, client: warmline.sync.Client, loop: LoopThread
) -> None:
    server.on("StreamTurn", hangs)

    with client.session("s", start="lazy").turn("Hi") as turn:
        for piece in turn.text():
            assert piece == "first"
            break

    loop.run(server.calls[0].wait_ended())
    assert server.calls[0].was_cancelled


def test_sync_cancel_from_another_thread_ends_a_read(server: FakeServer, client: warmline.sync.Client) -> None:
    server.on("StreamTurn", hangs)

    with client.session("s", start="lazy").turn("Hi") as turn:
        next(iter(turn))
        canceller = threading.Thread(target=turn.cancel)
        canceller.start()
        with pytest.raises(warmline.TurnCancelledError):
            turn.result()
        canceller.join()


def test_sync_unary_calls_and_pages(server: FakeServer, client: warmline.sync.Client) -> None:
    page = session_service_pb2.ListSessionsResponse(sessions=[GOT.session])
    server.on("GetSession", answer(GOT))
    server.on("ListSessions", answer(page))

    assert client.session("s", start="attach").get() == GOT.session
    assert list(client.list_sessions()) == [GOT.session]


def test_sync_watch_iterates_states(server: FakeServer, client: warmline.sync.Client) -> None:
    async def step(call: Call) -> None:
        await call.write(session_service_pb2.WatchSessionResponse(session=GOT.session))

    server.on("WatchSession", step)

    with client.session("s", start="attach").watch() as states:
        assert list(states) == [GOT.session]


def test_sync_errors_are_the_same(server: FakeServer, client: warmline.sync.Client) -> None:
    server.on("GetSession", refuse(Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")))

    with pytest.raises(warmline.SessionNotFoundError):
        client.session("s", start="attach").get()


def test_sync_call_carries_the_current_span(server: FakeServer, client: warmline.sync.Client) -> None:
    server.on("GetSession", answer(GOT))

    with TracerProvider().get_tracer("test").start_as_current_span("agent") as span:
        client.session("s", start="attach").get()

    trace_id = format(span.get_span_context().trace_id, "032x")
    assert server.calls[0].metadata["traceparent"].split("-")[1] == trace_id


def test_sync_client_refuses_to_wait_on_its_own_thread(loop: LoopThread) -> None:
    async def inner() -> None:
        async def work() -> None:
            return None

        with pytest.raises(RuntimeError, match="its own thread"):
            loop.run(work())

    loop.run(inner())


def test_sync_loop_ends_with_its_last_holder() -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "warmline"]

    with shared_loop() as first:
        with shared_loop() as second:
            assert first is second
        assert threads() == ["warmline"]

    assert threads() == []


def test_sync_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        warmline.sync.Client().session("s")


@pytest.mark.parametrize("name", ["Client", "Session", "Turn", "Watch"])
def test_sync_classes_have_what_the_async_ones_have(name: str) -> None:
    generated_stubs = {"sessions", "turns", "traces"}
    async_class, sync_class = getattr(warmline, name), getattr(warmline.sync, name)

    expected = {method for method in vars(async_class) if not method.startswith("_")} - generated_stubs
    found = {method for method in vars(sync_class) if not method.startswith("_")}

    assert expected <= found
    for method in expected:
        if inspect.isfunction(vars(async_class)[method]):
            assert inspect.signature(vars(sync_class)[method]) == inspect.signature(vars(async_class)[method])
            assert vars(sync_class)[method].__doc__ == vars(async_class)[method].__doc__

"""Reading HTTP exchanges: batches, endings, back-pressure, against raw servers."""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator

import pytest
from httpcore._async.http11 import AsyncHTTP11Connection

from manual_clock import ManualClock, settle
from transport.http_kit import (
    LIMITS,
    RawServer,
    event,
    finished_stream,
    open_stream,
    opening,
    soon,
    wait_until,
)
from warmline_server.core.errors import Heal, Reason, UpstreamFailure
from warmline_server.core.events import ModelsEtag, RateLimits, RateLimitWindow, ReasoningIncluded, ServerModel
from warmline_server.transport.http import HttpTransport
from warmline_server.transport.http_exchange import DRAIN_S, Reply

# What asyncio reads at once.
ONE_READ_BYTES = 256 * 1024


@pytest.mark.conformance("C-072")
async def test_head_tells_the_events_of_its_headers_and_both_ids(http: HttpTransport, server: RawServer) -> None:
    exchange, _ = await open_stream(
        http,
        server,
        "X-Reasoning-Included: true",
        "X-Models-Etag: etag-1",
        "X-Codex-Primary-Used-Percent: 12.5",
        "OpenAI-Model: m-1",
        "X-Request-Id: req_1",
        "X-Codex-Turn-State: ts-1",
    )

    assert exchange.head.events == (
        ServerModel("m-1"),
        RateLimits("codex", primary=RateLimitWindow(12.5)),
        ModelsEtag("etag-1"),
        ReasoningIncluded(),
    )
    assert (exchange.head.upstream_request_id, exchange.head.turn_state, exchange.head.status) == ("req_1", "ts-1", 200)


async def test_receive_returns_all_that_has_arrived_without_done(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    first = asyncio.create_task(exchange.receive())
    peer.send_chunk(event("a")[:7])
    peer.send_chunk(event("a")[7:] + event("b") + b": ping\n\n" + b"data: [DONE]\n\ndata:\n\n")

    assert await soon(first) == [b'{"type": "a"}', b'{"type": "b"}']


async def test_caller_that_leaves_in_the_moment_in_which_the_head_comes_leaves_nothing_half_closed(
    http: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    head_came, steps = asyncio.Event(), list[str]()

    async def close() -> None:
        for step in ("begun", "half way", "whole"):
            steps.append(step)
            await asyncio.sleep(0)

    async def send(*_: object) -> Reply:
        await head_came.wait()
        return Reply(200, {}, silence(), close)

    await http.warm()
    monkeypatch.setattr(http, "_send", send)
    call = opening(http, "http://127.0.0.1:9")
    await settle()
    head_came.set()  # the request's own task wakes first, and then the caller's
    call.cancel()
    await asyncio.wait([call])
    await http.close()

    assert call.cancelled()
    assert steps == ["begun", "half way", "whole"]


async def silence() -> AsyncIterator[bytes]:
    """A body that never comes."""
    await asyncio.Event().wait()
    yield b""


@pytest.mark.conformance("C-073")
async def test_finish_needs_no_end_of_the_body_and_gives_the_connection_up_after_a_while(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("response.completed"))
    assert await soon(exchange.receive()) == [b'{"type": "response.completed"}']

    exchange.finish()
    await clock.advance(DRAIN_S)

    await peer.wait_disconnected()


async def test_finished_exchange_gives_its_connection_back_when_the_body_ends(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    peer = await finished_stream(http, server)
    peer.send_chunk(b": trailer\n\n")
    peer.send_chunk(b"")
    await wait_until(lambda: not clock.pending_at_s)

    second = opening(http, server.url)
    await soon(peer.read_request())
    second.cancel()

    assert (len(server.peers), len(peer.requests)) == (1, 2)


async def test_caller_that_leaves_while_a_finished_answer_is_closed_leaves_its_connection_free(
    http: HttpTransport, server: RawServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, peer = await open_stream(http, server)
    give_back = AsyncHTTP11Connection._response_closed

    async def leave_and_give_back(connection: AsyncHTTP11Connection) -> None:
        exchange.abandon()
        await give_back(connection)

    monkeypatch.setattr(AsyncHTTP11Connection, "_response_closed", leave_and_give_back)
    peer.send_chunk(event("response.completed"))
    await soon(exchange.receive())
    exchange.finish()
    peer.send_chunk(b"")
    await wait_until(lambda: not http._tasks)

    second = opening(http, server.url)
    await soon(peer.read_request())
    second.cancel()
    assert (len(server.peers), len(peer.requests)) == (1, 2)


async def test_finished_exchange_drops_a_connection_that_goes_on_talking(
    http: HttpTransport, server: RawServer
) -> None:
    peer = await finished_stream(http, server)
    peer.send_chunk(b"x" * 200_000)

    await peer.wait_disconnected()


@pytest.mark.conformance("C-074")
@pytest.mark.parametrize("ending", ["whole", "cut", "reset"])
async def test_end_before_the_terminal_event_is_a_lost_stream_after_what_came_before(
    http: HttpTransport, server: RawServer, ending: str
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a"))
    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    match ending:
        case "whole":
            peer.send_chunk(b'data: {"type":"b"}')
            peer.send_chunk(b"")
            assert await soon(exchange.receive()) == [b'{"type":"b"}']
        case "cut":
            peer.writer.write_eof()
        case "reset":
            linger_off = (1).to_bytes(4, sys.byteorder) + bytes(4)
            peer.writer.get_extra_info("socket").setsockopt(1, 13, linger_off)
            peer.writer.transport.abort()

    with pytest.raises(UpstreamFailure) as caught:
        await soon(exchange.receive())

    assert (caught.value.reason, caught.value.heal) == (Reason.UPSTREAM_STREAM_LOST, Heal.RESEND)
    expected = "stream broke before response.completed: Connection reset by peer"
    assert caught.value.text == (expected if ending == "reset" else "stream closed before response.completed")


async def test_body_that_is_garbled_is_no_lost_stream(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a"))
    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    peer.send(b"no size of a chunk\r\n")

    with pytest.raises(UpstreamFailure) as caught:
        await soon(exchange.receive())

    assert (caught.value.reason, caught.value.heal) == (Reason.UPSTREAM_PROTOCOL, Heal.RESEND)


async def test_abandon_cuts_the_connection_at_once(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    waiting = asyncio.create_task(exchange.receive())

    exchange.abandon()
    exchange.abandon()

    await peer.wait_disconnected()
    with pytest.raises(UpstreamFailure):
        await soon(waiting)


async def test_abandon_cuts_a_connection_whose_reading_is_paused(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    for _ in range(200):
        peer.send_chunk(b"data: " + b"x" * 10_000 + b"\n\n")
    await wait_until(lambda: not exchange.is_reading)

    exchange.abandon()

    await peer.wait_disconnected()


@pytest.mark.parametrize("chunked", [True, False], ids=["past the library", "through it"])
async def test_reading_pauses_while_the_caller_is_slow_and_loses_nothing(
    http: HttpTransport, server: RawServer, chunked: bool
) -> None:
    count = 2000
    exchange, peer = await open_stream(http, server, *([] if chunked else [f"Content-Length: {count * 10_008}"]))
    for number in range(count):
        data = b"data: " + str(number).encode().ljust(10_000) + b"\n\n"
        (peer.send_chunk if chunked else peer.send)(data)
    if chunked:
        peer.send_chunk(b"")
    await wait_until(lambda: not exchange.is_reading)
    for _ in range(5000):  # turns of the loop, many more than it takes to read all
        await asyncio.sleep(0)
    unsent_bytes = peer.writer.transport.get_write_buffer_size()

    batches: list[list[bytes]] = []
    while sum(map(len, batches)) < count:
        batches.append([*await soon(exchange.receive())])

    assert unsent_bytes > 5_000_000
    assert max(sum(map(len, batch)) for batch in batches) <= LIMITS.read_ahead_bytes + ONE_READ_BYTES + 10_000
    assert [int(payload) for batch in batches for payload in batch] == list(range(count))


async def test_cancelled_receive_loses_nothing(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    peer.send_chunk(event("a"))

    assert await soon(exchange.receive()) == [b'{"type": "a"}']


async def test_fail_wakes_a_waiting_receive(http: HttpTransport, server: RawServer) -> None:
    exchange, _ = await open_stream(http, server)
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    error = TimeoutError("idle")

    exchange.fail(error)

    with pytest.raises(TimeoutError) as caught:
        await soon(waiting)
    assert caught.value is error


async def test_fail_comes_after_the_events_that_arrived_before(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a"))
    await wait_until(lambda: exchange.has_events)

    exchange.fail(TimeoutError("idle"))

    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    with pytest.raises(TimeoutError):
        await soon(exchange.receive())


async def test_encoded_stream_is_decoded(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server, "Content-Encoding: gzip")
    peer.send_chunk(gzip.compress(event("a")))

    assert await soon(exchange.receive()) == [b'{"type": "a"}']


async def test_event_beyond_its_limit_ends_the_stream_after_what_came_before(
    http: HttpTransport, server: RawServer
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a") + b"data: " + b"x" * 60_000)

    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    with pytest.raises(UpstreamFailure) as caught:
        await soon(exchange.receive())

    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL
    await peer.wait_disconnected()

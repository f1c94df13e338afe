"""The network beneath httpcore: connects, TLS, what passes the library by, on both loops."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
import uvloop

from fuzz.checks.http_wire import Transport
from manual_clock import ManualClock
from transport.http_kit import (
    Peer,
    RawServer,
    event,
    finished_stream,
    open_stream,
    opening,
    raw_server,
    soon,
    wait_until,
)
from warmline_server.core.errors import UpstreamFailure
from warmline_server.transport.http import HttpTransport
from warmline_server.transport.http_network import READ_AHEAD_BYTES, Network, Wire
from warmline_simulator.tls import make_certificate, server_context

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


def run_on(new_loop: NewLoop, scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario)


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9", True])
async def test_every_connection_is_made_by_our_network(
    clock: ManualClock, proxy: str | bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    http = HttpTransport(clock, proxy=proxy)
    client: Any = await http._client()
    pools = [client._transport_for_url(httpx.URL(f"{scheme}://upstream/"))._pool for scheme in ("http", "https")]
    connections = [
        pool.create_connection(httpcore.Origin(scheme, b"upstream", 80))
        for pool in pools
        for scheme in (b"http", b"https")
    ]
    await http.close()

    for connection in connections:
        inner = getattr(connection, "_connection", None) or connection
        assert isinstance(inner._network_backend, Network)


async def test_body_that_fills_the_buffer_with_its_head_is_read_on(http: HttpTransport, server: RawServer) -> None:
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    data = b": " + b"x" * 30_000 + b"\n\n"
    for _ in range(2 * READ_AHEAD_BYTES // len(data) + 1):
        peer.send_chunk(data)
    peer.send_chunk(event("a"))
    exchange = await soon(task)

    assert await soon(exchange.receive()) == [b'{"type": "a"}']


@pytest.mark.parametrize("size", [1, 2, 3, 50])
async def test_head_that_comes_in_pieces_is_followed_by_a_diverted_body(size: int) -> None:
    wire, taken = Wire(), bytearray()
    wire.connection_made(Transport())
    head = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    reply = b"".join(head) + b"3\r\nabc\r\n0\r\n\r\nmore"
    await wire.write(b"a request")
    handed_out = b""
    for at in range(0, len(reply), size):
        wire.data_received(reply[at : at + size])
        while wire._buffer and len(handed_out) < len(b"".join(head)):
            handed_out += await wire.read(1000)
        if handed_out == b"".join(head):
            wire.head_is_over()
            wire.divert(taken.extend)
            handed_out += b"."
    assert (handed_out, bytes(taken)) == (b"".join(head) + b".", b"abc")
    assert await wire.read(1000) == b"0\r\n\r\n"
    assert wire.get_extra_info("is_readable"), "what follows the end"


async def test_body_of_which_the_library_has_a_part_is_not_diverted() -> None:
    wire, taken = Wire(), bytearray()
    wire.connection_made(Transport())
    await wire.write(b"a request")
    wire.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    await wire.read(1000)
    wire.head_is_over()
    wire.data_received(b"aHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
    await wire.read(1000)
    await wire.write(b"another, whose answer is in the library already")

    wire.head_is_over()
    wire.divert(taken.extend)
    wire.data_received(b"3\r\ncde\r\n")

    assert (await wire.read(1000), bytes(taken)) == (b"3\r\ncde\r\n", b"")


async def test_body_passes_by_the_task_of_its_request(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a"))
    await soon(exchange.receive())
    (task,) = http._tasks
    steps = 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1

    waits_for: Any = task._fut_waiter  # type: ignore[attr-defined]
    waits_for.add_done_callback(step)
    for _ in range(10):
        peer.send_chunk(event("b"))
        await soon(exchange.receive())

    assert steps == 0


async def test_reply_with_more_after_its_end_leaves_no_connection_to_use_again(
    http: HttpTransport, server: RawServer
) -> None:
    peer = await finished_stream(http, server)
    peer.send(b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: not for you\n\n")
    await wait_until(lambda: not http._tasks)

    _, second = await open_stream(http, server)

    assert second.number == 2


async def test_second_address_is_tried_when_the_first_one_refuses(
    http: HttpTransport, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")

    async def two(*_: object, **__: object) -> list[Any]:
        return [(*tcp, ("127.0.0.1", 9)), (*tcp, ("127.0.0.1", server.port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
    exchange, _ = await open_stream(http, server)

    assert exchange.head.status == 200


async def test_peer_that_speaks_before_the_tls_handshake_is_no_peer(server: RawServer) -> None:
    wire = await Network().connect_tcp("127.0.0.1", server.port)
    peer = await server.accept()
    peer.send(b"injected")
    await wait_until(lambda: bool(wire.get_extra_info("is_readable")) and bool(wire._buffer))

    with pytest.raises(httpcore.ConnectError):
        await wire.start_tls(ssl.create_default_context(), "127.0.0.1")

    await peer.wait_disconnected()


async def test_write_waits_while_the_peer_does_not_read_and_fails_when_it_is_gone(server: RawServer) -> None:
    wire = await Network().connect_tcp("127.0.0.1", server.port)
    peer = await server.accept()
    writing = asyncio.ensure_future(wire.write(b"x" * 50_000_000))
    await asyncio.wait([writing], timeout=0.05)
    waited = not writing.done()
    peer.writer.transport.abort()

    assert waited
    with pytest.raises(httpcore.WriteError):
        await soon(writing)
    await wire.aclose()


@LOOPS
@pytest.mark.parametrize("proxy_scheme", ["http", "https", None])
def test_stream_in_tls_through_any_proxy(
    new_loop: NewLoop, proxy_scheme: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several events, a connection used again, and a stream that is cut."""
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # for the proxy, whose trust is the system's

    async def scenario() -> None:
        tls, trust = server_context(certificate, key), ssl.create_default_context(cafile=certificate)
        async with raw_server(tls) as server, forward(server, tls if proxy_scheme == "https" else None) as port:
            proxy = proxy_scheme and f"{proxy_scheme}://127.0.0.1:{port}"
            http = HttpTransport(ManualClock(), proxy=proxy, tls=trust)
            url = server.url.replace("http:", "https:")
            peer: Peer | None = None
            for _ in range(2):
                task = opening(http, url)
                if peer is None:
                    peer = await server.take_request()
                else:
                    await soon(peer.read_request())
                peer.send_head()
                exchange = await soon(task)
                for name in ("a", "b"):
                    peer.send_chunk(event(name))
                    assert await soon(exchange.receive()) == [b'{"type": "%b"}' % name.encode()]
                exchange.finish()
                peer.send_chunk(b"")
                await wait_until(lambda: not http._tasks)
            assert peer is not None, "the first request came over it"
            await cut(http, url, peer)
            await soon(http.close())

    run_on(new_loop, scenario())


async def cut(http: HttpTransport, url: str, peer: Peer) -> None:
    task = opening(http, url)
    await soon(peer.read_request())
    peer.send_head()
    exchange = await soon(task)
    peer.send_chunk(event("a"))
    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    peer.writer.close()
    with pytest.raises(UpstreamFailure) as caught:
        await soon(exchange.receive())
    assert caught.value.text == "stream closed before response.completed"


@contextlib.asynccontextmanager
async def forward(server: RawServer, tls: ssl.SSLContext | None) -> Any:
    """A proxy that tunnels everything to `server`. Yields: its port."""
    pumps = set[asyncio.Task[None]]()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.transport.abort()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        beyond = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 Go\r\n\r\n")
        pumps.update((asyncio.create_task(pump(reader, beyond[1])), asyncio.create_task(pump(beyond[0], writer))))

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def test_wire_knows_of_no_other_information() -> None:
    assert Wire().get_extra_info("server_addr") is None

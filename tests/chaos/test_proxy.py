"""The proxy does what the matrix relies on: seen from a client, with an echo behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chaos.network import release
from chaos.proxy import Link, Mode, Proxy

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _joined() -> AsyncIterator[tuple[Proxy, Link, Peer]]:
    """A link over which an echo has come back once."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        peer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            await _say(peer, b"hello")
            assert await peer[0].readexactly(5) == b"hello"
            yield proxy, proxy.links[0], peer
        finally:
            peer[1].transport.abort()
    server.close()
    await server.wait_closed()


async def _say(peer: Peer, data: bytes) -> None:
    peer[1].write(data)
    await peer[1].drain()


async def test_reset_is_a_reset_and_close_an_end() -> None:
    async with _joined() as (_, link, (reader, _writer)):
        link.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()
    async with _joined() as (_, link, (reader, _writer)):
        link.close()
        assert await reader.read() == b""


async def test_half_close_still_takes_what_comes() -> None:
    async with _joined() as (_, link, peer):
        link.half_close()
        assert await peer[0].read() == b""
        seen = link.pipes[0].passed
        await _say(peer, b"more")
        await link.pipes[0].until_passed(seen)
        assert link.is_open


async def test_held_bytes_come_when_they_are_released_and_in_order() -> None:
    async with _joined() as (_, link, peer):
        down = link.pipes[1]
        down.mode = Mode.HOLD
        await _say(peer, b"one")
        await down.until_seen(5)
        assert down.passed == 5
        await release(link)
        await _say(peer, b"two")
        assert await peer[0].readexactly(6) == b"onetwo"


async def test_swallowed_bytes_do_not_come_and_damaged_ones_come_damaged() -> None:
    async with _joined() as (_, link, peer):
        down = link.pipes[1]
        down.mode = Mode.DROP
        await _say(peer, b"lost")
        await down.until_seen(5)
        down.mode = Mode.CORRUPT
        await _say(peer, b"sound")
        assert await peer[0].readexactly(5) == bytes(byte ^ 0x70 for byte in b"soun") + b"d"


async def test_trickle_loses_nothing_and_a_cut_lets_exactly_so_much_through() -> None:
    async with _joined() as (_, link, peer):
        down = link.pipes[1]
        down.mode = Mode.TRICKLE
        await _say(peer, b"x" * 500)
        assert await peer[0].readexactly(500) == b"x" * 500
        down.mode = Mode.PASS
        down.cut_after(3, link.close)
        await _say(peer, b"abcdef")
        assert await peer[0].read() == b"abc"


async def test_refusal_leaves_what_stands_and_ends_at_the_same_port() -> None:
    async with _joined() as (proxy, _, peer):
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await _say(peer, b"still")
        assert await peer[0].readexactly(5) == b"still"
        await proxy.listen()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.close()


async def test_whoever_leaves_ends_the_link_even_through_a_blackhole() -> None:
    async with _joined() as (proxy, link, peer):
        link.pipes[0].mode = link.pipes[1].mode = Mode.DROP
        peer[1].transport.abort()
        async with asyncio.timeout(5):
            while proxy.open_links:  # noqa: ASYNC110  the link tells nobody of its end
                await asyncio.sleep(0)
        assert link.upstream is not None
        assert link.upstream.is_closing()

"""TCP and TLS beneath httpcore: one asyncio protocol per connection, in place of anyio's streams.

What makes it worth having is `Wire.divert`: a chunked body goes from the TCP read to its reader at once, without a
wake-up of the request's task and five layers of generators for each event. The library reads all else: heads, the end
of a body, whatever is out of the ordinary. Importing this imports httpcore, so it is done where httpx is.
"""

import asyncio
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import cast

import aiohappyeyeballs
import httpcore

from warmline_server.core.chunked import ChunkReader

# Unread bytes of a reply at which reading pauses: what the library reads at once.
READ_AHEAD_BYTES = 64 * 1024
# RFC 8305: how long an address may take to answer before the next one is tried beside it.
NEXT_ADDRESS_S = 0.25
# A limit that is never met: connects have one of their own, and asyncio has a minute for want of another.
_HANDSHAKE_S = 24 * 3600.0
# Where h11 sees the end of a head.
_BLANK_LINE = re.compile(rb"\n\r?\n")


class Network(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore. Time limits are the caller's, by cancelling."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> "Wire":
        """Connects to the first address that answers. Raises: httpcore.ConnectError. Cancel: nothing stays open."""
        assert (timeout, local_address, socket_options) == (None, None, None), "the client asks for none"
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            opened = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
            _, wire = await loop.create_connection(Wire, sock=opened)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"connect failed: {type(error).__name__}") from error
        return wire


class Wire(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection, read by one task."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._lost = False
        self._error: Exception | None = None
        self._paused = False
        # A head is handed out alone, so that the library has no byte of the body when it is diverted.
        self._in_head = False
        self._head_tail = b""
        self._at_body = False
        self._chunks: ChunkReader | None = None
        self._take: Callable[[bytes], None] | None = None

    # What the library calls.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes that are the library's, at least one; none at the end. Raises: httpcore.ReadError.

        Cancel: safe, nothing is lost.
        """
        assert timeout is None, "the client asks for none"
        while self._take is not None or not self._buffer:
            if self._error is not None:
                failure = httpcore.ReadError("connection lost")
                failure.__context__ = self._error  # httpcore cuts off the cause of what it passes on
                raise failure
            if self._lost:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self._take_buffered(max_bytes)
        if len(self._buffer) <= READ_AHEAD_BYTES:
            self.resume()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes a part of a request; waits while much is unsent. Raises: httpcore.WriteError. Cancel: half is sent."""
        assert timeout is None, "the client asks for none"
        if not buffer:
            return
        self._in_head, self._head_tail, self._at_body = True, b"", False
        if not self._lost:
            self._transport.write(buffer)
            if self._drained is not None:
                await self._drained
        if self._lost:
            raise httpcore.WriteError("connection lost") from self._error

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "Wire":
        """Goes on in TLS, once or within another TLS. Raises: httpcore.ConnectError. Cancel: the connection is cut."""
        assert timeout is None, "the client asks for none"
        try:
            if self._buffer:
                raise httpcore.ConnectError("the peer spoke before the TLS handshake")
            transport = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                ssl_context,
                server_hostname=server_hostname,
                ssl_handshake_timeout=_HANDSHAKE_S,
            )
        except BaseException as error:
            self._transport.abort()
            if isinstance(error, OSError):
                raise httpcore.ConnectError("TLS handshake failed") from error
            raise
        assert transport is not None, "asyncio has none only when the connection is lost in that very moment"
        self._transport = transport
        return self

    async def aclose(self) -> None:
        """Cuts the connection. Idempotent; awaits nothing, so a cancel cannot prevent it."""
        self._chunks = self._take = None
        self._transport.abort()

    def get_extra_info(self, info: str) -> object:
        """What httpcore asks: the TLS object, and whether an idle connection has anything to read."""
        match info:
            case "ssl_object":
                return self._transport.get_extra_info("ssl_object")
            case "is_readable":
                return bool(self._buffer) or self._transport.is_closing() or _is_readable(self._transport)
        return None

    # What the reader of a reply calls.

    def head_is_over(self) -> None:
        """The head of the reply was returned: what follows is handed out as it comes."""
        self._in_head = False

    def divert(self, take: Callable[[bytes], None]) -> None:
        """Has the content of a chunked body told to `take` as it is read, and the library see none of it.

        To be called when the head of the reply was returned, and nothing was read of its body; where the library has
        had a part of the body with the head, all stays as it is.
        """
        if self._at_body:
            self._chunks, self._take = ChunkReader(), take
            data = bytes(self._buffer)
            self._buffer.clear()
            self.resume()
            self._take_chunks(data)

    def pause(self) -> None:
        """Reads nothing more, until `resume`. Idempotent."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads on. Idempotent."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and does not say so

    def data_received(self, data: bytes) -> None:
        if self._take is not None:
            self._take_chunks(data)
            return
        self._buffer += data
        if len(self._buffer) > READ_AHEAD_BYTES:
            self.pause()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost, self._error = True, exc
        if self._chunks is not None:
            self._chunks.eof()
            self._end_diversion()
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def _take_buffered(self, max_bytes: int) -> bytes:
        data = bytes(self._buffer[:max_bytes])
        self._at_body = False
        if self._in_head:
            seen = self._head_tail + data
            end = _BLANK_LINE.search(seen)
            if end is not None:
                # After a head of 1xx comes another one.
                data = data[: end.end() - len(self._head_tail)]
                self._at_body = True
            self._head_tail = b"" if end is not None else seen[-2:]
        del self._buffer[: len(data)]
        return data

    def _take_chunks(self, data: bytes) -> None:
        chunks, take = self._chunks, self._take
        assert chunks is not None, "the body is diverted"
        assert take is not None, "the body is diverted"
        content = chunks.feed(data)
        if content:
            take(content)
        if chunks.rest is not None:
            self._end_diversion()

    def _end_diversion(self) -> None:
        """Leaves the rest of the body to the library; the last chunk is handed out alone, as a head is.

        What follows it is then still here, and tells the pool that the connection is out of step.
        """
        chunks, self._chunks, self._take = self._chunks, None, None
        assert chunks is not None, "a diverted body is read in chunks"
        self._in_head, self._head_tail = chunks.is_at_last_chunk, b""
        self._buffer += chunks.rest or b""
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _is_readable(transport: asyncio.Transport) -> bool:
    """Whether the end of an idle connection has come, and was not read yet. Without a poll the loop will tell later."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))

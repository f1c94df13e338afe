"""One WebSocket to an upstream: opening it, one exchange at a time on it, and what happens while it is idle."""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from warmline_server.clock import Clock, TimeLimit
from warmline_server.core import failures, received_headers
from warmline_server.core.events import Transport
from warmline_server.transport.base import Head
from warmline_server.transport.websocket_line import Line

# Of an error body, what a diagnosis needs; the library keeps no more than 1 MiB of it anyway.
MAX_ERROR_BODY_BYTES = 64 * 1024
# How long a peer may take to answer our close frame.
GOODBYE_S = 1.0
# Smaller windows than the default 32 KiB: requests are sent once, and an idle socket should cost little. Level 4 takes
# a fifth less time than the default 6, for 2 % more bytes.
_DEFLATE = ClientPerMessageDeflateFactory(client_max_window_bits=12, compress_settings={"memLevel": 5, "level": 4})


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """How sockets of one upstream are opened. `proxy` None: none; True: as the environment says."""

    url: str
    tls: ssl.SSLContext | None
    compression: bool
    max_frame_bytes: int
    connect_timeout_s: float
    proxy: str | bool | None
    user_agent: str | None = None


class WebSocket:
    """An open socket. One owner, which runs one exchange at a time.

    `headers`: the handshake's answer. The owner sets `on_idle_lost`, called once when the socket is lost while no
    exchange runs, `on_closed`, called once at its end, and `on_ping`, called at each ping of the peer.
    """

    def __init__(self, line: Line, connection_id: str, clock: Clock) -> None:
        self._line = line
        self._clock = clock
        self._exchange: WebSocketExchange | None = None
        self._drop_cause = ""
        self.connection_id = connection_id
        self.opened_at_s = clock.now_s()
        self.on_idle_lost: Callable[[], None] | None = None
        self.on_closed: Callable[[str, int | None], None] | None = None
        self.on_ping: Callable[[], None] | None = None
        assert line.response is not None, "a socket is made after its handshake"
        self.headers = received_headers.fold(line.response.headers.raw_items())
        # What the handshake told holds for every request on the socket, but for ids, which it has none of (C-098).
        self._head = Head(events=received_headers.head_events(self.headers, Transport.WEBSOCKET))
        line.attach(self)

    @property
    def is_open(self) -> bool:
        """Whether the socket can take a request, as far as is known here."""
        return self._line.is_open

    @property
    def heard_at_s(self) -> float:
        """When the peer last sent anything, a pong included."""
        return self._line.heard_at_s

    async def send(self, frame: bytes, limit_s: float) -> "WebSocketExchange":
        """Sends one text frame and starts the exchange that it asks for.

        Args: `limit_s`: how long the peer may take to read it.
        Raises: UpstreamFailure when the socket is gone, or the peer does not read. Cancel: the frame may be half sent,
            so drop the socket.
        """
        assert self._exchange is None, "one exchange at a time"
        self._exchange = exchange = WebSocketExchange(self, self._line, self._head)
        try:
            async with TimeLimit(self._clock, self._clock.now_s() + limit_s):
                await self._line.send_text(frame)
        except TimeoutError as error:
            raise failures.stream_lost("idle timeout sending websocket request") from error
        return exchange

    def ping(self) -> None:
        """Sends a ping; `heard_at_s` tells when it was answered."""
        self._line.send_ping()

    def drop(self, cause: str) -> None:
        """Cuts the connection at once, without a close handshake. Idempotent."""
        self._drop_cause = self._drop_cause or cause
        self._line.abort()

    def close(self, cause: str) -> None:
        """Says goodbye (1000) and cuts the connection when the peer is gone, or after a second. Idempotent."""
        if self._line.is_open and not self._drop_cause:
            self._line.say_goodbye()
            self._clock.call_at(self._clock.now_s() + GOODBYE_S, self._line.abort)
        else:
            self._line.abort()
        self._drop_cause = self._drop_cause or cause

    async def wait_closed(self) -> None:
        """Waits until the connection is gone. Cancel: safe."""
        await asyncio.shield(self._line.connection_lost_waiter)

    def exchange_ended(self) -> None:
        """The exchange is over and the socket is free again."""
        self._exchange = None
        self._line.discard_frames()

    def line_lost(self) -> None:
        """The connection is gone (called by the line, once)."""
        if self.on_closed is not None:
            self.on_closed(self._drop_cause or "peer", self._line.peer_close_code)
        self.peer_closes()
        self._exchange = None  # it holds this socket: both would wait for the collector

    def peer_closes(self) -> None:
        """The peer has said goodbye, or is gone (called by the line): an idle socket is lost with the first of both."""
        if self._exchange is None and not self._drop_cause and self.on_idle_lost is not None:
            self.on_idle_lost()

    @property
    def has_exchange(self) -> bool:
        return self._exchange is not None


class WebSocketExchange:
    """One response being read from a socket."""

    def __init__(self, socket: WebSocket, line: Line, head: Head) -> None:
        self._socket = socket
        self._line = line
        self.head = head

    def receive(self) -> Awaitable[Sequence[bytes]]:
        """As `Exchange.receive`."""
        return self._line.take_frames()

    def fail(self, error: Exception) -> None:
        """As `Exchange.fail`."""
        self._line.fail(error)

    def finish(self) -> None:
        """The response is complete; the socket takes another request."""
        self._socket.exchange_ended()

    def abandon(self) -> None:
        """The response is not wanted any more: nothing upstream can cancel it, so the socket goes (D-4)."""
        self._socket.drop("abandoned")


async def open_websocket(
    options: SocketOptions, headers: Sequence[tuple[str, str]], *, connection_id: str, clock: Clock
) -> WebSocket:
    """Connects and shakes hands, once.

    Raises: UpstreamFailure for everything that prevents it, with the upstream's status and words where it answered.
    Cancel: the connection is cut.
    """
    try:
        async with TimeLimit(clock, clock.now_s() + options.connect_timeout_s):
            line = await _Connect(options, headers, clock).connect()
            assert isinstance(line, Line), "the connect was given our line"
    except TimeoutError as error:
        raise failures.connect_timed_out(options.connect_timeout_s) from error
    except InvalidStatus as error:
        answer = error.response
        headers_told = received_headers.fold(answer.headers.raw_items())
        body = bytes(answer.body or b"")[:MAX_ERROR_BODY_BYTES]
        # The library's protocol holds the error, and the frames of the error hold the protocol.
        error.__traceback__ = None
        raise failures.from_status(
            answer.status_code, headers_told, body, handshake=True, now_unix_s=clock.unix_ns() / 1e9
        ) from error
    except (OSError, EOFError, InvalidHandshake) as error:
        raise failures.connect_failed(_describe(error)) from error
    assert line.response is not None, "the handshake was answered"
    if received_headers.are_too_many(list(line.response.headers.raw_items())):
        line.abort()
        raise failures.broke_protocol("handshake answered with more headers, or more bytes of them, than are read")
    return WebSocket(line, connection_id, clock)


def _describe(error: BaseException) -> str:
    """What went wrong, without the texts of a peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or type(error).__name__
    if isinstance(error, socket.gaierror):
        return error.strerror or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        # Its own text holds the address, which is the operator's affair.
        return os.strerror(error.errno)
    return type(error).__name__


class _Connect(connect):
    """The library's connect with our line, without its own timeout, and never following a redirect."""

    def __init__(self, options: SocketOptions, headers: Sequence[tuple[str, str]], clock: Clock) -> None:
        def make_line(protocol: ClientProtocol, **kwargs: object) -> Line:
            return Line(protocol, clock)

        super().__init__(
            options.url,
            additional_headers=list(headers),
            user_agent_header=options.user_agent,
            extensions=[_DEFLATE] if options.compression else None,
            compression=None,
            proxy=options.proxy,  # type: ignore[arg-type]
            open_timeout=None,
            max_size=options.max_frame_bytes,
            create_connection=make_line,  # type: ignore[arg-type]
        )
        if options.tls is not None:
            self.create_connection_kwargs["ssl"] = options.tls

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc

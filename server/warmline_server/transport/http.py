"""HTTP to an upstream: POSTs answered by server-sent events, and unary calls. The only module that imports httpx.

Each request is one task of the transport, from its first byte to its connection's return: cancelled at most once, since
a second cancel during httpx's cleanup loses the connection's bookkeeping (encode/httpcore#1115).

httpx and what it drags in take 150 ms to import, so `warm` does it in a thread; the module itself is cheap.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from warmline_server.clock import Clock, TimeLimit
from warmline_server.core import failures, received_headers
from warmline_server.core.received_headers import Headers
from warmline_server.transport import content_coding
from warmline_server.transport.http_exchange import (
    CLOSED_EARLY,
    HttpExchange,
    HttpLimits,
    Reply,
    Source,
    cancel_once,
    refusal,
    whole_body,
)

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

# zstd of a body of this size takes about a millisecond; larger ones are compressed beside the loop.
COMPRESS_ON_LOOP_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole reply: 2xx, or 304 where the request was conditional."""

    status: int
    headers: Headers
    body: bytes


class HttpTransport:
    """One upstream's HTTP connections. `close` it."""

    def __init__(
        self,
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | bool | None = True,
        limits: HttpLimits | None = None,
    ) -> None:
        """Args: `tls` None: the system's trust; `proxy` a URL, True for what the environment says, None for none."""
        self._clock = clock
        self._tls = tls
        self._proxy = proxy
        self._limits = limits or HttpLimits()
        self._loading: asyncio.Task[httpx.AsyncClient] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def warm(self) -> None:
        """Loads what the first request needs, beside the loop. Optional. Cancel: safe, the load goes on."""
        await self._client()

    async def open(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        compress: bool = False,
        connect_timeout_s: float,
    ) -> HttpExchange:
        """Sends a POST and waits for the head of its answer.

        Args: `body` is JSON; `compress` sends it as zstd; `connect_timeout_s` bounds the connect alone, the head may
            take as long as the caller waits.
        Raises: UpstreamFailure when there is no connection or no answer, and for an answer that is no event stream.
        Cancel: the request is dropped.
        """
        await self._client()
        if compress:
            headers, body = [*headers, ("Content-Encoding", "zstd")], await _compressed(body)
        # Compressing proxies hold events back, so a stream is asked for as it is.
        request = _request("POST", url, headers, body, accept_encoding="identity")
        exchange = HttpExchange(self._clock, self._limits)
        exchange.started(self._start(exchange.run(partial(self._send, request, connect_timeout_s))))
        try:
            await exchange.opened()
        except BaseException:
            exchange.abandon()
            raise
        return exchange

    async def post_json(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, *, connect_timeout_s: float, timeout_s: float
    ) -> HttpReply:
        """Sends a POST and waits for the whole reply.

        Raises: UpstreamFailure when there is no reply within `timeout_s`, or it is not 2xx, or too large.
        Cancel: the request is dropped.
        """
        return await self._fetch("POST", url, headers, body, connect_timeout_s, timeout_s)

    async def get(
        self, url: str, headers: Sequence[tuple[str, str]], *, connect_timeout_s: float, timeout_s: float
    ) -> HttpReply:
        """As `post_json`, with GET; 304 is a reply too."""
        return await self._fetch("GET", url, headers, None, connect_timeout_s, timeout_s)

    async def close(self) -> None:
        """Drops every request and connection. Idempotent."""
        for task in self._tasks:
            cancel_once(task)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._loading is not None:
            await (await self._loading).aclose()

    async def _client(self) -> "httpx.AsyncClient":
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._load), name="load httpx")
        return await asyncio.shield(self._loading)

    def _load(self) -> "httpx.AsyncClient":
        # Not used here: what would be imported, slowly, at the first connect and the first compressed body.
        import anyio._backends._asyncio  # noqa: F401
        import httpx
        import zstandard  # noqa: F401

        from warmline_server.transport.http_network import Network

        # They log URLs at INFO and reply headers at DEBUG, and both may hold secrets.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        client = httpx.AsyncClient(
            verify=self._tls or ssl.create_default_context(),
            trust_env=self._proxy is True,
            proxy=self._proxy if isinstance(self._proxy, str) else None,
            timeout=httpx.Timeout(None),
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=self._limits.max_idle_connections,
                keepalive_expiry=self._limits.idle_connection_s,
            ),
        )
        # httpcore takes a network, but httpx has no way to pass one on (0.28.1). Without it all would go on, slower; a
        # test tells.
        for transport in (client._transport, *client._mounts.values()):
            if transport is not None:
                cast("httpx.AsyncHTTPTransport", transport)._pool._network_backend = Network()
        return client

    def _start(self, work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work, name="http request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _fetch(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None,
        connect_timeout_s: float,
        timeout_s: float,
    ) -> HttpReply:
        await self._client()
        request = _request(method, url, headers, body, accept_encoding=content_coding.ACCEPTED)
        task = self._start(self._exchange_whole(request, connect_timeout_s, timeout_s))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and caller is not None and not caller.cancelling():
                raise failures.stream_lost("connections to the upstream were closed") from None
            cancel_once(task)
            raise

    async def _exchange_whole(self, request: "httpx.Request", connect_timeout_s: float, timeout_s: float) -> HttpReply:
        try:
            async with TimeLimit(self._clock, self._clock.now_s() + timeout_s):
                reply = await self._send(request, connect_timeout_s)
                async with contextlib.aclosing(reply):
                    if not 200 <= reply.status < 300 and reply.status != 304:
                        raise await refusal(reply, self._clock)
                    body = await whole_body(reply, self._limits.max_reply_bytes)
                    return HttpReply(reply.status, reply.headers, body)
        except TimeoutError as error:
            raise failures.stream_lost(f"no whole reply from upstream within {timeout_s:.1f} s") from error

    async def _send(self, request: "httpx.Request", connect_timeout_s: float) -> Reply:
        """Sends `request` and waits for the head of the answer, whatever its status."""
        client = await self._client()
        import httpx

        limit = _ConnectLimit(self._clock, connect_timeout_s)
        request.extensions = {**request.extensions, "trace": limit.trace}
        try:
            # Past the client's own send: no cookies are kept, no redirects followed, no credentials taken from a URL.
            response = await client._transport_for_url(request.url).handle_async_request(request)
        except asyncio.CancelledError as error:
            await _close_unused(client, request, limit.streams)
            if limit.took_the_blame():
                raise failures.connect_timed_out(connect_timeout_s) from error
            raise
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise failures.connect_failed(_describe(error)) from error
        except httpx.RemoteProtocolError as error:
            # A closed connection and a garbled reply are told apart by their words alone.
            if "disconnected" in str(error):
                raise failures.stream_lost("connection closed by upstream before the reply") from error
            raise failures.broke_protocol("reply from upstream is not HTTP") from error
        except httpx.HTTPError as error:
            raise failures.stream_lost(f"connection lost before the reply: {_describe(error)}") from error
        finally:
            limit.end()
        pairs = response.headers.multi_items()
        if received_headers.are_too_many(pairs):
            await response.aclose()
            raise failures.broke_protocol("reply with more headers, or more bytes of them, than are read")
        headers = received_headers.fold(pairs)
        return Reply(response.status_code, headers, _chunks(response), response.aclose, _source(response, headers))


class _ConnectLimit:
    """Cancels the running task when the connection does not stand in time; httpx's own limit knows only real time."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None, "a limit needs a task to cancel"
        self._cancelling = self._task.cancelling()
        self._expired = False
        self.streams: list[object] = []
        self._timer = clock.call_at(clock.now_s() + limit_s, self._expire)

    async def trace(self, event: str, info: Mapping[str, object]) -> None:
        """Told by httpcore what happens; a CONNECT to a proxy is still part of connecting."""
        if event == "connection.connect_tcp.complete":
            self.streams.append(info["return_value"])
        elif event == "http11.send_request_headers.started":
            method = getattr(info["request"], "method", b"")
            if method != b"CONNECT":
                self.disarm()

    def disarm(self) -> None:
        self._timer.cancel()

    def end(self) -> None:
        """The request is over. Its parts hold the limit, and a cancelled task holds them: a circle otherwise."""
        self.disarm()
        self._task = None

    def took_the_blame(self) -> bool:
        """Whether the limit, and nobody else, cancelled the task; the cancel is then answered for."""
        return self._expired and self._task is not None and self._task.uncancel() <= self._cancelling

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()


async def _close_unused(client: "httpx.AsyncClient", request: "httpx.Request", streams: Sequence[object]) -> None:
    """Closes the connection over `streams`, which was opened for a request that was cancelled before it used it.

    httpcore would keep it in its pool as a new one, for ever and for nobody (measured: httpcore 1.0.9). The pool has no
    public way in.
    """
    if not streams:
        return
    pool = cast("httpx.AsyncHTTPTransport", client._transport_for_url(request.url))._pool
    for connection in pool.connections:
        inner: object = connection
        while inner is not None and getattr(inner, "_network_stream", None) not in streams:
            inner = getattr(inner, "_connection", None)
        if inner is not None:
            await connection.aclose()


def _request(
    method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes | None, *, accept_encoding: str
) -> "httpx.Request":
    import httpx

    names = {name.lower() for name, _ in headers}
    sent = list(headers)
    if "accept-encoding" not in names:
        sent.append(("Accept-Encoding", accept_encoding))
    if body is not None and "content-type" not in names:
        sent.append(("Content-Type", "application/json"))
    return httpx.Request(method, url, headers=sent, content=body)


async def _compressed(body: bytes) -> bytes:
    if len(body) <= COMPRESS_ON_LOOP_BYTES:
        return content_coding.compress(body)
    return await asyncio.to_thread(content_coding.compress, body)


def _source(response: "httpx.Response", headers: Headers) -> Source | None:
    from warmline_server.transport.http_network import Wire

    wire = response.extensions.get("network_stream")
    if not isinstance(wire, Wire):
        return None
    wire.head_is_over()
    return wire if headers.get("transfer-encoding", "").lower() == "chunked" else None


async def _chunks(response: "httpx.Response") -> AsyncIterator[bytes]:
    import httpx

    assert isinstance(response.stream, httpx.AsyncByteStream), "an async client's answer"
    try:
        # Not `aiter_raw`: at the end it closes the answer by itself, and a cancel in that moment would leave the
        # connection in the pool for ever, in use by nobody (measured: httpx 0.28.1).
        async for chunk in response.stream:
            yield chunk
    except httpx.RemoteProtocolError as error:
        # As above: only their words tell a body that breaks off from one that is garbled.
        if "closed connection" in str(error):
            raise failures.stream_lost(CLOSED_EARLY) from error
        raise failures.broke_protocol("body of the reply from upstream is not HTTP") from error
    except httpx.HTTPError as error:
        raise failures.stream_lost(f"stream broke before response.completed: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    """What went wrong underneath, without the texts of a peer."""
    found = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS certificate not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            found = cause.reason or found
        elif isinstance(cause, socket.gaierror):
            found = cause.strerror or found
        elif isinstance(cause, OSError) and cause.errno is not None:
            # Their own texts hold addresses, or an account of several attempts.
            found = os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return found

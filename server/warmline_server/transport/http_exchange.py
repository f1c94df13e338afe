"""The answer to one HTTP request: an event stream, read ahead by a bounded amount, or a whole body."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from warmline_server.clock import Clock, TimeLimit, Timer
from warmline_server.core import failures, received_headers
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.events import Transport
from warmline_server.core.received_headers import Headers
from warmline_server.core.sse import SseDecoder
from warmline_server.transport.base import Head
from warmline_server.transport.content_coding import ContentDecoder

# Of an error's body, what a diagnosis needs, and how long it is waited for.
MAX_ERROR_BODY_BYTES = 64 * 1024
ERROR_BODY_S = 5.0
# After the terminal event the end of the body is all that is owed; a connection that does not give it is not kept.
DRAIN_S = 1.0
DRAIN_BYTES = 64 * 1024
# What an event costs here beside its bytes: without it a million empty ones would count as nothing.
EVENT_COST_BYTES = 64
# Source: §5.3, the text that other tools look for.
CLOSED_EARLY = "stream closed before response.completed"


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one upstream's HTTP. `read_ahead_bytes` is passed by at most one TCP read."""

    read_ahead_bytes: int = 256 * 1024
    max_event_bytes: int = 16 * 1024 * 1024
    max_stream_bytes: int = 1024 * 1024 * 1024
    max_reply_bytes: int = 64 * 1024 * 1024
    max_idle_connections: int = 100
    idle_connection_s: float = 55.0


class Source(Protocol):
    """The connection beneath a chunked body."""

    def divert(self, take: Callable[[bytes], None]) -> None:
        """Has as much of the body as it can told to `take` as it is read; the rest comes in `Reply.chunks` as ever."""

    def pause(self) -> None:
        """Nothing more is read, until `resume`. Idempotent."""

    def resume(self) -> None:
        """Idempotent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply whose head is there.

    `chunks` is its body as it comes, encoded; it raises UpstreamFailure when the body breaks off. `close` gives the
    connection back when the body was read to its end, and cuts it otherwise. `source` is None where `chunks` is the
    only way to the body.
    """

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    source: Source | None = None

    async def aclose(self) -> None:
        """Cancel: takes effect when the reply is closed. Cut short, a close would leave the connection in the pool for
        ever, in nobody's use and still read by nobody (measured: httpcore 1.0.9).
        """
        closing = asyncio.ensure_future(self.close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


class HttpExchange:
    """A POST whose answer is an event stream; see `Exchange`.

    `run` reads it, in a task of its own, at most `read_ahead_bytes` ahead of `receive`. Where the connection can, it
    tells the events past that task, which then waits for the end alone.
    """

    def __init__(self, clock: Clock, limits: HttpLimits) -> None:
        self.head = Head()
        self._clock = clock
        self._limits = limits
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._finished = False
        self._drain_limit: Timer | None = None
        self._drained_bytes = 0
        self._source: Source | None = None
        self._sse = SseDecoder(limits.max_event_bytes, limits.max_event_bytes)
        self._events: list[bytes] = []
        self._events_bytes = 0
        self._ended: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    def started(self, task: "asyncio.Task[None]") -> None:
        """`task` runs `run`."""
        self._task = task
        task.add_done_callback(self._run_ended)

    @property
    def has_events(self) -> bool:
        """Whether `receive` would return at once with events."""
        return bool(self._events)

    @property
    def is_reading(self) -> bool:
        """False while reading pauses for a slow caller."""
        return self._has_room.is_set()

    async def opened(self) -> None:
        """Waits for the head. Raises: UpstreamFailure when there is none, or not the right one. Cancel: safe."""
        await self._opened

    async def receive(self) -> Sequence[bytes]:
        """As `Exchange.receive`."""
        while not self._events:
            if self._ended is not None:
                raise self._ended
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take_events()

    def fail(self, error: BaseException) -> None:
        """As `Exchange.fail`; before the head it is `opened` that raises. The first reason counts."""
        if not self._opened.done():
            self._opened.set_exception(error)
            return
        if self._ended is None:
            self._ended = error
        self._wake()

    def finish(self) -> None:
        """The terminal event came. The connection is kept when the body ends right away."""
        if self._finished or self._task is None or self._task.done():
            return
        self._finished = True
        self._take_events()
        self._drain_limit = self._clock.call_at(self._clock.now_s() + DRAIN_S, self.abandon)

    def abandon(self) -> None:
        """As `Exchange.abandon`."""
        if self._task is not None:
            cancel_once(self._task)

    async def run(self, send: Callable[[], Awaitable[Reply]]) -> None:
        """Sends, with `send`, and reads to the end. Raises: a defect of ours; a failure is told to who waits."""
        try:
            await self._run(send)
        except UpstreamFailure as failure:
            # Raised from the task, it would hold the frames of it, and they this exchange: a circle.
            self.fail(failure.with_traceback(None))

    async def _run(self, send: Callable[[], Awaitable[Reply]]) -> None:
        reply = await send()
        async with contextlib.aclosing(reply):
            await self._check(reply)
            decoder = ContentDecoder(reply.headers.get("content-encoding", ""), self._limits.max_stream_bytes)
            self.head = Head(
                events=received_headers.head_events(reply.headers, Transport.HTTP),
                upstream_request_id=received_headers.request_id(reply.headers),
                turn_state=received_headers.turn_state(reply.headers),
                status=reply.status,
            )
            if self._opened.cancelled():
                return  # whoever asked left in the very moment in which the head came
            self._opened.set_result(None)
            await self._read(reply, decoder)

    async def _check(self, reply: Reply) -> None:
        if reply.status != 200:
            raise await refusal(reply, self._clock)
        content_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in ("text/event-stream", ""):
            shown = content_type[:100] if content_type.isascii() and content_type.isprintable() else "unreadable"
            raise failures.broke_protocol(
                f"reply of content type {shown}, expected text/event-stream",
                upstream_request_id=received_headers.request_id(reply.headers),
            )

    async def _read(self, reply: Reply, decoder: ContentDecoder) -> None:
        if reply.source is not None and decoder.is_identity:
            self._source = reply.source
            reply.source.divert(partial(self._take, decoder))
        async for chunk in reply.chunks:
            if self._finished:
                if self._drains_too_much(chunk):
                    return
                continue
            for piece in decoder.decode(chunk):
                self._add(piece)
                await self._has_room.wait()
        if self._finished:
            return
        self._queue(self._sse.end())
        raise self._sse.failure or failures.stream_lost(CLOSED_EARLY)

    def _take(self, decoder: ContentDecoder, chunk: bytes) -> None:
        """As `_read` does with a chunk, in the middle of a TCP read."""
        if self._finished:
            if self._drains_too_much(chunk):
                self.abandon()
            return
        try:
            decoder.count(chunk)
            self._add(chunk)
        except UpstreamFailure as failure:
            self.fail(failure)
            self.abandon()

    def _drains_too_much(self, chunk: bytes) -> bool:
        self._drained_bytes += len(chunk)
        return self._drained_bytes > DRAIN_BYTES

    def _add(self, content: bytes) -> None:
        self._queue(self._sse.feed(content))
        if self._sse.failure is not None:
            raise self._sse.failure

    def _queue(self, events: list[bytes]) -> None:
        payloads = [event for event in events if event and event != b"[DONE]"]
        if not payloads or self._finished:
            return
        self._events += payloads
        self._events_bytes += sum(map(len, payloads)) + EVENT_COST_BYTES * len(payloads)
        if self._events_bytes > self._limits.read_ahead_bytes:
            self._has_room.clear()
            if self._source is not None:
                self._source.pause()
        self._wake()

    def _take_events(self) -> list[bytes]:
        events, self._events, self._events_bytes = self._events, [], 0
        if not self._has_room.is_set():
            self._has_room.set()
            if self._source is not None:
                self._source.resume()
        return events

    def _run_ended(self, task: "asyncio.Task[None]") -> None:
        if self._drain_limit is not None:
            self._drain_limit.cancel()
        self._source = None  # the connection may be another exchange's from here on
        self._task = None  # a cancelled one keeps its frames, and they this exchange
        self.fail((None if task.cancelled() else task.exception()) or failures.stream_lost("exchange is over"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def whole_body(reply: Reply, max_bytes: int) -> bytes:
    """The decoded body. Raises: UpstreamFailure when it breaks off, or has more than `max_bytes`."""
    decoder = ContentDecoder(reply.headers.get("content-encoding", ""), max_bytes)
    return b"".join([piece async for chunk in reply.chunks for piece in decoder.decode(chunk)])


async def refusal(reply: Reply, clock: Clock) -> UpstreamFailure:
    """What a reply of an unexpected status means, with as much of its body as comes within the limits."""
    body = bytearray()
    with contextlib.suppress(UpstreamFailure, TimeoutError):
        decoder = ContentDecoder(reply.headers.get("content-encoding", ""), 2 * MAX_ERROR_BODY_BYTES)
        async with TimeLimit(clock, clock.now_s() + ERROR_BODY_S):
            async for chunk in reply.chunks:
                for piece in decoder.decode(chunk):
                    body += piece
                if len(body) >= MAX_ERROR_BODY_BYTES:
                    break
    shown = bytes(body[:MAX_ERROR_BODY_BYTES])
    return failures.from_status(reply.status, reply.headers, shown, handshake=False, now_unix_s=clock.unix_ns() / 1e9)


def cancel_once(task: "asyncio.Task[object]") -> None:
    """Cancels `task` unless that is under way: a second cancel would interrupt its cleanup."""
    if not task.cancelling():
        task.cancel()

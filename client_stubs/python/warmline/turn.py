"""One call: a turn's events as they come, and its outcome."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType

import grpc
import grpc.aio

from warmline.connection import Connection, Tries
from warmline.errors import ProtocolError, TextVoidedError, TurnCancelledError, WarmlineError, from_rpc_error
from warmline.progress import TurnProgress, TurnResult, text_delta
from warmline.v1 import turn_service_pb2

# How long the server may take to end the stream after the last event, before the call is cancelled. A choice: the
# outcome is known by then, and a call that ends by itself is not recorded as cancelled at the other end.
_END_S = 1.0

_Call = grpc.aio.UnaryStreamCall[turn_service_pb2.StreamTurnRequest, turn_service_pb2.StreamTurnResponse]


class Turn:
    """A call, made by `Session.turn`. Enter it to send it; leaving cancels what still runs.

    Iterate it for its events (`warmline.v1.TurnEvent`), or `text()` for the answer's text, or ask for the `result()`;
    each reads on where the other stopped. A read that is cancelled ends the call, for gRPC has no other way. One task
    reads at a time.
    """

    def __init__(
        self, connection: Connection, request: turn_service_pb2.StreamTurnRequest, *, timeout_s: float | None
    ) -> None:
        self.request = request
        """The message as it is sent."""
        self._connection = connection
        self._timeout_s = timeout_s
        self._progress = TurnProgress(turn_id=request.turn_id, request_id=request.request_id)
        self._ready: deque[turn_service_pb2.TurnEvent] = deque()
        self._tries: Tries | None = None
        self._call: _Call | None = None
        self._error: WarmlineError | None = None

    @property
    def turn_id(self) -> str:
        """The turn's id, for its tool follow-ups; blank until the server told the one it made."""
        return self._progress.turn_id

    @property
    def request_id(self) -> str:
        """The call's id."""
        return self._progress.request_id

    @property
    def unknown_events(self) -> int:
        """Events of a newer server that were skipped."""
        return self._progress.unknown_events

    def snapshot(self) -> TurnResult:
        """The outcome so far, also after a failure: what was delivered and counts."""
        return self._progress.snapshot()

    def cancel(self) -> None:
        """Cancels the call; a pending read ends with TurnCancelledError."""
        if self._call is not None:
            self._call.cancel()

    async def result(self) -> TurnResult:
        """Reads the rest and returns the outcome; again, the same.

        Raises:
            WarmlineError: the call failed.

        Cancel: ends the call.
        """
        async for _ in self:
            pass
        return self.snapshot()

    async def text(self) -> AsyncIterator[str]:
        """The pieces of the answer's text, as they come.

        Raises:
            TextVoidedError: a resend took back pieces that had been given out; the turn goes on.
            WarmlineError: the call failed.

        Cancel: ends the call.
        """
        async for event in self:
            if event.HasField("restarted") and self._progress.has_voided_text:
                raise TextVoidedError("read text: a resend took back what was read", self._progress.facts())
            piece = text_delta(event)
            if piece is not None:
                yield piece

    async def __aenter__(self) -> "Turn":
        """Sends the call. What fails is raised by the first read.

        Raises:
            RuntimeError: the turn was entered before.
        """
        if self._tries is not None:
            raise RuntimeError("enter turn: it was entered before; a turn is sent once")
        self._tries = Tries(self._connection.retry, self._timeout_s)
        self._call = await self._send(self._tries)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._is_over():
            await self._wait_end()
        # Always: a call that is merely dropped is never collected, and runs on at the server (grpc/grpc#43462).
        self.cancel()

    def __aiter__(self) -> "Turn":
        return self

    async def __anext__(self) -> turn_service_pb2.TurnEvent:
        """The next event that this client knows.

        Raises:
            WarmlineError: the call failed; again, the same.
            RuntimeError: the turn was not entered.

        Cancel: ends the call.
        """
        if self._error is not None:
            raise self._error
        try:
            return await self._next()
        except WarmlineError as error:
            self._error = error
            self.cancel()
            raise

    async def _next(self) -> turn_service_pb2.TurnEvent:
        while not self._is_over():
            if not self._ready:
                await self._fill()
            elif self._progress.accept(event := self._ready.popleft()):
                return event
        await self._wait_end()
        raise StopAsyncIteration

    async def _fill(self) -> None:
        """Reads a message; sends the call again where that is allowed and nothing of it was delivered."""
        call, tries = self._sent()
        try:
            self._ready.extend((await self._read(call)).events)
        except WarmlineError as error:
            if self._progress.sequence:
                raise
            await tries.wait_or_raise(error)
            self._call = await self._send(tries)

    async def _read(self, call: _Call) -> turn_service_pb2.StreamTurnResponse:
        try:
            message = await call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self._progress.facts()) from error
        except asyncio.CancelledError as error:
            # gRPC reports a call that was cancelled here, by `cancel` or a closed client, as if this task had been.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise TurnCancelledError("the call was cancelled by the client", self._progress.facts()) from error
        if isinstance(message, turn_service_pb2.StreamTurnResponse):
            return message
        found = "an unreadable message" if message is None else "the end of the stream"
        text = f"read turn: found {found}, expected a completed or incomplete event"
        raise ProtocolError(text, self._progress.facts())

    async def _wait_end(self) -> None:
        """Lets the server end the stream by itself; however it does, the outcome stands."""
        call, _ = self._sent()
        with contextlib.suppress(WarmlineError, TimeoutError):
            async with asyncio.timeout(_END_S):
                while not call.done():
                    await self._read(call)

    async def _send(self, tries: Tries) -> _Call:
        metadata = await self._connection.metadata(self.request.session_id)
        return self._connection.turns.StreamTurn(self.request, metadata=metadata, timeout=tries.remaining_s())

    def _sent(self) -> tuple[_Call, Tries]:
        if self._call is None or self._tries is None:
            raise RuntimeError("read turn: it was not entered; write `async with session.turn(…) as turn:`")
        return self._call, self._tries

    def _is_over(self) -> bool:
        return self._progress.ending != "unfinished"

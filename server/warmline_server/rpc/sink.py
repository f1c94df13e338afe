"""The one writer to a StreamTurn stream."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import grpc

from warmline.v1 import turn_service_pb2 as pb
from warmline_server.clock import Clock, Timer
from warmline_server.core.errors import Reason, ServiceError, WarmlineError
from warmline_server.core.events import Emission
from warmline_server.rpc.encode import Encoder
from warmline_server.session.call_spec import CallerGone

Context = grpc.aio.ServicerContext[pb.StreamTurnRequest, bytes]


class GrpcSink:
    """Numbers events and writes each batch as one message, in bytes: the method has no serializer of its own.

    A write that the caller's flow control holds up for `slow_reader_s` calls `stop`, once; 0 switches that off.
    """

    def __init__(
        self,
        context: Context,
        mode: "pb.EventMode.ValueType",
        *,
        clock: Clock,
        slow_reader_s: float,
        stop: Callable[[WarmlineError], object],
    ) -> None:
        self.sequence = 0
        self._context = context
        self._encoder = Encoder(raw=mode == pb.EVENT_MODE_RAW)
        self._clock = clock
        self._slow_reader_s = slow_reader_s
        self._stop = stop
        self._waits_since_s: float | None = None
        self._timer: Timer | None = None
        self._first_write: asyncio.Future[None] | None = None

    async def send(self, emissions: Sequence[Emission]) -> None:
        """As `Sink.send`."""
        message = self._encoder.encode(emissions, self.sequence)
        self._waits_since_s = self._clock.now_s()
        if self._timer is None and self._slow_reader_s > 0:
            self._look_again()
        writing = self._context.write(message)
        try:
            if self.sequence:
                await writing
            else:
                await self._write_first(writing)
        except grpc.aio.BaseError as error:
            # A cancelled call fails its write in the RPC's own task, without a CancelledError. Measured: grpcio 1.85.1.
            raise CallerGone("the caller's stream takes no more") from error
        self._waits_since_s = None
        self.sequence += len(emissions)

    async def _write_first(self, writing: Coroutine[Any, Any, None]) -> None:
        """Keeps a cancel away from the write that also sends the headers: only its end lets a status follow."""
        self._first_write = asyncio.ensure_future(writing)
        # A call that is cancelled in it asks no more how it went.
        self._first_write.add_done_callback(lambda write: write.cancelled() or write.exception())
        await asyncio.shield(self._first_write)

    async def settled(self) -> None:
        """Waits until the stream takes a status. Cancel: safe.

        A status sent while the first write is under way is refused, and the caller waits for ever. Measured: grpcio
        1.85.1.
        """
        if self._first_write is not None:
            await asyncio.wait([self._first_write])

    def close(self) -> None:
        """No more writes."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_again(self) -> None:
        self._timer = self._clock.call_at(self._clock.now_s() + self._slow_reader_s / 2, self._look)

    def _look(self) -> None:
        """One timer per call, not one per write: a stuck write is noticed within 1.5 times its limit."""
        waited_s = 0.0 if self._waits_since_s is None else self._clock.now_s() - self._waits_since_s
        if waited_s < self._slow_reader_s:
            self._look_again()
            return
        self._stop(ServiceError(Reason.SLOW_READER, f"the caller took no event for {waited_s:.1f} s"))

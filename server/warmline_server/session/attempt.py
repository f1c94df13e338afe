"""One attempt: an upstream request that was sent, read to its end, and written into the books."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from warmline_server.clock import Clock, Timer
from warmline_server.core import failures
from warmline_server.core.errors import UpstreamFailure, WarmlineError
from warmline_server.core.events import (
    Completed,
    Emission,
    Incomplete,
    ModelEvent,
    RateLimits,
    ServerModel,
    Transport,
    TurnStateSeen,
)
from warmline_server.core.frames import FrameReader
from warmline_server.core.records import AttemptRecord, AttemptStatus
from warmline_server.core.response import Response
from warmline_server.session.observer import Observer
from warmline_server.transport.base import Exchange


class IdleWatch:
    """Fails an exchange that is silent for too long: one timer, set anew only when it fires."""

    def __init__(self, clock: Clock, transport: Transport, *, first_s: float, between_s: float) -> None:
        self._clock = clock
        self._transport = transport
        self._limit_s = first_s or between_s
        self._between_s = between_s
        self._first = True
        self._heard_at_s = clock.now_s()
        self._exchange: Exchange | None = None
        self._timer: Timer | None = None

    def start(self, exchange: Exchange) -> None:
        """Watches from now on; limits of 0 never fire."""
        self._exchange = exchange
        self._heard_at_s = self._clock.now_s()
        self._set()

    def touch(self, now_s: float) -> None:
        """Something came, now."""
        self._heard_at_s = now_s
        if self._first:
            self._first = False
            self._limit_s = self._between_s
            self._set()

    def note_ping(self) -> None:
        """The peer pinged, where the settings count that as activity."""
        self._heard_at_s = self._clock.now_s()

    def stop(self) -> None:
        """The exchange is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.stop()
        if self._limit_s > 0:
            self._timer = self._clock.call_at(self._heard_at_s + self._limit_s, self._fire)

    def _fire(self) -> None:
        if self._clock.now_s() - self._heard_at_s < self._limit_s:
            self._set()
            return
        assert self._exchange is not None, "a watch fires only after it was started"
        self._exchange.fail(failures.idle(self._transport, self._limit_s, first=self._first))


def _is_of_a_response(emission: Emission) -> bool:
    """Metadata may trail the response that it is about, as notices of other names do."""
    return emission.upstream_type.startswith("response.") and emission.upstream_type != "response.metadata"


class Hooks(Protocol):
    """What an attempt asks of its call."""

    def send(self, emissions: Sequence[Emission]) -> Awaitable[None]:
        """Passes events on to the caller, in order; at least one."""

    def settle(self, terminal: Emission) -> Emission:
        """The response has ended well: closes the books. Returns: the event with what the caller is owed in it."""

    def note_turn_state(self, token: str | None) -> None:
        """A routing token was told, or (None) was not."""

    def note_rate_limits(self, limits: RateLimits) -> None:
        """The provider told its limits."""


class Attempt:
    """Reads one response and passes it on; keeps its record.

    `response_started` tells whether the upstream answered with something to read.
    """

    def __init__(
        self, record: AttemptRecord, *, clock: Clock, observer: Observer, with_payload: bool, max_response_bytes: int
    ) -> None:
        self.record = record
        self.response = Response(max_response_bytes)
        self.response_started = False
        self._clock = clock
        self._observer = observer
        self._with_payload = with_payload
        self._reader = FrameReader(now_unix_s=lambda: clock.unix_ns() / 1e9)
        self._batch_at_s = 0.0
        self._trailed = False

    def begin(self) -> None:
        """The request is about to be sent."""
        self._observer.attempt_started(self.record)

    async def read(self, exchange: Exchange, watch: IdleWatch, hooks: Hooks) -> None:
        """Reads to the terminal event; a batch is sent before the next is fetched: the straight line of back-pressure.

        The books are closed before the terminal event is sent, so a caller that leaves with it leaves a completed
        attempt (C-095).
        Raises: UpstreamFailure, after what came before it was sent.
        Cancel: safe; what becomes of the exchange is the call's to say.
        """
        head = exchange.head
        self.response_started = True
        self.record.upstream_request_id, self.record.http_status = head.upstream_request_id, head.status
        self._reader.server_model = next((e.model for e in head.events if isinstance(e, ServerModel)), "")
        hooks.note_turn_state(head.turn_state)
        await self._send_head(head.events, hooks)
        watch.start(exchange)
        try:
            while self.response.terminal is None:
                payloads = await exchange.receive()
                now_s = self._clock.now_s()
                watch.touch(now_s)
                self._note_batch(payloads, now_s)
                out: list[Emission] = []
                failure = self._decode(payloads, out)
                out = self._screen(out, hooks)
                if self.response.terminal is not None:
                    if self._trailed:
                        exchange.abandon()  # whoever adds to a response that is over may go on doing so (D-4)
                    else:
                        exchange.finish()
                    out[-1] = hooks.settle(out[-1])
                if out:
                    self._note_held(now_s)
                    await hooks.send(out)
                self._note_sent()
                if failure is not None and self.response.terminal is None:
                    raise failure
        finally:
            watch.stop()

    async def _send_head(self, events: Sequence[ModelEvent], hooks: Hooks) -> None:
        if events:
            emissions = [Emission(event, self.record.number) for event in events]
            self.response.take(emissions)
            await hooks.send(self._screen(emissions, hooks))

    def _note_batch(self, payloads: Sequence[bytes], now_s: float) -> None:
        record = self.record
        if record.first_event_at_s is None:
            record.first_event_at_s, record.first_event_unix_ns = now_s, self._clock.unix_ns()
            self._observer.attempt_first_event(record)
        else:
            gap_s = now_s - self._batch_at_s
            if record.longest_gap_s is None or gap_s > record.longest_gap_s:
                record.longest_gap_s = gap_s
        self._batch_at_s = now_s
        record.events_received += len(payloads)
        if record.call is not None:
            record.call.queued = payloads

    def _note_held(self, since_s: float) -> None:
        """How long a batch stayed here before it went to the caller: our own latency."""
        call, held_s = self.record.call, self._clock.now_s() - since_s
        if call is not None and (call.held_s is None or held_s > call.held_s):
            call.held_s = held_s

    def _note_sent(self) -> None:
        if self.record.call is not None:
            self.record.call.queued = ()

    def _decode(self, payloads: Sequence[bytes], out: list[Emission]) -> UpstreamFailure | None:
        """Reads a batch up to its terminal event; what follows that belongs to no response."""
        record, reader = self.record, self._reader
        failure = None
        for payload in payloads:
            failure = reader.read(payload, record.number, out, with_payload=self._with_payload)
            if failure is not None:
                break
        kept = self.response.take(out)
        if self.response.terminal is not None:
            self._trailed = failure is not None or any(map(_is_of_a_response, out[kept:]))
        del out[kept:]
        record.response_id = self.response.response_id or reader.response_id
        record.response_model = reader.response_model
        if failure is None and self.response.is_too_large:
            return failures.broke_protocol("response with more output items, or more bytes of them, than are kept")
        return failure

    def _screen(self, out: list[Emission], hooks: Hooks) -> list[Emission]:
        """Takes out what is for the session and not for the caller."""
        if not self.response.tells_session:
            return out
        self.response.tells_session = False
        hidden = False
        for emission in out:
            event = emission.event
            if isinstance(event, RateLimits):
                hooks.note_rate_limits(event)
            elif isinstance(event, TurnStateSeen):
                hooks.note_turn_state(event.token)
                hidden = True
        return [e for e in out if not isinstance(e.event, TurnStateSeen)] if hidden else out

    def end(self, status: AttemptStatus, error: WarmlineError | None = None) -> None:
        """Closes the record, once: the first ending counts (C-104)."""
        record = self.record
        if record.status is not AttemptStatus.RUNNING:
            return
        record.status, record.error = status, error
        record.output_items = self.response.items
        if isinstance(error, UpstreamFailure):
            record.upstream_request_id = error.upstream_request_id or record.upstream_request_id
            if error.words is not None and not self.response_started:
                record.http_status = error.words.status
        match self.response.terminal:
            case Completed(usage=usage):
                record.usage = usage
            case Incomplete(reason=reason, usage=usage):
                record.usage, record.incomplete_reason = usage, reason
            case None:
                pass
        record.ended_at_s, record.ended_unix_ns = self._clock.now_s(), self._clock.unix_ns()
        self._observer.attempt_ended(record)

"""Keeps a session's slot: runs the handshakes that `core.slot` asks for, and closes what it discards."""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from warmline_server.clock import Clock, Timer
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.events import SlotOutcome
from warmline_server.core.slot import Acquired, Arrival, Cleared, Slot, SlotState
from warmline_server.session.handshake import Handshake
from warmline_server.session.warm_sockets import IdlePolicy, Lost, WarmSockets
from warmline_server.transport.websocket import WebSocket


class HandshakeUnanswered(Exception):
    """The upgrade had no answer within the time that a turn waits for it; the handshake goes on.

    `began` is False when it still waited for its place: then the upstream has swallowed nothing.
    """

    def __init__(self, *, began: bool) -> None:
        super().__init__(began)
        self.began = began


class Acquisition(msgspec.Struct, frozen=True):
    """A socket for an attempt, where it came from, and the handshake that opened it."""

    socket: WebSocket
    outcome: SlotOutcome
    handshake: Handshake


class SlotKeeper:
    """Owns the slot's handshake, its READY socket and its re-arm timer.

    `open_warm` starts a warm-up's handshake; a turn waits for all of it at most `warm_up_limit_s` after its start.
    `may_warm` tells whether the session wants a warm socket now (not latched, not closed, mode not NONE); `is_current`
    whether a handshake names the present window. `failed` is called with a warm-up's failure; `changed(former, now)` at
    each change of state.
    """

    def __init__(
        self,
        *,
        open_warm: Callable[[], Handshake],
        may_warm: Callable[[], bool],
        is_current: Callable[[Handshake], bool],
        failed: Callable[[UpstreamFailure], None],
        changed: Callable[[SlotState, SlotState], None],
        warm_sockets: WarmSockets,
        idle_policy: IdlePolicy,
        clock: Clock,
        warm_up_limit_s: float,
        rearm_delay_s: Callable[[], float],
    ) -> None:
        self._open_warm = open_warm
        self._may_warm = may_warm
        self._is_current = is_current
        self._failed = failed
        self._changed = changed
        self._warm_sockets = warm_sockets
        self._idle_policy = idle_policy
        self._clock = clock
        self._warm_up_limit_s = warm_up_limit_s
        self._rearm_delay_s = rearm_delay_s
        self._slot = Slot()
        self._seen = self._slot.state
        self._in_flight: Handshake | None = None
        self._ready: Handshake | None = None
        self._strays: set[Handshake] = set()
        self._rearm: Timer | None = None
        self.last_failure: UpstreamFailure | None = None
        self.changed_unix_ns = clock.unix_ns()

    @property
    def state(self) -> SlotState:
        return self._slot.state

    @property
    def ready_connection_id(self) -> str:
        """The READY socket's id; blank when there is none."""
        return self._ready.record.connection_id if self._ready is not None else ""

    def arm(self, *, replace: bool = False) -> None:
        """Starts a warm-up where the session wants one and none is there. `replace`: also one that is under way."""
        self._cancel_rearm()
        if not self._may_warm():
            return
        armed = self._slot.arm(replace=replace)
        if armed is None:
            return
        ticket, replaced = armed
        if replaced is not None and self._in_flight is not None:
            self._in_flight.abort()
        self._in_flight = handshake = self._open_warm()
        handshake.task.add_done_callback(partial(self._warm_up_ended, ticket, handshake))
        self._note_change()

    def rearm_soon(self) -> None:
        """Arms after a jittered delay: an established socket was lost, perhaps with many others at once."""
        if self._rearm is None and self._may_warm():
            self._rearm = self._clock.call_at(self._clock.now_s() + self._rearm_delay_s(), self._rearm_now)

    async def wait_settled(self) -> None:
        """Waits until no warm-up is under way. Cancel: safe."""
        while self._in_flight is not None:
            if self._in_flight.task.done():
                await asyncio.sleep(0)  # ended in this pass of the loop, and noted in the next
            else:
                await asyncio.wait([self._in_flight.task])

    async def acquire(
        self, open_cold: Callable[[], Handshake | None], *, patience_s: float | None
    ) -> Acquisition | None:
        """Gets a socket for an attempt: the READY one, the one under way, or a new one.

        A warm-up that fails while it is awaited costs nothing: the attempt opens its own.
        Args: `open_cold` starts the attempt's own handshake, None when the session wants none any more; `patience_s`:
            how long after its start a handshake is waited for, None: as long as it takes.
        Returns: None when `open_cold` gave none.
        Raises: UpstreamFailure of the attempt's own handshake; HandshakeUnanswered when patience ended.
        Cancel: safe; a handshake under way goes on and may fill the slot.
        """
        warmed = await self._acquire_warmed(patience_s)
        if warmed is not None:
            return warmed
        handshake = open_cold()
        if handshake is None:
            return None
        self._strays.add(handshake)
        try:
            socket = await handshake.wait(self._clock, patience_s)
        except TimeoutError as error:
            self._abandon_stray(handshake)
            raise HandshakeUnanswered(began=handshake.record.began) from error
        except asyncio.CancelledError:
            self._abandon_stray(handshake)
            raise
        except UpstreamFailure:
            self._strays.discard(handshake)
            raise
        self._strays.discard(handshake)
        return Acquisition(socket, SlotOutcome.COLD, handshake)

    async def _acquire_warmed(self, patience_s: float | None) -> Acquisition | None:
        match self._slot.acquire():
            case Acquired.TAKE:
                return self._take_ready()
            case Acquired.WAIT:
                return await self._await_in_flight(patience_s)
            case Acquired.OPEN:
                return None

    def _take_ready(self) -> Acquisition | None:
        handshake, self._ready = self._ready, None
        self._note_change()
        assert handshake is not None, "READY has a socket"
        socket = handshake.socket()
        assert socket is not None, "a READY handshake succeeded"
        self._warm_sockets.take(socket)
        if not socket.is_open:  # C-008
            socket.drop("stale")
            return None
        return Acquisition(socket, SlotOutcome.ADOPTED, handshake)

    async def _await_in_flight(self, patience_s: float | None) -> Acquisition | None:
        handshake = self._in_flight
        assert handshake is not None, "IN_FLIGHT has a handshake"
        try:
            socket = await handshake.wait(self._clock, patience_s, self._warm_up_limit_s)
        except TimeoutError as error:
            if handshake.upgraded.is_set():  # C-024: its request hangs; a warm-up never gates a turn
                handshake.abort()
                return None
            self._unclaim(handshake)
            raise HandshakeUnanswered(began=handshake.record.began) from error
        except asyncio.CancelledError:
            if handshake.task.cancelled() and not _being_cancelled():
                return None  # the warm-up was aborted (fallback, new window), not this call
            self._unclaim(handshake)
            raise
        except UpstreamFailure:  # C-007
            return None
        return Acquisition(socket, SlotOutcome.AWAITED, handshake)

    def clear(self, cause: str) -> None:
        """Throws away what is under way and what waits (fallback, new window)."""
        self._cancel_rearm()
        self._throw_away(self._slot.clear(), cause)

    def close(self, cause: str) -> None:
        """The session ends: nothing is kept from now on, and all handshakes end."""
        self._cancel_rearm()
        self._throw_away(self._slot.close(), cause)
        for handshake in self._strays:
            handshake.abort()

    def _throw_away(self, cleared: Cleared, cause: str) -> None:
        if cleared.abort_ticket is not None and self._in_flight is not None:
            self._in_flight.abort()
        if cleared.close_ready and self._ready is not None:
            self._discard(self._ready, cause)
            self._ready = None
        self._note_change()

    def _warm_up_ended(self, ticket: int, handshake: Handshake, _task: object) -> None:
        if self._in_flight is handshake:
            self._in_flight = None
        socket = handshake.socket()
        if socket is None:
            self._slot.failed(ticket)
            self._note_failure(handshake)
        else:
            self.last_failure = None
            match self._slot.connected(ticket):
                case Arrival.KEEP:
                    self._keep(handshake, socket)
                case Arrival.DISCARD:
                    self._discard(handshake, "late")
                case Arrival.GRANT:
                    pass  # whoever waits for the handshake has it now
        self._note_change()

    def _note_failure(self, handshake: Handshake) -> None:
        if not handshake.task.cancelled():
            error = handshake.task.exception()
            self.last_failure = error if isinstance(error, UpstreamFailure) else None
            if self.last_failure is not None:
                self._failed(self.last_failure)

    def _unclaim(self, handshake: Handshake) -> None:
        if self._in_flight is handshake:
            self._slot.abandon()
        else:
            self.offer(handshake)  # it was granted in the moment in which its turn gave up

    def _abandon_stray(self, handshake: Handshake) -> None:
        """Nobody waits for it, but it may still become the next turn's warm socket (D-14)."""
        if handshake.task.done():
            self._stray_ended(handshake, None)
        else:
            handshake.task.add_done_callback(partial(self._stray_ended, handshake))

    def _stray_ended(self, handshake: Handshake, _task: object) -> None:
        self._strays.discard(handshake)
        self.offer(handshake)

    def offer(self, handshake: Handshake) -> None:
        """A handshake that nobody waits for has ended: its socket fills the slot if that is free, else it is closed."""
        socket = handshake.socket()
        if socket is None:
            return
        fits = not handshake.carries_turn_state and self._is_current(handshake) and self._may_warm()
        if not fits or self._slot.offer() is Arrival.DISCARD:
            self._discard(handshake, "late")
            return
        self._keep(handshake, socket)
        self._note_change()

    def _keep(self, handshake: Handshake, socket: WebSocket) -> None:
        self._ready = handshake
        tenant = handshake.record.session.tenant
        self._warm_sockets.park(tenant, socket, self._idle_policy, self._ready_lost)

    def _ready_lost(self, lost: Lost) -> None:
        handshake, self._ready = self._ready, None
        assert handshake is not None, "a parked socket is the READY one"
        self._slot.lost()
        self._discard(handshake, lost.value)
        self._note_change()
        if lost.wants_another:
            self.rearm_soon()

    def _discard(self, handshake: Handshake, cause: str) -> None:
        socket = handshake.socket()
        if socket is not None:
            self._warm_sockets.take(socket)
            socket.close(cause)

    def _rearm_now(self) -> None:
        self._rearm = None
        self.arm()

    def _cancel_rearm(self) -> None:
        if self._rearm is not None:
            self._rearm.cancel()
            self._rearm = None

    def _note_change(self) -> None:
        if self._seen is not self._slot.state:
            former, self._seen = self._seen, self._slot.state
            self.changed_unix_ns = self._clock.unix_ns()
            self._changed(former, self._seen)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

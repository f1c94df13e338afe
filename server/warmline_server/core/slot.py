"""The preconnect slot: at most one socket that is being opened ahead of a turn, or waits for one.

The slot knows tickets, not sockets: each handshake it asks for has a ticket, and an answer with an old ticket is
discarded whatever the state. The keeper (`session/keeper.py`) does what comes back. Source: conformance C-001 to C-017.
"""

from dataclasses import dataclass
from enum import Enum, auto

from warmline_server.core.machine import Machine


class SlotState(Enum):
    """Where the slot is. CLOSED is the end of the session."""

    IDLE = auto()
    IN_FLIGHT = auto()
    READY = auto()
    CLOSED = auto()


TRANSITIONS = {
    (SlotState.IDLE, "armed"): SlotState.IN_FLIGHT,
    # A handshake that a turn gave up on, or opened for itself and no longer needs, may wait for the next turn.
    (SlotState.IDLE, "offered"): SlotState.READY,
    (SlotState.IDLE, "cleared"): SlotState.IDLE,
    (SlotState.IDLE, "closed"): SlotState.CLOSED,
    # Armed anew (the window advanced): the handshake under way is out of date and is replaced.
    (SlotState.IN_FLIGHT, "armed"): SlotState.IN_FLIGHT,
    (SlotState.IN_FLIGHT, "connected"): SlotState.READY,
    (SlotState.IN_FLIGHT, "granted"): SlotState.IDLE,
    (SlotState.IN_FLIGHT, "failed"): SlotState.IDLE,
    (SlotState.IN_FLIGHT, "cleared"): SlotState.IDLE,
    (SlotState.IN_FLIGHT, "closed"): SlotState.CLOSED,
    (SlotState.READY, "taken"): SlotState.IDLE,
    (SlotState.READY, "lost"): SlotState.IDLE,
    (SlotState.READY, "cleared"): SlotState.IDLE,
    (SlotState.READY, "closed"): SlotState.CLOSED,
    (SlotState.CLOSED, "closed"): SlotState.CLOSED,
}


class Acquired(Enum):
    """What a turn that needs a socket gets from the slot."""

    TAKE = auto()
    """The READY socket."""
    WAIT = auto()
    """The handshake under way, which is now claimed by this turn."""
    OPEN = auto()
    """Nothing: it opens its own."""


class Arrival(Enum):
    """What becomes of a socket that has arrived."""

    KEEP = auto()
    """It waits in the slot, which is READY."""
    GRANT = auto()
    """It goes to the turn that claimed it."""
    DISCARD = auto()
    """Nobody waits for it any more: close it."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """What is to be thrown away: the handshake of `abort_ticket` (None: none), the READY socket."""

    abort_ticket: int | None
    close_ready: bool


class Slot:
    """Decides about the one slot of a session. Not thread-safe; nothing here waits."""

    def __init__(self) -> None:
        self._machine = Machine("slot", SlotState.IDLE, TRANSITIONS)
        self._ticket = 0
        self.claimed = False

    @property
    def state(self) -> SlotState:
        return self._machine.state

    def arm(self, *, replace: bool = False) -> tuple[int, int | None] | None:
        """Asks for a handshake.

        Returns: its ticket, and the ticket of the handshake to abort (None: none); or None when there is nothing to
            do: the slot is READY or CLOSED, or a handshake is under way that a turn has claimed or `replace` spares.
        """
        if not self._machine.can("armed") or (self.state is SlotState.IN_FLIGHT and (self.claimed or not replace)):
            return None
        replaced = self._ticket if self.state is SlotState.IN_FLIGHT else None
        self._machine.step("armed")
        self._ticket += 1
        return self._ticket, replaced

    def acquire(self) -> Acquired:
        """Gives a turn what there is: one gets the READY socket, one the handshake under way, others open their own."""
        if self.state is SlotState.READY:
            self._machine.step("taken")
            return Acquired.TAKE
        if self.state is SlotState.IN_FLIGHT and not self.claimed:
            self.claimed = True
            return Acquired.WAIT
        return Acquired.OPEN

    def abandon(self) -> None:
        """The turn that claimed the handshake no longer wants it; the handshake goes on for the next turn."""
        self.claimed = False

    def connected(self, ticket: int) -> Arrival:
        """The handshake of `ticket` succeeded."""
        if ticket != self._ticket or self.state is not SlotState.IN_FLIGHT:
            return Arrival.DISCARD
        if self.claimed:
            self.claimed = False
            self._machine.step("granted")
            return Arrival.GRANT
        self._machine.step("connected")
        return Arrival.KEEP

    def failed(self, ticket: int) -> None:
        """The handshake of `ticket` failed or was aborted."""
        if ticket == self._ticket and self.state is SlotState.IN_FLIGHT:
            self.claimed = False
            self._machine.step("failed")

    def offer(self) -> Arrival:
        """A socket that was opened for a turn is no longer needed there."""
        if not self._machine.can("offered"):
            return Arrival.DISCARD
        self._machine.step("offered")
        return Arrival.KEEP

    def lost(self) -> None:
        """The READY socket was closed by the peer, or grew too old."""
        self._machine.step("lost")

    def clear(self) -> Cleared:
        """Throws everything away (fallback, new window)."""
        return self._empty("cleared")

    def close(self) -> Cleared:
        """The session ends: nothing is kept from now on."""
        return self._empty("closed")

    def _empty(self, event: str) -> Cleared:
        if not self._machine.can(event):  # cleared after the end
            return Cleared(None, close_ready=False)
        in_flight = self.state is SlotState.IN_FLIGHT
        ready = self.state is SlotState.READY
        self._machine.step(event)
        self.claimed = False
        return Cleared(self._ticket if in_flight else None, close_ready=ready)

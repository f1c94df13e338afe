"""A circuit per upstream: one session's bad news spares the others the same wait (D-13, D-14).

OPEN means: do not wait for a WebSocket handshake, use HTTP for this attempt. After a while one handshake probes.
"""

from enum import Enum, auto


class CircuitState(Enum):
    CLOSED = auto()
    OPEN = auto()
    PROBING = auto()


class Circuit:
    """Decides whether a turn may wait for a handshake. `open_s` 0: never opens."""

    def __init__(self, open_s: float) -> None:
        self._open_s = open_s
        self._until_s = 0.0
        self.state = CircuitState.CLOSED

    def trip(self, now_s: float) -> None:
        """A session's handshakes exhausted its budget, or one was swallowed."""
        if self._open_s > 0:
            self.state = CircuitState.OPEN
            self._until_s = now_s + self._open_s

    def reset(self) -> None:
        """A handshake succeeded."""
        self.state = CircuitState.CLOSED

    @property
    def allows_waiting(self) -> bool:
        """Whether a turn may wait for a handshake of its own now."""
        return self.state is CircuitState.CLOSED

    def take_probe(self, now_s: float) -> bool:
        """Whether the caller is the one whose handshake tries the upstream again, in the background."""
        if self.state is CircuitState.CLOSED or now_s < self._until_s:
            return False
        self.state = CircuitState.PROBING
        # A probe that never reports must not keep the circuit open for ever.
        self._until_s = now_s + self._open_s
        return True

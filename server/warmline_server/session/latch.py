"""The latch that keeps a session on HTTP, and lets go of it when the WebSocket works again (D-16)."""

from collections.abc import Callable

from warmline_server.clock import Clock, Timer


class Latch:
    """Whether the session uses HTTP from now on, why and since when.

    While it does, `probe` is called every `reprobe_s` seconds, 0: never; whoever probes says how it went by `release`
    or `probe_later`.
    """

    def __init__(self, clock: Clock, *, reprobe_s: float, probe: Callable[[], None]) -> None:
        self.active = False
        self.reason = ""
        self.since_unix_ns = 0
        self._clock = clock
        self._reprobe_s = reprobe_s
        self._probe = probe
        self._timer: Timer | None = None

    def set_for_good(self, reason: str) -> None:
        """HTTP from now on; nothing is probed."""
        self.active, self.reason, self.since_unix_ns = True, reason, self._clock.unix_ns()

    def set(self, reason: str) -> None:
        """HTTP until a probe succeeds."""
        self.set_for_good(reason)
        self.probe_later()

    def probe_later(self) -> None:
        """Sets the time of the next probe."""
        if self._reprobe_s > 0:
            self._timer = self._clock.call_at(self._clock.now_s() + self._reprobe_s, self._fire)

    def release(self) -> None:
        """The WebSocket works."""
        self.active, self.reason, self.since_unix_ns = False, "", 0

    def close(self) -> None:
        """No more probes."""
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        self._probe()

"""Time that stands still until a test moves it."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

# Passes of the loop after which a chain of callbacks has come to rest. A task that waits for a future that a task
# waits for … is no deeper than this in any shell of ours; what waits for a real socket needs its own signal.
SETTLE_PASSES = 20


async def settle() -> None:
    """Lets everything run that can run without time or a socket."""
    for _ in range(SETTLE_PASSES):
        await asyncio.sleep(0)


class ManualTimer:
    """A callback of a ManualClock. `cancelled` and `fired` tell what became of it."""

    def __init__(self, at_s: float, callback: Callable[[], object]) -> None:
        self.at_s = at_s
        self.cancelled = False
        self.fired = False
        self._callback = callback

    def cancel(self) -> None:
        self.cancelled = True

    @property
    def is_pending(self) -> bool:
        return not self.cancelled and not self.fired

    def fire(self) -> None:
        """Runs the callback, unless it has run or was cancelled."""
        if self.is_pending:
            self.fired = True
            self._callback()


class ManualClock:
    """A `warmline_server.clock.Clock` that `advance` moves. `unix_ns` moves with it."""

    def __init__(self, now_s: float = 1000.0, unix_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_s = now_s
        self._start_s, self._start_unix_ns = now_s, unix_ns
        self._order = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        return self._now_s

    def unix_ns(self) -> int:
        return self._start_unix_ns + round((self._now_s - self._start_s) * 1e9)

    def call_at(self, at_s: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(at_s, callback)
        if at_s <= self._now_s:
            # As with real time: soon, and never inside the call.
            asyncio.get_running_loop().call_soon(timer.fire)
            return timer
        heapq.heappush(self._timers, (at_s, next(self._order), timer))
        for limit_s, woken in self._waiting:
            if at_s <= limit_s and not woken.done():
                woken.set_result(None)
        return timer

    @property
    def pending_at_s(self) -> list[float]:
        """When the timers are due that were neither cancelled nor fired, soonest first."""
        return sorted(timer.at_s for _, _, timer in self._timers if timer.is_pending)

    async def wait_for_timer(self, within_s: float) -> None:
        """Waits, in real time, until a timer is pending that is due within `within_s` seconds of this clock."""
        limit_s = self._now_s + within_s
        if any(at_s <= limit_s for at_s in self.pending_at_s):
            return
        entry = (limit_s, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        finally:
            self._waiting.remove(entry)

    async def advance(self, duration_s: float) -> None:
        """Moves time, timer by timer in order of their times, and lets the loop come to rest after each."""
        until_s = self._now_s + duration_s
        await settle()
        while self._timers and self._timers[0][0] <= until_s:
            at_s, _, timer = heapq.heappop(self._timers)
            if timer.is_pending:
                self._now_s = max(self._now_s, at_s)
                timer.fire()
                await settle()
        self._now_s = until_s
        await settle()

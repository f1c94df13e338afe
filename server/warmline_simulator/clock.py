"""Where the simulator's time comes from: the event loop, or a test's hand.

Everything that waits inside a script, and the age of a socket, goes through a `Clock`. Timeouts of the `wait_for_*`
methods do not: they guard a test against hanging and are always real.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol

from warmline_simulator.watch import Watch


class Timer(Protocol):
    """A callback that was asked for and may still be called off."""

    def cancel(self) -> None:
        """Call it off; without effect once it ran."""


class Clock(Protocol):
    """Seconds that never go backwards, and callbacks in the future."""

    def now_s(self) -> float:
        """Seconds since an arbitrary start."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` once, `delay_s` seconds from now."""

    async def sleep(self, delay_s: float) -> None:
        """Return after `delay_s` seconds; cancelling it leaves nothing behind."""


class LoopClock:
    """The running event loop's clock, counted from the moment this object was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_at_s = self._loop.time()

    def now_s(self) -> float:
        return self._loop.time() - self._start_at_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_later(delay_s, callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A clock that stands still until `advance` is called, so that an hour takes no time in a test."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._sleepers = 0
        self._watch = Watch()

    def now_s(self) -> float:
        return self._now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._now_s + delay_s, next(self._order), timer))
        return timer

    async def sleep(self, delay_s: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay_s, lambda: None if woken.done() else woken.set_result(None))
        self._sleepers += 1
        self._watch.notify()
        try:
            await woken
        finally:
            self._sleepers -= 1
            timer.cancel()

    async def wait_for_sleepers(self, n: int = 1, *, timeout_s: float = 5.0) -> None:
        """Return once `n` tasks sleep on this clock. Raises WaitTimeoutError after `timeout_s` real seconds."""
        await self._watch.until(
            lambda: self._sleepers >= n,
            timeout_s=timeout_s,
            wanted=f"{n} sleepers on the clock",
            seen=lambda: f"{self._sleepers}",
        )

    def advance(self, delay_s: float) -> None:
        """Move the time forward and run, in order, what falls due. `delay_s` >= 0."""
        end_at_s = self._now_s + delay_s
        while self._timers and self._timers[0][0] <= end_at_s:
            due_at_s, _, timer = heapq.heappop(self._timers)
            self._now_s = due_at_s
            if timer.callback is not None:
                timer.callback()
        self._now_s = end_at_s

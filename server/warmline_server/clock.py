"""Time for the shells: real, or advanced by hand in tests.

Everything in `transport` and above takes its time from a Clock, so that a five-minute limit is tested in a moment.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget it. Harmless when it has run."""


class Clock(Protocol):
    """Where the shells get their time from."""

    def now_s(self) -> float:
        """Monotonic seconds."""

    def unix_ns(self) -> int:
        """Wall time, for telemetry only."""

    def call_at(self, at_s: float, callback: Callable[[], object]) -> Timer:
        """Runs `callback` once, on the loop, when `now_s()` reaches `at_s`."""


class SystemClock:
    """The real time."""

    # Asked several times per event, so without a frame of Python's own.
    now_s = staticmethod(time.monotonic)
    unix_ns = staticmethod(time.time_ns)

    def call_at(self, at_s: float, callback: Callable[[], object]) -> Timer:
        # The loop's own clock is time.monotonic on every platform that asyncio supports, but that is not promised.
        return asyncio.get_running_loop().call_later(max(0.0, at_s - self.now_s()), callback)


async def sleep(clock: Clock, duration_s: float) -> None:
    """Waits for `duration_s` seconds of `clock`. Cancel: safe, the timer is dropped."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    timer = clock.call_at(clock.now_s() + duration_s, wake)
    try:
        await woken
    finally:
        timer.cancel()


class TimeLimit:
    """`async with TimeLimit(clock, at_s):` raises TimeoutError in the body's place when `at_s` passes (None: never).

    As `asyncio.timeout_at`, on our clock. `expired` tells afterwards whether the limit, and not another cancel, ended
    the body.
    """

    def __init__(self, clock: Clock, at_s: float | None) -> None:
        self._clock = clock
        self._at_s = at_s
        self._timer: Timer | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.expired = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None, "a time limit needs a task to cancel"
        self._cancelling = self._task.cancelling()
        if self._at_s is not None:
            self._timer = self._clock.call_at(self._at_s, self._expire)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.expired:
            return
        assert self._task is not None
        # Whoever else cancelled the task meanwhile keeps the last word.
        if self._task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError:
            raise TimeoutError from exc

    def _expire(self) -> None:
        assert self._task is not None
        self.expired = True
        self._task.cancel()

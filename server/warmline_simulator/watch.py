"""Waiting for what the simulator will see, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class WaitTimeoutError(TimeoutError):
    """What was waited for did not come in time. The text says what was seen instead."""


class Watch:
    """Wakes waiters whose condition has become true. One `notify` per change of state."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def notify(self) -> None:
        """Look at every waiter's condition again."""
        if not self._waiters:
            return
        for condition, future in self._waiters:
            if not future.done() and condition():
                future.set_result(None)

    async def until(
        self, condition: Callable[[], bool], *, timeout_s: float, wanted: str, seen: Callable[[], str]
    ) -> None:
        """Return once `condition` holds.

        Args:
            timeout_s: real seconds, whatever clock the simulator runs on.
            wanted: what is waited for, for the error.
            seen: describes what is there instead, asked only on a timeout.
        Raises:
            WaitTimeoutError: it did not hold in time.
        Cancel: leaves nothing behind.
        """
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._waiters.append(entry)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise WaitTimeoutError(f"waited for {wanted}: not within {timeout_s} s — seen {seen()}") from None
        finally:
            self._waiters.remove(entry)

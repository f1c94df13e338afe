"""Tasks and sockets of this process. Counted before and after, they show what was left behind."""

import asyncio
import collections
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Real seconds: far more than anything takes to end, far less than a run that hangs may cost.
SETTLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Books:
    """Tasks by what they run, and open sockets: 0 where the system does not tell."""

    tasks: "collections.Counter[str]"
    sockets: int

    @classmethod
    def now(cls) -> "Books":
        """Counts them."""
        names = (str(getattr(task.get_coro(), "__qualname__", task.get_coro())) for task in asyncio.all_tasks())
        return cls(collections.Counter(names), _open_sockets())


def _open_sockets() -> int:
    count = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                count += entry.readlink().name.startswith("socket:")
    return count


async def settled(condition: Callable[[], bool]) -> bool:
    """Gives what is ending a moment: sockets and tasks tell nobody of their end. Returns: whether it was enough."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_S):
            while not condition():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.001)
    return condition()

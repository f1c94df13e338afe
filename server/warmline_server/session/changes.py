"""A state that is watched: how often it has changed, and a wait for the next time."""

import asyncio


class Changes:
    """Counts from 1. `revision` goes up with each change; watchers may miss some, never the last."""

    def __init__(self) -> None:
        self.revision = 1
        self._next: asyncio.Future[None] | None = None

    def note(self) -> None:
        """The state is another one."""
        self.revision += 1
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None

    async def wait(self, seen: int) -> None:
        """Waits until the revision is beyond `seen`. Cancel: safe."""
        while self.revision <= seen:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next)

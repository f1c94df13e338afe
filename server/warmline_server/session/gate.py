"""A counted gate with two queues: turns go before warm-ups."""

import asyncio
from collections import deque
from types import TracebackType


class Gate:
    """Lets `limit` holders in at a time; whoever waits with `urgent` goes before whoever waits without."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._patient: deque[asyncio.Future[None]] = deque()

    def pass_through(self, *, urgent: bool) -> "_Pass":
        """`async with gate.pass_through(urgent=…):` waits for a place and gives it back. Cancel: safe."""
        return _Pass(self, urgent)

    async def enter(self, *, urgent: bool) -> None:
        """Waits for a place. Cancel: safe, a place given meanwhile is passed on."""
        if self._free > 0:
            self._free -= 1
            return
        queue = self._urgent if urgent else self._patient
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()
            elif turn in queue:  # else whoever left has passed it over
                queue.remove(turn)
            raise

    def leave(self) -> None:
        """Gives a place to whoever is next."""
        for queue in (self._urgent, self._patient):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


class _Pass:
    def __init__(self, gate: Gate, urgent: bool) -> None:
        self._gate, self._urgent = gate, urgent

    async def __aenter__(self) -> None:
        await self._gate.enter(urgent=self._urgent)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.leave()

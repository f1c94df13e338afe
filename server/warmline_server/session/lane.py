"""A lane: an independent chain of calls inside a session, one call at a time."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from warmline_server.core.delta import Baseline
from warmline_server.core.errors import Reason, ServiceError
from warmline_server.core.items import Conversation
from warmline_server.core.request_reader import RequestReader
from warmline_server.core.turn_state import TurnState
from warmline_server.session.keeper import Acquisition

if TYPE_CHECKING:
    from warmline_server.session.call import Call


class Lane:
    """A lane's socket, what that socket holds, its routing token, its transcript and its running call.

    `acquired` is the lane's socket between calls and while one runs, None when it has none; `baseline` dies with it;
    `generation` is the window that the socket was opened in. `transcript` is the conversation that APPEND calls build
    on, None when it is not held; `reader` knows the last request again.
    """

    def __init__(self, name: str, reader: RequestReader, *, turn_state_ttl_s: float, max_waiting: int) -> None:
        self.name = name
        self.reader = reader
        self.turn_state = TurnState(turn_state_ttl_s)
        self.acquired: Acquisition | None = None
        self.baseline: Baseline | None = None
        self.generation = 0
        self.transcript: Conversation | None = Conversation()
        self.uses_append = False
        self.history_position = 0
        self.running: Call | None = None
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[asyncio.Future[None], Call]] = deque()

    @property
    def last_response_id(self) -> str:
        """The response that an incremental request would continue; blank when there is none."""
        return self.baseline.response_id if self.baseline is not None else ""

    async def enter(self, call: "Call", *, first: bool = False) -> None:
        """Waits until the lane is `call`'s, first come first served; `first`: before all who wait.

        Raises: ServiceError LIMIT_EXCEEDED when too many wait already. Cancel: safe.
        """
        if self.running is None:
            self.running = call
            return
        if len(self._waiting) >= self._max_waiting:
            raise ServiceError(
                Reason.LIMIT_EXCEEDED,
                f"{len(self._waiting)} calls wait for lane {self.name!r} already, the most allowed",
                limit="max_waiting_calls_per_lane",
                retry_after_s=1.0,
            )
        entry = (asyncio.get_running_loop().create_future(), call)
        if first:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)
        try:
            await entry[0]
        except asyncio.CancelledError:
            if self.running is call:
                self.leave()
            else:
                self._waiting.remove(entry)
            raise

    def leave(self) -> None:
        """The running call is over: the lane is the next one's, if one waits."""
        self.running = None
        if self._waiting:
            turn, self.running = self._waiting.popleft()
            # A waiter that was cancelled in this very moment finds itself running, and leaves again.
            if not turn.done():
                turn.set_result(None)

    def forget_socket(self) -> Acquisition | None:
        """The lane has no socket from now on. Returns: the one it had."""
        acquired, self.acquired, self.baseline = self.acquired, None, None
        return acquired

    def drop_socket(self, cause: str) -> None:
        """Cuts the lane's socket, if it has one: what it holds can no longer be trusted."""
        acquired = self.forget_socket()
        if acquired is not None:
            acquired.socket.drop(cause)

"""A handshake under way. It belongs to its task, not to whoever waits for it: who gives up leaves it running."""

import asyncio
import logging
from collections.abc import Coroutine

from warmline_server.clock import Clock, TimeLimit
from warmline_server.core import received_headers
from warmline_server.core.delta import Baseline
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.records import ConnectRecord
from warmline_server.transport.websocket import WebSocket

_log = logging.getLogger(__name__)


class Handshake:
    """One connect, and the warm-up request that may follow it.

    `carries_turn_state`: it replays a turn's routing token, so its socket is for that turn alone. `baseline` is what a
    warm-up request left on the socket, None without one. `window_generation` is the window that its headers name.
    """

    def __init__(self, record: ConnectRecord, *, carries_turn_state: bool) -> None:
        self.record = record
        self.carries_turn_state = carries_turn_state
        self.baseline: Baseline | None = None
        self.window_generation = 0
        self.upgraded = asyncio.Event()
        self._task: asyncio.Task[WebSocket] | None = None

    def start(self, connecting: Coroutine[object, object, WebSocket]) -> None:
        """Starts the task that connects; it sets `upgraded` when the socket is open."""
        self._task = asyncio.create_task(connecting, name=f"connect {self.record.connection_id}")
        self._task.add_done_callback(_note_outcome)

    @property
    def task(self) -> "asyncio.Task[WebSocket]":
        """The task that connects."""
        assert self._task is not None, "a handshake is started where it is made"
        return self._task

    async def wait(self, clock: Clock, patience_s: float | None, whole_s: float | None = None) -> WebSocket:
        """Waits for the socket: for its upgrade until `patience_s` after the start, for all until `whole_s` after it.

        None: as long as it takes.
        Raises: UpstreamFailure when it failed; TimeoutError when a limit passed; `upgraded` tells which.
        Cancel: safe; the handshake goes on.
        """
        async with TimeLimit(clock, self._limit_at_s(patience_s)):
            if not self.upgraded.is_set():
                upgraded = asyncio.ensure_future(self.upgraded.wait())
                try:
                    await asyncio.wait((upgraded, self.task), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    upgraded.cancel()
        async with TimeLimit(clock, self._limit_at_s(whole_s)):
            return await asyncio.shield(self.task)

    def _limit_at_s(self, after_s: float | None) -> float | None:
        return None if after_s is None else self.record.started_at_s + after_s

    def abort(self) -> None:
        """Ends the handshake. Harmless when it has ended."""
        self.record.abandoned = True
        self.task.cancel()

    def socket(self) -> WebSocket | None:
        """The socket of a handshake that succeeded; None while it runs, and when it failed."""
        if not self.task.done() or self.task.cancelled() or self.task.exception() is not None:
            return None
        return self.task.result()

    @property
    def turn_state(self) -> str | None:
        """The routing token of the handshake's answer; None when not told."""
        socket = self.socket()
        return received_headers.turn_state(socket.headers) if socket is not None else None


def _note_outcome(task: "asyncio.Task[WebSocket]") -> None:
    """A failure that nobody waits for is recorded by observers; anything else is a fault of ours."""
    if not task.cancelled():
        error = task.exception()
        if error is not None and not isinstance(error, UpstreamFailure):
            _log.error("a handshake failed for a fault of this server", exc_info=error)

"""A handshake under way. It belongs to its task, not to whoever waits for it: who gives up leaves it running."""

import asyncio
from collections.abc import Coroutine

from warmline_server.clock import Clock, TimeLimit
from warmline_server.core import received_headers
from warmline_server.core.delta import Baseline
from warmline_server.core.records import ConnectRecord
from warmline_server.transport.websocket import WebSocket


class Handshake:
    """One connect.

    `carries_turn_state`: it replays a turn's routing token, so its socket is for that turn alone. `baseline` is what a
    warm-up request left on the socket, None without one.
    """

    def __init__(
        self, connecting: Coroutine[object, object, WebSocket], record: ConnectRecord, *, carries_turn_state: bool
    ) -> None:
        self.record = record
        self.carries_turn_state = carries_turn_state
        self.baseline: Baseline | None = None
        self.task = asyncio.create_task(connecting, name=f"connect {record.connection_id}")
        self.task.add_done_callback(_note_outcome)

    async def wait(self, clock: Clock, patience_s: float | None) -> WebSocket:
        """Waits for the socket, until `patience_s` after the handshake began (None: as long as it takes).

        Raises: UpstreamFailure when the handshake failed; TimeoutError when patience ended first.
        Cancel: safe; the handshake goes on.
        """
        async with TimeLimit(clock, None if patience_s is None else self.record.started_at_s + patience_s):
            return await asyncio.shield(self.task)

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
    """A failure that nobody waits for is recorded by observers; asyncio need not report it as forgotten."""
    if not task.cancelled():
        task.exception()

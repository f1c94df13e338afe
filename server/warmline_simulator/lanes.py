"""Which of a socket's requests may run now: one per lane in order of arrival, and a limit over all lanes.

Source: WebSocket guide: 16 responses in flight per socket, further ones wait; 32 named lanes in a socket's life, the
default lane not counted.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from warmline_simulator.refusal import Refusal

Job = TypeVar("Job")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")


class Lanes(Generic[Job]):
    """The waiting and running requests of one socket. Decides only; the caller runs them."""

    def __init__(self, *, max_in_flight: int, max_lanes: int, serial: bool) -> None:
        self._max_in_flight = 1 if serial else max_in_flight
        self._max_lanes = max_lanes
        self._serial = serial
        self._names: set[str] = set()
        self._busy: set[str | None] = set()
        self._waiting: list[tuple[str | None, Job]] = []

    def admit(self, stream_id: object) -> Refusal | None:
        """Check a lane's name and count it; None when a request may use it."""
        if self._serial:
            return Refusal(400, "unknown_parameter", "Unknown parameter: 'stream_id'.", "stream_id", echoes_lane=False)
        if not isinstance(stream_id, str) or not _NAME.fullmatch(stream_id):
            text = "Invalid 'stream_id': expected 1 to 256 letters, digits, '_', '-' or '.'."
            return Refusal(400, "invalid_stream_id", text, "stream_id", echoes_lane=False)
        if stream_id not in self._names and len(self._names) >= self._max_lanes:
            text = f"This WebSocket connection has reached its limit of {self._max_lanes} streams."
            return Refusal(400, "websocket_stream_limit_reached", text, "stream_id")
        self._names.add(stream_id)
        return None

    def enqueue(self, lane: str | None, job: Job) -> None:
        """Add a request behind all others."""
        self._waiting.append((lane, job))

    def start(self) -> list[Job]:
        """The requests that may start now, in order of arrival; they count as running from here on."""
        started: list[Job] = []
        still: list[tuple[str | None, Job]] = []
        blocked = set(self._busy)
        for lane, job in self._waiting:
            if lane in blocked or len(self._busy) >= self._max_in_flight:
                still.append((lane, job))
            else:
                started.append(job)
                self._busy.add(lane)
            blocked.add(lane)
        self._waiting = still
        return started

    def finish(self, lane: str | None) -> None:
        """The lane's running request is over."""
        self._busy.discard(lane)

    def abandon(self) -> list[Job]:
        """Forget what waits and return it, oldest first: the socket is gone."""
        waiting, self._waiting = self._waiting, []
        return [job for _, job in waiting]

"""Where a run is in its script: what comes next, and what was never asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from warmline_simulator.records import RequestRecord
from warmline_simulator.script import Connection, Reply, Script
from warmline_simulator.watch import Watch


class Mounts:
    """Replies mounted at one place; each answers its number of times."""

    def __init__(self, replies: Sequence[Reply], name: str) -> None:
        self._replies = list(replies)
        self._left = [reply.times for reply in replies]
        self._name = name

    def take(self, record: RequestRecord) -> Reply | None:
        """The first reply that is not used up and matches; None when there is none."""
        for position, reply in enumerate(self._replies):
            left = self._left[position]
            if left == 0 or (reply.match is not None and not reply.match(record)):
                continue
            if left is not None:
                self._left[position] = left - 1
            return reply
        return None

    def unasked(self) -> list[str]:
        """One line per reply that should have answered more often."""
        return [
            f"{self._name}[{position}]: asked for {reply.times - left} of {reply.times} times"
            for position, (reply, left) in enumerate(zip(self._replies, self._left, strict=True))
            if reply.times is not None and left
        ]


@dataclass(slots=True)
class GateState:
    """One named gate."""

    reached: int = 0
    """How often something came to wait at it."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class Stage:
    """A script, its place, and its gates."""

    def __init__(self, script: Script, watch: Watch, *, strict: bool) -> None:
        self.script = script
        self.refuses = strict or script.rest == "refuse"
        self.creates = Mounts(script.creates, "creates")
        self.posts = Mounts(script.posts, "posts")
        self.compact = Mounts(script.compact, "compact")
        self.memories = Mounts(script.memories, "memories")
        self.model_replies = Mounts(script.model_replies, "model_replies")
        self._connections = [
            (connection, Mounts(connection.replies, f"connections[{position}].replies"))
            for position, connection in enumerate(script.connections)
        ]
        self._next_connection = 0
        self._gates: dict[str, GateState] = {}
        self._watch = watch

    def next_connection(self) -> tuple[Connection, Mounts] | None:
        """What the script says about the upgrade that just arrived; None beyond the script."""
        if self._next_connection >= len(self._connections):
            return None
        self._next_connection += 1
        return self._connections[self._next_connection - 1]

    def gate(self, name: str) -> GateState:
        """The gate of that name."""
        return self._gates.setdefault(name, GateState())

    async def pass_gate(self, name: str) -> None:
        """Wait at a gate until it is open."""
        gate = self.gate(name)
        gate.reached += 1
        self._watch.notify()
        await gate.opened.wait()

    def unasked(self) -> list[str]:
        """One line per scripted step that was never asked for."""
        missing = [
            f"connections[{position}]: no upgrade came"
            for position in range(self._next_connection, len(self._connections))
        ]
        for _, mounts in self._connections[: self._next_connection]:
            missing += mounts.unasked()
        for mounts in (self.creates, self.posts, self.compact, self.memories, self.model_replies):
            missing += mounts.unasked()
        return missing

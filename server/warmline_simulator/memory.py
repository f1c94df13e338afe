"""What the service remembers of responses: the store, and a connection's latest response per lane.

Source: WebSocket guide: a lane keeps its latest response only, in memory; a miss is filled from the store when the
response was stored; a continuation that ends in an error evicts what it continued, unless it came from another lane.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Remembered:
    """A response that can be continued."""

    id: str
    parent: Remembered | None
    """The response it continued."""
    input_items: Sequence[Json]
    """The new items of its request."""
    output_items: Sequence[Json]
    tokens: int
    """Tokens of the whole conversation up to and with its output."""
    stored: bool
    response: Json | None = None
    """The final response object; None when none was sent."""
    complete: bool = True
    """False: it continues something unknown, so its visible input is not known."""

    def visible(self) -> list[Json] | None:
        """The whole conversation up to and with its output, oldest first; None when part of it is unknown."""
        links: list[Remembered] = []
        link: Remembered | None = self
        while link is not None:
            if not link.complete:
                return None
            links.append(link)
            link = link.parent
        return [item for each in reversed(links) for item in (*each.input_items, *each.output_items)]


class Store:
    """Stored responses of all connections, the least recently used go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._responses: OrderedDict[str, Remembered] = OrderedDict()

    def put(self, response: Remembered) -> None:
        """Keep it; it replaces one of the same id."""
        self._responses[response.id] = response
        self._responses.move_to_end(response.id)
        while len(self._responses) > self._limit:
            self._responses.popitem(last=False)

    def get(self, response_id: str) -> Remembered | None:
        """The response of that id; None when it is not stored."""
        found = self._responses.get(response_id)
        if found is not None:
            self._responses.move_to_end(response_id)
        return found

    def forget(self, response_id: str) -> bool:
        """Delete it; False when it was not there."""
        return self._responses.pop(response_id, None) is not None


class LaneMemory:
    """The latest response of each lane of one connection."""

    def __init__(self) -> None:
        self._latest: dict[str | None, Remembered] = {}

    def get(self, response_id: str) -> Remembered | None:
        """The response of that id, whichever lane has it as its latest; None on a miss."""
        for remembered in self._latest.values():
            if remembered.id == response_id:
                return remembered
        return None

    def put(self, lane: str | None, response: Remembered) -> None:
        """Make it the lane's latest; the one before is gone."""
        self._latest[lane] = response

    def evict(self, lane: str | None, response_id: str) -> None:
        """Forget that response if it is this lane's latest; another lane's is kept."""
        latest = self._latest.get(lane)
        if latest is not None and latest.id == response_id:
            del self._latest[lane]

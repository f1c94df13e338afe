"""What an attempt has brought so far: the facts that outlive its stream."""

from collections.abc import Sequence

from warmline_server.core.events import (
    Completed,
    Created,
    Emission,
    Incomplete,
    ItemAdded,
    ItemDone,
    RateLimits,
    ReasoningDelta,
    ReasoningSummaryDelta,
    TextDelta,
    ToolInputDelta,
    TurnStateSeen,
)
from warmline_server.core.items import is_client_call

# What the caller may have shown or acted on: after one of these a resend is no longer invisible.
_OUTPUT = frozenset({ItemAdded, ItemDone, TextDelta, ReasoningDelta, ReasoningSummaryDelta, ToolInputDelta})
_FOR_SESSION = frozenset({RateLimits, TurnStateSeen})


MAX_ITEMS = 16 * 1024
"""Finished items of one response; real ones have a few dozen at most."""


class Response:
    """Collects one attempt's response from its events, in order.

    `tells_session`: a batch had something in it that is for the session; whoever has passed it on takes that back.
    """

    def __init__(self, max_bytes: int) -> None:
        """Args: `max_bytes` that its finished items may have together."""
        self._max_bytes = max_bytes
        self.response_id = ""
        self.items: list[bytes] = []
        self._items_bytes = 0
        self.has_output = False
        self.client_call_finished = False
        self.tells_session = False
        self.terminal: Completed | Incomplete | None = None

    @property
    def is_too_large(self) -> bool:
        """Whether it has more items, or more bytes of them, than are kept."""
        return self._items_bytes > self._max_bytes or len(self.items) > MAX_ITEMS

    def take(self, emissions: Sequence[Emission]) -> int:
        """Notes what a batch says.

        Returns: how many of the emissions count: what follows the terminal event belongs to no response.
        """
        for index, emission in enumerate(emissions):
            event = emission.event
            kind = type(event)
            if kind in _OUTPUT:
                self.has_output = True
                if isinstance(event, ItemDone):
                    self.items.append(event.item)
                    self._items_bytes += len(event.item)
                    self.client_call_finished = self.client_call_finished or is_client_call(event.item)
            elif kind in _FOR_SESSION:
                self.tells_session = True
            elif isinstance(event, Created):
                self.response_id = event.response_id or self.response_id
            elif isinstance(event, Completed | Incomplete):
                self.response_id = event.response_id or self.response_id
                self.terminal = event
                return index + 1
        return len(emissions)

"""The seam between a call and the wire: one exchange is one upstream request and the response to it.

Both transports deliver the provider's events as JSON bytes, in batches: everything that has arrived when the caller
asks. What a batch means is decided in `core`.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from warmline_server.core.events import ModelEvent


@dataclass(frozen=True, slots=True)
class Head:
    """What the upstream said before the first event.

    `events` are made from headers, in the order of delivery; `upstream_request_id` is None where the transport has
    none per request (WebSocket); `turn_state` is the sticky-routing token, None when not told.
    """

    events: tuple[ModelEvent, ...] = ()
    upstream_request_id: str | None = None
    turn_state: str | None = None
    status: int | None = None


class Exchange(Protocol):
    """A request that was sent, and the response to it."""

    @property
    def head(self) -> Head:
        """What came before the first event."""

    def receive(self) -> Awaitable[Sequence[bytes]]:
        """Waits for events.

        Returns: all that have arrived, at least one, each the JSON of one event.
        Raises: UpstreamFailure when the stream ended or broke; events that came before it were returned before it.
        Cancel: safe, nothing is lost.
        """

    def fail(self, error: Exception) -> None:
        """Has the pending or next `receive` raise `error` once what arrived before it was returned (idle limits)."""

    def finish(self) -> None:
        """The terminal event came: the wire is free for another request, or given back."""

    def abandon(self) -> None:
        """Stops reading at once and drops the wire. Idempotent."""

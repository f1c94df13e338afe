"""A call's events on their way to its sink: what may wait goes with what comes next."""

from collections.abc import Awaitable, Sequence

from warmline_server.core.events import Emission, ItemDone, ModelEvent, ServiceEvent
from warmline_server.core.items import is_client_call
from warmline_server.session.call_spec import Sink


class Outbox:
    """Collects small news until something is sent.

    `kept` holds, where `keeps_items` is set, the sequence and JSON of each finished item that the model made and the
    caller need not act on: what a resend after output sends back (D-12).
    """

    def __init__(self, sink: Sink, *, keeps_items: bool) -> None:
        self.kept: list[tuple[int, bytes]] = []
        self._sink = sink
        self._keeps_items = keeps_items
        self._pending: list[Emission] = []

    @property
    def sequence(self) -> int:
        """The number of the last event that was written."""
        return self._sink.sequence

    def add(self, event: ModelEvent | ServiceEvent, attempt: int) -> None:
        """Puts an event before whatever is sent next."""
        self._pending.append(Emission(event, attempt))

    async def flush(self) -> None:
        """Sends what is pending. As `Sink.send`."""
        if self._pending:
            await self.send(())

    def send(self, emissions: Sequence[Emission]) -> Awaitable[None]:
        """Sends what is pending, then `emissions`, in one message; one of them there must be. As `Sink.send`."""
        if self._pending:
            emissions, self._pending = [*self._pending, *emissions], []
        if self._keeps_items:
            self._note_items(emissions)
        return self._sink.send(emissions)

    def _note_items(self, emissions: Sequence[Emission]) -> None:
        for sequence, emission in enumerate(emissions, start=self._sink.sequence + 1):
            if isinstance(emission.event, ItemDone) and not is_client_call(emission.event.item):
                self.kept.append((sequence, emission.event.item))

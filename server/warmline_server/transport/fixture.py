"""An upstream that is a file: plays recorded server-sent events, for tests of agents and for demonstrations."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from warmline_server.core import failures
from warmline_server.core.sse import SseDecoder
from warmline_server.transport.base import Head
from warmline_server.transport.http_exchange import CLOSED_EARLY

# A file's lines are read at once, so one event is bounded as the file is.
MAX_FILE_BYTES = 64 * 1024 * 1024


class FixtureExchange:
    """One play of the file, from its beginning."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.head = Head()
        self._payloads = payloads
        self._failure: Exception | None = None

    async def receive(self) -> Sequence[bytes]:
        """As `Exchange.receive`: all events at once, then the end of the stream."""
        if self._failure is not None:
            raise self._failure
        if not self._payloads:
            raise failures.stream_lost(CLOSED_EARLY)
        payloads, self._payloads = self._payloads, ()
        return payloads

    def fail(self, error: Exception) -> None:
        """As `Exchange.fail`."""
        self._failure = error

    def finish(self) -> None:
        """As `Exchange.finish`."""

    def abandon(self) -> None:
        """As `Exchange.abandon`."""


async def open_fixture(path: str) -> FixtureExchange:
    """Reads the file of server-sent events.

    Raises: UpstreamFailure when it cannot be read. Cancel: safe.
    """
    try:
        data = await asyncio.to_thread(_read, Path(path))
    except OSError as error:
        raise failures.connect_failed(f"fixture {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise failures.connect_failed(f"fixture {path} has more than {MAX_FILE_BYTES} bytes")
    decoder = SseDecoder(MAX_FILE_BYTES, MAX_FILE_BYTES)
    events = [*decoder.feed(data), *decoder.end()]
    return FixtureExchange([event for event in events if event != b"[DONE]"])


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)

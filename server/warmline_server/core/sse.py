"""Server-sent events out of bytes, however they are cut.

Source: the HTML standard, "interpreting an event stream"; `id` and `retry` are of no use here and skipped.
"""

from typing import NamedTuple

from warmline_server.core import failures
from warmline_server.core.errors import UpstreamFailure

_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """`data` is the event's lines joined by newlines, not checked for encoding; `event` is blank when not told."""

    data: bytes
    event: str = ""


class SseDecoder:
    """Decodes one stream in time linear in its bytes.

    `failure` is set, for good, when a limit was passed; what came before it was returned, what follows is ignored.
    """

    def __init__(self, max_line_bytes: int, max_event_bytes: int) -> None:
        """Args: limits of one line without its end, and of one event's data."""
        self.failure: UpstreamFailure | None = None
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._data: bytes | bytearray | None = None
        self._event = ""
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Takes the next bytes. Returns: the events that they complete, in order."""
        events: list[SseEvent] = []
        if self._after_cr and chunk:
            # The second half of a CR LF whose first half has ended the line already.
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk or self.failure is not None:
            return events
        self._after_cr = chunk.endswith(b"\r")
        # bytes.splitlines cuts at CR, LF and CR LF and nothing else: what the standard asks for.
        lines = chunk.splitlines()
        rest = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            if self._line:
                self._line += line
                line = bytes(self._line)
                self._line.clear()
            self._end_line(line, events)
            if self.failure is not None:
                return events
        self._line += rest
        if self._at_start and len(self._line) >= len(_BOM):
            self._at_start = False
            self._line = self._line.removeprefix(_BOM)
        self._check_line(len(self._line))
        return events

    def end(self) -> list[SseEvent]:
        """The stream is over.

        Returns: the event under way, if any. The standard drops it; here a proxy that swallows the last blank line
        shall not cost the response, and an event that was cut is no JSON and is skipped later on.
        """
        events: list[SseEvent] = []
        if self.failure is None and self._line:
            self._end_line(bytes(self._line), events)
            self._line.clear()
        if self.failure is None:
            self._dispatch(events)
        return events

    def _end_line(self, line: bytes, events: list[SseEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        self._check_line(len(line))
        if self.failure is not None:
            return
        # A line without a colon is a field without a value; one that starts with a colon is a comment.
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._take_data(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")

    def _take_data(self, value: bytes) -> None:
        if self._data is None:
            self._data = value
        else:
            # One buffer: a list of a hundred million empty lines would be eight times as large as their event.
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += b"\n" + value
        if len(self._data) > self._max_event_bytes:
            self._fail(f"SSE event of more than {self._max_event_bytes} bytes")

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data is not None:
            events.append(SseEvent(bytes(self._data), self._event))
            self._data = None
        self._event = ""

    def _check_line(self, line_bytes: int) -> None:
        if line_bytes > self._max_line_bytes:
            self._fail(f"SSE line of more than {self._max_line_bytes} bytes")

    def _fail(self, text: str) -> None:
        self.failure = failures.broke_protocol(text)
        self._line.clear()
        self._data = None

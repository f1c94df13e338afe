"""Server-sent events out of bytes, however they are cut.

Source: the HTML standard, "interpreting an event stream"; `event`, `id` and `retry` are of no use here and skipped.
"""

import re

from warmline_server.core import failures
from warmline_server.core.errors import UpstreamFailure

_BOM = b"\xef\xbb\xbf"
_BLANK_LINE = b"\n\n"
# An event as providers send it, whole and without a CR: taken at once. All others are read line by line. A set of bytes
# in place of the dots would cost ten times as much.
_PLAIN_EVENT = re.compile(rb"(?:event:.*+\n)?data: ?+(.*+)\n\n")


class SseDecoder:
    """Decodes one stream in time linear in its bytes. An event is its data: lines joined by newlines, in any encoding.

    `failure` is set, for good, when a limit was passed; what came before it was returned, what follows is ignored.
    """

    def __init__(self, max_line_bytes: int, max_event_bytes: int) -> None:
        """Args: limits of one line without its end, and of one event's data."""
        self.failure: UpstreamFailure | None = None
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._data: bytes | bytearray | None = None
        self._at_start = True
        self._after_cr = False
        self._plain_event_bytes = min(max_line_bytes, max_event_bytes)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Takes the next bytes. Returns: the events that they complete, in order."""
        events: list[bytes] = []
        at, have, has_cr = 0, len(chunk), b"\r" in chunk
        while at < have and self.failure is None:
            if self._data is None and not (has_cr or self._line or self._after_cr or self._at_start):
                while (plain := _PLAIN_EVENT.match(chunk, at)) and plain.end() - at <= self._plain_event_bytes:
                    events.append(plain[1])
                    at = plain.end()
                if at == have:
                    break
            blank = chunk.find(_BLANK_LINE, at)
            end = blank + len(_BLANK_LINE) if blank >= 0 else have
            self._feed_lines(chunk[at:end], events)
            at = end
        return events

    def _feed_lines(self, chunk: bytes, events: list[bytes]) -> None:
        if self._after_cr:
            # The second half of a CR LF whose first half has ended the line already.
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return
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
                return
        self._line += rest
        if self._at_start and len(self._line) >= len(_BOM):
            self._at_start = False
            self._line = self._line.removeprefix(_BOM)
        self._check_line(len(self._line))

    def end(self) -> list[bytes]:
        """The stream is over.

        Returns: the event under way, if any. The standard drops it; here a proxy that swallows the last blank line
        shall not cost the response, and an event that was cut is no JSON and is skipped later on.
        """
        events: list[bytes] = []
        if self.failure is None and self._line:
            self._end_line(bytes(self._line), events)
            self._line.clear()
        if self.failure is None:
            self._dispatch(events)
        return events

    def _end_line(self, line: bytes, events: list[bytes]) -> None:
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
        if name == b"data":
            self._take_data(value.removeprefix(b" "))

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

    def _dispatch(self, events: list[bytes]) -> None:
        if self._data is not None:
            events.append(bytes(self._data))
            self._data = None

    def _check_line(self, line_bytes: int) -> None:
        if line_bytes > self._max_line_bytes:
            self._fail(f"SSE line of more than {self._max_line_bytes} bytes")

    def _fail(self, text: str) -> None:
        self.failure = failures.broke_protocol(text)
        self._line.clear()
        self._data = None

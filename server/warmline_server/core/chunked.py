"""The content of a chunked HTTP body, taken out of what was read, however it is cut.

Only what every server sends is understood: sizes, content and line ends. From the first byte on that is anything else
(the last chunk, an extension, garbage) the body is left to a whole parser, to which it seems to begin there.
"""

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_PART_OF_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}\r?")
_LAST = re.compile(rb"0{1,16}\r\n")
_END = b"\r\n"


class ChunkReader:
    """Reads one body from its first byte.

    `rest` is what was not understood and all after it; None until then.
    """

    def __init__(self) -> None:
        self.rest: bytes | None = None
        self._unread = b""
        self._owed = 0
        self._end_is_due = False

    @property
    def is_at_last_chunk(self) -> bool:
        """Whether `rest` begins with the last chunk, so that the body ends with the next blank line."""
        return self.rest is not None and _LAST.match(self.rest) is not None

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes of the body; only while `rest` is None. Returns: the content in them."""
        if self._unread:
            data, self._unread = self._unread + data, b""
        parts: list[bytes] = []
        at, have = 0, len(data)
        while at < have:
            if self._owed:
                part = data[at : at + self._owed]
                parts.append(part)
                at += len(part)
                self._owed -= len(part)
            elif self._end_is_due:
                if not data.startswith(_END, at):
                    self._stop(data[at:])
                    break
                at += len(_END)
                self._end_is_due = False
            else:
                size = _SIZE.match(data, at)
                length = int(size[1], 16) if size is not None else 0
                if size is None or not length:
                    self._stop(data[at:])
                    break
                at = size.end()
                end = at + length
                if data.startswith(_END, end):  # nearly always it came whole
                    parts.append(data[at:end])
                    at = end + len(_END)
                else:
                    self._owed, self._end_is_due = length, True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def eof(self) -> None:
        """No more comes: what waits for its other half is left to the parser as well."""
        if self.rest is None:
            self.rest, self._unread = self._unread, b""

    def _stop(self, left: bytes) -> None:
        if left == b"\r" if self._end_is_due else _PART_OF_SIZE.fullmatch(left):
            self._unread = left
        elif self._end_is_due:
            # The parser knows nothing of the chunk before, and takes an empty line for no size of one.
            self.rest = _END + left
        else:
            self.rest = left

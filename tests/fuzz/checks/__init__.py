"""What must hold for any bytes, one function per reader: each takes bytes and raises when something does not hold.

The property tests beside this folder and the targets in `fuzz/targets` share them. Nothing here knows how the bytes
were made.
"""

from collections.abc import Iterator


class Take:
    """Takes small choices off the front of a case; what is left are the bytes themselves. Ends in zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """The next byte, 0 at the end."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def flag(self) -> bool:
        return bool(self.byte() & 1)

    def rest(self) -> bytes:
        """All that is left."""
        rest, self._at = self._data[self._at :], len(self._data)
        return rest


def cuts(data: bytes, seed: int) -> Iterator[bytes]:
    """The data in pieces whose sizes follow from `seed`: 0 byte by byte, others in 1 to 64 bytes."""
    at = 0
    while at < len(data):
        seed = (seed * 1_103_515_245 + 12_345) % 2**31 if seed else 0
        size = 1 + (seed >> 16) % 64 if seed else 1
        yield data[at : at + size]
        at += size

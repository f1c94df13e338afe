"""HTTP content codings, undone piece by piece so that a small body cannot become a large one at once.

`zstandard` is imported where it is first used: it takes 25 ms, and most upstreams never compress.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from warmline_server.core import failures

ACCEPTED = "gzip, deflate, zstd"

# What one step may inflate to. Deflate is told so; of zstd 4 bytes may be a block of 128 KiB, hence the short slices.
_PIECE_BYTES = 64 * 1024
_ZSTD_SLICE_BYTES = 64
# Encoders of bodies use up to 8 MiB (RFC 9659); a larger window would be memory for nothing.
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024

MAX_RATIO = 250
"""Bytes of content per byte that came, beyond the first MiB. Events full of the same text reach some thirty; what gets
here is made to cost us time."""

UNJUDGED_BYTES = 1024 * 1024
"""Up to here any ratio is fine."""


class ContentDecoder:
    """Undoes one body's coding. `is_identity`: there is none, and what comes is the content.

    Raises from `decode`: UpstreamFailure when the body is broken, its content passes `max_bytes`, or it inflates
    beyond `MAX_RATIO`; from the constructor: UpstreamFailure for a coding that was never accepted.
    """

    def __init__(self, coding: str, max_bytes: int) -> None:
        self._coding = coding.strip().lower()
        self._max_bytes = max_bytes
        self._decoded_bytes = 0
        self._received_bytes = 0
        make = _CODINGS.get(self._coding)
        if make is None:
            raise failures.broke_protocol(f"reply in a content coding that was not accepted (expected {ACCEPTED})")
        self.is_identity = make is _identity
        self._inflate = make()

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """The content of the next bytes, in pieces of bounded size."""
        self._received_bytes += len(chunk)
        try:
            for piece in self._inflate(chunk):
                self.count(piece)
                if is_bomb(self._received_bytes, self._decoded_bytes):
                    raise failures.broke_protocol(f"reply that inflates more than {MAX_RATIO} times")
                yield piece
        except _errors() as error:
            raise failures.broke_protocol(f"reply that is not the {self._coding} it claims to be") from error

    def count(self, content: bytes) -> None:
        """Notes content that needs no decoding: all that `decode` does where there is no coding."""
        self._decoded_bytes += len(content)
        if self._decoded_bytes > self._max_bytes:
            raise failures.broke_protocol(f"reply of more than {self._max_bytes} bytes")


def is_bomb(received_bytes: int, decoded_bytes: int) -> bool:
    """Whether so few bytes have become so many that nobody has a use for them."""
    return decoded_bytes > UNJUDGED_BYTES and decoded_bytes - UNJUDGED_BYTES > received_bytes * MAX_RATIO


def compress(body: bytes) -> bytes:
    """`body` in zstd."""
    import zstandard

    return zstandard.ZstdCompressor().compress(body)


_Inflate = Callable[[bytes], Iterator[bytes]]


class _Stream(Protocol):
    """zlib's decompression object, which has no name of its own."""

    @property
    def eof(self) -> bool: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _errors() -> tuple[type[Exception], ...]:
    import zstandard

    return (zlib.error, zstandard.ZstdError)


def _identity() -> _Inflate:
    return lambda chunk: iter((chunk,) if chunk else ())


def _gzip() -> _Inflate:
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    return lambda chunk: _inflate(stream, chunk)


def _deflate() -> _Inflate:
    """With the zlib header that the standard asks for, or without it, as some servers send it."""
    head = bytearray()
    stream: list[_Stream] = []

    def inflate(chunk: bytes) -> Iterator[bytes]:
        if not stream:
            head.extend(chunk)
            if len(head) < 2:
                return
            # RFC 1950: method 8, and the two bytes a multiple of 31.
            has_header = head[0] & 0x0F == 8 and (head[0] * 256 + head[1]) % 31 == 0
            stream.append(zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS))
            chunk = bytes(head)
        yield from _inflate(stream[0], chunk)

    return inflate


def _inflate(stream: _Stream, chunk: bytes) -> Iterator[bytes]:
    rest, full = chunk, True
    # A full piece may have left more behind, even where no input is left.
    while (rest or full) and not stream.eof:
        piece = stream.decompress(rest, _PIECE_BYTES)
        rest, full = stream.unconsumed_tail, len(piece) == _PIECE_BYTES
        if piece:
            yield piece


def _zstd() -> _Inflate:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    stream = decompressor.decompressobj(read_across_frames=True)

    def inflate(chunk: bytes) -> Iterator[bytes]:
        for start in range(0, len(chunk), _ZSTD_SLICE_BYTES):
            if piece := stream.decompress(chunk[start : start + _ZSTD_SLICE_BYTES]):
                yield piece

    return inflate


_CODINGS: dict[str, Callable[[], _Inflate]] = {
    "": _identity,
    "identity": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}

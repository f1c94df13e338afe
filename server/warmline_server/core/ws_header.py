"""Where a WebSocket frame lies in what was read. Source: RFC 6455 §5.2."""

_WHOLE_TEXT = 0x81
_MASKED = 0x80


def is_plain(data: bytes, at: int) -> bool:
    """Whether the frame at `at`, whose header is all there, is a whole text message, neither compressed nor masked."""
    return data[at] == _WHOLE_TEXT and data[at + 1] < _MASKED


def frame_at(data: bytes, at: int) -> tuple[int, int] | None:
    """The frame whose header starts at `at`.

    Returns: where its payload begins and ends, which may be beyond `data`; None where the header is not all there. What
        a header may not say (a mask, a reserved bit) is for whoever reads the frame.
    """
    have = len(data) - at
    if have < 2:
        return None
    length, start = data[at + 1] & 0x7F, at + 2
    if length >= 126:
        size = 2 if length == 126 else 8
        if have < 2 + size:
            return None
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    return start, start + length

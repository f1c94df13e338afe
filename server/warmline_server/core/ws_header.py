"""Where a WebSocket frame lies in what was read. Source: RFC 6455 §5.2."""

# The first byte of a whole text message that is not compressed: FIN, no reserved bit, opcode 1.
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
    start = at + 2
    if start > len(data):
        return None
    length = data[at + 1] & 0x7F
    if length == 126:
        if start + 2 > len(data):
            return None
        return start + 2, start + 2 + (data[start] << 8 | data[start + 1])
    if length == 127:
        if start + 8 > len(data):
            return None
        return start + 8, start + 8 + int.from_bytes(data[start : start + 8], "big")
    return start, start + length

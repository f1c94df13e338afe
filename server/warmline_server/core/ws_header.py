"""Where a WebSocket frame lies in what was read. Sources: RFC 6455 §5.2, RFC 7692 §6."""

# First bytes of whole text messages: FIN, opcode 1, and the first reserved bit where it is compressed.
PLAIN_TEXT = 0x81
COMPRESSED_TEXT = 0xC1
MASKED = -1


def frame_at(data: bytes, at: int) -> tuple[int, int, int] | None:
    """The frame whose header starts at `at`.

    Returns: its first byte, and where its payload begins and ends, which may be beyond `data`; None where the header is
        not all there. Of a masked frame, which no server may send, `MASKED` and its first two bytes. What else a header
        may not say (a reserved bit, an opcode) is for whoever reads the frame.
    """
    start = at + 2
    if start > len(data):
        return None
    length = data[at + 1]
    if length < 126:
        return data[at], start, start + length
    if length == 126:
        if start + 2 > len(data):
            return None
        return data[at], start + 2, start + 2 + (data[start] << 8 | data[start + 1])
    if length == 127:
        if start + 8 > len(data):
            return None
        return data[at], start + 8, start + 8 + int.from_bytes(data[start : start + 8], "big")
    return MASKED, start, start

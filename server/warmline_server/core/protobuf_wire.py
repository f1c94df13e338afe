"""The parts of protobuf's encoding, for the messages that are put together by hand."""

VARINT, FIXED64, LENGTH = 0, 1, 2
_SMALL = tuple(bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80, n >> 7]) for n in range(1 << 14))


def varint(value: int) -> bytes:
    """A base-128 number. Args: `value` is not negative."""
    try:
        return _SMALL[value]
    except IndexError:
        return bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def tag(field: int, wire_type: int) -> bytes:
    """What stands before a field's value. Args: `field` is its number."""
    return varint(field << 3 | wire_type)


def sized(content: bytes) -> bytes:
    """A message, text or bytes behind its length."""
    return varint(len(content)) + content

"""Bytes as foreign programs send them, right or wrong, for the seeds of the targets and for the property tests."""

import struct
import zlib


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A server's WebSocket frame, without any check."""
    head = bytes([fin << 7 | rsv1 << 6 | opcode])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    return head + (struct.pack("!BH", 126, size) if size < 65536 else struct.pack("!BQ", 127, size)) + payload


def deflated(*texts: bytes) -> list[bytes]:
    """Payloads of messages compressed one after the other, as permessage-deflate has them."""
    encoder = zlib.compressobj(wbits=-12)
    return [(encoder.compress(text) + encoder.flush(zlib.Z_SYNC_FLUSH))[:-4] for text in texts]


def sse(*payloads: bytes) -> bytes:
    """A stream of server-sent events."""
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)

"""Server-sent events: the first byte is the cut, the second the limit."""

from fuzz.checks.streams import check_sse
from fuzz.make import sse

CHECK = check_sse


def seeds() -> list[bytes]:
    return [
        b"\x01\xff" + sse(b'{"type":"response.created"}', b"[DONE]"),
        b"\x02\x10" + b"event: x\r\ndata: a\r\ndata:b\r\n\r\n: c\r\rid: 7\rdata\r\r",
        b"\x03\x00" + b"\xef\xbb\xbfdata: a\n\ndata: " + b"x" * 40 + b"\n\n",
    ]

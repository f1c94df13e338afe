"""A WebSocket's peer: the first byte says whether it compresses (1), each message by itself (8), garbles its handshake
(2) and stops reading (4); the second is the cut."""

from fuzz.checks.streams import check_websocket
from fuzz.make import deflated, frame

CHECK = check_websocket


def seeds() -> list[bytes]:
    first, second = deflated(b'{"type":"response.created"}' * 10, b"x" * 3000)
    plain = frame(1, b"plain")
    whole, again = frame(1, first, rsv1=True), frame(1, second, rsv1=True)
    bomb = deflated(*[bytes(90_000)] * 40)
    return [
        b"\x00\x01" + frame(1, b'{"a":1}') + frame(1, b"x", fin=False) + frame(9, b"p") + frame(0, b"y"),
        b"\x00\x00" + frame(1, b"a" * 126) + frame(8, b"\x03\xe8bye"),
        b"\x00\x01" + frame(2, b"x") + frame(1, b"y"),
        b"\x00\x01" + frame(1, b"z" * 70_000) + frame(3, b""),
        b"\x00\x01" + frame(1, b"", fin=False) + frame(0, b"", fin=False) * 200,
        b"\x01\x01" + frame(1, first, rsv1=True) + frame(1, second, rsv1=True),
        b"\x01\x01" + frame(1, first[:10], fin=False, rsv1=True) + frame(0, first[10:]),
        b"\x01\x01"
        + whole
        + plain
        + frame(1, second[:5], fin=False, rsv1=True)
        + frame(9, b"p")
        + frame(0, second[5:]),
        b"\x01\x01" + whole + frame(9, b"p", rsv1=True) + again,
        b"\x01\x01" + plain + frame(1, b"\xff" * 9, rsv1=True) + plain,
        b"\x01\x01" + plain + frame(1, deflated(b"0" * 100_001)[0], rsv1=True) + plain,
        b"\x09\x01" + whole * 2 + plain + whole + again,
        b"\x00\x01" + plain + whole + plain,
        b"\x01\x01" + b"".join(frame(1, piece, rsv1=True) for piece in bomb),
        b"\x04\x01" + frame(9, b"p" * 125) * 80 + frame(1, b"z"),
        b"\x02\x01HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\nRetry-After: 3\r\n\r\nno",
        b"\x02\x01HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        b"\x02\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]

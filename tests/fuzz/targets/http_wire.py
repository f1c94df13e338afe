"""A reply's bytes: the first says whether its head is there already, the second is the cut."""

from fuzz.checks.http_wire import GOOD_HEAD, check_http_wire

CHECK = check_http_wire


def seeds() -> list[bytes]:
    return [
        b"\x00\x05" + b"3\r\nabc\r\n1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n",
        b"\x00\x05" + b"3\r\nabc\r\n0\r\nTrailer: a\r\n\r\nmore",
        b"\x00\x05" + b"3;ext=1\r\nabc\r\n2 \r\nde\r\n0\r\n\r\n",
        b"\x00\x05" + b"3\r\nabcX\n0\r\n\r\n",
        b"\x00\x05" + b"3\r\nabc1\r\na\r\n0\r\n\r\n",
        b"\x00\x05" + b"fff\r\n" + b"y" * 50,
        b"\x01\x05" + b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD_HEAD + b"1\r\na\r\n0\r\n\r\n",
        b"\x01\x05" + GOOD_HEAD.replace(b"\r\n", b"\n") + b"1\r\na\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n",
        b"\x01\x05" + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\n\n\r\nb",
        b"\x01\x05" + b"HTTP/1.0 200 OK\r\n\r\nto the end\r\n\r\n",
    ]

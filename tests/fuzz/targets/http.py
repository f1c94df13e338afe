"""The reply to a POST: the first byte is its status, the second its content coding, the third the cut."""

import gzip

import zstandard

from fuzz.checks.streams import check_http
from fuzz.make import sse

CHECK = check_http


def seeds() -> list[bytes]:
    stream = sse(b'{"type":"response.created"}', b'{"type":"response.completed","response":{"id":"r"}}', b"[DONE]")
    refusal = b'{"error":{"code":"rate_limit_exceeded","message":"try again in 3s"}}'
    return [
        b"\x00\x00\x05" + stream,
        b"\x01\x01\x05" + gzip.compress(stream, mtime=0),
        b"\x02\x03\x05" + zstandard.compress(stream * 30),
        b"\x00\x01\x05" + gzip.compress(bytes(3_000_000), mtime=0),
        b"\x03\x00\x05" + refusal,
        b"\x04\x01\x05" + gzip.compress(refusal, mtime=0),
        b"\x00\x00\x05" + b"data: " + b"x" * 600,
    ]

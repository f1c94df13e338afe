"""Content codings: the first byte is the coding, the second the cut."""

import gzip
import zlib

import zstandard

from fuzz.checks.streams import check_content_coding

CHECK = check_content_coding


def seeds() -> list[bytes]:
    content = b'data: {"type":"response.output_text.delta","delta":"hello"}\n\n' * 20
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bodies = [
        content,
        gzip.compress(content, mtime=0),
        zlib.compress(content),
        zstandard.ZstdCompressor().compress(content),
    ]
    bombs = [gzip.compress(bytes(2_000_000), mtime=0), zlib.compress(bytes(99_999)), zstandard.compress(bytes(200_000))]
    return [
        *(bytes([coding, 7]) + body for coding, body in enumerate(bodies)),
        *(bytes([coding, 7]) + body for coding, body in enumerate(bombs, start=1)),
        b"\x02\x07" + bare.compress(content) + bare.flush(),
        b"\x03\x07" + bodies[3] * 2 + b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip",
    ]

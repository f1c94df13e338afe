"""How deep foreign JSON is nested, and how deep it may be.

Every decoder recurses, and at some depth it raises: which one, depends on the interpreter and on the caller's own
stack, so that what one has read another may not. One limit far below holds for all that is kept or passed on.
"""

from itertools import accumulate

MAX_DEPTH = 128
"""Arrays and objects within each other. Source: the limit of serde_json, which the reference client reads with."""

BUNDLE_DEPTH = MAX_DEPTH + 8
"""For the files of a bundle, which wrap items and requests in objects of their own."""

# What each byte outside of strings does to the depth.
_STEPS = tuple((byte in b"[{") - (byte in b"]}") for byte in range(256))
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[{]}")
_SLICE_BYTES = 16 * 1024


def is_too_deep(payload: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether JSON is nested deeper than `limit`. Linear in the bytes, and next to nothing for short or flat ones.

    Of bytes that are no JSON it may say either: a decoder refuses them anyhow.
    """
    if len(payload) <= 2 * limit or payload.count(b"[") + payload.count(b"{") <= limit:
        return False
    # A backslash stands in strings only; without escapes every quote that is left begins or ends one.
    plain = payload.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in payload else payload
    brackets = b"".join(plain.split(b'"')[::2]).translate(None, _NO_BRACKETS)
    depth = 0
    for start in range(0, len(brackets), _SLICE_BYTES):
        piece = brackets[start : start + _SLICE_BYTES]
        if depth + max(accumulate(map(_STEPS.__getitem__, piece))) > limit:
            return True
        depth += 2 * (piece.count(b"[") + piece.count(b"{")) - len(piece)
    return False

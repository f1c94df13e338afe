"""From received bytes to a JSON object: content decoding with a limit on the decoded size, then JSON. Pure."""

from __future__ import annotations

import io
import zlib
from typing import Any

import msgspec
import zstandard

from warmline_simulator.refusal import Refusal


def decode(data: bytes, encodings: str, limit_bytes: int) -> bytes | Refusal:
    """Undo the content encodings of a body.

    Args:
        encodings: the Content-Encoding header: names separated by commas, last applied last.
        limit_bytes: a larger result is refused with 413.
    Returns:
        The plain body, or a refusal: 415 for an unknown encoding, 400 for data that does not decode.
    """
    for name in reversed([each.strip().lower() for each in encodings.split(",") if each.strip()]):
        if name == "identity":
            continue
        decoder = _DECODERS.get(name)
        if decoder is None:
            return Refusal(415, "unsupported_encoding", f"Unsupported content encoding: '{name[:40]}'.")
        try:
            data = decoder(data, limit_bytes + 1)
        except (zlib.error, zstandard.ZstdError):
            return Refusal(400, "invalid_encoding", f"The request body is not valid {name}.")
        if len(data) > limit_bytes:
            return Refusal(413, "request_too_large", f"The decoded request body exceeds {limit_bytes} bytes.")
    return data


def read_object(data: bytes) -> dict[str, Any] | Refusal:
    """The JSON object of a message; a refusal when it is not one."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Refusal(400, None, "We could not parse the JSON body of your request.")
    return body if isinstance(body, dict) else Refusal(400, None, "Expected a JSON object.")


def _unzstd(data: bytes, limit_bytes: int) -> bytes:
    source = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    return source.read(limit_bytes)


def _gunzip(data: bytes, limit_bytes: int) -> bytes:
    return _inflate(data, limit_bytes, zlib.MAX_WBITS | 16)


def _inflate_zlib(data: bytes, limit_bytes: int) -> bytes:
    return _inflate(data, limit_bytes, zlib.MAX_WBITS)


def _inflate(data: bytes, limit_bytes: int, window_bits: int) -> bytes:
    decoder = zlib.decompressobj(window_bits)
    plain = decoder.decompress(data, limit_bytes)
    if not decoder.eof and len(plain) < limit_bytes:
        raise zlib.error("truncated")
    return plain


_DECODERS = {"zstd": _unzstd, "gzip": _gunzip, "x-gzip": _gunzip, "deflate": _inflate_zlib}

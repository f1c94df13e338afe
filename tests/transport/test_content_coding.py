"""Content codings."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core.errors import Reason, UpstreamFailure
from warmline_server.transport.content_coding import MAX_RATIO, ContentDecoder, compress


def deflate_without_header(content: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(content) + encoder.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    " X-GZip ": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": deflate_without_header,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("coding", ENCODERS)
@given(content=st.binary(max_size=300), size=st.integers(1, 50))
def test_content_comes_out_as_it_went_in_however_it_is_cut(coding: str, content: bytes, size: int) -> None:
    encoded = ENCODERS[coding](content)
    decoder = ContentDecoder(coding, 1000)

    pieces = [p for i in range(0, len(encoded), size) for p in decoder.decode(encoded[i : i + size])]

    assert b"".join(pieces) == content


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_large_content_comes_in_pieces_of_bounded_size(coding: str) -> None:
    content = b"".join(random.Random(seed).randbytes(400) + bytes(60_000) for seed in range(330))
    decoder = ContentDecoder(coding, len(content))

    sizes = [len(piece) for piece in decoder.decode(ENCODERS[coding](content))]

    assert sum(sizes) == len(content)
    assert max(sizes) <= 2 * 1024 * 1024


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_content_that_inflates_beyond_reason_is_refused_without_inflating_the_rest(coding: str) -> None:
    decoder = ContentDecoder(coding, 1_000_000_000)
    inflated: list[bytes] = []

    with pytest.raises(UpstreamFailure, match=f"inflates more than {MAX_RATIO} times"):
        inflated.extend(decoder.decode(ENCODERS[coding](bytes(20_000_000))))

    # The encoders shrink zeros a thousandfold, so a quarter of the content is more than may come.
    assert sum(map(len, inflated)) < 10_000_000


@pytest.mark.parametrize("coding", ENCODERS)
def test_content_beyond_its_limit_is_refused_without_inflating_the_rest(coding: str) -> None:
    decoder = ContentDecoder(coding, 100_000)
    inflated: list[bytes] = []

    with pytest.raises(UpstreamFailure) as caught:
        inflated.extend(decoder.decode(ENCODERS[coding](bytes(20_000_000))))

    assert (caught.value.reason, caught.value.text) == (Reason.UPSTREAM_PROTOCOL, "reply of more than 100000 bytes")
    assert sum(len(piece) for piece in inflated) <= 100_000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_content_that_is_not_what_it_claims_is_refused(coding: str) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        list(ContentDecoder(coding, 1000).decode(b"data: plain text that was never encoded\n\n"))

    assert caught.value.text == f"reply that is not the {coding} it claims to be"


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "\u0130"])
def test_coding_that_was_not_accepted_is_refused(coding: str) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        ContentDecoder(coding, 1000)

    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


def test_zstd_gives_what_was_flushed_at_once() -> None:
    encoder, decoder = zstandard.ZstdCompressor().compressobj(), ContentDecoder("zstd", 1000)

    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        part = encoder.compress(event) + encoder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        assert b"".join(decoder.decode(part)) == event


def test_compress_makes_zstd() -> None:
    assert zstandard.ZstdDecompressor().decompress(compress(b"body" * 100)) == b"body" * 100

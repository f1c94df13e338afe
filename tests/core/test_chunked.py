"""Chunked bodies, however they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core.chunked import ChunkReader


def read(*pieces: bytes) -> tuple[bytes, bytes | None]:
    """The content, and what is left to a whole parser."""
    reader, content, left = ChunkReader(), b"", iter(pieces)
    for piece in left:
        content += reader.feed(piece)
        if reader.rest is not None:
            break
    else:
        reader.eof()
    assert reader.rest is not None
    return content, reader.rest + b"".join(left)


@pytest.mark.parametrize(
    ("body", "content", "rest"),
    [
        (b"3\r\nabc\r\n", b"abc", b""),
        (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde", b"0\r\n\r\n"),
        (b"00C\r\n0123456789ab\r\n000\r\nA: b\r\n\r\nmore", b"0123456789ab", b"000\r\nA: b\r\n\r\nmore"),
        (b"4\r\n\r\n\r\n\r\n1\r\na\r\n", b"\r\n\r\na", b""),
        (b"5\r\nab", b"ab", b""),
        (b"3\r\nabc", b"abc", b""),
        (b"1\r\na\r\n3", b"a", b"3"),
        (b"1\r\na\r\n3\r", b"a", b"3\r"),
        (b"1;x=y\r\na\r\n", b"", b"1;x=y\r\na\r\n"),
        (b"1\r\na\r\n1 \r\nb\r\n", b"a", b"1 \r\nb\r\n"),
        (b"-1\r\na\r\n", b"", b"-1\r\na\r\n"),
        (b"1\na\r\n", b"", b"1\na\r\n"),
        (b"12345678901234567\r\n", b"", b"12345678901234567\r\n"),
        # What stands where the end of a chunk should be is nothing that a parser would take for a chunk.
        (b"1\r\na1\r\nb\r\n", b"a", b"\r\n1\r\nb\r\n"),
        (b"1\r\na\rb", b"a", b"\r\n\rb"),
    ],
)
def test_content_and_the_rest_are_the_same_whole_and_byte_by_byte(body: bytes, content: bytes, rest: bytes) -> None:
    assert read(body) == (content, rest)
    assert read(*(body[i : i + 1] for i in range(len(body)))) == (content, rest)


def test_content_is_told_before_its_chunk_is_whole() -> None:
    reader = ChunkReader()

    assert reader.feed(b"5\r\nab") == b"ab"
    assert reader.feed(b"c") == b"c"
    assert reader.feed(b"de\r") == b"de"
    assert reader.feed(b"\n1\r\nf") == b"f"
    assert reader.rest is None


@pytest.mark.parametrize(
    ("rest", "is_last"), [(b"0\r\n\r\n", True), (b"00\r\n", True), (b"0;x\r\n", False), (b"x", False)]
)
def test_last_chunk_is_told_from_what_is_not_understood(rest: bytes, is_last: bool) -> None:
    reader = ChunkReader()
    reader.feed(b"1\r\na\r\n" + rest)

    assert (reader.rest, reader.is_at_last_chunk) == (rest, is_last)


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.lists(st.integers(0, 300)))
def test_any_chunking_and_any_cutting_gives_the_content(parts: list[bytes], cuts: list[int]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]

    assert read(*(body[start:stop] for start, stop in itertools.pairwise(edges))) == (b"".join(parts), b"0\r\n\r\n")

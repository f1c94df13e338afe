"""Server-sent events, however they are cut."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core.errors import Heal, Reason
from warmline_server.core.sse import SseDecoder


def decode(*chunks: bytes, max_line_bytes: int = 1000, max_event_bytes: int = 1000) -> list[bytes]:
    decoder = SseDecoder(max_line_bytes, max_event_bytes)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.end()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\r", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"event: response.created\ndata: {}\n\n", [b"{}"]),
        (b"event:x\n\ndata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
        (b"data: a\rdata: b\r\r", [b"a\nb"]),
        (b"\n\ndata: a\rdata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"data\ndata\n\n", [b"\n"]),
        (b": keep-alive\n\n", []),
        (b":\n:\ndata: a\n: in between\ndata: b\n\n", [b"a\nb"]),
        (b"id: 7\nretry: 10\nother: x\nDATA: no\ndata : no\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\n\xef\xbb\xbfdata: a\n\n", []),
        (b"data: \xe2\x80\xa8\x0b\x0c\x1c\x85\n\n", [b"\xe2\x80\xa8\x0b\x0c\x1c\x85"]),
        (b"\n\n\n", []),
        (b"", []),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: cut\n", [b"cut"]),
        (b"data: cu", [b"cu"]),
        (b"event: cut", []),
    ],
)
def test_stream_gives_its_events_whole_and_byte_by_byte(stream: bytes, events: list[bytes]) -> None:
    assert decode(stream) == events
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == events


STREAMS = st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data: b\r\n",
            b"data",
            b"event",
            b":",
            b" ",
            b"\n",
            b"\r",
            b"\r\n",
            b"a",
            b"\xef\xbb\xbf",
            b"\xff",
            b"{}",
        ]
    )
).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 60)), st.integers(3, 12), st.integers(1, 8))
def test_any_cutting_gives_the_same_events_and_the_same_failure(
    stream: bytes, cuts: list[int], max_line_bytes: int, max_event_bytes: int
) -> None:
    whole = SseDecoder(max_line_bytes, max_event_bytes)
    expected = whole.feed(stream) + whole.end()
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    chunks = [stream[start:stop] for start, stop in itertools.pairwise(edges)]

    decoder = SseDecoder(max_line_bytes, max_event_bytes)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    events += decoder.end()

    assert events == expected
    assert str(decoder.failure) == str(whole.failure)


@given(st.lists(st.binary(max_size=20).filter(lambda data: b"\n" not in data and b"\r" not in data), max_size=5))
def test_data_lines_come_out_as_they_went_in(lines: list[bytes]) -> None:
    stream = b"".join(b"data: " + line + b"\r\n" for line in lines) + b"\r\n"

    assert decode(stream) == ([b"\n".join(lines)] if lines else [])


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"data: 1\n\n" + b"x" * 21 + b"\ndata: 2\n\n", "SSE line of more than 20 bytes"),
        (b"data: 1\n\n:" + b"x" * 20, "SSE line of more than 20 bytes"),
        (b"data: 1\n\n" + b"data: 4567\n" * 3 + b"\ndata: 2\n\n", "SSE event of more than 10 bytes"),
    ],
    ids=["line", "comment without end", "event"],
)
def test_limit_that_is_passed_ends_the_stream_after_what_came_before(stream: bytes, text: str) -> None:
    decoder = SseDecoder(max_line_bytes=20, max_event_bytes=10)

    events = decoder.feed(stream) + decoder.feed(b"data: 3\n\n") + decoder.feed(b"\ndata: 4\n\n") + decoder.end()

    assert events == [b"1"]
    assert decoder.failure is not None
    assert (decoder.failure.reason, decoder.failure.heal) == (Reason.UPSTREAM_PROTOCOL, Heal.RESEND)
    assert decoder.failure.text == text


def test_line_without_an_end_is_refused_as_soon_as_it_is_too_long() -> None:
    decoder = SseDecoder(max_line_bytes=20, max_event_bytes=10)

    decoder.feed(b"x" * 20)
    assert decoder.failure is None
    decoder.feed(b"x")
    assert decoder.failure is not None


@pytest.mark.parametrize("stream", [b"data: 12345678901\n\n", b"event: 12345678901234\ndata: 1\n\n"])
def test_large_event_in_one_piece_is_refused(stream: bytes) -> None:
    decoder = SseDecoder(max_line_bytes=20, max_event_bytes=10)

    assert decoder.feed(b"data: 1\n\n") == [b"1"]
    assert decoder.feed(stream) == []
    assert decoder.failure is not None


def test_limits_themselves_are_allowed() -> None:
    line, event = b"data:" + b"x" * 15, b"x" * 15

    assert decode(line + b"\r\n\r\n", max_line_bytes=20, max_event_bytes=15) == [event]
    assert decode(*(line[i : i + 1] for i in range(20)), max_line_bytes=20, max_event_bytes=15) == [event]
    assert decode(b"data:1\ndata:2\n\n", max_line_bytes=20, max_event_bytes=3) == [b"1\n2"]


def test_one_byte_chunks_take_linear_time() -> None:
    def cpu_s(length: int) -> float:
        decoder = SseDecoder(length + 10, length + 10)
        started_s = time.process_time()
        for _ in range(length):
            decoder.feed(b"x")
        return time.process_time() - started_s

    cpu_s(1000)
    shorter_s, longer_s = min(cpu_s(20_000) for _ in range(3)), min(cpu_s(200_000) for _ in range(2))

    # Ten times the bytes; copying what has come for every byte would make it a hundred times the time.
    assert longer_s < 40 * shorter_s

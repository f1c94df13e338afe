"""What foreign bytes may cost: memory within a bound, and work that grows as the bytes do. Counted, never timed."""

import asyncio
import gc
import gzip
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable
from types import FrameType
from typing import Any

import pytest
import zstandard
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame

from fuzz.checks import streams
from fuzz.make import deflated, frame, sse
from manual_clock import ManualClock
from warmline_server.core import lenient, nesting
from warmline_server.core.errors import Reason, UpstreamFailure
from warmline_server.core.frames import FrameReader
from warmline_server.core.sse import SseDecoder
from warmline_server.transport import websocket, websocket_line
from warmline_server.transport.content_coding import ContentDecoder
from warmline_server.transport.http_exchange import EVENT_COST_BYTES, HttpExchange, HttpLimits

MIB = 1024 * 1024


async def peak_bytes(work: Awaitable[object]) -> int:
    """The most memory that Python held at once while `work` ran, beyond what it held before."""
    gc.collect()
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# A reader that does not read


async def unread_reply(coding: str, chunks: Iterable[bytes]) -> None:
    """A reply that comes as fast as it is taken, to a caller who takes nothing."""
    exchange = HttpExchange(ManualClock(), HttpLimits(max_event_bytes=MIB // 4))
    task = asyncio.create_task(exchange.run(streams.replying(200, {"content-encoding": coding}, chunks)))
    exchange.started(task)
    await exchange.opened()
    while exchange.is_reading and not task.done():  # noqa: ASYNC110  each pass lets the exchange take a chunk
        await asyncio.sleep(0)
    assert len(exchange._events) <= 256 * 1024 // EVENT_COST_BYTES + 2000
    exchange.abandon()
    await asyncio.wait([task])


def repeated(chunk: bytes, times: int) -> Iterable[bytes]:
    return (chunk for _ in range(times))


# What zeros become is the costliest content of all; events full of them are real events.
BOMB = sse(b"0" * 100_000) * 100
HTTP_FLOODS: list[tuple[str, str, Iterable[bytes]]] = [
    ("tiny events", "", repeated(sse(b"12") * 2000, 20)),
    ("gzip bomb", "gzip", [gzip.compress(BOMB, mtime=0)]),
    ("zstd bomb", "zstd", [zstandard.compress(BOMB)]),
    ("line without an end", "", repeated(b"data: " + b"x" * 60_000, 500)),
    ("event without an end", "", repeated(b"data\n" * 2000, 2000)),
]


@pytest.mark.parametrize(("coding", "chunks"), [f[1:] for f in HTTP_FLOODS], ids=[f[0] for f in HTTP_FLOODS])
async def test_reply_that_nobody_reads_is_held_within_bounds(coding: str, chunks: Iterable[bytes]) -> None:
    assert await peak_bytes(unread_reply(coding, chunks)) < 3 * MIB


async def unread_socket(pieces: Iterable[bytes], *, compression: str, reads: bool = True) -> str:
    """A peer that sends all the time, to an exchange that takes nothing. Returns: why the line was cut, if it was."""
    line, wire = streams.make_line(compression)
    shaking = asyncio.ensure_future(line.handshake())
    await asyncio.sleep(0)
    line.data_received(streams.answer(bytes(wire.written), compression))
    await shaking
    socket = websocket.WebSocket(line, "connection-1", ManualClock())
    wire.written.clear()
    wire.reads = reads
    await socket.send(b"{}", 1.0)
    for piece in pieces:
        if wire.is_closing() or line._reading_paused:
            break
        line.data_received(piece)
        assert len(line._frames) <= websocket_line.READ_AHEAD_BYTES // websocket_line.MESSAGE_COST_BYTES + 2000
    told = line._failure.text if line._failure is not None else ""
    socket.drop("over")
    wire.end()
    await asyncio.sleep(0)
    return told


def compressed_messages() -> list[bytes]:
    return [b"".join(frame(1, payload, rsv1=True) for payload in deflated(*[b"0" * 90_000] * 500))]


SOCKET_FLOODS: list[tuple[str, str, Callable[[], Iterable[bytes]]]] = [
    ("empty messages", streams.NO_COMPRESSION, lambda: repeated(frame(1, b"") * 2000, 20)),
    ("tiny messages", streams.NO_COMPRESSION, lambda: repeated(frame(1, b"12") * 2000, 20)),
    (
        "empty fragments",
        streams.NO_COMPRESSION,
        lambda: [frame(1, b"", fin=False), *repeated(frame(0, b"", fin=False) * 8000, 20)],
    ),
    ("deflate bomb", streams.DEFLATE, compressed_messages),
    ("pings", streams.NO_COMPRESSION, lambda: repeated(frame(9, b"p" * 125) * 500, 500)),
]


@pytest.mark.parametrize(("compression", "pieces"), [f[1:] for f in SOCKET_FLOODS], ids=[f[0] for f in SOCKET_FLOODS])
async def test_socket_that_nobody_reads_is_held_within_bounds(
    compression: str, pieces: Callable[[], Iterable[bytes]]
) -> None:
    made = pieces()
    assert await peak_bytes(unread_socket(made, compression=compression, reads=False)) < 3 * MIB


# Caps that end the line


async def test_message_in_too_many_frames_ends_the_line() -> None:
    pieces = [frame(1, b"", fin=False), *repeated(frame(0, b"", fin=False) * 1000, 20)]

    assert (
        await unread_socket(pieces, compression=streams.NO_COMPRESSION) == "websocket message in more than 16384 frames"
    )


async def test_message_in_as_many_frames_as_allowed_is_read() -> None:
    stream = frame(1, b"{", fin=False) + frame(0, b"", fin=False) * (websocket_line.MAX_FRAGMENTS - 2) + frame(0, b"}")

    assert (await streams.play([stream], streams.NO_COMPRESSION, False, True))[0] == [b"{}"]


async def test_pings_whose_answers_are_not_read_end_the_line() -> None:
    told = await unread_socket(repeated(frame(9, b"p" * 125), 2000), compression=streams.NO_COMPRESSION, reads=False)

    assert told == "more than 64 pings without reading their answers"


async def test_pings_whose_answers_are_read_are_answered_for_ever() -> None:
    assert await unread_socket(repeated(frame(9, b"p" * 125), 2000), compression=streams.NO_COMPRESSION) == ""


async def test_stream_that_inflates_beyond_reason_ends_the_line() -> None:
    messages = [frame(1, payload, rsv1=True) for payload in deflated(*[b"0" * 90_000] * 40)]
    got, told = await streams.play(messages, streams.DEFLATE, False, True)

    assert told == "websocket stream that inflates more than 250 times"
    assert 10 < len(got) < 40


async def test_nothing_is_inflated_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = 0
    decode = PerMessageDeflate.decode

    def counted(deflate: PerMessageDeflate, frame: Frame, *, max_size: int | None = None) -> Frame:
        nonlocal inflated
        inflated += 1
        return decode(deflate, frame, max_size=max_size)

    monkeypatch.setattr(PerMessageDeflate, "decode", counted)
    stream = b"".join(frame(1, payload, rsv1=True) for payload in deflated(*[b"0" * 90_000] * 40))
    got, _ = await streams.play([stream], streams.DEFLATE, False, True)

    assert inflated == len(got) + 1 < 40


async def test_message_beyond_its_size_is_refused_however_it_comes() -> None:
    too_large = streams.MAX_MESSAGE_BYTES + 1
    half = b"x" * (too_large // 2 + 1)
    [small] = deflated(b"0" * too_large)
    for compression, stream in (
        (streams.NO_COMPRESSION, frame(1, b"x" * too_large)),
        (streams.NO_COMPRESSION, frame(1, half, fin=False) + frame(0, half)),
        (streams.DEFLATE, frame(1, small, rsv1=True)),
        (streams.DEFLATE_EACH, frame(1, small, rsv1=True)),
    ):
        got, told = await streams.play([stream], compression, False, True)
        assert (got, told) == ([], "bad websocket frame (PayloadTooBig)")


async def test_what_comes_with_a_failure_in_one_read_is_not_delivered() -> None:
    stream = frame(1, b"1") + frame(2, b"x") + frame(1, b"2")

    assert await streams.play([stream], streams.NO_COMPRESSION, False, True) == (
        [b"1"],
        "unexpected binary websocket event",
    )


# Work


def work(run: Callable[[], object]) -> int:
    """Lines of the server that ran."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        if event == "call":
            return trace if "warmline_server" in frame.f_code.co_filename else None
        if event == "line":
            lines += 1
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(former)
    return lines


def feed_sse(size: int) -> None:
    decoder = SseDecoder(MIB, MIB)
    stream = (b"data: a\ndata\n: c\r\n\r\n" * size)[: 20 * size] + b"data: " + b"x" * size
    for at in range(0, len(stream), 7):
        decoder.feed(stream[at : at + 7])
    decoder.end()


def read_events(size: int) -> None:
    reader = FrameReader()
    deep = b'{"type":"response.x","a":[' + b"[[[]]]," * size + b"1]}"
    for payload in (deep, b'{"type":"response.output_text.delta","delta":"' + b"\\ud83d\\n" * size + b'"}'):
        reader.read(payload, 1, [], with_payload=True)


def inflate(size: int) -> None:
    body = gzip.compress(bytes(range(256)) * size, mtime=0)
    decoder = ContentDecoder("gzip", 1000 * MIB)
    for at in range(0, len(body), 3):
        list(decoder.decode(body[at : at + 3]))


def feed_socket(size: int) -> None:
    stream = (frame(1, b"a", fin=False) + frame(0, b"b") + frame(9, b"")) * size
    streams.run(
        streams.play((stream[at : at + 5] for at in range(0, len(stream), 5)), streams.NO_COMPRESSION, False, True)
    )


@pytest.mark.parametrize("run", [feed_sse, read_events, inflate, feed_socket])
def test_work_grows_as_the_bytes_do(run: Callable[[int], None]) -> None:
    run(1)  # what happens once happens here
    small, large = work(lambda: run(200)), work(lambda: run(1600))

    assert large <= 8.5 * small + 200


@pytest.mark.parametrize(
    "content", [b"[" * MIB, b"[]," * MIB, b'"",' * MIB, b"\\" * MIB, b'["' * MIB, rb"\ud83d" * MIB]
)
def test_depth_and_halves_are_found_in_few_steps(content: bytes) -> None:
    assert work(lambda: nesting.is_too_deep(content)) < 10 * (len(content) // nesting._SLICE_BYTES + 2)
    assert work(lambda: lenient.mend(content)) < 20 + 8 * lenient.MAX_HALVES


def test_refusal_of_a_bomb_names_the_protocol() -> None:
    with pytest.raises(UpstreamFailure) as caught:
        list(ContentDecoder("zstd", 1000 * MIB).decode(zstandard.compress(bytes(50 * MIB))))

    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL

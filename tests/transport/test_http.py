"""HTTP exchanges and unary calls against raw servers."""

import asyncio
import gzip
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard

from transport.http_kit import ManualClock, Peer, RawServer, raw_server, soon, wait_until
from warmline_server.core.errors import Heal, Reason, UpstreamFailure, UpstreamWords
from warmline_server.core.events import ModelsEtag, RateLimits, RateLimitWindow, ReasoningIncluded, ServerModel
from warmline_server.transport.http import HttpReply, HttpTransport
from warmline_server.transport.http_exchange import DRAIN_S, ERROR_BODY_S, HttpExchange, HttpLimits
from warmline_simulator.tls import make_certificate, server_context

HEADERS = [("Accept", "text/event-stream"), ("Authorization", "Bearer k")]
LIMITS = HttpLimits(read_ahead_bytes=100_000, max_event_bytes=50_000, max_reply_bytes=10_000)
CONNECT_TIMEOUT_S = 15.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as served:
        yield served


@pytest.fixture
async def http(clock: ManualClock) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(clock, proxy=None, limits=LIMITS)
    yield transport
    await soon(transport.close())


def opening(
    http: HttpTransport, url: str, body: bytes = b"{}", *, compress: bool = False
) -> asyncio.Task[HttpExchange]:
    return asyncio.create_task(http.open(url, HEADERS, body, compress=compress, connect_timeout_s=CONNECT_TIMEOUT_S))


async def open_stream(http: HttpTransport, server: RawServer, *headers: str) -> tuple[HttpExchange, Peer]:
    """An exchange whose head has come, and its server's side."""
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send_head("200 OK", *headers)
    return await soon(task), peer


def event(name: str) -> bytes:
    return b"event: x\ndata: " + json.dumps({"type": name}).encode() + b"\n\n"


async def refused(http: HttpTransport, server: RawServer, reply: bytes) -> UpstreamFailure:
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send(reply)
    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)
    return caught.value


def whole(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_open_sends_what_it_was_given_and_little_else(http: HttpTransport, server: RawServer) -> None:
    task = opening(http, server.url + "?api-version=1", b'{"model":"m"}')
    peer = await server.take_request()
    task.cancel()

    assert peer.requests[0].line == "POST /v1/responses?api-version=1 HTTP/1.1"
    assert peer.requests[0].body == b'{"model":"m"}'
    assert peer.requests[0].headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "text/event-stream",
        "authorization": "Bearer k",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "13",
    }


@pytest.mark.conformance("C-044")
@pytest.mark.parametrize("size", [10, 300_000], ids=["on the loop", "beside it"])
async def test_body_is_sent_as_zstd_when_asked(http: HttpTransport, server: RawServer, size: int) -> None:
    body = b"x" * size
    task = opening(http, server.url, body, compress=True)
    peer = await server.take_request()
    task.cancel()

    assert peer.requests[0].headers["content-encoding"] == "zstd"
    assert zstandard.ZstdDecompressor().decompress(peer.requests[0].body) == body


@pytest.mark.conformance("C-072")
async def test_head_tells_the_events_of_its_headers_and_both_ids(http: HttpTransport, server: RawServer) -> None:
    exchange, _ = await open_stream(
        http,
        server,
        "X-Reasoning-Included: true",
        "X-Models-Etag: etag-1",
        "X-Codex-Primary-Used-Percent: 12.5",
        "OpenAI-Model: m-1",
        "X-Request-Id: req_1",
        "X-Codex-Turn-State: ts-1",
    )

    assert exchange.head.events == (
        ServerModel("m-1"),
        RateLimits("codex", primary=RateLimitWindow(12.5)),
        ModelsEtag("etag-1"),
        ReasoningIncluded(),
    )
    assert (exchange.head.upstream_request_id, exchange.head.turn_state, exchange.head.status) == ("req_1", "ts-1", 200)


async def test_receive_returns_all_that_has_arrived_without_done(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    first = asyncio.create_task(exchange.receive())
    peer.send_chunk(event("a")[:7])
    peer.send_chunk(event("a")[7:] + event("b") + b": ping\n\n" + b"data: [DONE]\n\ndata:\n\n")

    assert await soon(first) == [b'{"type": "a"}', b'{"type": "b"}']


@pytest.mark.conformance("C-073")
async def test_finish_needs_no_end_of_the_body_and_gives_the_connection_up_after_a_while(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("response.completed"))
    assert await soon(exchange.receive()) == [b'{"type": "response.completed"}']

    exchange.finish()
    clock.advance(DRAIN_S)

    await peer.wait_disconnected()


async def test_finished_exchange_gives_its_connection_back_when_the_body_ends(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("response.completed"))
    await soon(exchange.receive())
    exchange.finish()
    peer.send_chunk(b": trailer\n\n")
    peer.send_chunk(b"")
    await wait_until(lambda: clock.armed == 0)

    second = opening(http, server.url)
    await soon(peer.read_request())
    second.cancel()

    assert (len(server.peers), len(peer.requests)) == (1, 2)


async def test_finished_exchange_drops_a_connection_that_goes_on_talking(
    http: HttpTransport, server: RawServer
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("response.completed"))
    await soon(exchange.receive())

    exchange.finish()
    peer.send_chunk(b"x" * 200_000)

    await peer.wait_disconnected()


@pytest.mark.conformance("C-074")
@pytest.mark.parametrize("ending", ["whole", "cut", "reset"])
async def test_end_before_the_terminal_event_is_a_lost_stream_after_what_came_before(
    http: HttpTransport, server: RawServer, ending: str
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a"))
    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    match ending:
        case "whole":
            peer.send_chunk(b'data: {"type":"b"}')
            peer.send_chunk(b"")
            assert await soon(exchange.receive()) == [b'{"type":"b"}']
        case "cut":
            peer.writer.write_eof()
        case "reset":
            linger_off = (1).to_bytes(4, sys.byteorder) + bytes(4)
            peer.writer.get_extra_info("socket").setsockopt(1, 13, linger_off)
            peer.writer.transport.abort()

    with pytest.raises(UpstreamFailure) as caught:
        await soon(exchange.receive())

    assert (caught.value.reason, caught.value.heal) == (Reason.UPSTREAM_STREAM_LOST, Heal.RESEND)
    expected = "stream broke before response.completed: Connection reset by peer"
    assert caught.value.text == (expected if ending == "reset" else "stream closed before response.completed")


async def test_abandon_cuts_the_connection_at_once(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    waiting = asyncio.create_task(exchange.receive())

    exchange.abandon()
    exchange.abandon()

    await peer.wait_disconnected()
    with pytest.raises(UpstreamFailure):
        await soon(waiting)


async def test_abandon_cuts_a_connection_whose_reading_is_paused(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    for _ in range(200):
        peer.send_chunk(b"data: " + b"x" * 10_000 + b"\n\n")
    await wait_until(lambda: not exchange.is_reading)

    exchange.abandon()

    await peer.wait_disconnected()


async def test_reading_pauses_while_the_caller_is_slow_and_loses_nothing(
    http: HttpTransport, server: RawServer
) -> None:
    exchange, peer = await open_stream(http, server)
    count = 2000
    for number in range(count):
        peer.send_chunk(b"data: " + str(number).encode().ljust(10_000) + b"\n\n")
    peer.send_chunk(b"")
    await wait_until(lambda: not exchange.is_reading)
    for _ in range(5000):  # turns of the loop, many more than it takes to read all
        await asyncio.sleep(0)
    unsent_bytes = peer.writer.transport.get_write_buffer_size()

    batches: list[list[bytes]] = []
    while sum(map(len, batches)) < count:
        batches.append([*await soon(exchange.receive())])

    assert unsent_bytes > 5_000_000
    assert max(sum(map(len, batch)) for batch in batches) <= LIMITS.read_ahead_bytes + 65_536 + 10_000
    assert [int(payload) for batch in batches for payload in batch] == list(range(count))


async def test_cancelled_receive_loses_nothing(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    peer.send_chunk(event("a"))

    assert await soon(exchange.receive()) == [b'{"type": "a"}']


async def test_fail_wakes_a_waiting_receive(http: HttpTransport, server: RawServer) -> None:
    exchange, _ = await open_stream(http, server)
    waiting = asyncio.create_task(exchange.receive())
    await asyncio.sleep(0)
    error = TimeoutError("idle")

    exchange.fail(error)

    with pytest.raises(TimeoutError) as caught:
        await soon(waiting)
    assert caught.value is error


async def test_fail_comes_after_the_events_that_arrived_before(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a"))
    await wait_until(lambda: exchange.has_events)

    exchange.fail(TimeoutError("idle"))

    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    with pytest.raises(TimeoutError):
        await soon(exchange.receive())


@pytest.mark.conformance("C-089")
async def test_status_becomes_its_failure_with_words_and_id(http: HttpTransport, server: RawServer) -> None:
    body = b'{"error":{"code":"rate_limit_exceeded","message":"slow"}}'

    failure = await refused(
        http,
        server,
        whole("429 Too Many", body, "X-Request-Id: req_9", "Retry-After: Mon, 01 Jan 2024 00:00:30 GMT"),
    )

    assert (failure.reason, failure.delay_s, failure.handshake) == (Reason.UPSTREAM_RATE_LIMITED, 30.0, False)
    assert failure.upstream_request_id == "req_9"
    assert failure.words == UpstreamWords(429, code="rate_limit_exceeded", message="slow")


async def test_error_body_is_decoded(http: HttpTransport, server: RawServer) -> None:
    body = gzip.compress(b'{"error":{"message":"packed"}}')

    failure = await refused(http, server, whole("400 Bad", body, "Content-Encoding: gzip"))

    assert failure.words == UpstreamWords(400, message="packed")


async def test_endless_error_body_is_read_up_to_its_limit_and_cut(http: HttpTransport, server: RawServer) -> None:
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send_head("500 Oops", content_type="text/plain")
    for _ in range(100):
        peer.send_chunk(b"x" * 10_000)

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)

    assert caught.value.words is not None
    assert caught.value.words.message == "x" * 2048
    await peer.wait_disconnected()


async def test_error_body_that_does_not_come_is_not_waited_for(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send_head("500 Oops", content_type="text/plain")
    peer.send_chunk(b"so far")
    await wait_until(lambda: clock.armed == 1)
    await peer.writer.drain()
    clock.advance(ERROR_BODY_S)

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)

    assert caught.value.reason is Reason.UPSTREAM_FAILED


async def test_redirect_is_not_followed(http: HttpTransport, server: RawServer) -> None:
    failure = await refused(http, server, whole("307 Temporary", b"", f"Location: {server.url}/elsewhere"))

    assert (failure.reason, failure.heal) == (Reason.UPSTREAM_PROTOCOL, Heal.NEVER)
    assert [len(peer.requests) for peer in server.peers] == [1]


async def test_reply_of_another_content_type_is_named_and_cut(http: HttpTransport, server: RawServer) -> None:
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send_head("200 OK", "X-Request-Id: req_2", content_type="text/html; charset=utf-8")

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)

    assert (caught.value.reason, caught.value.upstream_request_id) == (Reason.UPSTREAM_PROTOCOL, "req_2")
    assert caught.value.text == "reply of content type text/html, expected text/event-stream"
    await peer.wait_disconnected()


async def test_encoded_stream_is_decoded(http: HttpTransport, server: RawServer) -> None:
    exchange, peer = await open_stream(http, server, "Content-Encoding: gzip")
    peer.send_chunk(gzip.compress(event("a")))

    assert await soon(exchange.receive()) == [b'{"type": "a"}']


async def test_stream_in_an_unknown_coding_is_refused(http: HttpTransport, server: RawServer) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        await open_stream(http, server, "Content-Encoding: br")

    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


async def test_event_beyond_its_limit_ends_the_stream_after_what_came_before(
    http: HttpTransport, server: RawServer
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a") + b"data: " + b"x" * 60_000)

    assert await soon(exchange.receive()) == [b'{"type": "a"}']
    with pytest.raises(UpstreamFailure) as caught:
        await soon(exchange.receive())

    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL
    await peer.wait_disconnected()


@pytest.mark.conformance("C-039")
async def test_refused_connect_is_unreachable_and_says_why(http: HttpTransport) -> None:
    async with raw_server() as gone:
        url = gone.url

    with pytest.raises(UpstreamFailure) as caught:
        await soon(opening(http, url))

    assert (caught.value.reason, caught.value.heal) == (Reason.UPSTREAM_UNREACHABLE, Heal.RESEND)
    assert caught.value.text == "connect to upstream failed: Connection refused"


async def test_name_that_does_not_resolve_is_unreachable_and_says_so(http: HttpTransport) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        await soon(opening(http, "http://a..b/"))

    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_connect_limit_covers_the_tls_handshake(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    task = opening(http, server.url.replace("http:", "https:"))
    peer = await server.accept()
    await soon(peer.reader.readexactly(5))
    clock.advance(CONNECT_TIMEOUT_S)

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)

    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert caught.value.text == "connect to upstream failed: no answer within 15.0 s"
    await peer.wait_disconnected()


async def test_connect_limit_does_not_bound_the_wait_for_the_head(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    task = opening(http, server.url)
    peer = await server.take_request()
    clock.advance(100 * CONNECT_TIMEOUT_S)
    peer.send_head()

    assert (await soon(task)).head.status == 200


async def test_cancelled_open_cuts_the_connection(http: HttpTransport, server: RawServer) -> None:
    task = opening(http, server.url)
    peer = await server.take_request()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    await peer.wait_disconnected()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", Reason.UPSTREAM_STREAM_LOST),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Reason.UPSTREAM_PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, Reason.UPSTREAM_PROTOCOL),
    ],
    ids=["nothing", "another protocol", "endless headers"],
)
async def test_reply_without_a_head_has_its_reason(
    http: HttpTransport, server: RawServer, reply: bytes, reason: Reason
) -> None:
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send(reply)
    if not reply:
        peer.writer.close()

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)

    assert (caught.value.reason, caught.value.heal) == (reason, Heal.RESEND)


async def test_certificate_decides_with_the_trust_that_was_given(clock: ManualClock, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    trusting = HttpTransport(clock, proxy=None, tls=ssl.create_default_context(cafile=certificate))
    wary = HttpTransport(clock, proxy=None)
    async with raw_server(server_context(certificate, key)) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(UpstreamFailure) as caught:
            await soon(opening(wary, url))
        task = opening(trusting, url)
        (await server.take_request()).send_head()
        exchange = await soon(task)
        await trusting.close()
        await wary.close()

    assert exchange.head.status == 200
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert caught.value.text.startswith("connect to upstream failed: TLS certificate not accepted: ")


@pytest.mark.parametrize("via", ["environment", "setting"])
async def test_proxy_gets_the_request(
    clock: ManualClock, server: RawServer, via: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy_url = f"http://127.0.0.1:{server.port}"
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy_url if via == "environment" else "http://127.0.0.1:9")
    http = HttpTransport(clock, proxy=True if via == "environment" else proxy_url)

    task = opening(http, "http://upstream.test/v1/responses")
    peer = await server.take_request()
    await soon(http.close())

    assert peer.requests[0].line == "POST http://upstream.test/v1/responses HTTP/1.1"
    with pytest.raises(UpstreamFailure):
        await soon(task)


@pytest.mark.parametrize("answers", [True, False])
async def test_connect_limit_covers_the_proxy(clock: ManualClock, server: RawServer, answers: bool) -> None:
    http = HttpTransport(clock, proxy=f"http://127.0.0.1:{server.port}")
    task = opening(http, "https://upstream.test/v1/responses")
    peer = await server.take_request()
    if answers:
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    else:
        clock.advance(CONNECT_TIMEOUT_S)

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)
    await soon(http.close())

    assert peer.requests[0].line == "CONNECT upstream.test:443 HTTP/1.1"
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_connection_that_the_server_closed_meanwhile_is_not_used_again(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("a"))
    await soon(exchange.receive())
    exchange.finish()
    peer.send_chunk(b"")
    await wait_until(lambda: clock.armed == 0)
    peer.writer.close()
    await peer.writer.wait_closed()

    _, second = await open_stream(http, server)

    assert second.number == 2


async def test_close_ends_what_runs_and_leaves_no_task(clock: ManualClock, server: RawServer) -> None:
    before = asyncio.all_tasks()
    http = HttpTransport(clock, proxy=None)
    exchange, peer = await open_stream(http, server)
    waiting = asyncio.create_task(exchange.receive())
    calling = asyncio.create_task(http.get(server.url, [], connect_timeout_s=1, timeout_s=9))
    await server.take_request()

    await soon(http.close())

    for task in (waiting, calling):
        with pytest.raises((UpstreamFailure, asyncio.CancelledError)):
            await soon(task)
    await peer.wait_disconnected()
    await wait_until(lambda: asyncio.all_tasks() <= before)
    assert clock.armed == 0


LOADING = """
import asyncio, sys
from warmline_server.clock import SystemClock
from warmline_server.transport.http import HttpTransport

async def main():
    http = HttpTransport(SystemClock())
    heavy = {"httpx", "zstandard", "anyio._backends._asyncio"}
    assert not heavy & set(sys.modules)
    await http.warm()
    assert heavy <= set(sys.modules)
    await http.close()

asyncio.run(main())
"""


def test_heavy_imports_wait_for_warm() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


async def test_post_json_returns_the_whole_reply(http: HttpTransport, server: RawServer) -> None:
    task = asyncio.create_task(http.post_json(server.url, HEADERS, b"[1]", connect_timeout_s=1, timeout_s=60))
    peer = await server.take_request()
    peer.send(whole("200 OK", zstandard.compress(b'{"output":[]}'), "Content-Encoding: zstd", "X-A: 1", "X-A: 2"))

    reply = await soon(task)

    assert (reply.status, reply.body, reply.headers["x-a"]) == (200, b'{"output":[]}', "1")
    assert (peer.requests[0].line, peer.requests[0].body) == ("POST /v1/responses HTTP/1.1", b"[1]")
    assert peer.requests[0].headers["accept-encoding"] == "gzip, deflate, zstd"


async def test_get_takes_not_modified_for_a_reply(http: HttpTransport, server: RawServer) -> None:
    headers = [("If-None-Match", "e")]
    task = asyncio.create_task(http.get(server.url, headers, connect_timeout_s=1, timeout_s=60))
    peer = await server.take_request()
    peer.send(whole("304 Not Modified", b"", "ETag: e"))

    assert await soon(task) == HttpReply(304, {"content-length": "0", "etag": "e"}, b"")
    assert peer.requests[0].line == "GET /v1/responses HTTP/1.1"
    assert "content-type" not in peer.requests[0].headers


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (whole("404 Not Found", b'{"error":{"code":"model_not_found"}}'), Reason.UPSTREAM_NOT_FOUND),
        (whole("302 Found", b"", "Location: /elsewhere"), Reason.UPSTREAM_PROTOCOL),
        (whole("200 OK", b"x" * 10_001), Reason.UPSTREAM_PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", Reason.UPSTREAM_STREAM_LOST),
    ],
    ids=["status", "redirect", "too large", "cut"],
)
async def test_unary_call_fails_with_its_reason(
    http: HttpTransport, server: RawServer, reply: bytes, reason: Reason
) -> None:
    task = asyncio.create_task(http.get(server.url, [], connect_timeout_s=1, timeout_s=60))
    peer = await server.take_request()
    peer.send(reply)
    peer.writer.write_eof()

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)

    assert caught.value.reason is reason


async def test_unary_call_has_one_limit_for_all_of_it(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    task = asyncio.create_task(http.get(server.url, [], connect_timeout_s=1, timeout_s=60))
    peer = await server.take_request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    clock.advance(60)

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)

    assert caught.value.text == "no whole reply from upstream within 60.0 s"
    await peer.wait_disconnected()


async def test_cancelled_unary_call_cuts_the_connection(http: HttpTransport, server: RawServer) -> None:
    task = asyncio.create_task(http.get(server.url, [], connect_timeout_s=1, timeout_s=60))
    peer = await server.take_request()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    await peer.wait_disconnected()

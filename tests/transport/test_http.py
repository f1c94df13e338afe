"""Opening HTTP exchanges: heads, refusals, connects, proxies, trust."""

import asyncio
import gzip
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from manual_clock import ManualClock
from transport.http_kit import (
    CONNECT_TIMEOUT_S,
    RawServer,
    finished_stream,
    open_stream,
    opening,
    raw_server,
    refused,
    soon,
    wait_until,
    whole,
)
from warmline_server.core.errors import Heal, Reason, UpstreamFailure, UpstreamWords
from warmline_server.transport.http import HttpTransport, _ConnectLimit
from warmline_server.transport.http_exchange import ERROR_BODY_S
from warmline_simulator.tls import make_certificate, server_context


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
    await wait_until(lambda: bool(clock.pending_at_s))
    await peer.writer.drain()
    await clock.advance(ERROR_BODY_S)

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


async def test_stream_in_an_unknown_coding_is_refused(http: HttpTransport, server: RawServer) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        await open_stream(http, server, "Content-Encoding: br")

    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


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
    await clock.advance(CONNECT_TIMEOUT_S)

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
    await clock.advance(100 * CONNECT_TIMEOUT_S)
    peer.send_head()

    assert (await soon(task)).head.status == 200


async def test_open_that_is_cancelled_between_connect_and_request_leaves_no_connection_in_the_pool(
    http: HttpTransport, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, trace = list[str](), _ConnectLimit.trace

    async def trace_and_cancel(limit: _ConnectLimit, event: str, info: Mapping[str, object]) -> None:
        told.append(event)
        await trace(limit, event, info)
        if event == "connection.connect_tcp.complete":
            call.cancel()  # the call hears of it next, and abandons the request, which is at its first lock then

    await http.warm()
    with monkeypatch.context() as patch:
        patch.setattr(_ConnectLimit, "trace", trace_and_cancel)
        call = opening(http, server.url)
        await asyncio.wait([call])
        await wait_until(lambda: not http._tasks)
    client = await http._client()
    pool: Any = client._transport_for_url(httpx.URL(server.url))._pool  # type: ignore[attr-defined]

    assert told[-1] == "connection.connect_tcp.complete", "the request itself was never begun"
    assert all(connection.is_closed() for connection in pool.connections)


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
        await clock.advance(CONNECT_TIMEOUT_S)

    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)
    await soon(http.close())

    assert peer.requests[0].line == "CONNECT upstream.test:443 HTTP/1.1"
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_connection_that_the_server_closed_meanwhile_is_not_used_again(
    http: HttpTransport, server: RawServer, clock: ManualClock
) -> None:
    peer = await finished_stream(http, server)
    peer.send_chunk(b"")
    await wait_until(lambda: not clock.pending_at_s)
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
        with pytest.raises(UpstreamFailure):
            await soon(task)
    await peer.wait_disconnected()
    await wait_until(lambda: asyncio.all_tasks() <= before)
    assert not clock.pending_at_s


LOADING = """
import asyncio, sys
from warmline_server.clock import SystemClock
from warmline_server.transport.http import HttpTransport, _ConnectLimit

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

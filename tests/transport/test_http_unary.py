"""Unary HTTP calls."""

import asyncio

import pytest
import zstandard

from manual_clock import ManualClock
from transport.http_kit import (
    HEADERS,
    RawServer,
    soon,
    whole,
)
from warmline_server.core.errors import Reason, UpstreamFailure
from warmline_server.transport.http import HttpReply, HttpTransport


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
    await clock.advance(60)

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

"""HTTP exchanges against the simulator, read into events."""

import json
from collections.abc import AsyncIterator

import pytest

from transport.http_kit import soon
from warmline_server.clock import SystemClock
from warmline_server.core.errors import Heal, Reason
from warmline_server.core.events import Completed, Created, Emission, ItemDone, TextDelta
from warmline_server.core.frames import FrameReader
from warmline_server.core.outgoing import http_url
from warmline_server.transport.http import HttpTransport
from warmline_server.transport.http_exchange import HttpExchange
from warmline_simulator import Hang, Reply, Script, Simulator, ev

BODY = json.dumps(
    {"model": "m", "stream": True, "input": [{"type": "message", "role": "user", "content": "hello"}]}
).encode()


@pytest.fixture
async def http() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(SystemClock(), proxy=None)
    yield transport
    await soon(transport.close())


async def open_post(http: HttpTransport, simulator: Simulator, *, compress: bool = False) -> HttpExchange:
    url = http_url(simulator.base_url, "responses", {})
    headers = [("Accept", "text/event-stream"), ("Authorization", "Bearer k")]
    return await soon(http.open(url, headers, BODY, compress=compress, connect_timeout_s=5))


async def read_to_the_end(exchange: HttpExchange) -> list[Emission]:
    reader, out = FrameReader(), list[Emission]()
    while not (out and isinstance(out[-1].event, Completed)):
        for payload in await soon(exchange.receive()):
            assert reader.read(payload, 1, out, with_payload=False) is None
    exchange.finish()
    assert reader.skipped == 0
    return out


@pytest.mark.conformance("C-072")
@pytest.mark.conformance("C-073")
@pytest.mark.parametrize("compress", [False, True])
async def test_response_is_read_to_its_completion_with_both_ids(http: HttpTransport, compress: bool) -> None:
    script = Script(posts=[Reply(events=ev.text_response("one two", response_id="resp-1"))], rest="refuse")
    async with Simulator(script) as simulator:
        exchange = await open_post(http, simulator, compress=compress)
        out = await read_to_the_end(exchange)

    events = [emission.event for emission in out]
    assert events[0] == Created("resp-1")
    assert "".join(event.delta for event in events if isinstance(event, TextDelta)) == "one two"
    assert sum(isinstance(event, ItemDone) for event in events) == 1
    assert isinstance(events[-1], Completed)
    assert events[-1].response_id == "resp-1"
    assert exchange.head.upstream_request_id == simulator.posts()[0].request_id


async def test_abandoned_response_is_aborted_at_the_upstream(http: HttpTransport) -> None:
    script = Script(posts=[Reply(events=[ev.created(), Hang()])], rest="refuse")
    async with Simulator(script) as simulator:
        exchange = await open_post(http, simulator)
        await soon(exchange.receive())
        exchange.abandon()

        await soon(simulator.wait_for_aborts(1))


@pytest.mark.conformance("C-075")
async def test_failed_response_is_told_at_once_without_waiting_for_the_end(http: HttpTransport) -> None:
    """D-1: the reference keeps it to itself until the stream ends, and an idle limit hides it."""
    script = Script(posts=[Reply(events=[ev.created(), ev.failed("invalid_prompt", "no"), Hang()])], rest="refuse")
    async with Simulator(script) as simulator:
        exchange = await open_post(http, simulator)
        reader, out = FrameReader(), list[Emission]()
        failure = None
        while failure is None:
            for payload in await soon(exchange.receive()):
                failure = failure or reader.read(payload, 1, out, with_payload=False)
        exchange.abandon()

    assert (failure.reason, failure.heal) == (Reason.UPSTREAM_REJECTED, Heal.NEVER)

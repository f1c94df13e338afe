"""A real OpenTelemetry Collector between the server and a backend: what it exports is what the turns were.

It is built through the Go module proxy by scripts/build_collector.sh and kept between runs. Without Go the test is
skipped and says so; with CI set it must run.
"""

import asyncio
import os
import re
import shutil
import socket
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import warmline
from e2e.line import MODEL, hear, session_config, settings_for
from observe.collectors import Received, collector
from warmline_server.app import App
from warmline_server.settings import Telemetry
from warmline_simulator import Connection, Hang, Nothing, Reply, Script, Simulator, ev

ROOT = Path(__file__).parents[2]
BUILD_LIMIT_S = 600
CHAT = f"chat {MODEL}"

pytestmark = [
    pytest.mark.timeout(BUILD_LIMIT_S + 60),
    pytest.mark.skipif(
        shutil.which("go") is None and not os.environ.get("CI"),
        reason="no Go: the real Collector cannot be built here",
    ),
]


async def _built() -> Path:
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "scripts/build_collector.sh"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(BUILD_LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    return ROOT / out.decode().strip()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def _running_collector(binary: Path, backend: str) -> AsyncIterator[str]:
    """The Collector with the deployed configuration, until the block ends. Gives its endpoint."""
    port, health = _free_port(), _free_port()
    environ = os.environ | {
        "WARMLINE_COLLECTOR_LISTEN": f"127.0.0.1:{port}",
        "WARMLINE_COLLECTOR_HEALTH": f"127.0.0.1:{health}",
        "WARMLINE_COLLECTOR_UPSTREAM": backend.removeprefix("http://"),
        "WARMLINE_COLLECTOR_BATCH_TIMEOUT": "50ms",
    }
    process = await asyncio.create_subprocess_exec(
        str(binary),
        f"--config={ROOT / 'deploy/collector/config.yaml'}",
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            await _ready(process.stderr)
        assert await asyncio.to_thread(_healthy, f"http://127.0.0.1:{health}/")
        drain = asyncio.create_task(process.stderr.read())
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        async with asyncio.timeout(20):
            await process.wait()
            await drain
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _healthy(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as response:
        return bool(response.status == 200)


async def _ready(log: asyncio.StreamReader) -> None:
    """Reads the log up to the word that everything runs."""
    text = ""
    while "Everything is ready" not in text:
        line = (await log.readline()).decode()
        assert line, f"the Collector ended: {text[-2000:]}"
        text += line


def _script() -> Script:
    answer = ev.message("half", id="msg-1")
    return Script(
        connections=[
            Connection(replies=[Reply(events=ev.text_response("hi", response_id="resp-ok"))]),
            Connection(status=403),
        ],
        posts=[
            Reply(events=[ev.created("resp-half"), ev.item_added(answer), ev.item_done(answer), Nothing()]),
            Reply(status=400),
            Reply(events=[ev.created("resp-gone")], then=Hang(), response_id="resp-gone"),
        ],
    )


async def _turns_of_every_outcome(client: warmline.Client) -> None:
    """Completed on a warmed socket; a refused handshake; failed after output, refused, and cancelled, over HTTP."""
    async with client.session("warm", session_config(retries=0), model=MODEL) as session:
        await session.preconnect(wait=True)
        await hear(session.turn("hello", turn_id="completed"))
    config = session_config(warm_up="none", retries=0)
    async with client.session("cold", config, model=MODEL) as session:
        await hear(session.turn("hello", turn_id="handshake"))
    config = session_config(fallback_policy={"http_only": True}, retries=0, request_retries=0)
    async with client.session("http", config, model=MODEL) as session:
        await hear(session.turn("hello", turn_id="failed"))
        await hear(session.turn("hello", turn_id="refused"))
        async with session.turn("hello", turn_id="cancelled") as turn:
            async for event in turn:
                if event.HasField("created"):
                    break


def _text(span: Span, name: str) -> str | None:
    return next((pair.value.string_value for pair in span.attributes if pair.key == name), None)


def _by_turn(received: Received, name: str) -> dict[str | None, Span]:
    return {_text(span, "turn_id"): span for span in received.spans if re.fullmatch(name, span.name)}


async def test_collector_exports_every_outcome_with_its_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    binary = await _built()
    async with (
        collector() as (backend, received),
        _running_collector(binary, backend) as endpoint,
        Simulator(_script(), expect_violations=True) as sim,
    ):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = Telemetry(traces=("otlp",), metrics=("otlp",))
        settings = msgspec.structs.replace(settings_for(sim.base_url), telemetry=telemetry)
        async with (
            App(settings) as app,
            warmline.Client(app.address, retry=warmline.CallRetry(max_tries=1)) as client,
        ):
            await _turns_of_every_outcome(client)
        request_ids = [request.request_id for request in sim.posts()]
        handshakes = [handshake.response_headers["x-request-id"] for handshake in sim.handshakes]

    chats, turns = _by_turn(received, CHAT), _by_turn(received, "turn")
    assert turns.keys() == {"completed", "handshake", "failed", "refused", "cancelled"}
    assert {turn: _text(span, "response_id") for turn, span in chats.items()} == {
        "completed": "resp-ok",
        "failed": "resp-half",
        "refused": None,
        "cancelled": "resp-gone",
    }
    over_http = [_text(chats[turn], "upstream_request_id") for turn in ("failed", "refused", "cancelled")]
    assert over_http == request_ids
    assert _text(chats["completed"], "upstream_request_id") is None
    assert _text(chats["completed"], "upstream_handshake_request_id") == handshakes[0]
    assert _text(_by_turn(received, "connect")["handshake"], "upstream_handshake_request_id") == handshakes[1]
    errors = {turn for turn, span in turns.items() if span.status.code == Status.STATUS_CODE_ERROR}
    assert errors == {"handshake", "failed", "refused"}
    preconnect = next(span for span in received.spans if span.name == "preconnect")
    assert [link.span_id for link in chats["completed"].links] == [preconnect.span_id]
    servers = [span for span in received.spans if span.name.endswith("/StreamTurn")]
    assert {span.parent_span_id for span in turns.values()} == {span.span_id for span in servers}
    assert {"warmline.calls", "warmline.slot.outcomes", "gen_ai.client.inference.duration"} <= received.metrics
    assert received.resource["service.name"] == "warmline"

"""The OpenAI Node SDK, unchanged, against the simulator. Needs node and npm; without them only CI fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from warmline_simulator import Reply, Script, Simulator, ev

FOLDER = Path(__file__).parent / "node"
NPM_TIMEOUT_S = 55


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """The locked packages, installed once per lock file."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        if os.environ.get("CI"):
            pytest.fail("node and npm are needed in CI")
        pytest.skip("node and npm are not installed")
    stamp = FOLDER / "node_modules" / ".installed"
    lock = (FOLDER / "package-lock.json").read_text()
    if stamp.exists() and stamp.read_text() == lock:
        return
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(command, cwd=FOLDER, check=True, timeout=NPM_TIMEOUT_S, capture_output=True)
    stamp.write_text(lock)


async def node(sim: Simulator, scenario: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        "node", "check.mjs", scenario, sim.base_url, cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_http_streaming() -> None:
    async with Simulator(tokens={"sk-simulator"}) as sim:
        seen = await node(sim, "stream")

    assert seen["types"][0] == "response.created"
    assert seen["types"][-1] == "response.completed"
    assert "tell me about herons" in seen["text"]
    assert seen["id"] == sim.requests[0].response_id
    assert seen["usage"] > 0


async def test_create_and_its_request_id() -> None:
    async with Simulator() as sim:
        seen = await node(sim, "create")

    assert seen == {"id": sim.requests[0].response_id, "status": "completed", "request_id": sim.requests[0].request_id}


async def test_tool_loop_over_http() -> None:
    async with Simulator() as sim:
        seen = await node(sim, "toolsOverHttp")

    assert (seen["name"], seen["arguments"]) == ("get_weather", '{"city":"Oslo"}')
    assert "The tool get_weather answered: rain" in seen["text"]


async def test_tool_loop_over_one_websocket() -> None:
    async with Simulator(tokens={"sk-simulator"}) as sim:
        seen = await node(sim, "toolsOverWebsocket")

    assert (seen["name"], seen["previous"]) == ("get_weather", True)
    assert "The tool get_weather answered: rain" in seen["text"]
    assert (len(sim.handshakes), sim.counters.creates_delta) == (1, 1)
    assert sim.handshakes[0].close_code == 1000


async def test_a_websocket_error_reaches_the_client_with_its_code() -> None:
    async with Simulator() as sim:
        seen = await node(sim, "websocketError")

    assert "previous_response_not_found" in json.dumps(seen)
    assert sim.requests[0].outcome == "refused"


async def test_errors_map_to_the_sdks_classes() -> None:
    wanted = {
        400: "BadRequestError",
        401: "AuthenticationError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        409: "ConflictError",
        422: "UnprocessableEntityError",
        429: "RateLimitError",
        503: "InternalServerError",
    }
    posts = [Reply(status=status, body=ev.http_error(status, "some_code", param="input")) for status in wanted]
    async with Simulator(Script(posts=posts)) as sim:
        seen = await node(sim, "errors")

    assert {each["status"]: each["name"] for each in seen} == wanted
    assert {(each["code"], each["param"]) for each in seen} == {("some_code", "input")}
    assert [each["request_id"] for each in seen] == [record.request_id for record in sim.requests]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_retries_on_429_and_5xx(status: int) -> None:
    refused = Reply(status=status, headers={"retry-after-ms": "1"}, times=2)
    async with Simulator(Script(posts=[refused, Reply.model()])) as sim:
        seen = await node(sim, "retries")

    assert seen == {"status": "completed"}
    assert [record.status for record in sim.requests] == [status, status, 200]


async def test_models() -> None:
    async with Simulator() as sim:
        assert "sim-large" in await node(sim, "models")

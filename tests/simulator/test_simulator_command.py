"""The command: starts, serves, records, replays, ends cleanly, and says what is wrong."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from warmline_simulator import Simulator, tls

from .wire_client import ask, id_of, open_http, open_ws, text_of, types

START_S = 20.0


class Command:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = await asyncio.wait_for(self.process.communicate(), START_S)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def command(*args: str) -> AsyncIterator[Command]:
    process = await _start(*args)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), START_S)).decode()
        if line.startswith("certificate"):
            line = (await asyncio.wait_for(process.stdout.readline(), START_S)).decode()
        assert line.startswith("simulator: "), line
        yield Command(process, line.split()[1])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _start(*args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "warmline_simulator", *args,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


def ws(url: str) -> connect:
    return connect(url.replace("http", "ws", 1) + "/responses")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_a_signal_and_prints_its_counters(number: signal.Signals) -> None:
    async with command("--port", "0", "--seed", "4") as running, ws(running.url) as socket:
        assert "over there" in text_of(await ask(socket, "over there"))
        code, out, err = await running.end(number)

    assert (code, err) == (0, "")
    assert "handshakes=1" in out
    assert "responses_completed=1" in out


async def test_what_was_recorded_is_served_again_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    seen = []
    for source in (["--record", str(folder), "--turn-state", "ts-1"], ["--replay", str(folder)]):
        async with command("--port", "0", *source) as running:
            async with ws(running.url) as socket:
                first = await ask(socket, "use the tool look", tools=[tool])
                refused = await ask(socket, temperature=9)
                assert socket.response is not None
                headers = socket.response.headers["x-request-id"], socket.response.headers["x-codex-turn-state"]
            post = await _post(running.url)
            code, _, err = await running.end()
        assert (code, err) == (0, "")
        seen.append((first, refused, headers, post))

    assert seen[0] == seen[1]
    assert types(seen[0][0])[-1] == "response.completed"
    assert id_of(seen[0][0]).startswith("resp_")
    received = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert [("handshake" in each, "request" in each) for each in received] == [(True, False)] + [(False, True)] * 3
    assert "sk-secret" not in (folder / "requests.jsonl").read_text()


async def _post(url: str) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        "import httpx,sys;r=httpx.post(sys.argv[1]+'/responses',json={'model':'m','input':'x','stream':True},"
        "headers={'authorization':'Bearer sk-secret'});print(r.headers['x-request-id']);print(r.text)",
        url, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    request_id, _, text = out.decode().partition("\n")
    return request_id, text


async def test_a_run_that_did_not_go_as_scripted_ends_with_1_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("posts: [{status: 500}]\n")
    async with command("--port", "0", "--script", str(path)) as running:
        code, _, err = await running.end()

    assert code == 1
    assert err == "problem: never asked for: posts[0]: asked for 0 of 1 times\n"


async def test_it_says_why_it_cannot_start(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("postz: []\n")
    cases = {
        ("--script", str(path)): "unknown key 'postz' — did you mean 'posts'?",
        ("--tls-cert", str(tmp_path / "none.pem")): "prepare TLS: ",
        ("--script", str(path), "--replay", str(tmp_path)): "expected one",
    }
    async with Simulator() as sim:
        cases["--port", str(sim.port)] = f"listen on 127.0.0.1:{sim.port}: "
        for args, told in cases.items():
            process = await _start(*args)
            _, err = await asyncio.wait_for(process.communicate(), START_S)
            assert process.returncode == 2
            assert told in err.decode()


async def test_tls_serves_both_transports(tmp_path: Path) -> None:
    certificate, key = tls.make_certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with Simulator(tls=tls.server_context(certificate, key)) as sim:
        assert sim.base_url.startswith("https://")
        async with open_ws(sim, ssl=trusted) as socket:
            assert "safely" in text_of(await ask(socket, "safely"))
        async with open_http(sim, verify=trusted) as http:
            assert (await http.post("/responses", json={"model": "m", "input": "x"})).status_code == 200


async def test_the_command_makes_its_own_certificate() -> None:
    async with command("--port", "0", "--tls-self-signed") as running:
        assert running.url.startswith("https://")
        code, _, err = await running.end()

    assert (code, err) == (0, "")

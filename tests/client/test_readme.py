"""The README's code runs as it stands."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import warmline
from client.fake_server import Call, FakeServer, Step, admitted, answer, call_item, completed, done, says, started
from warmline.v1 import session_service_pb2

README = Path(warmline.__file__).parents[1] / "README.md"
ADDRESS = "127.0.0.1:50051"


def code(number: int) -> str:
    """The n-th Python block, from 0."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return blocks[number]


async def run(number: int, server: FakeServer) -> str:
    """Runs a block against the scripted server, in a process of its own, and returns what it prints."""
    block = code(number)
    assert block.count(ADDRESS) == 1

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", block.replace(ADDRESS, server.target),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return printed.decode()


async def test_quick_start_prints_the_answer_and_how_it_came(server: FakeServer) -> None:
    server.on("CreateSession", answer(session_service_pb2.CreateSessionResponse(created=True)))
    server.on("StreamTurn", says("Hello", ", world"))

    printed = await run(0, server)

    assert printed == "Hello, world\nresp_1, slot ADOPTED, over WEBSOCKET\n"


def test_every_error_says_what_to_do_about_it() -> None:
    bases = {"WarmlineError", "ConflictError", "NotFoundError", "PreconditionError"}
    names = {name for name in warmline.__all__ if name.endswith("Error")} - bases

    assert {name for name in names if f"`{name}`" not in README.read_text()} == set()


def test_quick_start_is_ten_lines() -> None:
    lines = [line for line in code(0).splitlines() if line and not line.startswith(("import", "asyncio.run"))]

    assert len(lines) <= 10


def calls_a_tool() -> Step:
    async def step(call: Call) -> None:
        await call.send(admitted("turn-7"), started(), done(call_item("call_1", "look")), completed())

    return step


async def test_tool_loop_sends_back_what_came_under_one_turn_id(server: FakeServer) -> None:
    server.on("CreateSession", answer(session_service_pb2.CreateSessionResponse(created=True)))
    server.on("StreamTurn", calls_a_tool(), says("A lake."))

    printed = await run(1, server)

    first, second = server.of("StreamTurn")
    assert printed == "A lake.\n"
    assert (first.request.turn_id, second.request.turn_id) == ("", "turn-7")
    assert second.request.input[1].json == call_item("call_1", "look")
    assert second.request.input[2].function_call_output.call_id == "call_1"
    assert second.request.session_config.request_defaults.tools.tools_json

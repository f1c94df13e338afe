"""The Go pages' programs run as they stand, on the module as it is published, in a directory of their own."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from interop.scenario import ROOT, Scenario
from interop.toolchain import need_programs
from interop.world import RealWorld
from warmline_simulator import Reply, Script, ev

pytestmark = pytest.mark.timeout(600)

MODULE = "github.com/warmline/warmline/client_stubs/go"
README = ROOT / "client_stubs" / "go" / "README.md"
PAGE = ROOT / "docs" / "clients" / "go.md"
ADDRESS = "127.0.0.1:50051"


def program(page: Path) -> str:
    """The page's one whole program."""
    blocks: list[str] = re.findall(r"```go\n(.*?)```", page.read_text(), re.DOTALL)
    (found,) = (block for block in blocks if block.startswith("package main\n"))
    assert found.count(ADDRESS) == 1
    return found


async def run(code: str, folder: Path, script: Script) -> tuple[str, RealWorld]:
    """Runs a program against the real server; returns what it prints, and the world as it was."""
    scenario = Scenario(name="quick_start", title="", peer="server", steps=(), script=script)
    async with RealWorld(scenario) as world:
        await asyncio.to_thread(_build, code.replace(ADDRESS, world.address), folder)
        process = await asyncio.create_subprocess_exec(
            folder / "use" / "use", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        printed, said = await process.communicate()
        assert process.returncode == 0, said.decode()
    return printed.decode(), world


def _build(code: str, folder: Path) -> None:
    """Builds a program in a module of its own that requires ours, as published."""
    _publish(folder / "module")
    (folder / "use").mkdir()
    (folder / "use" / "main.go").write_text(code)
    for command in (
        ("go", "mod", "init", "example.com/use"),
        ("go", "mod", "edit", "-require", f"{MODULE}@v0.0.0", "-replace", f"{MODULE}={folder / 'module'}"),
        ("go", "mod", "tidy"),
        ("go", "vet", "."),
        ("go", "build", "-o", "use", "."),
    ):
        done = subprocess.run(command, cwd=folder / "use", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def _publish(folder: Path) -> None:
    """Copies what the repository has of the module, and nothing else that lies about."""
    source = ROOT / "client_stubs" / "go"
    listed = subprocess.run(["git", "ls-files"], cwd=source, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, folder / name)


@pytest.fixture(autouse=True)
def _needs_go() -> None:
    need_programs("go")


async def test_quick_start_prints_the_answer_and_how_it_came(tmp_path: Path) -> None:
    script = Script(creates=[Reply(events=ev.text_response("Hello, world", response_id="resp_1"))])

    printed, world = await run(program(README), tmp_path, script)

    assert re.fullmatch(
        "Hello, world\nresp_1, slot SLOT_OUTCOME_(ADOPTED|AWAITED), over TRANSPORT_WEBSOCKET\n", printed
    )
    assert world.sim.problems() == []


async def test_tool_loop_answers_the_call_under_one_turn(tmp_path: Path) -> None:
    script = Script(
        creates=[
            Reply(events=ev.function_call_response("look", "{}", "call_1")),
            Reply(events=ev.text_response("A lake.")),
        ]
    )

    printed, world = await run(program(PAGE), tmp_path, script)

    assert printed == "A lake.\n"
    assert world.sim.problems() == []
    second = world.sim.requests[1]
    assert json.loads(second.raw)["input"][-1] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": '{"seen": "a lake"}',
    }


def test_go_client_is_formatted_and_passes_its_own_tests() -> None:
    for command in (["gofmt", "-l", "."], ["go", "vet", "./..."], ["go", "test", "./..."]):
        done = subprocess.run(command, cwd=ROOT / "client_stubs" / "go", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert command[0] != "gofmt" or done.stdout == ""

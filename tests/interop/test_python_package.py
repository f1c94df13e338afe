"""The Python pages' programs run as they stand, on the wheel, in an environment that has nothing else."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from interop.scenario import ROOT, Scenario
from interop.world import RealWorld
from warmline_simulator import Reply, Script, ev

# Where nothing is cached, the wheel's dependencies are loaded.
pytestmark = pytest.mark.timeout(300)

UV = ROOT / ".tools" / "bin" / "uv"
PACKAGE = ROOT / "client_stubs" / "python"
README = PACKAGE / "README.md"
PAGE = ROOT / "docs" / "clients" / "python.md"
ADDRESS = "127.0.0.1:50051"
FIRST_LINES = "Hello, world\nresp_1, slot (ADOPTED|AWAITED), over WEBSOCKET\n"

# All that the client brings along; the last is grpcio's.
LIGHT = {"warmline-client", "grpcio", "protobuf", "googleapis-common-protos", "typing-extensions"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of the source distribution."""
    return build(PACKAGE, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and the newest of what it needs."""
    return environment(tmp_path_factory.mktemp("newest"), wheel)


@pytest.fixture(scope="module")
def python_with_floors(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and the oldest of what it takes."""
    return environment(tmp_path_factory.mktemp("oldest"), wheel, *(f"{n}=={floor}" for n, floor in floors().items()))


def build(project: Path, folder: Path) -> Path:
    ran(UV, "build", "--quiet", "--out-dir", folder, project, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path, wheel: Path, *pins: str) -> Path:
    """A new environment in this folder, with the wheel installed and other packages at these versions."""
    python = folder / "venv" / "bin" / "python"
    ran(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    ran(UV, "pip", "install", "--quiet", "--python", python, wheel, *pins, cwd=folder)
    return python


def ran(*words: str | Path, cwd: Path) -> str:
    """Runs a command that must succeed; returns what it prints."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def programs(page: Path) -> list[str]:
    """The page's whole programs."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for block in blocks if block.startswith("import ")]


def floors() -> dict[str, str]:
    """The oldest version of each dependency that the package says it takes."""
    declared = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["dependencies"]
    return dict(line.partition(",")[0].split(">=") for line in declared)


def installed(python: Path) -> dict[str, str]:
    """The versions of all that the environment has, by name."""
    listed = json.loads(ran(UV, "pip", "list", "--format", "json", "--python", python, cwd=python.parent))
    return {package["name"]: package["version"] for package in listed}


async def run(python: Path, program: str, folder: Path, *replies: Reply) -> tuple[str, RealWorld]:
    """Runs a program against the real server; returns what it prints, and the world as it was."""
    assert program.count(ADDRESS) == 1
    scenario = Scenario(name="quick_start", title="", peer="server", steps=(), script=Script(creates=list(replies)))
    async with RealWorld(scenario) as world:
        process = await asyncio.create_subprocess_exec(
            python, "-W", "error", "-c", program.replace(ADDRESS, world.address),
            cwd=folder, env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        printed, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert world.sim.problems() == []
    return printed.decode(), world


def hello() -> Reply:
    return Reply(events=ev.text_response("Hello, world", response_id="resp_1"))


def test_client_brings_along_grpc_and_protobuf_and_nothing_of_the_server(python: Path) -> None:
    assert installed(python).keys() == LIGHT


async def test_readme_runs_on_the_wheel(python: Path, tmp_path: Path) -> None:
    printed, _ = await run(python, programs(README)[0], tmp_path, hello())

    assert re.fullmatch(FIRST_LINES, printed)


async def test_tool_loop_of_the_readme_answers_the_call_under_one_turn(python: Path, tmp_path: Path) -> None:
    called = Reply(events=ev.function_call_response("look", "{}", "call_1"))

    printed, world = await run(python, programs(README)[1], tmp_path, called, Reply(events=ev.text_response("A lake.")))

    assert printed == "A lake.\n"
    assert json.loads(world.sim.requests[1].raw)["input"][-1] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": '{"seen": "a lake"}',
    }


async def test_page_runs_on_the_wheel(python: Path, tmp_path: Path) -> None:
    printed, _ = await run(python, programs(PAGE)[0], tmp_path, hello())

    assert re.fullmatch(FIRST_LINES + r"INVALID_REQUEST \['input'\]\n", printed)


@pytest.mark.parametrize("page", [README, PAGE], ids=["asyncio", "sync"])
async def test_oldest_dependencies_that_are_allowed_serve_a_turn(
    python_with_floors: Path, page: Path, tmp_path: Path
) -> None:
    found = installed(python_with_floors)
    assert {name: found[name].removesuffix(".0") for name in floors()} == floors()

    printed, _ = await run(python_with_floors, programs(page)[0], tmp_path, hello())

    assert re.match(FIRST_LINES, printed)


def test_wheel_has_types_for_whoever_uses_it(python: Path, tmp_path: Path) -> None:
    pages = [program for page in (README, PAGE) for program in programs(page)]
    wrong = "import warmline\nfrom warmline.v1 import types_pb2\nwarmline.Client(1)\ntypes_pb2.Item(json='text')\n"
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--config-file", "")

    for number, program in enumerate(pages):
        (tmp_path / f"program_{number}.py").write_text(program)
    ran(*mypy, *(f"program_{number}.py" for number in range(len(pages))), cwd=tmp_path)
    (tmp_path / "wrong.py").write_text(wrong)
    found = subprocess.run([*mypy, "wrong.py"], cwd=tmp_path, capture_output=True, text=True)

    assert len(pages) == 3
    assert re.findall(r"wrong\.py:(\d+): error: .*\[arg-type\]", found.stdout) == ["3", "4"]


def test_server_and_client_share_no_file_and_belong_together(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as client, zipfile.ZipFile(build(ROOT, tmp_path)) as server:
        assert not set(client.namelist()) & set(server.namelist())
        assert {name.partition("/")[0] for name in client.namelist()} == {"warmline", client_info(client)}
        licence = client.read(f"{client_info(client)}/licenses/LICENSE")
        assert licence == (ROOT / "LICENSE").read_bytes()
        told, wanted = (metadata(z) for z in (client, server))

    assert (told["name"], told["version"]) == ("warmline-client", wanted["version"])
    assert f"warmline-client=={told['version']}" in wanted.get_all("requires-dist", [])


def test_server_finds_the_client_that_it_needs(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path, build(ROOT, tmp_path), str(wheel))

    assert {"warmline", "warmline-client"} <= installed(python).keys()
    assert "every id above equals" in ran(python.with_name("warmline"), "demo", cwd=tmp_path)


def client_info(wheel: zipfile.ZipFile) -> str:
    return next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)


def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"{client_info(wheel)}/METADATA").decode())

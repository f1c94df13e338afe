"""The Python pages' programs run as they stand, on the wheel, in an environment that has nothing else."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from interop.pages import FIRST_LINES, HELLO, blocks, check_tool_loop, play
from interop.scenario import ROOT
from interop.toolchain import ran

# Where nothing is cached, the wheel's dependencies are loaded.
pytestmark = pytest.mark.timeout(300)

UV = ROOT / ".tools" / "bin" / "uv"
PACKAGE = ROOT / "client_stubs" / "python"
README = PACKAGE / "README.md"
PAGE = ROOT / "docs" / "clients" / "python.md"

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


def programs(page: Path) -> list[str]:
    """The page's whole programs."""
    return [block for block in blocks(page, "python") if block.startswith("import ")]


def floors() -> dict[str, str]:
    """The oldest version of each dependency that the package says it takes."""
    declared = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["dependencies"]
    return dict(line.partition(",")[0].split(">=") for line in declared)


def installed(python: Path) -> dict[str, str]:
    """The versions of all that the environment has, by name."""
    listed = json.loads(ran(UV, "pip", "list", "--format", "json", "--python", python, cwd=python.parent))
    return {package["name"]: package["version"] for package in listed}


def program(python: Path, folder: Path) -> Callable[[str], str]:
    """Runs code with that interpreter, and with nothing of this process's surroundings."""
    return lambda code: ran(python, "-W", "error", "-c", code, cwd=folder, env={"PATH": os.environ["PATH"]})


def test_client_brings_along_grpc_and_protobuf_and_nothing_of_the_server(python: Path) -> None:
    assert installed(python).keys() == LIGHT


async def test_readme_runs_on_the_wheel(python: Path, tmp_path: Path) -> None:
    printed, _ = await play(programs(README)[0], HELLO, program(python, tmp_path))

    assert re.fullmatch(FIRST_LINES, printed)


async def test_tool_loop_of_the_readme_answers_the_call_under_one_turn(python: Path, tmp_path: Path) -> None:
    await check_tool_loop(programs(README)[1], program(python, tmp_path))


async def test_page_runs_on_the_wheel(python: Path, tmp_path: Path) -> None:
    printed, _ = await play(programs(PAGE)[0], HELLO, program(python, tmp_path))

    assert re.fullmatch(FIRST_LINES + r"INVALID_REQUEST \['input'\]\n", printed)


@pytest.mark.parametrize("page", [README, PAGE], ids=["asyncio", "sync"])
async def test_oldest_dependencies_that_are_allowed_serve_a_turn(
    python_with_floors: Path, page: Path, tmp_path: Path
) -> None:
    found = installed(python_with_floors)
    assert {name: found[name].removesuffix(".0") for name in floors()} == floors()

    printed, _ = await play(programs(page)[0], HELLO, program(python_with_floors, tmp_path))

    assert re.match(FIRST_LINES, printed)


def test_wheel_has_types_for_whoever_uses_it(python: Path, tmp_path: Path) -> None:
    pages = [code for page in (README, PAGE) for code in programs(page)]
    wrong = "import warmline\nfrom warmline.v1 import types_pb2\nwarmline.Client(1)\ntypes_pb2.Item(json='text')\n"
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--config-file", "")

    for number, code in enumerate(pages):
        (tmp_path / f"program_{number}.py").write_text(code)
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

"""The C++ recipe compiles and runs as it stands, where its toolchain is installed: one turn, and one that is left."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from interop.scenario import ROOT, Scenario
from interop.toolchain import need_none
from interop.world import RealWorld
from warmline_simulator import Hang, Reply, Script, ev

PAGE = ROOT / "docs" / "clients" / "cpp.md"
ADDRESS = "127.0.0.1:50051"
PROGRAMS = ("c++", "protoc", "grpc_cpp_plugin", "pkg-config")
LIBRARIES = ("grpc++", "protobuf")


def missing() -> list[str]:
    """The programs and libraries that the recipe needs and this machine lacks."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if "pkg-config" in lacking:
        return [*lacking, *LIBRARIES]
    found = {name: subprocess.run(["pkg-config", "--exists", name]).returncode == 0 for name in LIBRARIES}
    return [*lacking, *(name for name in LIBRARIES if not found[name])]


@pytest.fixture(autouse=True)
def _needs_toolchain() -> None:
    need_none(missing())


def block(language: str) -> str:
    """The page's one block of that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def build(code: str, folder: Path) -> None:
    (folder / "protos").symlink_to(ROOT / "protos")
    (folder / "hello.cpp").write_text(code)
    done = subprocess.run(["sh", "-euc", block("sh")], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
async def test_recipe_streams_a_turn_and_leaves_another(tmp_path: Path) -> None:
    script = Script(
        creates=[
            Reply(events=ev.text_response("Hello, world", response_id="resp_1")),
            Reply(events=[ev.created(), ev.text_delta("one, two"), Hang()]),
        ]
    )
    scenario = Scenario(name="cpp", title="", peer="server", steps=(), script=script)
    async with RealWorld(scenario) as world:
        code = block("cpp")
        assert code.count(ADDRESS) == 1
        await asyncio.to_thread(build, code.replace(ADDRESS, world.address), tmp_path)
        process = await asyncio.create_subprocess_exec(
            tmp_path / "hello", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        printed, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        await world.act("wait", ["aborts", "1"], {})
        await world.wait_calls_ended()
        problems = world.sim.problems()

    assert printed.decode() == "Hello, world\nresp_1\none, two\nleft after the first words\n"
    assert problems == []

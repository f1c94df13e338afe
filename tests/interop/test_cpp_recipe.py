"""The C++ recipe compiles and runs as it stands, where its toolchain is installed."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from interop.scenario import ROOT, Scenario
from interop.world import RealWorld
from warmline_simulator import Reply, Script, ev

PAGE = ROOT / "docs" / "clients" / "cpp.md"
ADDRESS = "127.0.0.1:50051"


def has_toolchain() -> bool:
    programs = ("c++", "protoc", "grpc_cpp_plugin", "pkg-config")
    if any(shutil.which(program) is None for program in programs):
        return False
    return subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"]).returncode == 0


def block(language: str) -> str:
    """The page's one block of that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def build(code: str, folder: Path) -> None:
    (folder / "gen").mkdir()
    (folder / "protos").symlink_to(ROOT / "protos")
    (folder / "hello.cpp").write_text(code)
    done = subprocess.run(["sh", "-euc", block("sh")], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
@pytest.mark.skipif(not has_toolchain(), reason="no C++ toolchain with gRPC")
async def test_recipe_prints_the_answer_and_its_id(tmp_path: Path) -> None:
    script = Script(creates=[Reply(events=ev.text_response("Hello, world", response_id="resp_1"))])
    scenario = Scenario(name="cpp", title="", peer="server", steps=(), script=script)
    async with RealWorld(scenario) as world:
        await asyncio.to_thread(build, block("cpp").replace(ADDRESS, world.address), tmp_path)
        process = await asyncio.create_subprocess_exec(
            tmp_path / "hello", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        printed, said = await process.communicate()
        problems = world.sim.problems()

    assert (printed.decode(), process.returncode) == ("Hello, world\nresp_1\n", 0), said.decode()
    assert problems == []

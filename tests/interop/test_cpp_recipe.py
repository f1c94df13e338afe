"""The C++ recipe compiles and runs as it stands, where its toolchain is installed: one turn, and one that is left."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from interop.pages import at_server, blocks
from interop.scenario import ROOT
from interop.toolchain import need_none, ran
from warmline_simulator import Hang, Reply, Script, ev

PAGE = ROOT / "docs" / "clients" / "cpp.md"
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
    (found,) = blocks(PAGE, language)
    return found


def run(code: str, folder: Path) -> str:
    """Builds and runs code; returns what it prints."""
    (folder / "protos").symlink_to(ROOT / "protos")
    (folder / "hello.cpp").write_text(code)
    ran("sh", "-euc", block("sh"), cwd=folder)
    return ran(folder / "hello", cwd=folder)


@pytest.mark.timeout(600)
async def test_recipe_streams_a_turn_and_leaves_another(tmp_path: Path) -> None:
    script = Script(
        creates=[
            Reply(events=ev.text_response("Hello, world", response_id="resp_1")),
            Reply(events=[ev.created(), ev.text_delta("one, two"), Hang()]),
        ]
    )
    async with at_server(block("cpp"), script) as (code, world):
        printed = await asyncio.to_thread(run, code, tmp_path)
        await world.act("wait", ["aborts", "1"], {})
        await world.wait_calls_ended()

    assert printed == "Hello, world\nresp_1\none, two\nleft after the first words\n"

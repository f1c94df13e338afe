"""The Go pages' programs run as they stand, on the module as it is published, in a directory of their own."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.pages import HELLO, blocks, check_tool_loop, play
from interop.scenario import ROOT
from interop.toolchain import need_programs, ran

pytestmark = pytest.mark.timeout(600)

MODULE = "github.com/warmline/warmline/client_stubs/go"
SOURCE = ROOT / "client_stubs" / "go"
README = SOURCE / "README.md"
PAGE = ROOT / "docs" / "clients" / "go.md"


def whole(page: Path) -> str:
    """The page's one whole program."""
    (found,) = (block for block in blocks(page, "go") if block.startswith("package main\n"))
    return found


def program(folder: Path) -> Callable[[str], str]:
    """Builds and runs code in a module of its own that requires ours, as published."""

    def run(code: str) -> str:
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
            ran(*command, cwd=folder / "use")
        return ran(folder / "use" / "use", cwd=folder)

    return run


def _publish(folder: Path) -> None:
    """Copies what the repository has of the module, and nothing else that lies about."""
    for name in ran("git", "ls-files", cwd=SOURCE).splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / name, folder / name)


@pytest.fixture(autouse=True)
def _needs_go() -> None:
    need_programs("go")


async def test_quick_start_prints_the_answer_and_how_it_came(tmp_path: Path) -> None:
    printed, _ = await play(whole(README), HELLO, program(tmp_path))

    assert re.fullmatch(
        "Hello, world\nresp_1, slot SLOT_OUTCOME_(ADOPTED|AWAITED), over TRANSPORT_WEBSOCKET\n", printed
    )


async def test_tool_loop_answers_the_call_under_one_turn(tmp_path: Path) -> None:
    await check_tool_loop(whole(PAGE), program(tmp_path))


def test_go_client_is_formatted_and_passes_its_own_tests() -> None:
    assert ran("gofmt", "-l", ".", cwd=SOURCE) == ""
    ran("go", "vet", "./...", cwd=SOURCE)
    ran("go", "test", "./...", cwd=SOURCE)

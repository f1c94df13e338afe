"""The TypeScript pages' programs run as they stand, on the package as it is published, in a directory of their own."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.pages import FIRST_LINES, HELLO, blocks, check_tool_loop, play
from interop.scenario import ROOT
from interop.toolchain import need_programs, ran

# Where nothing is cached, the package's dependencies are loaded.
pytestmark = pytest.mark.timeout(600)

PACKAGE = ROOT / "client_stubs" / "typescript"
README = PACKAGE / "README.md"
PAGE = ROOT / "docs" / "clients" / "typescript.md"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """The package's own tools."""
    need_programs("node", "npm")
    ran(PACKAGE / "scripts" / "install.sh", cwd=PACKAGE)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packed package installed, and what the README says to install besides."""
    folder = tmp_path_factory.mktemp("npm")
    ran("npm", "pack", "--silent", "--pack-destination", folder, cwd=PACKAGE)
    (tarball,) = folder.glob("*.tgz")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    wanted = json.loads((PACKAGE / "package.json").read_text())["devDependencies"]
    tools = [f"{name}@{wanted[name]}" for name in ("typescript", "@types/node")]
    ran("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", tarball, *tools, cwd=folder)
    return folder


def command() -> str:
    """How the README runs its program: its last shell command."""
    return blocks(README, "sh")[-1].strip()


def program(name: str, how: str, folder: Path) -> Callable[[str], str]:
    """Runs code as the folder's file of that name, by a shell command."""

    def run(code: str) -> str:
        (folder / name).write_text(code)
        return ran("sh", "-c", how, cwd=folder)

    return run


async def test_quick_start_prints_the_answer_and_how_it_came(clean: Path) -> None:
    (code,) = blocks(README, "ts")

    printed, _ = await play(code, HELLO, program("hello.ts", command(), clean))

    assert re.fullmatch(FIRST_LINES, printed)
    assert len([line for line in code.splitlines() if line]) <= 10


async def test_javascript_that_is_not_compiled_runs(clean: Path) -> None:
    (code,) = blocks(PAGE, "js")

    printed, _ = await play(code, HELLO, program("plain.js", "node plain.js", clean))

    assert re.fullmatch(FIRST_LINES, printed)


async def test_tool_loop_answers_the_call_under_one_turn(clean: Path) -> None:
    run = program("tools.ts", command().replace("hello", "tools"), clean)

    await check_tool_loop(blocks(PAGE, "ts")[0], run, output='{"seen":"a lake"}')


def test_every_program_of_the_page_has_the_right_types(clean: Path) -> None:
    names = []
    for number, code in enumerate(blocks(PAGE, "ts")):
        names.append(f"page_{number}.ts")
        (clean / names[-1]).write_text(code)

    assert len(names) > 3
    options = ("--module", "nodenext", "--target", "es2022", "--strict", "--types", "node", "--noEmit")
    ran("npx", "tsc", *options, *names, cwd=clean)


def test_every_error_says_what_to_do_about_it() -> None:
    declared = re.findall(r"export class (\w+Error) ", (PACKAGE / "src" / "errors.ts").read_text())
    bases = {"WarmlineError", "ConflictError", "NotFoundError", "PreconditionError"}

    assert {name for name in declared if f"`{name}`" not in PAGE.read_text()} == bases - {"WarmlineError"}


def test_package_has_what_it_needs_and_nothing_else(clean: Path) -> None:
    names = {
        str(path.relative_to(clean / "node_modules" / "warmline"))
        for path in (clean / "node_modules" / "warmline").rglob("*.*")
    }

    assert {"package.json", "README.md", "dist/index.js", "dist/index.d.ts", "dist/v1.js", "src/index.ts"} <= names
    assert {name.split("/")[0] for name in names} == {"package.json", "README.md", "dist", "src"}
    assert (clean / "node_modules" / "warmline" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (clean / "node_modules" / "@opentelemetry").exists() is False


def test_typescript_client_is_formatted_and_passes_its_own_tests() -> None:
    ran("npm", "run", "--silent", "lint", cwd=PACKAGE)
    ran("npm", "test", "--silent", cwd=PACKAGE)

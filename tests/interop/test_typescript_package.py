"""The TypeScript pages' programs run as they stand, on the package as it is published, in a directory of their own."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

from interop.scenario import ROOT, Scenario
from interop.toolchain import need_programs
from interop.world import RealWorld
from warmline_simulator import Reply, Script, ev

# Where nothing is cached, the package's dependencies are loaded.
pytestmark = pytest.mark.timeout(600)

PACKAGE = ROOT / "client_stubs" / "typescript"
README = PACKAGE / "README.md"
PAGE = ROOT / "docs" / "clients" / "typescript.md"
ADDRESS = "127.0.0.1:50051"
HELLO = Script(creates=[Reply(events=ev.text_response("Hello, world", response_id="resp_1"))])
FIRST_LINES = "Hello, world\nresp_1, slot (ADOPTED|AWAITED), over WEBSOCKET\n"


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


def ran(*words: str | Path, cwd: Path) -> str:
    """Runs a command that must succeed; returns what it prints."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def programs(page: Path, language: str = "ts") -> list[str]:
    """The page's programs in this language."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    return found


def command(page: Path) -> str:
    """The page's last shell command."""
    return programs(page, "sh")[-1].strip()


async def run(program: str, name: str, how: str, folder: Path, script: Script) -> tuple[str, RealWorld]:
    """Runs a program against the real server by a shell command; returns what it prints, and the world as it was."""
    assert program.count(ADDRESS) == 1
    scenario = Scenario(name="quick_start", title="", peer="server", steps=(), script=script)
    async with RealWorld(scenario) as world:
        (folder / name).write_text(program.replace(ADDRESS, world.address))
        process = await asyncio.create_subprocess_shell(how, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        printed, said = await process.communicate()
        assert process.returncode == 0, printed.decode() + said.decode()
        assert world.sim.problems() == []
    return printed.decode(), world


async def test_quick_start_prints_the_answer_and_how_it_came(clean: Path) -> None:
    (program,) = programs(README)

    printed, _ = await run(program, "hello.ts", command(README), clean, HELLO)

    assert re.fullmatch(FIRST_LINES, printed)
    assert len([line for line in program.splitlines() if line]) <= 10


async def test_javascript_that_is_not_compiled_runs(clean: Path) -> None:
    (program,) = programs(PAGE, "js")

    printed, _ = await run(program, "plain.js", "node plain.js", clean, HELLO)

    assert re.fullmatch(FIRST_LINES, printed)


async def test_tool_loop_answers_the_call_under_one_turn(clean: Path) -> None:
    script = Script(
        creates=[
            Reply(events=ev.function_call_response("look", "{}", "call_1")),
            Reply(events=ev.text_response("A lake.")),
        ]
    )
    how = command(README).replace("hello", "tools")

    printed, world = await run(programs(PAGE)[0], "tools.ts", how, clean, script)

    assert printed == "A lake.\n"
    assert json.loads(world.sim.requests[1].raw)["input"][-1] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": '{"seen":"a lake"}',
    }


def test_every_program_of_the_page_has_the_right_types(clean: Path) -> None:
    names = []
    for number, program in enumerate(programs(PAGE)):
        names.append(f"page_{number}.ts")
        (clean / names[-1]).write_text(program)

    assert len(names) > 3
    ran(
        "npx",
        "tsc",
        "--module",
        "nodenext",
        "--target",
        "es2022",
        "--strict",
        "--types",
        "node",
        "--noEmit",
        *names,
        cwd=clean,
    )


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

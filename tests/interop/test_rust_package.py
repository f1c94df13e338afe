"""The Rust pages' programs run as they stand, on the crate as it is published, in a directory of their own."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from interop.scenario import ROOT, Scenario
from interop.world import RealWorld
from warmline_simulator import Reply, Script, ev

# Where nothing is cached, the crate's dependencies are loaded and compiled.
pytestmark = pytest.mark.timeout(900)

CRATE = ROOT / "client_stubs" / "rust"
README = CRATE / "README.md"
PAGE = ROOT / "docs" / "clients" / "rust.md"
ADDRESS = "127.0.0.1:50051"
TARGET = ROOT / ".cache" / "interop" / "rust"
"""What the runner's build has compiled already."""


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """The dependencies, as they are locked; nothing else is loaded here."""
    if shutil.which("cargo") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("this machine has no cargo")
        pytest.skip("this machine has no cargo")
    cargo("fetch", "--locked", "--quiet", cwd=CRATE, offline=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The crate as it is published, unpacked."""
    folder = tmp_path_factory.mktemp("crate")
    made_in = folder / "target"
    cargo("package", "--quiet", "--allow-dirty", "--no-verify", "--target-dir", str(made_in), cwd=CRATE)
    (archive,) = (made_in / "package").glob("*.crate")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.stem


@pytest.fixture(scope="module")
def clean(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new crate that depends on the published one, as the README says."""
    folder = tmp_path_factory.mktemp("use")
    cargo("init", "--quiet", "--vcs", "none", "--name", "use-warmline", cwd=folder)
    # The versions that were tested, and are loaded.
    shutil.copy(published / "Cargo.lock", folder)
    added = [line.split() for line in blocks(README, "sh")[0].splitlines()]
    assert [words[:3] for words in added] == [["cargo", "add", "warmline"], ["cargo", "add", "tokio"]]
    for _, *words in added:
        from_here = ["--path", str(published)] if words == ["add", "warmline"] else []
        cargo(*words, "--quiet", *from_here, cwd=folder)
    (folder / "src" / "bin").mkdir()
    return folder


def cargo(*words: str, cwd: Path, offline: bool = True) -> str:
    """Runs cargo, which must succeed; returns what it prints."""
    # Without debug information, as the runner is built: what was compiled for it is then used again.
    environment = os.environ | {"CARGO_PROFILE_DEV_DEBUG": "false", "CARGO_NET_OFFLINE": str(offline).lower()}
    done = subprocess.run(["cargo", *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(page: Path, language: str) -> list[str]:
    """The page's code in this language."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    return found


async def run(program: str, name: str, folder: Path, script: Script) -> tuple[str, RealWorld]:
    """Runs a program against the real server; returns what it prints, and the world as it was."""
    assert program.count(ADDRESS) == 1
    scenario = Scenario(name="quick_start", title="", peer="server", steps=(), script=script)
    async with RealWorld(scenario) as world:
        (folder / "src" / "bin" / f"{name}.rs").write_text(program.replace(ADDRESS, world.address))
        build = ("build", "--quiet", "--bin", name, "--target-dir", str(TARGET))
        await asyncio.to_thread(cargo, *build, cwd=folder)
        process = await asyncio.create_subprocess_exec(
            TARGET / "debug" / name, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        printed, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert world.sim.problems() == []
    return printed.decode(), world


async def test_quick_start_prints_the_answer_and_how_it_came(clean: Path) -> None:
    (program,) = blocks(README, "rust,no_run")
    script = Script(creates=[Reply(events=ev.text_response("Hello, world", response_id="resp_1"))])

    printed, _ = await run(program, "quick_start", clean, script)

    assert re.fullmatch("Hello, world\nresp_1, slot (Adopted|Awaited), over Websocket\n", printed)


async def test_tool_loop_answers_the_call_under_one_turn(clean: Path) -> None:
    script = Script(
        creates=[
            Reply(events=ev.function_call_response("look", "{}", "call_1")),
            Reply(events=ev.text_response("A lake.")),
        ]
    )

    printed, world = await run(blocks(PAGE, "rust")[0], "tools", clean, script)

    assert printed == "A lake.\n"
    assert json.loads(world.sim.requests[1].raw)["input"][-1] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": '{"seen": "a lake"}',
    }


def test_all_code_of_the_page_compiles(clean: Path) -> None:
    parts = blocks(PAGE, "rust")[1:]
    for number, part in enumerate(parts):
        code = f"#![allow(dead_code)]\n{part}\nfn main() {{}}\n"
        (clean / "src" / "bin" / f"page_{number}.rs").write_text(code)

    assert len(parts) > 2
    cargo("build", "--quiet", "--bins", "--target-dir", str(TARGET), cwd=clean)


def test_every_error_says_what_to_do_about_it() -> None:
    (kinds,) = re.findall(r"pub enum ErrorKind \{\n(.*?)\n\}", (CRATE / "src" / "errors.rs").read_text(), re.DOTALL)
    declared = re.findall(r"^    (\w+),$", kinds, re.MULTILINE)

    assert len(declared) > 25
    assert [name for name in declared if f"`{name}`" not in PAGE.read_text()] == []


def test_package_has_what_it_needs_and_nothing_else(published: Path) -> None:
    names = {str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()}

    assert {"Cargo.toml", "Cargo.lock", "README.md", "build.rs", "src/lib.rs"} <= names
    assert len([name for name in names if name.startswith("proto/warmline/v1/")]) == 5
    assert {name.split("/")[0] for name in names} - {"Cargo.toml.orig", ".cargo_vcs_info.json"} == {
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "build.rs",
        "proto",
        "src",
    }


def test_rust_client_is_formatted_and_passes_its_own_tests() -> None:
    built_in = ("--quiet", "--locked", "--workspace", "--all-features", "--target-dir", str(TARGET))
    cargo("fmt", "--all", "--check", cwd=CRATE)
    cargo("clippy", *built_in, "--all-targets", "--", "--deny", "warnings", cwd=CRATE)
    printed = cargo("test", *built_in, cwd=CRATE)
    assert re.search(r"^test result: ok\. \d\d passed", printed, re.MULTILINE)

"""The Rust pages' programs run as they stand, on the crate as it is published, in a directory of their own."""

import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.pages import HELLO, blocks, check_tool_loop, play
from interop.scenario import ROOT
from interop.toolchain import need_programs, ran

# Where nothing is cached, the crate's dependencies are loaded and compiled.
pytestmark = pytest.mark.timeout(900)

CRATE = ROOT / "client_stubs" / "rust"
README = CRATE / "README.md"
PAGE = ROOT / "docs" / "clients" / "rust.md"
TARGET = ROOT / ".cache" / "interop" / "rust"
"""What the runner's build has compiled already."""


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """The dependencies, as they are locked; nothing else is loaded here."""
    need_programs("cargo")
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
    return ran("cargo", *words, cwd=cwd, env=environment)


def program(name: str, folder: Path) -> Callable[[str], str]:
    """Builds and runs code as the folder's program of that name."""

    def run(code: str) -> str:
        (folder / "src" / "bin" / f"{name}.rs").write_text(code)
        cargo("build", "--quiet", "--bin", name, "--target-dir", str(TARGET), cwd=folder)
        return ran(TARGET / "debug" / name, cwd=folder)

    return run


async def test_quick_start_prints_the_answer_and_how_it_came(clean: Path) -> None:
    (code,) = blocks(README, "rust,no_run")

    printed, _ = await play(code, HELLO, program("quick_start", clean))

    assert re.fullmatch("Hello, world\nresp_1, slot (Adopted|Awaited), over Websocket\n", printed)


async def test_tool_loop_answers_the_call_under_one_turn(clean: Path) -> None:
    await check_tool_loop(blocks(PAGE, "rust")[0], program("tools", clean))


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

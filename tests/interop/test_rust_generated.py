"""The Rust crate has the contract as it is, and generates its stubs with the pinned generators."""

import subprocess
import tomllib
from pathlib import Path

from interop.scenario import ROOT

CRATE = ROOT / "client_stubs" / "rust"


def test_rust_contract_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "generate_rust.sh", tmp_path / "proto"], check=True)

    committed, made = _texts(CRATE / "proto"), _texts(tmp_path / "proto")
    assert committed.keys() == made.keys()
    assert len(made) == len(list((ROOT / "protos").rglob("*.proto")))
    stale = sorted(name for name in made if committed[name] != made[name])
    assert stale == [], "run scripts/generate_rust.sh"


def test_generators_are_locked_at_their_pinned_versions() -> None:
    pinned = tomllib.loads((ROOT / "client_stubs" / "generators.toml").read_text())["rust"]
    locked = tomllib.loads((CRATE / "Cargo.lock").read_text())["package"]
    built_with = tomllib.loads((CRATE / "Cargo.toml").read_text())["build-dependencies"]

    assert {package["name"]: package["version"] for package in locked if package["name"] in pinned} == pinned
    assert built_with.keys() == pinned.keys()


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}

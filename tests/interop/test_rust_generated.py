"""The Rust crate has the contract as it is, and generates its stubs with the pinned generators."""

import subprocess
import tomllib
from pathlib import Path

from generated import differing
from interop.scenario import ROOT

CRATE = ROOT / "client_stubs" / "rust"


def test_rust_contract_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "generate_rust.sh", tmp_path / "proto"], check=True)

    assert differing(CRATE / "proto", tmp_path / "proto") == [], "run scripts/generate_rust.sh"
    assert len(list((CRATE / "proto").rglob("*.proto"))) == len(list((ROOT / "protos").rglob("*.proto")))


def test_generators_are_locked_at_their_pinned_versions() -> None:
    pinned = tomllib.loads((ROOT / "client_stubs" / "generators.toml").read_text())["rust"]
    locked = tomllib.loads((CRATE / "Cargo.lock").read_text())["package"]
    built_with = tomllib.loads((CRATE / "Cargo.toml").read_text())["build-dependencies"]

    assert {package["name"]: package["version"] for package in locked if package["name"] in pinned} == pinned
    assert built_with.keys() == pinned.keys()

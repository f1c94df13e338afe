"""The committed TypeScript stubs are what the contract and the pinned generators make."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from generated import differing
from interop.scenario import ROOT
from interop.toolchain import need_programs

PACKAGE = ROOT / "client_stubs" / "typescript"


@pytest.mark.timeout(600)
def test_typescript_stubs_are_up_to_date(tmp_path: Path) -> None:
    need_programs("node", "npm")

    subprocess.run([ROOT / "scripts" / "generate_typescript.sh", tmp_path / "gen"], check=True)

    assert differing(PACKAGE / "src" / "gen", tmp_path / "gen") == [], "run scripts/generate_typescript.sh"


def test_generator_is_locked_at_its_pinned_version() -> None:
    pinned = tomllib.loads((ROOT / "client_stubs" / "generators.toml").read_text())["typescript"]["ts-proto"]
    lock = json.loads((PACKAGE / "package-lock.json").read_text())

    assert lock["packages"]["node_modules/ts-proto"]["version"] == pinned

"""The committed Go stubs are what the contract and the pinned generators make."""

import subprocess
from pathlib import Path

import pytest

from generated import differing
from interop.scenario import ROOT
from interop.toolchain import need_programs


@pytest.mark.timeout(600)
def test_go_stubs_are_up_to_date(tmp_path: Path) -> None:
    need_programs("go")

    subprocess.run([ROOT / "scripts" / "generate_go.sh", tmp_path], check=True)

    stale = differing(ROOT / "client_stubs" / "go" / "warmlinev1", tmp_path / "warmlinev1")
    assert stale == [], "run scripts/generate_go.sh"

"""The committed Go stubs are what the contract and the pinned generators make."""

import subprocess
from pathlib import Path

import pytest

from interop.scenario import ROOT
from interop.toolchain import need_programs


@pytest.mark.timeout(600)
def test_go_stubs_are_up_to_date(tmp_path: Path) -> None:
    need_programs("go")

    subprocess.run([ROOT / "scripts" / "generate_go.sh", tmp_path], check=True)

    committed, made = (_texts(folder / "warmlinev1") for folder in (ROOT / "client_stubs" / "go", tmp_path))
    assert committed.keys() == made.keys()
    stale = sorted(name for name in made if committed[name] != made[name])
    assert stale == [], "run scripts/generate_go.sh"


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}

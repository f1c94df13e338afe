"""The Python stubs are what the contract makes them, no more and no less."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
STUBS = Path("warmline", "v1")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# The generators are installed on the first run.
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not UV.exists() and "CI" not in os.environ, reason="the generators need .tools/bin/uv, which `make` installs"
)
def test_stubs_are_current(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "generate_python.sh", tmp_path], check=True)

    made, kept = contents(tmp_path / STUBS), contents(ROOT / "client_stubs" / "python" / STUBS)

    assert len(made) > 10
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == [], "run `make proto`"

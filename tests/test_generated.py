"""The Python stubs are what the contract makes them, no more and no less."""

import os
import subprocess
from pathlib import Path

import pytest

from generated import differing

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
STUBS = Path("warmline", "v1")


# The generators are installed on the first run.
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not UV.exists() and "CI" not in os.environ, reason="the generators need .tools/bin/uv, which `make` installs"
)
def test_stubs_are_current(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "generate_python.sh", tmp_path], check=True)

    assert differing(ROOT / "client_stubs" / "python" / STUBS, tmp_path / STUBS) == [], "run `make proto`"

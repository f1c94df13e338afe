"""The named ways to break the code fit the code. That the tests notice them is seen by `make mutations`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_mutations_fit_the_code_and_name_tests_that_are_there() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "mutate.py", "--check"], capture_output=True, text=True, cwd=ROOT
    )

    assert run.returncode == 0, run.stdout + run.stderr

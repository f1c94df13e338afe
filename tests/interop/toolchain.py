"""What a test needs of the machine, and how it runs it."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest


def need_programs(*programs: str) -> None:
    """Skips the test where one of these is not on the path; in CI the test fails."""
    need_none([program for program in programs if shutil.which(program) is None])


def need_none(missing: Sequence[str]) -> None:
    """The same for what was found to be missing."""
    if missing:
        told = f"this machine has no {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)


def ran(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Runs a command that must succeed; returns what it prints."""
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

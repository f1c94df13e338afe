"""What a test needs of the machine."""

import os
import shutil
from collections.abc import Sequence

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

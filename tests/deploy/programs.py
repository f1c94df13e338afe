"""Programs that are not from the lock."""

import os
import shutil

import pytest


def find_haproxy() -> str:
    """Its path. Without it the test is skipped, but for CI, where it fails: there it must be installed."""
    program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is not None:
        return program
    text = "no haproxy on this machine (apt-get install haproxy)"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)

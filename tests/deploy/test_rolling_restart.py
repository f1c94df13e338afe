"""The short form of the proof: `python scripts/rolling_restart.py` is the long one."""

import subprocess
import sys

import pytest

from deploy.programs import find_haproxy
from deploy.rendered import ROOT


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("propagation", "long"),
    [
        pytest.param("1", "0", id="HAProxy notices in time"),
        pytest.param("0", "3", id="the clients ask again, and calls are cut"),
    ],
)
def test_callers_do_not_notice_that_both_servers_are_replaced(propagation: str, long: str) -> None:
    find_haproxy()
    command = [sys.executable, str(ROOT / "scripts/rolling_restart.py"), "--streams", "16", "--grace", "2"]
    arguments = ["--long", long, "--propagation", propagation]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    16 of 16 streams went on with a full request" in done.stdout

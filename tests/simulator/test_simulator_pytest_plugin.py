"""The fixtures, in a pytest run of their own, as a user has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USER_TESTS = """
import httpx
from warmline_simulator import Reply, Script, ev

ASK = {"model": "m", "input": "hi"}

async def test_async_passes(simulator):
    sim = await simulator(Script(posts=[Reply(events=ev.text_response("x"))]))
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(sim.base_url + "/responses", json=ASK)).status_code == 200

def test_sync_passes(simulator_server):
    sim = simulator_server.start(Script(posts=[Reply(status=503)]))
    assert httpx.post(simulator_server.base_url + "/responses", json=ASK, trust_env=False).status_code == 503
    assert len(sim.requests) == 1

async def test_async_unfinished_errs(simulator):
    await simulator(Script(posts=[Reply()]))

def test_sync_unfinished_errs(simulator_server):
    simulator_server.start(Script(posts=[Reply()]))
"""


def test_fixtures_pass_and_fail_with_the_script(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["warmline_simulator.pytest_plugin"]\n')
    (tmp_path / "test_user.py").write_text(USER_TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    command = [sys.executable, "-m", "pytest", "-rE", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=50)

    assert "4 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    for name in ("test_async_unfinished_errs", "test_sync_unfinished_errs"):
        assert f"ERROR test_user.py::{name}" in done.stdout
    assert done.stdout.count("never asked for: posts[0]: asked for 0 of 1 times") >= 2

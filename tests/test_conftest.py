"""What holds for every test does fail the test that breaks it."""

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parent / "conftest.py"

TESTS = """
import asyncio
import pytest

held = set()

@pytest.fixture
async def server():
    task = asyncio.create_task(asyncio.Event().wait())
    yield
    task.cancel()

async def test_leaks():
    held.add(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))

async def test_ends_soon():
    held.add(asyncio.create_task(asyncio.sleep(0.01)))

async def test_cleans_up_in_a_fixture(server):
    pass

def test_waits_for_nothing():
    pass
"""


def test_async_test_that_leaves_a_task_fails(tmp_path: Path) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert run.returncode == 1, run.stdout
    assert "4 passed, 1 error" in run.stdout
    assert "name='forgotten'" in run.stdout

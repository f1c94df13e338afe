"""The short forms of the long proofs: everything ends and nothing is left; memory and time are for a quiet machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def run(module: str, *arguments: str) -> str:
    """Runs a proof, which must hold. Returns: what it printed."""
    command = [sys.executable, "-m", f"soak.{module}", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environ, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_mixed_load_with_cancels_and_faults_leaves_nothing_behind(tmp_path: Path) -> None:
    printed = run("run", "--short", "--minutes", "0.15", "--rate", "30", "--out", str(tmp_path))
    found = json.loads((tmp_path / "soak.json").read_text())
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]

    assert "FAIL" not in printed
    # The load was what it says: it was there, and it was left.
    assert found["figures"]["turns"] > 50
    assert found["figures"]["cancelled"] > 10
    assert max(sample["tasks"] for sample in samples) > found["figures"]["tasks_before"]
    assert max(sample["sessions"] for sample in samples) > found["figures"]["sessions_after"] == 0


@pytest.mark.timeout(600)
def test_whoever_leaves_stops_the_upstream() -> None:
    printed = run("cancels", "--calls", "60", "--no-limit")

    assert "60 calls were left" in printed
    for way in ("cancels the call", "CancelTurn", "its deadline passes", "its channel is closed", "process is killed"):
        assert way in printed


@pytest.mark.timeout(600)
def test_stuck_readers_are_ended_and_cut_off_and_cost_the_others_nothing() -> None:
    # Longer than a busy machine holds up the others.
    size = ("--rounds", "1", "--turns", "1", "--others", "20", "--readers", "4", "--slow-reader", "6")
    printed = run("slow_reader", *size, "--no-limit")

    assert "2 of 2 ended as slow readers" in printed
    assert "0 tasks left of 4 readers" in printed

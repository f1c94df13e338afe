"""The benchmark's own reckoning: what it reads off histograms, clocks and results, and how its cells are made."""

import contextlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bench import figures, proc, report
from bench.capacity import RUNGS, highest
from bench.cells import CELLS, SHORT
from bench.children import ROOT, plain_words
from bench.figures import Measured, Sample
from bench.forecast import Forecast, former_seconds
from bench.load import Histogram, Loaded
from bench.load_cell import Load
from bench.memory import slope
from bench.paths import PATHS
from bench.peers import PEER_PATHS
from bench.stats import Spread, short
from bench.upstreams import Shape

WAYS = {**PATHS, **PEER_PATHS}


NOTHING = Histogram()


def _loaded(first_us: Histogram = NOTHING, **values: float) -> Loaded:
    counts = dict.fromkeys(("streams", "cancelled", "failed", "events", "deltas", "lost", "stalls"), 0)
    fields = {**counts, "elapsed_s": 1.0, "cpu_s": 0.0, **values}
    return Loaded(first_us=first_us, gap_us=NOTHING, latency_us=NOTHING, turn_us=NOTHING, **fields)  # type: ignore[arg-type]


def _sample(loaded: Loaded, cpu_s: float | None = None) -> Sample:
    return Sample(loaded, cpu_s, 0.0, {})


def test_a_quantile_is_the_least_value_that_so_many_samples_do_not_exceed() -> None:
    histogram = Histogram(((10, 98), (20, 1), (500, 1)))
    assert [histogram.quantile(share) for share in (0.5, 0.98, 0.99, 1.0)] == [10, 10, 20, 500]
    assert math.isnan(Histogram().quantile(0.5))


def test_histograms_add_up() -> None:
    both = Histogram(((10, 2), (30, 1))) + Histogram(((20, 1), (30, 4)))
    assert both.bars == ((10, 2), (20, 1), (30, 5))


def test_a_tail_is_that_of_all_repeats_together_and_a_median_that_of_the_repeats() -> None:
    samples = [_sample(_loaded(Histogram(((1000, 999), (9000 + n, 1))))) for n in range(5)]
    samples.append(_sample(_loaded(Histogram(((1000, 900), (7000, 100))))))
    tail, middle = figures.FIRST_P99.spread(samples), figures.FIRST_P50.spread(samples)
    assert (tail.median, tail.least, tail.most, tail.samples) == (7.0, 1.0, 7.0, 6000)
    assert (middle.median, middle.repeats) == (1.0, 6)


def test_a_p99_of_few_samples_is_told() -> None:
    spread = figures.FIRST_P99.spread([_sample(_loaded(Histogram(((1, 999),))))])
    assert figures.FIRST_P99.complaint(spread) == "first event p99: only 999 samples"
    assert not figures.FIRST_P99.complaint(figures.FIRST_P99.spread([_sample(_loaded(Histogram(((1, 1000),))))]))


def test_cpu_is_per_event_and_absent_where_nothing_is_between() -> None:
    assert figures.CPU_EVENT.of(_sample(_loaded(events=200), 0.01)) == pytest.approx(50.0)
    assert math.isnan(figures.CPU_EVENT.of(_sample(_loaded(events=200))))
    dropped_some = Sample(_loaded(events=150), 0.01, 0.0, {"events_written": 200})
    assert figures.CPU_EVENT.of(dropped_some) == pytest.approx(50.0)


def test_cpu_time_of_a_process_counts_its_children_and_its_threads() -> None:
    spin = "import time\nend = time.thread_time() + 0.2\nwhile time.thread_time() < end: pass\n"
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {spin + 'print(1, flush=True); input()'!r}])\nchild.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        spent = proc.CpuTime.of(process.pid)
        assert len(proc.descendants(process.pid)) == 2
        assert spent.since(proc.CpuTime({(0, 0): 0} if not spent.threads_ns else {}, 0.0)) >= 0.2
        process.communicate("\n")


def test_a_thread_that_ended_is_counted_by_the_coarse_clock() -> None:
    before = proc.CpuTime({(1, 1): 10**9, (1, 2): 10**9}, 2.0)
    assert proc.CpuTime({(1, 1): 2 * 10**9}, 3.5).since(before) == pytest.approx(1.5)
    assert proc.CpuTime({(1, 1): 2 * 10**9, (1, 2): 10**9, (1, 3): 10**6}, 9.0).since(before) == pytest.approx(1.001)


def test_resident_memory_is_that_of_this_process() -> None:
    ballast = bytearray(os.urandom(1)) * (32 << 20)
    assert proc.rss_bytes(os.getpid()) > len(ballast)


def test_figures_are_shown_beside_the_direct_path_and_the_relay() -> None:
    cell = next(cell for cell in CELLS if cell.name == "first-c64")
    values = {"direct": 0.5, "relay": 1.0, "warmline": 2.0, "smg": 3.0, "direct-http": 1.0}
    measured = {
        name: Measured(cell.name, name, {column.name: Spread.of([value] * 2) for column in cell.columns})
        for name, value in values.items()
    }
    measured["warmline"].lost = 3
    lines = {line[0]: line[1:] for line in report.rows(cell, measured, WAYS)}
    assert lines["Warmline"][0] == "2.00 (2.00 to 2.00), added 1.50"
    assert lines["Warmline"][-2] == "2.00 (2.00 to 2.00), 2.00 x relay"
    assert lines["SMG 1.13.0"][0].endswith("added 2.00")
    assert lines["Warmline"][-1].startswith("LOST 3 deltas")
    assert "added" not in lines["direct, WebSocket"][0]


def test_numbers_have_three_digits() -> None:
    assert [short(value) for value in (0.01234, 1.234, 123.4, 123456.0, 0.0)] == [
        "0.012",
        "1.23",
        "123",
        "123,456",
        "0",
    ]


def test_published_words_hold_neither_addresses_nor_paths() -> None:
    told = plain_words("go: reading https://host.example/x/@v/list: 403 Forbidden in /home/someone/project/file.go")
    assert told == "go: reading its registry: 403 Forbidden in .../file.go"


def test_cells_have_names_of_their_own_and_known_paths() -> None:
    names = [cell.name for cell in CELLS]
    assert len({*names}) == len(names)
    assert all(path in WAYS for cell in CELLS for path in cell.paths)
    assert all(any(f"{name}-".startswith(f"{word}-") for name in names) for word in SHORT)
    groups = {cell.group: cell.columns for cell in CELLS if cell.group}
    assert all(cell.columns == groups[cell.group] for cell in CELLS if cell.group)


def test_a_p99_has_its_thousand_samples_in_five_repeats() -> None:
    for cell in CELLS:
        if isinstance(cell, Load) and figures.FIRST_P99 in cell.figures:
            workers, turns = cell.plan["workers"], cell.plan["turns"]
            assert isinstance(workers, int)
            assert isinstance(turns, int)
            assert 5 * workers * turns >= figures.ENOUGH_FOR_P99, cell.name


def test_the_largest_count_that_holds_is_found_from_either_side_and_asked_for_but_once() -> None:
    for first, stride, limit in itertools.product(range(20), (1, 3, 8), range(-1, 20)):
        asked: list[int] = []

        def holds(rung: int, limit: int = limit, asked: list[int] = asked) -> bool:
            asked.append(rung)
            return rung <= limit

        assert highest(first, stride, 20, holds) == limit
        assert len({*asked}) == len(asked)


def test_a_search_for_the_largest_count_takes_few_rounds() -> None:
    """Each takes seconds: a first search over the whole ladder, and one more where the answer is known."""
    for limit in range(-1, len(RUNGS)):
        asked: list[int] = []

        def holds(rung: int, limit: int = limit, asked: list[int] = asked) -> bool:
            asked.append(rung)
            return rung <= limit

        highest(28, 8, len(RUNGS), holds)
        assert len(asked) <= 9
        asked.clear()
        highest(max(0, limit), 2, len(RUNGS), holds)
        assert len(asked) <= 3


def test_a_figure_without_a_value_is_null_in_the_json() -> None:
    results = report.Results({"cores": "2"})
    results.cells["x"] = {"direct": Measured("x", "direct", {"cpu": Spread.of([math.nan])})}
    assert '"median": null' in report.as_json(results)


def test_growth_per_call_is_the_slope_through_all_readings() -> None:
    base = 70 << 20
    readings = [(1000 * n, base + 40_000 * n + (200_000 if n == 3 else 0)) for n in range(21)]
    assert slope([(1000 * n, base + 40_000 * n) for n in range(21)]) == pytest.approx(40)
    # Two readings alone would say 106 or none at all.
    assert slope(readings) == pytest.approx(38, abs=2)
    assert math.isnan(slope([(0, base), (0, base)]))


def test_what_a_run_still_takes_is_told_by_the_run_before(tmp_path: Path) -> None:
    settings: dict[str, object] = {"repeats": 5, "short": False}
    results = report.Results({}, settings=settings, seconds={"a": 30.0, "b": 90.0, "c": 400.0})
    (tmp_path / "results.json").write_text(report.as_json(results))

    forecast = Forecast(["a", "b", "new"], former_seconds(tmp_path / "results.json", settings))
    assert forecast.told() == "about 4 min left"
    forecast.took("b", 91.0)
    assert forecast.left_s == 30.0 + (90.0 + 91.0) / 2
    assert former_seconds(tmp_path / "results.json", {**settings, "repeats": 1}) == {}
    assert former_seconds(tmp_path / "none.json", settings) == {}


def test_without_a_run_before_it_is_told_by_the_cells_so_far() -> None:
    forecast = Forecast(["a", "b", "c", "d", "e"], {})
    for cell, seconds in (("a", 300.0), ("b", 10.0), ("c", 30.0)):
        assert forecast.told() == "time left unknown"
        forecast.took(cell, seconds)
    assert forecast.left_s == 60.0


NEEDS_GO = pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")


@NEEDS_GO
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_run_that_is_ended_keeps_what_it_has_and_leaves_nothing_running(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As under nohup: SIGINT is ignored when it starts."""
    command = [sys.executable, "-m", "bench", "--short", "--repeats", "1", "--only", "first-c1", "turn-cold", "cpu"]
    mark = f"bench-test-{os.getpid()}-{number.name}"
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "BENCH_TEST": mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "cell 2 of" in line:
                break
        # Something runs for the second cell by now, or is being started.
        process.send_signal(number)
        told = process.stderr.read()

    assert process.returncode == 128 + number, told
    assert f"ended by {number.name}" in told
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["cells"]) == ["first-c1"]
    assert all(why == f"the run was ended by {number.name}" for why in results["not_measured"].values())
    assert "turn-cold" in results["not_measured"]
    assert [pid for pid in proc.descendants(1) if mark in environ_of(pid)] == []


def environ_of(pid: int) -> str:
    """What a process was started with; blank for one that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return ""


@NEEDS_GO
@pytest.mark.timeout(600)
def test_the_load_client_and_the_upstream_pass_their_own_tests() -> None:
    done = subprocess.run(["go", "test", "./..."], cwd=ROOT / "bench", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_threads_of_this_process_have_a_clock() -> None:
    seen = threading.Event()
    thread = threading.Thread(target=lambda: (seen.wait(), None))
    thread.start()
    try:
        assert len(proc.CpuTime.of(os.getpid()).threads_ns) >= 2
    finally:
        seen.set()
        thread.join()


def test_lines_are_warmed_up_by_a_short_answer_of_the_same_kind() -> None:
    shape = Shape(words=200, pace_s=0.02, first_delay_s=0.1, event_bytes=320, tool=1)
    assert shape.for_warming_up == Shape(words=8, event_bytes=320, tool=1)
    assert Shape(words=4).for_warming_up == Shape(words=4)

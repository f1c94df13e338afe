"""What the verdict sees in samples, and what it does not mistake for a leak."""

import random
from dataclasses import replace

import pytest

from soak.verdict import MIB, Verdict, growth
from soak.vitals import Metrics, Sample, read_metrics, worst_lag_s

STILL = Sample(
    at_s=0, rss_bytes=100 * MIB, anonymous_bytes=60 * MIB, descriptors=100, threads=20, cpu_s=0.0, tasks=90,
    lag_s=0.001, calls=30, sessions=100, sockets=60, upstream_connections=70, turns=0, cancelled=0,
)  # fmt: skip


def course(per_cancelled_bytes: float, *, spikes: bool = False, warm_up: bool = True) -> list[Sample]:
    """Twenty minutes of samples, a cancelled call each 50 ms, with noise of half a MiB."""
    dice, samples = random.Random(1), []
    for number in range(600):
        at_s, cancelled = number * 2.0, number * 40
        rss = 100 * MIB + per_cancelled_bytes * cancelled + dice.gauss(0, 0.5) * MIB
        if warm_up and number < 120:
            rss -= 30 * MIB * (1 - number / 120)
        if spikes and number % 50 == 49:
            rss += 40 * MIB
        samples.append(replace(STILL, at_s=at_s, rss_bytes=round(rss), cancelled=cancelled, turns=3 * cancelled))
    return samples


@pytest.mark.parametrize(
    ("per_cancelled_bytes", "spikes", "holds"),
    [(0, False, True), (0, True, True), (80, False, True), (300, False, False), (300, True, False)],
    ids=["flat", "flat with spikes", "little", "a leak", "a leak under spikes"],
)
def test_memory_that_grows_with_cancelled_calls_is_told_from_noise_and_warm_up(
    per_cancelled_bytes: float, spikes: bool, holds: bool
) -> None:
    verdict = Verdict()
    verdict.judge_memory(course(per_cancelled_bytes, spikes=spikes))

    assert verdict.holds == holds
    assert verdict.figures["rss_bytes_per_cancelled"] == pytest.approx(per_cancelled_bytes, abs=25)


def test_growth_is_the_line_through_the_windows() -> None:
    found = growth([float(n) for n in range(240)], [1000.0 + 2 * n for n in range(240)], windows=24)

    assert found.base == pytest.approx(1000)
    assert found.total == pytest.approx(2 * 239)
    assert found.noise == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("drift", "holds"), [(0.0, True), (0.1, False)])
def test_a_count_that_drifts_is_seen_beneath_the_load_that_moves_it(drift: float, holds: bool) -> None:
    dice = random.Random(2)
    samples = [replace(STILL, at_s=n * 2.0, tasks=round(90 + dice.gauss(0, 10) + drift * n)) for n in range(600)]
    verdict = Verdict()
    verdict.judge_growth(samples, "tasks", "tasks")

    assert verdict.holds == holds


def test_what_is_left_at_rest_is_named() -> None:
    rest = replace(STILL, descriptors=30, upstream_connections=4, tasks=22, calls=0, sessions=0, sockets=0)
    kept = replace(rest, descriptors=31, upstream_connections=5)
    left = replace(rest, descriptors=31, tasks=23, sessions=1)
    clean, dirty = Verdict(), Verdict()
    clean.judge_return(rest, kept)
    dirty.judge_return(rest, left)

    assert clean.holds, "an idle connection to the upstream is kept for the next request"
    assert [text.split(" before")[0] for holds, text in dirty.lines if not holds] == [
        "open descriptors but connections upstream",
        "tasks of the event loop",
        "sessions",
    ]


def test_metrics_are_read_and_the_worst_lag_is_that_between_two_scrapes() -> None:
    def scrape(*counts: int) -> Metrics:
        lines = [
            f'warmline_event_loop_lag_seconds_bucket{{service="w",le="{bound}"}} {count}.0'
            for bound, count in zip(("0.001", "0.1", "+Inf"), counts, strict=True)
        ]
        other = ['warmline_sessions{warmline_state="a"} 2.0', 'warmline_sessions{warmline_state="b"} 3.0', "# HELP x y"]
        return read_metrics("\n".join([*lines, *other]))

    before = scrape(5, 9, 9)

    assert before.value("warmline_sessions") == 5
    assert worst_lag_s(before, scrape(8, 12, 12)) == 0.001
    assert worst_lag_s(before, scrape(8, 13, 13)) == 0.1
    assert worst_lag_s(before, before) == 0

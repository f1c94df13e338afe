"""What the harness tells of its runs, and when it is content."""

import asyncio
import dataclasses
import re
import sys
from pathlib import Path

import pytest

from interop import harness, languages, report, scenario
from interop.harness import Outcome, Results
from interop.languages import Language

NOT_CLIENTS = {"scenarios"}


def results(**changes: object) -> Results:
    played = [
        Outcome(
            language="python",
            scenario="cancel",
            failures=(),
            versions="Python 3",
            cancel_s={"early": 0.004, "late": 0.0304},
        ),
        Outcome(language="python", scenario="open", failures=()),
        Outcome(language="go", scenario="cancel", failures=("step 1",), versions="Go 1", cancel_s={"early": 0.1011}),
        Outcome(language="go", scenario="open", failures=()),
    ]
    made = Results(outcomes=played, build_s={"python": 1.0, "go": 2.0})
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_table_has_each_scenario_by_language_and_names_the_slowest_cancel() -> None:
    assert report.table(results(skipped={"typescript": "this machine has no npm"})).splitlines() == [
        "| scenario | python | go | typescript |",
        "| --- | --- | --- | --- |",
        "| cancel | ok | FAILED | skipped |",
        "| open | ok | ok | skipped |",
        "| slowest cancel stops the upstream after | 30 ms (late, of 2) | 101 ms (early, of 1) |  |",
    ]


def test_summary_says_plainly_what_was_too_slow_failed_or_did_not_play() -> None:
    told = report.summary(results(skipped={"typescript": "this machine has no npm"})).splitlines()

    assert told == [
        "python: 2 of 2 scenarios ok; built in 1 s, played in 0 s",
        "python: 2 cancels stopped the upstream after late 30 ms, early 4 ms; within 100 ms",
        "go: 1 of 2 scenarios ok, cancel FAILED; built in 2 s, played in 0 s",
        "go: 1 cancels stopped the upstream after early 101 ms; ABOVE 100 ms: early",
        "typescript: skipped, this machine has no npm",
    ]


GOOD = [Outcome(language="python", scenario="open", failures=())]


@pytest.mark.parametrize(
    ("found", "is_ci", "expected"),
    [
        (Results(outcomes=GOOD), True, True),
        (Results(outcomes=GOOD, skipped={"go": "this machine has no go"}), False, True),
        (Results(outcomes=GOOD, skipped={"go": "this machine has no go"}), True, False),
        (Results(outcomes=GOOD, broken={"go": "go build: no"}), False, False),
        (results(), False, False),
    ],
)
def test_harness_is_content_when_all_played_well(found: Results, is_ci: bool, expected: bool) -> None:
    assert found.is_good(is_ci=is_ci) is expected


async def test_language_that_cannot_be_had_does_not_stop_the_others() -> None:
    there = languages.present()
    no_program = dataclasses.replace(there["go"], needs=("no-such-program",))
    no_build = dataclasses.replace(there["typescript"], needs=(), build=(("sh", "-c", "echo broken; exit 1"),))

    found = await harness.play_all(["metadata"], [no_program, no_build, there["python"]])

    assert found.skipped == {"go": "this machine has no no-such-program"}
    assert "broken" in found.broken["typescript"]
    assert [(outcome.language, outcome.failures) for outcome in found.outcomes] == [("python", ())]


async def test_runner_that_hangs_is_ended_and_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RUN_S", 0.2)
    sleeper = Language(
        name="sleeper", present=tmp_path, run=(sys.executable, "-c", "import signal; signal.pause()"), cwd=tmp_path
    )

    async with asyncio.timeout(30):
        outcome = await harness.play(scenario.load("open", tmp_path), sleeper, tmp_path)

    assert outcome.failures[0] == "the runner took longer than 0 s"


def test_page_has_every_scenario_as_it_is_now(tmp_path: Path) -> None:
    told = dict(re.findall(r"^- `(\w+)`: (.*)$", report.PAGE.read_text(), re.MULTILINE))

    assert told == {name: scenario.load(name, tmp_path).title for name in scenario.names()}, "run `make interop`"


def test_every_client_has_its_runner_in_the_table_of_languages() -> None:
    folders = {path.name for path in (scenario.ROOT / "client_stubs").iterdir() if path.is_dir()}

    assert set(languages.present()) == folders - NOT_CLIENTS

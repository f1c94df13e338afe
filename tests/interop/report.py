"""The table of scenarios and languages: on the terminal, and as docs/interop.md."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from interop import scenario

if TYPE_CHECKING:
    from interop.harness import Outcome, Results

PAGE = scenario.ROOT / "docs" / "interop.md"

# How soon the upstream shall stop after a turn was left.
CANCEL_GOAL_S = 0.1

_HEAD = """# Interoperability

Every client plays the same [scenarios](../client_stubs/scenarios/README.md) against the real server with the
[simulator](simulator.md) behind it; what a real server never does is played by a fake one. Written by `make interop`.

"""


def line(outcome: Outcome) -> str:
    """One outcome on one line, more when it went wrong."""
    state = "failed" if outcome.failures else "ok"
    head = f"{outcome.language:<11} {outcome.scenario:<24} {state:<6} {outcome.duration_s:5.1f} s"
    return "\n".join([head, *(f"    {failure}" for failure in outcome.failures)])


def table(results: Results) -> str:
    """Scenario by language, as Markdown."""
    columns = results.languages
    states = {(o.scenario, o.language): "FAILED" if o.failures else "ok" for o in results.outcomes}
    untried = {**dict.fromkeys(results.skipped, "skipped"), **dict.fromkeys(results.broken, "NOT BUILT")}
    rows = list(dict.fromkeys(outcome.scenario for outcome in results.outcomes))
    cells = [["scenario", *columns], ["---"] * (len(columns) + 1)]
    cells += [[row, *(states.get((row, column), untried.get(column, "")) for column in columns)] for row in rows]
    cells.append(["slowest cancel stops the upstream after", *(_slowest(results, column) for column in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def summary(results: Results) -> str:
    """What the table cannot say: how fast cancels were, how long it took, and who did not play, one line each."""
    return "\n".join(_summary(results))


def write(results: Results) -> None:
    """Writes docs/interop.md."""
    versions = {outcome.language: outcome.versions for outcome in results.outcomes if outcome.versions}
    absent = dict.fromkeys(results.broken, "could not be built") | results.skipped
    made_of = "\n".join(f"- {name}: {text}" for name, text in (versions | absent).items())
    with tempfile.TemporaryDirectory() as scratch:
        titles = {name: scenario.load(name, Path(scratch)).title for name in scenario.names()}
    what = "\n".join(f"- `{name}`: {title}" for name, title in titles.items())
    PAGE.write_text(f"{_HEAD}{table(results)}\n\nThe scenarios:\n\n{what}\n\nThe runners:\n\n{made_of}\n")


def _summary(results: Results) -> Iterator[str]:
    for name in results.languages:
        if why := results.skipped.get(name):
            yield f"{name}: skipped, {why}"
        elif why := results.broken.get(name):
            yield f"{name}: {why}"
        else:
            mine = [outcome for outcome in results.outcomes if outcome.language == name]
            failed = [outcome.scenario for outcome in mine if outcome.failures]
            took_s = sum(outcome.duration_s for outcome in mine)
            yield (
                f"{name}: {len(mine) - len(failed)} of {len(mine)} scenarios ok"
                f"{''.join(f', {scenario} FAILED' for scenario in failed)}; "
                f"built in {results.build_s[name]:.0f} s, played in {took_s:.0f} s"
            )
            yield from _cancels(results, name)


def _cancels(results: Results, language: str) -> Iterator[str]:
    """Each cancel of a language, slowest first, and whether that is soon enough."""
    found = _sorted_cancels(results, language)
    if not found:
        return
    slowest, seconds = found[0]
    goal = f"{CANCEL_GOAL_S * 1000:.0f} ms"
    verdict = f"ABOVE {goal}: {slowest}" if seconds > CANCEL_GOAL_S else f"within {goal}"
    each = ", ".join(f"{turn} {seconds * 1000:.0f} ms" for turn, seconds in found)
    yield f"{language}: {len(found)} cancels stopped the upstream after {each}; {verdict}"


def _slowest(results: Results, language: str) -> str:
    """The slowest of a language's cancels, and which it was."""
    found = _sorted_cancels(results, language)
    return f"{found[0][1] * 1000:.0f} ms ({found[0][0]}, of {len(found)})" if found else ""


def _sorted_cancels(results: Results, language: str) -> list[tuple[str, float]]:
    found = [item for o in results.outcomes if o.language == language for item in o.cancel_s.items()]
    return sorted(found, key=lambda item: -item[1])

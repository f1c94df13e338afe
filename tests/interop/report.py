"""The table of scenarios and languages: on the terminal, and as docs/interop.md."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interop import scenario

if TYPE_CHECKING:
    from interop.harness import Outcome

PAGE = scenario.ROOT / "docs" / "interop.md"

_HEAD = """# Interoperability

Every client plays the same [scenarios](../client_stubs/scenarios/README.md) against the real server with the
[simulator](simulator.md) behind it; what a real server never does is played by a fake one. Written by `make interop`.

"""


def line(outcome: Outcome) -> str:
    """One outcome on one line, more when it went wrong."""
    state = "failed" if outcome.failures else "ok"
    cancels = "".join(f" cancel {seconds * 1000:.0f} ms" for seconds in outcome.cancel_s)
    head = f"{outcome.language:<11} {outcome.scenario:<24} {state:<6} {outcome.duration_s:5.1f} s{cancels}"
    return "\n".join([head, *(f"    {failure}" for failure in outcome.failures)])


def table(outcomes: Sequence[Outcome]) -> str:
    """Scenario by language, as Markdown."""
    columns = list(dict.fromkeys(outcome.language for outcome in outcomes))
    rows = list(dict.fromkeys(outcome.scenario for outcome in outcomes))
    states = {(o.scenario, o.language): "FAILED" if o.failures else "ok" for o in outcomes}
    cells = [["scenario", *columns], ["---"] * (len(columns) + 1)]
    cells += [[row, *(states.get((row, column), "") for column in columns)] for row in rows]
    cells.append(["cancel stops the upstream after", *(_cancel(outcomes, column) for column in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def write(outcomes: Sequence[Outcome]) -> None:
    """Writes docs/interop.md."""
    versions = {outcome.language: outcome.versions for outcome in outcomes if outcome.versions}
    made_of = "\n".join(f"- {name}: {text}" for name, text in versions.items())
    with tempfile.TemporaryDirectory() as scratch:
        titles = {name: scenario.load(name, Path(scratch)).title for name in scenario.names()}
    what = "\n".join(f"- `{name}`: {title}" for name, title in titles.items())
    PAGE.write_text(f"{_HEAD}{table(outcomes)}\n\nThe scenarios:\n\n{what}\n\nThe runners:\n\n{made_of}\n")


def _cancel(outcomes: Sequence[Outcome], language: str) -> str:
    """The slowest of a language's cancels."""
    seconds = [s for outcome in outcomes if outcome.language == language for s in outcome.cancel_s]
    return f"{max(seconds) * 1000:.0f} ms" if seconds else ""

"""The matrix as text: the page docs/chaos.md, and what a cell is called in it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from chaos.callers import CALLER_FAULTS, CallerCell
from chaos.cell import Cell
from chaos.effects import Senseless
from chaos.matrix import FAULTS, all_cells, caller_cells, for_good, other_modes
from chaos.phases import TRANSPORTS, Phase, TransportName
from chaos.rules import REQUEST_RETRIES, STREAM_RETRIES, Expected

PAGE = Path(__file__).resolve().parents[2] / "docs" / "chaos.md"
AnyCell = Cell | CallerCell
NAMES: dict[TransportName, str] = {"ws": "WebSocket", "http": "HTTP"}

HEAD = """# Chaos

What a caller sees when something goes wrong, by fault, phase and transport. Made by `make chaos`, which runs every cell
below against the real server, with a proxy that misbehaves (`tests/chaos/proxy.py`) and the [simulator](simulator.md)
as the upstream, and ends with 1 when one is not as it says here; `make test` runs them too.

In each cell a session has a turn that goes well, a turn that meets the fault, and another one that must go well and
carry the whole conversation. The expectations are rules (`tests/chaos/rules.py`), written from the design: what a fault
does to an exchange, and what must follow in that phase. Compared are

- the ending: status, reason, RetryInfo, the announced waits, resends and falls back, and where the sockets came from;
- what was delivered: sequence numbers without gaps, each attempt's events as the upstream sent them, none twice;
- the trace: the spans of the turn, its RPC, its handshakes and its attempts ended with the status, the ids and the
  links that they must have, and ListInferences says the same;
- what is left: no task, no socket, no span, no answer under way upstream, no more WebSockets than are kept.

Limits are the product's defaults, on a clock that is moved by hand.

## How to read it

| in a cell | means |
| --- | --- |
| done | the turn completes, and its caller notices nothing |
| resent | the attempt is lost and announced so; another one completes the turn |
| over HTTP | the attempt, or with "for good" the session, goes over HTTP, and the turn completes |
| kept on | under REFERENCE: `restarted`, finished items stay, another attempt goes on after them |
| incomplete | the turn ends with `incomplete` and its reason, and OK |
| `CODE` reason | the call fails with that status; reasons without their `UPSTREAM_` |
| 2/1 | attempts in the trace, and requests that came to the upstream; 1/1 is left out |
| - | there is no such thing; the number says why |

The phases, in the order in which a turn passes them:

| phase | where the exchange is |
| --- | --- |
| connect | the connection is asked for |
| handshake | the upgrade, or the POST, is upstream, and no head of an answer has come |
| before created | the answer has begun and told nothing |
| mid-delta | two pieces of text were delivered |
| after an item | one item is done, another will follow |
| at the terminal | all items are done, the terminal event is next |
| idle | between two turns: the former one's connection is kept |

"""


def say(expected: Expected) -> str:
    """A cell's expectation in few words."""
    count = f" {len(expected.attempts)}/{expected.requests}"
    count = "" if count == " 1/1" else count
    if expected.code:
        reason = expected.ending.removeprefix("UPSTREAM_").lower().replace("_", " ")
        return f"`{expected.code}` {reason}".rstrip() + count
    if expected.ending == "incomplete":
        return "incomplete" + count
    if expected.fell_back is not None:
        return "over HTTP" + (" for good" if expected.fell_back[0] else "") + count
    if expected.answered_by == "both":
        return "kept on" + count
    return ("resent" if expected.waits else "done") + ("" if not expected.attempts else count)


class _Notes:
    """Why combinations do not exist, numbered."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, senseless: Senseless) -> str:
        """The mark of a reason."""
        return f"- <sup>{self._numbers.setdefault(senseless.why, len(self._numbers) + 1)}</sup>"

    def lines(self) -> list[str]:
        """The reasons."""
        return [f"{number}. {why}" for why, number in self._numbers.items()]


def _table(cells: Iterable[AnyCell], notes: _Notes) -> list[str]:
    """Rows of faults, columns of the phases that occur."""
    rows: dict[str, dict[Phase, str]] = {}
    for cell in cells:
        found = cell.expected
        text = notes.of(found) if isinstance(found, Senseless) else say(found)
        rows.setdefault(cell.fault.name, {})[cell.phase] = text
    phases = [phase for phase in Phase if any(phase in row for row in rows.values())]
    lines = ["| fault | " + " | ".join(phase.value for phase in phases) + " |", "| --- " * (len(phases) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(row.get(phase, "") for phase in phases) + " |")
    return [*lines, ""]


def _faults() -> list[str]:
    lines = ["## The faults", "", "| fault | what happens |", "| --- | --- |"]
    lines += [f"| {fault.name} | {fault.says} |" for fault in FAULTS]
    lines += [f"| caller {fault.name} | {fault.says} |" for fault in CALLER_FAULTS]
    return [*lines, ""]


def _section(title: str, words: Sequence[str], cells: Sequence[AnyCell], notes: _Notes) -> list[str]:
    lines = [f"## {title}", "", *words, *([""] if words else [])]
    for transport in TRANSPORTS:
        mine = [cell for cell in cells if cell.transport == transport]
        lines += [f"### {title}: {NAMES[transport]}", "", *_table(mine, notes)]
    return lines


def page() -> str:
    """The page, from the expectations."""
    notes = _Notes()
    lines = [*_faults()]
    lines += _section("Default mode", ["`retry` is BEFORE_OUTPUT; the fault happens once."], list(all_cells()), notes)
    others = list(other_modes())
    for mode, about in (
        ("reference", "`retry` is REFERENCE: after output, too, a lost response is resent, and said so."),
        ("never", "`retry` is NEVER: the first failure ends the call. What was never sent may still go over HTTP."),
    ):
        mine = [cell for cell in others if cell.mode == mode and not cell.tool_call]
        lines += _section(mode.upper(), [about], mine, notes)
    calls = [cell for cell in others if cell.tool_call and cell.mode == "reference"]
    words = [
        "The first item is a call that the caller executes. Under REFERENCE; the other modes end the same here: what",
        "the caller has seen may have been executed, so nothing is sent again.",
    ]
    lines += _section("After a tool call", words, calls, notes)
    words = [
        "Every attempt meets the fault. Budgets of the session: "
        f"{STREAM_RETRIES} resends on each transport, {REQUEST_RETRIES} of a POST without an answer.",
    ]
    lines += _section("For good", words, list(for_good()), notes)
    words = [
        "The caller is at fault. What it is told, where it is still there; upstream the answer is aborted at once."
    ]
    lines += _section("The caller", words, list(caller_cells()), notes)
    return HEAD + "\n".join([*lines, "## What does not exist", "", *notes.lines(), ""])

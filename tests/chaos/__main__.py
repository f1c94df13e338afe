"""`make chaos`: every cell, printed as it ends, and the page that says what each came to.

`python -m chaos --write` writes docs/chaos.md when no cell was wrong; `--only TEXT` runs the cells whose name has it.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos import report
from chaos.callers import CallerCell, run_caller_cell
from chaos.cell import Cell
from chaos.effects import Senseless
from chaos.matrix import all_cells, caller_cells, for_good, other_modes
from chaos.phases import TRANSPORTS, Phase, TransportName
from chaos.run import Result, run_cell
from warmline_cli.serve import run_loop

WIDTH = 20
NAME_WIDTH = 26
AnyCell = Cell | CallerCell


@dataclass(slots=True)
class _Tally:
    only: str
    ran: int = 0
    absent: int = 0
    wrong: list[Result] = field(default_factory=list)


async def _run_cell(cell: AnyCell) -> Result:
    return await (run_caller_cell(cell) if isinstance(cell, CallerCell) else run_cell(cell))


async def _run_row(name: str, cells: Sequence[AnyCell], tally: _Tally) -> None:
    """One fault in its phases: a column each, printed when it is known."""
    print(f"  {name:<{NAME_WIDTH}}", end="", flush=True)
    by_phase = {cell.phase: cell for cell in cells}
    for phase in Phase:
        cell, shown = by_phase.get(phase), ""
        if cell is not None and isinstance(cell.expected, Senseless):
            tally.absent += 1
            shown = "-"
        elif cell is not None and tally.only in str(cell):
            result = await _run_cell(cell)
            tally.ran += 1
            shown = "WRONG" if result.problems else _short(cell)
            if result.problems:
                tally.wrong.append(result)
        print(f"{shown:<{WIDTH}}", end="", flush=True)
    print(flush=True)


def _short(cell: AnyCell) -> str:
    expected = cell.expected
    assert not isinstance(expected, Senseless), "it was run"
    return (expected.code or report.say(expected).removesuffix(" for good"))[: WIDTH - 1]


async def _run_table(title: str, transport: TransportName, cells: Sequence[AnyCell], tally: _Tally) -> None:
    rows: dict[str, list[AnyCell]] = {}
    for cell in cells:
        if cell.transport == transport and tally.only in str(cell):
            extra = f" ({cell.mode})" if isinstance(cell, Cell) and cell.mode != "before_output" else ""
            rows.setdefault(cell.fault.name + extra, []).append(cell)
    if not rows:
        return
    print(f"\n{title}, {report.NAMES[transport]}")
    print(f"  {'':<{NAME_WIDTH}}" + "".join(f"{phase.value:<{WIDTH}}" for phase in Phase))
    for name, row in rows.items():
        await _run_row(name, row, tally)


async def _run_all(tally: _Tally) -> None:
    others = list(other_modes())
    sets: list[tuple[str, Sequence[AnyCell]]] = [
        ("Default mode", list(all_cells())),
        ("Other modes", [cell for cell in others if not cell.tool_call]),
        ("After a tool call", [cell for cell in others if cell.tool_call]),
        ("For good", list(for_good())),
        ("The caller", list(caller_cells())),
    ]
    for title, cells in sets:
        for transport in TRANSPORTS:
            await _run_table(title, transport, cells, tally)


def main() -> int:
    """Runs and prints. Returns: 0 when every cell was as it must be, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/chaos.md")
    parser.add_argument("--only", default="", help="only the cells whose name has this")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the server tells of every fault, and that is all there is here
    tally, started_s = _Tally(arguments.only), time.monotonic()
    run_loop(_run_all(tally))  # on the loop that the server runs on
    for result in tally.wrong:
        print(f"\nWRONG {result.cell}")
        print("\n".join(f"  {problem}" for problem in result.problems))
    took_s = time.monotonic() - started_s
    print(f"\n{tally.ran} cells, {len(tally.wrong)} wrong, {tally.absent} do not exist; {took_s:.0f} s")
    if arguments.write and not tally.wrong and not arguments.only:
        report.PAGE.write_text(report.page())
        print(f"wrote {report.PAGE.name}")
    return 1 if tally.wrong or not tally.ran else 0


if __name__ == "__main__":
    sys.exit(main())

"""The matrix of faults, phases and transports: what each cell must come to is in rules.py, and on docs/chaos.md."""

import pytest

from chaos import report
from chaos.callers import CALLER_FAULTS, CallerCell, run_caller_cell
from chaos.cell import Cell
from chaos.effects import Senseless
from chaos.matrix import FAULTS, all_cells, caller_cells, for_good, other_modes, real
from chaos.phases import TRANSPORTS, Phase
from chaos.run import run_cell


@pytest.mark.parametrize("cell", real(all_cells()), ids=str)
async def test_default_mode(cell: Cell) -> None:
    assert (await run_cell(cell)).problems == []


@pytest.mark.parametrize("cell", real(other_modes()), ids=str)
async def test_other_modes(cell: Cell) -> None:
    assert (await run_cell(cell)).problems == []


@pytest.mark.parametrize("cell", real(for_good()), ids=str)
async def test_for_good(cell: Cell) -> None:
    assert (await run_cell(cell)).problems == []


@pytest.mark.parametrize("cell", real(caller_cells()), ids=str)
async def test_caller(cell: CallerCell) -> None:
    assert (await run_caller_cell(cell)).problems == []


def test_every_fault_is_there_in_every_phase_over_both_transports_or_says_why_not() -> None:
    cells: list[Cell | CallerCell] = [*all_cells(), *caller_cells()]
    assert len({str(cell) for cell in cells}) == (len(FAULTS) + len(CALLER_FAULTS)) * len(Phase) * len(TRANSPORTS)
    for cell in cells:
        found = cell.expected
        if isinstance(found, Senseless):
            assert found.why, f"{cell} does not say why"
    exist = real(all_cells())
    assert {cell.fault.name for cell in exist} == {fault.name for fault in FAULTS}
    assert {(cell.phase, cell.transport) for cell in exist} == {(p, t) for p in Phase for t in TRANSPORTS}


def test_page_says_what_the_cells_must_come_to() -> None:
    assert report.PAGE.read_text() == report.page(), "run `make chaos`"

"""All cells: the matrix itself under the default retry mode, and the smaller sets beside it."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from chaos.callers import CALLER_FAULTS, CallerCell
from chaos.cell import Cell, Fault
from chaos.effects import Senseless
from chaos.network import NETWORK_FAULTS
from chaos.phases import TRANSPORTS, Phase
from chaos.rules import Mode
from chaos.scripted import SCRIPTED_FAULTS, STATUS_FAULTS

FAULTS: tuple[Fault, ...] = (*NETWORK_FAULTS, *STATUS_FAULTS, *SCRIPTED_FAULTS)

# One of each kind of effect: lost, silent, refused in passing, refused for good, healed at no cost, harmless.
FOR_OTHER_MODES = (
    "reset",
    "blackhole",
    "corrupt",
    "426",
    "500",
    "403",
    "error 429",
    "error, forgotten",
    "failed, too long",
    "incomplete",
    "no more",
    "unknown event",
    "two terminals",
)
AFTER_A_CALL = ("reset", "stall", "error 429", "failed", "failed, too long", "bad terminal", "trickle")


LASTING: dict[Phase, tuple[str, ...]] = {
    Phase.CONNECT: ("refuse", "reset", "close", "half-close"),
    Phase.HANDSHAKE: ("200, a page", "301", "404", "429", "500", "503"),
    Phase.BEFORE_CREATED: ("error 500", "error 429", "failed", "bad terminal", "close 1011", "oversize"),
}


def all_cells() -> Iterator[Cell]:
    """Every fault in every phase over both transports, also where that makes no sense."""
    for transport in TRANSPORTS:
        for fault in FAULTS:
            for phase in Phase:
                yield Cell(fault, phase, transport)


def other_modes() -> Iterator[Cell]:
    """Some of each kind under REFERENCE and NEVER, and after a call that the caller executes."""
    modes: tuple[Mode, ...] = ("before_output", "reference", "never")
    for mode in modes[1:]:
        for cell in all_cells():
            if cell.fault.name in FOR_OTHER_MODES:
                yield Cell(cell.fault, cell.phase, cell.transport, mode)
    for mode in modes:
        for cell in all_cells():
            if cell.fault.name in AFTER_A_CALL and cell.phase in (Phase.AFTER_ITEM, Phase.AT_TERMINAL):
                yield Cell(cell.fault, cell.phase, cell.transport, mode, tool_call=True)


def for_good() -> Iterator[Cell]:
    """Faults that every attempt of a turn meets, until its budgets are used up."""
    for cell in all_cells():
        if cell.fault.name in LASTING.get(cell.phase, ()):
            yield Cell(cell.fault, cell.phase, cell.transport, lasting=True)


def caller_cells() -> Iterator[CallerCell]:
    """Every fault of the caller in every phase over both transports, also where that makes no sense."""
    for transport in TRANSPORTS:
        for fault in CALLER_FAULTS:
            for phase in Phase:
                yield CallerCell(fault, phase, transport)


AnyCell = TypeVar("AnyCell", Cell, CallerCell)


def real(cells: Iterable[AnyCell]) -> list[AnyCell]:
    """Those that exist."""
    return [cell for cell in cells if not isinstance(cell.expected, Senseless)]

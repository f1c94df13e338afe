"""Results as tables for the terminal and as Markdown, and as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.ceilings import Ceiling
from bench.cells import CELLS, Cell
from bench.figures import Column, Measured
from bench.paths import Path as Way
from bench.stats import Spread, short

ByPath = Mapping[str, Measured]


@dataclasses.dataclass(slots=True)
class Results:
    """What a run has found so far."""

    facts: Mapping[str, str]
    ceilings: list[Ceiling] = dataclasses.field(default_factory=list)
    simulator: list[str] = dataclasses.field(default_factory=list)
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    not_measured: dict[str, str] = dataclasses.field(default_factory=dict)
    """Cells that broke off, and why."""
    cells: dict[str, dict[str, Measured]] = dataclasses.field(default_factory=dict)
    """By cell and path."""
    settings: dict[str, object] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """How long each cell took."""


def rows(cell: Cell, measured: ByPath, ways: Mapping[str, Way]) -> list[list[str]]:
    """The cell's lines: a path each, a figure per column, remarks last."""
    lines = []
    for name, result in measured.items():
        line = [cell.variant] if cell.group else []
        line.append(ways[name].title)
        line += [_entry(column, name, result.figures[column.name], measured, ways) for column in cell.columns]
        lines.append([*line, "; ".join(_remarks(result))])
    return lines


def _entry(column: Column, name: str, spread: Spread, measured: ByPath, ways: Mapping[str, Way]) -> str:
    if math.isnan(spread.median):
        return "-"
    text = short(spread.median)
    if spread.repeats > 1:
        text += f" ({short(spread.least)} to {short(spread.most)})"
    baseline = ways[name].baseline
    if column.is_added:
        if baseline != name and baseline in measured:
            text += f", added {short(spread.median - measured[baseline].figures[column.name].median)}"
        return text
    floor = measured["relay"].figures[column.name].median if "relay" in measured else 0.0
    if name not in ("relay", baseline) and floor and not math.isnan(floor):
        text += f", {short(spread.median / floor)} x relay"
    return text


def _remarks(result: Measured) -> list[str]:
    remarks = [*dict.fromkeys(result.flags)]
    if result.lost or result.failed:
        first = next(iter(result.errors), "")[:100]
        remarks.insert(0, f"LOST {result.lost} deltas, {result.failed} turns failed: {first}")
    return remarks


def header(cell: Cell) -> list[str]:
    """The names of the columns."""
    names = [f"{column.name}, {column.unit}" for column in cell.columns]
    return [*(["variant"] if cell.group else []), "path", *names, "remarks"]


def terminal(cell: Cell, measured: ByPath, ways: Mapping[str, Way]) -> str:
    """A cell as aligned text."""
    table = [header(cell), *rows(cell, measured, ways)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]) - 1)]
    lines = [f"\n{cell.title} [{cell.name}]"]
    for line in table:
        told = [part.ljust(width) for part, width in zip(line, [*widths, 0], strict=True)]
        lines.append("  " + "  ".join(told).rstrip())
    return "\n".join(lines)


INTRODUCTION = """\
# Benchmark results

Made by `make bench`; [bench/README.md](../../bench/README.md) says what each path and figure is. All paths of a table
were measured in one run, one after the other and over again. A figure is the median of the repeats, with their least
and most in brackets; a p99 is that of all repeats together. `added` is less the direct path's figure of the same table:
WebSocket for the relay and Warmline, POST with server-sent events for peers. `x relay` is the ratio to the bare relay.
"""


def markdown(results: Results, ways: Mapping[str, Way]) -> str:
    """The page of results."""
    parts = [INTRODUCTION, "| run | |\n| --- | --- |"]
    parts[-1] += "".join(f"\n| {name} | {value} |" for name, value in results.facts.items())
    missing = [f"{ways[name].title}: {why}" for name, why in results.skipped.items()]
    missing += [f"{name}: {why}" for name, why in results.not_measured.items()]
    if missing:
        parts.append("Not measured:\n" + "".join(f"\n- {line}" for line in missing))
    if results.ceilings:
        parts.append("## Ceilings of the tools\n\nEach on a core of its own. A row near them carries a remark.\n")
        parts[-1] += "".join(f"\n- {ceiling}" for ceiling in results.ceilings)
        parts[-1] += "".join(f"\n- simulator: {line}" for line in results.simulator)
    for cells in _tables(results):
        head = cells[0]
        lines = [line for cell in cells for line in rows(cell, results.cells[cell.name], ways)]
        parts.append(f"## {head.title}\n\n{head.note}\n\n{_table(header(head), lines)}")
    return "\n\n".join(parts) + "\n"


def _tables(results: Results) -> list[list[Cell]]:
    tables: dict[str, list[Cell]] = {}
    for cell in CELLS:
        if results.cells.get(cell.name):
            tables.setdefault(cell.group or cell.name, []).append(cell)
    return [*tables.values()]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    text = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    text += ["| " + " | ".join(part.replace("|", "/").replace("\n", " ") for part in line) + " |" for line in lines]
    return "\n".join(text)


def as_json(results: Results) -> str:
    """Everything that was measured."""
    return json.dumps(_plain(dataclasses.asdict(results)), indent=1, ensure_ascii=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)

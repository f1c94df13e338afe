"""Results as a table for the terminal, as Markdown and as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cells import Cell, Figure
from bench.measure import Measured
from bench.paths import Path as Way
from bench.stats import Spread, short

Results = Mapping[str, Mapping[str, Measured]]
"""By cell and path."""


def rows(cell: Cell, measured: Mapping[str, Measured], ways: Mapping[str, Way]) -> list[list[str]]:
    """The cell's lines: a path each, a figure per column, ratios to the bare relay in brackets."""
    lines = []
    for name, result in measured.items():
        line = [ways[name].title]
        for figure in cell.figures:
            line.append(_entry(figure, name, result.figures[figure.name], measured, ways))
        line.append("; ".join(_remarks(result)))
        lines.append(line)
    return lines


def _entry(figure: Figure, name: str, spread: Spread, measured: Mapping[str, Measured], ways: Mapping[str, Way]) -> str:
    if math.isnan(spread.median):
        return "-"
    text = f"{short(spread.median)} ({short(spread.least)} to {short(spread.most)})"
    baseline = ways[name].baseline
    if figure.is_added and baseline != name and baseline in measured:
        added = spread.median - measured[baseline].figures[figure.name].median
        text += f", added {short(added)}"
    if not figure.is_added and "relay" in measured and name not in ("relay", baseline):
        floor = measured["relay"].figures[figure.name].median
        if floor and not math.isnan(floor):
            text += f", x{short(spread.median / floor)}"
    return text


def _remarks(result: Measured) -> list[str]:
    remarks = list(result.flags)
    if result.lost or result.failed:
        remarks.insert(
            0, f"LOST {result.lost} deltas, {result.failed} turns failed: {next(iter(result.errors), '')[:120]}"
        )
    return remarks


def header(cell: Cell) -> list[str]:
    return ["path", *(f"{figure.name}, {figure.unit}" for figure in cell.figures), "remarks"]


def terminal(cell: Cell, measured: Mapping[str, Measured], ways: Mapping[str, Way]) -> str:
    """A cell as aligned text."""
    table = [header(cell), *rows(cell, measured, ways)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]) - 1)]
    text = [f"\n{cell.title} [{cell.name}]"]
    for line in table:
        text.append(
            "  " + "  ".join(cellule.ljust(width) for cellule, width in zip(line, [*widths, 0], strict=True)).rstrip()
        )
    return "\n".join(text)


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    text = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    text += ["| " + " | ".join(part.replace("|", "/").replace("\n", " ") for part in line) + " |" for line in lines]
    return "\n".join(text)


def as_json(
    facts: Mapping[str, str], ceilings: Mapping[str, object], results: Results, skipped: Mapping[str, str]
) -> str:
    """Everything that was measured."""
    cells = {cell: {path: dataclasses.asdict(one) for path, one in paths.items()} for cell, paths in results.items()}
    whole = {"machine": facts, "ceilings": ceilings, "skipped": skipped, "cells": cells}
    return json.dumps(_without_nan(whole), indent=1, ensure_ascii=False) + "\n"


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    if isinstance(value, Mapping):
        return {str(name): _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return value


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)

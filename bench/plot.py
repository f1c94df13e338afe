"""The results as one picture: `python -m bench.plot RESULTS.json PICTURE`. Nothing else needs matplotlib."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.paths import PATHS
from bench.peers import PEER_PATHS

TITLES = {way.name: way.title for way in (*PATHS.values(), *PEER_PATHS.values())}
COLOURS = {
    "direct": "#8c8c8c",
    "direct-http": "#b9b9b9",
    "relay": "#4c78a8",
    "warmline": "#e45756",
    "warmline-traced": "#f2a09f",
    "warmline-http": "#b279a2",
    "smg": "#54a24b",
    "litellm": "#eeca3b",
    "portkey": "#9d755d",
    "codex-lb": "#72b7b2",
    "bifrost": "#ff9da6",
}


Cells = Mapping[str, Mapping[str, Any]]


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Writes the picture; its format follows the name's end."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "warmline"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    cells: Cells = results["cells"]
    figure, axes = pyplot.subplots(2, 3, figsize=(16, 9), constrained_layout=True)
    firsts = ("first-c1", "first-c16", "first-c64")
    _bars(axes[0][0], cells, firsts, "first event p50", "First event p50, ms")
    _bars(axes[0][1], cells, firsts, "first event p99", "First event p99, ms")
    _cpu_by_sessions(axes[0][2], cells)
    _bars(axes[1][0], cells, ("burst-events",), "events", "Events per second at saturation")
    _bars(axes[1][1], cells, ("burst-streams", "turn-starts"), "streams", "Streams per second at saturation")
    _memory(axes[1][2], cells)
    facts = results["facts"]
    figure.suptitle(f"commit {facts.get('commit')}, {facts.get('cores')} cores, {facts.get('cpu')}", fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _spread(cells: Cells, cell: str, path: str, figure: str) -> Mapping[str, float] | None:
    spread = cells.get(cell, {}).get(path, {}).get("figures", {}).get(figure)
    return spread if spread and spread["repeats"] else None


def _bars(axes: Any, cells: Cells, names: tuple[str, ...], figure: str, title: str) -> None:
    ways = [way for way in TITLES if any(_spread(cells, cell, way, figure) for cell in names)]
    width = 0.8 / max(1, len(ways))
    for place, way in enumerate(ways):
        label: str | None = TITLES[way]
        for group, cell in enumerate(names):
            spread = _spread(cells, cell, way, figure)
            if spread is None:
                continue
            middle = spread["median"]
            reach = [[max(0.0, middle - spread["least"])], [max(0.0, spread["most"] - middle)]]
            style = {"color": COLOURS.get(way, "#555555"), "label": label, "error_kw": {"linewidth": 0.8}}
            axes.bar(group + place * width, middle, width, yerr=reach, **style)
            label = None
    axes.set_xticks([group + 0.4 - width / 2 for group in range(len(names))], names)
    axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    _legend(axes)


def _legend(axes: Any) -> None:
    axes.grid(visible=True, axis="y", linewidth=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6)


def _cpu_by_sessions(axes: Any, cells: Cells) -> None:
    for way, title in TITLES.items():
        points = []
        for sessions in (1, 50, 100, 200, 1000):
            spread = _spread(cells, f"cpu-{sessions}", way, "server CPU per event")
            if spread is not None:
                points.append((sessions, spread["median"]))
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=COLOURS.get(way, "#555555"), label=title)
    axes.set_yscale("log")
    axes.set_title("Server CPU per event, µs, by sessions at 50 events/s", fontsize=10)
    _legend(axes)


def _memory(axes: Any, cells: Cells) -> None:
    names = [name for name in cells if name.startswith("memory-")]
    for place, name in enumerate(names):
        spread = _spread(cells, name, "warmline", "each")
        if spread is not None:
            axes.barh(place, spread["median"], color=COLOURS["warmline"])
            axes.text(spread["median"], place, f" {spread['median']:.0f}", va="center", fontsize=7)
    axes.set_yticks(range(len(names)), [name.removeprefix("memory-") for name in names], fontsize=7)
    axes.set_title("RSS per session, KiB", fontsize=10)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

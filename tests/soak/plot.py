"""The samples of a run as a picture, for the eye; `verdict` judges."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soak.vitals import Sample

MIB = 1024 * 1024


def draw(samples: Sequence[Sample], title: str, targets: Sequence[Path], load_ended_s: float, warm_s: float) -> None:
    """Writes the picture to every target; the suffix chooses the form. Needs the dependency group `plots`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "warmline"  # the same samples make the same file
    times_min = [sample.at_s / 60 for sample in samples]
    panels: list[tuple[str, list[tuple[str, list[float]]]]] = [
        ("memory, MiB", [("resident", [s.rss_bytes / MIB for s in samples]),
                         ("of it anonymous", [s.anonymous_bytes / MIB for s in samples])]),
        ("tasks, descriptors", [("tasks of the event loop", [s.tasks for s in samples]),
                                ("open descriptors", [s.descriptors for s in samples]),
                                ("threads", [s.threads for s in samples])]),
        ("calls, sessions", [("calls under way", [s.calls for s in samples]),
                             ("sessions", [s.sessions for s in samples]),
                             ("upstream sockets", [s.sockets for s in samples])]),
        ("event-loop lag, ms", [("longest since the last sample", [s.lag_s * 1000 for s in samples])]),
        ("turns per second", [("turns", rate([s.at_s for s in samples], [s.turns for s in samples])),
                              ("cancelled", rate([s.at_s for s in samples], [s.cancelled for s in samples]))]),
    ]  # fmt: skip
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(10, 12), sharex=True, layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axis, (unit, lines) in zip(axes, panels, strict=True):
        _panel(axis, times_min, unit, lines)
        axis.axvspan(0, warm_s / 60, color="0.93")
        axis.axvline(load_ended_s / 60, color="0.6", linewidth=0.8)
    axes[-1].set_xlabel("minutes (grey: warm-up; the line: the load ends)")
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=110, metadata={"Date": None} if target.suffix == ".svg" else None)
    pyplot.close(figure)


def _panel(axis: Any, times: Sequence[float], unit: str, lines: Sequence[tuple[str, Sequence[float]]]) -> None:
    for name, values in lines:
        axis.plot(times, values, label=name, linewidth=1.0)
    axis.set_ylabel(unit, fontsize=8)
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    axis.grid(color="0.9", linewidth=0.6)
    axis.legend(fontsize=7, loc="lower right", ncols=3)


def rate(times_s: Sequence[float], counts: Sequence[float]) -> list[float]:
    """How much a count grew per second up to each sample; 0 for the first."""
    grown = [0.0]
    for place in range(1, len(counts)):
        grown.append((counts[place] - counts[place - 1]) / max(times_s[place] - times_s[place - 1], 1e-9))
    return grown

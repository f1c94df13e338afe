"""What the kernel knows about a process and its descendants: CPU time and memory."""

import os
from dataclasses import dataclass
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def descendants(root: int) -> list[int]:
    """The process and all below it, the process first. Gone ones are left out."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, at = [root], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """Fields of `stat` from the state on: the name before them may hold anything."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time of a process tree: by thread in nanoseconds, and as `stat` counts it, in ticks of 10 ms.

    The threads' clocks are exact but die with their thread; `stat` keeps what the dead used.
    """

    threads_ns: dict[tuple[int, int], int]
    stat_s: float

    @classmethod
    def of(cls, root: int) -> "CpuTime":
        """Reads the clocks now."""
        threads: dict[tuple[int, int], int] = {}
        ticks = 0
        for pid in descendants(root):
            fields = _stat(pid)
            if fields is None:
                continue
            ticks += int(fields[11]) + int(fields[12])
            for task in _tasks(pid):
                try:
                    spent = (PROC / str(pid) / "task" / task / "schedstat").read_text().split()[0]
                except (OSError, IndexError):
                    continue
                threads[pid, int(task)] = int(spent)
        return cls(threads, ticks / CLOCK_TICKS)

    def since(self, before: "CpuTime") -> float:
        """Seconds of CPU between two readings: by thread, unless one ended meanwhile or there is no such clock."""
        if not self.threads_ns or before.threads_ns.keys() - self.threads_ns.keys():
            return self.stat_s - before.stat_s
        return sum(ns - before.threads_ns.get(thread, 0) for thread, ns in self.threads_ns.items()) / 1e9


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(PROC / str(pid) / "task")
    except OSError:
        return []


def rss_bytes(root: int) -> int:
    """Resident memory of a process tree; what processes share is counted in each."""
    total = 0
    for pid in descendants(root):
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))
    return total

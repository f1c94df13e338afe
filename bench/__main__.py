"""`python -m bench`: measures, prints tables, writes them down as it goes."""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import ceilings, machine, report
from bench.cells import CELLS, SHORT, Cell
from bench.children import CACHE, ROOT, StartError, build_tools, plain_words, stop_all
from bench.forecast import Forecast, former_seconds
from bench.paths import PATHS
from bench.paths import Path as Way
from bench.peers import PEER_PATHS, UV
from bench.report import Results
from bench.rig import Rig
from bench.upstreams import Upstream

MATPLOTLIB = "matplotlib==3.11.2"
WAYS = {**PATHS, **PEER_PATHS}


class Ended(BaseException):
    """The run was told to end, by this signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def _end(number: int, _frame: object) -> None:
    # What was started is ended now, and a second signal must not keep that from being done.
    _set_handlers(signal.SIG_IGN)
    raise Ended(number)


def _set_handlers(handler: "Callable[[int, Any], None] | signal.Handlers") -> None:
    """SIGINT too: under nohup and in the background of a shell it would be ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def main() -> int:
    """Returns: 0; 1 when something was lost or failed on a path of our own, or a cell did not run; 128 and the signal
    that ended the run before its time.
    """
    args = _arguments()
    _set_handlers(_end)
    settings: dict[str, object] = {"repeats": args.repeats, "short": args.short}
    results = Results(machine.describe(), settings=settings)
    run = _Run(args, results)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        run.say("building the load client and the upstream")
        build_tools()
        run.measure()
    except Ended as ended:
        run.say(f"ended by {ended}; what was measured is in {args.out}")
        return ended.status
    finally:
        stop_all()
    if not args.short:
        _draw(args.out, run.say)
    return _judge(results)


class _Run:
    """A run over the chosen cells."""

    def __init__(self, args: argparse.Namespace, results: Results) -> None:
        self._args = args
        self._results = results
        self._began_s = time.monotonic()
        self._chosen = _chosen(args.only or (SHORT if args.short else ()))
        former = former_seconds(args.out / "results.json", results.settings)
        self._forecast = Forecast([cell.name for cell in self._chosen if _ways(cell, args)], former)

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def say(self, text: str) -> None:
        print(f"[{self._elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    def measure(self) -> None:
        """Measures all; whatever ends it, what was measured is written, and what was not is named."""
        results = self._results
        rig = None
        try:
            if not self._args.only:
                results.ceilings = ceilings.measure(0.3 if self._args.short else 2.0)
                results.simulator = [] if self._args.short else ceilings.of_the_simulator()
                print("\n".join(map(str, results.ceilings)), *results.simulator, sep="\n", flush=True)
            rig = Rig(Upstream(), self.say, self._args.repeats, self._args.short)
            self._measure_cells(rig)
        except Ended as ended:
            missing = [cell for cell in self._forecast.to_come if cell not in results.not_measured]
            results.not_measured |= dict.fromkeys(missing, f"the run was ended by {ended}")
            raise
        finally:
            if rig is not None:
                rig.close()
            results.facts = {**results.facts, "took": f"{self._elapsed_s:.0f} s"}
            _write(self._args.out, results)

    def _measure_cells(self, rig: Rig) -> None:
        results = self._results
        for cell in self._chosen:
            ways = _ways(cell, self._args)
            if not ways:
                continue
            done = len(self._forecast.seconds)
            self.say(f"cell {done + 1} of {done + len(self._forecast.to_come)}: {cell.name}; {self._forecast.told()}")
            began_s = time.monotonic()
            try:
                results.cells[cell.name] = {one.path: one for one in cell.run(rig, ways)}
            except StartError as error:
                self.say(f"NOT MEASURED {cell.name}: {error}")
                results.not_measured[cell.name] = plain_words(str(error))
            else:
                results.skipped = rig.skipped
                print(report.terminal(cell, results.cells[cell.name], WAYS), flush=True)
            self._forecast.took(cell.name, time.monotonic() - began_s)
            results.seconds = self._forecast.seconds
            _write(self._args.out, results)


def _write(out: Path, results: Results) -> None:
    report.write(out / "results.json", report.as_json(results))
    report.write(out / "results.md", report.markdown(results, WAYS))


def _draw(out: Path, say: Callable[[str], None]) -> None:
    """In an environment of its own: nothing else needs the library."""
    command = [str(UV), "run", "--no-project", "--quiet", "--python", sys.executable, "--with", MATPLOTLIB]
    command += ["python", "-m", "bench.plot", str(out / "results.json"), str(out / "results.svg")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"no picture: {done.stderr.strip()[-300:]}")


def _judge(results: Results) -> int:
    wrong = 0
    for name, paths in results.cells.items():
        for path, one in paths.items():
            if (one.lost or one.failed) and not WAYS[path].is_peer:
                wrong += 1
                print(f"bench: {name} on {path}: {one.lost} deltas lost, {one.failed} turns failed: {one.errors}")
    broken = len(results.not_measured)
    print(f"bench: {len(results.cells)} cells, {wrong} with losses on a path of our own, {broken} that did not run")
    return 1 if wrong or broken else 0


def _chosen(only: Sequence[str]) -> list[Cell]:
    """The cells that are named, or whose names begin with what is given and a hyphen."""
    chosen = [cell for cell in CELLS if any(f"{cell.name}-".startswith(f"{word}-") for word in only)]
    unknown = [word for word in only if not any(f"{cell.name}-".startswith(f"{word}-") for cell in CELLS)]
    if unknown:
        raise SystemExit(f"no cell {', '.join(unknown)}; there are: {' '.join(cell.name for cell in CELLS)}")
    return chosen if only else [*CELLS]


def _ways(cell: Cell, args: argparse.Namespace) -> list[Way]:
    names = [*cell.paths]
    if cell.has_peers and not args.short:
        names += ["direct-http", *PEER_PATHS]
    if args.no_peers:
        names = [name for name in names if name not in PEER_PATHS]
    return [WAYS[name] for name in names if not args.paths or name in args.paths]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="CELL", help="these cells, or all whose names begin so"
    )
    parser.add_argument("--paths", nargs="+", default=[], metavar="PATH", choices=list(WAYS), help="these paths only")
    parser.add_argument("--no-peers", action="store_true", help="our own paths only")
    parser.add_argument("--repeats", type=int, default=5, help="default %(default)s")
    parser.add_argument("--short", action="store_true", help="shows that it runs and that nothing is lost; no peers")
    parser.add_argument("--out", type=Path, default=CACHE / "out", help="folder for the results; default %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StartError as error:
        sys.exit(f"bench: {error}")

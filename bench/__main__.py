"""`python -m bench`: measures, prints tables, writes them down."""

import argparse
import sys
import time
from pathlib import Path

from bench import machine, report
from bench.cells import CELLS, Cell
from bench.children import CACHE, StartError, build_tools
from bench.measure import Measured, run_cell
from bench.paths import PATHS, Running
from bench.paths import Path as Way
from bench.upstreams import Upstream


def main() -> int:
    """Returns: 0, or 1 when something was lost or failed on a path of our own."""
    args = _arguments()
    build_tools()
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    results: dict[str, dict[str, Measured]] = {}
    facts = machine.describe()
    args.out.mkdir(parents=True, exist_ok=True)
    upstream = Upstream()
    try:
        for cell in _chosen(args.only):
            ways = _ways(cell, args)
            if not ways:
                continue

            def start(way: Way) -> Running:
                return way.start(upstream)

            def release(_way: Way, running: Running) -> None:
                running.stop()

            done = run_cell(cell, ways, upstream, start, release, repeats=args.repeats, is_short=args.short, say=say)
            results[cell.name] = {one.path: one for one in done}
            print(report.terminal(cell, results[cell.name], PATHS), flush=True)
            report.write(args.out / "results.json", report.as_json(facts, {}, results, {}))
    finally:
        upstream.child.stop()
    wrong = [one for paths in results.values() for one in paths.values() if one.lost or one.failed]
    return 1 if wrong else 0


def _chosen(only: list[str]) -> list[Cell]:
    unknown = set(only) - {cell.name for cell in CELLS}
    if unknown:
        raise SystemExit(f"no cell {', '.join(sorted(unknown))}; there are: {' '.join(cell.name for cell in CELLS)}")
    return [cell for cell in CELLS if not only or cell.name in only]


def _ways(cell: Cell, args: argparse.Namespace) -> list[Way]:
    names = args.paths or [*cell.paths]
    return [PATHS[name] for name in names if name in cell.paths]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="CELL", help="these cells only")
    parser.add_argument("--paths", nargs="+", default=[], metavar="PATH", choices=list(PATHS), help="these paths only")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="seconds: shows that it runs and that nothing is lost")
    parser.add_argument("--out", type=Path, default=CACHE / "out", help="folder for the results")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StartError as error:
        sys.exit(f"bench: {error}")

"""`python -m bench`: measures, prints tables, writes them down as it goes."""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import ceilings, machine, report
from bench.cells import CELLS, SHORT, Cell
from bench.children import CACHE, ROOT, StartError, build_tools, plain_words, stop_all
from bench.paths import PATHS
from bench.paths import Path as Way
from bench.peers import PEER_PATHS, UV
from bench.report import Results
from bench.rig import Rig
from bench.upstreams import Upstream

MATPLOTLIB = "matplotlib==3.11.2"
WAYS = {**PATHS, **PEER_PATHS}


def main() -> int:
    """Returns: 0, or 1 when something was lost or failed on a path of our own, or a cell did not run."""
    args = _arguments()
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    # So that what was started is ended in that case too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say("building the load client and the upstream")
    build_tools()
    results = Results(machine.describe(), settings={"repeats": args.repeats, "short": args.short})
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        _measure(args, results, say)
    finally:
        stop_all()
    if not args.short:
        _draw(args.out, say)
    return _judge(results)


def _measure(args: argparse.Namespace, results: Results, say: Callable[[str], None]) -> None:
    began_s = time.monotonic()
    if not args.only:
        results.ceilings = ceilings.measure(0.3 if args.short else 2.0)
        results.simulator = [] if args.short else ceilings.of_the_simulator()
        print("\n".join(map(str, results.ceilings)), *results.simulator, sep="\n", flush=True)
    rig = Rig(Upstream(), say, args.repeats, args.short)
    try:
        chosen = _chosen(args.only or (SHORT if args.short else ()))
        for number, cell in enumerate(chosen, 1):
            ways = _ways(cell, args)
            if not ways:
                continue
            say(f"cell {number} of {len(chosen)}: {cell.name}")
            try:
                results.cells[cell.name] = {one.path: one for one in cell.run(rig, ways)}
            except StartError as error:
                say(f"NOT MEASURED {cell.name}: {error}")
                results.not_measured[cell.name] = plain_words(str(error))
                continue
            results.skipped = rig.skipped
            print(report.terminal(cell, results.cells[cell.name], WAYS), flush=True)
            _write(args.out, results)
    finally:
        rig.close()
    results.facts = {**results.facts, "took": f"{time.monotonic() - began_s:.0f} s"}
    _write(args.out, results)


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

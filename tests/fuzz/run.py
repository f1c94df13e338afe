"""Fuzzes every target, one after the other: `make fuzz SECONDS=600`, `make fuzz RUNS=1000`, `make fuzz TARGET=sse`.

The corpora that grow are kept in `.fuzz/NAME` and go on from there the next time; what broke a check is kept in
`.fuzz/crashes`. Exit status 1 when something did.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fuzz import target as targets

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".fuzz"
CRASHES = KEPT / "crashes"
MAX_CASE_BYTES = 16 * 1024
# One case is milliseconds; one that takes so long is work that grows faster than its bytes.
CASE_S = 25
MAX_RSS_MB = 2048
SEED = 1
_PROGRESS = re.compile(r"#(\d+)\s+(pulse|DONE)\s+(.*)")
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a target's run ended. `crash` is the file of the case that broke it, None when none did."""

    name: str
    executed: int
    status: int
    crash: Path | None

    @property
    def is_good(self) -> bool:
        return self.status == 0 and self.crash is None


def run(name: str, *, seconds: int | None, runs: int | None) -> Ending:
    """Runs one target for so long, or so many cases: then always the same ones, and none that were found before."""
    corpus = KEPT / (name if runs is None else f"short/{name}")
    if runs is not None:
        shutil.rmtree(corpus, ignore_errors=True)
    _write_seeds(targets.load(name), corpus)
    CRASHES.mkdir(parents=True, exist_ok=True)
    before = set(CRASHES.iterdir())
    options = [
        f"-max_total_time={seconds}" if runs is None else f"-runs={runs}",
        f"-artifact_prefix={CRASHES}/{name}-",
        f"-max_len={MAX_CASE_BYTES}",
        f"-timeout={CASE_S}",
        f"-rss_limit_mb={MAX_RSS_MB}",
        "-print_final_stats=1",
        *([f"-seed={SEED}"] if runs is not None else []),
    ]
    command = [sys.executable, "-m", "fuzz.target", name, *options, str(corpus)]
    executed, said = 0, []
    # Set and dict orders are part of a case.
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None, "a pipe was asked for"
        for line in process.stdout:
            said.append(line)
            if progress := _PROGRESS.match(line):
                print(f"  {name}: {progress[1]} cases, {progress[3].strip()}", flush=True)
            if found := _EXECUTED.match(line):
                executed = int(found[1])
    crash = next(iter(sorted(set(CRASHES.iterdir()) - before)), None)
    if process.returncode != 0:
        print("".join(said[-60:]))
    return Ending(name, executed, process.returncode, crash)


def _write_seeds(target: targets.Target, corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / sha256(seed).hexdigest()[:20]).write_bytes(seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--runs", type=int, help="so many cases of each target instead, the same ones every time")
    parser.add_argument("--target", choices=targets.names(), help="this one only")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="check the bytes in FILE, and nothing else")
    args = parser.parse_args()
    if args.reproduce is not None:
        if args.target is None:
            parser.error("--reproduce needs --target")
        targets.load(args.target).check(args.reproduce.read_bytes())
        print("the check holds")
        return 0
    chosen = [args.target] if args.target else targets.names()
    endings = []
    for number, name in enumerate(chosen, start=1):
        print(f"{name} ({number} of {len(chosen)})", flush=True)
        endings.append(run(name, seconds=max(1, args.seconds // len(chosen)), runs=args.runs))
    for ending in endings:
        print(f"{ending.name:>16}  {ending.executed:>9} cases  {'held' if ending.is_good else 'BROKE'}")
        if ending.crash is not None:
            shown = ending.crash.relative_to(ROOT)
            print(f"{'':>16}  {shown}: make fuzz TARGET={ending.name} REPRODUCE={shown}")
    return 0 if all(ending.is_good for ending in endings) else 1


if __name__ == "__main__":
    sys.exit(main())

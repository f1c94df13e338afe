"""The soak: a server under a mixed load for many minutes, looked at all the while. `make soak MINUTES=20`.

The server and its upstream are processes of their own; this one makes the load. Exit status: 0 when every line of the
verdict holds, else 1.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import platform
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from soak.load import Load, Mix
from soak.site import Sampler, Site, Upstream, open_site, open_upstream, run_proof
from soak.verdict import WARM_UP_SHARE, Verdict
from soak.vitals import Metrics, Sample

ROOT = Path(__file__).parents[2]
# The short form is for busy machines, too: whoever is held up there for a second or two is no slow reader.
SLOW_READER_S, SHORT_SLOW_READER_S = 2.0, 6.0
# Short times, so that whatever ends by time does so throughout the run.
SETTINGS = {
    "LIMITS__MAX_WARM_SOCKETS": "60",
    "UPSTREAMS__SIMULATOR__IDLE_TIMEOUT_S": "5",
    "UPSTREAMS__SIMULATOR__WARM_SOCKET_IDLE_TTL_S": "10",
    "UPSTREAMS__SIMULATOR__IDLE_PING_INTERVAL_S": "5",
    "UPSTREAMS__SIMULATOR__MAX_CONNECTION_AGE_S": "60",
}
# How long sessions live that are left alone, and so how long the server takes to come to rest.
TTL_S, SHORT_TTL_S = 15.0, 4.0
# What a process opens once and keeps is opened before the first look.
PRIMER_S = 4.0
# How long what is ending may take when nothing runs any more.
REST_S = 60.0
# Handshakes are refused for a moment now and then.
OUTAGE_EVERY_S, OUTAGE_S = 7.0, 0.15


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended. `before` and `after` are the idle server; `samples` the loaded one."""

    seconds: float
    load: Load
    before: Sample
    samples: list[Sample]
    after: Sample
    site: Site
    upstream: dict[str, Any]


async def soak(
    seconds: float, mix: Mix, *, period_s: float, session_ttl_s: float, slow_reader_s: float, seed: int = 1
) -> Run:
    """Loads a server for so long and lets it come to rest."""
    limits = {"LIMITS__SESSION_IDLE_TTL_S": str(session_ttl_s), "LIMITS__SLOW_READER_S": str(slow_reader_s)}
    settings = {**SETTINGS, **limits}
    async with open_upstream() as upstream, open_site(upstream, **settings) as site:
        async with Load(site.server.address, mix, seed=0, slow_reader_s=slow_reader_s).opened() as primer:
            await primer.run(PRIMER_S)
            await primer.close_sessions()
        await site.until(is_idle)
        load = Load(site.server.address, mix, seed=seed, slow_reader_s=slow_reader_s)
        sampler = Sampler(site, lambda: (load.tally.turns, load.tally.cancelled))
        before = await sampler.look()
        sampler.samples.clear()
        async with load.opened(), _beside(_watch(sampler, period_s, seconds), _outages(upstream)):
            await load.run(seconds)
            await load.close_sessions()
        samples = list(sampler.samples)
        after, counts = await _come_to_rest(sampler, before)
        return Run(seconds, load, before, samples, after, site, counts)


async def _come_to_rest(sampler: Sampler, before: Sample) -> tuple[Sample, dict[str, Any]]:
    """Waits until nothing is left of the load, or patience ends. Returns: the last look, and the upstream's counts."""
    site = sampler.site
    _, counts, _ = await site.until(is_idle)
    deadline_s = time.monotonic() + REST_S
    while True:
        after = await sampler.look()
        if after.tasks <= before.tasks and after.own_descriptors <= before.own_descriptors:
            return after, counts
        if time.monotonic() > deadline_s:
            return after, counts
        await asyncio.sleep(0.5)


def is_idle(found: Metrics, counts: dict[str, Any]) -> bool:
    """Nothing runs and nothing is kept, at the server and at its upstream."""
    held = sum(found.value(name) for name in ("warmline_sessions", "warmline_calls_active", "warmline_sockets"))
    return not held and not counts["responses_running"] and not counts["websockets_open"]


@contextlib.asynccontextmanager
async def _beside(*works: Any) -> AsyncIterator[None]:
    """Runs these while the body does; what goes wrong in them ends the run."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ended:
        if isinstance(end, Exception):
            raise end


async def _watch(sampler: Sampler, period_s: float, seconds: float) -> None:
    while True:
        sample = await sampler.look()
        _show_progress(sample, seconds)
        await asyncio.sleep(period_s)


async def _outages(upstream: Upstream) -> None:
    while True:
        await asyncio.sleep(OUTAGE_EVERY_S)
        await upstream.ask("refuse 503")
        await asyncio.sleep(OUTAGE_S)
        await upstream.ask("refuse 0")


def _show_progress(sample: Sample, seconds: float) -> None:
    """One line that stays in its place on a terminal; elsewhere one each half minute."""
    live = sys.stderr.isatty()
    if not live and sample.at_s % 30 > 2:
        return
    print(
        f"{sample.at_s:6.0f} of {seconds:.0f} s  {sample.turns:7} turns  {sample.cancelled:6} cancelled  "
        f"{sample.rss_bytes / 2**20:6.1f} MiB  {sample.tasks:5} tasks  {sample.descriptors:4} descriptors  "
        f"{sample.sessions:4} sessions  lag {sample.lag_s * 1000:.0f} ms ",
        end="\r" if live else "\n", file=sys.stderr, flush=True,
    )  # fmt: skip


def judge(run: Run, *, short: bool) -> Verdict:
    """Everything that must hold; the short form leaves out what only time can show."""
    verdict, tally = Verdict(), run.load.tally
    first, last = run.samples[0], run.samples[-1]
    lasted_s = last.at_s - first.at_s
    verdict.figures |= {
        "turns": tally.turns,
        "turns_per_s": round((last.turns - first.turns) / lasted_s, 1),
        "cancelled": tally.cancelled,
        "cancelled_share": round(tally.cancelled / tally.turns, 3),
        "events": tally.events,
        "server_cpu_share": round((last.cpu_s - first.cpu_s) / lasted_s, 3),
        "longest_lag_s": max(sample.lag_s for sample in run.samples),
        "rss_idle_before_bytes": run.before.rss_bytes,
        "rss_idle_after_bytes": run.after.rss_bytes,
    }
    if not short:
        verdict.expect(verdict.figures["turns_per_s"] >= 50, f"{verdict.figures['turns_per_s']} turns/s; wanted 50")
        verdict.judge_memory(run.samples)
        for name, what in (("tasks", "tasks"), ("descriptors", "open descriptors"), ("threads", "threads")):
            verdict.judge_growth(run.samples, name, what)
    verdict.judge_return(run.before, run.after)
    verdict.expect(not tally.wrong, f"{len(tally.wrong)} calls that ended as they should not {tally.wrong[:3] or ''}")
    verdict.expect(not run.site.errors, f"{len(run.site.errors)} errors in the log {run.site.errors[:2] or ''}")
    problems = run.upstream["problems"]
    verdict.expect(not problems, f"{len(problems)} requests that a provider would have refused {problems[:2] or ''}")
    left = run.upstream["responses_running"]
    verdict.expect(not left, f"{left} answers still running at the upstream")
    return verdict


def report(run: Run, verdict: Verdict, mix: Mix) -> dict[str, Any]:
    """The run as JSON, without its samples."""
    tally = run.load.tally
    return {
        "seconds": run.seconds,
        "holds": verdict.holds,
        "lines": [("ok: " if holds else "FAIL: ") + text for holds, text in verdict.lines],
        "figures": verdict.figures,
        "endings": dict(tally.endings.most_common()),
        "leaves": dict(tally.leaves.most_common()),
        "faults": dict(sorted(tally.faults.items())),
        "sessions": dict(tally.sessions.most_common()),
        "log": dict(run.site.said.most_common()),
        "upstream": {name: value for name, value in run.upstream.items() if isinstance(value, int)},
        "mix": {name: value for name, value in asdict(mix).items() if isinstance(value, float)},
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
    }


def main() -> int:
    """Runs, prints, writes. Returns: 0 when everything holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=60.0, help="turns begun per second (default: %(default)s)")
    parser.add_argument("--period", type=float, default=2.0, help="seconds between samples (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="say nothing of memory and drift: too little time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build/soak", help="folder for what was found")
    args = parser.parse_args()
    if not args.short and importlib.util.find_spec("matplotlib") is None:
        parser.error("the plot needs the dependency group `plots`: run `make soak`")
    mix, began_s = Mix(turns_per_s=args.rate), time.monotonic()
    ttl_s, slow_reader_s = (SHORT_TTL_S, SHORT_SLOW_READER_S) if args.short else (TTL_S, SLOW_READER_S)
    times = {"period_s": args.period, "session_ttl_s": ttl_s, "slow_reader_s": slow_reader_s}
    run = run_proof(soak(args.minutes * 60, mix, **times, seed=args.seed))
    verdict = judge(run, short=args.short)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.json").write_text(json.dumps(report(run, verdict, mix), indent=1) + "\n")
    samples = "\n".join(json.dumps(sample.as_json()) for sample in run.samples)
    (args.out / "samples.jsonl").write_text(samples + "\n")
    if not args.short:
        _draw(run, verdict, args.out)
    print(f"\n{run.load.tally.turns} turns in {time.monotonic() - began_s:.0f} s; written to {args.out}")
    for holds, text in verdict.lines:
        print(f"{'ok  ' if holds else 'FAIL'}  {text}")
    return 0 if verdict.holds else 1


def _draw(run: Run, verdict: Verdict, folder: Path) -> None:
    from soak.plot import draw

    figures = verdict.figures
    title = (
        f"{figures['turns_per_s']:.0f} turns/s for {run.seconds / 60:.0f} minutes, "
        f"{figures['cancelled_share']:.0%} cancelled"
    )
    targets = [folder / "soak.png", folder / "soak.svg"]
    draw([*run.samples, run.after], title, targets, run.seconds, run.seconds * WARM_UP_SHARE)


if __name__ == "__main__":
    sys.exit(main())

"""Callers who leave at random moments: whether the upstream is stopped, how soon, and what that costs in memory.

`make cancels` leaves 1000 calls in every way over both transports, and compares with the upstream's own record.
`make cancels-memory` cancels 100 000 and measures the server's memory. Exit status: 0 when all limits hold, else 1.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

import warmline
from soak import vitals
from soak.calls import OWN_CONNECTION, Leave, read
from soak.site import Site, open_site, open_upstream, run_proof
from soak.verdict import BYTES_PER_CANCELLED, MIB, WARM_UP_SHARE, growth
from warmline.v1 import turn_service_pb2 as turns_pb
from warmline.v1 import turn_service_pb2_grpc as turns_grpc
from warmline.v1 import types_pb2

KILLED = "its process is killed"
WAYS = [*(leave.value for leave in Leave), KILLED]
P99_LIMIT_S = 0.1
# At once, so that what is measured is the way of one cancel and not a queue.
CALLERS = 8
CALLS_PER_PROCESS = 5
# An answer of six seconds, and callers who leave within the first of them.
ANSWER = ("--pace", "0.02", "--words", "300")
LEAVE_WITHIN_S = 1.0
# Some 400 cancelled calls a second, nearly all of them in the midst of an answer: the server keeps up with its events.
MEMORY_CALLERS, MEMORY_WITHIN_S = 120, 0.5
MEMORY_ANSWER = ("--pace", "0.03", "--words", "100")
MEMORY_WAYS = (Leave.CANCEL, Leave.DEADLINE, Leave.MAX_DURATION)
ENDED = "info: call ended"


def request(key: str, session_id: str, *, http: bool, **fields: Any) -> turns_pb.StreamTurnRequest:
    """A call whose text begins with its key."""
    return turns_pb.StreamTurnRequest(
        session_id=session_id,
        session_config=types_pb2.SessionConfig(
            request_defaults=types_pb2.RequestOptions(model="sim-small"),
            fallback_policy=types_pb2.FallbackPolicy(http_only=http),
        ),
        request_id=key,
        input=[warmline.user(f"{key} tell me a long story")],
        # The call before was left a moment ago, and may still be ending.
        on_busy=turns_pb.BUSY_MODE_WAIT,
        **fields,
    )


@dataclass(slots=True)
class Leavers:
    """Callers who leave. `left_at_s` is when each call was left, by its key."""

    site: Site
    dice: random.Random
    left_at_s: dict[str, float] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def key(self, way: str, *, http: bool) -> str:
        """A new call's key."""
        key = f"c{next(self._numbers)}-{'http' if http else 'ws'}"
        self.ways[key] = way
        return key

    async def leave(self, stub: Any, way: Leave, session_id: str, *, http: bool, within_s: float) -> None:
        """Sends one call, leaves it, and waits for its end."""
        key, after_s = self.key(way.value, http=http), self.dice.uniform(0.0, within_s)
        call_request, channel, timeout_s = request(key, session_id, http=http), None, None
        if way is Leave.CHANNEL:
            channel = grpc.aio.insecure_channel(self.site.server.address, OWN_CONNECTION)
            stub = turns_grpc.TurnServiceStub(channel)
        elif way is Leave.DEADLINE:
            timeout_s = max(0.002, after_s)
        elif way is Leave.MAX_DURATION:
            call_request.max_duration.FromNanoseconds(max(1_000_000, round(after_s * 1e9)))
        self.left_at_s[key] = time.monotonic() + after_s
        call = stub.StreamTurn(call_request, timeout=timeout_s)
        reading = asyncio.create_task(read(call))
        if way in (Leave.CANCEL, Leave.CANCEL_TURN, Leave.CHANNEL):
            await asyncio.sleep(after_s)
            self.left_at_s[key] = time.monotonic()
            await self._go(way, call, channel, stub, session_id, key)
        told = await reading
        if told.error in ("", "INTERNAL"):
            self.wrong.append(f"{key}, {way.value}: the call ended with {told.error or 'completed'}")

    async def _go(self, way: Leave, call: Any, channel: Any, stub: Any, session_id: str, key: str) -> None:
        if way is Leave.CANCEL:
            call.cancel()
        elif way is Leave.CHANNEL:
            await channel.close()
        else:
            cancel = turns_pb.CancelTurnRequest(session_id=session_id, request_id=key)
            while True:
                self.left_at_s[key] = time.monotonic()
                try:
                    await stub.CancelTurn(cancel)
                    return
                except grpc.aio.AioRpcError as error:
                    # It was sent and has not arrived: nothing was cancelled, so its caller asks again.
                    if error.code() is not grpc.StatusCode.NOT_FOUND or call.done():
                        return

    async def kill(self, count: int) -> None:
        """Lets a process send so many calls, and kills it."""
        keys = [self.key(KILLED, http=bool(number % 2)) for number in range(count)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "soak.leaver", self.site.server.address, *keys,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(self.dice.uniform(0.0, LEAVE_WITHIN_S))
        for key in keys:
            self.left_at_s[key] = time.monotonic()
        process.kill()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Stops:
    """What the upstream saw. `after_s`: how long after its caller left an answer was stopped, by way and transport."""

    calls: int
    after_s: dict[tuple[str, str], list[float]]
    never_asked: int
    outcomes: "collections.Counter[str]"
    running: int
    wrong: list[str]

    @property
    def stopped(self) -> int:
        return self.outcomes["aborted"]

    @property
    def all_stopped(self) -> bool:
        return not self.running and not self.wrong and set(self.outcomes) <= {"aborted"}


async def leave_all(calls: int, *, seed: int) -> Stops:
    """Leaves so many calls in all ways, and waits until the upstream is at rest."""
    async with open_upstream(*ANSWER, "--keep-ended") as upstream, open_site(upstream) as site:
        leavers = Leavers(site, random.Random(seed))
        processes = max(1, calls // 10 // CALLS_PER_PROCESS)
        killed = processes * CALLS_PER_PROCESS
        todo = [(way, http) for way in Leave for http in (False, True)]
        work = collections.deque(todo[number % len(todo)] for number in range(calls - killed))
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(warmline.Client(site.server.address))

            async def caller(number: int) -> None:
                while work:
                    way, http = work.popleft()
                    session_id = f"caller-{number}-{'http' if http else 'ws'}"
                    await leavers.leave(client.turns, way, session_id, http=http, within_s=LEAVE_WITHIN_S)

            await asyncio.gather(*(caller(number) for number in range(CALLERS)))
            for _ in range(processes):
                await leavers.kill(CALLS_PER_PROCESS)
        _, counts, _ = await site.until(lambda found, counts: not counts["responses_running"])
        return _compare(leavers, await upstream.ask("ended"), counts, site)


def _compare(leavers: Leavers, ended: Sequence[Any], counts: dict[str, Any], site: Site) -> Stops:
    after_s: dict[tuple[str, str], list[float]] = {}
    outcomes: collections.Counter[str] = collections.Counter()
    for key, transport, outcome, at_s in ended:
        outcomes[outcome] += 1
        if outcome == "aborted":
            after_s.setdefault((leavers.ways[key], transport), []).append(at_s - leavers.left_at_s[key])
    begun = counts["posts"] + counts["creates_full"] + counts["creates_delta"]
    wrong = [*leavers.wrong, *(f"the server's log: {line}" for line in site.errors), *counts["problems"]]
    if begun != len(ended):
        wrong.append(f"{begun} requests arrived at the upstream, and {len(ended)} ended")
    return Stops(len(leavers.ways), after_s, len(leavers.ways) - begun, outcomes, counts["responses_running"], wrong)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def show(stops: Stops) -> None:
    """The table of how soon."""
    print(f"{'how the caller leaves':<28}{'transport':<12}{'stopped':>8}{'p50':>10}{'p99':>10}{'longest':>10}")
    everything = [after for each in stops.after_s.values() for after in each]
    rows = [(*names, each) for names, each in sorted(stops.after_s.items())]
    for way, transport, each in [*rows, ("all", "", everything)]:
        cells = (quantile(each, 0.5), quantile(each, 0.99), max(each)) if each else (0.0, 0.0, 0.0)
        name = {"ws": "WebSocket", "http": "HTTP"}.get(transport, transport)
        print(f"{way:<28}{name:<12}{len(each):>8}" + "".join(f"{cell * 1000:>7.1f} ms" for cell in cells))
    print(
        f"\n{stops.calls} calls were left: {stops.stopped} answers stopped, {stops.running} still running, "
        f"{stops.never_asked} left before anything was asked upstream; {dict(stops.outcomes)}"
    )
    for line in stops.wrong[:10]:
        print(f"FAIL  {line}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What cancelled calls cost. `noise_bytes`: of the fit, see `soak.verdict`."""

    calls: int
    per_call_bytes: float
    base_bytes: float
    growth_bytes: float
    noise_bytes: float
    calls_per_s: float


async def measure_memory(calls: int, *, seed: int) -> Cost:
    """Cancels calls, half of them over each transport, until the server has ended so many, and watches its memory.

    A call that is left before the server has read it counts for nothing.
    """
    # The ring of recent inferences is bounded, and filled in the warm-up when it is small.
    settings = {"TELEMETRY__INFERENCE_RING": "16"}
    async with open_upstream(*MEMORY_ANSWER) as upstream, open_site(upstream, **settings) as site:
        leavers, ways = Leavers(site, random.Random(seed)), itertools.cycle(MEMORY_WAYS)
        samples, began_s = list[tuple[float, float]](), time.monotonic()

        async def caller(number: int, stub: Any) -> None:
            http = bool(number % 2)
            while (done := site.said[ENDED]) < calls:
                await leavers.leave(stub, next(ways), f"caller-{number}", http=http, within_s=MEMORY_WITHIN_S)
                leavers.left_at_s.clear()
                leavers.ways.clear()
                if done >= (len(samples) + 1) * calls / 200:
                    samples.append((done, vitals.memory(site.pid).rss_bytes))
                    _show(done, calls, samples[-1][1])

        async with warmline.Client(site.server.address) as client:
            await asyncio.gather(*(caller(number, client.turns) for number in range(MEMORY_CALLERS)))
        lasted_s = time.monotonic() - began_s
        await site.until(is_idle_but_for_sessions)
        if leavers.wrong or site.errors:
            raise SystemExit(f"FAIL  {(leavers.wrong + site.errors)[:3]}")
    late = [sample for sample in samples if sample[0] >= calls * WARM_UP_SHARE]
    found = growth([at for at, _ in late], [rss for _, rss in late])
    each = found.total / (late[-1][0] - late[0][0])
    return Cost(calls, each, found.base, found.total, found.noise, calls / lasted_s)


def is_idle_but_for_sessions(found: Any, counts: dict[str, Any]) -> bool:
    """No call runs at the server, no answer at the upstream."""
    return not found.value("warmline_calls_active") and not counts["responses_running"]


def _show(done: int, calls: int, rss: float) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{done:7} of {calls} cancelled  {rss / MIB:6.1f} MiB ", end=end, file=sys.stderr, flush=True)


def main() -> int:
    """Runs what was asked for and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--memory", action="store_true", help="measure memory, not the time until the upstream stops")
    parser.add_argument("--no-limit", action="store_true", help="judge no time, on a machine that is not quiet")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.memory:
        return 0 if judge_memory(run_proof(measure_memory(args.calls, seed=args.seed))) else 1
    stops = run_proof(leave_all(args.calls, seed=args.seed))
    return 0 if judge_stops(stops, limited=not args.no_limit) else 1


def judge_stops(stops: Stops, *, limited: bool) -> bool:
    """Prints, and says whether all were stopped, and soon enough where that counts."""
    show(stops)
    everything = [after for each in stops.after_s.values() for after in each]
    soon = quantile(everything, 0.99) <= P99_LIMIT_S
    print(f"{'ok  ' if stops.all_stopped else 'FAIL'}  every answer that had begun was stopped")
    if limited:
        print(f"{'ok  ' if soon else 'FAIL'}  99 of 100 within {P99_LIMIT_S * 1000:.0f} ms")
    return stops.all_stopped and (soon or not limited)


def judge_memory(cost: Cost) -> bool:
    """Prints, and says whether a cancelled call costs no more than it may."""
    holds = cost.per_call_bytes <= BYTES_PER_CANCELLED
    print(
        f"{'ok  ' if holds else 'FAIL'}  {cost.calls} cancelled calls, {cost.calls_per_s:.0f} per second: "
        f"{cost.per_call_bytes:+.1f} bytes each ({cost.base_bytes / MIB:.1f} MiB {cost.growth_bytes / MIB:+.2f} MiB "
        f"after warm-up, noise {cost.noise_bytes / MIB:.2f} MiB); allowed {BYTES_PER_CANCELLED:.0f}"
    )
    return holds


if __name__ == "__main__":
    sys.exit(main())

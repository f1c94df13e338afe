"""Many sessions, several turns each, cancels at random: nothing is lost, doubled or left behind.

`python -m tests.e2e.leaks --sessions 500 --turns 4` is the long form; test_no_leaks.py runs a short one. Counted at
both ends: what each caller got is compared, event by event, with what the simulator recorded as sent.
"""

import argparse
import asyncio
import collections
import contextlib
import enum
import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import warmline
from e2e.books import SETTLE_S, Books, settled
from observe.spans import EndedSpans
from warmline.v1 import types_pb2
from warmline_cli.serve import run_loop
from warmline_server.app import App
from warmline_server.settings import Credential, Limits, Settings, UpstreamProfile
from warmline_simulator import Simulator
from warmline_simulator.records import RequestRecord

MODEL = "sim-small"
# Fewer than the sessions of a run, so that sockets are evicted all the time.
WARM_SOCKETS = 60
CONCURRENT_SESSIONS = 40
# Slow enough that a cancel meets calls that run, fast enough for thousands of turns.
PACE_S = 0.002
WORDS = 12


class End(enum.Enum):
    """How a turn is meant to end."""

    COMPLETE = "completed"
    LEAVE = "left by its reader"
    CANCEL = "ended by CancelTurn"
    DROP = "lost with its channel"
    TIME = "ended by max_duration"


_CUT = (End.LEAVE, End.CANCEL, End.DROP, End.TIME)
# Of all turns; the rest completes.
CUT_SHARE = 0.45
HTTP_SHARE = 0.2


@dataclass(slots=True)
class Turn:
    """One turn as its caller saw it. `key` names it in the request that the simulator records."""

    key: str
    end: End
    cut_after: int
    payloads: list[bytes] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    result: warmline.TurnResult | None = None
    error: warmline.WarmlineError | None = None


@dataclass(slots=True)
class Report:
    """What a run came to. `problems` is empty exactly when nothing was lost, doubled or left behind."""

    sessions: int
    turns: int
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def expect(self, what: str, found: object, expected: object) -> None:
        """Notes a problem unless both are equal."""
        if found != expected:
            self.problems.append(f"{what}: found {found!r}, expected {expected!r}")

    def __str__(self) -> str:
        lines = [f"{self.sessions} sessions x {self.turns} turns"]
        lines += [f"  {name}: {value}" for name, value in self.figures.items()]
        lines += [f"  PROBLEM {problem}" for problem in self.problems[:20]]
        return "\n".join([*lines, f"  {len(self.problems)} problems"])


async def run(sessions: int, turns: int, *, seed: int) -> Report:
    """Runs everything in this process, on one loop, so that every task and socket can be counted."""
    report = Report(sessions, turns)
    spans = EndedSpans()
    # What grpc opens once, for its own loop, stays to the end of the process.
    async with App(_settings("http://127.0.0.1:9/v1")) as app, warmline.Client(app.address) as client:
        [_ async for _ in client.list_sessions()]
    sockets_before, started_s = Books.now().sockets, time.monotonic()
    async with Simulator(keep_frames=True, pace_s=PACE_S, words=WORDS, seed=seed) as sim:
        async with App(_settings(sim.base_url), span_processors=[spans]) as app:
            await _run_line(sim, app, report, seed)
        await settled(lambda: sim.counters.sockets_open == 0)
        report.expect("upstream connections after the end", sim.counters.sockets_open, 0)
    report.expect("spans that never ended", spans.open, [])
    await settled(lambda: Books.now().sockets <= sockets_before)
    report.expect("open sockets of the process after the end", Books.now().sockets, sockets_before)
    report.figures |= {"spans": len(spans.spans), "seconds": round(time.monotonic() - started_s, 1)}
    return report


def _settings(base_url: str) -> Settings:
    profile = UpstreamProfile(base_url=base_url, dialect="codex", credential=Credential(source="none"))
    return Settings(
        listen="127.0.0.1:0",
        default_upstream="simulator",
        upstreams={"simulator": profile},
        limits=Limits(max_warm_sockets=WARM_SOCKETS),
    )


async def _run_line(sim: Simulator, app: App, report: Report, seed: int) -> None:
    async with warmline.Client(app.address) as client:
        [_ async for _ in client.list_sessions()]
        tasks_before = Books.now().tasks
        room, told = asyncio.Semaphore(CONCURRENT_SESSIONS), list[Turn]()

        async def one(number: int) -> None:
            async with room:
                told.extend(await _Caller(app.address, client, number, seed).run(report.turns))

        async with asyncio.TaskGroup() as group:
            for number in range(report.sessions):
                group.create_task(one(number))
        await sim.wait_for_idle(timeout_s=SETTLE_S)
        _compare(report, told, sim.requests)
        await _check_idle(report, sim, app)
        async for session in client.list_sessions(page_size=1000):
            await client.session(session.session_id, start="attach").close()
        await _check_closed(report, sim, app, tasks_before)


class _Caller:
    """One session's caller: its turns one after the other, each ended as the dice say."""

    def __init__(self, address: str, client: warmline.Client, number: int, seed: int) -> None:
        self._address = address
        self._client = client
        self._name = f"session-{number}"
        self._dice = random.Random(f"{seed}-{number}")
        self._config = types_pb2.SessionConfig(request_defaults=types_pb2.RequestOptions(model=MODEL))
        self._config.fallback_policy.http_only = self._dice.random() < HTTP_SHARE
        self._conversation: list[warmline.ItemLike] = []

    async def run(self, turns: int) -> list[Turn]:
        """Has the turns. Returns: what came of each."""
        async with self._client.session(self._name, self._config):
            return [await self._turn(number) for number in range(turns)]

    async def _turn(self, number: int) -> Turn:
        dice = self._dice
        end = dice.choice(_CUT) if dice.random() < CUT_SHARE else End.COMPLETE
        turn = Turn(f"{self._name}-{number}", end, cut_after=dice.randrange(0, 2 * WORDS))
        async with contextlib.AsyncExitStack() as stack:
            client = self._client
            if end is End.DROP:
                client = await stack.enter_async_context(warmline.Client(self._address))
            await self._converse(turn, client)
        if turn.result is not None:
            self._conversation += [f"turn {turn.key}", *turn.result.items]
        return turn

    async def _converse(self, turn: Turn, client: warmline.Client) -> None:
        session = client.session(self._name, self._config, start="lazy")
        request = session.turn(
            [*self._conversation, f"turn {turn.key}"],
            request_id=turn.key,
            # The call before may still be ending at the server: its channel was lost a moment ago.
            on_busy="wait",
            events="both",
            request_json={"metadata": {"turn": turn.key}},
            max_duration_s=self._dice.uniform(0.001, 0.05) if turn.end is End.TIME else None,
        )
        try:
            async with request as events:
                await self._read(turn, events, session)
        except warmline.WarmlineError as error:
            turn.error = error

    async def _read(self, turn: Turn, events: warmline.Turn, session: warmline.Session) -> None:
        read = 0
        while True:
            if read == turn.cut_after and turn.end is End.LEAVE:
                return
            if read == turn.cut_after and turn.end is End.DROP:
                raise warmline.TurnCancelledError("the channel goes with the client")
            if read == turn.cut_after and turn.end is End.CANCEL:
                # Not found: it has ended, or was sent and has not arrived yet; then it goes on as if nobody had asked.
                with contextlib.suppress(warmline.TurnNotFoundError):
                    await session.cancel_turn(request_id=turn.key)
            try:
                event = await anext(events)
            except StopAsyncIteration:
                turn.result = events.snapshot()
                return
            read += 1
            turn.sequences.append(event.sequence)
            if event.HasField("payload_json"):
                turn.payloads.append(event.payload_json)


def _compare(report: Report, told: Sequence[Turn], recorded: Iterable[RequestRecord]) -> None:
    """Compares each turn with the upstream's record of it."""
    by_key: dict[str, list[RequestRecord]] = {}
    for record in recorded:
        by_key.setdefault(record.body.get("metadata", {}).get("turn", "?"), []).append(record)
    for turn in told:
        _compare_turn(report, turn, by_key.pop(turn.key, []))
    report.expect("requests that belong to no turn", sorted(by_key), [])
    outcomes = collections.Counter(record.outcome for record in recorded)
    endings = collections.Counter("completed" if turn.result else turn.end.value for turn in told)
    report.expect("turns", len(told), report.sessions * report.turns)
    report.figures |= {
        "turns at the callers": dict(sorted(endings.items())),
        "requests at the upstream": dict(sorted(outcomes.items())),
        "events delivered": sum(len(turn.sequences) for turn in told),
    }


def _compare_turn(report: Report, turn: Turn, records: Sequence[RequestRecord]) -> None:
    key = turn.key
    report.expect(f"{key}: sequences", turn.sequences, list(range(1, len(turn.sequences) + 1)))
    if turn.result is not None:
        report.expect(f"{key}: requests", [record.outcome for record in records], ["completed"])
        report.expect(f"{key}: events", turn.payloads, [frame for record in records for frame in record.frames])
        return
    if turn.end is End.COMPLETE:
        report.problems.append(f"{key}: failed, and nobody ended it: {turn.error}")
    report.expect(f"{key}: more than one request", len(records) > 1, False)
    for record in records:
        # A request whose last event left before the cancel came is completed; all others must have seen the abort.
        report.expect(f"{key}: the upstream's view", record.outcome in ("aborted", "completed"), True)
        report.expect(f"{key}: events", turn.payloads, record.frames[: len(turn.payloads)])


async def _check_idle(report: Report, sim: Simulator, app: App) -> None:
    """With the sessions still there: no call runs, and no more sockets are open than may be warm."""
    registry = app.registry
    await settled(lambda: registry.running_calls == 0)
    report.expect("running calls", registry.running_calls, 0)
    report.expect("sessions with a call", [s.session_id for s in registry.sessions if s.calls], [])
    await settled(lambda: sim.counters.websockets_open <= WARM_SOCKETS)
    report.expect("warm sockets beyond the limit", max(0, sim.counters.websockets_open - WARM_SOCKETS), 0)
    report.figures |= {
        "handshakes": sim.counters.handshakes,
        "warm sockets in the end": sim.counters.websockets_open,
        "aborts seen by the upstream": sim.counters.aborted_turns,
    }


async def _check_closed(report: Report, sim: Simulator, app: App, tasks_before: "collections.Counter[str]") -> None:
    """With the sessions closed: no socket, no task."""
    report.expect("sessions after all were closed", len(list(app.registry.sessions)), 0)
    await settled(lambda: sim.counters.websockets_open == 0)
    report.expect("WebSockets after all were closed", sim.counters.websockets_open, 0)
    await settled(lambda: not Books.now().tasks - tasks_before)
    report.expect("tasks beyond those at the start", dict(Books.now().tasks - tasks_before), {})


def main() -> int:
    """Runs and prints. Returns: 0 without problems, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    reports: list[Report] = []

    async def work() -> None:
        reports.append(await run(args.sessions, args.turns, seed=args.seed))

    run_loop(work())  # on the loop that the server runs on
    print(reports[0])
    return 1 if reports[0].problems else 0


if __name__ == "__main__":
    sys.exit(main())

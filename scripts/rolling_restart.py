"""Replaces two servers behind HAProxy one after the other, under load, and says what the callers saw.

Each stream is an agent's conversation: a turn, the next turn with all that was said, and so on without a pause. A
server is replaced as a platform does it: SIGTERM, wait for its end, a new process on the same address. Calls that are
shorter than the grace must all end well; a few that are longer are begun on purpose, are cut, and asked again. The
upstream is the simulator, whose record of every request is compared with what the agents said.

Needs `haproxy` (Debian's) on the path. Exit status: 0 when every check holds, else 1.
"""

import argparse
import asyncio
import contextlib
import csv
import io
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import warmline
from warmline.items import ItemLike
from warmline_server.settings import Drain
from warmline_simulator import Simulator, read

ROOT = Path(__file__).parent.parent
HAPROXY_CONFIG = ROOT / "deploy/haproxy/haproxy.cfg"
MODEL = "sim-small"
# Events of an answer beside its own words: what it repeats of the question, and what frames it.
OTHER_EVENTS = 14
SESSIONS_PER_CLIENT = 25
WAIT_S = 60.0


class RestartError(Exception):
    """What was to be tried could not be tried."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its caller saw it. `error` blank: it completed; `response_id` and `full_reason` blank: none."""

    begun_at_s: float
    admitted_after_s: float
    ended_at_s: float
    is_first: bool
    user_texts: tuple[str, ...]
    response_id: str
    full_reason: str
    error: str

    @property
    def duration_s(self) -> float:
        return self.ended_at_s - self.begun_at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedRetry(warmline.CallRetry):
    """The client's own decision, written down: resends are what callers do not see."""

    resends: list[tuple[float, str]] = field(default_factory=list)

    def wait_s(
        self, error: warmline.WarmlineError, *, tries: int, waited_s: float, remaining_s: float | None, jitter: float
    ) -> float | None:
        wait_s = warmline.CallRetry.wait_s(
            self, error, tries=tries, waited_s=waited_s, remaining_s=remaining_s, jitter=jitter
        )
        if wait_s is not None:
            self.resends.append((time.monotonic(), error.reason or "not reached"))
        return wait_s


@dataclass(slots=True)
class Agent:
    """A conversation. `words` is the length of its answers."""

    session: warmline.Session
    words: int
    conversation: list[ItemLike] = field(default_factory=list)
    user_texts: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    is_speaking: asyncio.Event = field(default_factory=asyncio.Event)
    """Text of the current call has come."""

    async def talk(self, stop: asyncio.Event) -> None:
        """Turn after turn, until told to stop; a turn that has begun is finished."""
        while not stop.is_set():
            self.ask()
            await self.call()

    def ask(self) -> None:
        """The next question."""
        text = f"Question {len(self.user_texts)}."
        self.user_texts.append(text)
        self.conversation.append(text)

    async def call(self) -> Call:
        """Sends the conversation and takes up the answer; what goes wrong is noted, and the answer then missing."""
        begun_at_s, admitted_at_s, error = time.monotonic(), 0.0, ""
        self.is_speaking.clear()
        metadata = {"metadata": {"sim_words": str(self.words)}}
        turn = self.session.turn(self.conversation, request_json=metadata)
        try:
            async with turn as events:
                async for event in events:
                    admitted_at_s = admitted_at_s or time.monotonic()
                    if event.HasField("text_delta"):
                        self.is_speaking.set()
        except warmline.WarmlineError as failure:
            error = failure.reason or str(failure)
        result, now_s = turn.snapshot(), time.monotonic()
        if not error:
            self.conversation += result.items
        self.calls.append(
            Call(
                begun_at_s=begun_at_s,
                admitted_after_s=(admitted_at_s or now_s) - begun_at_s,
                ended_at_s=now_s,
                is_first=not self.calls,
                user_texts=tuple(self.user_texts),
                response_id=result.response_id,
                full_reason="" if result.incremental else result.full_reason,
                error=error,
            )
        )
        return self.calls[-1]


class Process:
    """A child with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._command = command
        self._variables = {**os.environ, **variables}
        self._log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._variables, stdout=log, stderr=asyncio.subprocess.STDOUT
            )

    async def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()

    async def kill(self) -> None:
        """Ends it whatever it does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


@dataclass(slots=True)
class Site:
    """HAProxy, the two servers behind it, and the simulator behind them."""

    haproxy: Process
    servers: Mapping[str, Process]
    stats_path: Path
    target: str
    sim: Simulator
    exits: list[int] = field(default_factory=list)

    async def stats(self) -> dict[str, dict[str, str]]:
        """HAProxy's own figures of each server."""
        reader, writer = await asyncio.open_unix_connection(str(self.stats_path))
        writer.write(b"show stat\n")
        text = (await reader.read()).decode().removeprefix("# ")
        writer.close()
        return {row["svname"]: row for row in csv.DictReader(io.StringIO(text)) if row["svname"] in self.servers}

    async def until_status(self, server: str, status: str) -> None:
        """Waits until HAProxy counts the server as UP or DOWN."""

        async def is_so() -> bool:
            with contextlib.suppress(OSError):
                return (await self.stats())[server]["status"] == status
            return False

        deadline_at_s = time.monotonic() + WAIT_S
        while not await is_so():
            if time.monotonic() > deadline_at_s:
                raise RestartError(f"wait for {server} to be {status} at HAProxy: not within {WAIT_S:.0f} s")
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class Phases:
    """Names of times: a phase lasts until the next begins."""

    begun: list[tuple[str, float]] = field(default_factory=list)

    def begin(self, name: str) -> None:
        self.begun.append((name, time.monotonic()))
        print(f"  {name}", flush=True)

    def spans(self) -> Iterable[tuple[str, float, float]]:
        ends = [at_s for _, at_s in self.begun[1:]]
        for (name, from_s), to_s in zip(self.begun, [*ends, float("inf")], strict=True):
            yield name, from_s, to_s


@contextlib.asynccontextmanager
async def open_site(drain: Drain, pace_s: float) -> AsyncIterator[Site]:
    """Starts everything and ends it."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RestartError("no haproxy on the path: apt-get install haproxy")
    async with Simulator(pace_s=pace_s) as sim:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            port, *ports = _free_ports(3)
            addresses = {server: f"127.0.0.1:{number}" for server, number in zip("ab", ports, strict=True)}
            variables = {f"WARMLINE_{server.upper()}": address for server, address in addresses.items()} | {
                "WARMLINE_LISTEN": f"127.0.0.1:{port}",
                "WARMLINE_HAPROXY_SOCKET": str(folder / "stats"),
            }
            haproxy = Process("haproxy", [program, "-db", "-f", str(HAPROXY_CONFIG)], variables, folder)
            servers = {
                server: _server(server, address, sim.base_url, drain, folder) for server, address in addresses.items()
            }
            site = Site(haproxy, servers, folder / "stats", f"127.0.0.1:{port}", sim)
            try:
                for process in (*servers.values(), haproxy):
                    await process.start()
                for server in servers:
                    await site.until_status(server, "UP")
                yield site
            except RestartError as error:
                raise RestartError(f"{error}\n{haproxy.output}{''.join(s.output for s in servers.values())}") from None
            finally:
                for process in (haproxy, *servers.values()):
                    await process.kill()


def _server(name: str, address: str, base_url: str, drain: Drain, folder: Path) -> Process:
    variables = {
        "WARMLINE_LISTEN": address,
        "WARMLINE_DEFAULT_UPSTREAM": "simulator",
        "WARMLINE_UPSTREAMS__SIMULATOR__BASE_URL": base_url,
        "WARMLINE_DRAIN__GRACE_S": str(drain.grace_s),
        "WARMLINE_DRAIN__PROPAGATION_S": str(drain.propagation_s),
        "WARMLINE_TELEMETRY__LOG_LEVEL": "warning",
    }
    return Process(name, [sys.executable, "-m", "warmline_cli.main", "serve"], variables, folder)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@dataclass(slots=True)
class Load:
    """The agents. `long` ones make one call per replacement, longer than the grace."""

    agents: list[Agent]
    long: list[Agent]
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def everybody(self) -> list[Agent]:
        return [*self.agents, *self.long]

    async def until_settled(self) -> None:
        """Waits until every agent has begun and ended one more call."""
        wanted = {id(agent): len(agent.calls) + 2 for agent in self.agents}
        deadline_at_s = time.monotonic() + WAIT_S
        while any(len(agent.calls) < wanted[id(agent)] for agent in self.agents):
            if time.monotonic() > deadline_at_s:
                raise RestartError(f"wait for one more call of every stream: not within {WAIT_S:.0f} s")
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def open_load(target: str, streams: int, long: int, retry: NotedRetry) -> AsyncIterator[Load]:
    """Agents on as few connections as agent hosts would have; a connection of its own per host."""
    chance = random.Random(7)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                warmline.Client(target, retry=retry, channel_options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(-(-(streams + long) // SESSIONS_PER_CLIENT))
        ]

        def agent(name: str, number: int, words: int) -> Agent:
            client = clients[number % len(clients)]
            return Agent(client.session(name, start="lazy", close_on_exit=False, model=MODEL), words)

        yield Load(
            [agent(f"stream-{i}", i, chance.randint(1, 16)) for i in range(streams)],
            [agent(f"long-{i}", i, 100) for i in range(long)],
        )


async def replace(site: Site, server: str, load: Load, phases: Phases) -> None:
    """Replaces one server while everybody talks, and waits until it serves and the long calls have ended."""
    for agent in load.long:
        agent.ask()
    long_calls = [asyncio.create_task(_call_until_well(agent)) for agent in load.long]
    await asyncio.gather(*(asyncio.wait_for(agent.is_speaking.wait(), WAIT_S) for agent in load.long))
    phases.begin(f"{server}: SIGTERM, still takes calls")
    ending = asyncio.create_task(site.servers[server].stop())
    await site.until_status(server, "DOWN")
    phases.begin(f"{server}: finishes its calls")
    site.exits.append(await ending)
    phases.begin(f"{server}: gone")
    await site.servers[server].start()
    await site.until_status(server, "UP")
    phases.begin(f"{server}: new, serves")
    await asyncio.gather(*long_calls)
    await load.until_settled()


async def _call_until_well(agent: Agent) -> None:
    """A cut call is asked again, as TURN_DRAINED says; anything else that goes wrong is not."""
    while (await agent.call()).error == "TURN_DRAINED":
        pass


def show(phases: Phases, calls: Sequence[Call], resends: Sequence[tuple[float, str]], grace_s: float) -> None:
    """What happened to the calls that were begun in each phase."""
    heads = ("calls begun", "completed", "cut", "broken", "resent", "full", "slowest start")
    print(f"\n{'phase':<30}{'seconds':>8}" + "".join(f"{head:>14}" for head in heads))
    for name, from_s, to_s in phases.spans():
        begun = [call for call in calls if from_s <= call.begun_at_s < to_s]
        last_s = min(to_s, max((call.ended_at_s for call in begun), default=from_s))
        row = (
            len(begun),
            sum(not call.error for call in begun),
            sum(is_cut(call, grace_s) for call in begun),
            sum(is_broken(call, grace_s) for call in begun),
            sum(from_s <= at_s < to_s for at_s, _ in resends),
            sum(bool(call.full_reason) and not call.is_first for call in begun),
            f"{max((call.admitted_after_s for call in begun), default=0.0):.2f} s",
        )
        print(f"{name:<30}{last_s - from_s:>8.1f}" + "".join(f"{cell:>14}" for cell in row))


def is_cut(call: Call, grace_s: float) -> bool:
    """Whether it was ended by the drain after at least the grace: what the grace is for."""
    return call.error == "TURN_DRAINED" and call.duration_s >= grace_s


def is_broken(call: Call, grace_s: float) -> bool:
    return bool(call.error) and not is_cut(call, grace_s)


def unseen_conversations(calls: Iterable[Call], sim: Simulator) -> list[str]:
    """Completed calls of which the model did not see the whole conversation."""
    requests = {request.response_id: request for request in sim.requests}
    missing = []
    for call in calls:
        request = requests.get(call.response_id)
        visible = [] if request is None else read.visible_items(request)
        texts = [read.text_of(item.get("content")) for item in visible if item.get("role") == "user"]
        if tuple(texts) != call.user_texts:
            missing.append(f"{call.response_id}: {texts} instead of {list(call.user_texts)}")
    return missing


def checks(site: Site, load: Load, phases: Phases, grace_s: float) -> list[tuple[bool, str]]:
    """Everything that must hold."""
    calls = [call for agent in load.everybody for call in agent.calls]
    completed = [call for call in calls if not call.error]
    broken = [call.error for call in calls if is_broken(call, grace_s)]
    cut = [call for call in calls if is_cut(call, grace_s)]
    unseen = unseen_conversations(completed, site.sim)
    replaced = [sum(is_cut(call, grace_s) and from_s <= call.ended_at_s < to_s for call in calls)
                for name, from_s, to_s in phases.spans() if "finishes" in name]  # fmt: skip
    moved = [agent for agent in load.agents if any(call.full_reason and not call.is_first for call in agent.calls)]
    return [
        (not broken, f"{len(broken)} of {len(calls)} calls broken {sorted(set(broken)) or ''}"),
        (not load.long or all(replaced), f"{len(cut)} calls longer than the grace cut with TURN_DRAINED and repeated"),
        (len(moved) == len(load.agents), f"{len(moved)} of {len(load.agents)} streams went on with a full request"),
        (not unseen, f"{len(completed) - len(unseen)} of {len(completed)} answers to the whole conversation"),
        (site.exits == [0, 0], f"exit statuses of the replaced servers: {site.exits}"),
        (not site.sim.violations, f"{len(site.sim.violations)} requests that a provider would have refused"),
    ]


async def run(streams: int, long: int, drain: Drain) -> bool:
    """The whole proof. Returns: whether every check holds."""
    phases, retry, grace_s = Phases(), NotedRetry(), drain.grace_s
    pace_s = grace_s / 50
    longest_s = (16 + OTHER_EVENTS) * pace_s
    print(f"{streams} streams, calls up to about {longest_s:.1f} s, {long} longer ones; grace {grace_s:.1f} s")
    async with open_site(drain, pace_s) as site, open_load(site.target, streams, long, retry) as load:
        phases.begin("both serve")
        talking = [asyncio.create_task(agent.talk(load.stop)) for agent in load.agents]
        await load.until_settled()
        for server in site.servers:
            await replace(site, server, load, phases)
        load.stop.set()
        await asyncio.gather(*talking)
        show(phases, [call for agent in load.everybody for call in agent.calls], retry.resends, grace_s)
        for server, figures in (await site.stats()).items():
            print(f"HAProxy: {figures['stot']} streams to {server}, {figures['wretr']} connects repeated")
        print(f"resent by the clients: {sorted({reason for _, reason in retry.resends}) or 'nothing'}\n")
        verdicts = checks(site, load, phases, grace_s)
    for holds, text in verdicts:
        print(f"{'ok  ' if holds else 'FAIL'}  {text}")
    return all(holds for holds, _ in verdicts)


def main() -> int:
    parser = argparse.ArgumentParser(description="Replaces two servers behind HAProxy under load.")
    parser.add_argument("--streams", type=int, default=200, help="conversations at once (default: %(default)s)")
    parser.add_argument("--long", type=int, default=8, help="calls per replacement that the grace cuts (default: 8)")
    parser.add_argument("--grace", type=float, default=5.0, metavar="S", help="drain.grace_s (default: %(default)s)")
    parser.add_argument("--propagation", type=float, default=2.0, metavar="S", help="drain.propagation_s (default: 2)")
    args = parser.parse_args()
    drain = Drain(grace_s=args.grace, propagation_s=args.propagation)
    try:
        return 0 if asyncio.run(run(args.streams, args.long, drain)) else 1
    except RestartError as error:
        print(f"rolling restart: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

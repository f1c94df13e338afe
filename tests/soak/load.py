"""The load: agents in many sessions, some of whom leave in the midst of a turn, over a channel of raw stubs.

Every turn says beforehand how it may end; what ends otherwise is an error of the run.
"""

import asyncio
import collections
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

import warmline
from soak.calls import OWN_CONNECTION, Leave, Told, cancel_after, close_after, read
from soak.faults import FAULTS
from warmline.v1 import session_service_pb2 as sessions_pb
from warmline.v1 import turn_service_pb2 as turns_pb
from warmline.v1 import turn_service_pb2_grpc as turns_grpc
from warmline.v1 import types_pb2

MODEL = "sim-small"
TOOL = b'{"type":"function","name":"lookup","parameters":{"type":"object","properties":{"key":{"type":"string"}}}}'
CHANNELS = 4
# A reader that stays stuck asks for this many words at once: far beyond what any window takes in.
STUCK_WORDS = 60_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A session's kind of turn. `after_s`: who leaves does so within that time, about as long as the turn takes."""

    name: str
    words: int
    pace_s: float
    after_s: float
    tool: bool = False

    def request_json(self) -> bytes:
        """What tells the upstream how to answer; the same for all turns of a session, so that they chain."""
        return b'{"metadata":{"sim_words":"%d","sim_pace_s":"%g"}}' % (self.words, self.pace_s)


SHORT = Kind("short", 6, 0.02, 0.25)
LONG = Kind("long", 80, 0.025, 2.2)
TOOLS = Kind("tool loop", 6, 0.02, 0.15, tool=True)
STUCK = Kind("stuck", STUCK_WORDS, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What the load is made of, as shares of 1."""

    turns_per_s: float = 60.0
    leaving: float = 0.58
    """Of the turns; some have ended before their caller leaves, and the rest is 30 % of the calls."""
    faults: float = 0.03
    http: float = 0.25
    append: float = 0.1
    kinds: tuple[tuple[Kind, float], ...] = ((SHORT, 0.6), (LONG, 0.2), (TOOLS, 0.2))
    leaves: tuple[tuple[Leave, float], ...] = (
        (Leave.CANCEL, 0.55),
        (Leave.CANCEL_TURN, 0.2),
        (Leave.DEADLINE, 0.1),
        (Leave.MAX_DURATION, 0.1),
        (Leave.CHANNEL, 0.05),
    )
    agents: int = 120
    """How many there are at once, so that the sessions that the server holds are about as many all the time."""
    retire: float = 0.08
    """Sessions that are closed, left to expire or opened anew after a turn."""
    stuck_every_s: float = 5.0
    """How often a reader reads no more, and leaves some time later."""


@dataclass(slots=True)
class Agent:
    """A conversation in a session. `position`: the lane's history position, for APPEND."""

    session_id: str
    config: types_pb2.SessionConfig
    kind: Kind
    channel: int
    append: bool
    conversation: list[types_pb2.Item] = field(default_factory=list)
    unsent: int = 0
    position: int = 0
    turns: int = 0


@dataclass(slots=True)
class Tally:
    """What came of it all."""

    turns: int = 0
    cancelled: int = 0
    events: int = 0
    endings: "collections.Counter[str]" = field(default_factory=collections.Counter)
    leaves: "collections.Counter[str]" = field(default_factory=collections.Counter)
    faults: "collections.Counter[str]" = field(default_factory=collections.Counter)
    sessions: "collections.Counter[str]" = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    """Endings that should not be."""


# How a call may end whose caller leaves: by its own doing, as told by the server, or before that it had completed.
LEFT = {
    Leave.CANCEL: {"CANCELLED"},
    Leave.CANCEL_TURN: {"TURN_CANCELLED"},
    # Where a resend after a refused handshake would come too late, the call ends at once, with why.
    Leave.DEADLINE: {"DEADLINE_EXCEEDED", "UPSTREAM_FAILED"},
    Leave.MAX_DURATION: {"MAX_DURATION_EXCEEDED", "UPSTREAM_FAILED"},
    Leave.CHANNEL: {"CANCELLED"},
}


class Load:
    """Runs turns at a rate until told to stop. Enter it to open its channels."""

    def __init__(self, address: str, mix: Mix, *, seed: int = 1, slow_reader_s: float) -> None:
        self.tally = Tally()
        self._address = address
        self._mix = mix
        self._slow_reader_s = slow_reader_s
        self._dice = random.Random(seed)
        self._numbers = itertools.count()
        self._clients: list[warmline.Client] = []
        self._idle: collections.deque[Agent] = collections.deque()
        self._running: set[asyncio.Task[None]] = set()
        self._busy = 0

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["Load"]:
        """Opens the channels, and closes them when everything has ended."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(CHANNELS):
                client = warmline.Client(self._address, channel_options=OWN_CONNECTION)
                self._clients.append(await stack.enter_async_context(client))
            try:
                yield self
            finally:
                for task in self._running:
                    task.cancel()
                if self._running:
                    await asyncio.wait(self._running)

    async def run(self, duration_s: float) -> None:
        """Begins turns at the rate for so long, and waits for those that run."""
        began_s, begun = time.monotonic(), 0
        stuck_at_s = began_s + self._mix.stuck_every_s
        while (now_s := time.monotonic()) < began_s + duration_s:
            # The rate is kept on the whole: after a stall, what was missed is made up for.
            while begun < (now_s - began_s) * self._mix.turns_per_s:
                begun += 1
                self._begin(self._turn(self._agent()))
            if now_s >= stuck_at_s:
                stuck_at_s += self._mix.stuck_every_s
                self._begin(self._stuck())
            await asyncio.sleep(0.01)
        while self._running:
            await asyncio.wait(self._running)

    async def close_sessions(self) -> None:
        """Closes what is idle; what was left to expire is left."""
        while self._idle:
            await self._close(self._idle.popleft())

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._note_wrong(f"the load itself failed: {task.exception()!r}")

    def _note_wrong(self, what: str) -> None:
        if len(self.tally.wrong) < 50:
            self.tally.wrong.append(what)

    # Sessions

    def _agent(self) -> Agent:
        """One that is idle, in no order; a new one where there are too few."""
        if self._idle and len(self._idle) + self._busy >= self._mix.agents:
            self._idle.rotate(self._dice.randrange(len(self._idle)))
            return self._idle.popleft()
        kinds, shares = zip(*self._mix.kinds, strict=True)
        return self._new_agent(self._dice.choices(kinds, shares)[0])

    def _new_agent(self, kind: Kind, session_id: str = "") -> Agent:
        config = types_pb2.SessionConfig(
            request_defaults=types_pb2.RequestOptions(model=MODEL, tools=types_pb2.ToolList(tools_json=[TOOL])),
            fallback_policy=types_pb2.FallbackPolicy(http_only=self._dice.random() < self._mix.http),
        )
        self.tally.sessions["opened"] += 1
        return Agent(
            session_id or f"session-{next(self._numbers)}", config, kind,
            self._dice.randrange(CHANNELS), self._dice.random() < self._mix.append,
        )  # fmt: skip

    async def _give_back(self, agent: Agent) -> None:
        """Keeps an agent for another turn, or ends its session: closed, left alone, or closed and opened anew."""
        if self._dice.random() >= self._mix.retire:
            self._idle.append(agent)
            return
        what = self._dice.choice(("closed", "left to expire", "closed and opened again"))
        self.tally.sessions[what] += 1
        if what != "left to expire":
            await self._close(agent)
        if what == "closed and opened again":
            self._idle.append(self._new_agent(agent.kind, agent.session_id))

    async def _close(self, agent: Agent) -> None:
        try:
            request = sessions_pb.CloseSessionRequest(session_id=agent.session_id)
            await self._clients[agent.channel].sessions.CloseSession(request)
        except grpc.aio.AioRpcError as error:
            # It may have expired before.
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                self._note_wrong(f"CloseSession: {error.code().name} {error.details()}")

    # Turns

    async def _turn(self, agent: Agent) -> None:
        self._busy += 1
        try:
            await self._converse(agent)
        finally:
            self._busy -= 1
        await self._give_back(agent)

    async def _converse(self, agent: Agent) -> None:
        dice, mix = self._dice, self._mix
        leave: Leave | None = None
        fault = ""
        if dice.random() < mix.leaving:
            ways, shares = zip(*mix.leaves, strict=True)
            leave = dice.choices(ways, shares)[0]
        elif dice.random() < mix.faults / (1 - mix.leaving):
            fault = dice.choice(tuple(FAULTS))
        key = f"k{next(self._numbers)}"
        text = f"{key} fault:{fault} " if fault else f"{key} "
        if agent.kind.tool:
            text += "use the tool lookup"
        agent.conversation.append(warmline.user(text))
        agent.unsent += 1
        told = await self._call(agent, key, leave)
        self._judge(told, leave, fault)
        while told.calls and not told.error:
            outputs = [warmline.function_output(call_id, "42") for call_id in told.calls]
            agent.conversation += outputs
            agent.unsent += len(outputs)
            told = await self._call(agent, key, None)
            self._judge(told, None, "")
        if told.error:
            self._forget(agent)

    def _forget(self, agent: Agent) -> None:
        """A turn that did not end well is no part of the conversation; after it an agent sends the whole."""
        agent.conversation.clear()
        agent.unsent = agent.position = 0

    async def _call(self, agent: Agent, key: str, leave: Leave | None) -> Told:
        request = self._request(agent, key)
        after_s = self._dice.uniform(0.0, agent.kind.after_s)
        client, timeout_s = self._clients[agent.channel], None
        async with contextlib.AsyncExitStack() as stack:
            stub = client.turns
            if leave is Leave.CHANNEL:
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(self._address, OWN_CONNECTION))
                stub = turns_grpc.TurnServiceStub(channel)
            elif leave is Leave.DEADLINE:
                timeout_s = max(0.005, after_s)
            elif leave is Leave.MAX_DURATION:
                request.max_duration.FromNanoseconds(max(1_000_000, round(after_s * 1e9)))
            call = stub.StreamTurn(request, timeout=timeout_s)
            leaving: asyncio.Task[None] | None = None
            if leave is Leave.CHANNEL:
                leaving = self._begin(close_after(channel, after_s))
            elif leave is Leave.CANCEL:
                leaving = self._begin(cancel_after(call, after_s))
            elif leave is Leave.CANCEL_TURN:
                leaving = self._begin(self._cancel_turn_after(client, request, after_s))
            told = await read(call)
            if leaving is not None:
                leaving.cancel()
        tally = self.tally
        tally.turns += 1
        tally.events += told.events
        if not told.error:
            agent.conversation += told.items
            agent.position, agent.unsent = told.position, 0
            agent.turns += 1
        return told

    def _request(self, agent: Agent, key: str) -> turns_pb.StreamTurnRequest:
        request = turns_pb.StreamTurnRequest(
            session_id=agent.session_id,
            session_config=agent.config,
            turn_id=key,
            request_id=f"{key}-{next(self._numbers)}",
            request_json=agent.kind.request_json(),
            # The call before may still be ending at the server: its caller left a moment ago.
            on_busy=turns_pb.BUSY_MODE_WAIT,
        )
        if agent.append and agent.position:
            request.input_mode = turns_pb.INPUT_MODE_APPEND
            request.expected_history_position = agent.position
            request.input.extend(agent.conversation[-agent.unsent :])
        else:
            request.input.extend(agent.conversation)
        return request

    async def _cancel_turn_after(
        self, client: warmline.Client, request: turns_pb.StreamTurnRequest, after_s: float
    ) -> None:
        await asyncio.sleep(after_s)
        cancel = turns_pb.CancelTurnRequest(session_id=request.session_id, request_id=request.request_id)
        try:
            await client.turns.CancelTurn(cancel)
        except grpc.aio.AioRpcError as error:
            # It has ended, or was sent and has not arrived; then it goes on as if nobody had asked.
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                self._note_wrong(f"CancelTurn: {error.code().name} {error.details()}")

    def _judge(self, told: Told, leave: Leave | None, fault: str) -> None:
        tally = self.tally
        tally.endings[told.error or "completed"] += 1
        if fault:
            tally.faults[fault] += 1
        if leave is not None and told.error:
            tally.cancelled += 1
            tally.leaves[leave.value] += 1
        allowed = {""} if leave is None else {"", *LEFT[leave]}
        if fault:
            allowed = set(FAULTS[fault].reasons)
        # An APPEND call whose session expired meanwhile is told so, and its agent sends the whole.
        allowed |= {"TRANSCRIPT_LOST", "HISTORY_CONFLICT"}
        if told.error not in allowed:
            self._note_wrong(f"{told.error} where {sorted(allowed)} may be: leave {leave}, fault {fault or 'none'}")

    async def _stuck(self) -> None:
        """Reads one message of a long answer and no more, until the server must have ended it; then it leaves."""
        agent = self._new_agent(STUCK)
        agent.conversation.append(warmline.user(f"k{next(self._numbers)} a long answer"))
        client = self._clients[agent.channel]
        request = self._request(agent, "stuck")
        request.events = turns_pb.EVENT_MODE_BOTH
        call = client.turns.StreamTurn(request)
        try:
            await call.read()
            await asyncio.sleep(3 * self._slow_reader_s)
            self.tally.leaves["a reader that is stuck"] += 1
        finally:
            call.cancel()
            self.tally.turns += 1
            self.tally.cancelled += 1
        await self._close(agent)

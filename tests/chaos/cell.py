"""One cell of the matrix: a session's healthy turn, the turn that meets the fault, and the turn after it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import warmline
from chaos import audit, network
from chaos.effects import Effect, Failure, Senseless, Unanswered, Unnoticed
from chaos.network import NetworkFault
from chaos.phases import CALL, FIRST, STREAMING, TRANSPORTS, Phase, TransportName, answer, place
from chaos.proxy import Link
from chaos.rules import REQUEST_RETRIES, STREAM_RETRIES, Expected, Mode, expect, expect_lasting
from chaos.scripted import ScriptedFault, StatusFault
from chaos.stage import MODEL, Books, Listener, Stage, open_stage, settled, until, until_due
from e2e.line import session_config, until_slot
from warmline_simulator import Connection, Gate, Reply, Script
from warmline_simulator.records import RequestRecord
from warmline_simulator.script import Step

Fault = NetworkFault | StatusFault | ScriptedFault

HERE = "here"
"""The gate at which the upstream waits for the fault."""
ONE, TWO, THREE = "first question", "second question", "third question"
TURN = "turn-2"
LASTING_BUDGETS: dict[str, Any] = {"retries": STREAM_RETRIES, "request_retries": REQUEST_RETRIES}
# More than a socket that was given up may wait for its peer's goodbye.
GOODBYE_S = 2.0


@dataclass(frozen=True, slots=True)
class Cell:
    """A fault in a phase over a transport.

    `tool_call`: the first item is a call that the caller executes. `lasting`: every attempt of the turn meets the fault.
    """

    fault: Fault
    phase: Phase
    transport: TransportName
    mode: Mode = "before_output"
    tool_call: bool = False
    lasting: bool = False

    def __str__(self) -> str:
        extra = [self.mode] * (self.mode != "before_output") + ["tool call"] * self.tool_call
        extra += ["for good"] * self.lasting
        return "-".join([self.fault.name, self.phase.value, self.transport, *extra])

    @property
    def effect(self) -> Effect | Senseless:
        """What the fault does here."""
        return self.fault.effect(self.phase, self.transport)

    @property
    def expected(self) -> Expected | Senseless:
        """What must follow, or why the cell does not exist."""
        effect = self.effect
        if isinstance(effect, Senseless):
            return effect
        if self.lasting:
            both = [self.fault.effect(self.phase, transport) for transport in TRANSPORTS]
            websocket, http = [found if isinstance(found, Failure) else None for found in both]
            return expect_lasting(websocket if self.transport == "ws" else None, http, self.phase)
        return expect(effect, self.phase, self.transport, self.mode, tool_call=self.tool_call)

    @property
    def is_scripted(self) -> bool:
        """Whether a reply of the script, not the model's, is what meets the fault."""
        return self.phase in STREAMING or (self.phase is Phase.HANDSHAKE and self.transport == "http")


@dataclass(slots=True)
class Result:
    """What came of a cell. `problems` is empty exactly when everything was as it must be."""

    cell: Cell
    problems: list[str] = field(default_factory=list)


async def run_cell(cell: Cell) -> Result:
    """Runs one cell from an empty process to an empty process, and checks everything."""
    result = Result(cell)
    before = Books.now()
    try:
        await _Run(cell, result).run()
    except (AssertionError, OSError, warmline.WarmlineError) as error:
        result.problems.append(f"{type(error).__name__}: {error}")
    await _note_leaks(before, result.problems)
    return result


async def _note_leaks(before: Books, problems: list[str]) -> None:
    def is_clean() -> bool:
        now = Books.now()
        return not now.tasks - before.tasks and now.sockets <= before.sockets

    if not await settled(is_clean):
        now = Books.now()
        problems.append(f"left behind: tasks {dict(now.tasks - before.tasks)}, {now.sockets - before.sockets} sockets")


class _Run:
    def __init__(self, cell: Cell, result: Result) -> None:
        self.cell, self.problems = cell, result.problems
        effect, expected = cell.effect, cell.expected
        assert not isinstance(effect, Senseless), f"{cell} does not exist"
        assert not isinstance(expected, Senseless), "a cell that exists has an expectation"
        self.effect, self.expected = effect, expected
        self.conversation: list[warmline.ItemLike] = []
        self.link: Link | None = None

    async def run(self) -> None:
        stage: Stage | None = None
        async with open_stage(script_of(self.cell)) as stage:
            is_warm = self.cell.transport == "ws" and self.cell.phase is Phase.IDLE
            config = session_config(
                warm_up="handshake" if is_warm else "none",
                fallback_policy={"http_only": self.cell.transport == "http"},
                **(LASTING_BUDGETS if self.cell.lasting else {}),
            )
            async with stage.client.session("session-1", config, model=MODEL) as session:
                await self._play(stage, session)
        self.problems += stage.left

    async def _play(self, stage: Stage, session: warmline.Session) -> None:
        await self._have_turn(stage, session, ONE)
        await self._prepare(stage, session)
        requests, handshakes = len(stage.sim.requests), len(stage.sim.handshakes)
        # Who was refused leaves no trace at the proxy: it listens again when the server says that it was.
        heal = stage.proxy.listen if self.cell.fault.name == "refuse" and not self.cell.lasting else None
        listener = Listener(self._turn(session, TWO, turn_id=TURN, retry=self.cell.mode), stage.clock, heal)
        try:
            await self._meet(stage, listener)
            await listener.ended()
        finally:
            await listener.give_up()
        await self._late(stage)
        told = audit.Told(listener, stage.sim.requests[requests:], stage.sim.handshakes[handshakes:])
        self.problems += audit.of_turn(self.cell, self.expected, told)
        self._take_over(listener.turn.snapshot())
        await stage.proxy.heal()
        await self._go_on(stage, session)
        inferences = [found async for found in session.list_inferences(turn_id=TURN)]
        self.problems += audit.of_trace(self.cell, self.expected, told, inferences, stage.spans.ended)
        await stage.clock.advance(GOODBYE_S)
        self.problems += await audit.of_stage(stage, is_warm=session.config.warm_up != 1)

    def _turn(self, session: warmline.Session, text: str, **options: Any) -> warmline.Turn:
        self.conversation.append(text)
        return session.turn(self.conversation, events="both", **options)

    async def _have_turn(self, stage: Stage, session: warmline.Session, text: str, **options: Any) -> Listener:
        """A turn that must go well."""
        listener = Listener(self._turn(session, text, **options), stage.clock)
        try:
            await listener.ended()
        finally:
            await listener.give_up()
        if listener.error is not None:
            raise AssertionError(f"the healthy turn {text!r} failed: {listener.error}")
        self._take_over(listener.turn.snapshot())
        return listener

    def _take_over(self, result: warmline.TurnResult) -> None:
        """What was delivered belongs to the conversation, also when the turn failed."""
        self.conversation += result.items
        self.conversation += [call.answer("done") for call in result.function_calls]

    async def _prepare(self, stage: Stage, session: warmline.Session) -> None:
        """Brings the line to where the fault can meet it, and the fault that waits for a connection or an idle one."""
        cell, proxy = self.cell, stage.proxy
        if cell.phase in (Phase.CONNECT, Phase.HANDSHAKE) and cell.transport == "ws":
            await session.advance_window()
            await until(lambda: not proxy.open_links, "the old socket's end")
        if cell.phase is Phase.CONNECT:
            for link in proxy.open_links:
                link.close()
            await until(lambda: not proxy.open_links, "the old connection's end")
            assert isinstance(cell.fault, NetworkFault), "only the network has faults at the connect"
            await cell.fault.at_connect(proxy, lasting=cell.lasting)
        if cell.phase is Phase.IDLE:
            await self._strike_idle(stage, session)

    async def _strike_idle(self, stage: Stage, session: warmline.Session) -> None:
        (self.link,) = stage.proxy.open_links
        up, down = self.link.pipes
        up_before, down_before = up.seen, down.seen
        if isinstance(self.cell.fault, NetworkFault):
            await self.cell.fault.strike_idle(self.link)
        else:
            await stage.sim.wait_for_gate(HERE)
            stage.sim.release(HERE)
            if self.cell.fault.name != "stall":
                await down.until_passed(down_before)
        if self.cell.transport == "http" or not isinstance(self.effect, Unnoticed):
            return
        if self.effect.warmed_again:
            await stage.clock.advance(self.effect.waits_s)
            await until_slot(session, "READY")
        elif self.effect.waits_s:  # the pong is late, and comes
            await stage.clock.advance(network.PING_INTERVAL_S)
            await up.until_seen(up_before)
            await down.until_seen(down_before)
            await stage.clock.advance(self.effect.waits_s)
            await network.release(self.link)
        await session.get()

    async def _meet(self, stage: Stage, listener: Listener) -> None:
        """The turn is under way: it comes to the phase, meets the fault, and time passes as the effect needs it."""
        cell = self.cell
        if cell.lasting:
            return
        if cell.phase is Phase.CONNECT:
            await self._wait_for_link(stage)
        elif cell.phase is not Phase.IDLE:
            await self._reach(stage, listener)
            if isinstance(cell.fault, NetworkFault):
                await self._strike(stage, cell.fault)
            else:
                stage.sim.release(HERE)
        elif isinstance(self.effect, Failure) and self.effect.silence_s or cell.fault.name == "delay":
            await self._wait_for_request(stage, listener)
        await self._pass_time(stage, listener)

    async def _strike(self, stage: Stage, fault: NetworkFault) -> None:
        """The exchange's connection meets the fault; then the upstream goes on, into it."""
        self.link = stage.proxy.open_links[-1]
        up, down = self.link.pipes
        up_before, down_before = up.seen, down.seen
        fault.strike(self.link, self.cell.phase)
        stage.sim.release(HERE)
        if fault.name in ("delay", "late", "blackhole down", "blackhole"):
            await down.until_seen(down_before)
        if fault.name == "blackhole up" and isinstance(self.effect, Failure):
            await up.until_seen(up_before)

    async def _wait_for_link(self, stage: Stage) -> None:
        """The connection that meets the fault, where it is not over at once."""
        silent = isinstance(self.effect, Unanswered | Unnoticed) or (
            isinstance(self.effect, Failure) and self.effect.silence_s > 0
        )
        if silent:
            await until(lambda: bool(stage.proxy.open_links), "a connection")
            link = self.link = stage.proxy.open_links[-1]
            await until(lambda: bool(link.swallowed or (link.up is not None and link.up.seen)), "its first bytes")

    async def _wait_for_request(self, stage: Stage, listener: Listener) -> None:
        """The next request on the kept connection has left the server."""
        assert self.link is not None, "an idle connection was struck"
        up, down = self.link.pipes
        if self.cell.transport == "http":
            await until(lambda: len(stage.sim.requests) == 2 or up.mode is network.Mode.DROP and up.seen > up.passed, "it")
            if self.cell.fault.name in ("delay", "late", "blackhole down"):
                seen = down.passed
                await until(lambda: down.seen > seen, "the answer")

    async def _reach(self, stage: Stage, listener: Listener) -> None:
        """Waits until the exchange is in the phase, and its caller has heard everything up to there."""
        cell = self.cell
        if isinstance(cell.fault, StatusFault):
            return
        await stage.sim.wait_for_gate(HERE)
        match cell.phase:
            case Phase.BEFORE_CREATED:
                await listener.until("server_model" if cell.transport == "http" else "attempt_started")
            case Phase.MID_DELTA:
                await listener.until("text_delta", 2)
            case Phase.AFTER_ITEM:
                await listener.until("item_done")
            case Phase.AT_TERMINAL:
                await listener.until("item_done", 2)

    async def _pass_time(self, stage: Stage, listener: Listener) -> None:
        clock = stage.clock
        match self.effect:
            case Unanswered(after_s=after_s):
                await until_due(clock, after_s)
                await clock.advance(after_s)
            case Failure(silence_s=silence_s) if silence_s > 0:
                await until_due(clock, silence_s)
                await clock.advance(silence_s - 0.01)
                assert not listener.is_over, "the call ended before its limit"
                await clock.advance(0.01)
            case Unnoticed(waits_s=waits_s) if waits_s > 0 and not (
                self.cell.phase is Phase.IDLE and self.cell.transport == "ws"
            ):
                await clock.advance(waits_s)
                assert not listener.is_over, "the call ended before its limit"
                assert self.link is not None, "a connection holds the bytes back"
                await network.release(self.link)

    async def _late(self, stage: Stage) -> None:
        """What was held back comes now, when nobody waits for it."""
        if self.cell.fault.name == "late" and self.link is not None and self.link.up is not None:
            await network.release(self.link)
            if isinstance(self.effect, Unanswered):
                await stage.sim.wait_for_answered_handshakes(2)
                await until(lambda: not stage.app.registry.running_calls, "the call's end")
                await settled(lambda: _circuit_is_closed(stage))

    async def _go_on(self, stage: Stage, session: warmline.Session) -> None:
        """The next turn works, travels as it must, and carries the whole conversation."""
        listener = await self._have_turn(stage, session, THREE)
        result, expected = listener.turn.snapshot(), self.expected
        found = (result.transport, result.slot_outcome == "REUSED", result.incremental, result.attempts)
        transport = "HTTP" if expected.next_transport == "http" else "WEBSOCKET"
        continues = expected.next_reuses and expected.ending == "completed"
        reused = continues or (expected.ending == "incomplete" and self.cell.transport == "ws")
        if found != (transport, reused, continues, 1):
            self.problems.append(
                f"next turn: transport, reused, incremental, attempts are {found}, "
                f"expected {(transport, reused, continues, 1)} ({result.full_reason})"
            )
        seen = [audit.mark(item) for item in stage.sim.requests[-1].visible_input or ()]
        sent = [audit.mark(_as_json(item)) for item in listener.turn.request.input]
        if seen != sent or len(sent) < 4:
            self.problems.append(f"next turn: the upstream saw the conversation {seen}, expected {sent}")


def _circuit_is_closed(stage: Stage) -> bool:
    (session,) = stage.app.registry.sessions
    return session.upstream.circuit.allows_waiting


def _as_json(item: Any) -> dict[str, Any]:
    match item.WhichOneof("content"):
        case "json":
            found: dict[str, Any] = json.loads(item.json)
            return found
        case "message":
            return {"role": "user", "content": [{"text": item.message.text}]}
    return {"type": "function_call_output", "id": None}


def is_second(record: RequestRecord) -> bool:
    """A request of the turn that meets the fault, or of one after it."""
    return TWO in record.raw.decode()


def is_faulted(record: RequestRecord) -> bool:
    """A request of the turn that meets the fault, and of no turn after it."""
    return is_second(record) and THREE not in record.raw.decode()


def script_of(cell: Cell) -> Script:
    """What the upstream does in a cell."""
    fault = cell.fault
    if isinstance(fault, StatusFault):
        return _script_of_status(fault, cell)
    if cell.lasting:
        return _script_for_good(fault, cell)
    if cell.phase is Phase.IDLE and isinstance(fault, ScriptedFault):
        return Script(connections=[Connection(then=[Gate(HERE), *fault.steps])])
    if cell.phase is Phase.HANDSHAKE and cell.transport == "ws":
        return Script(connections=[Connection(), Connection(gate=HERE)])
    if not cell.is_scripted:
        return Script()
    events = answer(CALL if cell.tool_call else FIRST)
    if cell.phase is Phase.HANDSHAKE:
        return _script(cell, Reply(match=is_second, gate=HERE, events=events))
    index = place(events, cell.phase)
    before, after = events[:index], events[index:]
    steps: Sequence[Step] = ()
    if isinstance(fault, ScriptedFault):
        steps = fault.steps_over(cell.transport)
        if fault.after_terminal:
            steps, after = [*after, *steps], []
        elif fault.instead:
            after = after[1:]
        elif not fault.goes_on:
            after = []
    return _script(cell, Reply(match=is_second, events=[*before, Gate(HERE), *steps, *after], headers=HEAD))


def _script_for_good(fault: Fault, cell: Cell) -> Script:
    if not isinstance(fault, ScriptedFault):
        return Script()
    replies = {
        transport: [Reply(match=is_faulted, events=fault.steps_over(transport), times=None)]
        for transport in TRANSPORTS
        if isinstance(fault.effect(cell.phase, transport), Failure)
    }
    return Script(creates=replies.get("ws", []), posts=replies.get("http", []))


# Tells the caller over HTTP that the head of the answer has come.
HEAD = {"openai-model": "sim-served"}


def _script(cell: Cell, reply: Reply) -> Script:
    return Script(posts=[reply]) if cell.transport == "http" else Script(creates=[reply])


def _script_of_status(fault: StatusFault, cell: Cell) -> Script:
    is_page = isinstance(fault.body, str) and "<html>" in fault.body
    post = Reply(
        match=is_faulted,
        status=fault.status,
        headers=fault.headers,
        body=fault.body,
        content_type="text/html" if is_page else None,
        times=None if cell.lasting else 1,
    )
    if cell.transport == "http":
        return Script(posts=[post])
    headers = {**fault.headers, **({"content-type": "text/html"} if is_page else {})}
    refusal = Connection(status=fault.status, headers=headers, body=fault.body)
    if cell.lasting:
        return Script(connections=[Connection(), *[refusal] * (1 + STREAM_RETRIES)], posts=[post])
    return Script(connections=[Connection(), refusal])


async def run_cells(cells: Sequence[Cell]) -> list[Result]:
    """Runs cells one after the other."""
    return [await run_cell(cell) for cell in cells]


__all__ = ["Cell", "Result", "asyncio", "run_cell", "run_cells"]

"""Runs one cell: a session's healthy turn, the turn that meets the fault, and the turn after it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

import warmline
from chaos import audit, network
from chaos.cell import HERE, TURN, TWO, Cell
from chaos.effects import Failure, Senseless, Unanswered, Unnoticed
from chaos.line import SessionLine
from chaos.network import NetworkFault
from chaos.phases import Phase
from chaos.proxy import Link, Mode
from chaos.rules import REQUEST_RETRIES, STREAM_RETRIES
from chaos.scripted import StatusFault
from chaos.stage import Listener, Stage, open_stage, until, until_due
from e2e.books import Books, settled
from e2e.line import until_slot

LASTING_BUDGETS: dict[str, Any] = {"retries": STREAM_RETRIES, "request_retries": REQUEST_RETRIES}
# More than a socket that was given up may wait for its peer's goodbye.
GOODBYE_S = 2.0


@dataclass(slots=True)
class Result:
    """What came of a cell. `problems` is empty exactly when everything was as it must be."""

    cell: object
    problems: list[str] = field(default_factory=list)


async def run_cell(cell: Cell) -> Result:
    """Runs one cell and checks everything."""
    return await in_clean_process(cell, lambda problems: _Run(cell, problems).run())


async def in_clean_process(cell: object, work: Callable[[list[str]], Awaitable[None]]) -> Result:
    """Runs `work` with a list for its problems. Afterwards no task and no socket may be there that was not before."""
    # What grpc opens once, for its own loop, stays to the end of the process.
    grpc.aio.init_grpc_aio()
    result, before = Result(cell), Books.now()
    try:
        await work(result.problems)
    except (AssertionError, OSError, LookupError, warmline.WarmlineError) as error:
        result.problems.append(f"{type(error).__name__}: {error}")

    def is_clean() -> bool:
        now = Books.now()
        return not now.tasks - before.tasks and now.sockets <= before.sockets

    if not await settled(is_clean):
        now = Books.now()
        left = f"tasks {dict(now.tasks - before.tasks)}, {now.sockets - before.sockets} sockets"
        result.problems.append(f"left behind: {left}")
    return result


class _Run:
    def __init__(self, cell: Cell, problems: list[str]) -> None:
        self.cell, self.problems = cell, problems
        effect, expected = cell.effect, cell.expected
        assert not isinstance(effect, Senseless), f"{cell} does not exist"
        assert not isinstance(expected, Senseless), "a cell that exists has an expectation"
        self.effect, self.expected = effect, expected
        self.link: Link | None = None

    async def run(self) -> None:
        cell = self.cell
        async with open_stage(cell.script) as stage:
            is_warm = cell.transport == "ws" and cell.phase is Phase.IDLE
            budgets = LASTING_BUDGETS if cell.lasting else {}
            line = SessionLine(stage, cell.transport, is_warm=is_warm, **budgets)
            async with line.session:
                await self._play(stage, line)
                await stage.clock.advance(GOODBYE_S)
                self.problems += await audit.of_stage(stage, is_warm=is_warm)
        self.problems += stage.left

    async def _play(self, stage: Stage, line: SessionLine) -> None:
        cell, sim = self.cell, stage.sim
        await line.healthy_turn()
        await line.prepare(cell.phase)
        if cell.phase is Phase.CONNECT:
            assert isinstance(cell.fault, NetworkFault), "only the network has faults at the connect"
            await cell.fault.at_connect(stage.proxy, lasting=cell.lasting)
        elif cell.phase is Phase.IDLE:
            await self._strike_idle(stage, line.session)
        requests, handshakes = len(sim.requests), len(sim.handshakes)
        # Who was refused leaves no trace at the proxy: it listens again when the server says that it was.
        heal = stage.proxy.listen if cell.fault.name == "refuse" and not cell.lasting else None
        turn = line.turn(line.session, TWO, turn_id=TURN, retry=cell.mode)
        listener = Listener(turn, stage.clock, before_wait=heal)
        try:
            await self._meet(stage, listener)
            await listener.ended()
        finally:
            await listener.give_up()
        await self._late(stage)
        told = audit.Told(listener, sim.requests[requests:], sim.handshakes[handshakes:])
        self.problems += audit.of_turn(cell, self.expected, told)
        line.take_over(listener.turn.snapshot())
        await stage.proxy.heal()
        self.problems += await line.go_on(self.expected)
        inferences = [found async for found in line.session.list_inferences(turn_id=TURN)]
        self.problems += audit.of_trace(cell, self.expected, told, inferences, stage.spans.spans)

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
        elif (isinstance(self.effect, Failure) and self.effect.silence_s) or cell.fault.name == "delay":
            await self._wait_for_request(stage)
        await self._pass_time(stage, listener)

    async def _strike(self, stage: Stage, fault: NetworkFault) -> None:
        """The exchange's connection meets the fault; then the upstream goes on, into it."""
        self.link = stage.proxy.open_links[-1]
        up, down = self.link.pipes
        up_before, down_before = up.seen, down.seen
        fault.strike(self.link, self.cell.phase)
        stage.sim.release(HERE)
        if fault.stops_answers:
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

    async def _wait_for_request(self, stage: Stage) -> None:
        """The next request on the kept connection has left the server; its answer, if there is one, is stopped."""
        assert self.link is not None, "an idle connection was struck"
        if self.cell.transport == "ws":
            return
        up, down = self.link.pipes
        if up.mode is Mode.DROP:
            await until(lambda: up.seen > up.passed, "the request, to be swallowed")
        else:
            await until(lambda: down.seen > down.passed, "the answer, to be stopped")

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


def _circuit_is_closed(stage: Stage) -> bool:
    (session,) = stage.app.registry.sessions
    return session.upstream.circuit.allows_waiting

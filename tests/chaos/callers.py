"""Faults of the caller: it leaves, cancels, runs out of time or stops reading, in each phase of its turn."""

import contextlib
from dataclasses import dataclass

import warmline
from chaos import audit
from chaos.cell import HEAD, HERE, TURN, TWO, Cell, is_second, script_with
from chaos.effects import Senseless
from chaos.line import SessionLine
from chaos.network import NETWORK_FAULTS, NetworkFault
from chaos.phases import HAS_OUTPUT, STREAMING, Phase, TransportName, answer, place
from chaos.rules import Attempt, Expected
from chaos.run import GOODBYE_S, Result, in_clean_process
from chaos.stage import Listener, Stage, open_stage, until
from warmline_simulator import Gate, Reply, Script, ev
from warmline_simulator.script import Step

# The deadline is kept in real time too, where it must be far off; a handshake of our own has a limit of 15 s.
LIMIT_S, HANDSHAKE_LIMIT_S = 60.0, 14.0
SLOW_READER_S = 30.0
# More than all buffers between the upstream and a caller that does not read, in events below the limit of one.
FLOOD = [ev.text_delta("x" * 150_000, item_id="msg-flood")] * 300
"""Text that nobody could hold back for long: 45 MB."""

IDLE_CALL = "no call is there to end"


@dataclass(frozen=True)
class CallerFault:
    """`code` and `reason` of the status; the reason is blank where the caller's own side ends the call."""

    name: str
    says: str
    code: str
    reason: str = ""

    def senseless(self, phase: Phase) -> Senseless | None:
        """Why it cannot happen in a phase, None where it can."""
        if phase is Phase.IDLE and self.name not in ("leaves", "CancelTurn"):
            return Senseless(IDLE_CALL)
        if self.name == "stops reading" and phase in (Phase.CONNECT, Phase.HANDSHAKE):
            return Senseless("nothing is written before the answer begins: as before created")
        if self.name == "stops reading" and phase is Phase.AT_TERMINAL:
            return Senseless("what is left fits into the buffers: nobody can tell it from a reader that reads")
        return None


CALLER_FAULTS = (
    CallerFault("leaves", "Its channel is closed.", "CANCELLED"),
    CallerFault("cancels", "It cancels the call.", "CANCELLED"),
    CallerFault("CancelTurn", "Another call of it cancels the turn.", "CANCELLED", "TURN_CANCELLED"),
    CallerFault("deadline", "The call's gRPC deadline passes.", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
    CallerFault("max_duration", "The call's max_duration passes.", "DEADLINE_EXCEEDED", "MAX_DURATION_EXCEEDED"),
    CallerFault("stops reading", "It reads no more, and much follows.", "RESOURCE_EXHAUSTED", "SLOW_READER"),
)


@dataclass(frozen=True, slots=True)
class CallerCell:
    """A fault of the caller in a phase of a turn over a transport."""

    fault: CallerFault
    phase: Phase
    transport: TransportName

    def __str__(self) -> str:
        return f"{self.fault.name}-{self.phase.value}-{self.transport}"

    @property
    def expected(self) -> Expected | Senseless:
        """DESIGN §3, cancellation: the upstream read ends at once, the attempt keeps its ids, the socket goes."""
        senseless = self.fault.senseless(self.phase)
        if senseless is not None:
            return senseless
        if self.phase is Phase.IDLE:  # nothing happens to a session between its turns
            return Expected(
                "completed", ("attempt_started",), (), "model", next_transport=self.transport, next_reuses=True
            )
        # Until its 101 a WebSocket has no attempt.
        has_attempt = self.transport == "http" or self.phase in STREAMING
        attempt = Attempt(
            "CANCELLED",
            self.transport,
            self.fault.reason,
            reached=self.phase is not Phase.CONNECT,
            created=self.phase in HAS_OUTPUT or self.fault.name == "stops reading",
            head=self.phase in STREAMING,
        )
        return Expected(
            ending=self.fault.reason,
            code=self.fault.code,
            story=("attempt_started",) if has_attempt else (),
            attempts=(attempt,) if has_attempt else (),
            answered_by="part",
            handshakes=("left",) if self.transport == "ws" and self.phase is Phase.HANDSHAKE else (),
            next_transport=self.transport,
            outcome="cancelled",
        )


async def run_caller_cell(cell: CallerCell) -> Result:
    """Runs one cell from an empty process to an empty process, and checks everything."""
    return await in_clean_process(cell, lambda problems: _Run(cell, problems).run())


class _Run:
    def __init__(self, cell: CallerCell, problems: list[str]) -> None:
        expected = cell.expected
        assert not isinstance(expected, Senseless), f"{cell} does not exist"
        self.cell, self.expected, self.problems = cell, expected, problems
        self.limit_s = HANDSHAKE_LIMIT_S if cell.phase in (Phase.CONNECT, Phase.HANDSHAKE) else LIMIT_S

    async def run(self) -> None:
        slow = self.cell.fault.name == "stops reading"
        limits = {"slow_reader_s": SLOW_READER_S if slow else 0.0}
        async with open_stage(_script_of(self.cell), limits=limits) as stage:
            # A handshake is waited for as long as the caller's own limit runs.
            line = SessionLine(stage, self.cell.transport, fallback_after_s=0.0)
            async with line.session:
                await self._play(stage, line)
        self.problems += stage.left

    async def _play(self, stage: Stage, line: SessionLine) -> None:
        await line.healthy_turn()
        if self.cell.phase is Phase.IDLE:
            await self._end_nothing(stage, line)
        else:
            await line.prepare(self.cell.phase)
            await self._end_turn(stage, line)
        stage.sim.release(HERE)
        await stage.proxy.heal()
        self.problems += await line.go_on(self.expected)
        await stage.clock.advance(GOODBYE_S)
        self.problems += await audit.of_stage(stage, is_warm=False)

    async def _end_nothing(self, stage: Stage, line: SessionLine) -> None:
        if self.cell.fault.name == "leaves":
            async with warmline.Client(stage.app.address) as other:
                await other.session("session-1", start="attach").get()
            return
        try:
            await line.session.cancel_turn(turn_id=TURN)
        except warmline.TurnNotFoundError:
            return
        self.problems.append("CancelTurn found a call between two turns")

    async def _end_turn(self, stage: Stage, line: SessionLine) -> None:
        requests, fault = len(stage.sim.requests), self.cell.fault
        handshakes = len(stage.sim.handshakes)
        if self.cell.phase is Phase.CONNECT:
            await _HANG.at_connect(stage.proxy)
        client = warmline.Client(stage.app.address, retry=warmline.CallRetry(max_tries=1))
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(client)
            turn = line.turn(
                client.session("session-1", start="attach"),
                TWO,
                turn_id=TURN,
                timeout_s=self.limit_s if fault.name == "deadline" else None,
                max_duration_s=self.limit_s if fault.name == "max_duration" else None,
            )
            listener = Listener(
                turn, stage.clock, stops_after=_reached(self.cell) if fault.name == "stops reading" else None
            )
            try:
                await self._reach(stage, listener)
                await self._strike(stage, line, listener, stack)
                await listener.ended()
            finally:
                await listener.give_up()
        told = audit.Told(listener, stage.sim.requests[requests:], stage.sim.handshakes[handshakes:])
        await until(lambda: not stage.app.registry.running_calls, "the call's end")
        if self.expected.requests:
            await stage.sim.wait_for_aborts(1)
        self._compare(told)
        line.take_over(listener.turn.snapshot())
        await until(lambda: "StreamTurn" not in "".join(stage.spans.open), "the end of the RPC's span")
        inferences = [found async for found in line.session.list_inferences(turn_id=TURN)]
        like = Cell(_HANG, self.cell.phase, self.cell.transport)
        self.problems += audit.of_trace(like, self.expected, told, inferences, stage.spans.spans)

    async def _reach(self, stage: Stage, listener: Listener) -> None:
        """The turn is in its phase, and its caller has heard everything up to there."""
        if self.cell.phase is Phase.CONNECT:
            await until(lambda: any(link.swallowed for link in stage.proxy.open_links), "the first bytes")
            return
        await stage.sim.wait_for_gate(HERE)
        if (reached := _reached(self.cell)) is not None:
            await listener.until(*reached)

    async def _strike(
        self,
        stage: Stage,
        line: SessionLine,
        listener: Listener,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        match self.cell.fault.name:
            case "leaves":
                await stack.aclose()
            case "cancels":
                listener.turn.cancel()
            case "CancelTurn":
                await line.session.cancel_turn(turn_id=TURN)
            case "deadline" | "max_duration":
                await stage.clock.advance(self.limit_s - 1.0)
                assert not listener.is_over, "the call ended before its limit"
                await stage.clock.advance(1.1)
            case "stops reading":
                stage.sim.release(HERE)
                (request,) = [r for r in stage.sim.requests if TWO in r.raw.decode()]
                sent = -1
                while sent != (sent := request.events_sent) or not sent:
                    for _ in range(5):
                        await line.session.get()
                if sent >= len(FLOOD):
                    self.problems.append("nothing held the upstream back")
                await stage.clock.advance(1.6 * SLOW_READER_S)
                listener.read_on()

    def _compare(self, told: audit.Told) -> None:
        problems, expected, listener = audit.Problems(), self.expected, told.listener
        error = listener.error
        code = error.code.name if error is not None and error.code is not None else ""
        reason = error.reason if error is not None else ""
        if expected.ending:
            problems.expect("status", (code, reason), (expected.code, expected.ending))
            problems.expect("RetryInfo", error.retry_after_s if error else None, None)
        else:
            problems.expect("ended by its own side", isinstance(error, warmline.TurnCancelledError), True)
        if self.cell.phase in STREAMING:
            story = tuple(kind for kind in listener.kinds if kind in audit.SERVICE_EVENTS)
            problems.expect("story", story, expected.story)
        problems.expect("requests upstream", len(told.requests), expected.requests)
        problems.expect("aborted upstream", [r.outcome for r in told.requests], ["aborted"] * expected.requests)
        sequences = [event.sequence for event in listener.events]
        problems.expect("sequences", sequences, list(range(1, len(sequences) + 1)))
        audit.of_payloads(problems, expected, told)
        if self.cell.fault.name != "stops reading":
            text, items = audit.PART.get(self.cell.phase, ("", 0))
            found = listener.turn.snapshot()
            problems.expect("delivered", (found.text, len(found.items)), (text, items))
        self.problems += problems


_HANG: NetworkFault = next(fault for fault in NETWORK_FAULTS if fault.name == "hang")
_AT_GATE: NetworkFault = next(fault for fault in NETWORK_FAULTS if fault.name == "reset")


def _reached(cell: CallerCell) -> tuple[str, int] | None:
    """The last event before the phase's gate, and how many of its name there are."""
    match cell.phase:
        case Phase.BEFORE_CREATED:
            return ("server_model" if cell.transport == "http" else "attempt_started", 1)
        case Phase.MID_DELTA:
            return ("text_delta", 2)
        case Phase.AFTER_ITEM:
            return ("item_done", 1)
        case Phase.AT_TERMINAL:
            return ("item_done", 2)
    return None


def _script_of(cell: CallerCell) -> Script:
    like = Cell(_AT_GATE, cell.phase, cell.transport)
    if cell.fault.name != "stops reading":
        return like.script
    events = answer()
    index = place(events, cell.phase)
    created = [] if index else [events[0]]
    steps: list[Step] = [*events[:index], Gate(HERE), *created, *FLOOD, *events[index or 1 :]]
    return script_with(like, Reply(match=is_second, events=steps, headers=HEAD))

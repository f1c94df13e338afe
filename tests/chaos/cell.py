"""A cell of the matrix, and what its upstream is told to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from chaos.effects import Effect, Failure, Senseless
from chaos.network import NetworkFault
from chaos.phases import CALL, FIRST, STREAMING, TRANSPORTS, Phase, TransportName, answer, place
from chaos.rules import STREAM_RETRIES, Expected, Mode, expect, expect_lasting
from chaos.scripted import ScriptedFault, StatusFault
from warmline_simulator import Connection, Gate, Reply, Script
from warmline_simulator.records import RequestRecord
from warmline_simulator.script import Step

Fault = NetworkFault | StatusFault | ScriptedFault

HERE = "here"
"""The gate at which the upstream waits for the fault."""
ONE, TWO, THREE = "first question", "second question", "third question"
TURN = "turn-2"
"""The id of the turn that meets the fault."""
HEAD = {"openai-model": "sim-served"}
"""Tells the caller over HTTP that the head of the answer has come."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A fault in a phase over a transport.

    `tool_call`: the first item is a call that the caller executes. `lasting`: every attempt meets the fault.
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

    @property
    def script(self) -> Script:
        """What the upstream does."""
        return _script_of(self)


def is_second(record: RequestRecord) -> bool:
    """A request of the turn that meets the fault, or of one after it."""
    return TWO in record.raw.decode()


def is_faulted(record: RequestRecord) -> bool:
    """A request of the turn that meets the fault, and of no turn after it."""
    return is_second(record) and THREE not in record.raw.decode()


def _script_of(cell: Cell) -> Script:
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
        return script_with(cell, Reply(match=is_second, gate=HERE, events=events))
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
    return script_with(cell, Reply(match=is_second, events=[*before, Gate(HERE), *steps, *after], headers=HEAD))


def _script_for_good(fault: Fault, cell: Cell) -> Script:
    if not isinstance(fault, ScriptedFault):
        return Script()
    replies = {
        transport: [Reply(match=is_faulted, events=fault.steps_over(transport), times=None)]
        for transport in TRANSPORTS
        if isinstance(fault.effect(cell.phase, transport), Failure)
    }
    return Script(creates=replies.get("ws", []), posts=replies.get("http", []))


def script_with(cell: Cell, reply: Reply) -> Script:
    """One answer over the cell's transport."""
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

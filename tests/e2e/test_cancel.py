"""Whoever ends a call, and wherever it is: the upstream read stops at once, and the lane takes the next call."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import warmline
from e2e.kit import Bystander, Refusal, completed, config, refused, refused_turn, turn_request
from e2e.line import Line, open_line
from manual_clock import ManualClock
from warmline.v1 import session_service_pb2 as sessions
from warmline.v1 import trace_service_pb2 as traces
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_simulator import Connection, Gate, Reply, Script, ev

CODE = grpc.StatusCode
TEXT = ev.text_response("one two three four", response_id="resp_1")
Reached = Callable[[Line], Awaitable[object]]


@dataclass(frozen=True)
class Phase:
    """Where a call is when it is ended: `script` holds it there, `reached` waits until it is there.

    `sent`: its request went upstream, so an answer is under way that must be given up.
    """

    name: str
    script: Script
    reached: Reached
    http: bool = False
    sent: bool = True

    def __str__(self) -> str:
        return f"{self.name} over {'HTTP' if self.http else 'WebSocket'}"


async def _at_gate(line: Line) -> None:
    await line.sim.wait_for_gate("g")


PHASES = [
    Phase("connecting", Script(connections=[Connection(), Connection(gate="g")]), _at_gate, sent=False),
    Phase("request sent", Script(creates=[Reply.model(), Reply.model(gate="g")]), _at_gate),
    Phase("request sent", Script(posts=[Reply.model(gate="g")]), _at_gate, http=True),
    Phase("streaming", Script(creates=[Reply.model(), Reply(events=[*TEXT[:5], Gate("g"), *TEXT[5:]])]), _at_gate),
    Phase("streaming", Script(posts=[Reply(events=[*TEXT[:5], Gate("g"), *TEXT[5:]])]), _at_gate, http=True),
]


@dataclass(frozen=True)
class Ending:
    """How a call is ended, and what its caller is told. `reasons` are blank where the caller's own side ends it."""

    name: str
    code: CODE
    reasons: tuple[str, ...] = ("",)
    fields: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None

    def __str__(self) -> str:
        return self.name


async def end(line: Line, ending: Ending, call: Any, client: warmline.Client) -> None:
    """Ends the call `r` of turn `t`, unless time does."""
    match ending.name:
        case "the caller cancels":
            call.cancel()
        case "the channel is closed":
            await client.__aexit__(None, None, None)
        case "CancelTurn by call":
            await line.client.turns.CancelTurn(turns.CancelTurnRequest(session_id="one", request_id="r"))
        case "CancelTurn by turn":
            await line.client.turns.CancelTurn(turns.CancelTurnRequest(session_id="one", turn_id="t"))
        case "the session is closed":
            await line.client.sessions.CloseSession(sessions.CloseSessionRequest(session_id="one"))


SHORT = Duration(nanos=300_000_000)
ENDINGS = [
    Ending("the caller cancels", CODE.CANCELLED),
    Ending("the channel is closed", CODE.CANCELLED),
    Ending("CancelTurn by call", CODE.CANCELLED, ("TURN_CANCELLED",)),
    Ending("CancelTurn by turn", CODE.CANCELLED, ("TURN_CANCELLED",)),
    Ending("the session is closed", CODE.FAILED_PRECONDITION, ("SESSION_CLOSED",)),
    Ending("max_duration", CODE.DEADLINE_EXCEEDED, ("MAX_DURATION_EXCEEDED",), {"max_duration": SHORT}),
    # Both sides keep it; who is first says it.
    Ending("the deadline", CODE.DEADLINE_EXCEEDED, ("", "DEADLINE_EXCEEDED"), timeout_s=0.3),
]


def config_of(phase: Phase) -> types.SessionConfig:
    return config(fallback_policy=types.FallbackPolicy(http_only=phase.http))


async def outcome(call: Any) -> Refusal:
    """What the caller of a call learns; a cancel of its own is no status of the server's."""
    try:
        return await refused(call)
    except asyncio.CancelledError:
        return Refusal(code=await call.code(), text="")


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
@pytest.mark.parametrize("phase", PHASES, ids=str)
async def test_call_that_is_ended_stops_its_upstream_and_frees_its_lane(phase: Phase, ending: Ending) -> None:
    async with open_line(phase.script) as line:
        bystander = await Bystander(line, "bystander").start()
        async with warmline.Client(line.app.address) as client:
            made: dict[str, Any] = {"session_config": config_of(phase), "request_id": "r", "turn_id": "t"}
            call = client.turns.StreamTurn(turn_request("one", **made, **ending.fields), timeout=ending.timeout_s)
            await phase.reached(line)
            await end(line, ending, call, client)
            told = await outcome(call)
            if ending.name == "the channel is closed":
                await client.__aenter__()
        if phase.sent:
            await line.sim.wait_for_aborts(1)
        await line.until_calls(line.client.session("bystander", start="attach"), 0)
        line.sim.release("g")
        await completed(line, turn_request("one", session_config=config_of(phase), request_id="r"))
        await bystander.goes_on()
        statuses = await statuses_of_turn(line, "t")

    assert told.code is ending.code
    assert told.reason in ending.reasons
    assert told.retry_after_s is None
    if told.reason:
        assert told.ids["turn_id"] == "t"
    assert statuses == [traces.INFERENCE_STATUS_CANCELLED] * phase.sent


async def statuses_of_turn(line: Line, turn_id: str) -> list[int]:
    """How the attempts of a turn of session "one" ended."""
    request = traces.ListInferencesRequest(session_id="one", turn_id=turn_id)
    return [inference.status for inference in (await line.client.traces.ListInferences(request)).inferences]


async def test_call_that_waits_for_its_lane_is_cancelled_and_the_running_one_goes_on() -> None:
    async with open_line(Script(creates=[Reply.model(gate="g")])) as line:
        first = line.client.turns.StreamTurn(turn_request("one", session_config=config()))
        await line.sim.wait_for_gate("g")
        wait: dict[str, Any] = {"request_id": "w", "on_busy": turns.BUSY_MODE_WAIT}
        waiting = line.client.turns.StreamTurn(turn_request("one", **wait))
        await line.until_calls(line.client.session("one", start="attach"), 2)

        cancelled = await line.client.turns.CancelTurn(turns.CancelTurnRequest(session_id="one", request_id="w"))
        told = await refused(waiting)
        line.sim.release("g")
        events = [event async for message in first for event in message.events]
        await completed(line, turn_request("one"))

    assert list(cancelled.request_ids) == ["w"]
    assert (told.code, told.reason) == (CODE.CANCELLED, "TURN_CANCELLED")
    assert events[-1].HasField("completed")
    assert len(line.sim.requests) == 2, "the call that waited sent nothing"


@pytest.mark.parametrize("http", [False, True], ids=["WebSocket", "HTTP"])
async def test_call_that_waits_before_a_resend_is_cancelled_and_sends_nothing_more(http: bool) -> None:
    replies = [Reply(status=500), Reply.model()]
    clock = ManualClock()
    session_config = config(fallback_policy=types.FallbackPolicy(http_only=http))
    async with open_line(Script(posts=replies if http else [], creates=[] if http else replies), clock=clock) as line:
        call = line.client.turns.StreamTurn(turn_request("one", session_config=session_config, turn_id="t"))
        await read_until(call, "retrying")
        await line.client.turns.CancelTurn(turns.CancelTurnRequest(session_id="one", turn_id="t"))
        told = await refused(call)
        await clock.advance(60)
        assert len(line.sim.requests) == 1
        await completed(line, turn_request("one"))

    assert (told.code, told.reason, told.ids["attempts"]) == (CODE.CANCELLED, "TURN_CANCELLED", "1")


async def read_until(call: Any, kind: str) -> None:
    """Reads a stream up to a message that has such an event."""
    while kind not in [event.WhichOneof("event") for event in (await call.read()).events]:
        pass


@pytest.mark.parametrize(
    ("limits", "session_s", "call_s", "expected_s"),
    [({}, None, 50, 50), ({}, 40, 50, 40), ({"max_turn_duration_s": 30.0}, 40, 50, 30), ({}, None, None, 3600)],
    ids=["the call's", "the session's", "the operator's", "the operator's own default"],
)
async def test_call_ends_at_the_least_of_its_limits(
    limits: dict[str, float], session_s: int | None, call_s: int | None, expected_s: int
) -> None:
    clock = ManualClock()
    own = types.SessionLimits(max_turn_duration=None if session_s is None else Duration(seconds=session_s))
    max_duration = None if call_s is None else Duration(seconds=call_s)
    request = turn_request("one", session_config=config(limits=own), max_duration=max_duration)
    script = Script(creates=[Reply.model(gate="g")])
    # A write that is under way in real time must not seem to take as long as the clock jumps.
    limits = {**limits, "slow_reader_s": 0.0}
    async with open_line(script, clock=clock, limits=limits, profile={"idle_timeout_s": 0.0}) as line:
        told = asyncio.ensure_future(refused_turn(line, request))
        await line.sim.wait_for_gate("g")
        await clock.advance(expected_s - 0.1)
        assert not told.done()
        await clock.advance(0.2)
        await line.sim.wait_for_aborts(1)
        refusal = await told

    assert (refusal.code, refusal.reason) == (CODE.DEADLINE_EXCEEDED, "MAX_DURATION_EXCEEDED")
    assert f"{expected_s} s" in refusal.text


@pytest.mark.parametrize("http", [False, True], ids=["WebSocket", "HTTP"])
async def test_call_that_is_stopped_in_its_first_moment_is_told_too(http: bool) -> None:
    """The stop comes while the message that opens the stream is being written."""
    session_config = config(fallback_policy=types.FallbackPolicy(http_only=http))
    async with open_line() as line:
        for nanos in (1, 100_000, 500_000):
            request = turn_request("one", session_config=session_config, max_duration=Duration(nanos=nanos))
            async with asyncio.timeout(5):
                told = await refused_turn(line, request)
            assert (told.code, told.reason) == (CODE.DEADLINE_EXCEEDED, "MAX_DURATION_EXCEEDED")
        await completed(line, turn_request("one"))


async def test_deadline_is_kept_by_the_server_too() -> None:
    clock = ManualClock()
    limits = {"slow_reader_s": 0.0}
    async with open_line(Script(creates=[Reply.model(gate="g")]), clock=clock, limits=limits) as line:
        told = asyncio.ensure_future(refused_turn(line, turn_request("one", session_config=config()), timeout=60))
        await line.sim.wait_for_gate("g")
        await clock.advance(61)
        await line.sim.wait_for_aborts(1)
        refusal = await told

    assert (refusal.code, refusal.reason) == (CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


CLIENT = """
import asyncio, sys, warmline
async def main():
    async with warmline.Client(sys.argv[1]) as client:
        async with client.session("one", model="sim-small", start="lazy").turn("hello") as turn:
            await turn.result()
asyncio.run(main())
"""


async def test_client_that_is_killed_stops_its_upstream() -> None:
    script = Script(creates=[Reply(events=[*TEXT[:5], Gate("g"), *TEXT[5:]])])
    async with open_line(script) as line:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, line.app.address)
        await line.sim.wait_for_gate("g", timeout_s=20)
        process.kill()
        await process.wait()
        await line.sim.wait_for_aborts(1)
        await line.until_calls(line.client.session("one", start="attach"), 0)
        await completed(line, turn_request("one"))

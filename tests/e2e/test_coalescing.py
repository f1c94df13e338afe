"""A quiet stream's events go at once, one by one; those of a fast one travel together, in order and complete."""

import asyncio
from itertools import zip_longest
from typing import Any

import pytest

from e2e.kit import config, turn_request
from e2e.line import Line, open_line
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_simulator import Gate, Reply, Script, ev

WORDS = [f"word-{number} " for number in range(8)]
BURST = 5_000

pytestmark = pytest.mark.parametrize("http", [False, True], ids=["WebSocket", "HTTP"])


def script_of(reply: Reply, *, http: bool) -> Script:
    return Script(posts=[reply] if http else [], creates=[] if http else [reply])


def send(line: Line, *, http: bool) -> Any:
    """Sends a turn without the client's help. Returns: the call, whose messages are as they came."""
    session_config = config(fallback_policy=types.FallbackPolicy(http_only=http))
    return line.client.turns.StreamTurn(turn_request("one", session_config=session_config))


def texts(events: list[turns.TurnEvent]) -> list[str]:
    return [event.text_delta.delta for event in events if event.HasField("text_delta")]


async def test_event_of_a_quiet_stream_arrives_before_the_next_one_exists(http: bool) -> None:
    """Each event is received while the upstream waits to be told to send the following: nothing holds it back."""
    steps: list[Any] = [ev.created()]
    for number, word in enumerate(WORDS):
        steps += [Gate(f"g{number}"), ev.text_delta(word)]
    steps += [Gate("end"), ev.completed()]
    async with open_line(script_of(Reply(events=steps), http=http)) as line:
        call = send(line, http=http)
        arrived: list[turns.TurnEvent] = []
        for number, word in enumerate(WORDS):
            await line.sim.wait_for_gate(f"g{number}")
            line.sim.release(f"g{number}")
            async with asyncio.timeout(5):
                while texts(arrived)[-1:] != [word]:
                    arrived += (await call.read()).events
            assert texts(arrived) == WORDS[: number + 1]
        line.sim.release("end")
        async with asyncio.timeout(5):
            while not arrived[-1].HasField("completed"):
                arrived += (await call.read()).events

    assert [event.sequence for event in arrived] == list(range(1, len(arrived) + 1))


async def test_events_of_a_burst_travel_together_and_in_order(http: bool) -> None:
    words = [f"{number} " for number in range(BURST)]
    steps = [ev.created(), *map(ev.text_delta, words), ev.completed()]
    async with open_line(script_of(Reply(events=steps), http=http)) as line:
        messages = [message async for message in send(line, http=http)]

    events = [event for message in messages for event in message.events]
    # Compared so that a failure names one place: where CI is set, pytest explains all of a list, for minutes.
    misplaced = [pair for pair in zip_longest(texts(events), words) if pair[0] != pair[1]]
    misnumbered = [event.sequence for number, event in enumerate(events, 1) if event.sequence != number]
    assert (misplaced[:1], misnumbered[:1]) == ([], [])
    assert events[-1].HasField("completed")
    assert all(message.events for message in messages)
    # Measured: 6 or 7 messages over the WebSocket, 15 over HTTP.
    assert len(messages) < BURST / 10

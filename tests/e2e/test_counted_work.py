"""What an event costs here, counted and not timed: Python instructions of our own code.

A bound that is passed is a change that made the hot path heavier. When that is worth it, raise the bound in the same
commit and say why; when a change makes it lighter, lower it. `pytest -s` prints where the instructions go.
"""

import asyncio
import sys
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame

import warmline_server
from e2e.kit import config, turn_request
from e2e.line import Line, open_line, script_for
from warmline.v1 import types_pb2 as types
from warmline_simulator import Gate, Reply, ev

OURS = str(Path(warmline_server.__file__).parent)
EVENTS = 50
WARM_UP = 5
# By the kind of upstream. Measured, and a twentieth above it.
MOST_PER_PACED_EVENT = {"plain": 970, "deflate": 1050, "http": 1120}
MOST_PER_BURST_EVENT = {"plain": 445, "deflate": 515, "http": 335}

pytestmark = pytest.mark.parametrize("upstream", ["plain", "deflate", "http"])


class Count:
    """Counts the instructions of our code that run on this thread while it is entered, and the calls of all code."""

    def __init__(self) -> None:
        self.by_code: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def __enter__(self) -> "Count":
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_exc: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        self.calls[frame.f_code] += 1
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "opcode":
            self.by_code[frame.f_code] += 1
        return self._step

    def per_event(self, events: int) -> float:
        """Instructions per event; prints where they went."""
        for code, count in self.by_code.most_common(25):
            print(f"{count / events:8.1f}  {code.co_qualname}")
        total = self.by_code.total() / events
        print(f"{total:8.1f}  in all")
        return total


def assert_cut_out_here(count: Count, inflated: int) -> None:
    """Checks that the library's parser, which our instructions do not show, read no frame, and inflated so many."""
    assert count.calls[Frame.parse.__code__] == 0
    assert count.calls[PerMessageDeflate.decode.__code__] == inflated


def request(upstream: str) -> Any:
    policy = types.FallbackPolicy(http_only=upstream == "http")
    return turn_request("one", session_config=config(fallback_policy=policy))


def line(upstream: str, *steps: Any) -> AbstractAsyncContextManager[Line]:
    script = script_for("http" if upstream == "http" else "ws", Reply(events=steps))
    return open_line(script, profile={"compression": upstream == "deflate"})


async def test_paced_event_costs_no_more_than_it_did(upstream: str) -> None:
    """Each event is sent when the one before has arrived: a batch of one, a write of one, and nothing to share."""
    steps: list[Any] = [ev.created()]
    for number in range(WARM_UP + EVENTS):
        steps += [Gate(f"g{number}"), ev.text_delta(f"word-{number} ")]
    async with line(upstream, *steps, Gate("end"), ev.completed()) as opened:
        call = opened.client.turns.StreamTurn(request(upstream))
        arrived = 0

        async def pass_on(number: int) -> None:
            nonlocal arrived
            opened.sim.release(f"g{number}")
            while arrived <= number:
                message: Any = await call.read()
                arrived += sum(event.HasField("text_delta") for event in message.events)

        async with asyncio.timeout(30):
            for number in range(WARM_UP):
                await pass_on(number)
            with Count() as count:
                for number in range(WARM_UP, WARM_UP + EVENTS):
                    await pass_on(number)
        call.cancel()

    assert count.by_code, "something ran"
    assert count.per_event(EVENTS) <= MOST_PER_PACED_EVENT[upstream]
    assert_cut_out_here(count, EVENTS if upstream == "deflate" else 0)


async def test_event_of_a_burst_costs_no_more_than_it_did(upstream: str) -> None:
    events = 2_000
    deltas = [ev.text_delta(f"{number} ") for number in range(events)]
    async with line(upstream, ev.created(), Gate("go"), *deltas, ev.completed()) as opened:
        call = opened.client.turns.StreamTurn(request(upstream))
        await opened.sim.wait_for_gate("go")
        with Count() as count:
            opened.sim.release("go")
            async with asyncio.timeout(30):
                messages = [message async for message in call]

    assert sum(event.HasField("text_delta") for message in messages for event in message.events) == events
    assert count.per_event(events) <= MOST_PER_BURST_EVENT[upstream]
    assert_cut_out_here(count, events + 1 if upstream == "deflate" else 0)

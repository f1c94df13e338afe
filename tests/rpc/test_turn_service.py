"""When StreamTurn sends a status, and to whom it sends none. What its callers are told otherwise is in `e2e`."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from e2e.kit import config, turn_request
from e2e.line import Line, open_line
from manual_clock import ManualClock, settle
from warmline_server.callers import ANYBODY
from warmline_server.rpc.callers import current_caller
from warmline_server.rpc.turn_service import SAME_DEADLINE_S, TurnService
from warmline_simulator import Reply, Script

CODE = grpc.StatusCode
DEADLINE_S = 20.0


@dataclass
class Context:
    """A call as grpc shows it to a handler; `statuses` are those that were sent."""

    remaining_s: float | None = None
    statuses: list[grpc.StatusCode] = field(default_factory=list)

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> float | None:
        return self.remaining_s

    async def write(self, message: bytes) -> None:
        pass

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.statuses.append(code)
        raise grpc.aio.AbortError


@asynccontextmanager
async def running_call(
    context: Context, **fields: Any
) -> AsyncIterator[tuple[Line, ManualClock, "asyncio.Task[None]"]]:
    """A call whose answer is under way, and the task that serves it."""
    clock = ManualClock()
    async with open_line(Script(creates=[Reply.model(gate="g")]), clock=clock) as line:
        handler = serve(line, context, **fields)
        await line.sim.wait_for_gate("g")
        yield line, clock, handler


def serve(line: Line, context: Context, **fields: Any) -> "asyncio.Task[None]":
    """Serves a call as grpc does."""
    current_caller.set(ANYBODY)
    request = turn_request("one", session_config=config(), **fields)
    service: Any = TurnService(line.app.registry)
    return asyncio.create_task(service.StreamTurn(request, context))


async def test_call_whose_deadline_has_passed_is_left_to_grpc_which_cancels_it() -> None:
    context = Context(remaining_s=DEADLINE_S)
    async with running_call(context) as (line, clock, handler):
        context.remaining_s = 0.0
        await clock.advance(DEADLINE_S)
        await line.sim.wait_for_aborts(1)
        await clock.advance(SAME_DEADLINE_S / 2)
        assert not handler.done()
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler

    assert context.statuses == []


@pytest.mark.parametrize("remaining_s", [0.0, DEADLINE_S], ids=["grpc's time is up", "grpc's time is not up"])
async def test_call_whose_deadline_has_passed_is_told_where_grpc_does_not_cancel_it(remaining_s: float) -> None:
    context = Context(remaining_s=DEADLINE_S)
    async with running_call(context) as (line, clock, handler):
        context.remaining_s = remaining_s
        await clock.advance(DEADLINE_S)
        await line.sim.wait_for_aborts(1)
        await settle()
        await clock.advance(0.0 if remaining_s else SAME_DEADLINE_S)
        with pytest.raises(grpc.aio.AbortError):
            await handler

    assert context.statuses == [CODE.DEADLINE_EXCEEDED]


async def test_call_that_is_gone_in_the_moment_in_which_it_is_stopped_gets_no_status() -> None:
    context = Context()
    async with running_call(context) as (line, _, handler):
        line.app.registry.stop_calls()
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler

    assert context.statuses == []


async def test_call_that_runs_into_its_max_duration_is_told_at_once() -> None:
    context = Context(remaining_s=DEADLINE_S)
    async with running_call(context, max_duration=Duration(seconds=5)) as (_, clock, handler):
        context.remaining_s = 0.0
        await clock.advance(5)
        with pytest.raises(grpc.aio.AbortError):
            await handler

    assert context.statuses == [CODE.DEADLINE_EXCEEDED]


async def test_call_that_its_caller_cancels_is_gone_without_the_collector() -> None:
    context = Context()
    seen = weakref.ref(context)
    async with open_line(Script(creates=[Reply.model(gate="g")])) as line:
        handler = serve(line, context)
        await line.sim.wait_for_gate("g")
        gc.collect()
        gc.disable()
        try:
            handler.cancel()
            with suppress(asyncio.CancelledError):
                await handler
            del context, handler
            await line.sim.wait_for_aborts(1)
            assert seen() is None
        finally:
            gc.enable()

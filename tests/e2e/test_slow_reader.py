"""A reader that does not read: it holds up its own upstream alone, is ended, and cut off when it takes no status."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

import warmline
from e2e.kit import completed, config, refused, turn_request
from e2e.line import Line, open_line
from manual_clock import ManualClock
from warmline.v1 import session_service_pb2 as sessions
from warmline.v1 import types_pb2 as types
from warmline_simulator import Reply, Script, ev

CODE = grpc.StatusCode
# One event is larger than what HTTP/2 takes from a sender whose reader does not read.
EVENT_BYTES, EVENTS = 1_000_000, 200
LIMIT_S = 30.0
# Otherwise the window may grow in the midst of a test, and take in everything that waits.
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0)]


@pytest.mark.parametrize("http", [False, True], ids=["WebSocket", "HTTP"])
async def test_reader_that_does_not_read_holds_up_the_upstream_and_is_ended(http: bool) -> None:
    script, session_config = endless(http)
    async with open_line(script, limits={"slow_reader_s": 1.0}, compression=False) as line:
        call = line.client.turns.StreamTurn(turn_request("one", session_config=session_config, turn_id="t"))
        await call.read()
        await line.sim.wait_for_aborts(1)
        sent = line.sim.requests[0].events_sent
        told = await refused(call)
        await completed(line, turn_request("one"))

    assert sent < EVENTS / 4, "the upstream was held up, not read into memory"
    assert (told.code, told.reason, told.retry_after_s) == (CODE.RESOURCE_EXHAUSTED, "SLOW_READER", None)
    assert told.ids["turn_id"] == "t"


async def test_reader_that_is_slow_but_reads_gets_everything() -> None:
    clock = ManualClock()
    whole = [ev.created(), *[ev.text_delta("x" * 100_000)] * 30, ev.completed()]
    script = Script(creates=[Reply(events=whole)])
    async with open_line(script, clock=clock, limits={"slow_reader_s": LIMIT_S}) as line:
        call: Any = line.client.turns.StreamTurn(turn_request("one", session_config=config()))
        texts, began_s = 0, clock.now_s()
        while (message := await call.read()) is not grpc.aio.EOF:
            texts += sum(len(event.text_delta.delta) for event in message.events)
            await clock.advance(LIMIT_S * 0.4)

    assert texts == 30 * 100_000
    assert clock.now_s() - began_s > 2 * LIMIT_S, "the limit is for one message, not for all of them"


@pytest.mark.parametrize("http", [False, True], ids=["WebSocket", "HTTP"])
async def test_reader_that_takes_no_status_is_cut_off_and_nobody_else(http: bool) -> None:
    """Its status waits behind what it does not read, and with it everything that was written for it."""
    clock = ManualClock()
    script, session_config = endless(http)
    async with (
        contextlib.AsyncExitStack() as stack,
        open_line(script, clock=clock, limits={"slow_reader_s": LIMIT_S}, compression=False) as line,
    ):
        before = rpcs_under_way()
        client = await stack.enter_async_context(warmline.Client(line.app.address, channel_options=SMALL_WINDOW))
        stuck = client.turns.StreamTurn(turn_request("one", session_config=session_config))
        await stuck.read()
        other: Any = client.sessions.WatchSession(sessions.WatchSessionRequest(session_id="one"))
        await other.read()
        await until_ended(line, clock)
        assert rpcs_under_way() == before + 2, "the status waits for its reader"
        await clock.advance(LIMIT_S * 1.1)
        await until_rpcs(before + 1)
        told = await refused(stuck)
        # Another call on the same connection is left alone.
        await client.sessions.AdvanceWindow(sessions.AdvanceWindowRequest(session_id="one"))
        while (await other.read()).session.window_generation != 1:
            pass
        other.cancel()
        await stack.aclose()

    # A reset has no text of ours; the status may yet have been on its way before it.
    assert (told.code, told.reason) in ((CODE.CANCELLED, ""), (CODE.RESOURCE_EXHAUSTED, "SLOW_READER"))


def endless(http: bool) -> tuple[Script, types.SessionConfig]:
    """An answer that nobody can take without reading, and the config of a session that meets it."""
    reply = Reply(events=[ev.created(), *[ev.text_delta("x" * EVENT_BYTES)] * EVENTS, ev.completed()])
    script = Script(posts=[reply] if http else [], creates=[] if http else [reply])
    return script, config(fallback_policy=types.FallbackPolicy(http_only=http))


async def until_ended(line: Line, clock: ManualClock) -> None:
    """Lets so much time pass that the call is ended as a slow reader's, and no more."""
    async with asyncio.timeout(20):
        while line.app.registry.running_calls:
            await clock.advance(LIMIT_S / 4)
        await line.sim.wait_for_aborts(1)


def rpcs_under_way() -> int:
    """RPCs that the server of this process still has, ended or not."""
    return sum(task.get_name() == "rpc_task" for task in asyncio.all_tasks())


async def until_rpcs(count: int) -> None:
    async with asyncio.timeout(5):
        while rpcs_under_way() != count:  # noqa: ASYNC110 - grpc tells nobody when it lets go of an RPC
            await asyncio.sleep(0.01)

"""What a call leaves is freed when it ends: nothing of it waits, with its request, for the garbage collector."""

import collections
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CoroutineType, FrameType, FunctionType
from typing import Any

import pytest

import warmline
from e2e.line import Line, config_for, hear, open_line, session_config
from warmline_simulator import Connection, Reply, Script, ev


@contextmanager
def uncollected() -> Iterator[collections.Counter[str]]:
    """Counts, at the end, what only the collector could free of this server's: objects, functions, frames."""
    found: collections.Counter[str] = collections.Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(name for name in map(our_name, gc.garbage) if name is not None)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def our_name(thing: Any) -> str | None:
    """What an object is of the server's or its sockets'; None for all else. By its type: dead proxies raise."""
    kind = type(thing)
    if kind is FrameType:
        module, name = str(thing.f_globals.get("__name__")), f"frame of {thing.f_code.co_qualname}"
    elif kind is FunctionType:
        module, name = str(thing.__module__), thing.__qualname__
    elif kind is CoroutineType:
        module, name = thing.cr_code.co_filename, thing.__qualname__
    else:
        module, name = kind.__module__, kind.__qualname__
    return name if "warmline_server" in module or module == "websockets.client" else None


async def completed(line: Line) -> None:
    """Two turns, so that the second has a socket and a response to build upon."""
    async with line.session() as session:
        for text in ("hello", "and again"):
            assert (await hear(session.turn(text))).error is None


async def over_http(line: Line) -> None:
    """A turn that is a POST."""
    async with line.session(config=config_for("http")) as session:
        assert (await hear(session.turn("hello"))).error is None


async def resent(line: Line) -> None:
    """A turn whose first attempt fails."""
    async with line.session(config=session_config(warm_up="none")) as session:
        heard = await hear(session.turn("hello"))
    assert heard.error is None
    assert heard.kinds.count("retrying") == 1


async def refused(line: Line) -> None:
    """A turn that fails."""
    async with line.session(config=session_config(warm_up="none")) as session:
        assert (await hear(session.turn("hello", retry="never"))).error is not None


async def after_a_lost_warm_up(line: Line) -> None:
    """A turn whose warm-up failed."""
    async with line.session(config=session_config(warm_up="handshake")) as session:
        await line.sim.wait_for_handshakes(1)
        await line.until_handshake_ended(0)
        assert (await hear(session.turn("hello"))).error is None


async def left(line: Line, transport: str) -> None:
    """A turn that its caller leaves in the midst of it."""
    async with line.session(config=config_for(transport)) as session:
        async with session.turn("hello"):
            await line.sim.wait_for_gate("g")
        await line.sim.wait_for_aborts(1)
        await line.until_calls(session, 0)


async def stopped(line: Line, transport: str) -> None:
    """A turn that another caller stops in the midst of it."""
    async with line.session(config=config_for(transport)) as session:
        async with session.turn("hello", turn_id="t") as turn:
            await line.sim.wait_for_gate("g")
            await session.cancel_turn(turn_id="t")
            with pytest.raises(warmline.WarmlineError):
                await turn.result()
        await line.sim.wait_for_aborts(1)


UNAVAILABLE = Reply(status=503, body=ev.http_error(503, "server_error"))
HELD = Reply.model(gate="g")
CASES: dict[str, tuple[Callable[[Line], Awaitable[None]], Script]] = {
    "completed": (completed, Script()),
    "completed over HTTP": (over_http, Script()),
    "resent": (resent, Script(creates=[UNAVAILABLE])),
    "resent after its handshake": (resent, Script(connections=[Connection(status=503)])),
    "after a lost warm-up": (after_a_lost_warm_up, Script(connections=[Connection(status=503)])),
    "refused": (refused, Script(creates=[UNAVAILABLE])),
    "left": (partial(left, transport="ws"), Script(creates=[HELD])),
    "left over HTTP": (partial(left, transport="http"), Script(posts=[HELD])),
    "stopped": (partial(stopped, transport="ws"), Script(creates=[HELD])),
    "stopped over HTTP": (partial(stopped, transport="http"), Script(posts=[HELD])),
}


@pytest.mark.parametrize("name", CASES)
async def test_call_leaves_nothing_for_the_collector(name: str) -> None:
    use, script = CASES[name]
    async with open_line(script) as line:
        with uncollected() as found:
            await use(line)
    assert found == {}

"""The programs on a client's pages: found, and run as they stand against the real server."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from interop.scenario import Scenario
from interop.world import RealWorld
from warmline_simulator import Reply, Script, ev

# What every page's programs call; it stands in each once.
ADDRESS = "127.0.0.1:50051"
HELLO = Script(creates=[Reply(events=ev.text_response("Hello, world", response_id="resp_1"))])
# What a quick start prints with HELLO, where the language spells the contract's names as they are.
FIRST_LINES = "Hello, world\nresp_1, slot (ADOPTED|AWAITED), over WEBSOCKET\n"


def blocks(page: Path, language: str) -> list[str]:
    """The page's code in this language."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    return found


@asynccontextmanager
async def at_server(program: str, script: Script) -> AsyncIterator[tuple[str, RealWorld]]:
    """Opens the real server, and gives the program with its address. The simulator must have nothing to complain of."""
    assert program.count(ADDRESS) == 1
    async with RealWorld(Scenario(name="page", title="", peer="server", steps=(), script=script)) as world:
        yield program.replace(ADDRESS, world.address), world
        assert world.sim.problems() == []


async def play(program: str, script: Script, run: Callable[[str], str]) -> tuple[str, RealWorld]:
    """Runs a program against the real server; returns what it prints, and the world as it was.

    Args: `run` builds and runs code, and returns what that prints; it has a thread of its own.
    """
    async with at_server(program, script) as (code, world):
        return await asyncio.to_thread(run, code), world


async def check_tool_loop(program: str, run: Callable[[str], str], output: str = '{"seen": "a lake"}') -> None:
    """Plays a page's tool loop: the call must be answered with `output`, and the answer to that be printed."""
    called = Reply(events=ev.function_call_response("look", "{}", "call_1"))
    script = Script(creates=[called, Reply(events=ev.text_response("A lake."))])

    printed, world = await play(program, script, run)

    assert printed == "A lake.\n"
    assert json.loads(world.sim.requests[1].raw)["input"][-1] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": output,
    }

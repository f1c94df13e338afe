"""Whatever a conversation does and whenever its socket is lost: what the upstream sees is what the caller sent."""

import json
import random
from typing import Any

import pytest

import warmline
from e2e.line import Line, open_line

STEPS = 25


def respelled(item: bytes, chance: random.Random) -> bytes:
    """The same JSON value, perhaps in another spelling, as agents write their history anew."""
    value = json.loads(item)
    if isinstance(value, dict) and chance.random() < 0.5:
        value = dict(sorted(value.items(), key=lambda _: chance.random()))
    return json.dumps(value, indent=chance.choice([None, 1]), ensure_ascii=chance.random() < 0.5).encode()


class Agent:
    """A caller that goes on, rewrites its history's spelling, edits it, changes settings, and loses its socket."""

    def __init__(self, line: Line, session: warmline.Session, seed: int) -> None:
        self._line = line
        self._session = session
        self._chance = random.Random(seed)
        self._history: list[bytes] = []
        self._instructions = "be short"

    async def step(self, number: int) -> bool:
        """One turn. Returns: whether it was incremental."""
        await self._meddle()
        words = f"step {number}: " + self._chance.choice(["ünïcödé", "1.0 and 1", '"quoted"', "plain"])
        self._history.append(json.dumps({"type": "message", "role": "user", "content": words}).encode())
        async with self._session.turn(self._history, instructions=self._instructions) as turn:
            result = await turn.result()
        sent: list[Any] = [json.loads(item) for item in self._history]
        seen = self._line.sim.requests[-1]
        assert seen.visible_input == sent
        assert bool(seen.previous_response_id) == result.incremental
        self._history += result.items
        return result.incremental

    async def _meddle(self) -> None:
        match self._chance.choice(["nothing", "nothing", "respell", "edit", "settings", "lose", "window"]):
            case "respell":
                self._history = [respelled(item, self._chance) for item in self._history]
            case "edit" if self._history:
                del self._history[self._chance.randrange(len(self._history)) :]
            case "settings":
                self._instructions = self._chance.choice(["be short", "be long"])
            case "lose" if self._line.sim.counters.websockets_open:
                self._line.sim.drop_connection(len(self._line.sim.handshakes) - 1)
                await self._line.sim.wait_for_connections_closed(len(self._line.sim.handshakes))
            case "window":
                await self._session.advance_window()


@pytest.mark.conformance("C-051")
@pytest.mark.parametrize("seed", range(8))
async def test_upstream_sees_the_whole_conversation_however_it_was_sent(seed: int) -> None:
    async with open_line(profile={"stream_max_retries": 20}) as line, line.session() as session:
        agent = Agent(line, session, seed)
        incremental = [await agent.step(number) for number in range(STEPS)]

    assert True in incremental
    assert False in incremental[1:]

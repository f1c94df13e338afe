"""The short form of the fuzz tests."""

from __future__ import annotations

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmline_simulator import Simulator

from . import fuzz
from .wire_client import open_ws, receive_until_end

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


async def test_random_frames_bodies_and_heads_neither_crash_nor_leak() -> None:
    assert await fuzz.run(4000, seed=12_345) >= 4000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(fuzz.BODIES, st.dictionaries(st.text(), JSON, max_size=3), JSON), min_size=1, max_size=5))
def test_every_create_gets_exactly_one_end(bodies: list[object]) -> None:
    asyncio.run(_every_create_ends(bodies))


async def _every_create_ends(bodies: list[object]) -> None:
    """Each message gets a terminal event or an error, never silence and never two. Steers get events of their own."""
    messages = [body for body in bodies if not (isinstance(body, dict) and body.get("type") == "response.steer")]
    async with Simulator(expect_violations=True, words=2) as sim, open_ws(sim) as ws:
        for body in messages:
            await ws.send(json.dumps(body))
        for _ in messages:
            await receive_until_end(ws)
        await sim.wait_for_idle()
        await (await ws.ping())
        assert not ws.recv_messages.frames, "something came after the end"
    assert all(record.finished for record in sim.requests)

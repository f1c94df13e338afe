"""The short form of `leaks.py`; the long one has 500 sessions."""

import asyncio
import random
from typing import Any

import pytest

import warmline
from e2e import leaks
from e2e.kit import config
from e2e.line import open_line
from warmline_simulator.records import RequestRecord


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_doubled_or_left_behind(seed: int) -> None:
    report = await leaks.run(60, 4, seed=seed)

    assert report.problems == []
    # Otherwise nothing was put to the test.
    assert report.figures["aborts seen by the upstream"] > 30
    assert report.figures["turns at the callers"]["completed"] > 60


@pytest.mark.parametrize("seed", range(4))
async def test_crowd_on_one_lane_leaves_it_free(seed: int) -> None:
    """Callers that wait, preempt, give up and are cancelled, all on one lane: one runs at a time, and all end."""
    dice = random.Random(seed)
    endings: list[str] = []
    async with open_line(pace_s=0.001, words=6, limits={"max_waiting_calls_per_lane": 8}) as line:
        session = line.client.session("one", config())

        async def call(number: int) -> None:
            mode: Any = dice.choice(["wait", "wait", "wait", "preempt", "reject"])
            patience_s = dice.choice([None, None, dice.uniform(0.0, 0.05)])
            await asyncio.sleep(dice.uniform(0.0, 0.1))  # callers come when they come
            try:
                async with asyncio.timeout(patience_s), session.turn(f"turn {number}", on_busy=mode) as turn:
                    endings.append((await turn.result()).ending)
            except warmline.WarmlineError as error:
                endings.append(error.reason)
            except TimeoutError:
                endings.append("gave up")

        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(call(number))
        await line.until_calls(session, 0)
        async with session.turn("after all of them") as turn:
            last = await turn.result()
        overlaps = overlapping(line.sim.requests)

    assert last.ending == "completed"
    assert overlaps == []
    assert set(endings) <= {"completed", "gave up", "LANE_BUSY", "TURN_PREEMPTED", "LIMIT_EXCEEDED"}
    assert len(endings) == 60
    assert endings.count("completed") > 0


def overlapping(requests: list[RequestRecord]) -> list[tuple[int, int]]:
    """Pairs of requests that were answered at the same time though they are of one lane."""
    ended_at_s = [request.aborted_at_s or request.ended_at_s or 0.0 for request in requests]
    return [
        (one.index, two.index)
        for one, end_s in zip(requests, ended_at_s, strict=True)
        for two in requests[one.index + 1 :]
        if one.connection == two.connection and two.received_at_s < end_s
    ]

"""What must hold when a runner has ended: what really arrived upstream."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from interop.scenario import Scenario
from interop.world import FakeWorld, RealWorld
from warmline_simulator.records import RequestRecord

Turns = Mapping[str, Mapping[str, Any]]


async def problems(scenario: Scenario, world: RealWorld | FakeWorld, turns: Turns) -> list[str]:
    """Everything that is not as it must be, one line each.

    Args: `turns`: the result objects that the runner printed, by name.
    """
    found = len(world.aborted_at_s) if isinstance(world, FakeWorld) else world.sim.counters.aborted_turns
    wrong = [f"aborts: found {found}, expected {scenario.checks.aborts}"] if found != scenario.checks.aborts else []
    if isinstance(world, FakeWorld):
        return wrong
    try:
        await world.wait_calls_ended()
    except TimeoutError:
        wrong.append(f"{world.app.registry.running_calls} calls run on at the server")
    counters = asdict(world.sim.counters)
    wrong += [
        f"simulator's {name}: found {counters.get(name)}, expected {expected}"
        for name, expected in scenario.checks.counters.items()
        if counters.get(name) != expected
    ]
    wrong += _missing_bodies(scenario, world.sim.requests)
    wrong += _wrong_ids(turns, world.sim.requests)
    return wrong + world.sim.problems()


def _missing_bodies(scenario: Scenario, requests: list[RequestRecord]) -> Iterator[str]:
    for number, texts in scenario.checks.bodies.items():
        raw = requests[number - 1].raw if number <= len(requests) else b""
        yield from (f"request {number}: its body has no {text!r}" for text in texts if text.encode() not in raw)


def _wrong_ids(turns: Turns, requests: list[RequestRecord]) -> Iterator[str]:
    """Both ids of each completed turn must be those that the simulator gave."""
    given = {record.response_id: record for record in requests if record.response_id is not None}
    for name, turn in turns.items():
        if turn.get("ending") not in ("completed", "incomplete"):
            continue
        record = given.get(str(turn.get("response_id")))
        if record is None:
            yield f"turn {name}: response id {turn.get('response_id')!r} was never given out"
        elif record.request_id != turn.get("upstream_request_id"):
            told = turn.get("upstream_request_id")
            yield f"turn {name}: upstream request id {told!r}, the simulator's is {record.request_id!r}"

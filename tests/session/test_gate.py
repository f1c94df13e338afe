"""A counted gate: turns go before warm-ups."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from manual_clock import settle
from warmline_server.session.gate import Gate


class Crowd:
    """Holders of a gate, each in a task of its own, and the order in which they got in."""

    def __init__(self, gate: Gate) -> None:
        self.inside: list[str] = []
        self._gate = gate
        self._holders: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}

    async def comes(self, name: str, *, urgent: bool = True) -> "asyncio.Task[None]":
        """Lets one more try to get in."""
        may_leave = asyncio.Event()
        task = asyncio.create_task(self._hold(name, urgent, may_leave))
        self._holders[name] = task, may_leave
        await settle()
        return task

    async def leaves(self, name: str) -> None:
        """Has a holder that is inside leave."""
        task, may_leave = self._holders[name]
        may_leave.set()
        await task
        await settle()

    async def all_leave(self) -> None:
        """Has everybody leave."""
        for task, may_leave in self._holders.values():
            may_leave.set()
            if not task.done():
                await asyncio.wait([task])

    async def _hold(self, name: str, urgent: bool, may_leave: asyncio.Event) -> None:
        async with self._gate.pass_through(urgent=urgent):
            self.inside.append(name)
            await may_leave.wait()


@pytest.fixture
async def crowd_at() -> AsyncIterator[Callable[[int], Crowd]]:
    crowds = []

    def make(limit: int) -> Crowd:
        crowds.append(Crowd(Gate(limit)))
        return crowds[-1]

    yield make
    for crowd in crowds:
        await crowd.all_leave()


CrowdAt = Callable[[int], Crowd]


async def test_gate_lets_as_many_in_as_its_limit(crowd_at: CrowdAt) -> None:
    crowd = crowd_at(2)

    for name in ("a", "b", "c"):
        await crowd.comes(name)

    assert crowd.inside == ["a", "b"]


async def test_gate_place_goes_to_whoever_waits_longest(crowd_at: CrowdAt) -> None:
    crowd = crowd_at(1)
    for name in ("a", "b", "c"):
        await crowd.comes(name)

    await crowd.leaves("a")
    one_left = list(crowd.inside)
    await crowd.leaves("b")

    assert one_left == ["a", "b"]
    assert crowd.inside == ["a", "b", "c"]


async def test_gate_turns_go_before_warm_ups(crowd_at: CrowdAt) -> None:
    crowd = crowd_at(1)
    await crowd.comes("first", urgent=False)
    await crowd.comes("warm-up", urgent=False)
    await crowd.comes("turn", urgent=True)

    await crowd.leaves("first")
    await crowd.leaves("turn")

    assert crowd.inside == ["first", "turn", "warm-up"]


async def test_gate_place_that_nobody_waits_for_is_free_again(crowd_at: CrowdAt) -> None:
    crowd = crowd_at(1)
    await crowd.comes("a")
    await crowd.leaves("a")

    await crowd.comes("b")

    assert crowd.inside == ["a", "b"]


async def test_gate_failure_inside_gives_the_place_back() -> None:
    gate = Gate(1)

    with pytest.raises(LookupError):
        async with gate.pass_through(urgent=True):
            raise LookupError

    async with asyncio.timeout(1), gate.pass_through(urgent=True):
        pass


@pytest.mark.parametrize("urgent", [True, False])
async def test_gate_cancelled_waiter_takes_no_place(crowd_at: CrowdAt, urgent: bool) -> None:
    crowd = crowd_at(1)
    await crowd.comes("a")
    waiter = await crowd.comes("b", urgent=urgent)
    await crowd.comes("c", urgent=False)

    waiter.cancel()
    await settle()
    await crowd.leaves("a")

    assert waiter.cancelled()
    assert crowd.inside == ["a", "c"]


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_gate_waiter_cancelled_in_the_moment_of_its_turn_passes_the_place_on(leaves_first: bool) -> None:
    gate = Gate(1)
    await gate.enter(urgent=True)
    waiter = asyncio.create_task(gate.enter(urgent=True))
    await settle()

    steps: list[Callable[[], object]] = [gate.leave, waiter.cancel]
    for step in steps if leaves_first else reversed(steps):
        step()
    await asyncio.wait([waiter])

    assert waiter.cancelled()
    async with asyncio.timeout(1):
        await gate.enter(urgent=False)


async def test_gate_many_cancelled_at_once_cost_no_place(crowd_at: CrowdAt) -> None:
    crowd = crowd_at(2)
    tasks = [await crowd.comes(f"{number}", urgent=number % 2 == 0) for number in range(8)]

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert all(task.cancelled() for task in tasks)
    for name in ("a", "b", "c"):
        await crowd.comes(name)
    assert crowd.inside == ["0", "1", "a", "b"]

"""Time for the shells: both clocks keep one contract; waits and limits keep theirs on a clock moved by hand."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from manual_clock import ManualClock, ManualTimer, settle
from warmline_server.clock import Clock, SystemClock, TimeLimit, sleep

TICK_S = 0.005

Elapse: TypeAlias = Callable[[float], Awaitable[object]]


def manual() -> tuple[Clock, Elapse]:
    clock = ManualClock()
    return clock, clock.advance


def system() -> tuple[Clock, Elapse]:
    return SystemClock(), asyncio.sleep


both_clocks = pytest.mark.parametrize("make", [system, manual])


@both_clocks
async def test_clock_moves_forward(make: Callable[[], tuple[Clock, Elapse]]) -> None:
    clock, elapse = make()
    before_s, before_ns = clock.now_s(), clock.unix_ns()

    await elapse(TICK_S)

    assert clock.now_s() - before_s >= TICK_S * 0.9
    assert clock.unix_ns() - before_ns >= TICK_S * 0.9e9


@both_clocks
async def test_clock_runs_callbacks_once_in_the_order_of_their_times(
    make: Callable[[], tuple[Clock, Elapse]],
) -> None:
    clock, elapse = make()
    start_s = clock.now_s()
    ran: list[tuple[str, float]] = []
    clock.call_at(start_s + 2 * TICK_S, lambda: ran.append(("late", clock.now_s())))
    clock.call_at(start_s + TICK_S, lambda: ran.append(("soon", clock.now_s())))

    await elapse(4 * TICK_S)
    await elapse(2 * TICK_S)

    (first, first_at_s), (second, second_at_s) = ran
    assert (first, second) == ("soon", "late")
    # The loop may wake a fraction of its clock's resolution early.
    assert first_at_s >= start_s + 0.9 * TICK_S
    assert second_at_s >= start_s + 1.9 * TICK_S


@both_clocks
async def test_clock_runs_what_is_due_already_soon_but_not_inside_the_call(
    make: Callable[[], tuple[Clock, Elapse]],
) -> None:
    clock, _ = make()
    ran = asyncio.Event()

    clock.call_at(clock.now_s() - 1.0, ran.set)

    assert not ran.is_set()
    await ran.wait()


@both_clocks
async def test_clock_cancelled_timer_never_runs(make: Callable[[], tuple[Clock, Elapse]]) -> None:
    clock, elapse = make()
    ran: list[str] = []
    timers = [clock.call_at(clock.now_s() + ticks * TICK_S, lambda: ran.append("ran")) for ticks in (0, 1)]

    for timer in timers:
        timer.cancel()
    await elapse(3 * TICK_S)

    assert ran == []


@both_clocks
async def test_clock_cancel_after_the_run_is_harmless(make: Callable[[], tuple[Clock, Elapse]]) -> None:
    clock, elapse = make()
    ran: list[str] = []
    timer = clock.call_at(clock.now_s() + TICK_S, lambda: ran.append("ran"))
    await elapse(3 * TICK_S)

    timer.cancel()

    assert ran == ["ran"]


def test_system_clock_is_the_real_time() -> None:
    clock = SystemClock()

    assert abs(clock.unix_ns() - time.time_ns()) < 1e9
    assert abs(clock.now_s() - time.monotonic()) < 1.0


async def test_manual_clock_lets_the_loop_run_between_timers() -> None:
    clock = ManualClock()
    seen: list[float] = []

    async def tick() -> None:
        for _ in range(3):
            await sleep(clock, 1.0)
            seen.append(clock.now_s())

    start_s = clock.now_s()
    task = asyncio.create_task(tick())
    await clock.advance(10.0)

    assert seen == [start_s + 1, start_s + 2, start_s + 3]
    assert task.done()
    assert clock.now_s() == start_s + 10


async def test_manual_clock_waits_for_a_timer_that_is_due_soon_enough() -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(clock.wait_for_timer(5.0))

    clock.call_at(clock.now_s() + 6.0, int)
    await settle()
    too_late = waiting.done()
    clock.call_at(clock.now_s() + 5.0, int)
    await waiting

    assert not too_late
    assert clock.pending_at_s == [clock.now_s() + 5.0, clock.now_s() + 6.0]


# sleep


async def test_sleep_ends_at_its_time() -> None:
    clock = ManualClock()
    sleeping = asyncio.create_task(sleep(clock, 2.0))

    await clock.advance(1.999)
    early = sleeping.done()
    await clock.advance(0.001)

    assert not early
    assert sleeping.done()


async def test_sleep_cancelled_drops_its_timer() -> None:
    clock = ManualClock()
    sleeping = asyncio.create_task(sleep(clock, 2.0))
    await settle()

    sleeping.cancel()
    await asyncio.wait([sleeping])

    assert sleeping.cancelled()
    assert clock.pending_at_s == []


# TimeLimit


class RecordingClock(ManualClock):
    """Keeps its timers, so that one can be fired in the same breath as something else."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[ManualTimer] = []

    def call_at(self, at_s: float, callback: Callable[[], object]) -> ManualTimer:
        self.timers.append(super().call_at(at_s, callback))
        return self.timers[-1]


class Body:
    """Runs a body under a limit in a task of its own, and keeps what became of both."""

    def __init__(self, clock: ManualClock, limit_s: float | None) -> None:
        self.limit = TimeLimit(clock, None if limit_s is None else clock.now_s() + limit_s)
        self.cancelling_after: int | None = None
        self.may_end = asyncio.Event()

    async def run(self, body: Callable[[], Awaitable[object]] | None = None) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with self.limit:
                await (self.may_end.wait() if body is None else body())
        finally:
            self.cancelling_after = task.cancelling()


async def outcome(task: "asyncio.Task[None]") -> type[BaseException] | None:
    await asyncio.wait([task])
    if task.cancelled():
        return asyncio.CancelledError
    error = task.exception()
    return None if error is None else type(error)


async def test_time_limit_body_that_ends_in_time_is_left_alone() -> None:
    clock = ManualClock()
    body = Body(clock, 5.0)
    task = asyncio.create_task(body.run())
    await clock.advance(4.999)

    body.may_end.set()

    assert await outcome(task) is None
    assert not body.limit.expired
    assert clock.pending_at_s == []


async def test_time_limit_that_passes_is_a_timeout() -> None:
    clock = ManualClock()
    body = Body(clock, 5.0)
    task = asyncio.create_task(body.run())

    await clock.advance(5.0)

    assert await outcome(task) is TimeoutError
    assert body.limit.expired
    assert body.cancelling_after == 0


async def test_time_limit_already_past_ends_the_first_wait() -> None:
    clock = ManualClock()
    body = Body(clock, -1.0)

    assert await outcome(asyncio.create_task(body.run())) is TimeoutError


async def test_time_limit_of_none_never_passes() -> None:
    clock = ManualClock()
    body = Body(clock, None)
    task = asyncio.create_task(body.run())
    await clock.advance(1e6)

    body.may_end.set()

    assert await outcome(task) is None
    assert not body.limit.expired


async def test_time_limit_cancel_from_outside_stays_a_cancel() -> None:
    clock = ManualClock()
    body = Body(clock, 5.0)
    task = asyncio.create_task(body.run())
    await clock.advance(1.0)

    task.cancel()

    assert await outcome(task) is asyncio.CancelledError
    assert not body.limit.expired
    assert clock.pending_at_s == []


@pytest.mark.parametrize("limit_first", [True, False])
async def test_time_limit_that_passes_together_with_a_cancel_leaves_it_the_last_word(limit_first: bool) -> None:
    clock = RecordingClock()
    body = Body(clock, 5.0)
    task = asyncio.create_task(body.run())
    await settle()
    (timer,) = clock.timers

    together: list[Callable[[], object]] = [timer.fire, task.cancel]
    for step in together if limit_first else reversed(together):
        step()

    assert await outcome(task) is asyncio.CancelledError
    assert body.limit.expired


async def test_time_limit_failure_of_the_body_passes_through() -> None:
    async def fail() -> None:
        raise LookupError

    clock = ManualClock()
    body = Body(clock, 5.0)

    assert await outcome(asyncio.create_task(body.run(fail))) is LookupError
    assert clock.pending_at_s == []


async def test_time_limit_failure_of_the_cleanup_passes_through() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError

    clock = ManualClock()
    body = Body(clock, 5.0)
    task = asyncio.create_task(body.run(fail_when_cancelled))

    await clock.advance(5.0)

    assert await outcome(task) is LookupError
    assert body.cancelling_after == 0


async def test_time_limit_inner_passes_and_the_outer_goes_on() -> None:
    clock = ManualClock()
    outer, inner = Body(clock, 9.0), Body(clock, 5.0)
    inner_outcome: list[type[BaseException]] = []

    async def inside() -> None:
        try:
            await inner.run()
        except TimeoutError as error:
            inner_outcome.append(type(error))
        await outer.may_end.wait()

    task = asyncio.create_task(outer.run(inside))
    await clock.advance(5.0)
    outer.may_end.set()

    assert await outcome(task) is None
    assert inner_outcome == [TimeoutError]
    assert (inner.limit.expired, outer.limit.expired) == (True, False)


@pytest.mark.parametrize(("outer_s", "inner_s"), [(5.0, 9.0), (5.0, 5.0)], ids=["outer_first", "at_once"])
async def test_time_limit_outer_that_passes_ends_the_inner_too(outer_s: float, inner_s: float) -> None:
    clock = ManualClock()
    outer, inner = Body(clock, outer_s), Body(clock, inner_s)
    task = asyncio.create_task(outer.run(inner.run))

    await clock.advance(5.0)

    assert await outcome(task) is TimeoutError
    assert outer.limit.expired
    assert outer.cancelling_after == 0
    assert clock.pending_at_s == []

"""What one refused or swallowed handshake costs: the call, its session, the other sessions (D-13, D-14, D-16)."""

from typing import Any

import pytest

import warmline
from e2e.line import (
    answer,
    hear,
    open_line,
    pass_by,
    read_until,
    seconds,
    session_config,
    slot_state,
    until_session,
    until_slot,
    until_warm_up_failed,
)
from manual_clock import ManualClock
from warmline_simulator import Connection, Drop, Reply, Script, ev

TOKEN = "x-codex-turn-state"


@pytest.mark.conformance("D-13")
async def test_what_used_up_one_sessions_budget_sends_the_others_over_http_at_once() -> None:
    clock = ManualClock()
    config = session_config(warm_up="none", retries=1)
    profile = {"circuit_open_s": 30.0}
    async with (
        open_line(refuse_upgrades=500, profile=profile, clock=clock) as line,
        line.session("one", config=config) as one,
        line.session("two", config=config) as two,
    ):
        first = await hear(one.turn("hello"), clock)
        assert first.of("fell_back")[0].latched
        assert len(line.sim.handshakes) == 2
        second = await hear(two.turn("hello"))
        (fell_back,) = second.of("fell_back")
        assert (fell_back.latched, fell_back.reason) == (False, "circuit_open")
        assert second.result.transport == "HTTP"
        assert len(line.sim.handshakes) == 2
        assert not (await two.get()).fallback.active


@pytest.mark.conformance("D-13")
async def test_an_open_circuit_keeps_nobody_from_a_socket_that_is_open() -> None:
    script = Script(connections=[Connection(), Connection(status=500)])
    config = session_config(warm_up="none", retries=0)
    async with (
        open_line(script, profile={"circuit_open_s": 30.0}, clock=ManualClock()) as line,
        line.session("warm") as warm,
        line.session("refused", config) as refused,
    ):
        await until_slot(warm, "READY")
        assert (await hear(refused.turn("hello"))).of("fell_back")[0].latched
        first = await answer(warm.turn("hello"))
        second = await answer(warm.turn(["hello", *first.items, "go on"]))
        assert (first.slot_outcome, second.slot_outcome) == ("ADOPTED", "REUSED")
        assert (await answer(warm.turn("hello", lane="another"))).transport == "HTTP"


@pytest.mark.conformance("D-13")
async def test_an_open_circuit_is_probed_by_one_and_closed_by_its_success() -> None:
    clock = ManualClock()
    config = session_config(warm_up="none", retries=0)
    profile = {"circuit_open_s": 30.0}
    script = Script(connections=[Connection(status=500), Connection(gate="probe")])
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session("one", config=config) as one,
        line.session("two", config=config) as two,
    ):
        await hear(one.turn("hello"))
        await clock.advance(30.0)
        results = [await answer(two.turn("hello", lane=lane)) for lane in ("a", "b", "c")]
        assert [result.transport for result in results] == ["HTTP"] * 3
        await line.sim.wait_for_gate("probe")
        assert len(line.sim.handshakes) == 2
        line.sim.release("probe")
        # Nothing is kept warm in this mode, so the probe's socket is closed.
        await line.until_handshake_ended(1)
        result = await answer(two.turn("hello", lane="a"))
        assert (result.transport, result.slot_outcome) == ("WEBSOCKET", "COLD")


@pytest.mark.conformance("D-13")
async def test_a_circuit_that_never_opens_lets_each_session_find_out_by_itself() -> None:
    config = session_config(warm_up="none", retries=0)
    async with open_line(refuse_upgrades=500, profile={"circuit_open_s": 0.0}) as line:
        for name in ("one", "two"):
            async with line.session(name, config=config) as session:
                heard = await hear(session.turn("hello"))
                assert heard.of("fell_back")[0].latched
        assert len(line.sim.handshakes) == 2


@pytest.mark.conformance("D-14")
@pytest.mark.parametrize("warm_up", ["none", "handshake"])
async def test_a_swallowed_upgrade_costs_two_seconds_and_latches_nothing(warm_up: Any) -> None:
    clock = ManualClock()
    config = session_config(warm_up=warm_up, retries=0)
    script = Script(connections=[Connection(swallow=True)])
    profile = {"fallback_after_s": 2.0}
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session(config=config) as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_handshakes(1)
        await read_until(turn, "admitted")
        await session.get()
        await clock.advance(1.999)
        assert line.sim.requests == []
        await clock.advance(0.001)
        fell_back = (await read_until(turn, "fell_back")).fell_back
        assert (fell_back.latched, fell_back.reason) == (False, "handshake_unanswered")
        assert (await turn.result()).transport == "HTTP"
        assert not (await session.get()).fallback.active
        # It runs on to its own limit.
        await clock.advance(12.9)
        assert line.sim.handshakes[0].closed_at_s is None
        await clock.advance(0.2)
        await line.until_handshake_ended(0)


@pytest.mark.conformance("D-14")
@pytest.mark.parametrize(("told", "replayed"), [(None, "late"), ("ts-1", "ts-1")])
async def test_a_late_handshake_serves_the_next_call_and_its_token_fills_an_empty_cell_only(
    told: str | None, replayed: str
) -> None:
    clock = ManualClock()
    script = Script(
        connections=[
            Connection(gate="late", headers={TOKEN: "late"}, replies=[Reply(events=[Drop()])]),
            Connection(replies=[Reply.model()]),
        ],
        posts=[Reply.model(headers={TOKEN: told})],
    )
    profile = {"fallback_after_s": 2.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        async with session.turn("hello", turn_id="T") as turn:
            await line.sim.wait_for_gate("late")
            await read_until(turn, "admitted")
            await session.get()
            await clock.advance(2.0)
            first = await turn.result()
        line.sim.release("late")
        await until_slot(session, "READY")
        heard = await hear(session.turn(["hello", *first.items, "go on"], turn_id="T"), clock)
        assert heard.outcomes == ["ADOPTED", "COLD"]
        assert [handshake.headers.get(TOKEN) for handshake in line.sim.handshakes] == [None, replayed]


@pytest.mark.conformance("D-14")
async def test_a_late_handshake_of_a_session_that_warms_nothing_is_closed() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(gate="late")])
    config, profile = session_config(warm_up="none"), {"fallback_after_s": 2.0}
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session(config=config) as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_gate("late")
        await read_until(turn, "admitted")
        await session.get()
        await clock.advance(2.0)
        await turn.result()
        line.sim.release("late")
        await line.until_handshake_ended(0)
        assert await slot_state(session) == "IDLE"


@pytest.mark.conformance("D-14")
async def test_the_limit_counts_from_the_start_of_the_handshake() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(swallow=True)])
    profile = {"fallback_after_s": 2.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        await line.sim.wait_for_handshakes(1)
        await clock.advance(5.0)
        # Nobody moves the clock any more.
        assert (await answer(session.turn("hello"))).transport == "HTTP"


@pytest.mark.conformance("D-14")
async def test_a_swallowed_upgrade_opens_the_circuit_for_other_sessions() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(swallow=True)])
    profile = {"fallback_after_s": 2.0, "circuit_open_s": 30.0}
    config = session_config(warm_up="none")
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session("one", config=config) as one,
        line.session("two", config=config) as two,
    ):
        async with one.turn("hello") as turn:
            await line.sim.wait_for_handshakes(1)
            await read_until(turn, "admitted")
            await one.get()
            await clock.advance(2.0)
            await turn.result()
        second = await hear(two.turn("hello"))
        assert [event.reason for event in second.of("fell_back")] == ["circuit_open"]
        assert len(line.sim.handshakes) == 1


@pytest.mark.conformance("D-14")
async def test_a_late_handshake_that_names_a_former_window_is_closed() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(status=500), Connection(gate="late"), Connection(status=500)])
    profile = {"fallback_after_s": 2.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        await until_warm_up_failed(session)
        async with session.turn("hello") as turn:
            await line.sim.wait_for_gate("late")
            await read_until(turn, "admitted")
            await session.get()
            await clock.advance(2.0)
            await turn.result()
        await session.advance_window()
        await line.until(lambda: len(line.sim.handshakes) == 3, "a warm-up for the new window")
        await line.until_handshake_ended(2)
        await until_slot(session, "IDLE")
        line.sim.release("late")
        await line.until_handshake_ended(1)
        assert await slot_state(session) == "IDLE"


@pytest.mark.conformance("D-14")
async def test_a_post_in_a_swallowed_upgrades_place_has_its_own_budget_and_latches_nothing() -> None:
    clock = ManualClock()
    script = Script(
        connections=[Connection(swallow=True)],
        posts=[Reply(status=500, body=ev.http_error(500), times=2), Reply(status=500, body=ev.http_error(500))],
    )
    config = session_config(warm_up="none", retries=0, request_retries=2)
    profile = {"fallback_after_s": 2.0, "circuit_open_s": 600.0}
    async with open_line(script, profile=profile, clock=clock) as line, line.session(config=config) as session:
        async with session.turn("hello") as turn:
            await line.sim.wait_for_handshakes(1)
            await read_until(turn, "admitted")
            await session.get()
            await clock.advance(2.0)
            for number in (1, 2):
                retrying = (await read_until(turn, "retrying")).retrying
                assert (retrying.retry, retrying.max_retries) == (number, 2)
                await pass_by(clock, seconds(retrying))
            with pytest.raises(warmline.UnavailableError):
                await turn.result()
        assert not (await session.get()).fallback.active
        assert len(line.sim.posts()) == 3


@pytest.mark.conformance("D-14")
async def test_zero_waits_for_the_handshake_to_its_end() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(gate="late")])
    profile = {"fallback_after_s": 0.0, "connect_timeout_s": 15.0}
    async with (
        open_line(script, profile=profile, clock=clock) as line,
        line.session() as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_gate("late")
        await read_until(turn, "admitted")
        await session.get()
        await clock.advance(14.0)
        line.sim.release("late")
        assert (await turn.result()).slot_outcome == "AWAITED"


# D-16: the latch


@pytest.mark.conformance("D-16")
async def test_a_latched_session_tries_the_websocket_again_and_no_call_waits_for_it() -> None:
    clock = ManualClock()
    profile = {"latch_reprobe_s": 600.0}
    script = Script(connections=[Connection(status=426), Connection(status=500), Connection(gate="probe")])
    limits = {"session_idle_ttl_s": 0.0}
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        await until_session(session, lambda found: found.fallback.active)
        await clock.advance(599.0)
        assert len(line.sim.handshakes) == 1
        await clock.advance(2.0)
        await line.sim.wait_for_answered_handshakes(2)
        await line.until_handshake_ended(1)
        await session.get()
        await clock.advance(600.0)
        await line.sim.wait_for_gate("probe")
        assert (await answer(session.turn("hello"))).transport == "HTTP"
        line.sim.release("probe")
        await until_session(session, lambda found: not found.fallback.active)
        result = await answer(session.turn("hello"))
        assert (result.transport, result.slot_outcome) == ("WEBSOCKET", "ADOPTED")
        assert len(line.sim.handshakes) == 3


@pytest.mark.conformance("D-16")
async def test_zero_makes_the_latch_last_for_ever() -> None:
    clock = ManualClock()
    profile, limits = {"latch_reprobe_s": 0.0}, {"session_idle_ttl_s": 0.0}
    script = Script(connections=[Connection(status=426)], rest="refuse", posts=[Reply.model()])
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        await until_session(session, lambda found: found.fallback.active)
        await clock.advance(1_000_000.0)
        assert (await answer(session.turn("hello"))).transport == "HTTP"
        assert len(line.sim.handshakes) == 1

"""How an upstream is connected to by all sessions of a server: how many at once, who first, how soon again."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from e2e.line import NO_CARE, answer, hear, open_line, read_until, session_config, until_slot, until_warm_up_failed
from manual_clock import ManualClock
from warmline_simulator import Connection, Script


async def test_no_more_handshakes_are_under_way_than_allowed() -> None:
    script = Script(connections=[Connection(gate=f"upgrade {number}") for number in range(8)])
    async with open_line(script, profile={"max_connects_in_flight": 3}) as line, AsyncExitStack() as opened:
        sessions = [await opened.enter_async_context(line.session(f"s{number}")) for number in range(8)]
        for number in range(8):
            await line.sim.wait_for_handshakes(min(number + 3, 8))
            await sessions[0].get()
            assert len(line.sim.handshakes) == min(number + 3, 8)
            line.sim.release(f"upgrade {number}")
            await line.sim.wait_for_answered_handshakes(number + 1)
        for session in sessions:
            await until_slot(session, "READY")


async def test_a_turns_handshake_goes_before_warm_ups_that_wait() -> None:
    script = Script(connections=[Connection(gate="first"), Connection(), Connection()])
    async with (
        open_line(script, profile={"max_connects_in_flight": 1}) as line,
        line.session("first") as first,
        line.session("waits"),
        line.session("turn", session_config(warm_up="none")) as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_gate("first")
        await read_until(turn, "admitted")
        await first.get()
        line.sim.release("first")
        result = await turn.result()
        await line.sim.wait_for_answered_handshakes(3)
        assert line.sim.handshakes[1].headers["session_id"] == result.conversation_id


async def test_a_lost_socket_is_replaced_after_a_wait_that_is_spread() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "rearm_jitter_s": 1.0}
    async with open_line(profile=profile, clock=clock) as line, AsyncExitStack() as opened:
        sessions = [await opened.enter_async_context(line.session(f"s{number}")) for number in range(8)]
        for session in sessions:
            await until_slot(session, "READY")
        for number in range(8):
            line.sim.drop_connection(number)
        for session in sessions:
            await until_slot(session, "IDLE")
        due_s = [at_s - clock.now_s() for at_s in clock.pending_at_s if at_s - clock.now_s() <= 1.0]
        assert len(line.sim.handshakes) == len(due_s) == 8
        assert len(set(due_s)) > 4
        await clock.advance(1.0)
        await line.sim.wait_for_answered_handshakes(16)


@pytest.mark.parametrize("refusal", [Connection(status=500), Connection(status=403)])
async def test_a_refused_warm_up_is_not_tried_again_by_itself(refusal: Connection) -> None:
    clock = ManualClock()
    script = Script(connections=[refusal], rest="refuse")
    limits = {"session_idle_ttl_s": 0.0}
    async with open_line(script, clock=clock, limits=limits) as line, line.session() as session:
        await until_warm_up_failed(session)
        await clock.advance(86_400.0)
        await session.get()
        assert len(line.sim.handshakes) == 1


async def test_a_socket_that_nobody_used_is_closed_and_not_replaced() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "warm_socket_idle_ttl_s": 600.0}
    limits = {"session_idle_ttl_s": 0.0}
    async with open_line(profile=profile, clock=clock, limits=limits) as line, line.session() as session:
        await until_slot(session, "READY")
        await clock.advance(600.0)
        await line.until_handshake_ended(0)
        await clock.advance(10.0)
        await session.get()
        assert len(line.sim.handshakes) == 1
        assert line.sim.handshakes[0].close_code == 1000
        assert (await answer(session.turn("hello"))).slot_outcome == "COLD"


async def test_a_turn_that_leaves_during_its_handshake_leaves_the_handshake_to_the_next() -> None:
    script = Script(connections=[Connection(status=500), Connection(gate="upgrade")])
    async with open_line(script) as line, line.session() as session:
        await until_warm_up_failed(session)
        async with session.turn("hello") as turn:
            await line.sim.wait_for_gate("upgrade")
            await read_until(turn, "admitted")
        await line.until_calls(session, 0)
        line.sim.release("upgrade")
        await until_slot(session, "READY")
        assert (await answer(session.turn("hello again"))).slot_outcome == "ADOPTED"
        assert len(line.sim.handshakes) == 2


async def test_a_handshake_that_carried_a_turns_token_is_for_that_turn_alone() -> None:
    token = {"x-codex-turn-state": "A"}
    script = Script(
        connections=[Connection(headers=token), Connection(status=500), Connection(gate="upgrade"), Connection()]
    )
    async with open_line(script) as line, line.session() as session:
        await until_slot(session, "READY")
        first = await answer(session.turn("hello", turn_id="T"))
        line.sim.drop_connection(0)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "IDLE")
        async with session.turn(["hello", *first.items, "go on"], turn_id="T") as turn:
            await line.sim.wait_for_gate("upgrade")
            await read_until(turn, "admitted")
        await line.until_calls(session, 0)
        line.sim.release("upgrade")
        await line.until_handshake_ended(2)
        assert line.sim.handshakes[2].headers["x-codex-turn-state"] == "A"
        heard = await hear(session.turn("hello", turn_id="another"))
        assert heard.outcomes == ["COLD"]


async def test_many_turns_of_many_sessions_at_once_keep_to_the_cap() -> None:
    script = Script(connections=[Connection(gate="open") for _ in range(20)])
    config = session_config(warm_up="none")
    async with open_line(script, profile={"max_connects_in_flight": 5}) as line, AsyncExitStack() as opened:
        sessions = [await opened.enter_async_context(line.session(f"s{number}", config)) for number in range(20)]
        calls = [asyncio.create_task(answer(session.turn("hello"))) for session in sessions]
        await line.sim.wait_for_gate("open", 5)
        await line.until_calls(sessions[0], 20)
        assert len(line.sim.handshakes) == 5
        line.sim.release("open")
        results = await asyncio.gather(*calls)
        assert {result.transport for result in results} == {"WEBSOCKET"}

"""Sockets that wait: looked after while nobody uses them (D-7, D-8)."""

from typing import Any

import pytest

from e2e.line import (
    NO_CARE,
    answer,
    open_line,
    read_until,
    script_for,
    until_slot,
)
from manual_clock import ManualClock
from warmline_simulator import Connection, Frame, Gate, Reply, Script, Stall, ev

TOKEN = "x-codex-turn-state"


@pytest.mark.conformance("D-7")
async def test_an_idle_socket_that_answers_no_ping_is_replaced() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "idle_ping_interval_s": 30.0, "idle_ping_timeout_s": 10.0}
    script = Script(connections=[Connection(then=[Stall()]), Connection()])
    async with open_line(script, profile=profile, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        await clock.advance(39.9)
        assert len(line.sim.handshakes) == 1
        await clock.advance(0.2)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        await clock.advance(1.0)  # it does not answer the goodbye either
        await line.until_handshake_ended(0)
        assert (await answer(session.turn("hello"))).slot_outcome == "ADOPTED"


@pytest.mark.conformance("D-7")
@pytest.mark.parametrize(
    "word",
    [ev.error(400, "websocket_connection_limit_reached"), b"\x00\x01", Frame(b"x", opcode=3), ev.created()],
    ids=["error", "binary", "bad frame", "event of a response"],
)
async def test_an_idle_socket_that_says_what_none_may_say_is_replaced_at_once(word: Any) -> None:
    script = Script(connections=[Connection(then=[Gate("say"), word]), Connection()])
    async with open_line(script, profile=NO_CARE, clock=ManualClock()) as line, line.session() as session:
        await session.preconnect(wait=True)
        line.sim.release("say")
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        assert (await answer(session.turn("hello"))).slot_outcome == "ADOPTED"


@pytest.mark.conformance("D-7")
async def test_an_idle_socket_that_answers_pings_stays() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "idle_ping_interval_s": 30.0}
    async with open_line(profile=profile, clock=clock) as line, line.session() as session:
        first = await answer(session.turn("hello"))
        for _ in range(4):
            received = line.sim.counters.bytes_in
            await clock.advance(30.0)
            while line.sim.counters.bytes_in == received:
                await session.get()
            await session.get()
            await clock.advance(11.0)
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert second.slot_outcome == "REUSED"
        assert second.incremental


@pytest.mark.conformance("D-7")
async def test_a_socket_is_not_pinged_while_a_response_runs() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "idle_ping_interval_s": 30.0, "idle_timeout_s": 0.0}
    script = script_for("ws", Reply(events=[ev.created(), Gate("silence"), *ev.text_response("words")[1:]]))
    limits = {"slow_reader_s": 0.0}
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "created")
            received = line.sim.counters.bytes_in
            await clock.advance(300.0)
            line.sim.release("silence")
            await turn.result()
        assert line.sim.counters.bytes_in == received


@pytest.mark.conformance("D-7")
@pytest.mark.parametrize("owner", ["slot", "lane"])
@pytest.mark.parametrize("end", ["reset", "close", "close without an end", "a stray response"])
async def test_an_idle_socket_that_ends_is_replaced_before_anyone_needs_it(owner: str, end: str) -> None:
    close_frame = Frame(b"\x03\xe8", opcode=8)
    first = Connection(then=[Gate("bye"), close_frame, Stall()] if end == "close without an end" else [])
    async with open_line(Script(connections=[first, Connection()])) as line, line.session() as session:
        await session.preconnect(wait=True)
        if owner == "lane":
            await answer(session.turn("hello"))
        match end:
            case "reset":
                line.sim.drop_connection(0)
            case "close":
                line.sim.close_connection(0, 1001)
            case "a stray response":
                line.sim.send_event(0, ev.created("resp-stray"))
            case _:
                line.sim.release("bye")
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        result = await answer(session.turn("hello again"))
        assert result.slot_outcome == "ADOPTED"
        assert line.sim.requests[-1].connection == 1


@pytest.mark.conformance("D-7")
async def test_notices_on_an_idle_socket_do_it_no_harm() -> None:
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn("hello"))
        line.sim.send_event(0, ev.codex_rate_limits())
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert second.slot_outcome == "REUSED"


@pytest.mark.conformance("D-8")
@pytest.mark.parametrize("owner", ["slot", "lane"])
async def test_a_socket_is_rotated_while_idle_before_it_is_an_hour_old(owner: str) -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "max_connection_age_s": 3300.0}
    limits = {"session_idle_ttl_s": 0.0}
    async with open_line(profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        if owner == "lane":
            await answer(session.turn("hello"))
        await clock.advance(3299.0)
        assert len(line.sim.handshakes) == 1
        await clock.advance(2.0)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        await line.until_handshake_ended(0)
        assert line.sim.handshakes[0].close_code == 1000
        result = await answer(session.turn("hello"))
        assert (result.slot_outcome, result.full_reason) == ("ADOPTED", "NEW_SOCKET")


@pytest.mark.conformance("D-8")
async def test_a_socket_that_grew_old_in_a_call_is_rotated_after_it() -> None:
    clock = ManualClock()
    profile = {**NO_CARE, "max_connection_age_s": 3300.0, "idle_timeout_s": 0.0}
    limits = {"slow_reader_s": 0.0, "max_turn_duration_s": 7200.0}
    events = ev.text_response("words")
    script = script_for("ws", Reply(events=[events[0], Gate("hour"), *events[1:]]))
    async with open_line(script, profile=profile, limits=limits, clock=clock) as line, line.session() as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "created")
            await clock.advance(3500.0)
            assert len(line.sim.handshakes) == 1
            line.sim.release("hour")
            assert (await turn.result()).ending == "completed"
        await line.until_calls(session, 0)
        await clock.advance(0.0)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        assert (await answer(session.turn("hello"))).slot_outcome == "ADOPTED"

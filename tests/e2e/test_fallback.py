"""From WebSocket to HTTP: when, once, and for how long."""

import asyncio

import pytest

from e2e.line import (
    admitted,
    answer,
    hear,
    open_line,
    read_until,
    session_config,
    until_session,
    until_warm_up_failed,
)
from manual_clock import ManualClock
from warmline_simulator import Connection, Drop, Reply, Script

TOKEN = "x-codex-turn-state"


@pytest.mark.conformance("C-030")
async def test_a_warm_up_that_is_told_to_use_http_is_the_only_upgrade() -> None:
    async with open_line(refuse_upgrades=426) as line, line.session(config=session_config(retries=2)) as session:
        await until_session(session, lambda found: found.fallback.active)
        heard = await hear(session.turn("hello"))
        assert heard.result.transport == "HTTP"
        assert not heard.of("retrying")
        assert [handshake.status for handshake in line.sim.handshakes] == [426]
        assert [request.transport for request in line.sim.requests] == ["http"]


@pytest.mark.conformance("C-030")
async def test_a_turn_that_is_told_to_use_http_goes_on_over_http_at_once() -> None:
    config = session_config(warm_up="none", retries=2)
    async with open_line(refuse_upgrades=426) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"))
        assert heard.kinds[:3] == ["admitted", "fell_back", "attempt_started"]
        (fell_back,) = heard.of("fell_back")
        assert (fell_back.latched, fell_back.reason) == (True, "upgrade_required")
        assert not heard.of("retrying")
        assert heard.result.transport == "HTTP"
        assert [handshake.status for handshake in line.sim.handshakes] == [426]
        assert [request.transport for request in line.sim.requests] == ["http"]


@pytest.mark.conformance("C-031")
async def test_refused_upgrades_use_the_budget_up_and_then_the_same_call_goes_on_over_http() -> None:
    clock = ManualClock()
    async with open_line(refuse_upgrades=500, clock=clock) as line:
        async with line.session(config=session_config(retries=2)) as session:
            await until_warm_up_failed(session)
            heard = await hear(session.turn("hello"), clock)
        assert heard.result.transport == "HTTP"
        assert [(retrying.retry, retrying.max_retries) for retrying in heard.of("retrying")] == [(1, 2), (2, 2)]
        (fell_back,) = heard.of("fell_back")
        assert (fell_back.latched, fell_back.reason) == (True, "retries_exhausted")
        assert len(line.sim.handshakes) == 1 + 3
        assert [request.transport for request in line.sim.requests] == ["http"]


@pytest.mark.conformance("C-032")
async def test_after_a_fall_back_all_turns_of_all_lanes_are_posts() -> None:
    async with open_line(refuse_upgrades=426) as line, line.session() as session:
        first = await answer(session.turn("hello", turn_id="T1"))
        line.sim.refuse_upgrades = None
        await answer(session.turn(["hello", *first.items, "go on"], turn_id="T2"))
        result = await answer(session.turn("hello", lane="another"))
        await session.preconnect(wait=True)
        assert result.slot_outcome == "NONE"
        assert len(line.sim.handshakes) == 1
        assert [request.transport for request in line.sim.requests] == ["http"] * 3
        assert [request.previous_response_id for request in line.sim.requests] == [None] * 3


@pytest.mark.conformance("C-032")
async def test_a_fall_back_of_one_session_leaves_others_alone() -> None:
    script = Script(connections=[Connection(status=426), Connection()])
    async with open_line(script) as line, line.session("one") as one:
        await until_session(one, lambda found: found.fallback.active)
        async with line.session("two") as two:
            assert (await answer(two.turn("hello"))).transport == "WEBSOCKET"


@pytest.mark.conformance("C-034")
async def test_the_second_fall_back_of_a_session_counts_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="warmline_server")
    refusals = [Connection(gate="first", status=426), Connection(gate="second", status=426)]
    config = session_config(warm_up="none")
    async with open_line(Script(connections=refusals)) as line, line.session(config=config) as session:
        calls = []
        for lane, gate in (("a", "first"), ("b", "second")):
            calls.append(asyncio.create_task(hear(session.turn("hello", lane=lane))))
            await line.sim.wait_for_gate(gate)
        line.sim.release("first")
        first = await calls[0]
        since = (await session.get()).fallback.active_since_time
        line.sim.release("second")
        second = await calls[1]
        assert first.result.transport == second.result.transport == "HTTP"
        assert (await session.get()).fallback.active_since_time == since
        assert len([record for record in caplog.records if record.getMessage() == "fell back to HTTP"]) == 1


@pytest.mark.conformance("C-034")
async def test_each_call_that_falls_back_drops_the_idle_sockets() -> None:
    script = Script(connections=[Connection(), Connection(gate="first", status=426)])
    async with open_line(script) as line, line.session() as session:
        await answer(session.turn("hello", lane="idle"))
        async with session.turn("hello", lane="falls-back") as turn:
            await admitted(turn)
            line.sim.release("first")
            await turn.result()
        await line.sim.wait_for_connections_closed(1)
        assert not any(lane.connection_id for lane in (await session.get()).lanes)


@pytest.mark.conformance("C-034")
@pytest.mark.parametrize("status", [426, 500])
async def test_a_call_whose_session_fell_back_meanwhile_goes_on_over_http_at_once(status: int) -> None:
    """No time passes: there is nothing to wait for, and no budget of HTTP's is taken."""
    refusals = [Connection(gate="first", status=426), Connection(gate="second", status=status)]
    config = session_config(warm_up="none", retries=0, request_retries=0)
    async with (
        open_line(Script(connections=refusals), clock=ManualClock()) as line,
        line.session(config=config) as session,
    ):
        calls = []
        for lane, gate in (("a", "first"), ("b", "second")):
            calls.append(asyncio.create_task(hear(session.turn("hello", lane=lane))))
            await line.sim.wait_for_gate(gate)
        line.sim.release("first")
        await calls[0]
        line.sim.release("second")
        heard = await calls[1]
        assert heard.result.transport == "HTTP"
        assert not heard.of("retrying")
        assert [fell_back.latched for fell_back in heard.of("fell_back")] == [True]


@pytest.mark.conformance("C-035")
async def test_http_has_a_budget_of_its_own() -> None:
    clock = ManualClock()
    config = session_config(warm_up="none", retries=2, request_retries=0)
    script = Script(posts=[Reply(status=500, times=3)])
    async with open_line(script, refuse_upgrades=502, clock=clock) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"), clock)
        assert heard.failure.reason == "UPSTREAM_FAILED"
        resends = ["retrying"] * 2
        seen = [kind for kind in heard.kinds if kind in ("retrying", "fell_back")]
        assert seen == [*resends, "fell_back", *resends]
        assert [retrying.retry for retrying in heard.of("retrying")] == [1, 2, 1, 2]
        assert len(line.sim.handshakes) == len(line.sim.posts()) == 3


@pytest.mark.conformance("C-036")
async def test_the_turns_token_goes_with_it_to_http() -> None:
    script = Script(connections=[Connection(headers={TOKEN: "A"}, replies=[Reply(events=[Drop()])])])
    async with open_line(script) as line, line.session(config=session_config(retries=0)) as session:
        heard = await hear(session.turn("hello", turn_id="T"))
        assert heard.result.transport == "HTTP"
        (post,) = line.sim.posts()
        assert post.headers[TOKEN] == "A"


@pytest.mark.conformance("C-037")
async def test_a_handshake_without_an_answer_ends_after_the_connect_timeout_and_may_be_repeated() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(swallow=True), Connection()])
    config = session_config(warm_up="none", retries=1)
    async with (
        open_line(script, profile={"connect_timeout_s": 15.0}, clock=clock) as line,
        line.session(config=config) as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_handshakes(1)
        await clock.advance(14.999)
        assert line.sim.handshakes[0].closed_at_s is None
        await clock.advance(0.001)
        await line.until_handshake_ended(0)
        retrying = (await read_until(turn, "retrying")).retrying
        assert (retrying.reason, retrying.retry) == ("UPSTREAM_UNREACHABLE", 1)
        await clock.wait_for_timer(0.25)
        await clock.advance(0.25)
        result = await turn.result()
        assert (result.transport, result.slot_outcome) == ("WEBSOCKET", "COLD")


REDIRECTS = [300, 301, 302, 303, 307, 308]
REFUSALS = [400, 402, *range(404, 426), *range(427, 429), 431, 451, *range(500, 512), 520, 522, 524, 529, 599]
UNHELPFUL = [*REDIRECTS, *REFUSALS]


@pytest.mark.conformance("C-031")
@pytest.mark.parametrize("status", UNHELPFUL)
async def test_an_upgrade_refused_with_whatever_status_leads_to_http_after_the_budget(status: int) -> None:
    """Those that say that HTTP would meet the same are tested with D-15; 426 with C-030."""
    refusal = Connection(status=status, body="<html>not here</html>")
    config = session_config(warm_up="none", retries=0)
    # No time passes: at budget 0 there is nothing to wait for.
    async with (
        open_line(Script(connections=[refusal]), clock=ManualClock()) as line,
        line.session(config=config) as session,
    ):
        heard = await hear(session.turn("hello"))
        assert heard.result.transport == "HTTP"
        assert heard.kinds[:3] == ["admitted", "fell_back", "attempt_started"]
        assert len(line.sim.handshakes) == 1

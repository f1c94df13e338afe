"""The preconnect slot, seen from both ends of the line."""

import asyncio

import pytest

from e2e.line import (
    admitted,
    answer,
    hear,
    open_line,
    read_until,
    session_config,
    slot_state,
    until_slot,
    until_warm_up_failed,
)
from manual_clock import ManualClock
from warmline_server.settings import TurnMetadata
from warmline_simulator import Connection, Drop, Reply, Script, ev

TOKEN = "x-codex-turn-state"
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.conformance("C-001")
async def test_a_session_shakes_hands_before_any_turn_and_its_first_turn_adds_no_handshake() -> None:
    async with open_line() as line, line.session() as session:
        await line.sim.wait_for_answered_handshakes(1)
        result = await answer(session.turn("hello"))
        assert len(line.sim.handshakes) == 1
        assert [request.connection for request in line.sim.requests] == [0]
        assert result.slot_outcome in ("ADOPTED", "AWAITED")


@pytest.mark.conformance("C-002")
async def test_a_warm_up_sends_no_frame() -> None:
    async with open_line() as line:
        async with line.session() as session:
            await session.preconnect(wait=True)
            assert await slot_state(session) == "READY"
            await session.close()
        await line.sim.wait_for_connections_closed(1)
        assert len(line.sim.handshakes) == 1
        assert line.sim.requests == []
        assert line.sim.counters.warm_ups == line.sim.counters.refused == 0


@pytest.mark.conformance("C-003")
async def test_the_first_frame_on_a_warmed_socket_is_the_whole_request() -> None:
    async with open_line() as line, line.session(instructions="Be brief.", tools=[TOOL]) as session:
        await session.preconnect(wait=True)
        result = await answer(session.turn("hello"))
        (request,) = line.sim.requests
        assert result.slot_outcome == "ADOPTED"
        assert request.body["type"] == "response.create"
        assert request.previous_response_id is None
        assert [item["role"] for item in request.body["input"]] == ["user"]
        assert request.body["instructions"] == "Be brief."
        assert request.body["tools"] == [TOOL]


@pytest.mark.conformance("C-004")
async def test_a_turn_that_starts_during_the_warm_up_waits_for_it() -> None:
    script = Script(connections=[Connection(gate="upgrade")])
    async with open_line(script) as line, line.session() as session:
        await line.sim.wait_for_gate("upgrade")
        async with session.turn("hello") as turn:
            await admitted(turn)
            (lane,) = (await session.get()).lanes
            assert lane.running_request_id == turn.request_id
            line.sim.release("upgrade")
            result = await turn.result()
        assert result.slot_outcome == "AWAITED"
        assert len(line.sim.handshakes) == len(line.sim.requests) == 1


@pytest.mark.conformance("C-005")
async def test_a_socket_warmed_with_other_metadata_is_adopted_all_the_same() -> None:
    static = TurnMetadata(static_json='{"kind":"prewarm"}')
    async with open_line(turn_metadata=static) as line, line.session() as session:
        await session.preconnect(wait=True)
        result = await answer(session.turn("hello", turn_metadata={"kind": "turn"}))
        (handshake,), (request,) = line.sim.handshakes, line.sim.requests
        assert result.slot_outcome == "ADOPTED"
        assert handshake.headers["x-codex-turn-metadata"] == '{"kind":"prewarm"}'
        assert request.body["client_metadata"]["x-codex-turn-metadata"] == '{"kind":"turn"}'


@pytest.mark.conformance("C-006")
async def test_the_warm_ups_token_is_replayed_when_the_turn_reconnects() -> None:
    script = Script(
        connections=[
            Connection(headers={TOKEN: "A"}, replies=[Reply(events=[Drop()])]),
            Connection(replies=[Reply.model()]),
        ]
    )
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        heard = await hear(session.turn("hello"), clock)
        assert heard.result.ending == "completed"
        assert heard.outcomes == ["ADOPTED", "COLD"]
        assert [handshake.headers.get(TOKEN) for handshake in line.sim.handshakes] == [None, "A"]


@pytest.mark.conformance("C-006")
async def test_the_warm_ups_token_is_replayed_for_a_follow_up_that_needs_a_socket() -> None:
    script = Script(connections=[Connection(headers={TOKEN: "A"}), Connection(status=500), Connection()])
    async with open_line(script) as line, line.session() as session:
        await session.preconnect(wait=True)
        first = await answer(session.turn("hello", turn_id="T"))
        line.sim.drop_connection(0)
        # The loss is noticed while idle; its re-warm is refused, so the follow-up opens a socket of its own.
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "IDLE")
        result = await answer(session.turn(["hello", *first.items, "go on"], turn_id="T"))
        assert result.slot_outcome == "COLD"
        assert [handshake.headers.get(TOKEN) for handshake in line.sim.handshakes] == [None, None, "A"]


@pytest.mark.conformance("C-007")
@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
async def test_a_warm_up_that_was_refused_costs_its_turn_nothing(status: int) -> None:
    script = Script(connections=[Connection(status=status), Connection()])
    async with open_line(script) as line, line.session(config=session_config(retries=0)) as session:
        await until_warm_up_failed(session)
        assert await slot_state(session) == "IDLE"
        heard = await hear(session.turn("hello"))
        assert heard.result.slot_outcome == "COLD"
        assert heard.kinds[:2] == ["admitted", "attempt_started"]
        assert not heard.of("retrying")
        assert not heard.of("fell_back")
        assert len(line.sim.handshakes) == 2


@pytest.mark.conformance("C-007")
async def test_a_warm_up_that_fails_under_a_waiting_turn_costs_it_nothing() -> None:
    script = Script(connections=[Connection(gate="upgrade", status=500), Connection()])
    async with open_line(script) as line, line.session(config=session_config(retries=0)) as session:
        await line.sim.wait_for_gate("upgrade")
        async with session.turn("hello") as turn:
            await admitted(turn)
            line.sim.release("upgrade")
            result = await turn.result()
        assert result.slot_outcome == "COLD"
        assert result.fell_back is None
        assert result.attempts == 1
        assert len(line.sim.handshakes) == 2


@pytest.mark.conformance("C-008")
async def test_a_ready_socket_that_was_closed_is_replaced_before_the_turn_and_the_turn_sends_everything() -> None:
    """D-7: the loss is noticed while idle, so the one new handshake is a warm-up, which has no token to replay."""
    script = Script(connections=[Connection(headers={TOKEN: "A"}), Connection()])
    async with open_line(script) as line, line.session() as session:
        first = (await session.preconnect(wait=True)).connection_id
        line.sim.drop_connection(0)
        await line.sim.wait_for_answered_handshakes(2)
        slot = await session.preconnect(wait=True)
        assert slot.connection_id not in ("", first)
        result = await answer(session.turn("hello"))
        (request,) = line.sim.requests
        assert result.slot_outcome == "ADOPTED"
        assert (request.connection, request.previous_response_id) == (1, None)
        assert len(line.sim.handshakes) == 2
        assert TOKEN not in line.sim.handshakes[1].headers


@pytest.mark.conformance("C-008")
async def test_an_adopted_socket_that_dies_with_the_request_is_replaced_with_its_token_and_a_whole_request() -> None:
    script = Script(
        connections=[Connection(headers={TOKEN: "A"}, replies=[Reply(events=[Drop()])]), Connection()],
    )
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        result = await answer(session.turn("hello"), clock)
        assert result.full_reason == "NEW_SOCKET"
        assert [request.connection for request in line.sim.requests] == [0, 1]
        assert line.sim.requests[1].previous_response_id is None
        assert line.sim.requests[1].body["input"] == line.sim.requests[0].body["input"]
        assert line.sim.handshakes[1].headers[TOKEN] == "A"
        assert await slot_state(session) == "IDLE"


@pytest.mark.conformance("C-009")
async def test_of_two_turns_at_once_one_adopts_the_warmed_socket_and_the_other_opens_its_own() -> None:
    reply = Reply(events=ev.text_response("words"), gate="both")
    script = Script(connections=[Connection(replies=[reply]), Connection(replies=[reply])])
    async with open_line(script) as line, line.session() as session:
        await session.preconnect(wait=True)
        calls = [asyncio.create_task(answer(session.turn("hello", lane=lane))) for lane in ("a", "b")]
        await line.sim.wait_for_requests(2)
        line.sim.release("both")
        results = await asyncio.gather(*calls)
        assert sorted(result.slot_outcome for result in results) == ["ADOPTED", "COLD"]
        assert sorted(request.connection for request in line.sim.requests) == [0, 1]
        assert len(line.sim.handshakes) == 2


@pytest.mark.conformance("C-010")
async def test_a_second_warm_up_ends_the_one_under_way() -> None:
    script = Script(connections=[Connection(gate="first"), Connection()])
    async with open_line(script) as line, line.session() as session:
        await line.sim.wait_for_gate("first")
        assert await session.advance_window() == 1
        await line.until_handshake_ended(0)
        await until_slot(session, "READY")
        result = await answer(session.turn("hello"))
        assert result.slot_outcome == "ADOPTED"
        assert line.sim.handshakes[0].status is None
        windows = [handshake.headers["x-codex-window-id"].rpartition(":")[2] for handshake in line.sim.handshakes]
        assert windows == ["0", "1"]


@pytest.mark.conformance("C-011")
async def test_without_a_budget_refused_upgrades_are_two_and_then_comes_a_post() -> None:
    async with open_line(refuse_upgrades=500) as line, line.session(config=session_config(retries=0)) as session:
        await until_warm_up_failed(session)
        heard = await hear(session.turn("hello"))
        assert heard.result.transport == "HTTP"
        assert [handshake.status for handshake in line.sim.handshakes] == [500, 500]
        assert [request.transport for request in line.sim.requests] == ["http"]
        assert not heard.of("retrying")


@pytest.mark.conformance("C-012")
async def test_a_fall_back_ends_the_warm_up_under_way() -> None:
    script = Script(
        connections=[
            Connection(replies=[Reply(events=[Drop()])]),
            Connection(gate="turn", status=426),
            Connection(gate="warm-up"),
        ],
        posts=[Reply.model()],
    )
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        call = asyncio.create_task(hear(session.turn("hello"), clock))
        await line.sim.wait_for_gate("turn")
        await session.preconnect()
        await line.sim.wait_for_gate("warm-up")
        assert await slot_state(session) == "IN_FLIGHT"
        line.sim.release("turn")
        assert (await call).result.transport == "HTTP"
        await line.until_handshake_ended(2)
        assert line.sim.handshakes[2].status is None
        line.sim.release("warm-up")
        assert await slot_state(session) == "IDLE"
        assert line.sim.counters.websockets_open == 0


@pytest.mark.conformance("C-012")
async def test_a_fall_back_drops_the_ready_socket() -> None:
    script = Script(
        connections=[Connection(replies=[Reply(events=[Drop()])]), Connection(gate="turn", status=426), Connection()],
        posts=[Reply.model()],
    )
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        call = asyncio.create_task(hear(session.turn("hello"), clock))
        await line.sim.wait_for_gate("turn")
        await session.preconnect(wait=True)
        assert await slot_state(session) == "READY"
        line.sim.release("turn")
        assert (await call).result.transport == "HTTP"
        await line.sim.wait_for_connections_closed(2)
        assert await slot_state(session) == "IDLE"


@pytest.mark.conformance("C-012")
async def test_a_fall_back_ends_the_warm_up_that_a_turn_waits_for_and_the_turn_goes_on_over_http() -> None:
    script = Script(
        connections=[Connection(gate="warm-up"), Connection(status=426)], posts=[Reply.model(), Reply.model()]
    )
    async with open_line(script) as line, line.session() as session:
        await line.sim.wait_for_gate("warm-up")
        async with session.turn("hello", lane="waits") as waiting:
            await admitted(waiting)
            assert (await answer(session.turn("hello", lane="opens"))).transport == "HTTP"
            fell_back = (await read_until(waiting, "fell_back")).fell_back
            result = await waiting.result()
        assert (fell_back.latched, fell_back.reason) == (True, "upgrade_required")
        assert result.transport == "HTTP"
        await line.until_handshake_ended(0)
        assert line.sim.handshakes[0].status is None


@pytest.mark.conformance("C-013")
@pytest.mark.parametrize("where", ["upstream", "session", "warm_up"])
async def test_a_session_without_websockets_shakes_no_hands(where: str) -> None:
    profile = {"supports_websockets": False} if where == "upstream" else None
    config = session_config(
        warm_up="none" if where == "warm_up" else None,
        fallback_policy={"http_only": where == "session"},
    )
    async with open_line(profile=profile) as line, line.session(config=config) as session:
        await session.preconnect(wait=True)
        assert line.sim.handshakes == []
        result = await answer(session.turn("hello"))
        # Mode NONE warms nothing, and still speaks WebSocket.
        expected = ("WEBSOCKET", "COLD", 1) if where == "warm_up" else ("HTTP", "NONE", 0)
        assert (result.transport, result.slot_outcome, len(line.sim.handshakes)) == expected


@pytest.mark.conformance("C-015")
async def test_metadata_that_is_late_is_left_out_of_the_handshake_and_of_the_turn() -> None:
    clock = ManualClock()
    slow = TurnMetadata(command=("/bin/sh", "-c", "exec sleep 60"), timeout_s=0.25)
    async with open_line(turn_metadata=slow, clock=clock) as line, line.session() as session:
        await clock.wait_for_timer(0.25)
        await clock.advance(0.249)
        assert line.sim.handshakes == []
        await clock.advance(0.001)
        await until_slot(session, "READY")
        async with session.turn("hello") as turn:
            await line.until_calls(session, 1)
            await clock.wait_for_timer(0.25)
            await clock.advance(0.25)
            result = await turn.result()
        assert result.slot_outcome == "ADOPTED"
        assert "x-codex-turn-metadata" not in line.sim.handshakes[0].headers
        assert "x-codex-turn-metadata" not in line.sim.requests[0].body["client_metadata"]


@pytest.mark.conformance("C-015")
async def test_metadata_that_is_in_time_is_told_and_that_of_the_call_goes_first() -> None:
    quick = TurnMetadata(command=("/bin/echo", '{"from":"command"}'))
    async with open_line(turn_metadata=quick) as line, line.session() as session:
        first = await answer(session.turn("hello"))
        await answer(session.turn(["hello", *first.items, "go on"], turn_metadata={"from": "call"}))
        assert line.sim.handshakes[0].headers["x-codex-turn-metadata"] == '{"from":"command"}'
        told = [request.body["client_metadata"]["x-codex-turn-metadata"] for request in line.sim.requests]
        assert told == ['{"from":"command"}', '{"from":"call"}']


@pytest.mark.conformance("C-015")
@pytest.mark.parametrize("program", ["exit 3", "echo not json", "echo '[1]'", "true", f"echo '{{\"a\":{'[' * 5000}'"])
async def test_a_metadata_command_that_fails_costs_nothing(program: str) -> None:
    broken = TurnMetadata(command=("/bin/sh", "-c", program))
    async with open_line(turn_metadata=broken) as line, line.session() as session:
        assert (await answer(session.turn("hello"))).attempts == 1
        assert "x-codex-turn-metadata" not in line.sim.handshakes[0].headers


@pytest.mark.conformance("C-017")
async def test_a_turn_that_has_a_token_keeps_it_when_it_adopts_a_socket_with_another() -> None:
    script = Script(
        connections=[
            Connection(headers={TOKEN: "B"}, replies=[Reply.model()]),
            Connection(headers={TOKEN: "A"}, replies=[Reply(events=[Drop()])]),
            Connection(replies=[Reply.model()]),
        ]
    )
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        first = await answer(session.turn("hello", turn_id="T"))
        line.sim.drop_connection(0)
        await line.sim.wait_for_answered_handshakes(2)
        await until_slot(session, "READY")
        heard = await hear(session.turn(["hello", *first.items, "go on"], turn_id="T"), clock)
        assert heard.result.ending == "completed"
        assert heard.outcomes == ["ADOPTED", "COLD"]
        assert [handshake.headers.get(TOKEN) for handshake in line.sim.handshakes] == [None, None, "B"]

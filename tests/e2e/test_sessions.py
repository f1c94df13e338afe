"""Sessions as resources: made, found, listed, watched, warmed, closed, limited, and gone when nobody uses them."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from e2e.kit import Refusal, completed, config, refused, refused_turn, turn_request
from e2e.line import Line, open_line, until_warm_up_failed
from manual_clock import ManualClock
from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import types_pb2 as types
from warmline_simulator import Connection, Reply, Script, read

CODE = grpc.StatusCode
WARM: Any = types.WARM_UP_MODE_HANDSHAKE
# On a clock that jumps, pings and ages of idle sockets would come due with what a test is about.
STILL = {"idle_ping_interval_s": 0.0, "warm_socket_idle_ttl_s": 0.0, "max_connection_age_s": 0.0}


async def create(line: Line, session_id: str = "one", **fields: Any) -> pb.CreateSessionResponse:
    request = pb.CreateSessionRequest(session_id=session_id, config=config(**fields))
    return await line.client.sessions.CreateSession(request)


async def get(line: Line, session_id: str = "one") -> pb.Session:
    return (await line.client.sessions.GetSession(pb.GetSessionRequest(session_id=session_id))).session


async def warmed(line: Line, session_id: str = "one") -> pb.Slot:
    """Waits for the warm-up. Returns: the slot then."""
    return (await line.client.sessions.Preconnect(pb.PreconnectRequest(session_id=session_id, wait=True))).slot


async def close(line: Line, session_id: str = "one") -> pb.Session:
    return (await line.client.sessions.CloseSession(pb.CloseSessionRequest(session_id=session_id))).session


async def not_found(line: Line, session_id: str = "one") -> Refusal:
    return await refused(line.client.sessions.GetSession(pb.GetSessionRequest(session_id=session_id)))


async def test_create_answers_before_the_warm_up_has_ended() -> None:
    async with open_line(Script(connections=[Connection(gate="g")])) as line:
        made = await create(line, warm_up=WARM)
        await line.sim.wait_for_gate("g")
        assert made.session.slot.state == pb.SLOT_STATE_IN_FLIGHT
        line.sim.release("g")
        slot = await warmed(line)
        found = await get(line)

    assert made.created
    assert slot.state == pb.SLOT_STATE_READY
    assert found.slot == slot
    assert found.slot.connection_id
    assert found.revision > made.session.revision


async def test_session_tells_what_it_was_given_and_what_was_made() -> None:
    given = config(labels={"team": "a"}, lineage=types.Lineage(source=types.SESSION_SOURCE_REVIEW))
    async with open_line(limits={"session_idle_ttl_s": 100.0}) as line:
        made = await line.client.sessions.CreateSession(pb.CreateSessionRequest(session_id="one", config=given))
        found = await get(line)

    assert made.session == found
    assert found.config == given, "what was blank stays blank"
    assert uuid.UUID(found.conversation_id)
    assert found.state == pb.SESSION_STATE_ACTIVE
    assert found.slot.state == pb.SLOT_STATE_IDLE
    assert (found.window_generation, list(found.lanes), found.fallback.active) == (0, [], False)
    assert found.create_time == found.last_active_time
    assert found.expire_time.ToNanoseconds() - found.last_active_time.ToNanoseconds() == 100 * 10**9


async def test_conversation_id_that_is_given_goes_upstream() -> None:
    conversation_id = str(uuid.uuid4())
    async with open_line() as line:
        made = await create(line, conversation_id=conversation_id)
        await completed(line, turn_request("one"))

    assert made.session.conversation_id == conversation_id
    assert read.header(line.sim.requests[0], "session-id") == conversation_id


async def test_session_shows_its_lanes() -> None:
    async with open_line(Script(creates=[Reply.model(), Reply.model(gate="g")])) as line:
        await create(line)
        events = await completed(line, turn_request("one", lane="a"))
        call = line.client.turns.StreamTurn(turn_request("one", lane="b", turn_id="t", request_id="r"))
        await line.sim.wait_for_gate("g")
        found = await get(line)
        line.sim.release("g")
        async for _ in call:
            pass

    a, b = sorted(found.lanes, key=lambda lane: lane.name)
    assert (a.name, a.running_turn_id, a.history_position) == ("a", "", 2)
    assert a.last_response_id == events[-1].completed.response_id
    assert (b.name, b.running_turn_id, b.running_request_id) == ("b", "t", "r")
    assert a.connection_id != b.connection_id
    assert not found.HasField("expire_time"), "no session expires while a call runs"


async def test_list_gives_every_session_once_by_id_a_page_at_a_time() -> None:
    names = [f"s{number}" for number in range(5)]
    async with open_line() as line:
        for name in reversed(names):
            await create(line, name)
        pages, token = [], ""
        while True:
            page = await line.client.sessions.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
            pages.append([session.session_id for session in page.sessions])
            # Closed between two pages, a session takes none of the others with it.
            if len(pages) == 1:
                await close(line, "s1")
            token = page.next_page_token
            if not token:
                break

    assert pages == [["s0", "s1"], ["s2", "s3"], ["s4"]]


async def test_list_has_a_hundred_sessions_a_page_unless_told() -> None:
    async with open_line() as line:
        for number in range(101):
            await create(line, f"s{number:03}")
        first = await line.client.sessions.ListSessions(pb.ListSessionsRequest())
        rest = await line.client.sessions.ListSessions(pb.ListSessionsRequest(page_token=first.next_page_token))
        whole = await line.client.sessions.ListSessions(pb.ListSessionsRequest(page_size=1000))

    assert (len(first.sessions), len(rest.sessions), rest.next_page_token) == (100, 1, "")
    assert (len(whole.sessions), whole.next_page_token) == (101, "")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["both", "none", "one"]),
        ({"team": "a"}, ["both", "one"]),
        ({"team": "a", "env": "x"}, ["both"]),
        ({"team": "b"}, []),
        ({"env": ""}, []),
    ],
)
async def test_list_filters_by_all_labels(wanted: dict[str, str], expected: list[str]) -> None:
    async with open_line() as line:
        await create(line, "none")
        await create(line, "one", labels={"team": "a"})
        await create(line, "both", labels={"team": "a", "env": "x"})
        listed = await line.client.sessions.ListSessions(pb.ListSessionsRequest(labels=wanted))

    assert [session.session_id for session in listed.sessions] == expected


async def test_watch_tells_the_state_now_then_each_newest_one_and_ends_with_closed() -> None:
    async with open_line(Script(connections=[Connection(gate="g")])) as line:
        await create(line, warm_up=WARM)
        states: list[pb.Session] = []
        async with line.client.session("one", start="attach").watch() as watch:
            states.append(await anext(watch))
            line.sim.release("g")
            await warmed(line)
            while states[-1].slot.state != pb.SLOT_STATE_READY:
                states.append(await anext(watch))
            closed = await close(line)
            states += [state async for state in watch]

    assert states[0].slot.state == pb.SLOT_STATE_IN_FLIGHT
    assert states[-1].state == pb.SESSION_STATE_CLOSED
    assert states[-1].revision == closed.revision
    revisions = [state.revision for state in states]
    assert revisions == sorted(set(revisions)), "each state once, and no way back"


async def test_watch_that_was_left_leaves_nothing() -> None:
    async with open_line() as line:
        await create(line)
        async with line.client.session("one", start="attach").watch() as watch:
            await anext(watch)
        await close(line)
        assert (await not_found(line)).reason == "SESSION_NOT_FOUND"


async def test_close_ends_the_sockets_with_a_goodbye_and_is_final() -> None:
    async with open_line() as line:
        await create(line, warm_up=WARM)
        await warmed(line)
        await completed(line, turn_request("one"))
        await warmed(line)
        sockets = line.sim.counters.websockets_open
        closed = await close(line)
        await line.sim.wait_for_connections_closed(sockets)
        again = await refused(line.client.sessions.CloseSession(pb.CloseSessionRequest(session_id="one")))

    assert closed.state == pb.SESSION_STATE_CLOSED
    assert sockets >= 1
    assert {handshake.close_code for handshake in line.sim.handshakes} == {1000}
    assert (again.code, again.reason) == (CODE.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_preconnect_warms_an_idle_slot_and_says_how_it_went() -> None:
    script = Script(connections=[Connection(status=500), Connection()])
    async with open_line(script) as line:
        await create(line, warm_up=WARM)
        failed = (await until_warm_up_failed(line.client.session("one", start="attach"))).slot
        ready = await warmed(line)
        again = await warmed(line)

    assert (failed.state, failed.last_failure_reason) == (pb.SLOT_STATE_IDLE, "UPSTREAM_FAILED")
    assert (ready.state, ready.last_failure_reason) == (pb.SLOT_STATE_READY, "")
    assert again == ready
    assert len(line.sim.handshakes) == 2


async def test_preconnect_opens_nothing_where_the_session_wants_nothing_warm() -> None:
    async with open_line() as line:
        await create(line)
        slot = await warmed(line)

    assert slot.state == pb.SLOT_STATE_IDLE
    assert line.sim.handshakes == []


async def test_advance_window_starts_anew_on_every_lane() -> None:
    async with open_line() as line:
        await create(line, warm_up=WARM)
        await warmed(line)
        for lane in ("", "other"):
            await completed(line, turn_request("one", lane=lane))
        advance = pb.AdvanceWindowRequest(session_id="one", expected_generation=0)
        generation = (await line.client.sessions.AdvanceWindow(advance)).window_generation
        for lane in ("", "other"):
            await completed(line, turn_request("one", lane=lane))
        found = await get(line)

    assert (generation, found.window_generation) == (1, 1)
    requests = line.sim.requests
    assert [request.previous_response_id for request in requests] == [None] * 4
    assert len({request.connection for request in requests}) == 4
    windows = [read.header(request, "x-codex-window-id") for request in requests]
    assert windows == [f"{found.conversation_id}:{number}" for number in (0, 0, 1, 1)]


@pytest.mark.parametrize("limit", ["max_sessions", "max_sessions_per_tenant"])
async def test_limit_of_sessions_is_told_and_closing_one_makes_room(limit: str) -> None:
    async with open_line(limits={limit: 2}) as line:
        await create(line, "one")
        await create(line, "two")
        request = pb.CreateSessionRequest(session_id="three", config=config())
        told = await refused(line.client.sessions.CreateSession(request))
        same = await create(line, "two")
        await close(line, "one")
        await create(line, "three")

    assert (told.code, told.reason, told.limits) == (CODE.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", (limit,))
    assert told.retry_after_s is not None
    assert not same.created


@pytest.mark.parametrize("limit", ["max_concurrent_turns", "max_concurrent_turns_per_tenant"])
async def test_limit_of_running_calls_is_told_and_an_end_makes_room(limit: str) -> None:
    async with open_line(Script(creates=[Reply.model(gate="g")]), limits={limit: 1}) as line:
        await create(line)
        first = line.client.turns.StreamTurn(turn_request("one"))
        await line.sim.wait_for_gate("g")
        told = await refused_turn(line, turn_request("one", lane="other"))
        line.sim.release("g")
        async for _ in first:
            pass
        await completed(line, turn_request("one", lane="other"))

    assert (told.code, told.reason, told.limits) == (CODE.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", (limit,))
    assert told.retry_after_s is not None


@pytest.mark.parametrize("whose", ["operator", "session"])
async def test_limit_of_lanes_is_the_lesser_of_the_operators_and_the_sessions(whose: str) -> None:
    limits, wish = ({"max_lanes": 1}, 5) if whose == "operator" else ({"max_lanes": 5}, 1)
    async with open_line(limits=limits) as line:
        await create(line, limits=types.SessionLimits(max_lanes=wish))
        await completed(line, turn_request("one"))
        told = await refused_turn(line, turn_request("one", lane="other"))
        await completed(line, turn_request("one"))

    assert (told.code, told.reason, told.limits) == (CODE.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", ("max_lanes",))


async def test_limit_of_warm_sockets_closes_the_longest_unused() -> None:
    async with open_line(limits={"max_warm_sockets": 2}) as line:
        for name in ("one", "two", "three"):
            await create(line, name, warm_up=WARM)
            await warmed(line, name)
        await line.sim.wait_for_connections_closed(1)
        states = [(await get(line, name)).slot.state for name in ("one", "two", "three")]
        await completed(line, turn_request("one"))

    assert states == [pb.SLOT_STATE_IDLE, pb.SLOT_STATE_READY, pb.SLOT_STATE_READY]
    assert len(line.sim.handshakes) == 4, "our own thrift warms nothing again"


@pytest.mark.parametrize(
    ("operator_s", "wish_s", "expected_s"),
    [(100.0, None, 100), (100.0, 40, 40), (100.0, 400, 100), (0.0, 40, 40)],
    ids=["operator's", "session's is less", "session's is more", "operator has none"],
)
async def test_session_that_nobody_uses_expires_with_its_sockets(
    operator_s: float, wish_s: int | None, expected_s: int
) -> None:
    clock = ManualClock()
    limits = types.SessionLimits(idle_ttl=None if wish_s is None else Duration(seconds=wish_s))
    async with open_line(clock=clock, profile=STILL, limits={"session_idle_ttl_s": operator_s}) as line:
        await create(line, warm_up=WARM, limits=limits)
        await warmed(line)
        await clock.advance(expected_s - 1)
        before = await get(line)
        await clock.advance(1.5)
        told = await not_found(line)
        await line.sim.wait_for_connections_closed(1)

    assert before.state == pb.SESSION_STATE_ACTIVE
    assert told.reason == "SESSION_NOT_FOUND"


async def test_session_without_any_limit_never_expires() -> None:
    clock = ManualClock()
    async with open_line(clock=clock, profile=STILL, limits={"session_idle_ttl_s": 0.0}) as line:
        await create(line)
        await clock.advance(10 * 365 * 24 * 3600.0)
        found = await get(line)

    assert not found.HasField("expire_time")


async def test_longest_idle_time_that_can_be_written_can_be_read() -> None:
    forever = types.SessionLimits(idle_ttl=Duration(seconds=315_576_000_000))
    async with open_line(limits={"session_idle_ttl_s": 0.0}) as line:
        await create(line, limits=forever)
        found = await get(line)

    assert found.expire_time.ToJsonString() == "9999-12-31T23:59:59Z"


async def test_running_call_keeps_its_session_and_its_end_starts_the_time_anew() -> None:
    clock = ManualClock()
    script = Script(creates=[Reply.model(gate="g")])
    limits = {"session_idle_ttl_s": 100.0, "max_turn_duration_s": 10_000.0}
    async with open_line(script, clock=clock, profile={**STILL, "idle_timeout_s": 0.0}, limits=limits) as line:
        await create(line)
        call = line.client.turns.StreamTurn(turn_request("one"))
        await line.sim.wait_for_gate("g")
        await clock.advance(500)
        line.sim.release("g")
        async for _ in call:
            pass
        await clock.advance(99)
        found = await get(line)
        await clock.advance(2)
        told = await not_found(line)

    assert found.expire_time.ToNanoseconds() - found.last_active_time.ToNanoseconds() == 100 * 10**9
    assert told.reason == "SESSION_NOT_FOUND"


async def test_sessions_belong_to_the_blank_tenant_where_nobody_authenticates() -> None:
    async with open_line() as line:
        await create(line)
        tenants = {session.record.tenant for session in line.app.registry.sessions}
        listed = await asyncio.gather(
            line.client.sessions.ListSessions(pb.ListSessionsRequest()),
            line.client.sessions.ListSessions(pb.ListSessionsRequest(), metadata=(("x-warmline-tenant", "other"),)),
        )

    assert tenants == {""}
    assert [[session.session_id for session in page.sessions] for page in listed] == [["one"], ["one"]]

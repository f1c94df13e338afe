"""Calls that cannot be at this moment, or from this caller, are refused with their reason, and harm nobody."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

import warmline
from e2e.kit import MODEL, Bystander, completed, config, item, refused, refused_turn, turn_request, unharmed
from e2e.line import Line, open_line
from warmline.v1 import session_service_pb2 as sessions
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_simulator import Reply, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = grpc.StatusCode
HELLO = warmline.user("hello")
UNQUOTED = types.RequestOptions(tool_choice_json=b"auto")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line() -> AsyncIterator[Line]:
    """One server for all: whatever a request of one test broke, the others would meet."""
    async with open_line() as opened:
        yield opened


def held_by_gate() -> Script:
    """The first request waits at the gate "g"; those after it are answered at once."""
    return Script(creates=[Reply.model(gate="g")])


async def test_model_that_nobody_names_is_asked_for(line: Line) -> None:
    async with unharmed(line, sends=1) as session_id:
        request = turn_request(f"{session_id}-new", session_config=types.SessionConfig(warm_up=types.WARM_UP_MODE_NONE))
        told = await refused_turn(line, request)
        request.session_config.request_defaults.model = MODEL
        corrected = await completed(line, request)

    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ("options.model",))
    assert corrected[0].admitted.session_created


CALLS_OF_A_SESSION: dict[str, Any] = {
    "CreateSession": sessions.CreateSessionRequest,
    "GetSession": sessions.GetSessionRequest,
    "WatchSession": sessions.WatchSessionRequest,
    "CloseSession": sessions.CloseSessionRequest,
    "Preconnect": sessions.PreconnectRequest,
    "AdvanceWindow": sessions.AdvanceWindowRequest,
    "CompactSession": sessions.CompactSessionRequest,
    "SummarizeMemories": sessions.SummarizeMemoriesRequest,
    "StreamTurn": turn_request,
    "CancelTurn": turns.CancelTurnRequest,
}


def call_of_session(line: Line, name: str, session_id: str, **call: Any) -> Any:
    """Starts the RPC of that name for a session."""
    stub = line.client.turns if name.endswith("Turn") else line.client.sessions
    return getattr(stub, name)(CALLS_OF_A_SESSION[name](session_id=session_id), **call)


@pytest.mark.parametrize("name", CALLS_OF_A_SESSION)
async def test_session_key_that_differs_from_the_body_is_refused(line: Line, name: str) -> None:
    async with unharmed(line) as session_id:
        told = await refused(call_of_session(line, name, session_id, metadata=(("x-warmline-session", "another"),)))

    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "SESSION_KEY_MISMATCH", ("session_id",))


async def test_session_key_that_equals_the_body_is_taken(line: Line) -> None:
    async with unharmed(line) as session_id:
        key = (("x-warmline-session", session_id),)
        assert (await call_of_session(line, "GetSession", session_id, metadata=key)).session.session_id == session_id


@pytest.mark.parametrize("name", [name for name in CALLS_OF_A_SESSION if name != "CreateSession"])
async def test_session_that_does_not_exist_is_not_found(line: Line, name: str) -> None:
    async with unharmed(line):
        told = await refused(call_of_session(line, name, "nobody"))

    assert (told.code, told.reason, told.fields) == (CODE.NOT_FOUND, "SESSION_NOT_FOUND", ("session_id",))


@pytest.mark.parametrize("name", CALLS_OF_A_SESSION)
async def test_session_id_that_cannot_be_one_is_refused(line: Line, name: str) -> None:
    async with unharmed(line):
        told = await refused(call_of_session(line, name, "no/body"))

    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ("session_id",))


async def test_closed_session_takes_no_turn_and_can_be_made_anew(line: Line) -> None:
    async with unharmed(line, sends=2) as session_id:
        closed = await Bystander(line, f"{session_id}-closed").start()
        await call_of_session(line, "CloseSession", f"{session_id}-closed")
        told = await refused_turn(line, turn_request(f"{session_id}-closed"))
        await closed.start()

    assert (told.code, told.reason, told.fields) == (CODE.NOT_FOUND, "SESSION_NOT_FOUND", ("session_id",))


async def test_session_of_the_same_id_and_other_settings_is_a_conflict(line: Line) -> None:
    async with unharmed(line) as session_id:
        other = config(labels={"other": "yes"})
        asked = [
            line.client.sessions.CreateSession(sessions.CreateSessionRequest(session_id=session_id, config=other)),
            line.client.turns.StreamTurn(turn_request(session_id, session_config=other)),
        ]
        told = [await refused(call) for call in asked]

    for refusal in told:
        assert (refusal.code, refusal.reason) == (CODE.ALREADY_EXISTS, "SESSION_CONFIG_CONFLICT")
        assert refusal.fields == ("session_id",)


async def test_session_of_the_same_id_and_settings_is_the_same(line: Line) -> None:
    async with unharmed(line) as session_id:
        request = sessions.CreateSessionRequest(session_id=session_id, config=config())
        again = await line.client.sessions.CreateSession(request)

    assert not again.created


@pytest.mark.parametrize("name", ["CreateSession", "ListModels"])
async def test_upstream_that_is_not_configured_is_named(line: Line, name: str) -> None:
    request: Any = {
        "CreateSession": sessions.CreateSessionRequest(session_id="new", config=config(upstream="simulater")),
        "ListModels": sessions.ListModelsRequest(upstream="simulater"),
    }[name]
    async with unharmed(line):
        told = await refused(getattr(line.client.sessions, name)(request))

    field = {"CreateSession": "config.upstream", "ListModels": "upstream"}[name]
    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "UNKNOWN_UPSTREAM", (field,))
    assert "'simulater'" in told.text
    assert "there are: simulator" in told.text


async def test_request_id_of_a_completed_call_is_not_run_again(line: Line) -> None:
    async with unharmed(line, sends=1) as session_id:
        other_lane = turn_request(session_id, request_id="r1", lane="other")
        await completed(line, other_lane)
        told = await refused_turn(line, other_lane)

    assert (told.code, told.reason, told.fields) == (CODE.ALREADY_EXISTS, "REQUEST_ID_REUSED", ("request_id",))


async def test_request_id_of_a_failed_call_may_be_sent_again(line: Line) -> None:
    async with unharmed(line, sends=1) as session_id:
        await refused_turn(line, turn_request(session_id, request_id="r1", lane="other", input=[]))
        await completed(line, turn_request(session_id, request_id="r1", lane="other"))


async def test_append_needs_a_conversation_and_its_position(line: Line) -> None:
    append: dict[str, Any] = {"input_mode": turns.INPUT_MODE_APPEND, "lane": "append"}
    async with unharmed(line, sends=2) as session_id:
        lost = await refused_turn(line, turn_request(session_id, expected_history_position=7, **append))
        first = await completed(line, turn_request(session_id, expected_history_position=0, **append))
        behind = await refused_turn(line, turn_request(session_id, expected_history_position=0, **append))
        empty = await refused_turn(line, turn_request(session_id, expected_history_position=2, input=[], **append))
        await completed(line, turn_request(session_id, expected_history_position=2, **append))

    assert first[-1].completed.history_position == 2
    assert (lost.code, lost.reason) == (CODE.FAILED_PRECONDITION, "TRANSCRIPT_LOST")
    assert (behind.code, behind.reason) == (CODE.ABORTED, "HISTORY_CONFLICT")
    assert behind.fields == ("expected_history_position",)
    assert (empty.code, empty.reason, empty.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ("input",))


async def test_window_that_is_another_is_told(line: Line) -> None:
    async with unharmed(line) as session_id:
        request = sessions.AdvanceWindowRequest(session_id=session_id, expected_generation=7)
        told = await refused(line.client.sessions.AdvanceWindow(request))

    assert (told.code, told.reason, told.fields) == (CODE.ABORTED, "HISTORY_CONFLICT", ("expected_generation",))


@pytest.mark.parametrize("page_size", [-1, 1001])
async def test_page_that_is_too_long_or_less_than_none_is_refused(line: Line, page_size: int) -> None:
    async with unharmed(line):
        told = await refused(line.client.sessions.ListSessions(sessions.ListSessionsRequest(page_size=page_size)))

    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ("page_size",))


async def test_cancel_of_nothing_and_of_no_call_is_refused(line: Line) -> None:
    async with unharmed(line) as session_id:
        unnamed = await refused(line.client.turns.CancelTurn(turns.CancelTurnRequest(session_id=session_id)))
        unmatched = [
            await refused(line.client.turns.CancelTurn(turns.CancelTurnRequest(session_id=session_id, **which)))
            for which in ({"request_id": "r9"}, {"turn_id": "t9"})
        ]

    assert (unnamed.code, unnamed.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")
    for told, field in zip(unmatched, ("request_id", "turn_id"), strict=True):
        assert (told.code, told.reason, told.fields) == (CODE.NOT_FOUND, "TURN_NOT_FOUND", (field,))


UNARY: list[tuple[str, Any, str]] = [
    ("CompactSession", {"input": [HELLO, item(b'{"type":')]}, "input[1]"),
    ("CompactSession", {"input": [item(b'{}],"model":"another","metadata":[{}')]}, "input[0]"),
    ("CompactSession", {"input": [types.Item()]}, "input[0]"),
    ("CompactSession", {"input": [HELLO], "lane": "a/b"}, "lane"),
    ("CompactSession", {"input": [HELLO], "turn_id": "a\tb"}, "turn_id"),
    ("CompactSession", {"input": [HELLO], "options": UNQUOTED}, "options.tool_choice_json"),
    ("SummarizeMemories", {"traces": [sessions.MemoryTrace(items=[HELLO])]}, "traces[0].id"),
    ("SummarizeMemories", {"traces": [sessions.MemoryTrace(id="t", items=[item(b"[]")])]}, "traces[0].items[0]"),
    ("SummarizeMemories", {"traces": [sessions.MemoryTrace(id="t", items=[item(b"{}},{")])]}, "traces[0].items[0]"),
]


@pytest.mark.parametrize(("name", "fields", "field"), UNARY)
async def test_wrong_field_of_a_call_that_is_answered_whole_is_refused(
    line: Line, name: str, fields: dict[str, Any], field: str
) -> None:
    asked = len(line.sim.unary_requests)
    async with unharmed(line) as session_id:
        request = CALLS_OF_A_SESSION[name](session_id=session_id, **fields)
        told = await refused(getattr(line.client.sessions, name)(request))

    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", (field,))
    assert len(line.sim.unary_requests) == asked


async def test_memories_of_no_model_are_refused(line: Line) -> None:
    async with unharmed(line) as session_id:
        session = sessions.CreateSessionRequest(session_id=f"{session_id}-none", config=config(request_defaults=None))
        await line.client.sessions.CreateSession(session)
        trace = sessions.MemoryTrace(id="t", items=[HELLO])
        request = sessions.SummarizeMemoriesRequest(session_id=f"{session_id}-none", traces=[trace])
        told = await refused(line.client.sessions.SummarizeMemories(request))

    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ("model",))


@pytest.mark.parametrize("version", ["1&api-version=2", "1 2", "1#", "v" * 65, "ü", "1\n"])
async def test_version_that_would_change_the_url_is_refused(line: Line, version: str) -> None:
    asked = len(line.sim.unary_requests)
    async with unharmed(line):
        told = await refused(line.client.sessions.ListModels(sessions.ListModelsRequest(client_version=version)))

    assert (told.code, told.reason, told.fields) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST", ("client_version",))
    assert len(line.sim.unary_requests) == asked


async def test_steering_is_not_there_yet(line: Line) -> None:
    async with unharmed(line) as session_id:
        told = await refused(line.client.turns.SteerTurn(turns.SteerTurnRequest(session_id=session_id)))

    assert (told.code, told.reason) == (CODE.UNIMPLEMENTED, "NOT_IMPLEMENTED")


async def test_request_beyond_the_limit_is_refused_with_both_figures() -> None:
    async with open_line(limits={"max_request_bytes": 10_000}) as line, unharmed(line) as session_id:
        told = await refused_turn(line, turn_request(session_id, "x" * 10_000))

    assert (told.code, told.reason, told.limits) == (CODE.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", ("max_request_bytes",))
    assert "10000" in told.text
    assert told.retry_after_s is None


async def test_request_far_beyond_the_limit_is_not_even_read() -> None:
    async with open_line(limits={"max_request_bytes": 10_000}) as line, unharmed(line) as session_id:
        told = await refused_turn(line, turn_request(session_id, "x" * 1_000_000))

    assert told.code is CODE.RESOURCE_EXHAUSTED
    assert told.reason == "", "refused by grpc, before the server saw it"


async def test_refused_turn_leaves_no_lane() -> None:
    async with open_line(limits={"max_lanes": 2}) as line, unharmed(line, sends=1) as session_id:
        for lane in ("a", "b", "c"):
            await refused_turn(line, turn_request(session_id, lane=lane, input=[]))
        await completed(line, turn_request(session_id, lane="d"))


async def test_second_turn_on_a_busy_lane_is_refused_and_the_first_goes_on() -> None:
    async with open_line(held_by_gate()) as line:
        await line.client.sessions.CreateSession(sessions.CreateSessionRequest(session_id="one", config=config()))
        first = line.client.turns.StreamTurn(turn_request("one", request_id="first"))
        await line.sim.wait_for_gate("g")

        busy = await refused_turn(line, turn_request("one", request_id="second"))
        again = await refused_turn(line, turn_request("one", request_id="first", lane="other"))
        await completed(line, turn_request("one", lane="other"))
        line.sim.release("g")
        events = [event async for message in first for event in message.events]

    assert (busy.code, busy.reason, busy.retry_after_s) == (CODE.ABORTED, "LANE_BUSY", None)
    assert "'first'" in busy.text
    assert (again.code, again.reason, again.fields) == (CODE.ALREADY_EXISTS, "REQUEST_ID_REUSED", ("request_id",))
    assert events[-1].HasField("completed")
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_turn_that_waits_for_its_lane_runs_when_it_is_free() -> None:
    async with open_line(held_by_gate(), limits={"max_waiting_calls_per_lane": 1}) as line:
        await line.client.sessions.CreateSession(sessions.CreateSessionRequest(session_id="one", config=config()))
        first = line.client.turns.StreamTurn(turn_request("one"))
        await line.sim.wait_for_gate("g")
        waiting = line.client.turns.StreamTurn(turn_request("one", request_id="w", on_busy=turns.BUSY_MODE_WAIT))
        await line.until_calls(line.client.session("one", start="attach"), 2)

        too_many = await refused_turn(line, turn_request("one", on_busy=turns.BUSY_MODE_WAIT))
        assert len(line.sim.requests) == 1
        line.sim.release("g")
        endings = [[event async for message in call for event in message.events][-1] for call in (first, waiting)]

    assert all(ending.HasField("completed") for ending in endings)
    assert (too_many.code, too_many.reason) == (CODE.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert too_many.limits == ("max_waiting_calls_per_lane",)


async def test_turn_that_preempts_ends_the_running_one() -> None:
    async with open_line(held_by_gate()) as line:
        await line.client.sessions.CreateSession(sessions.CreateSessionRequest(session_id="one", config=config()))
        first = line.client.turns.StreamTurn(turn_request("one", request_id="first"))
        await line.sim.wait_for_gate("g")

        events = await completed(line, turn_request("one", request_id="second", on_busy=turns.BUSY_MODE_PREEMPT))
        told = await refused(first)
        await line.sim.wait_for_aborts(1)

    assert events[-1].HasField("completed")
    assert (told.code, told.reason, told.retry_after_s) == (CODE.ABORTED, "TURN_PREEMPTED", None)
    assert "'second'" in told.text

"""Tenants: nothing of one is seen, ended or used by another, whichever way it asks."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import warmline
from e2e.guarded import TOKENS, Guarded, guarded, with_tokens
from e2e.kit import Refusal, config, item, refused, turn_request
from e2e.line import MODEL, admitted, answer
from warmline.v1 import session_service_pb2 as sessions
from warmline.v1 import trace_service_pb2 as traces
from warmline.v1 import turn_service_pb2 as turns
from warmline_server.settings import TenantPolicy
from warmline_simulator import Gate, Reply, Script, ev

CODE = grpc.StatusCode
USER = item(b'{"type":"message","role":"user","content":[]}')

Ask = Callable[[warmline.Client, str], Any]

# Every RPC that names a session, with all else that it may name of the other tenant's.
ASKED: dict[str, Ask] = {
    "GetSession": lambda c, s: c.sessions.GetSession(sessions.GetSessionRequest(session_id=s)),
    "WatchSession": lambda c, s: c.sessions.WatchSession(sessions.WatchSessionRequest(session_id=s)),
    "CloseSession": lambda c, s: c.sessions.CloseSession(sessions.CloseSessionRequest(session_id=s)),
    "Preconnect": lambda c, s: c.sessions.Preconnect(sessions.PreconnectRequest(session_id=s, wait=True)),
    "AdvanceWindow": lambda c, s: c.sessions.AdvanceWindow(sessions.AdvanceWindowRequest(session_id=s)),
    "CompactSession": lambda c, s: c.sessions.CompactSession(sessions.CompactSessionRequest(session_id=s)),
    "SummarizeMemories": lambda c, s: c.sessions.SummarizeMemories(
        sessions.SummarizeMemoriesRequest(session_id=s, traces=[sessions.MemoryTrace(id="t", items=[USER])])
    ),
    "StreamTurn": lambda c, s: c.turns.StreamTurn(turn_request(s)),
    "CancelTurn": lambda c, s: c.turns.CancelTurn(turns.CancelTurnRequest(session_id=s, request_id="request-of-a")),
    "SteerTurn": lambda c, s: c.turns.SteerTurn(turns.SteerTurnRequest(session_id=s)),
    "ListInferences": lambda c, s: c.traces.ListInferences(
        traces.ListInferencesRequest(session_id=s, upstream_id="resp-of-a", turn_id="turn-of-a")
    ),
    "TailInferences": lambda c, s: c.traces.TailInferences(traces.TailInferencesRequest(session_id=s)),
}
# What names no session that is there: one that is made, or none at all.
NAMES_NONE = {"CreateSession", "ListSessions", "ListModels"}


def test_every_rpc_is_asked() -> None:
    services = (
        sessions.DESCRIPTOR.services_by_name["SessionService"],
        turns.DESCRIPTOR.services_by_name["TurnService"],
        traces.DESCRIPTOR.services_by_name["TraceService"],
    )
    assert {method.name for service in services for method in service.methods} == ASKED.keys() | NAMES_NONE


def _held() -> Script:
    held = Reply(events=[ev.created("resp-of-a"), Gate("g"), *ev.text_response("done", response_id="resp-of-a")[1:]])
    return Script(creates=[held])


async def test_foreign_session_is_the_same_as_none_to_every_rpc(tmp_path: Path) -> None:
    async with (
        guarded(with_tokens(tmp_path), _held()) as line,
        line.of("a") as a,
        line.of("b") as b,
        a.session("one", config()) as session,
    ):
        fields: dict[str, Any] = {"turn_id": "turn-of-a", "request_id": "request-of-a"}
        call = a.turns.StreamTurn(turn_request("one", **fields))
        await line.sim.wait_for_gate("g")
        before = (await session.get()).SerializeToString(deterministic=True)

        told: dict[str, tuple[Refusal, Refusal]] = {}
        for name, ask in ASKED.items():
            foreign, missing = await refused(ask(b, "one")), await refused(ask(b, "two"))
            told[name] = foreign, _renamed(missing)

        after = (await session.get()).SerializeToString(deterministic=True)
        line.sim.release("g")
        events = [event async for message in call for event in message.events]

    for name, (foreign, missing) in told.items():
        assert foreign == missing, name
        if name != "SteerTurn":
            assert (foreign.code, foreign.reason) == (CODE.NOT_FOUND, "SESSION_NOT_FOUND"), name
    assert before == after, "nothing of the session was touched"
    assert events[-1].completed.response_id == "resp-of-a"


def _renamed(refusal: Refusal) -> Refusal:
    """As it would be for the other id."""
    return Refusal(**{**_fields(refusal), "text": refusal.text.replace("'two'", "'one'")})


def _fields(refusal: Refusal) -> dict[str, Any]:
    return {name: getattr(refusal, name) for name in refusal.__dataclass_fields__}


async def test_one_id_is_a_session_of_each_tenant(tmp_path: Path) -> None:
    async with (
        guarded(with_tokens(tmp_path)) as line,
        line.of("a") as a,
        line.of("b") as b,
        a.session("one", config()) as of_a,
        b.session("one", config(labels={"of": "b"})) as of_b,
    ):
        first, second = await answer(of_a.turn("hello from a")), await answer(of_b.turn("hello from b"))
        ids = {(await session.get()).conversation_id for session in (of_a, of_b)}
        rings = [[i.response_id async for i in session.list_inferences()] for session in (of_a, of_b)]
        asked = traces.ListInferencesRequest(session_id="one", upstream_id=first.response_id)
        stolen = await b.traces.ListInferences(asked)
        closed = await b.sessions.CloseSession(sessions.CloseSessionRequest(session_id="one"))
        third = await answer(of_a.turn(["hello from a", *first.items, "again"]))

    assert len(ids) == 2
    assert rings == [[first.response_id], [second.response_id]]
    assert list(stolen.inferences) == []
    assert closed.session.config.labels["of"] == "b"
    assert (third.slot_outcome, third.incremental) == ("REUSED", True)


async def test_listing_shows_ones_own_on_every_page(tmp_path: Path) -> None:
    async with guarded(with_tokens(tmp_path)) as line, line.of("a") as a, line.of("b") as b:
        for number in range(3):
            await a.sessions.CreateSession(sessions.CreateSessionRequest(session_id=f"a-{number}", config=config()))
            await b.sessions.CreateSession(sessions.CreateSessionRequest(session_id=f"b-{number}", config=config()))
        first = await a.sessions.ListSessions(sessions.ListSessionsRequest(page_size=1))
        taken = await b.sessions.ListSessions(sessions.ListSessionsRequest(page_token=first.next_page_token))
        found = [[session.session_id async for session in client.list_sessions(page_size=2)] for client in (a, b)]

    assert found == [["a-0", "a-1", "a-2"], ["b-0", "b-1", "b-2"]]
    assert {session.session_id[0] for session in taken.sessions} <= {"b"}


async def test_request_id_of_one_tenant_is_free_for_another(tmp_path: Path) -> None:
    async with guarded(with_tokens(tmp_path), _held()) as line, line.of("a") as a, line.of("b") as b:
        call = a.turns.StreamTurn(turn_request("one", request_id="r", session_config=config()))
        await line.sim.wait_for_gate("g")
        request = turn_request("one", request_id="r", session_config=config(fallback_policy={"http_only": True}))
        ended = [event async for m in b.turns.StreamTurn(request) for event in m.events][-1].WhichOneof("event")
        cancelled = await refused(b.turns.CancelTurn(turns.CancelTurnRequest(session_id="one", request_id="r")))
        line.sim.release("g")
        events = [event async for message in call for event in message.events]

    assert ended == "completed"
    assert cancelled.reason == "TURN_NOT_FOUND"
    assert events[-1].HasField("completed")


# Sockets


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["one", "two"]), st.integers(0, 3)), max_size=12))
@example([(tenant, session, 3) for session in ("one", "two", "one") for tenant in "ab"])
@example([("a", "one", 3), ("a", "one", 1), ("b", "one", 0), ("b", "one", 2), ("a", "one", 3), ("b", "two", 3)])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_socket_ever_carries_two_tenants(tmp_path: Path, steps: list[tuple[str, str, int]]) -> None:
    """Turns, cancels and closes in any order; each request says whose it is, each socket carries one tenant's."""
    asyncio.run(_lives(tmp_path, steps))


async def _lives(tmp_path: Path, steps: list[tuple[str, str, int]]) -> None:
    async with guarded(with_tokens(tmp_path), limits={"max_warm_sockets": 2}) as line:
        await _play(line, steps)
        carried: dict[str, set[str]] = {}
        for request in line.sim.requests:
            text = str(request.body["input"][0]["content"])
            carried.setdefault(request.connection_id, set()).add("a" if "of a" in text else "b")
    assert all(len(tenants) == 1 for tenants in carried.values()), carried
    turns = [tenant for tenant, _, kind in steps if kind == 3]
    assert set().union(*carried.values()) >= set(turns), "each of their turns was seen"


async def _play(line: Guarded, steps: list[tuple[str, str, int]]) -> None:
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(line.of(name)) for name in TOKENS}
        for tenant, session_id, kind in steps:
            session = clients[tenant].session(session_id, start="now", model=MODEL)
            async with session:
                if kind == 0:
                    await session.preconnect(wait=True)
                elif kind == 1:
                    await session.close()
                elif kind == 2:
                    async with session.turn(f"of {tenant}") as turn:
                        await admitted(turn)
                else:
                    await answer(session.turn(f"of {tenant}"))


# What a tenant may use and hold

POLICIES = {"a": TenantPolicy(upstreams=("simulator",)), "b": TenantPolicy(upstreams=("second",))}


@pytest.mark.parametrize("name", ["second", "nowhere"])
async def test_upstream_of_others_is_denied_like_one_that_is_not_there(tmp_path: Path, name: str) -> None:
    auth = with_tokens(tmp_path, tenants=POLICIES)
    async with guarded(auth, upstreams=("second",)) as line, line.of("a") as a:
        create = sessions.CreateSessionRequest(session_id="one", config=config(upstream=name))
        ways = {
            "config.upstream": a.sessions.CreateSession(create),
            "session_config.upstream": a.turns.StreamTurn(turn_request("one", session_config=config(upstream=name))),
            "upstream": a.sessions.ListModels(sessions.ListModelsRequest(upstream=name)),
        }
        told = {field: await refused(way) for field, way in ways.items()}
        held = list(line.app.registry.sessions)

    for field, refusal in told.items():
        assert (refusal.code, refusal.reason, refusal.fields) == (CODE.PERMISSION_DENIED, "PERMISSION_DENIED", (field,))
        assert refusal.text == f"the upstream '{name}' is not among the caller's: simulator"
    assert held == []


async def test_blank_upstream_is_the_default_and_may_be_denied(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path, tenants=POLICIES)
    async with guarded(auth, upstreams=("second",)) as line, line.of("a") as a, line.of("b") as b:
        async with a.session("one", config()) as session:
            result = await answer(session.turn("hello"))
        told = await refused(b.sessions.CreateSession(sessions.CreateSessionRequest(session_id="x", config=config())))
        async with b.session("one", config(upstream="second")) as session:
            other = await answer(session.turn("hello"))

    assert result.ending == other.ending == "completed"
    assert told.reason == "PERMISSION_DENIED"


async def test_tenants_without_a_list_use_the_common_one(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path, tenants={"b": TenantPolicy(upstreams=("second",))}, upstreams=("simulator",))
    async with guarded(auth, upstreams=("second",)) as line, line.of("a") as a, line.of("b") as b:
        made = [
            await _create(a, "one", "simulator"),
            await _create(a, "two", "second"),
            await _create(b, "one", "simulator"),
            await _create(b, "two", "second"),
        ]

    assert made == [True, False, False, True]


async def _create(client: warmline.Client, session_id: str, upstream: str) -> bool:
    request = sessions.CreateSessionRequest(session_id=session_id, config=config(upstream=upstream))
    call = client.sessions.CreateSession(request)
    return await call.code() is not CODE.PERMISSION_DENIED


async def test_tenants_known_only_lets_no_others_in(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path, tenants={"a": TenantPolicy()}, known_tenants_only=True)
    async with guarded(auth) as line, line.of("a") as a, line.of("b") as b:
        await a.sessions.ListSessions(sessions.ListSessionsRequest())
        told = await refused(b.sessions.ListSessions(sessions.ListSessionsRequest()))

    assert (told.code, told.reason) == (CODE.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert told.text == "the caller's tenant may not use this server"


async def _sessions(line: Guarded, client: warmline.Client, number: int) -> Awaitable[Any]:
    request = sessions.CreateSessionRequest(session_id=f"s-{number}", config=config())
    return client.sessions.CreateSession(request)


@pytest.mark.parametrize("own", [True, False], ids=["its own limit", "that of all"])
async def test_sessions_of_one_tenant_are_limited_and_others_have_room(tmp_path: Path, own: bool) -> None:
    auth = with_tokens(tmp_path, tenants={"a": TenantPolicy(max_sessions=2)} if own else None)
    limits = {} if own else {"max_sessions_per_tenant": 2}
    async with guarded(auth, limits=limits) as line, line.of("a") as a, line.of("b") as b:
        for number in range(2):
            await (await _sessions(line, a, number))
        told = await refused(await _sessions(line, a, 2))
        await (await _sessions(line, b, 0))
        again = await a.sessions.CreateSession(sessions.CreateSessionRequest(session_id="s-1", config=config()))
        await a.sessions.CloseSession(sessions.CloseSessionRequest(session_id="s-0"))
        await (await _sessions(line, a, 2))

    assert (told.code, told.reason, told.limits) == (
        CODE.RESOURCE_EXHAUSTED,
        "LIMIT_EXCEEDED",
        ("max_sessions_per_tenant",),
    )
    assert told.retry_after_s is not None
    assert not again.created, "what is there needs no room"


async def test_rate_of_one_tenant_is_limited_and_says_when_to_come_back(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path, tenants={"a": TenantPolicy(max_turns_per_s=0.1)})
    async with (
        guarded(auth) as line,
        line.of("a") as a,
        line.of("b") as b,
        a.session("one", config()) as of_a,
        b.session("one", config()) as of_b,
    ):
        await answer(of_a.turn("hello"))
        told = await refused(a.turns.StreamTurn(turn_request("one")))
        for _ in range(3):
            await answer(of_b.turn("hello"))

    assert (told.code, told.reason, told.limits) == (
        CODE.RESOURCE_EXHAUSTED,
        "LIMIT_EXCEEDED",
        ("max_turns_per_s_per_tenant",),
    )
    assert told.retry_after_s is not None
    assert 0 < told.retry_after_s <= 10


async def test_warm_sockets_of_one_tenant_are_limited(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path, tenants={"a": TenantPolicy(max_warm_sockets=2)})
    async with guarded(auth) as line, line.of("a") as a, line.of("b") as b, AsyncExitStack() as stack:
        slots = []
        for client in (a, b):
            for number in range(3):
                session = client.session(f"s-{number}", model=MODEL)
                await stack.enter_async_context(session)
                await session.preconnect(wait=True)
                slots.append(session)
        states = [sessions.SlotState.Name((await each.get()).slot.state)[11:] for each in slots]

    assert states == ["IDLE", "READY", "READY", "READY", "READY", "READY"]


@pytest.mark.parametrize("limit", ["max_watches", "max_watches_per_tenant"])
async def test_streams_that_watch_are_limited_and_an_end_makes_room(tmp_path: Path, limit: str) -> None:
    async with (
        guarded(with_tokens(tmp_path), limits={limit: 2}) as line,
        line.of("a") as a,
        line.of("b") as b,
        a.session("one", config()),
        b.session("one", config()),
    ):
        watch = a.sessions.WatchSession(sessions.WatchSessionRequest(session_id="one"))
        tail = a.traces.TailInferences(traces.TailInferencesRequest(session_id="one"))
        await watch.read()
        await tail.initial_metadata()
        told = [
            await refused(a.sessions.WatchSession(sessions.WatchSessionRequest(session_id="one"))),
            await refused(a.traces.TailInferences(traces.TailInferencesRequest(session_id="one"))),
        ]
        others = b.sessions.WatchSession(sessions.WatchSessionRequest(session_id="one"))
        has_room = await _first(others)
        tail.cancel()
        while not await _first(a.sessions.WatchSession(sessions.WatchSessionRequest(session_id="one"))):
            pass

    assert {(each.code, each.limits) for each in told} == {(CODE.RESOURCE_EXHAUSTED, (limit,))}
    assert all(each.retry_after_s is not None for each in told)
    assert has_room is (limit == "max_watches_per_tenant")


async def _first(watch: Any) -> bool:
    """Whether a watch was let in; it is ended then."""
    try:
        return bool(await watch.read())
    except grpc.aio.AioRpcError:
        return False
    finally:
        watch.cancel()

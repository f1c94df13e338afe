"""Calls that are answered whole: compaction and the window it advances, memories, models with their ETag."""

import json
from typing import Any

import grpc
import grpc.aio
import pytest

from e2e.kit import read_refusal, refused
from e2e.line import MODEL, open_line
from manual_clock import ManualClock
from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import types_pb2 as types
from warmline_simulator import Reply, Script

USER = types.Item(message=types.TextMessage(role="user", text="hello"))


@pytest.mark.conformance("C-049")
async def test_empty_compactions_and_memories_are_answered_without_the_network() -> None:
    async with open_line() as line, line.session() as session:
        compacted = await line.client.sessions.CompactSession(pb.CompactSessionRequest(session_id=session.session_id))
        told = await line.client.sessions.SummarizeMemories(pb.SummarizeMemoriesRequest(session_id=session.session_id))

        assert (list(compacted.output), compacted.window_generation) == ([], 0)
        assert list(told.summaries) == []
        assert line.sim.unary_requests == []


@pytest.mark.conformance("C-065")
async def test_compaction_starts_a_window_whose_next_turn_goes_in_full_over_a_new_socket() -> None:
    async with open_line() as line, line.session() as session:
        async with session.turn("hello") as turn:
            before = await turn.result()
        request = pb.CompactSessionRequest(
            session_id=session.session_id, input=[USER, *(types.Item(json=item) for item in before.items)]
        )
        compacted = await line.client.sessions.CompactSession(request)
        async with session.turn([*(item.json for item in compacted.output), "go on"]) as turn:
            after = await turn.result()

        assert compacted.window_generation == 1
        assert compacted.upstream_request_id
        sent = line.sim.unary_requests[0].body
        assert sent["model"] == MODEL
        assert sent["input"][1:] == [json.loads(item) for item in before.items]
        assert (after.connection_id != before.connection_id, after.incremental) == (True, False)
        assert line.sim.requests[-1].body["input"][:-1] == [json.loads(item.json) for item in compacted.output]
        assert line.sim.requests[-1].body["client_metadata"]["x-codex-window-id"].endswith(":1")


async def test_compaction_of_a_held_conversation_replaces_it() -> None:
    async with open_line() as line, line.session() as session:
        async with session.turn("hello", append_at=0) as turn:
            await turn.result()
        compacted = await line.client.sessions.CompactSession(pb.CompactSessionRequest(session_id=session.session_id))
        async with session.turn("go on", append_at=len(compacted.output)) as turn:
            await turn.result()

        kept = [json.loads(item.json) for item in compacted.output]
        assert line.sim.requests[-1].body["input"][:-1] == kept


async def test_memories_come_one_per_trace() -> None:
    traces = [pb.MemoryTrace(id=str(n), source_path=f"/{n}", items=[USER]) for n in range(2)]
    async with open_line() as line, line.session() as session:
        request = pb.SummarizeMemoriesRequest(
            session_id=session.session_id, traces=traces, model="sim-large", reasoning_effort="low"
        )
        told = await line.client.sessions.SummarizeMemories(request)

        assert len(told.summaries) == 2
        assert told.summaries[0].trace_summary
        body = line.sim.unary_requests[0].body
        assert (body["model"], body["reasoning"]) == ("sim-large", {"effort": "low"})
        assert [trace["metadata"] for trace in body["traces"]] == [{"source_path": "/0"}, {"source_path": "/1"}]


async def test_models_are_cached_and_then_confirmed_by_their_etag() -> None:
    clock = ManualClock()
    async with open_line(clock=clock, profile={"models_cache_s": 60.0}) as line:
        fetched = await line.client.sessions.ListModels(pb.ListModelsRequest())
        cached = await line.client.sessions.ListModels(pb.ListModelsRequest())
        asked = len(line.sim.unary_requests)
        await clock.advance(61.0)
        confirmed = await line.client.sessions.ListModels(pb.ListModelsRequest())

        assert (fetched.from_cache, cached.from_cache, confirmed.from_cache) == (False, True, True)
        assert fetched.models_json == cached.models_json == confirmed.models_json
        assert fetched.etag
        assert (asked, len(line.sim.unary_requests)) == (1, 2)
        assert line.sim.unary_requests[1].headers["if-none-match"] == fetched.etag
        assert line.sim.unary_requests[1].status == 304


async def test_unary_call_persists_within_its_budget_and_then_tells_why() -> None:
    broken = Reply(status=503, body={"error": {"message": "away", "type": "server_error"}})
    request = pb.SummarizeMemoriesRequest(session_id="session-1", traces=[pb.MemoryTrace(id="1", items=[USER])])
    profile = {"request_max_retries": 1}
    async with open_line(Script(memories=[broken, broken]), profile=profile) as line, line.session():
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await line.client.sessions.SummarizeMemories(request)

        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(line.sim.unary_requests) == 2


MODELS = pb.ListModelsRequest()


@pytest.mark.parametrize("etag", ["a\r\nX-Evil: 1", "caf\u00e9", "x" * 257])
async def test_tag_that_no_header_can_carry_back_is_not_asked_with(etag: str) -> None:
    listed = Reply(body={"data": [{"id": "m"}], "etag": etag}, headers={"ETag": ""})
    async with open_line(Script(model_replies=[listed, listed]), profile={"models_cache_s": 0.0}) as line:
        for _ in range(2):
            told = await line.client.sessions.ListModels(MODELS)
            assert (list(told.models_json), told.etag) == ([b'{"id":"m"}'], "")

        assert ["if-none-match" in request.headers for request in line.sim.unary_requests] == [False, False]


@pytest.mark.parametrize(
    "body",
    [b'{"data":[{"id":"\xff"}],"etag":"\xff"}', b'{"data":[' + b"[" * 200 + b"]" * 200 + b"]}"],
    ids=["bytes", "deep"],
)
async def test_list_that_cannot_be_read_breaks_the_protocol_and_nothing_else(body: bytes) -> None:
    bad = Reply(body=body, content_type="application/json")
    async with open_line(Script(model_replies=[bad]), profile={"request_max_retries": 0}) as line:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await line.client.sessions.ListModels(MODELS)
        assert read_refusal(told.value).reason == "UPSTREAM_PROTOCOL"

        assert (await line.client.sessions.ListModels(MODELS)).models_json


async def test_compaction_and_memories_need_room_among_the_calls_and_end_with_a_drain() -> None:
    compact = pb.CompactSessionRequest(session_id="session-1", input=[USER])
    memories = pb.SummarizeMemoriesRequest(
        session_id="session-1", traces=[pb.MemoryTrace(id="t", source_path="p", items=[USER])]
    )
    script = Script(creates=[Reply.model(gate="g")])
    async with open_line(script, limits={"max_concurrent_turns": 1}) as line, line.session() as session:
        ask: tuple[Any, ...] = (line.client.sessions.CompactSession, line.client.sessions.SummarizeMemories)
        async with session.turn("hello") as turn:
            await line.sim.wait_for_gate("g")
            full = [await refused(call(request)) for call, request in zip(ask, (compact, memories), strict=True)]
            line.sim.release("g")
            await turn.result()
        await line.client.sessions.CompactSession(compact)
        await line.app.drain(1.0)
        drained = [await refused(call(request)) for call, request in zip(ask, (compact, memories), strict=True)]

    assert {(told.reason, told.limits) for told in full} == {("LIMIT_EXCEEDED", ("max_concurrent_turns",))}
    assert {told.reason for told in drained} == {"SERVER_DRAINING"}
    assert all(told.retry_after_s is not None for told in full + drained)

"""What the upstream learns of who asks, and what it tells in headers: handshakes, POSTs and frames, field by field."""

from pathlib import Path
from typing import Any

import pytest

from e2e.line import (
    TRANSPORTS,
    admitted,
    answer,
    config_for,
    hear,
    open_line,
    session_config,
    slot_state,
    until_slot,
)
from warmline.v1 import session_service_pb2, types_pb2
from warmline_server.settings import Credential
from warmline_simulator import Connection, Reply, Script, ev, read

TOKEN = "x-codex-turn-state"
PARENT = "3f5b6b1e-7a9c-4a37-9a55-7d8f3f2b1c00"


# Requests


@pytest.mark.conformance("C-040")
async def test_a_request_is_a_flat_create_frame_on_a_socket_that_names_its_session() -> None:
    async with open_line() as line, line.session() as session:
        result = await answer(session.turn("hello"))
        (handshake,), (request,) = line.sim.handshakes, line.sim.requests
        assert request.body["type"] == "response.create"
        assert "response" not in request.body
        assert request.body["model"] == "sim-large"
        assert request.body["stream"] is True
        assert [item["content"][0]["text"] for item in request.body["input"]] == ["hello"]
        assert handshake.headers["openai-beta"] == "responses_websockets=2026-02-06"
        # D-17: the connection's own id, which the provider can search.
        assert handshake.headers["x-client-request-id"] == result.connection_id
        for name in ("session_id", "session-id", "thread-id"):
            assert handshake.headers[name] == result.conversation_id


@pytest.mark.conformance("C-041")
async def test_the_websocket_is_used_where_the_upstream_supports_it_without_a_flag() -> None:
    async with open_line() as line, line.session(config=types_pb2.SessionConfig()) as session:
        result = await answer(session.turn("hello"))
        assert result.transport == "WEBSOCKET"
        assert line.sim.posts() == []


@pytest.mark.conformance("C-042")
@TRANSPORTS
async def test_of_one_header_the_extra_one_goes_over_the_tables_and_the_credential_over_all(
    transport: str, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_text("secret-1\n")
    profile = {
        "credential": Credential(source="file", file=str(secret), account_id="account-1"),
        "version": "provider-version",
        "organization": "org-1",
        "project": "proj-1",
        "originator": "default-originator",
        "user_agent": "default-agent",
        "beta_features": ("one", "two"),
        "extra_headers": {
            "version": "extra-version",
            "User-Agent": "extra-agent",
            "x-codex-window-id": "extra-window",
            "Authorization": "Bearer extra",
            "x-extra": "1",
        },
    }
    config = config_for(transport)
    async with open_line(profile=profile) as line, line.session(config=config) as session:
        await answer(session.turn("hello"))
        told = line.sim.requests[0].headers
        expected = {
            "authorization": "Bearer secret-1",
            "chatgpt-account-id": "account-1",
            "version": "extra-version",
            "openai-organization": "org-1",
            "openai-project": "proj-1",
            "originator": "default-originator",
            "user-agent": "extra-agent",
            "x-codex-beta-features": "one,two",
            "x-codex-window-id": "extra-window",
            "x-extra": "1",
        }
        assert {name: told.get_all(name) for name in expected} == {name: [value] for name, value in expected.items()}
        assert ("accept" in told) == (transport == "http")
        assert ("openai-beta" in told) == (transport == "ws")


@pytest.mark.conformance("C-043")
@TRANSPORTS
async def test_an_illegal_header_value_is_left_out_and_the_call_goes_on(transport: str) -> None:
    profile = {"extra_headers": {"x-good": "1", "x-bad": "line\nbreak", "x-worse": "n\u00fcl\u0000"}}
    async with open_line(profile=profile) as line, line.session(config=config_for(transport)) as session:
        await answer(session.turn("hello", turn_metadata=b'{"a":"\x7f"}'))
        told = line.sim.requests[0].headers
        assert told["x-good"] == "1"
        assert not {"x-bad", "x-worse"} & {*told}
        assert "x-codex-turn-metadata" not in told
        assert read.client_metadata(line.sim.requests[0], "x-codex-turn-metadata") is None


@pytest.mark.conformance("C-043")
@TRANSPORTS
async def test_metadata_beyond_ascii_is_escaped_not_lost(transport: str) -> None:
    config = config_for(transport, warm_up="none")
    async with open_line() as line, line.session(config=config) as session:
        await answer(session.turn("hello", turn_metadata='{"branch":"grün 🌱"}'.encode()))
        escaped = '{"branch":"gr\\u00fcn \\ud83c\\udf31"}'
        assert line.sim.requests[0].headers["x-codex-turn-metadata"] == escaped


@pytest.mark.conformance("C-044")
@pytest.mark.parametrize("zstd", [True, False])
async def test_a_post_is_compressed_where_that_is_switched_on(zstd: bool) -> None:
    async with open_line(profile={"zstd": zstd}) as line, line.session(config=config_for("http")) as session:
        await answer(session.turn("hello " * 500))
        (post,) = line.sim.posts()
        assert post.headers.get("content-encoding") == ("zstd" if zstd else None)
        assert (int(post.headers["content-length"]) < len(post.raw)) is zstd
        assert read.message_texts(post) == ["hello " * 500]


@pytest.mark.conformance("C-045")
@pytest.mark.parametrize(("offered", "agreed"), [(True, True), (True, False), (False, True)])
async def test_compression_of_frames_is_offered_and_may_be_declined(offered: bool, agreed: bool) -> None:
    script = Script(connections=[Connection(compression=agreed)])
    async with open_line(script, profile={"compression": offered}) as line, line.session() as session:
        first = await answer(session.turn("hello"))
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        (handshake,) = line.sim.handshakes
        assert handshake.headers.get("sec-websocket-extensions", "").startswith("permessage-deflate") is offered
        assert handshake.compressed is (offered and agreed)
        assert second.incremental


@pytest.mark.conformance("C-046")
@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("UNSPECIFIED", None),
        ("INTERACTIVE", None),
        ("REVIEW", "review"),
        ("COMPACT", "compact"),
        ("THREAD_SPAWN", "collab_spawn"),
        ("MEMORY_CONSOLIDATION", "memory_consolidation"),
        ("SUB_AGENT", "my-agent"),
    ],
)
@TRANSPORTS
async def test_each_source_has_its_label(transport: str, source: str, label: str | None) -> None:
    lineage = types_pb2.Lineage(source=types_pb2.SessionSource.Value(f"SESSION_SOURCE_{source}"))
    if source == "SUB_AGENT":
        lineage.sub_agent_label = "my-agent"
    if source == "THREAD_SPAWN":
        lineage.parent_thread_id = PARENT
    config = config_for(transport, lineage=lineage)
    async with open_line() as line, line.session(config=config) as session:
        await answer(session.turn("hello"))
        (request,) = line.sim.requests
        assert request.headers.get("x-openai-subagent") == label
        assert request.headers.get("x-openai-memgen-request") == ("true" if source == "MEMORY_CONSOLIDATION" else None)
        assert request.headers.get("x-codex-parent-thread-id") == (PARENT if source == "THREAD_SPAWN" else None)
        if transport == "ws":
            assert read.client_metadata(request, "x-openai-subagent") == label


@pytest.mark.conformance("C-047")
async def test_a_spawned_threads_frame_names_exactly_its_installation_window_label_parent_and_metadata() -> None:
    lineage = types_pb2.Lineage(
        source=types_pb2.SESSION_SOURCE_THREAD_SPAWN, parent_thread_id=PARENT, installation_id="installation-1"
    )
    config = session_config(lineage=lineage)
    async with open_line() as line, line.session(config=config) as session:
        await session.advance_window()
        result = await answer(session.turn("hello", turn_metadata={"turn_id": "T"}))
        told = line.sim.requests[0].body["client_metadata"]
        assert {name: value for name, value in told.items() if not name.startswith("ws_request_header_")} == {
            "x-codex-installation-id": "installation-1",
            "x-codex-window-id": f"{result.conversation_id}:1",
            "x-openai-subagent": "collab_spawn",
            "x-codex-parent-thread-id": PARENT,
            "x-codex-turn-metadata": '{"turn_id":"T"}',
        }


@pytest.mark.conformance("C-048")
@TRANSPORTS
async def test_queries_of_the_base_url_and_of_the_settings_are_kept(transport: str) -> None:
    profile = {"query": {"api-version": "2026-01-01", "odd": "a%2Fb"}}
    async with open_line(profile=profile) as line, line.session(config=config_for(transport)) as session:
        await answer(session.turn("hello"))
        assert line.sim.requests[0].path == "/v1/responses?api-version=2026-01-01&odd=a%2Fb"


@pytest.mark.conformance("C-049")
async def test_empty_compactions_and_memories_are_answered_without_the_network() -> None:
    async with open_line() as line, line.session(config=session_config(warm_up="none")) as session:
        compacted = await line.client.sessions.CompactSession(
            session_service_pb2.CompactSessionRequest(session_id=session.session_id)
        )
        summaries = await line.client.sessions.SummarizeMemories(
            session_service_pb2.SummarizeMemoriesRequest(session_id=session.session_id)
        )
        assert list(compacted.output) == list(summaries.summaries) == []
        assert line.sim.counters.sockets_total == 0


@pytest.mark.conformance("C-059")
async def test_a_request_on_a_warmed_socket_carries_its_turns_trace() -> None:
    async with open_line() as line, line.session() as session:
        await session.preconnect(wait=True)
        assert await slot_state(session) == "READY"
        await answer(session.turn("hello"))
        told = read.client_metadata(line.sim.requests[0], "ws_request_header_traceparent")
        spans = {span.name.rpartition("/")[2]: span.context for span in line.spans.get_finished_spans()}
        turn, warm_up = spans["StreamTurn"], spans["preconnect"]
        assert told is not None
        assert turn is not None
        assert warm_up is not None
        assert told.split("-")[1] == f"{turn.trace_id:032x}" != f"{warm_up.trace_id:032x}"


@pytest.mark.conformance("C-060")
async def test_a_response_over_the_websocket_is_one_call_and_no_post() -> None:
    async with open_line() as line, line.session() as session:
        await answer(session.turn("hello"))
        attempts = [inference async for inference in session.list_inferences()]
        assert [inference.transport for inference in attempts] == [types_pb2.TRANSPORT_WEBSOCKET]
        assert len([span for span in line.spans.get_finished_spans() if span.name.startswith("chat ")]) == 1
        assert line.sim.counters.posts == 0


@pytest.mark.conformance("C-061")
@pytest.mark.parametrize("on", [True, False])
async def test_timing_is_asked_for_in_the_handshake_alone_where_it_is_on(on: bool) -> None:
    name = "x-responsesapi-include-timing-metrics"
    async with open_line(profile={"timing_metrics": on}) as line, line.session() as session:
        await answer(session.turn("hello"))
        async with line.session("posts", config_for("http")) as posts:
            await answer(posts.turn("hello"))
        assert line.sim.handshakes[0].headers.get(name) == ("true" if on else None)
        assert name not in line.sim.posts()[0].headers


@pytest.mark.conformance("C-064")
@pytest.mark.parametrize("codex", [True, False])
async def test_with_tokens_in_the_metadata_each_turn_starts_empty_and_the_handshakes_is_ignored(codex: bool) -> None:
    def reply(token: str) -> Reply:
        events = ev.text_response("words")
        return Reply(events=[events[0], ev.codex_metadata(turn_state=token, codex=codex), *events[1:]])

    replies = [reply(token) for token in ("ts-1", "ts-other", "ts-2", "ts-other")]
    script = Script(connections=[Connection(headers={TOKEN: "handshake"}, replies=replies)])
    profile = {"turn_state_via": "client_metadata"}
    async with open_line(script, profile=profile) as line, line.session() as session:
        conversation: list[Any] = []
        for turn_id in ("T1", "T1", "T2", "T2"):
            conversation.append("go on")
            conversation.extend((await answer(session.turn(conversation, turn_id=turn_id))).items)
        told = [request.body["client_metadata"][TOKEN] for request in line.sim.requests]
        assert told == ["", "ts-1", "", "ts-2"]
        assert [request.body["client_metadata"]["turn_id"] for request in line.sim.requests] == ["T1", "T1", "T2", "T2"]
        assert len(line.sim.handshakes) == 1
        assert TOKEN not in line.sim.handshakes[0].headers


@pytest.mark.conformance("C-065")
async def test_a_new_window_is_a_new_socket_a_new_id_and_a_whole_request() -> None:
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn("hello"))
        assert await session.advance_window(expected_generation=0) == 1
        await until_slot(session, "READY")
        await line.until_handshake_ended(0)
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert second.full_reason == "NEW_SOCKET"
        assert [request.connection for request in line.sim.requests] == [0, 1]
        assert line.sim.requests[1].previous_response_id is None
        assert len(line.sim.requests[1].body["input"]) == 3
        windows = [read.client_metadata(request, "x-codex-window-id") for request in line.sim.requests]
        assert windows == [f"{first.conversation_id}:0", f"{first.conversation_id}:1"]
        assert line.sim.handshakes[1].headers["x-codex-window-id"] == windows[1]


@pytest.mark.conformance("C-065")
async def test_a_window_that_advances_under_a_call_spares_the_call_and_not_its_socket() -> None:
    events = ev.text_response("words")
    script = Script(connections=[Connection(replies=[Reply(events=events, gate="late")]), Connection()])
    async with open_line(script) as line, line.session() as session, session.turn("hello") as turn:
        await line.sim.wait_for_gate("late")
        await session.advance_window()
        line.sim.release("late")
        first = await turn.result()
        await line.until_handshake_ended(0)
        second = await answer(session.turn(["hello", *first.items, "go on"]))
        assert (first.text, second.full_reason) == ("words", "NEW_SOCKET")


@pytest.mark.conformance("C-065")
@pytest.mark.parametrize("outcome", ["AWAITED", "COLD"])
async def test_a_socket_whose_handshake_names_a_former_window_serves_its_call_alone(outcome: str) -> None:
    config = session_config(warm_up="none" if outcome == "COLD" else "handshake")
    script = Script(connections=[Connection(gate="upgrade"), Connection()])
    async with open_line(script) as line, line.session(config=config) as session:
        async with session.turn("hello") as turn:
            await line.sim.wait_for_gate("upgrade")
            await admitted(turn)
            await session.get()
            await session.advance_window()
            line.sim.release("upgrade")
            first = await turn.result()
        assert first.slot_outcome == outcome
        await line.until_handshake_ended(0)
        await answer(session.turn(["hello", *first.items, "go on"]))
        windows = [handshake.headers["x-codex-window-id"][-2:] for handshake in line.sim.handshakes]
        assert windows == [":0", ":1"]
        assert [request.connection for request in line.sim.requests] == [0, 1]


# Answers


@pytest.mark.conformance("C-070")
async def test_what_the_handshake_told_holds_for_every_request_on_its_socket() -> None:
    headers = {"x-reasoning-included": "1", "openai-model": "model-1", "x-models-etag": "etag-1"}
    async with open_line(Script(connections=[Connection(headers=headers)])) as line, line.session() as session:
        first = await hear(session.turn("hello"))
        second = await hear(session.turn(["hello", *first.result.items, "go on"]))
        for heard in (first, second):
            assert [told.included for told in heard.of("reasoning_included")] == [True]
            assert [told.model for told in heard.of("server_model")] == ["model-1"]
            assert [told.etag for told in heard.of("models_etag")] == ["etag-1"]
        assert len(line.sim.handshakes) == 1


@pytest.mark.conformance("C-071")
async def test_a_rate_limit_frame_is_a_snapshot_with_plan_and_credits() -> None:
    credits = {"has_credits": True, "unlimited": False, "balance": "12.5"}
    events = ev.text_response("words")
    limits = ev.codex_rate_limits(primary_used_percent=55.5, plan_type="pro", credits=credits)
    script = Script(creates=[Reply(events=[events[0], limits, *events[1:]])])
    async with open_line(script) as line, line.session() as session:
        heard = await hear(session.turn("hello"))
        (told,) = heard.of("rate_limits")
        assert (told.limit_id, told.plan_type) == ("codex", "pro")
        assert (told.primary.used_percent, told.primary.window_minutes) == (55.5, 300)
        assert told.primary.reset_time.ToSeconds() == 1_700_000_000
        assert (told.credits.has_credits, told.credits.unlimited, told.credits.balance) == (True, False, "12.5")
        assert [kept.plan_type for kept in (await session.get()).rate_limits] == ["pro"]
        assert heard.result.text == "words"


@pytest.mark.conformance("C-072")
async def test_a_posts_head_is_told_in_order_before_its_events() -> None:
    headers = {
        "openai-model": "model-1",
        "x-codex-primary-used-percent": "12.5",
        "x-codex-primary-window-minutes": "60",
        "x-other-primary-used-percent": "1",
        "x-models-etag": "etag-1",
        "x-reasoning-included": "true",
        "x-request-id": "req-1",
    }
    script = Script(posts=[Reply(events=ev.text_response("words"), headers=headers)])
    async with open_line(script) as line, line.session(config=config_for("http")) as session:
        heard = await hear(session.turn("hello"))
        at = heard.kinds.index("server_model")
        assert heard.kinds[at : at + 6] == [
            "server_model",
            "rate_limits",
            "rate_limits",
            "models_etag",
            "reasoning_included",
            "created",
        ]
        assert [told.limit_id for told in heard.of("rate_limits")] == ["codex", "other"]
        assert heard.result.upstream_request_id == "req-1"

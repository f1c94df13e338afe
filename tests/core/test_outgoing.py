"""URLs, headers and client metadata."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from warmline_server.core import outgoing
from warmline_server.core.config import Source
from warmline_server.core.outgoing import Facts

FULL = Facts(
    dialect="codex",
    conversation_id="conv",
    request_id="req",
    window_generation=2,
    installation_id="inst",
    source=Source.THREAD_SPAWN,
    parent_thread_id="parent",
    turn_metadata=b'{"turn_id":"t"}',
    turn_state="ts-1",
    beta_features=("a", "b"),
    timing_metrics=True,
    originator="agent",
    user_agent="warmline/1",
)
BARE = Facts(dialect="codex", conversation_id="conv", request_id="req")
PROVIDER = {"version": "0.1", "OpenAI-Organization": "org"}
EXTRA = {"X-Extra": "e"}
CREDENTIAL = {"Authorization": "Bearer k", "ChatGPT-Account-ID": "acc"}

ALWAYS = {**PROVIDER, **EXTRA, **CREDENTIAL, "originator": "agent", "User-Agent": "warmline/1"}
SPAWNED = {"x-codex-parent-thread-id": "parent", "x-openai-subagent": "collab_spawn"}
THREAD = {"session_id": "conv", "session-id": "conv", "thread-id": "conv", "x-codex-window-id": "conv:2"}
TURN = {
    "x-client-request-id": "req",
    "x-codex-beta-features": "a,b",
    "x-codex-turn-state": "ts-1",
    "x-codex-turn-metadata": '{"turn_id":"t"}',
}

REQUESTS = {
    "handshake": outgoing.handshake_headers,
    "responses": outgoing.post_headers,
    "compact": outgoing.compact_headers,
    "memories": outgoing.memories_headers,
}


@pytest.mark.conformance("C-042")
@pytest.mark.parametrize(
    ("request_kind", "expected"),
    [
        (
            "handshake",
            {
                **ALWAYS,
                **SPAWNED,
                **THREAD,
                **TURN,
                "OpenAI-Beta": "responses_websockets=2026-02-06",
                "x-responsesapi-include-timing-metrics": "true",
            },
        ),
        ("responses", {**ALWAYS, **SPAWNED, **THREAD, **TURN, "Accept": "text/event-stream"}),
        (
            "compact",
            {**ALWAYS, **SPAWNED, **THREAD, "x-codex-turn-state": "ts-1", "x-codex-installation-id": "inst"},
        ),
        ("memories", {**ALWAYS, **SPAWNED}),
    ],
)
def test_codex_request_carries_exactly_its_headers(request_kind: str, expected: dict[str, str]) -> None:
    headers = REQUESTS[request_kind](FULL, PROVIDER, EXTRA, CREDENTIAL)

    assert dict(headers) == expected
    assert len(headers) == len(expected)


@pytest.mark.parametrize("dialect", ["openai", "azure"])
@pytest.mark.parametrize(
    ("request_kind", "expected"),
    [
        ("handshake", {**ALWAYS, "x-client-request-id": "req"}),
        ("responses", {**ALWAYS, "x-client-request-id": "req", "Accept": "text/event-stream"}),
        ("compact", ALWAYS),
        ("memories", ALWAYS),
    ],
)
def test_public_dialects_carry_nothing_private(dialect: Any, request_kind: str, expected: dict[str, str]) -> None:
    headers = REQUESTS[request_kind](replace(FULL, dialect=dialect), PROVIDER, EXTRA, CREDENTIAL)

    assert dict(headers) == expected


def test_facts_that_are_not_there_are_not_told() -> None:
    assert dict(outgoing.handshake_headers(BARE, {}, {}, {})) == {
        "x-client-request-id": "req",
        "OpenAI-Beta": "responses_websockets=2026-02-06",
        "session_id": "conv",
        "session-id": "conv",
        "thread-id": "conv",
        "x-codex-window-id": "conv:0",
    }


@pytest.mark.conformance("C-061")
@pytest.mark.parametrize(("timing_metrics", "value"), [(True, "true"), (False, None)])
def test_timing_is_asked_for_on_the_handshake_when_it_is_on(timing_metrics: bool, value: str | None) -> None:
    facts = replace(BARE, timing_metrics=timing_metrics)

    headers = dict(outgoing.handshake_headers(facts, {}, {}, {}))

    assert headers.get("x-responsesapi-include-timing-metrics") == value


@pytest.mark.conformance("C-042")
def test_headers_of_one_name_are_settled_by_rank_and_the_credential_comes_last() -> None:
    provider = {"openai-beta": "provider", "user-agent": "provider", "x-a": "provider", "Authorization": "provider"}
    extra = {"X-A": "extra", "x-codex-window-id": "extra", "authorization": "extra"}

    headers = outgoing.handshake_headers(FULL, provider, extra, CREDENTIAL)

    folded = {name.lower(): value for name, value in headers}
    assert len(folded) == len(headers)
    assert folded["openai-beta"] == "responses_websockets=2026-02-06"
    assert folded["user-agent"] == "provider"
    assert folded["originator"] == "agent"
    assert folded["x-a"] == "extra"
    assert folded["x-codex-window-id"] == "extra"
    assert headers[-2:] == [("Authorization", "Bearer k"), ("ChatGPT-Account-ID", "acc")]


@pytest.mark.conformance("C-043")
@pytest.mark.parametrize("metadata", [b'{"a":"\xff"}', b'{"a":"\x00"}', b'{"a":"\x7f"}', b"\x1b"])
def test_turn_metadata_with_illegal_bytes_is_left_out(metadata: bytes) -> None:
    facts = replace(FULL, turn_metadata=metadata)

    assert "x-codex-turn-metadata" not in dict(outgoing.handshake_headers(facts, {}, {}, {}))
    assert "x-codex-turn-metadata" not in outgoing.client_metadata(facts)


@pytest.mark.conformance("C-043")
def test_illegal_name_or_value_is_left_out_and_uncovers_what_it_would_have_replaced() -> None:
    extra = {
        "version": "1\r\nx-evil: 1",
        "bad name": "x",
        "": "x",
        "x-caf\u00e9": "x",
        "x-b": "caf\u00e9",
        "x-c": " c ",
    }

    headers = dict(outgoing.post_headers(BARE, PROVIDER, extra, {}))

    assert headers["version"] == "0.1"
    assert headers["x-c"] == "c"
    assert not {"bad name", "", "x-caf\u00e9", "x-b"} & headers.keys()


@pytest.mark.conformance("C-055")
def test_turn_metadata_is_escaped_to_ascii_and_otherwise_untouched() -> None:
    metadata = '{ "b":1.50,\n\t"unknown": {"a":"h\u00e9 \U0001f600 \\u00e9"} }\r\n'.encode()

    headers = dict(outgoing.post_headers(replace(BARE, turn_metadata=metadata), {}, {}, {}))

    sent = headers["x-codex-turn-metadata"]
    assert sent == '{ "b":1.50, \t"unknown": {"a":"h\\u00e9 \\ud83d\\ude00 \\u00e9"} }'
    assert json.loads(sent) == json.loads(metadata)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text())), st.booleans())
def test_turn_metadata_of_any_json_keeps_its_value(metadata: dict[str, Any], indented: bool) -> None:
    text = json.dumps(metadata, ensure_ascii=False, indent=1 if indented else None)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raw = json.dumps(metadata).encode()

    sent = outgoing.client_metadata(replace(BARE, turn_metadata=raw)).get("x-codex-turn-metadata")

    # DEL is legal in JSON and not in a header.
    assert sent is None if "\x7f" in text else json.loads(sent or "") == metadata


ANY_HEADERS = st.dictionaries(st.sampled_from(["a", "A", "b", "Originator", "\u00e9", ""]) | st.text(), st.text())


@given(ANY_HEADERS, ANY_HEADERS, ANY_HEADERS)
def test_headers_are_always_legal_and_each_name_is_there_once(
    provider: dict[str, str], extra: dict[str, str], credential: dict[str, str]
) -> None:
    headers = outgoing.post_headers(FULL, provider, extra, credential)

    assert len({name.lower() for name, _ in headers}) == len(headers)
    assert all(re.fullmatch(r"[!-~]+", name) and re.fullmatch(r"([!-~]([\t -~]*[!-~])?)?", v) for name, v in headers)


@pytest.mark.conformance("C-046")
@pytest.mark.parametrize(
    ("source", "given_label", "label", "memgen"),
    [
        (Source.UNSPECIFIED, "", None, None),
        (Source.UNSPECIFIED, "ignored", None, None),
        (Source.INTERACTIVE, "", None, None),
        (Source.REVIEW, "", "review", None),
        (Source.COMPACT, "", "compact", None),
        (Source.THREAD_SPAWN, "", "collab_spawn", None),
        (Source.MEMORY_CONSOLIDATION, "", "memory_consolidation", "true"),
        (Source.SUB_AGENT, "memory_consolidation", "memory_consolidation", None),
        (Source.SUB_AGENT, "my-agent", "my-agent", None),
        (Source.SUB_AGENT, "", None, None),
    ],
)
@pytest.mark.parametrize("request_kind", REQUESTS)
def test_source_has_its_label_and_only_consolidation_asks_for_memories(
    request_kind: str, source: Source, given_label: str, label: str | None, memgen: str | None
) -> None:
    facts = replace(BARE, source=source, sub_agent_label=given_label)

    headers = dict(REQUESTS[request_kind](facts, {}, {}, {}))

    assert (headers.get("x-openai-subagent"), headers.get("x-openai-memgen-request")) == (label, memgen)


@pytest.mark.parametrize("source", [source for source in Source if source is not Source.THREAD_SPAWN])
def test_parent_is_told_by_a_spawned_thread_only(source: Source) -> None:
    facts = replace(FULL, source=source)

    assert "x-codex-parent-thread-id" not in dict(outgoing.post_headers(facts, {}, {}, {}))
    assert "x-codex-parent-thread-id" not in outgoing.client_metadata(facts)


@pytest.mark.conformance("C-047")
def test_client_metadata_of_a_spawned_thread_has_exactly_its_five_names() -> None:
    assert outgoing.client_metadata(replace(FULL, window_generation=1)) == {
        "x-codex-installation-id": "inst",
        "x-codex-window-id": "conv:1",
        "x-openai-subagent": "collab_spawn",
        "x-codex-parent-thread-id": "parent",
        "x-codex-turn-metadata": '{"turn_id":"t"}',
    }


@pytest.mark.conformance("C-058")
def test_client_metadata_carries_the_span_of_the_request() -> None:
    metadata = outgoing.client_metadata(replace(BARE, traceparent="00-a-b-01", tracestate="v=1"))

    assert metadata["ws_request_header_traceparent"] == "00-a-b-01"
    assert metadata["ws_request_header_tracestate"] == "v=1"


@pytest.mark.conformance("C-064")
@pytest.mark.parametrize(("token", "value"), [(None, ""), ("ts-1", "ts-1")])
def test_turn_state_travels_in_the_metadata_instead_of_the_handshake(token: str | None, value: str) -> None:
    facts = replace(BARE, turn_id="t", turn_state=token, turn_state_via="client_metadata")

    assert outgoing.client_metadata(facts) == {
        "x-codex-window-id": "conv:0",
        "session_id": "conv",
        "thread_id": "conv",
        "turn_id": "t",
        "x-codex-turn-state": value,
    }
    assert "x-codex-turn-state" not in dict(outgoing.handshake_headers(facts, {}, {}, {}))
    assert dict(outgoing.post_headers(facts, {}, {}, {})).get("x-codex-turn-state") == token


@pytest.mark.parametrize("dialect", ["openai", "azure"])
def test_public_dialects_have_no_client_metadata(dialect: Any) -> None:
    facts = replace(FULL, dialect=dialect, turn_state_via="client_metadata")

    assert outgoing.client_metadata(facts) == {}
    assert outgoing.body_metadata(facts) == {}


def test_body_metadata_is_the_installation_alone() -> None:
    assert outgoing.body_metadata(FULL) == {"x-codex-installation-id": "inst"}
    assert outgoing.body_metadata(BARE) == {}


def test_every_name_that_is_set_here_is_reserved() -> None:
    facts = replace(FULL, turn_id="t", turn_state_via="client_metadata", traceparent="p", tracestate="s")

    assert outgoing.client_metadata(facts).keys() == outgoing.RESERVED_CLIENT_METADATA


@pytest.mark.conformance("C-048")
@pytest.mark.parametrize(
    ("base_url", "query", "http", "websocket"),
    [
        ("http://h:1/v1", {}, "http://h:1/v1/responses", "ws://h:1/v1/responses"),
        ("https://h/v1/", {"a": "1"}, "https://h/v1/responses?a=1", "wss://h/v1/responses?a=1"),
        ("ws://h/v1", {"a": "1", "b": "2"}, "http://h/v1/responses?a=1&b=2", "ws://h/v1/responses?a=1&b=2"),
        ("wss://h/v1?k=v", {"a": "1"}, "https://h/v1/responses?k=v&a=1", "wss://h/v1/responses?k=v&a=1"),
        ("https://h", {"api-version": "a b%"}, "https://h/responses?api-version=a b%", None),
    ],
)
def test_url_is_base_path_and_query(base_url: str, query: dict[str, str], http: str, websocket: str | None) -> None:
    assert outgoing.http_url(base_url, "responses", query) == http
    if websocket is not None:
        assert outgoing.websocket_url(base_url, "responses", query) == websocket

"""Every wrong request is refused with code, reason and field, reaches no upstream, and harms nobody."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

import warmline
from e2e.kit import config, item, refused_turn, turn_request, unharmed
from e2e.line import Line, open_line
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = grpc.StatusCode
HELLO = warmline.user("hello")
CALL = b'{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}'
OUTPUT = b'{"type":"function_call_output","call_id":"c1","output":"x"}'
DEEP = b"[" * 100_000 + b"]" * 100_000
NOT_UTF8 = b'{"type":"message","role":"user","content":"\xff"}'

UNKNOWN_SOURCE = types.Lineage.FromString(b"\x08\x63")  # source = 99, as a newer client would send it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line() -> AsyncIterator[Line]:
    """One server for all: whatever a request of one test broke, the others would meet."""
    async with open_line() as opened:
        yield opened


@dataclass(frozen=True)
class Bad:
    """A turn's fields that are wrong, and what is said about them."""

    name: str
    fields: dict[str, Any]
    field: str
    reason: str = "INVALID_REQUEST"
    code: CODE = CODE.INVALID_ARGUMENT

    def __str__(self) -> str:
        return self.name


def with_options(**options: Any) -> dict[str, Any]:
    return {"options": types.RequestOptions(**options)}


def with_config(**settings: Any) -> dict[str, Any]:
    """A config for a session that does not exist yet."""
    return {"session_id": "new", "session_config": config(**settings)}


def with_limits(**limits: Any) -> dict[str, Any]:
    return with_config(limits=types.SessionLimits(**limits))


NEGATIVE = Duration(seconds=-1)

IDS = [
    Bad("blank session_id", {"session_id": ""}, "session_id"),
    Bad("session_id of 65 characters", {"session_id": "s" * 65}, "session_id"),
    Bad("session_id with a space", {"session_id": "a b"}, "session_id"),
    Bad("session_id beyond ASCII", {"session_id": "größe"}, "session_id"),
    Bad("session_id with a line break at its end", {"session_id": "a\n"}, "session_id"),
    Bad("lane with a slash", {"lane": "a/b"}, "lane"),
    Bad("lane of 65 characters", {"lane": "l" * 65}, "lane"),
    Bad("turn_id with a tab", {"turn_id": "a\tb"}, "turn_id"),
    Bad("turn_id of 129 characters", {"turn_id": "t" * 129}, "turn_id"),
    Bad("request_id beyond ASCII", {"request_id": "ü"}, "request_id"),
]
ENUMS = [
    Bad("unknown input_mode", {"input_mode": 99}, "input_mode"),
    Bad("unknown retry", {"retry": 99}, "retry"),
    Bad("unknown on_busy", {"on_busy": 99}, "on_busy"),
    Bad("unknown events", {"events": 99}, "events"),
    Bad("unknown on_disconnect", {"on_disconnect": 99}, "on_disconnect"),
    Bad("unknown warm_up", with_config(warm_up=99), "session_config.warm_up"),
    Bad("unknown source", with_config(lineage=UNKNOWN_SOURCE), "session_config.lineage.source"),
]
ITEMS = [
    Bad("no input", {"input": []}, "input"),
    Bad("item without content", {"input": [HELLO, types.Item()]}, "input[1]"),
    Bad("message without text", {"input": [warmline.user("")]}, "input[0].message.text"),
    Bad(
        "message of nobody",
        {"input": [types.Item(message=types.TextMessage(role="boss", text="x"))]},
        "input[0].message.role",
    ),
    Bad("item of no bytes", {"input": [HELLO, item(b"")]}, "input[1]"),
    Bad("item cut short", {"input": [HELLO, item(b'{"type":"mess')]}, "input[1]"),
    Bad("item with a comma too many", {"input": [item(b'{"type":"message",}')]}, "input[0]"),
    Bad("item with more behind it", {"input": [item(b'{"type":"message"} {}')]}, "input[0]"),
    Bad("item with a number that JSON has not", {"input": [item(b'{"n":NaN}')]}, "input[0]"),
    Bad("item that is a list", {"input": [item(b'["message"]')]}, "input[0]"),
    Bad("item that is a text", {"input": [item(b'"message"')]}, "input[0]"),
    Bad("item that is null", {"input": [item(b"null")]}, "input[0]"),
    Bad("item that is not UTF-8", {"input": [item(NOT_UTF8)]}, "input[0]"),
    Bad("item nested too deep", {"input": [item(b'{"type":"message","x":' + DEEP + b"}")]}, "input[0]"),
    Bad("output without its call", {"input": [HELLO, item(OUTPUT)]}, "input[1]"),
    Bad("shortcut output without its call", {"input": [HELLO, warmline.function_output("c1", "x")]}, "input[1]"),
    Bad("output before its call", {"input": [item(OUTPUT), item(CALL)]}, "input[0]"),
    Bad("call without its output", {"input": [HELLO, item(CALL)]}, "input[1]"),
    Bad("output of another kind of call", {"input": [item(CALL), warmline.custom_tool_output("c1", "x")]}, "input[1]"),
]
OPTIONS = [
    Bad("blank model", with_options(model=""), "options.model"),
    Bad("no output tokens", with_options(max_output_tokens=0), "options.max_output_tokens"),
    Bad("tool that is no object", with_options(tools=types.ToolList(tools_json=[b"{}", b"1"])), "options.tools[1]"),
    Bad("tool that is not UTF-8", with_options(tools=types.ToolList(tools_json=[NOT_UTF8])), "options.tools[0]"),
    Bad("tool_choice without quotes", with_options(tool_choice_json=b"auto"), "options.tool_choice_json"),
    Bad(
        "text format that is a list",
        with_options(text=types.TextOptions(format_json=b"[]")),
        "options.text.format_json",
    ),
    Bad("request_json that is a list", {"request_json": b"[]"}, "request_json"),
    Bad("request_json cut short", {"request_json": b'{"user":'}, "request_json"),
    Bad("request_json with a key that is not UTF-8", {"request_json": b'{"\xff":1}'}, "request_json"),
    Bad("request_json with a value that is not UTF-8", {"request_json": b'{"user":"\xff"}'}, "request_json"),
    Bad("request_json nested too deep", {"request_json": b'{"user":' + DEEP + b"}"}, "request_json"),
    Bad(
        "client_metadata that is a list",
        {"request_json": b'{"client_metadata":[]}'},
        "request_json.client_metadata",
    ),
    Bad("turn metadata that is a list", {"turn_metadata_json": b"[]"}, "turn_metadata_json"),
    Bad("turn metadata cut short", {"turn_metadata_json": b'{"a"'}, "turn_metadata_json"),
    Bad("turn metadata that is not UTF-8", {"turn_metadata_json": b'{"a":"\xff"}'}, "turn_metadata_json"),
    Bad("negative max_duration", {"max_duration": NEGATIVE}, "max_duration"),
    Bad("max_duration a little below nothing", {"max_duration": Duration(nanos=-1)}, "max_duration"),
    Bad("max_duration of nothing", {"max_duration": Duration()}, "max_duration"),
    Bad("APPEND without a position", {"input_mode": turns.INPUT_MODE_APPEND}, "expected_history_position"),
]
CONFIGS = [
    Bad("negative idle_ttl", with_limits(idle_ttl=NEGATIVE), "session_config.limits.idle_ttl"),
    Bad(
        "negative max_turn_duration", with_limits(max_turn_duration=NEGATIVE), "session_config.limits.max_turn_duration"
    ),
    Bad(
        "max_turn_duration of nothing",
        with_limits(max_turn_duration=Duration()),
        "session_config.limits.max_turn_duration",
    ),
    Bad("no lanes", with_limits(max_lanes=0), "session_config.limits.max_lanes"),
    Bad("negative transcript", with_limits(max_transcript_bytes=-1), "session_config.limits.max_transcript_bytes"),
    Bad(
        "negative fallback_after",
        with_config(fallback_policy=types.FallbackPolicy(fallback_after=NEGATIVE)),
        "session_config.fallback_policy.fallback_after",
    ),
    Bad(
        "negative latch_reprobe",
        with_config(fallback_policy=types.FallbackPolicy(latch_reprobe=NEGATIVE)),
        "session_config.fallback_policy.latch_reprobe",
    ),
    Bad(
        "101 stream retries",
        with_config(retry_policy=types.RetryPolicy(stream_max_retries=101)),
        "session_config.retry_policy.stream_max_retries",
    ),
    Bad(
        "negative request retries",
        with_config(retry_policy=types.RetryPolicy(request_max_retries=-1)),
        "session_config.retry_policy.request_max_retries",
    ),
    Bad("conversation_id that is no UUID", with_config(conversation_id="mine"), "session_config.conversation_id"),
    Bad("17 labels", with_config(labels={str(n): "" for n in range(17)}), "session_config.labels"),
    Bad("label's value of 65 bytes", with_config(labels={"a": "b" * 65}), "session_config.labels['a']"),
    Bad(
        "default tool that is no object",
        with_config(request_defaults=types.RequestOptions(tools=types.ToolList(tools_json=[b"1"]))),
        "session_config.request_defaults.tools[0]",
    ),
    Bad(
        "sub-agent label beyond ASCII",
        with_config(lineage=types.Lineage(source=types.SESSION_SOURCE_SUB_AGENT, sub_agent_label="ü")),
        "session_config.lineage.sub_agent_label",
    ),
    Bad(
        "sub-agent label of 65 bytes",
        with_config(lineage=types.Lineage(source=types.SESSION_SOURCE_SUB_AGENT, sub_agent_label="l" * 65)),
        "session_config.lineage.sub_agent_label",
    ),
    Bad("unknown upstream", with_config(upstream="nope"), "session_config.upstream", reason="UNKNOWN_UPSTREAM"),
]
RESERVED = [
    Bad(
        f"reserved {key}",
        {"request_json": b'{"user":"u","%b":null}' % key.encode()},
        f"request_json.{key}",
        "RESERVED_KEY",
    )
    for key in (
        "type",
        "stream",
        "stream_id",
        "background",
        "generate",
        "input",
        "previous_response_id",
        "conversation",
    )
] + [
    Bad(
        "reserved prewarm",
        {"request_json": b'{"prompt_cache_options":{"prewarm":true}}'},
        "request_json.prompt_cache_options.prewarm",
        "RESERVED_KEY",
    ),
    *(
        Bad(
            f"reserved {name}",
            {"request_json": b'{"client_metadata":{"mine":"1","%b":"x"}}' % name.encode()},
            f"request_json.client_metadata.{name}",
            "RESERVED_KEY",
        )
        for name in (
            "x-codex-turn-state",
            "x-codex-installation-id",
            "x-codex-window-id",
            "x-openai-subagent",
            "x-codex-parent-thread-id",
            "x-codex-turn-metadata",
            "ws_request_header_traceparent",
            "ws_request_header_tracestate",
        )
    ),
]
LATER = [
    Bad(name, fields, name, "NOT_IMPLEMENTED", CODE.UNIMPLEMENTED)
    for name, fields in (
        ("on_disconnect", {"on_disconnect": turns.DISCONNECT_MODE_DETACH}),
        ("detach_grace", {"detach_grace": Duration(seconds=1)}),
        ("after_sequence", {"after_sequence": 0}),
        ("fork_from_lane", {"fork_from_lane": ""}),
    )
]


@pytest.mark.parametrize("bad", [*IDS, *ENUMS, *ITEMS, *OPTIONS, *CONFIGS, *RESERVED, *LATER], ids=str)
async def test_turn_with_a_wrong_field_is_refused_by_name(line: Line, bad: Bad) -> None:
    async with unharmed(line) as session_id:
        told = await refused_turn(line, turn_request(**{"session_id": session_id, **bad.fields}))

    assert (told.code, told.reason, told.fields) == (bad.code, bad.reason, (bad.field,))
    assert told.retry_after_s is None
    assert told.upstream is None
    assert 10 < len(told.text) < 400, "a text that helps, and no echo of the input"
    assert all(session.session_id != "new" for session in line.app.registry.sessions), "it left a session behind"

"""What the simulator refuses: one case per rule, with code, status and param, over both transports."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from warmline_simulator import Simulator, ev

from .wire_client import Json, ask, ask_error, create, open_http, open_ws, receive, receive_until_end, send, text_of

CALL = ev.function_call("look", "{}", call_id="call-1", id="fc_1")
OUTPUT = ev.function_call_output("call-1", "seen")
LONG = "x" * 513

# Each: what is wrong, the code and the param that say so. Every one of them is a 400.
REFUSED: list[tuple[str, Json, str | None, str]] = [
    ("no model", {"model": None}, "missing_required_parameter", "model"),
    ("model no string", {"model": 3}, "invalid_type", "model"),
    ("no input", {"input": None}, "missing_required_parameter", "input"),
    ("empty input", {"input": []}, "missing_required_parameter", "input"),
    ("input no list", {"input": 3}, "invalid_type", "input"),
    ("item no object", {"input": ["x"]}, "invalid_type", "input[0]"),
    ("item without type", {"input": [{"id": "x"}]}, "missing_required_parameter", "input[0].type"),
    ("unknown item type", {"input": [{"type": "made_up"}]}, "invalid_value", "input[0].type"),
    ("message without content", {"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
    ("unknown role", {"input": [{"role": "king", "content": "x"}]}, "invalid_value", "input[0].role"),
    ("content number", {"input": [{"role": "user", "content": 1}]}, "invalid_type", "input[0].content"),
    ("part no object", {"input": [{"role": "user", "content": [1]}]}, "invalid_type", "input[0].content[0]"),
    (
        "unknown part",
        {"input": [{"role": "user", "content": [{"type": "scent"}]}]},
        "invalid_value",
        "input[0].content[0].type",
    ),
    (
        "part without text",
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "missing_required_parameter",
        "input[0].content[0].text",
    ),
    (
        "call without name",
        {"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]},
        "missing_required_parameter",
        "input[0].name",
    ),
    ("output without id", {"input": [{**OUTPUT, "call_id": None}]}, "missing_required_parameter", "input[0].call_id"),
    ("empty call id", {"input": [{**OUTPUT, "call_id": ""}]}, "empty_string", "input[0].call_id"),
    ("number as call id", {"input": [{**OUTPUT, "call_id": 4}]}, "invalid_type", "input[0].call_id"),
    ("output without its call", {"input": [OUTPUT]}, None, "input"),
    ("call without its output", {"input": [CALL]}, None, "input"),
    ("output twice", {"input": [CALL, OUTPUT, OUTPUT]}, None, "input"),
    ("unknown field", {"colour": "red"}, "unknown_parameter", "colour"),
    ("instructions number", {"instructions": 1}, "invalid_type", "instructions"),
    ("tools no list", {"tools": {}}, "invalid_type", "tools"),
    ("tool no object", {"tools": ["x"]}, "invalid_type", "tools[0]"),
    ("tool without type", {"tools": [{}]}, "missing_required_parameter", "tools[0].type"),
    ("unknown tool", {"tools": [{"type": "hammer"}]}, "invalid_value", "tools[0].type"),
    ("function without name", {"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
    ("bad tool name", {"tools": [{"type": "function", "name": "a b"}]}, "invalid_value", "tools[0].name"),
    (
        "parameters no object",
        {"tools": [{"type": "function", "name": "a", "parameters": 1}]},
        "invalid_type",
        "tools[0].parameters",
    ),
    ("unknown choice", {"tool_choice": "maybe"}, "invalid_value", "tool_choice"),
    ("choice of no tool", {"tool_choice": {"type": "function", "name": "gone"}}, None, "tool_choice"),
    ("choice without name", {"tool_choice": {"type": "function"}}, "missing_required_parameter", "tool_choice.name"),
    ("parallel no boolean", {"parallel_tool_calls": "yes"}, "invalid_type", "parallel_tool_calls"),
    ("reasoning no object", {"reasoning": "hard"}, "invalid_type", "reasoning"),
    ("unknown effort", {"reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
    ("unknown verbosity", {"text": {"verbosity": "chatty"}}, "invalid_value", "text.verbosity"),
    ("unknown format", {"text": {"format": {"type": "yaml"}}}, "invalid_value", "text.format.type"),
    (
        "schema format without schema",
        {"text": {"format": {"type": "json_schema", "name": "x"}}},
        "missing_required_parameter",
        "text.format.schema",
    ),
    ("unknown include", {"include": ["everything"]}, "invalid_value", "include[0]"),
    (
        "17 metadata keys",
        {"metadata": {str(number): "x" for number in range(17)}},
        "object_above_max_properties",
        "metadata",
    ),
    ("metadata key of 65", {"metadata": {"k" * 65: "x"}}, "string_above_max_length", "metadata"),
    ("metadata value of 513", {"metadata": {"k": LONG}}, "string_above_max_length", "metadata.k"),
    ("metadata number", {"metadata": {"k": 1}}, "invalid_type", "metadata.k"),
    ("15 output tokens", {"max_output_tokens": 15}, "integer_below_min_value", "max_output_tokens"),
    ("no tool call allowed", {"max_tool_calls": 0}, "integer_below_min_value", "max_tool_calls"),
    ("unknown tier", {"service_tier": "warp"}, "invalid_value", "service_tier"),
    ("store no boolean", {"store": 1}, "invalid_type", "store"),
    ("unknown truncation", {"truncation": "some"}, "invalid_value", "truncation"),
    ("temperature 2.1", {"temperature": 2.1}, "decimal_above_max_value", "temperature"),
    ("temperature -1", {"temperature": -1}, "decimal_below_min_value", "temperature"),
    ("top_p 1.1", {"top_p": 1.1}, "decimal_above_max_value", "top_p"),
    ("21 logprobs", {"top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
    ("long safety id", {"safety_identifier": "x" * 65}, "string_above_max_length", "safety_identifier"),
    ("cache ttl of an hour", {"prompt_cache_options": {"ttl": "1h"}}, "invalid_value", "prompt_cache_options.ttl"),
    (
        "prewarm no boolean",
        {"prompt_cache_options": {"prewarm": "yes"}},
        "invalid_type",
        "prompt_cache_options.prewarm",
    ),
    (
        "low compaction threshold",
        {"context_management": [{"type": "compaction", "compact_threshold": 1}]},
        "integer_below_min_value",
        "context_management[0].compact_threshold",
    ),
    ("background", {"background": True}, "unsupported_parameter", "background"),
    (
        "conversation and previous id",
        {"conversation": "conv_1", "previous_response_id": "resp_1"},
        "mutually_exclusive_parameters",
        "previous_response_id",
    ),
    ("previous id no string", {"previous_response_id": 7}, "invalid_type", "previous_response_id"),
    (
        "unknown previous id",
        {"previous_response_id": "resp_gone"},
        "previous_response_not_found",
        "previous_response_id",
    ),
]
CASES = [pytest.param(*case[1:], id=case[0]) for case in REFUSED]


@pytest.mark.parametrize(("fields", "code", "param"), CASES)
async def test_a_frame_is_refused_with_code_status_and_param(fields: Json, code: str | None, param: str) -> None:
    async with Simulator(expect_violations=True) as sim, open_ws(sim) as ws:
        frame = await ask_error(ws, **fields)

        assert frame["status"] == 400
        assert (frame["error"]["code"], frame["error"]["param"]) == (code, param)
        assert frame["error"]["type"] == "invalid_request_error"
        assert "hi" in text_of(await ask(ws, "hi")), "the socket must live on"

    assert [record.outcome for record in sim.requests] == ["refused", "completed"]


@pytest.mark.parametrize(("fields", "code", "param"), CASES)
async def test_a_post_is_refused_with_code_status_and_param(fields: Json, code: str | None, param: str) -> None:
    async with Simulator(expect_violations=True) as sim, open_http(sim) as http:
        response = await http.post("/responses", json={"model": "m", "input": "hi", "stream": True, **fields})

    assert response.status_code == 400
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == (code, param)
    assert sim.requests[0].request_id == response.headers["x-request-id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"generate": False, "input": []},
        {"max_output_tokens": 16},
        {"temperature": 2},
        {"metadata": {"k" * 64: "x" * 512}},
        {"client_metadata": {"any": "thing"}},
        {"instructions": None, "tools": [], "include": [], "reasoning": None, "previous_response_id": None},
        {"service_tier": "ultrafast", "prompt_cache_options": {"ttl": "12h", "mode": "explicit"}},
        {"input": [CALL, OUTPUT]},
        {"stream": True},
    ],
)
async def test_what_the_service_allows_is_answered(fields: Json) -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        events = await ask(ws, **fields)

    assert events[-1]["type"] in ("response.completed", "response.incomplete")


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ("{not json", None, None),
        ("[" * 100_000, None, None),
        ("[]", None, None),
        ('{"model":"m"}', "missing_required_parameter", "type"),
        ('{"type":"response.cancel"}', "invalid_value", "type"),
        ('{"type":"session.update"}', "invalid_value", "type"),
        (b"{}", None, None),
    ],
)
async def test_a_frame_that_is_no_request_is_refused(sent: str | bytes, code: str | None, param: str | None) -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        await ws.send(sent)
        frame = await receive(ws)

        assert (frame["type"], frame["status"]) == ("error", 400)
        assert (frame["error"]["code"], frame["error"]["param"]) == (code, param)
        assert "hello" in text_of(await ask(ws))

    assert sim.counters.refused == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{not json", {}, 400, None),
        (b"[1]", {}, 400, None),
        (b"abc", {"content-encoding": "zstd"}, 400, "invalid_encoding"),
        (b"abc", {"content-encoding": "br"}, 415, "unsupported_encoding"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(body: bytes, headers: Json, status: int, code: str | None) -> None:
    async with Simulator() as sim, open_http(sim) as http:
        response = await http.post("/responses", content=body, headers=headers)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_bodies_beyond_the_limit_are_refused_before_and_after_decoding() -> None:
    bomb = b"\x28\xb5\x2f\xfd" + b"\x00" * 8
    async with Simulator(max_body_bytes=1000) as sim, open_http(sim) as http, open_ws(sim) as ws:
        large = await http.post("/responses", content=b"x" * 1001)
        broken = await http.post("/responses", content=bomb, headers={"content-encoding": "zstd"})
        await send(ws, create("x" * 1001))
        await ws.wait_closed()

    assert (large.status_code, broken.status_code, ws.close_code) == (413, 400, 1009)


async def test_frame_only_fields_are_unknown_over_http_and_stream_false_is_refused_in_a_frame() -> None:
    async with Simulator() as sim, open_http(sim) as http, open_ws(sim) as ws:
        for field, value in (("generate", False), ("stream_id", "x"), ("type", "response.create")):
            response = await http.post("/responses", json={"model": "m", "input": "x", field: value})
            assert response.json()["error"]["param"] == field
        frame = await ask_error(ws, stream=False)

    assert (frame["error"]["code"], frame["error"]["param"]) == ("invalid_value", "stream")


async def test_a_conversation_cannot_be_found() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        frame = await ask_error(ws, conversation="conv_1")

    assert (frame["status"], frame["error"]["param"]) == (404, "conversation")


async def test_unlisted_models_are_refused_when_told() -> None:
    async with Simulator(only_listed_models=True) as sim, open_ws(sim) as ws:
        frame = await ask_error(ws, model="gpt-none")
        assert text_of(await ask(ws, model="sim-small"))

    assert (frame["error"]["code"], frame["error"]["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        (None, 401, None),
        ("Basic sk-good", 401, None),
        ("Bearer sk-bad", 401, "invalid_api_key"),
        ("Bearer sk-poor", 403, "insufficient_permissions"),
        ("Bearer sk-good", 200, None),
    ],
)
async def test_tokens_decide_upgrades_and_posts(authorization: str | None, status: int, code: str | None) -> None:
    headers = {"authorization": authorization} if authorization is not None else {}
    async with Simulator(tokens={"sk-good"}, forbidden_tokens={"sk-poor"}) as sim, open_http(sim) as http:
        post = await http.post("/responses", json={"model": "m", "input": "x"}, headers=headers)
        upgrade = await _upgrade_status(sim, headers)

    assert post.status_code == status
    assert upgrade == (101 if status == 200 else status)
    if status != 200:
        assert post.json()["error"]["code"] == code


async def _upgrade_status(sim: Simulator, headers: dict[str, str]) -> int:
    try:
        async with open_ws(sim, additional_headers=headers) as ws:
            assert ws.response is not None
            return ws.response.status_code
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize(("request_id", "status"), [("x" * 512, 200), ("x" * 513, 400), ("caf\u00e9", 400)])
async def test_client_request_ids_are_short_ascii(request_id: str, status: int) -> None:
    headers: Any = [(b"x-client-request-id", request_id.encode("latin-1"))]
    async with Simulator() as sim, open_http(sim) as http:
        response = await http.post("/responses", json={"model": "m", "input": "x"}, headers=headers)
        upgrade = await _upgrade_status(sim, {"x-client-request-id": request_id}) if request_id.isascii() else status

    assert response.status_code == status
    assert upgrade == (101 if status == 200 else status)


async def test_unknown_paths_are_not_found() -> None:
    async with Simulator() as sim, open_http(sim) as http:
        for method, path in (("GET", "/nothing"), ("PUT", "/responses"), ("GET", "/responses/resp_none")):
            assert (await http.request(method, path)).status_code == 404
        assert isinstance(http, httpx.AsyncClient)
    assert [record.method for record in sim.unary_requests] == ["GET", "PUT", "GET"]


@pytest.mark.parametrize("depth", [10, 300, 600, 900, *range(960, 1000, 4), 5000])
async def test_nested_bodies_are_echoed_or_refused_whatever_their_depth(depth: int) -> None:
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    tool = b'[{"type":"function","name":"f","parameters":' + nested + b"}]"
    body = b'{"type":"response.create","model":"m","input":"hi","stream":true,"tools":' + tool + b"}"
    async with Simulator() as sim, open_ws(sim) as ws, open_http(sim) as http:
        await ws.send(body.decode())
        frame = (await receive_until_end(ws))[0]
        post = await http.post("/responses", content=body.replace(b'"type":"response.create",', b"", 1))
        compact = await http.post(
            "/responses/compact", content=b'{"model":"m","input":[{"role":"user","content":' + nested + b"}]}"
        )

    assert (frame["type"] == "response.created") == (post.status_code == 200) or depth > 300
    assert frame["type"] in ("response.created", "error")
    assert compact.status_code in (200, 400)
    if depth <= 300:
        assert frame["type"] == "response.created"

"""The builders against the types of the OpenAI SDK: every event, every item, every whole answer validates there."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types.responses import Response, ResponseInputItem, ResponseOutputItem, ResponseStreamEvent
from openai.types.responses.response_steer_accepted_event import ResponseSteerAcceptedEvent
from openai.types.responses.response_steer_failed_event import ResponseSteerFailedEvent
from openai.types.responses.response_steer_pending_event import ResponseSteerPendingEvent
from openai.types.responses.responses_server_event import ResponseWsError
from pydantic import BaseModel, TypeAdapter

from warmline_simulator import Reply, Script, Simulator, ev

from .wire_client import Json, ask, open_http, open_ws, sse_events, types

MESSAGE = ev.message("hi", id="msg_1")
PART = MESSAGE["content"][0]
STUB = {"type": "function_call_output", "call_id": "c", "name": "n"}
URL = {"type": "url_citation", "start_index": 0, "end_index": 1, "title": "t", "url": "u"}

EVENTS: list[Json] = [
    ev.queued("r"),
    ev.created("r"),
    ev.in_progress("r"),
    ev.completed("r", output=[MESSAGE]),
    ev.failed("server_error", "no", response_id="r"),
    ev.incomplete("content_filter", response_id="r", usage=ev.usage()),
    ev.sse_error("server_error", "no"),
    ev.item_added(MESSAGE),
    ev.item_done(MESSAGE),
    ev.content_part_added(),
    ev.content_part_done(PART),
    ev.text_delta("a"),
    ev.text_done("a"),
    ev.annotation_added(URL),
    ev.refusal_delta("a"),
    ev.refusal_done("a"),
    ev.reasoning_delta("a"),
    ev.reasoning_done("a"),
    ev.summary_part_added(),
    ev.summary_part_done("a", status="incomplete"),
    ev.summary_delta("a"),
    ev.summary_done("a"),
    ev.arguments_delta("a"),
    ev.arguments_done("{}"),
    ev.custom_input_delta("a"),
    ev.custom_input_done("a"),
    *(ev.file_search(phase) for phase in ("in_progress", "searching", "completed")),
    *(ev.web_search(phase) for phase in ("in_progress", "searching", "completed")),
    *(ev.code_interpreter(phase) for phase in ("in_progress", "interpreting", "completed")),
    ev.code_delta("a"),
    ev.code_done("a"),
    *(ev.image_generation(phase) for phase in ("in_progress", "generating", "completed")),
    ev.partial_image("aGk=", size="1x1"),
    ev.mcp_arguments_delta("a"),
    ev.mcp_arguments_done("{}"),
    *(ev.mcp(phase) for phase in ("in_progress", "completed", "failed")),
    *(ev.mcp_listing(phase) for phase in ("in_progress", "completed", "failed")),
    ev.shell_command_added(),
    ev.shell_command_delta("ls"),
    ev.shell_command_done("ls"),
    ev.shell_output_delta("out"),
    ev.shell_output_done("out"),
    ev.compacting(),
    ev.audio_delta("aGk="),
    ev.audio_done(),
    ev.transcript_delta("a"),
    ev.transcript_done(),
]
OUTPUT_ITEMS: list[Json] = [
    MESSAGE,
    ev.refusal("no", id="msg_2"),
    ev.reasoning("thought", encrypted_content="gAAA", content="deep", id="rs_1"),
    ev.function_call("n", "{}", call_id="c", id="fc_1", namespace="ns"),
    ev.custom_tool_call("n", "text", call_id="c", id="ctc_1"),
    ev.local_shell_call(["ls"], call_id="c", id="lsh_1", env={"A": "b"}, working_directory="w", timeout_ms=5),
    ev.shell_call(["ls"], call_id="c", id="sh_1"),
    ev.apply_patch_call("f", "d", call_id="c", id="apc_1"),
    ev.apply_patch_call("f", operation="delete_file", call_id="c", id="apc_2"),
    ev.web_search_call("q", id="ws_1"),
    ev.web_search_call("q", id="ws_2", action={"type": "open_page", "url": "u"}),
    ev.file_search_call(["q"], id="fs_1"),
    ev.code_interpreter_call("1+1", id="ci_1"),
    ev.image_generation_call("aGk=", id="ig_1"),
    ev.mcp_call("n", output="o", id="mcp_1"),
    ev.mcp_list_tools([{"name": "n", "input_schema": {}}], id="mcpl_1"),
    ev.mcp_approval_request("n", id="mcpr_1"),
    ev.computer_call(call_id="c", id="cu_1"),
    ev.tool_search_call({"query": "q"}, call_id="c", id="ts_1"),
    ev.compaction("gAAA", id="cmp_1"),
]
INPUT_ITEMS: list[Json] = [
    ev.user_message("hi"),
    ev.developer_message("hi"),
    ev.system_message([{"type": "input_text", "text": "hi"}]),
    ev.function_call_output("c", "out"),
    ev.custom_tool_call_output("c", "out"),
    ev.local_shell_call_output("c", "out"),
    ev.shell_call_output("c", "out", stderr="err", exit_code=1),
    ev.apply_patch_call_output("c", "out", status="failed"),
    ev.computer_call_output("c", "https://example.com/a.png"),
    ev.tool_search_output("c"),
    ev.mcp_approval_response("mcpr_1", approve=True),
]
ANSWERS = {
    "text": ev.text_response("one two"),
    "refusal": ev.refusal_response("no no"),
    "reasoning": ev.reasoning_response(["a b", "c"], "text", encrypted_content="gAAA", content="deep thought"),
    "function": ev.function_call_response("look", '{"a": 1}', "call-1"),
    "custom": ev.custom_tool_call_response("run", "some text", "call-1"),
    "local shell": ev.local_shell_response(["ls", "-l"], "call-1"),
    "shell": ev.shell_response(["ls -l", "pwd"], "call-1"),
    "patch": ev.apply_patch_response("f", "@@", "call-1"),
    "web search": ev.web_search_response("q", "found it"),
    "warm-up": ev.warm_up_response(),
    "failed": ev.failed_response("rate_limit_exceeded", "slow down", text="half"),
    "incomplete": ev.incomplete_response("max_output_tokens", "half"),
    "everything": ev.response_of(*OUTPUT_ITEMS),
}


def models_of(union: Any) -> dict[str, type[BaseModel]]:
    """The SDK's model per event type."""
    members = [each for each in get_args(get_args(union)[0]) if issubclass(each, BaseModel)]
    return {str(get_args(each.model_fields["type"].annotation)[0]): each for each in members}


STREAM = models_of(ResponseStreamEvent)


def test_there_is_a_builder_for_each_of_the_59_stream_events() -> None:
    assert len(STREAM) == 59
    assert {event["type"] for event in EVENTS} == set(STREAM)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_an_event_validates_as_the_sdk_types_it(event: Json) -> None:
    read = STREAM[event["type"]].model_validate({**event, "sequence_number": 0}, strict=True)

    assert not read.model_extra, "the builder adds fields the service does not have"


def test_steer_events_and_error_frames_validate() -> None:
    ResponseSteerAcceptedEvent.model_validate({**ev.steer_accepted("s", "r"), "sequence_number": 0})
    ResponseSteerPendingEvent.model_validate({**ev.steer_pending("s", "r", [STUB]), "sequence_number": 0})
    failed = ev.steer_failed("response_not_found", "no", previous_response_id="r", input="x", steer_id="s")
    ResponseSteerFailedEvent.model_validate({**failed, "sequence_number": 0})
    frame = ResponseWsError.model_validate(ev.error(429, "rate_limit_exceeded", "no", headers={"retry-after": "1"}))

    assert (frame.status, frame.error.headers) == (429, {"retry-after": "1"})
    assert "status" not in ev.error(None, "server_error")


@pytest.mark.parametrize("item", OUTPUT_ITEMS, ids=lambda item: item["type"])
def test_an_output_item_validates_as_the_sdk_types_it(item: Json) -> None:
    read: Any = TypeAdapter(ResponseOutputItem).validate_python(item)

    assert read.type == item["type"]


@pytest.mark.parametrize("item", INPUT_ITEMS, ids=lambda item: item["type"])
def test_an_input_item_validates_as_the_sdk_types_it(item: Json) -> None:
    read: Any = TypeAdapter(ResponseInputItem).validate_python(item)

    assert read.type == item["type"]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_a_whole_answer_arrives_as_the_sdk_types_it_over_both_transports(answer: list[Json]) -> None:
    script = Script(creates=[Reply(events=answer)], posts=[Reply(events=answer)])
    async with Simulator(script, expect_violations=True) as sim, open_ws(sim) as ws, open_http(sim) as http:
        frames = await ask(ws)
        response = await http.post("/responses", json={"model": "m", "input": "x", "stream": True})

    assert types(frames) == types(sse_events(response.text)) == types(answer)
    for number, event in enumerate(frames):
        assert event["sequence_number"] == number
        STREAM[event["type"]].model_validate(event)
    Response.model_validate(frames[-1]["response"])
    assert "{{" not in response.text


def test_the_pieces_of_every_streamed_part_add_up_to_the_whole() -> None:
    events = ANSWERS["everything"]
    for delta, done, field in (
        ("response.output_text.delta", "response.output_text.done", "text"),
        ("response.refusal.delta", "response.refusal.done", "refusal"),
        ("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done", "text"),
        ("response.reasoning_text.delta", "response.reasoning_text.done", "text"),
        ("response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments"),
        ("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", "input"),
        ("response.shell_call_command.delta", "response.shell_call_command.done", "command"),
        ("response.code_interpreter_call_code.delta", "response.code_interpreter_call_code.done", "code"),
        ("response.mcp_call_arguments.delta", "response.mcp_call_arguments.done", "arguments"),
    ):
        pieces = "".join(event["delta"] for event in events if event["type"] == delta)
        whole = "".join(event[field] for event in events if event["type"] == done)
        assert pieces == whole != ""


def test_every_item_is_announced_empty_and_done_once_in_order() -> None:
    events = ANSWERS["everything"]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event for event in events if event["type"] == "response.output_item.done"]

    assert [event["output_index"] for event in added] == list(range(len(OUTPUT_ITEMS)))
    assert [event["item"]["id"] for event in added] == [event["item"]["id"] for event in done]
    assert [event["item"] for event in done] == events[-1]["response"]["output"]
    by_type = {event["item"]["type"]: event["item"] for event in added}
    assert by_type["function_call"]["arguments"] == ""
    assert by_type["reasoning"] == {"id": "rs_1", "type": "reasoning", "summary": []}
    assert by_type["message"]["content"] == []


def test_items_of_one_kind_in_one_answer_get_ids_of_their_own() -> None:
    events = ev.response_of(ev.function_call("a"), ev.function_call("b"))
    calls = events[-1]["response"]["output"]

    assert len({call["id"] for call in calls}) == len({call["call_id"] for call in calls}) == 2


def test_codex_frames_have_the_shape_their_readers_expect() -> None:
    limits = ev.codex_rate_limits(primary_used_percent=7.5, credits={"has_credits": True}, limit_name="codex_other")
    metadata = ev.codex_metadata(turn_state="ts-1", headers={"openai-model": "m"}, codex=True)

    assert limits["rate_limits"]["primary"]["used_percent"] == 7.5
    assert (limits["credits"], limits["limit_name"]) == ({"has_credits": True}, "codex_other")
    assert metadata["type"] == "codex.response.metadata"
    assert metadata["headers"] == {"openai-model": "m", "x-codex-turn-state": "ts-1"}
    assert ev.codex_timing(ttft_ms=3.0)["timing_metrics"] == {"ttft_ms": 3.0}
    assert ev.completed(end_turn=True)["response"]["end_turn"] is True

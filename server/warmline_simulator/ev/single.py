"""One builder per stream event. Indices default to 0, item ids to the id the item builders give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from warmline_simulator.ev.response import KEY, response_object, token_usage

Json = dict[str, Any]

MESSAGE = f"msg_{KEY}"
REASONING = f"rs_{KEY}"


def queued(response_id: str | None = None, **fields: Any) -> Json:
    """`response.queued`; `fields` go into the response object."""
    return {"type": "response.queued", "response": response_object(response_id, "queued", **fields)}


def created(response_id: str | None = None, **fields: Any) -> Json:
    """`response.created`, the first event of a response; None stands for the current id."""
    return {"type": "response.created", "response": response_object(response_id, "in_progress", **fields)}


def in_progress(response_id: str | None = None, **fields: Any) -> Json:
    """`response.in_progress`."""
    return {"type": "response.in_progress", "response": response_object(response_id, "in_progress", **fields)}


def completed(
    response_id: str | None = None,
    *,
    output: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
    end_turn: bool | None = None,
    **fields: Any,
) -> Json:
    """`response.completed`.

    Args:
        usage: see `ev.usage`; None takes its defaults.
        end_turn: the Codex backend's flag inside the response; None leaves it out.
    """
    if end_turn is not None:
        fields["end_turn"] = end_turn
    spent = token_usage() if usage is None else usage
    response = response_object(response_id, "completed", output=output, usage=spent, **fields)
    return {"type": "response.completed", "response": response}


def item_added(item: Mapping[str, Any], output_index: int = 0) -> Json:
    """`response.output_item.added`."""
    return {"type": "response.output_item.added", "output_index": output_index, "item": item}


def item_done(item: Mapping[str, Any], output_index: int = 0) -> Json:
    """`response.output_item.done`."""
    return {"type": "response.output_item.done", "output_index": output_index, "item": item}


def _in_content(kind: str, item_id: str, output_index: int, content_index: int, **fields: Any) -> Json:
    place = {"item_id": item_id, "output_index": output_index, "content_index": content_index}
    return {"type": kind, **place, **fields}


def content_part_added(
    part: Mapping[str, Any] | None = None, *, item_id: str = MESSAGE, output_index: int = 0, content_index: int = 0
) -> Json:
    """`response.content_part.added`; an empty text part by default."""
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return _in_content(
        "response.content_part.added", item_id, output_index, content_index, part=empty if part is None else part
    )


def content_part_done(
    part: Mapping[str, Any], *, item_id: str = MESSAGE, output_index: int = 0, content_index: int = 0
) -> Json:
    """`response.content_part.done`."""
    return _in_content("response.content_part.done", item_id, output_index, content_index, part=part)


def text_delta(delta: str, *, item_id: str = MESSAGE, output_index: int = 0, content_index: int = 0) -> Json:
    """`response.output_text.delta`."""
    return _in_content("response.output_text.delta", item_id, output_index, content_index, delta=delta, logprobs=[])


def text_done(text: str, *, item_id: str = MESSAGE, output_index: int = 0, content_index: int = 0) -> Json:
    """`response.output_text.done`."""
    return _in_content("response.output_text.done", item_id, output_index, content_index, text=text, logprobs=[])


def annotation_added(
    annotation: Mapping[str, Any],
    *,
    annotation_index: int = 0,
    item_id: str = MESSAGE,
    output_index: int = 0,
    content_index: int = 0,
) -> Json:
    """`response.output_text.annotation.added`."""
    return _in_content(
        "response.output_text.annotation.added",
        item_id,
        output_index,
        content_index,
        annotation_index=annotation_index,
        annotation=annotation,
    )


def refusal_delta(delta: str, *, item_id: str = MESSAGE, output_index: int = 0, content_index: int = 0) -> Json:
    """`response.refusal.delta`."""
    return _in_content("response.refusal.delta", item_id, output_index, content_index, delta=delta)


def refusal_done(text: str, *, item_id: str = MESSAGE, output_index: int = 0, content_index: int = 0) -> Json:
    """`response.refusal.done`."""
    return _in_content("response.refusal.done", item_id, output_index, content_index, refusal=text)


def reasoning_delta(delta: str, *, item_id: str = REASONING, output_index: int = 0, content_index: int = 0) -> Json:
    """`response.reasoning_text.delta`."""
    return _in_content("response.reasoning_text.delta", item_id, output_index, content_index, delta=delta)


def reasoning_done(text: str, *, item_id: str = REASONING, output_index: int = 0, content_index: int = 0) -> Json:
    """`response.reasoning_text.done`."""
    return _in_content("response.reasoning_text.done", item_id, output_index, content_index, text=text)


def _in_summary(kind: str, item_id: str, output_index: int, summary_index: int, **fields: Any) -> Json:
    place = {"item_id": item_id, "output_index": output_index, "summary_index": summary_index}
    return {"type": kind, **place, **fields}


def summary_part_added(*, item_id: str = REASONING, output_index: int = 0, summary_index: int = 0) -> Json:
    """`response.reasoning_summary_part.added`, with an empty part."""
    part = {"type": "summary_text", "text": ""}
    return _in_summary("response.reasoning_summary_part.added", item_id, output_index, summary_index, part=part)


def summary_part_done(
    text: str, *, status: str | None = None, item_id: str = REASONING, output_index: int = 0, summary_index: int = 0
) -> Json:
    """`response.reasoning_summary_part.done`; status is only ever incomplete, None leaves it out."""
    part = {"type": "summary_text", "text": text}
    event = _in_summary("response.reasoning_summary_part.done", item_id, output_index, summary_index, part=part)
    return event if status is None else {**event, "status": status}


def summary_delta(delta: str, *, item_id: str = REASONING, output_index: int = 0, summary_index: int = 0) -> Json:
    """`response.reasoning_summary_text.delta`."""
    return _in_summary("response.reasoning_summary_text.delta", item_id, output_index, summary_index, delta=delta)


def summary_done(text: str, *, item_id: str = REASONING, output_index: int = 0, summary_index: int = 0) -> Json:
    """`response.reasoning_summary_text.done`."""
    return _in_summary("response.reasoning_summary_text.done", item_id, output_index, summary_index, text=text)


def _of_item(kind: str, item_id: str, output_index: int, **fields: Any) -> Json:
    return {"type": kind, "item_id": item_id, "output_index": output_index, **fields}


def arguments_delta(delta: str, *, item_id: str = f"fc_{KEY}", output_index: int = 0) -> Json:
    """`response.function_call_arguments.delta`."""
    return _of_item("response.function_call_arguments.delta", item_id, output_index, delta=delta)


def arguments_done(arguments: str, *, item_id: str = f"fc_{KEY}", output_index: int = 0) -> Json:
    """`response.function_call_arguments.done`."""
    return _of_item("response.function_call_arguments.done", item_id, output_index, arguments=arguments)


def custom_input_delta(delta: str, *, item_id: str = f"ctc_{KEY}", output_index: int = 0) -> Json:
    """`response.custom_tool_call_input.delta`."""
    return _of_item("response.custom_tool_call_input.delta", item_id, output_index, delta=delta)


def custom_input_done(input: str, *, item_id: str = f"ctc_{KEY}", output_index: int = 0) -> Json:
    """`response.custom_tool_call_input.done`."""
    return _of_item("response.custom_tool_call_input.done", item_id, output_index, input=input)


Search = Literal["in_progress", "searching", "completed"]


def file_search(phase: Search, *, item_id: str = f"fs_{KEY}", output_index: int = 0) -> Json:
    """`response.file_search_call.<phase>`."""
    return _of_item(f"response.file_search_call.{phase}", item_id, output_index)


def web_search(phase: Search, *, item_id: str = f"ws_{KEY}", output_index: int = 0) -> Json:
    """`response.web_search_call.<phase>`."""
    return _of_item(f"response.web_search_call.{phase}", item_id, output_index)


def code_interpreter(
    phase: Literal["in_progress", "interpreting", "completed"], *, item_id: str = f"ci_{KEY}", output_index: int = 0
) -> Json:
    """`response.code_interpreter_call.<phase>`."""
    return _of_item(f"response.code_interpreter_call.{phase}", item_id, output_index)


def code_delta(delta: str, *, item_id: str = f"ci_{KEY}", output_index: int = 0) -> Json:
    """`response.code_interpreter_call_code.delta`."""
    return _of_item("response.code_interpreter_call_code.delta", item_id, output_index, delta=delta)


def code_done(code: str, *, item_id: str = f"ci_{KEY}", output_index: int = 0) -> Json:
    """`response.code_interpreter_call_code.done`."""
    return _of_item("response.code_interpreter_call_code.done", item_id, output_index, code=code)


def image_generation(
    phase: Literal["in_progress", "generating", "completed"], *, item_id: str = f"ig_{KEY}", output_index: int = 0
) -> Json:
    """`response.image_generation_call.<phase>`."""
    return _of_item(f"response.image_generation_call.{phase}", item_id, output_index)


def partial_image(
    image_b64: str, *, index: int = 0, item_id: str = f"ig_{KEY}", output_index: int = 0, **fields: str
) -> Json:
    """`response.image_generation_call.partial_image`; `fields`: size, quality, background, output_format."""
    return _of_item(
        "response.image_generation_call.partial_image",
        item_id,
        output_index,
        partial_image_index=index,
        partial_image_b64=image_b64,
        **fields,
    )


def mcp_arguments_delta(delta: str, *, item_id: str = f"mcp_{KEY}", output_index: int = 0) -> Json:
    """`response.mcp_call_arguments.delta`."""
    return _of_item("response.mcp_call_arguments.delta", item_id, output_index, delta=delta)


def mcp_arguments_done(arguments: str, *, item_id: str = f"mcp_{KEY}", output_index: int = 0) -> Json:
    """`response.mcp_call_arguments.done`."""
    return _of_item("response.mcp_call_arguments.done", item_id, output_index, arguments=arguments)


Run = Literal["in_progress", "completed", "failed"]


def mcp(phase: Run, *, item_id: str = f"mcp_{KEY}", output_index: int = 0) -> Json:
    """`response.mcp_call.<phase>`."""
    return _of_item(f"response.mcp_call.{phase}", item_id, output_index)


def mcp_listing(phase: Run, *, item_id: str = f"mcpl_{KEY}", output_index: int = 0) -> Json:
    """`response.mcp_list_tools.<phase>`."""
    return _of_item(f"response.mcp_list_tools.{phase}", item_id, output_index)


def shell_command_added(command: str = "", *, command_index: int = 0, output_index: int = 0) -> Json:
    """`response.shell_call_command.added`; it names no item."""
    place = {"output_index": output_index, "command_index": command_index}
    return {"type": "response.shell_call_command.added", **place, "command": command}


def shell_command_delta(delta: str, *, command_index: int = 0, output_index: int = 0) -> Json:
    """`response.shell_call_command.delta`; it names no item."""
    place = {"output_index": output_index, "command_index": command_index}
    return {"type": "response.shell_call_command.delta", **place, "delta": delta}


def shell_command_done(command: str, *, command_index: int = 0, output_index: int = 0) -> Json:
    """`response.shell_call_command.done`; it names no item."""
    place = {"output_index": output_index, "command_index": command_index}
    return {"type": "response.shell_call_command.done", **place, "command": command}


def shell_output_delta(
    stdout: str = "", *, stderr: str = "", item_id: str = f"sho_{KEY}", command_index: int = 0, output_index: int = 0
) -> Json:
    """`response.shell_call_output_content.delta`."""
    delta = {"stdout": stdout, "stderr": stderr}
    return _of_item(
        "response.shell_call_output_content.delta", item_id, output_index, command_index=command_index, delta=delta
    )


def shell_output_done(
    stdout: str = "",
    *,
    stderr: str = "",
    exit_code: int = 0,
    item_id: str = f"sho_{KEY}",
    command_index: int = 0,
    output_index: int = 0,
) -> Json:
    """`response.shell_call_output_content.done`."""
    output = [{"stdout": stdout, "stderr": stderr, "outcome": {"type": "exit", "exit_code": exit_code}}]
    return _of_item(
        "response.shell_call_output_content.done", item_id, output_index, command_index=command_index, output=output
    )


def compacting(*, item_id: str = f"cmp_{KEY}", output_index: int = 0) -> Json:
    """`response.compaction.compacting`."""
    return _of_item("response.compaction.compacting", item_id, output_index)


def audio_delta(delta: str) -> Json:
    """`response.audio.delta`, base64."""
    return {"type": "response.audio.delta", "delta": delta}


def audio_done() -> Json:
    """`response.audio.done`."""
    return {"type": "response.audio.done"}


def transcript_delta(delta: str) -> Json:
    """`response.audio.transcript.delta`."""
    return {"type": "response.audio.transcript.delta", "delta": delta}


def transcript_done() -> Json:
    """`response.audio.transcript.done`."""
    return {"type": "response.audio.transcript.done"}


def steer_accepted(steer_id: str, previous_response_id: str) -> Json:
    """`response.steer.accepted`: the service owns the input now."""
    return {
        "type": "response.steer.accepted",
        "steer": {"id": steer_id, "previous_response_id": previous_response_id},
    }


def steer_pending(steer_id: str, previous_response_id: str, required_input: Sequence[Mapping[str, Any]]) -> Json:
    """`response.steer.pending`: the input waits for the tool outputs that `required_input` names."""
    return {
        "type": "response.steer.pending",
        "steer": {"id": steer_id, "previous_response_id": previous_response_id},
        "reason": "waiting_for_required_input",
        "required_input": list(required_input),
    }


def steer_failed(
    code: str, message: str, *, previous_response_id: str, input: Any, steer_id: str | None = None
) -> Json:
    """`response.steer.failed`: the input comes back; without an id when it was never accepted."""
    steer: Json = {"previous_response_id": previous_response_id, "input": input}
    if steer_id is not None:
        steer["id"] = steer_id
    problem = {"type": "invalid_request_error", "code": code, "message": message}
    return {"type": "response.steer.failed", "error": problem, "steer": steer}


def codex_rate_limits(
    *,
    primary_used_percent: float = 42.0,
    window_minutes: int = 300,
    reset_at: int = 1_700_000_000,
    plan_type: str = "plus",
    credits: Mapping[str, Any] | None = None,
    limit_name: str | None = None,
) -> Json:
    """`codex.rate_limits`, which only the Codex backend sends."""
    window = {"used_percent": primary_used_percent, "window_minutes": window_minutes, "reset_at": reset_at}
    event: Json = {
        "type": "codex.rate_limits",
        "plan_type": plan_type,
        "rate_limits": {"primary": window, "secondary": None},
        "credits": None if credits is None else dict(credits),
    }
    return event if limit_name is None else {**event, "limit_name": limit_name}


def codex_metadata(
    *, headers: Mapping[str, str] | None = None, turn_state: str | None = None, codex: bool = False, **fields: Any
) -> Json:
    """`response.metadata`, or `codex.response.metadata` with `codex=True`.

    Args:
        headers: response headers told inside the stream.
        turn_state: added to the headers as `x-codex-turn-state`.
    """
    told = dict(headers or {})
    if turn_state is not None:
        told["x-codex-turn-state"] = turn_state
    kind = "codex.response.metadata" if codex else "response.metadata"
    return {"type": kind, "headers": told, **fields}


def codex_timing(**timing_metrics: float) -> Json:
    """`responsesapi.websocket_timing`."""
    return {"type": "responsesapi.websocket_timing", "timing_metrics": timing_metrics}

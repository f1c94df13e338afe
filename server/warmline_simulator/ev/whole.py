"""Whole answers: every event of a response in the order in which the service sends them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from warmline_simulator.ev import errors, items, single
from warmline_simulator.ev.response import token_usage

Json = dict[str, Any]
_PIECE = re.compile(r"\s*\S+|\s+$")


def pieces(text: str) -> list[str]:
    """The text in pieces of a word each, blanks before the word; together they are the text."""
    return _PIECE.findall(text)


def _never() -> bool:
    return False


def item_events(item: Mapping[str, Any], output_index: int = 0, *, stop: Callable[[], bool] = _never) -> Iterator[Json]:
    """Every event with which an item is streamed, from `output_item.added` to `output_item.done`.

    Args:
        item: the finished item.
        stop: asked before each piece of a message's text; once true the item ends there as incomplete.
    """
    kind = str(item.get("type"))
    if kind == "message":
        yield from _message_events(item, output_index, stop)
        return
    yield single.item_added(_unfinished(item), output_index)
    inner = _INNER.get(kind)
    if inner is not None:
        yield from inner(item, output_index)
    yield single.item_done(item, output_index)


_EMPTY: dict[str, Json] = {
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
    "reasoning": {"summary": []},
    "mcp_call": {"arguments": "", "output": None},
    "code_interpreter_call": {"code": None},
    "image_generation_call": {"result": None},
}


def _unfinished(item: Mapping[str, Any]) -> Json:
    """The item as it is announced: nothing produced yet."""
    start = {**item, **_EMPTY.get(str(item.get("type")), {})}
    if item.get("type") == "reasoning":
        start.pop("encrypted_content", None)
        start.pop("content", None)
    if "status" in start:
        start["status"] = "in_progress"
    return start


def _message_events(item: Mapping[str, Any], index: int, stop: Callable[[], bool]) -> Iterator[Json]:
    yield single.item_added({**item, "status": "in_progress", "content": []}, index)
    done: list[Json] = []
    status = str(item.get("status", "completed"))
    for content_index, part in enumerate(item["content"]):
        place = {"item_id": item["id"], "output_index": index, "content_index": content_index}
        if part["type"] == "refusal":
            yield single.content_part_added({"type": "refusal", "refusal": ""}, **place)
            yield from (single.refusal_delta(piece, **place) for piece in pieces(part["refusal"]))
            yield single.refusal_done(part["refusal"], **place)
        else:
            yield single.content_part_added(**place)
            text = ""
            for piece in pieces(part["text"]):
                if stop():
                    status = "incomplete"
                    break
                text += piece
                yield single.text_delta(piece, **place)
            for number, annotation in enumerate(part.get("annotations", ())):
                yield single.annotation_added(annotation, annotation_index=number, **place)
            yield single.text_done(text, **place)
            part = {**part, "text": text}
        yield single.content_part_done(part, **place)
        done.append(part)
    yield single.item_done({**item, "status": status, "content": done}, index)


def _reasoning_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    for number, part in enumerate(item.get("summary", ())):
        place = {"item_id": item["id"], "output_index": index, "summary_index": number}
        yield single.summary_part_added(**place)
        yield from (single.summary_delta(piece, **place) for piece in pieces(part["text"]))
        yield single.summary_done(part["text"], **place)
        yield single.summary_part_done(part["text"], **place)
    for number, part in enumerate(item.get("content") or ()):
        place = {"item_id": item["id"], "output_index": index, "content_index": number}
        yield from (single.reasoning_delta(piece, **place) for piece in pieces(part["text"]))
        yield single.reasoning_done(part["text"], **place)


def _function_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    yield from (single.arguments_delta(piece, **place) for piece in pieces(item["arguments"]))
    yield single.arguments_done(item["arguments"], **place)


def _custom_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    yield from (single.custom_input_delta(piece, **place) for piece in pieces(item["input"]))
    yield single.custom_input_done(item["input"], **place)


def _web_search_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    yield single.web_search("in_progress", item_id=item["id"], output_index=index)
    yield single.web_search("searching", item_id=item["id"], output_index=index)
    yield single.web_search("completed", item_id=item["id"], output_index=index)


def _file_search_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    yield single.file_search("in_progress", item_id=item["id"], output_index=index)
    yield single.file_search("searching", item_id=item["id"], output_index=index)
    yield single.file_search("completed", item_id=item["id"], output_index=index)


def _code_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    yield single.code_interpreter("in_progress", **place)
    yield from (single.code_delta(piece, **place) for piece in pieces(item["code"]))
    yield single.code_done(item["code"], **place)
    yield single.code_interpreter("interpreting", **place)
    yield single.code_interpreter("completed", **place)


def _image_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    yield single.image_generation("in_progress", **place)
    yield single.image_generation("generating", **place)
    yield single.partial_image(item["result"], **place)
    yield single.image_generation("completed", **place)


def _mcp_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    yield single.mcp("in_progress", **place)
    yield from (single.mcp_arguments_delta(piece, **place) for piece in pieces(item["arguments"]))
    yield single.mcp_arguments_done(item["arguments"], **place)
    yield single.mcp("failed" if item.get("error") else "completed", **place)


def _mcp_list_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    yield single.mcp_listing("in_progress", item_id=item["id"], output_index=index)
    yield single.mcp_listing("completed", item_id=item["id"], output_index=index)


def _shell_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    for number, command in enumerate(item["action"]["commands"]):
        yield single.shell_command_added(command_index=number, output_index=index)
        for piece in pieces(command):
            yield single.shell_command_delta(piece, command_index=number, output_index=index)
        yield single.shell_command_done(command, command_index=number, output_index=index)


def _compaction_events(item: Mapping[str, Any], index: int) -> Iterator[Json]:
    yield single.compacting(item_id=item["id"], output_index=index)


_INNER: dict[str, Callable[[Mapping[str, Any], int], Iterator[Json]]] = {
    "reasoning": _reasoning_events,
    "function_call": _function_events,
    "custom_tool_call": _custom_events,
    "web_search_call": _web_search_events,
    "file_search_call": _file_search_events,
    "code_interpreter_call": _code_events,
    "image_generation_call": _image_events,
    "mcp_call": _mcp_events,
    "mcp_list_tools": _mcp_list_events,
    "shell_call": _shell_events,
    "compaction": _compaction_events,
}


def _opening(response_id: str | None, output: Sequence[Mapping[str, Any]]) -> list[Json]:
    opening = [single.created(response_id), single.in_progress(response_id)]
    for index, item in enumerate(output):
        opening.extend(item_events(item, index))
    return opening


def _numbered(output: Sequence[Mapping[str, Any]]) -> list[Json]:
    """The items with distinct ids: a second default id of the same kind gets its position."""
    taken: set[str] = set()
    numbered: list[Json] = []
    for index, item in enumerate(output):
        renamed = dict(item)
        for name in ("id", "call_id"):
            value = renamed.get(name)
            if isinstance(value, str) and value in taken:
                renamed[name] = f"{value}_{index}"
            if isinstance(renamed.get(name), str):
                taken.add(str(renamed[name]))
        numbered.append(renamed)
    return numbered


def response_of(
    *output: Mapping[str, Any],
    response_id: str | None = None,
    usage: Mapping[str, Any] | None = None,
    end_turn: bool | None = None,
    **fields: Any,
) -> list[Json]:
    """All events of a completed response that puts out these items.

    Args:
        output: finished items, see the item builders.
        response_id: None lets the simulator choose one.
        usage: see `ev.usage`; None takes its defaults.
        fields: further fields of the final response object.
    """
    done = _numbered(output)
    final = single.completed(response_id, output=done, usage=usage, end_turn=end_turn, **fields)
    return [*_opening(response_id, done), final]


def text_response(text: str, **options: Any) -> list[Json]:
    """A completed response with one message; options as of `response_of`."""
    return response_of(items.message(text), **options)


def refusal_response(text: str, **options: Any) -> list[Json]:
    """A completed response whose message is a refusal."""
    return response_of(items.refusal(text), **options)


def reasoning_response(
    summary: str | Sequence[str],
    text: str,
    *,
    encrypted_content: str | None = None,
    content: str | Sequence[str] | None = None,
    **options: Any,
) -> list[Json]:
    """A completed response that reasons and then speaks."""
    thought = items.reasoning(summary, encrypted_content=encrypted_content, content=content)
    return response_of(thought, items.message(text), **options)


def function_call_response(name: str, arguments: str = "{}", call_id: str | None = None, **options: Any) -> list[Json]:
    """A completed response that calls a function."""
    return response_of(items.function_call(name, arguments, call_id=call_id), **options)


def custom_tool_call_response(name: str, input: str, call_id: str | None = None, **options: Any) -> list[Json]:
    """A completed response that calls a custom tool."""
    return response_of(items.custom_tool_call(name, input, call_id=call_id), **options)


def local_shell_response(command: Sequence[str], call_id: str | None = None, **options: Any) -> list[Json]:
    """A completed response that calls the local shell."""
    return response_of(items.local_shell_call(command, call_id=call_id), **options)


def shell_response(commands: Sequence[str], call_id: str | None = None, **options: Any) -> list[Json]:
    """A completed response that calls the shell tool."""
    return response_of(items.shell_call(commands, call_id=call_id), **options)


def apply_patch_response(path: str, diff: str, call_id: str | None = None, **options: Any) -> list[Json]:
    """A completed response that patches a file."""
    return response_of(items.apply_patch_call(path, diff, call_id=call_id), **options)


def web_search_response(query: str, text: str, **options: Any) -> list[Json]:
    """A completed response that searched the web and then speaks."""
    return response_of(items.web_search_call(query), items.message(text), **options)


def warm_up_response(response_id: str | None = None, *, input_tokens: int = 12) -> list[Json]:
    """What `generate: false` is answered with: created, then completed without output and without output tokens."""
    return [
        single.created(response_id),
        single.completed(response_id, usage=token_usage(input_tokens, 0)),
    ]


def failed_response(
    code: str = "server_error", message: str = "The model failed.", *, text: str = "", response_id: str | None = None
) -> list[Json]:
    """A response that fails, after the message `text` if there is one."""
    output = [items.message(text)] if text else []
    return [*_opening(response_id, output), errors.failed(code, message, response_id=response_id)]


def incomplete_response(
    reason: str = "max_output_tokens", text: str = "", *, response_id: str | None = None
) -> list[Json]:
    """A response that ends before its time, with the message `text`."""
    output = [items.message(text, status="incomplete")] if text else []
    final = errors.incomplete(reason, response_id=response_id, output=output, usage=token_usage())
    return [*_opening(response_id, output), final]

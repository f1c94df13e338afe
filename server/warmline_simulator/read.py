"""Readers of requests: what a test wants to know about a body the simulator received.

Every reader takes a `RequestRecord` or a body (a dict). Most look at the request's own `input` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from warmline_simulator.records import Json, RequestRecord

Readable = RequestRecord | Mapping[str, Any]


def body(request: Readable) -> Mapping[str, Any]:
    """The JSON body itself."""
    return request.body if isinstance(request, RequestRecord) else request


def input_items(request: Readable) -> list[Json]:
    """The items of `input`, oldest first; a plain string counts as one user message."""
    given = body(request).get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def visible_items(request: RequestRecord) -> list[Json]:
    """The whole conversation the model sees, chained responses included. LookupError when it is not known."""
    if request.visible_input is None:
        raise LookupError(f"visible input of request {request.index}: not known — it continues an unknown response")
    return request.visible_input


def item_type(item: Mapping[str, Any]) -> str:
    """The type of an item; a message may leave it out."""
    return str(item.get("type") or "message")


def inputs_of_type(request: Readable, kind: str) -> list[Json]:
    """The input items of that type, oldest first."""
    return [item for item in input_items(request) if item_type(item) == kind]


def text_of(content: Any) -> str:
    """The text of a message's or output's content: a string, or the text parts joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") or part.get("refusal") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def message_texts(request: Readable, role: str = "user") -> list[str]:
    """The texts of that role's messages, oldest first."""
    messages = inputs_of_type(request, "message")
    return [text_of(item.get("content")) for item in messages if item.get("role") == role]


def image_urls(request: Readable, role: str = "user") -> list[str]:
    """The URLs of that role's images, oldest first."""
    messages = [item for item in inputs_of_type(request, "message") if item.get("role") == role]
    parts = (part for item in messages for part in _parts(item.get("content")))
    return [str(part["image_url"]) for part in parts if part.get("type") == "input_image" and part.get("image_url")]


def _parts(content: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, list):
        yield from (part for part in content if isinstance(part, dict))


def calls(request: Readable, name: str | None = None) -> list[Json]:
    """The tool calls among the inputs, of any kind, optionally only those of one tool."""
    found = [item for item in input_items(request) if item_type(item).endswith("_call") and "call_id" in item]
    return [item for item in found if name is None or item.get("name") == name]


def has_function_call(request: Readable, call_id: str) -> bool:
    """Whether the inputs hold a function call of that id."""
    return any(item.get("call_id") == call_id for item in inputs_of_type(request, "function_call"))


def find_output(request: Readable, call_id: str) -> Json | None:
    """The output item that answers that call, of any kind; None when there is none."""
    for item in input_items(request):
        if item_type(item).endswith("_output") and call_id in (item.get("call_id"), item.get("id")):
            return item
    return None


def call_output(request: Readable, call_id: str) -> Json:
    """The output item that answers that call. LookupError when there is none."""
    found = find_output(request, call_id)
    if found is None:
        answered = [item.get("call_id") for item in input_items(request) if item_type(item).endswith("_output")]
        raise LookupError(f"output of call {call_id!r}: not in the request — outputs there: {answered}")
    return found


def call_output_text(request: Readable, call_id: str) -> str:
    """The text of that call's output. LookupError when there is none."""
    return text_of(call_output(request, call_id).get("output"))


def call_output_success(request: Readable, call_id: str) -> bool | None:
    """The `success` flag of that call's output, where its kind has one; None when it says nothing."""
    found = call_output(request, call_id)
    nested = found.get("output")
    value = nested.get("success") if isinstance(nested, dict) else found.get("success")
    return value if isinstance(value, bool) else None


def call_arguments(request: Readable, call_id: str) -> Any:
    """The decoded arguments of the function call of that id. LookupError when it is not there."""
    for item in inputs_of_type(request, "function_call"):
        if item.get("call_id") == call_id:
            return msgspec.json.decode(str(item.get("arguments")))
    raise LookupError(f"arguments of call {call_id!r}: not in the request")


def encrypted_contents(request: Readable) -> list[str]:
    """The encrypted contents of the reasoning items, oldest first."""
    return [
        str(item["encrypted_content"]) for item in inputs_of_type(request, "reasoning") if item.get("encrypted_content")
    ]


def instructions(request: Readable) -> str | None:
    """The instructions; None when absent."""
    given = body(request).get("instructions")
    return given if isinstance(given, str) else None


def tool_names(request: Readable) -> list[str]:
    """The tools offered: a function's or custom tool's name, else the tool's type."""
    tools = body(request).get("tools")
    return [str(tool.get("name") or tool.get("type")) for tool in tools] if isinstance(tools, list) else []


def previous_response_id(request: Readable) -> str | None:
    """The response it continues; None for a full request."""
    given = body(request).get("previous_response_id")
    return given if isinstance(given, str) else None


def is_warm_up(request: Readable) -> bool:
    """Whether it only prepares state (`generate: false` or `prompt_cache_options.prewarm`)."""
    options = body(request).get("prompt_cache_options")
    return body(request).get("generate") is False or (isinstance(options, dict) and options.get("prewarm") is True)


def client_metadata(request: Readable, key: str) -> str | None:
    """One value of `client_metadata`; None when absent."""
    metadata = body(request).get("client_metadata")
    value = metadata.get(key) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else None


def header(request: RequestRecord, name: str) -> str | None:
    """First value of that request header, without regard to case; None when absent."""
    return request.headers.get(name)

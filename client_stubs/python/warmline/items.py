"""Items of a conversation and options of a request, from what callers have at hand. Pure."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from warmline.v1 import types_pb2

Json = Mapping[str, Any] | bytes
"""One JSON object: a mapping, or its UTF-8 bytes, which are sent as they are."""

ItemLike = types_pb2.Item | Json | str
"""An item: a message of the contract, one JSON object, or a user's text."""


class Options(TypedDict, total=False):
    """Fields of the request body, as `warmline.v1.RequestOptions` explains them; a key left out says nothing."""

    model: str
    instructions: str
    tools: Sequence[Json]
    tool_choice: str | Json
    """A word such as "auto", or an object."""
    parallel_tool_calls: bool
    reasoning_effort: str
    reasoning_summary: str
    verbosity: str
    text_format: Json
    service_tier: str
    store: bool
    include: Sequence[str]
    prompt_cache_key: str
    max_output_tokens: int


def user(text: str) -> types_pb2.Item:
    """A user's message of one text."""
    return _message("user", text)


def developer(text: str) -> types_pb2.Item:
    """A developer's message of one text."""
    return _message("developer", text)


def system(text: str) -> types_pb2.Item:
    """A system message of one text."""
    return _message("system", text)


def assistant(text: str) -> types_pb2.Item:
    """An answer of the model, as one text."""
    return _message("assistant", text)


def function_output(call_id: str, output: str) -> types_pb2.Item:
    """The output of a function call; `call_id` is the call's."""
    return types_pb2.Item(function_call_output=types_pb2.FunctionCallOutput(call_id=call_id, output=output))


def custom_tool_output(call_id: str, output: str) -> types_pb2.Item:
    """The output of a custom tool's call; `call_id` is the call's."""
    return item({"type": "custom_tool_call_output", "call_id": call_id, "output": output})


def item(value: ItemLike) -> types_pb2.Item:
    """Makes an item; bytes are sent as they are, a text is a user's message."""
    match value:
        case types_pb2.Item():
            return value
        case str():
            return user(value)
        case _:
            return types_pb2.Item(json=json_bytes(value))


def items(values: ItemLike | Iterable[ItemLike]) -> list[types_pb2.Item]:
    """Makes the items of a conversation; a single one may stand for itself."""
    if isinstance(values, (types_pb2.Item, str, bytes, Mapping)):
        return [item(values)]
    return [item(value) for value in values]


def json_bytes(value: Json) -> bytes:
    """One JSON object as bytes; bytes are returned as they are.

    Raises:
        TypeError, ValueError: the mapping has a value that JSON cannot hold.
    """
    # ASCII, because a lone surrogate (half of an emoji that a model cut) has no UTF-8 form.
    return value if isinstance(value, bytes) else _dump(dict(value))


def set_options(message: types_pb2.RequestOptions, options: Options) -> None:
    """Writes options into a message; keys that are left out stay as they are.

    Raises:
        TypeError: a key that is no option.
    """
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        raise TypeError(f"set request options: unknown {', '.join(unknown)}; known are {', '.join(_OPTION_NAMES)}")
    for name in _SCALARS & options.keys():
        setattr(message, name, options[name])  # type: ignore[literal-required]
    if "tools" in options:
        message.tools.CopyFrom(types_pb2.ToolList(tools_json=[json_bytes(tool) for tool in options["tools"]]))
    if "tool_choice" in options:
        choice = options["tool_choice"]
        message.tool_choice_json = _dump(choice) if isinstance(choice, str) else json_bytes(choice)
    if "reasoning_effort" in options:
        message.reasoning.effort = options["reasoning_effort"]
    if "reasoning_summary" in options:
        message.reasoning.summary = options["reasoning_summary"]
    if "verbosity" in options:
        message.text.verbosity = options["verbosity"]
    if "text_format" in options:
        message.text.format_json = json_bytes(options["text_format"])
    if "include" in options:
        message.include.CopyFrom(types_pb2.StringList(values=options["include"]))


def verbatim_member(payload: bytes, name: str) -> bytes | None:
    """The value of an object's member, byte for byte as it stands; None when there is none.

    Args:
        payload: one JSON object in UTF-8.
    """
    try:
        text = payload.decode()
        at = _next_token(text, 0)
        while text[at] in "{,":
            at = _next_token(text, at + 1)
            if text[at] == "}":
                return None
            key, at = _DECODER.raw_decode(text, at)
            at = _next_token(text, _next_token(text, at) + 1)
            _, end = _DECODER.raw_decode(text, at)
            if key == name:
                return text[at:end].encode()
            at = _next_token(text, end)
    except (ValueError, IndexError):
        return None
    return None


def _message(role: str, text: str) -> types_pb2.Item:
    return types_pb2.Item(message=types_pb2.TextMessage(role=role, text=text))


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _next_token(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_OPTION_NAMES = sorted(Options.__annotations__)
_SCALARS = frozenset(
    {
        "model",
        "instructions",
        "parallel_tool_calls",
        "service_tier",
        "store",
        "prompt_cache_key",
        "max_output_tokens",
    }
)

"""Checks of the input items, the tools, the tool choice and the text format. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmline_simulator.fields import missing, text, wrong_type, wrong_value
from warmline_simulator.refusal import Refusal
from warmline_simulator.schema import is_name

ROLES = ("user", "assistant", "system", "developer")
CONTENT_TYPES = (
    "input_text",
    "input_image",
    "input_file",
    "input_audio",
    "output_text",
    "refusal",
    "text",
    "summary_text",
)

REQUIRED: dict[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "reasoning": ("summary",),
    "function_call": ("name", "arguments", "call_id"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("name", "input", "call_id"),
    "custom_tool_call_output": ("call_id", "output"),
    "local_shell_call": ("action", "call_id"),
    "local_shell_call_output": ("output",),
    "shell_call": ("action", "call_id"),
    "shell_call_output": ("call_id", "output"),
    "apply_patch_call": ("operation", "call_id"),
    "apply_patch_call_output": ("call_id", "status"),
    "computer_call": ("call_id",),
    "computer_call_output": ("call_id", "output"),
    "web_search_call": (),
    "file_search_call": (),
    "code_interpreter_call": (),
    "image_generation_call": (),
    "mcp_list_tools": ("server_label", "tools"),
    "mcp_call": ("name", "arguments", "server_label"),
    "mcp_approval_request": ("name", "arguments", "server_label"),
    "mcp_approval_response": ("approval_request_id", "approve"),
    "tool_search_call": ("arguments",),
    "tool_search_output": ("tools",),
    "program": ("code", "call_id"),
    "program_output": ("result", "call_id"),
    "additional_tools": ("tools",),
    "compaction": ("encrypted_content",),
    "compaction_summary": ("encrypted_content",),
    "compaction_trigger": (),
    "item_reference": ("id",),
}
"""Item types a request may hold, and the fields each must have."""

TOOLS = (
    "function",
    "custom",
    "local_shell",
    "shell",
    "apply_patch",
    "web_search",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "web_search_2025_08_26",
    "file_search",
    "code_interpreter",
    "image_generation",
    "mcp",
    "computer",
    "computer_use_preview",
    "namespace",
    "tool_search",
    "programmatic_tool_calling",
)
CHOICES = ("none", "auto", "required")
STRINGS = ("name", "arguments", "role")


def check_input(value: Any, name: str) -> Refusal | None:
    """A string, or an array of items."""
    if isinstance(value, str):
        return None
    if not isinstance(value, list):
        return wrong_type(name, "one of a string or an array of input items", value)
    for position, item in enumerate(value):
        refusal = _check_item(item, f"{name}[{position}]")
        if refusal is not None:
            return refusal
    return None


def _check_item(item: Any, name: str) -> Refusal | None:
    if not isinstance(item, dict):
        return wrong_type(name, "an object", item)
    kind = item.get("type", "message" if "role" in item else None)
    if kind is None:
        return missing(f"{name}.type")
    required = REQUIRED.get(kind) if isinstance(kind, str) else None
    if required is None:
        return wrong_value(f"{name}.type", kind, f"Supported values are: {', '.join(REQUIRED)}.")
    for field in required:
        if item.get(field) is None:
            return missing(f"{name}.{field}")
        if field in STRINGS and kind != "tool_search_call" and not isinstance(item[field], str):
            return wrong_type(f"{name}.{field}", "a string", item[field])
    if "call_id" in required and (not isinstance(item["call_id"], str) or not item["call_id"]):
        return _empty_call_id(item["call_id"], f"{name}.call_id")
    return _check_message(item, name) if kind == "message" else None


def _empty_call_id(value: Any, name: str) -> Refusal:
    if not isinstance(value, str):
        return wrong_type(name, "a string", value)
    text_ = f"Invalid '{name}': empty string. Expected a string with minimum length 1."
    return Refusal(400, "empty_string", text_, name)


def _check_message(item: Mapping[str, Any], name: str) -> Refusal | None:
    if item["role"] not in ROLES:
        return wrong_value(f"{name}.role", item["role"], f"Supported values are: {', '.join(ROLES)}.")
    content = item["content"]
    if isinstance(content, str):
        return None
    if not isinstance(content, list):
        return wrong_type(f"{name}.content", "one of a string or an array of content parts", content)
    for position, part in enumerate(content):
        place = f"{name}.content[{position}]"
        if not isinstance(part, dict):
            return wrong_type(place, "an object", part)
        if part.get("type") not in CONTENT_TYPES:
            return wrong_value(f"{place}.type", part.get("type"), f"Supported values are: {', '.join(CONTENT_TYPES)}.")
        if part["type"] in ("input_text", "output_text", "text") and not isinstance(part.get("text"), str):
            return (
                missing(f"{place}.text")
                if part.get("text") is None
                else wrong_type(f"{place}.text", "a string", part["text"])
            )
    return None


def check_tools(value: Any, name: str) -> Refusal | None:
    """An array of tools of known types; functions and custom tools have names."""
    if not isinstance(value, list):
        return wrong_type(name, "an array", value)
    for position, tool in enumerate(value):
        refusal = _check_tool(tool, f"{name}[{position}]")
        if refusal is not None:
            return refusal
    return None


def _check_tool(tool: Any, name: str) -> Refusal | None:
    if not isinstance(tool, dict):
        return wrong_type(name, "an object", tool)
    kind = tool.get("type")
    if kind is None:
        return missing(f"{name}.type")
    if kind not in TOOLS:
        return wrong_value(f"{name}.type", kind, f"Supported values are: {', '.join(TOOLS)}.")
    if kind not in ("function", "custom"):
        return None
    given = tool.get("name")
    if given is None:
        return missing(f"{name}.name")
    if not isinstance(given, str) or not is_name(given):
        return wrong_value(f"{name}.name", given, "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.")
    parameters = tool.get("parameters")
    if kind == "function" and parameters is not None and not isinstance(parameters, dict):
        return wrong_type(f"{name}.parameters", "an object", parameters)
    return None


def check_tool_choice(value: Any, name: str) -> Refusal | None:
    """none, auto, required, or an object that names a tool."""
    if isinstance(value, str):
        return None if value in CHOICES else wrong_value(name, value, f"Supported values are: {', '.join(CHOICES)}.")
    if not isinstance(value, dict):
        return wrong_type(name, "one of a string or an object", value)
    if not isinstance(value.get("type"), str):
        return missing(f"{name}.type")
    return missing(f"{name}.name") if value["type"] == "function" and not value.get("name") else None


def check_chosen_tool(body: Mapping[str, Any]) -> Refusal | None:
    """A tool choice that names a function or custom tool must name one of the tools."""
    choice = body.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") not in ("function", "custom"):
        return None
    names = [tool.get("name") for tool in body.get("tools") or () if tool["type"] == choice["type"]]
    if choice.get("name") in names:
        return None
    text_ = f"Tool choice '{str(choice.get('name'))[:80]}' not found in 'tools' parameter."
    return Refusal(400, None, text_, "tool_choice")


def check_format(value: Any, name: str) -> Refusal | None:
    """`text.format`: text, json_object, or json_schema with name and schema."""
    if not isinstance(value, dict):
        return wrong_type(name, "an object", value)
    kinds = ("text", "json_object", "json_schema")
    if value.get("type") not in kinds:
        return wrong_value(f"{name}.type", value.get("type"), f"Supported values are: {', '.join(kinds)}.")
    if value["type"] != "json_schema":
        return None
    for field in ("name", "schema"):
        if value.get(field) is None:
            return missing(f"{name}.{field}")
    return None if isinstance(value["schema"], dict) else wrong_type(f"{name}.schema", "an object", value["schema"])


def check_conversation(value: Any, name: str) -> Refusal | None:
    """An id, or an object with one."""
    if isinstance(value, str):
        return None
    if not isinstance(value, dict):
        return wrong_type(name, "one of a string or an object", value)
    return missing(f"{name}.id") if value.get("id") is None else text()(value["id"], f"{name}.id")

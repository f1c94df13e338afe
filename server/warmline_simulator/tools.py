"""Which tools the small model calls, and with what. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from warmline_simulator import ev, schema
from warmline_simulator.invariants import CALLS

Json = dict[str, Any]
_ASKED = re.compile(
    r"\b(?:use\s+(?:the\s+)?(?:tool|function)s?|call(?:\s+the)?(?:\s+(?:tool|function))?)\s+[`'\"]?([\w.-]+)", re.I
)
_KINDS = {"web_search_preview": "web_search", "web_search_preview_2025_03_11": "web_search"}


def name_of(tool: Mapping[str, Any]) -> str:
    """What a message calls a tool: its name, else its type."""
    kind = str(tool.get("type"))
    return str(tool.get("name") or _KINDS.get(kind, kind))


def owed(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The calls among the items that the client must answer."""
    return [item for item in items if item.get("type") in CALLS and item.get("execution") != "server"]


def wanted(body: Mapping[str, Any], user_text: str) -> list[Json]:
    """The tools to call, in order: those `tool_choice` forces, else those the message asks for."""
    offered = _offered(body)
    choice = body.get("tool_choice")
    if choice == "none" or not offered:
        return []
    if isinstance(choice, dict) and choice.get("type") != "allowed_tools":
        return [tool for tool in offered if choice.get("name") in (None, tool.get("name")) and _fits(choice, tool)][:1]
    asked = [name.rstrip(".") for name in _ASKED.findall(user_text)]
    found = [tool for name in dict.fromkeys(asked) for tool in offered if name_of(tool).lower() == name.lower()]
    if not found and re.search(r"\bweather\b", user_text, re.IGNORECASE):
        found = [tool for tool in offered if "weather" in name_of(tool).lower()][:1]
    if not found and choice == "required":
        found = offered[:1]
    return found[:1] if body.get("parallel_tool_calls") is False else found


def _offered(body: Mapping[str, Any]) -> list[Json]:
    tools = body.get("tools")
    return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []


def _fits(choice: Mapping[str, Any], tool: Mapping[str, Any]) -> bool:
    return choice.get("type") == tool.get("type")


def calls(body: Mapping[str, Any], user_text: str, key: str) -> list[Json]:
    """The call items for a message, ids included; empty when it asks for none.

    Args:
        key: makes the ids unique, see `ev.KEY`.
    """
    chosen = wanted(body, user_text)
    made = (_call(tool, user_text, f"{key}_{number}") for number, tool in enumerate(chosen))
    return [item for item in made if item is not None]


def _call(tool: Mapping[str, Any], user_text: str, key: str) -> Json | None:
    word = next(iter(re.findall(r"[A-Za-z]{3,}", user_text)[::-1]), "sample")
    call_id = f"call_{key}"
    match tool.get("type"):
        case "function":
            arguments = msgspec.json.encode(schema.value_for(tool.get("parameters") or {"type": "object"}, word=word))
            return ev.function_call(name_of(tool), arguments.decode(), id=f"fc_{key}", call_id=call_id)
        case "custom":
            return ev.custom_tool_call(name_of(tool), word, id=f"ctc_{key}", call_id=call_id)
        case "local_shell":
            return ev.local_shell_call(["echo", word], id=f"lsh_{key}", call_id=call_id)
        case "shell":
            return ev.shell_call([f"echo {word}"], id=f"sh_{key}", call_id=call_id)
        case "apply_patch":
            return ev.apply_patch_call(
                "notes.txt", f"@@\n+{word}\n", operation="create_file", id=f"apc_{key}", call_id=call_id
            )
        case "computer" | "computer_use_preview":
            return ev.computer_call(id=f"cu_{key}", call_id=call_id)
        case "web_search" | "web_search_preview" | "web_search_preview_2025_03_11":
            return ev.web_search_call(word, id=f"ws_{key}")
        case "file_search":
            return ev.file_search_call([word], id=f"fs_{key}")
        case "code_interpreter":
            return ev.code_interpreter_call(f"print({word!r})", id=f"ci_{key}")
        case "image_generation":
            return ev.image_generation_call("iVBORw0KGgo=", id=f"ig_{key}")
        case "mcp":
            return ev.mcp_call(word, server_label=str(tool.get("server_label")), output=word, id=f"mcp_{key}")
        case _:
            return None

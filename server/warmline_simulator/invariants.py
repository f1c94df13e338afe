"""What every conversation must satisfy: each tool output has its call, each call its output, no id is empty.

The service refuses what breaks this; a client that sends it has lost or doubled an item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CALL_OF_OUTPUT = {
    "function_call_output": ("function_call", "local_shell_call"),
    "custom_tool_call_output": ("custom_tool_call",),
    "local_shell_call_output": ("local_shell_call",),
    "shell_call_output": ("shell_call",),
    "apply_patch_call_output": ("apply_patch_call",),
    "computer_call_output": ("computer_call",),
    "tool_search_output": ("tool_search_call",),
}
"""Output item types and the calls they answer. Codex answers a local shell call with a function_call_output."""
CALLS = {call for calls in CALL_OF_OUTPUT.values() for call in calls}


def _id_of_output(item: Mapping[str, Any]) -> object:
    """The call an output names; the local shell's names it in `id`."""
    if item.get("type") == "local_shell_call_output":
        return item.get("call_id", item.get("id"))
    return item.get("call_id")


def _is_run_by_service(item: Mapping[str, Any]) -> bool:
    """A tool search that the service ran itself, which may be without its counterpart."""
    return item.get("execution") == "server"


def violations(visible: Sequence[Mapping[str, Any]], *, is_warm_up: bool) -> list[str]:
    """What is wrong with a conversation, one line each; empty when nothing is.

    Args:
        visible: all items the model sees, oldest first.
        is_warm_up: nothing is generated yet, so that outputs may still come.
    """
    found: list[str] = []
    open_calls: dict[str, str] = {}
    seen_calls: dict[str, set[str]] = {}
    answered: set[str] = set()
    for position, item in enumerate(visible):
        kind = str(item.get("type") or "message")
        if kind in CALLS and not _is_run_by_service(item):
            found += _take_call(item, kind, position, open_calls, seen_calls)
        elif kind in CALL_OF_OUTPUT and not _is_run_by_service(item):
            found += _take_output(item, kind, position, open_calls, seen_calls, answered)
    if not is_warm_up:
        found += [f"no tool output found for {kind} {call_id}" for call_id, kind in open_calls.items()]
    return found


def _take_call(
    item: Mapping[str, Any], kind: str, position: int, open_calls: dict[str, str], seen: dict[str, set[str]]
) -> list[str]:
    call_id = item.get("call_id")
    if not isinstance(call_id, str) or not call_id:
        return [f"{kind} at position {position} has an empty call_id"]
    if kind in seen.get(call_id, ()):
        return [f"{kind} {call_id} appears twice"]
    seen.setdefault(call_id, set()).add(kind)
    open_calls[call_id] = kind
    return []


def _take_output(
    item: Mapping[str, Any],
    kind: str,
    position: int,
    open_calls: dict[str, str],
    seen: dict[str, set[str]],
    answered: set[str],
) -> list[str]:
    call_id = _id_of_output(item)
    if not isinstance(call_id, str) or not call_id:
        return [f"{kind} at position {position} has an empty call_id"]
    if not seen.get(call_id, set()).intersection(CALL_OF_OUTPUT[kind]):
        return [f"no tool call found for {kind} {call_id}"]
    if call_id in answered:
        return [f"{kind} {call_id} appears twice"]
    answered.add(call_id)
    open_calls.pop(call_id, None)
    return []

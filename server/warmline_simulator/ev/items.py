"""Builders of conversation items: what a model puts out, and what a client sends back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmline_simulator.ev.response import KEY

Json = dict[str, Any]


def _id(prefix: str, given: str | None) -> str:
    return f"{prefix}_{KEY}" if given is None else given


def message(
    text: str,
    *,
    id: str | None = None,
    status: str = "completed",
    phase: str | None = None,
    annotations: Sequence[Json] = (),
) -> Json:
    """An assistant message with one text part."""
    part = {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}
    item: Json = {
        "id": _id("msg", id),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part],
    }
    return item if phase is None else {**item, "phase": phase}


def refusal(text: str, *, id: str | None = None) -> Json:
    """An assistant message that refuses."""
    part = {"type": "refusal", "refusal": text}
    return {"id": _id("msg", id), "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def reasoning(
    summary: str | Sequence[str] = (),
    *,
    encrypted_content: str | None = None,
    content: str | Sequence[str] | None = None,
    id: str | None = None,
) -> Json:
    """A reasoning item.

    Args:
        summary: summary parts, in order; a str is one part.
        encrypted_content: opaque; None leaves it out.
        content: readable reasoning parts; None leaves them out.
    """
    parts = [summary] if isinstance(summary, str) else summary
    item: Json = {
        "id": _id("rs", id),
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": part} for part in parts],
    }
    if content is not None:
        texts = [content] if isinstance(content, str) else content
        item["content"] = [{"type": "reasoning_text", "text": text} for text in texts]
    if encrypted_content is not None:
        item["encrypted_content"] = encrypted_content
    return item


def function_call(
    name: str, arguments: str = "{}", *, call_id: str | None = None, id: str | None = None, namespace: str | None = None
) -> Json:
    """A call of a function tool; `arguments` is JSON text."""
    item: Json = {
        "id": _id("fc", id),
        "type": "function_call",
        "status": "completed",
        "name": name,
        "arguments": arguments,
        "call_id": _id("call", call_id),
    }
    return item if namespace is None else {**item, "namespace": namespace}


def custom_tool_call(name: str, input: str, *, call_id: str | None = None, id: str | None = None) -> Json:
    """A call of a custom tool with free text."""
    return {
        "id": _id("ctc", id),
        "type": "custom_tool_call",
        "name": name,
        "input": input,
        "call_id": _id("call", call_id),
    }


def local_shell_call(
    command: Sequence[str],
    *,
    call_id: str | None = None,
    id: str | None = None,
    env: Mapping[str, str] | None = None,
    working_directory: str | None = None,
    timeout_ms: int | None = None,
) -> Json:
    """A call of the local shell tool; `command` is the argument vector."""
    action = {
        "type": "exec",
        "command": list(command),
        "env": dict(env or {}),
        "working_directory": working_directory,
        "timeout_ms": timeout_ms,
    }
    return {
        "id": _id("lsh", id),
        "type": "local_shell_call",
        "status": "completed",
        "action": action,
        "call_id": _id("call", call_id),
    }


def shell_call(commands: Sequence[str], *, call_id: str | None = None, id: str | None = None) -> Json:
    """A call of the shell tool; `commands` are shell lines."""
    return {
        "id": _id("sh", id),
        "type": "shell_call",
        "status": "completed",
        "action": {"commands": list(commands), "timeout_ms": None, "max_output_length": None},
        "call_id": _id("call", call_id),
    }


def apply_patch_call(
    path: str, diff: str = "", *, operation: str = "update_file", call_id: str | None = None, id: str | None = None
) -> Json:
    """A call of the patch tool; `operation` is create_file, update_file or delete_file (which has no diff)."""
    change: Json = {"type": operation, "path": path}
    if operation != "delete_file":
        change["diff"] = diff
    return {
        "id": _id("apc", id),
        "type": "apply_patch_call",
        "status": "completed",
        "operation": change,
        "call_id": _id("call", call_id),
    }


def web_search_call(query: str, *, id: str | None = None, action: Mapping[str, Any] | None = None) -> Json:
    """A web search that the service itself ran; `action` replaces the plain search for `query`."""
    done = {"type": "search", "query": query, "queries": [query]} if action is None else dict(action)
    return {"id": _id("ws", id), "type": "web_search_call", "status": "completed", "action": done}


def file_search_call(queries: Sequence[str], *, results: Sequence[Json] = (), id: str | None = None) -> Json:
    """A file search that the service itself ran."""
    return {
        "id": _id("fs", id),
        "type": "file_search_call",
        "status": "completed",
        "queries": list(queries),
        "results": list(results),
    }


def code_interpreter_call(code: str, *, container_id: str = "cntr_1", id: str | None = None) -> Json:
    """A code interpreter run."""
    return {
        "id": _id("ci", id),
        "type": "code_interpreter_call",
        "status": "completed",
        "code": code,
        "container_id": container_id,
        "outputs": [],
    }


def image_generation_call(result: str, *, id: str | None = None) -> Json:
    """A generated image, base64 in `result`."""
    return {"id": _id("ig", id), "type": "image_generation_call", "status": "completed", "result": result}


def mcp_call(
    name: str, arguments: str = "{}", *, server_label: str = "mcp", output: str | None = None, id: str | None = None
) -> Json:
    """A call of an MCP server's tool, run by the service."""
    return {
        "id": _id("mcp", id),
        "type": "mcp_call",
        "status": "completed",
        "name": name,
        "arguments": arguments,
        "server_label": server_label,
        "output": output,
        "error": None,
    }


def mcp_list_tools(tools: Sequence[Json] = (), *, server_label: str = "mcp", id: str | None = None) -> Json:
    """The tools of an MCP server."""
    return {"id": _id("mcpl", id), "type": "mcp_list_tools", "server_label": server_label, "tools": list(tools)}


def mcp_approval_request(name: str, arguments: str = "{}", *, server_label: str = "mcp", id: str | None = None) -> Json:
    """The model asks whether it may call an MCP tool."""
    return {
        "id": _id("mcpr", id),
        "type": "mcp_approval_request",
        "name": name,
        "arguments": arguments,
        "server_label": server_label,
    }


def computer_call(
    action: Mapping[str, Any] | None = None, *, call_id: str | None = None, id: str | None = None
) -> Json:
    """An action on a computer; a screenshot by default."""
    return {
        "id": _id("cu", id),
        "type": "computer_call",
        "status": "completed",
        "action": {"type": "screenshot"} if action is None else dict(action),
        "call_id": _id("call", call_id),
        "pending_safety_checks": [],
    }


def tool_search_call(
    arguments: Mapping[str, Any], *, execution: str = "client", call_id: str | None = None, id: str | None = None
) -> Json:
    """A search for tools; `execution` is client or server."""
    return {
        "id": _id("ts", id),
        "type": "tool_search_call",
        "status": "completed",
        "arguments": dict(arguments),
        "call_id": _id("call", call_id),
        "execution": execution,
    }


def compaction(encrypted_content: str, *, id: str | None = None) -> Json:
    """What is left of a conversation after compaction."""
    return {"id": _id("cmp", id), "type": "compaction", "encrypted_content": encrypted_content}


def input_message(role: str, content: str | Sequence[Json]) -> Json:
    """A message of the caller; text, or content parts."""
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else list(content)
    return {"type": "message", "role": role, "content": parts}


def user_message(content: str | Sequence[Json]) -> Json:
    """A message of the user."""
    return input_message("user", content)


def developer_message(content: str | Sequence[Json]) -> Json:
    """A message of the developer."""
    return input_message("developer", content)


def system_message(content: str | Sequence[Json]) -> Json:
    """A message of the system."""
    return input_message("system", content)


def function_call_output(call_id: str, output: str | Sequence[Json]) -> Json:
    """The client's answer to a function call: text, or content parts."""
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def custom_tool_call_output(call_id: str, output: str | Sequence[Json]) -> Json:
    """The client's answer to a custom tool call."""
    return {"type": "custom_tool_call_output", "call_id": call_id, "output": output}


def local_shell_call_output(call_id: str, output: str) -> Json:
    """The client's answer to a local shell call; the service names the call in `id`."""
    return {"type": "local_shell_call_output", "id": call_id, "output": output}


def shell_call_output(call_id: str, stdout: str = "", *, stderr: str = "", exit_code: int = 0) -> Json:
    """The client's answer to a shell call of one command."""
    result = {"stdout": stdout, "stderr": stderr, "outcome": {"type": "exit", "exit_code": exit_code}}
    return {"type": "shell_call_output", "call_id": call_id, "output": [result]}


def apply_patch_call_output(call_id: str, output: str = "", *, status: str = "completed") -> Json:
    """The client's answer to a patch call."""
    return {"type": "apply_patch_call_output", "call_id": call_id, "status": status, "output": output}


def computer_call_output(call_id: str, image_url: str) -> Json:
    """The client's answer to a computer call: a screenshot."""
    return {
        "type": "computer_call_output",
        "call_id": call_id,
        "output": {"type": "computer_screenshot", "image_url": image_url},
    }


def tool_search_output(call_id: str, tools: Sequence[Json] = (), *, execution: str = "client") -> Json:
    """The tools a tool search found."""
    return {
        "type": "tool_search_output",
        "call_id": call_id,
        "status": "completed",
        "tools": list(tools),
        "execution": execution,
    }


def mcp_approval_response(approval_request_id: str, *, approve: bool) -> Json:
    """The caller's decision about an MCP call."""
    return {"type": "mcp_approval_response", "approval_request_id": approval_request_id, "approve": approve}

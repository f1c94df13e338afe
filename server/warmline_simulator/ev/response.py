"""The response object and its usage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

RESPONSE_ID = "{{response_id}}"
"""Replaced by the id of the response that the event belongs to."""
KEY = "{{key}}"
"""Replaced by that id without its `resp_`, so that the ids of items differ from response to response."""
MODEL = "{{model}}"
"""Replaced by the model the request asked for."""


def token_usage(
    input_tokens: int = 12, output_tokens: int = 8, *, cached_tokens: int = 0, reasoning_tokens: int = 0
) -> Json:
    """Token counts of a response; the total is their sum."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {
            "cached_tokens": cached_tokens,
            "cache_write_tokens": max(0, input_tokens - cached_tokens),
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def response_object(
    response_id: str | None = None,
    status: str = "completed",
    *,
    output: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
    reason: str | None = None,
    model: str | None = None,
    **fields: Any,
) -> Json:
    """A response object with every required field.

    Args:
        response_id: None stands for the id of the current response.
        usage: token counts; None leaves it null, as before the terminal event.
        error: `{code, message}` of a failed response.
        reason: why it is incomplete.
        fields: further fields, or other values for the required ones.
    """
    response: Json = {
        "id": RESPONSE_ID if response_id is None else response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": error,
        "incomplete_details": None if reason is None else {"reason": reason},
        "instructions": None,
        "metadata": {},
        "model": MODEL if model is None else model,
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
    }
    response.update(fields)
    return response

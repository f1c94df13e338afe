"""Errors in every form they travel in: WebSocket frame, flat SSE event, HTTP body, failed and incomplete response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmline_simulator.ev.response import response_object

Json = dict[str, Any]

DEFAULT_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 500: "server_error", 503: "server_is_overloaded"}
"""Code of a scripted error that names none."""
TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
"""Error type by status; see `type_of_status`."""


def type_of_status(status: int) -> str:
    """The `type` the service gives an error of this HTTP status."""
    if status == 429:
        return "rate_limit_error"
    if status >= 500:
        return "server_error"
    return TYPES.get(status, "invalid_request_error")


def http_error(
    status: int,
    code: str | None = None,
    message: str | None = None,
    *,
    param: str | None = None,
    kind: str | None = None,
) -> Json:
    """The body of an HTTP error; `kind` is its `type`, by default the one that fits the status."""
    text = f"Simulated error with status {status}." if message is None else message
    return {"error": {"message": text, "type": kind or type_of_status(status), "param": param, "code": code}}


def error(
    status: int | None,
    code: str | None = None,
    message: str | None = None,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    kind: str | None = None,
    **fields: Any,
) -> Json:
    """An error frame of the WebSocket.

    Args:
        status: HTTP status; None leaves it out, which some upstreams do.
        headers: string map inside the error (retry-after and the like); None leaves it out.
        fields: further top-level fields, such as `stream_id`, or `headers` beside the error.
    """
    body = http_error(status or 400, code, message, param=param, kind=kind)["error"]
    if headers is not None:
        body["headers"] = dict(headers)
    frame: Json = {"type": "error"}
    if status is not None:
        frame["status"] = status
    return {**frame, "error": body, **fields}


def sse_error(code: str | None, message: str, *, param: str | None = None) -> Json:
    """The flat `error` event of an SSE stream."""
    return {"type": "error", "code": code, "message": message, "param": param}


def failed(
    code: str = "server_error", message: str = "The model failed.", *, response_id: str | None = None, **fields: Any
) -> Json:
    """`response.failed` with an error of that code; `fields` go into the response object."""
    problem = {"code": code, "message": message}
    return {"type": "response.failed", "response": response_object(response_id, "failed", error=problem, **fields)}


def incomplete(
    reason: str = "max_output_tokens",
    *,
    response_id: str | None = None,
    output: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Json:
    """`response.incomplete` with that reason."""
    response = response_object(response_id, "incomplete", reason=reason, output=output, usage=usage, **fields)
    return {"type": "response.incomplete", "response": response}

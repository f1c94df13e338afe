"""What the service refuses: the rules of a create request, as pure checks. Each gives the code, status and param.

Source: WebSocket guide and OpenAPI 2.3.0 of the Responses API; the codes are those the service uses for the same
mistakes. Rules that need the state of a socket (lanes, lifetime) live in `lanes.py` and `websocket.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from warmline_simulator import fields, input_rules, invariants
from warmline_simulator.fields import Check
from warmline_simulator.records import RequestRecord
from warmline_simulator.refusal import Refusal
from warmline_simulator.state import State

Body = Mapping[str, Any]

TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
INCLUDES = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

FIELDS: dict[str, Check] = {
    "model": fields.text(),
    "input": input_rules.check_input,
    "instructions": fields.text(),
    "tools": input_rules.check_tools,
    "tool_choice": input_rules.check_tool_choice,
    "parallel_tool_calls": fields.boolean,
    "reasoning": fields.mapping(
        effort=fields.one_of(*EFFORTS), summary=fields.one_of("auto", "concise", "detailed", "none")
    ),
    "text": fields.mapping(verbosity=fields.one_of("low", "medium", "high"), format=input_rules.check_format),
    "include": fields.list_of(fields.one_of(*INCLUDES)),
    "metadata": fields.string_map(most=16, longest_key=64, longest_value=512),
    "client_metadata": fields.string_map(),
    "max_output_tokens": fields.whole_number(least=16),
    "max_tool_calls": fields.whole_number(least=1),
    "prompt_cache_key": fields.text(),
    "prompt_cache_retention": fields.text(),
    "prompt_cache_options": fields.mapping(
        mode=fields.text(),
        ttl=fields.one_of("30m", "12h"),
        prewarm=fields.boolean,
        comparison_response_id=fields.text(),
    ),
    "service_tier": fields.one_of(*TIERS),
    "store": fields.boolean,
    "truncation": fields.one_of("auto", "disabled"),
    "temperature": fields.number(0, 2),
    "top_p": fields.number(0, 1),
    "top_logprobs": fields.whole_number(least=0, most=20),
    "safety_identifier": fields.text(longest=64),
    "user": fields.text(),
    "context_management": fields.list_of(
        fields.mapping(type=fields.text(), compact_threshold=fields.whole_number(least=1000))
    ),
    "conversation": input_rules.check_conversation,
    "moderation": fields.mapping(),
    "prompt": fields.mapping(id=fields.text()),
    "image": fields.mapping(),
    "access_programs": fields.mapping(),
    "multi_agent": fields.mapping(),
    "previous_response_id": fields.text(),
    "stream": fields.boolean,
    "stream_options": fields.mapping(include_obfuscation=fields.boolean),
    "background": fields.boolean,
}
WEBSOCKET_FIELDS: dict[str, Check] = {
    "type": fields.text(),
    "generate": fields.boolean,
    "stream_id": fields.text(),
}
"""Fields only a frame may have."""


def check(record: RequestRecord, state: State, *, is_parent_missing: bool) -> Refusal | None:
    """The first reason to refuse a create request; None when it is served.

    Args:
        is_parent_missing: the previous response it names is in neither memory nor store.
    """
    body, is_frame = record.body, record.transport == "ws"
    known = {**FIELDS, **WEBSOCKET_FIELDS} if is_frame else FIELDS
    for rule in (_check_fields(known), _check_combinations, _check_background(is_frame=is_frame)):
        refusal = rule(body)
        if refusal is not None:
            return refusal
    if state.settings.only_listed_models and body["model"] not in state.models:
        text = f"The requested model '{body['model']}' does not exist."
        return Refusal(400, "model_not_found", text, "model")
    if is_parent_missing:
        return parent_not_found(str(record.previous_response_id))
    return check_conversation(record)


def missing_model() -> Refusal:
    """No model is named."""
    return fields.missing("model")


def parent_not_found(response_id: str) -> Refusal:
    """The previous response is in neither memory nor store."""
    text = f"Previous response with id '{response_id}' not found."
    return Refusal(400, "previous_response_not_found", text, "previous_response_id")


def check_conversation(record: RequestRecord) -> Refusal | None:
    """Refuse a conversation with a call that has no output, or an output that has no call."""
    if record.visible_input is None:
        return None
    found = invariants.violations(record.visible_input, is_warm_up=record.is_warm_up)
    if not found:
        return None
    return Refusal(400, None, f"{found[0][:1].upper()}{found[0][1:]}.", "input")


def _check_fields(known: Mapping[str, Check]) -> Callable[[Body], Refusal | None]:
    def rule(body: Body) -> Refusal | None:
        for name, value in body.items():
            check_field = known.get(name)
            if check_field is None:
                return Refusal(400, "unknown_parameter", f"Unknown parameter: '{name}'.", name)
            refusal = check_field(value, name) if value is not None else None
            if refusal is not None:
                return refusal
        return None

    return rule


def _check_combinations(body: Body) -> Refusal | None:
    if body.get("model") is None and body.get("prompt") is None:
        return fields.missing("model")
    if body.get("conversation") is not None:
        if body.get("previous_response_id") is not None:
            text = "Mutually exclusive parameters: provide only one of 'previous_response_id' or 'conversation'."
            return Refusal(400, "mutually_exclusive_parameters", text, "previous_response_id")
        text = "Conversation not found: this simulator keeps no conversations."
        return Refusal(404, "conversation_not_found", text, "conversation", kind="invalid_request_error")
    refusal = input_rules.check_chosen_tool(body)
    if refusal is not None:
        return refusal
    has_more = any(body.get(name) is not None for name in ("previous_response_id", "prompt"))
    if not body.get("input") and not has_more and body.get("generate") is not False:
        return fields.missing("input")
    return None


def _check_background(*, is_frame: bool) -> Callable[[Body], Refusal | None]:
    def rule(body: Body) -> Refusal | None:
        if body.get("background") is True:
            where = "in WebSocket mode" if is_frame else "by this simulator"
            return Refusal(400, "unsupported_parameter", f"Unsupported parameter: 'background' {where}.", "background")
        if is_frame and body.get("stream") is False:
            return Refusal(400, "invalid_value", "Invalid value: 'stream' is always true in WebSocket mode.", "stream")
        return None

    return rule


def check_client_request_id(value: str | None) -> Refusal | None:
    """`X-Client-Request-Id`: ASCII, at most 512 characters."""
    if value is None or (value.isascii() and len(value) <= 512):
        return None
    return Refusal(400, "invalid_value", "X-Client-Request-Id must be ASCII of at most 512 characters.", None)


def check_authorization(authorization: str | None, state: State) -> Refusal | None:
    """401 without a known token, 403 for one that lacks permission."""
    settings = state.settings
    if settings.tokens is None and not settings.forbidden_tokens:
        return None
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        text = "You didn't provide an API key in an Authorization header using Bearer auth."
        return Refusal(401, None, text, kind="invalid_request_error", headers={"www-authenticate": "Bearer"})
    token = token.strip()
    if token in settings.forbidden_tokens:
        return Refusal(403, "insufficient_permissions", "You have insufficient permissions for this operation.")
    if settings.tokens is not None and token not in settings.tokens:
        return Refusal(401, "invalid_api_key", "Incorrect API key provided.", kind="invalid_request_error")
    return None

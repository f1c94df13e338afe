"""Requests as domain values and sessions as messages. Pure functions; bad input is named by its field."""

import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from google.protobuf import duration_pb2

from warmline.v1 import session_service_pb2 as sessions
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_server.core import outgoing
from warmline_server.core.config import SessionConfig, Source, WarmUp
from warmline_server.core.errors import CallerError, Reason, ServiceError
from warmline_server.core.lenient import NOT_JSON
from warmline_server.core.nesting import MAX_DEPTH, is_too_deep
from warmline_server.core.request import parse_extra
from warmline_server.core.retry import RetryMode
from warmline_server.core.slot import SlotState
from warmline_server.ids import new_id
from warmline_server.rpc import translate_events
from warmline_server.session.call_spec import OnBusy
from warmline_server.session.lane import Lane
from warmline_server.session.session import Session

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,128}")
_VERSION = re.compile(r"[A-Za-z0-9._+-]{1,64}")
_LABEL = re.compile(r"[\x20-\x7e]{1,64}")
# The last second of the year 9999, beyond which a Timestamp cannot be.
_LAST_UNIX_NS = 253_402_300_799 * 10**9
MAX_LABELS = 16
MAX_LABEL_BYTES = 64

_encode = msgspec.json.encode

WARM_UPS: Mapping[int, WarmUp | None] = {
    types.WARM_UP_MODE_UNSPECIFIED: None,
    types.WARM_UP_MODE_NONE: WarmUp.NONE,
    types.WARM_UP_MODE_HANDSHAKE: WarmUp.HANDSHAKE,
    types.WARM_UP_MODE_GENERATE_FALSE: WarmUp.GENERATE_FALSE,
}
SOURCES: Mapping[int, Source] = {
    types.SESSION_SOURCE_UNSPECIFIED: Source.UNSPECIFIED,
    types.SESSION_SOURCE_INTERACTIVE: Source.INTERACTIVE,
    types.SESSION_SOURCE_REVIEW: Source.REVIEW,
    types.SESSION_SOURCE_COMPACT: Source.COMPACT,
    types.SESSION_SOURCE_THREAD_SPAWN: Source.THREAD_SPAWN,
    types.SESSION_SOURCE_MEMORY_CONSOLIDATION: Source.MEMORY_CONSOLIDATION,
    types.SESSION_SOURCE_SUB_AGENT: Source.SUB_AGENT,
}
RETRIES: Mapping[int, RetryMode] = {
    turns.RETRY_MODE_UNSPECIFIED: RetryMode.BEFORE_OUTPUT,
    turns.RETRY_MODE_BEFORE_OUTPUT: RetryMode.BEFORE_OUTPUT,
    turns.RETRY_MODE_REFERENCE: RetryMode.REFERENCE,
    turns.RETRY_MODE_NEVER: RetryMode.NEVER,
}
BUSY: Mapping[int, OnBusy] = {
    turns.BUSY_MODE_UNSPECIFIED: OnBusy.REJECT,
    turns.BUSY_MODE_REJECT: OnBusy.REJECT,
    turns.BUSY_MODE_WAIT: OnBusy.WAIT,
    turns.BUSY_MODE_PREEMPT: OnBusy.PREEMPT,
}
SLOT_STATES: Mapping[SlotState, "sessions.SlotState.ValueType"] = {
    SlotState.IDLE: sessions.SLOT_STATE_IDLE,
    SlotState.IN_FLIGHT: sessions.SLOT_STATE_IN_FLIGHT,
    SlotState.READY: sessions.SLOT_STATE_READY,
    SlotState.CLOSED: sessions.SLOT_STATE_IDLE,
}


def invalid(field: str, text: str) -> CallerError:
    """The caller's value of `field` is not allowed."""
    return CallerError(Reason.INVALID_REQUEST, f"{field}: {text}", field=field)


def not_implemented(what: str) -> ServiceError:
    """The contract has it and this server does not yet."""
    return ServiceError(Reason.NOT_IMPLEMENTED, f"{what} is in the contract but not implemented yet", field=what)


def name(value: str, field: str, *, blank_is: str | None = None) -> str:
    """A session's or lane's name. Raises: CallerError when it is not 1 to 64 of `[A-Za-z0-9._-]`."""
    if not value and blank_is is not None:
        return blank_is
    if not _NAME.fullmatch(value):
        raise invalid(field, f"{value[:80]!r} is not 1 to 64 characters of [A-Za-z0-9._-]")
    return value


def identifier(value: str, field: str) -> str:
    """A turn's or request's id, made here when blank."""
    if not value:
        return new_id()
    if not _PRINTABLE.fullmatch(value):
        raise invalid(field, "expected 1 to 128 printable ASCII characters")
    return value


T = TypeVar("T")


def choice(table: Mapping[int, T], value: int, field: str) -> T:
    """An enum's meaning. Raises: CallerError for a value that this server does not know."""
    if value not in table:
        raise invalid(field, f"{value} is not a value this server knows; known: {sorted(table)}")
    return table[value]


def seconds(message: duration_pb2.Duration, field: str, *, zero_allowed: bool) -> float:
    """A Duration in seconds. Raises: CallerError when it is negative, or zero where that means nothing."""
    value = message.seconds + message.nanos / 1e9
    if value < 0 or not math.isfinite(value) or (value == 0 and not zero_allowed):
        raise invalid(field, f"{value:g} s is not {'at least 0' if zero_allowed else 'more than 0'}")
    return value


def given(message: types.SessionConfig) -> bytes:
    """A config as it was given, in a form that is equal for equal configs."""
    return message.SerializeToString(deterministic=True)


def config(message: types.SessionConfig, field: str) -> SessionConfig:
    """A session's config. Raises: CallerError naming the field that is wrong."""
    lineage, limits = message.lineage, message.limits
    fallback, retry = message.fallback_policy, message.retry_policy
    _check_labels(message.labels, f"{field}.labels")
    if message.conversation_id:
        _check_uuid(message.conversation_id, f"{field}.conversation_id")
    if lineage.sub_agent_label and not _LABEL.fullmatch(lineage.sub_agent_label):
        raise invalid(f"{field}.lineage.sub_agent_label", "expected up to 64 printable ASCII characters")
    return SessionConfig(
        given=given(message),
        upstream=message.upstream,
        warm_up=choice(WARM_UPS, message.warm_up, f"{field}.warm_up"),
        conversation_id=message.conversation_id,
        source=choice(SOURCES, lineage.source, f"{field}.lineage.source"),
        sub_agent_label=lineage.sub_agent_label,
        parent_thread_id=lineage.parent_thread_id,
        installation_id=lineage.installation_id,
        defaults=options(message.request_defaults, f"{field}.request_defaults"),
        stream_max_retries=_count(retry, "stream_max_retries", f"{field}.retry_policy", 0, 100),
        request_max_retries=_count(retry, "request_max_retries", f"{field}.retry_policy", 0, 100),
        fallback_after_s=_optional_seconds(fallback, "fallback_after", f"{field}.fallback_policy", zero_allowed=True),
        latch_reprobe_s=_optional_seconds(fallback, "latch_reprobe", f"{field}.fallback_policy", zero_allowed=True),
        http_only=fallback.http_only,
        idle_ttl_s=_optional_seconds(limits, "idle_ttl", f"{field}.limits", zero_allowed=False),
        max_turn_duration_s=_optional_seconds(limits, "max_turn_duration", f"{field}.limits", zero_allowed=False),
        max_lanes=_count(limits, "max_lanes", f"{field}.limits", 1, 2**31 - 1),
        max_transcript_bytes=_count(limits, "max_transcript_bytes", f"{field}.limits", 0, 2**62),
        labels=dict(message.labels),
    )


def options(message: types.RequestOptions, field: str) -> dict[str, bytes]:
    """The body fields that a RequestOptions sets, as JSON; absent ones are left out."""
    fields: dict[str, bytes] = {}
    for key in ("model", "service_tier", "prompt_cache_key", "parallel_tool_calls", "store", "instructions"):
        if message.HasField(key):
            fields[key] = _encode(getattr(message, key))
    if message.HasField("tools"):
        tools = [_json_object(tool, f"{field}.tools[{i}]") for i, tool in enumerate(message.tools.tools_json)]
        fields["tools"] = b"[" + b",".join(tools) + b"]"
    if message.HasField("tool_choice_json"):
        fields["tool_choice"] = _json(message.tool_choice_json, f"{field}.tool_choice_json")
    if message.HasField("reasoning"):
        fields["reasoning"] = _reasoning(message.reasoning)
    if message.HasField("text"):
        fields["text"] = _text(message.text, f"{field}.text")
    if message.HasField("include"):
        fields["include"] = _encode(list(message.include.values))
    if message.HasField("max_output_tokens"):
        if message.max_output_tokens < 1:
            raise invalid(f"{field}.max_output_tokens", f"{message.max_output_tokens} is less than 1")
        fields["max_output_tokens"] = _encode(message.max_output_tokens)
    return fields


def extra_fields(request_json: bytes) -> dict[str, bytes]:
    """A call's further body fields, as JSON. Raises: CallerError when they are refused."""
    if request_json:
        _json(request_json, "request_json")  # of the values only those that the server looks at are decoded later
    return parse_extra(request_json, outgoing.RESERVED_CLIENT_METADATA)


def metadata(value: bytes) -> bytes:
    """A turn's metadata. Raises: CallerError when it is not a JSON object."""
    return _json_object(value, "turn_metadata_json") if value else b""


def items(messages: Iterable[types.Item], field: str) -> tuple[bytes, ...]:
    """Items as JSON. Raises: CallerError naming the item that is empty."""
    return tuple(_item(message, f"{field}[{index}]") for index, message in enumerate(messages))


def checked_items(messages: Iterable[types.Item], field: str) -> tuple[bytes, ...]:
    """As `items`, for requests whose items nobody reads any further: each is one JSON object.

    Raises: CallerError naming the item that is not.
    """
    return tuple(_json_object(json, f"{field}[{index}]") for index, json in enumerate(items(messages, field)))


def client_version(value: str) -> str:
    """A caller's version; it goes into a URL. Raises: CallerError when it is no plain word."""
    if value and not _VERSION.fullmatch(value):
        raise invalid("client_version", f"{value[:80]!r} is not 1 to 64 characters of [A-Za-z0-9._+-]")
    return value


def session(value: Session, *, draining: bool) -> sessions.Session:
    """A session's state at this moment."""
    message = sessions.Session(
        session_id=value.session_id,
        conversation_id=value.record.conversation_id,
        config=types.SessionConfig.FromString(value.config.given),
        state=_state(value, draining=draining),
        slot=slot(value),
        fallback=sessions.Fallback(active=value.latch.active, reason=value.latch.reason),
        window_generation=value.window_generation,
        lanes=[_lane(lane) for lane in value.lanes.values()],
        rate_limits=[translate_events.rate_limits(*value.rate_limits[key]) for key in sorted(value.rate_limits)],
        revision=value.changes.revision,
    )
    if value.latch.active:
        message.fallback.active_since_time.FromNanoseconds(value.latch.since_unix_ns)
    message.create_time.FromNanoseconds(value.created_unix_ns)
    message.last_active_time.FromNanoseconds(value.active_unix_ns)
    if not value.calls and value.idle_ttl_s > 0:
        expires_unix_ns = value.active_unix_ns + int(value.idle_ttl_s * 1e9)
        message.expire_time.FromNanoseconds(min(expires_unix_ns, _LAST_UNIX_NS))
    return message


def slot(value: Session) -> sessions.Slot:
    """A session's slot at this moment."""
    keeper = value.keeper
    failure = keeper.last_failure
    message = sessions.Slot(
        state=SLOT_STATES[keeper.state],
        connection_id=keeper.ready_connection_id,
        last_failure_reason=failure.reason if failure is not None else "",
    )
    message.change_time.FromNanoseconds(keeper.changed_unix_ns)
    return message


def page(values: Sequence[Session], size: int, token: str) -> tuple[Sequence[Session], str]:
    """One page of sessions that are sorted by id, and the next page's token: the last id of this one."""
    if size < 0 or size > 1000:
        raise invalid("page_size", f"{size} is not 0 to 1000")
    rest = [value for value in values if value.session_id > token]
    shown = rest[: size or 100]
    return shown, shown[-1].session_id if len(rest) > len(shown) else ""


def _state(value: Session, *, draining: bool) -> "sessions.SessionState.ValueType":
    if value.closed:
        return sessions.SESSION_STATE_CLOSED
    return sessions.SESSION_STATE_DRAINING if draining else sessions.SESSION_STATE_ACTIVE


def _lane(lane: Lane) -> sessions.Lane:
    running = lane.running
    return sessions.Lane(
        name=lane.name,
        running_turn_id=running.spec.turn_id if running is not None else "",
        running_request_id=running.spec.request_id if running is not None else "",
        connection_id=lane.acquired.socket.connection_id if lane.acquired is not None else "",
        last_response_id=lane.last_response_id,
        history_position=lane.history_position,
    )


def _item(message: types.Item, field: str) -> bytes:
    match message.WhichOneof("content"):
        case "json":
            return message.json
        case "message":
            return _message(message.message, field)
        case "function_call_output":
            output = message.function_call_output
            return _encode({"type": "function_call_output", "call_id": output.call_id, "output": output.output})
        case _:
            raise invalid(field, "the item has no content")


def _message(message: types.TextMessage, field: str) -> bytes:
    if message.role not in ("user", "developer", "system", "assistant"):
        raise invalid(f"{field}.message.role", f"{message.role!r} is not user, developer, system or assistant")
    if not message.text:
        raise invalid(f"{field}.message.text", "the text is empty")
    part = "output_text" if message.role == "assistant" else "input_text"
    return _encode({"type": "message", "role": message.role, "content": [{"type": part, "text": message.text}]})


def _reasoning(message: types.Reasoning) -> bytes:
    fields = {}
    if message.HasField("effort"):
        fields["effort"] = message.effort
    if message.HasField("summary") and message.summary != "none":
        fields["summary"] = message.summary
    return _encode(fields)


def _text(message: types.TextOptions, field: str) -> bytes:
    parts = []
    if message.HasField("verbosity"):
        parts.append(b'"verbosity":' + _encode(message.verbosity))
    if message.HasField("format_json"):
        parts.append(b'"format":' + _json_object(message.format_json, f"{field}.format_json"))
    return b"{" + b",".join(parts) + b"}"


def _json(value: bytes, field: str) -> bytes:
    if is_too_deep(value):
        raise invalid(field, f"nested deeper than {MAX_DEPTH} levels")
    try:
        msgspec.json.decode(value)
    except NOT_JSON as error:
        raise invalid(field, f"is not JSON: {error}") from error
    return value


def _json_object(value: bytes, field: str) -> bytes:
    if not _json(value, field).lstrip().startswith(b"{"):
        raise invalid(field, "expected one JSON object")
    return value


def _count(message: types.RetryPolicy | types.SessionLimits, key: str, field: str, least: int, most: int) -> int | None:
    if not message.HasField(key):  # type: ignore[arg-type]
        return None
    value = int(getattr(message, key))
    if not least <= value <= most:
        raise invalid(f"{field}.{key}", f"{value} is not {least} to {most}")
    return value


def _optional_seconds(
    message: types.FallbackPolicy | types.SessionLimits, key: str, field: str, *, zero_allowed: bool
) -> float | None:
    if not message.HasField(key):  # type: ignore[arg-type]
        return None
    return seconds(getattr(message, key), f"{field}.{key}", zero_allowed=zero_allowed)


def _check_labels(labels: Mapping[str, str], field: str) -> None:
    if len(labels) > MAX_LABELS:
        raise invalid(field, f"{len(labels)} labels, at most {MAX_LABELS} are allowed")
    for key, value in labels.items():
        if max(len(key.encode()), len(value.encode())) > MAX_LABEL_BYTES:
            raise invalid(f"{field}[{key[:80]!r}]", f"longer than {MAX_LABEL_BYTES} bytes")


def _check_uuid(value: str, field: str) -> None:
    try:
        uuid.UUID(value)
    except ValueError as error:
        raise invalid(field, f"{value[:80]!r} is not a UUID") from error

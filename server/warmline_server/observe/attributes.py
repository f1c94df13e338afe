"""What a span says of a record: pure functions from records to attributes.

Nothing is claimed that was not seen or sent: an absent value has no attribute. Texts of prompts, answers, headers and
providers' messages have no way in here but `captured`, which runs only where content capture is switched on.
"""

from dataclasses import dataclass

import msgspec
from opentelemetry.util.types import AttributeValue

from warmline_server.core.errors import WarmlineError
from warmline_server.core.events import Usage
from warmline_server.core.lenient import NOT_JSON
from warmline_server.core.records import (
    AttemptRecord,
    AttemptStatus,
    CallRecord,
    ConnectRecord,
    SessionRecord,
)
from warmline_server.observe import names

Attributes = dict[str, AttributeValue]

# A setting's value comes from a caller, who could put a prompt there. Values of real settings are far shorter.
MAX_SETTING_CHARS = 64


@dataclass(frozen=True, slots=True)
class Capture:
    """Content capture, switched on: at most `max_bytes` of the request and as many of the output, per attempt."""

    max_bytes: int


class _Reasoning(msgspec.Struct):
    effort: object = None


class _Settings(msgspec.Struct):
    """The settings of a request that have a name in the conventions; msgspec skips over everything else."""

    max_output_tokens: object = None
    temperature: object = None
    top_p: object = None
    service_tier: object = None
    reasoning: _Reasoning | None = None


_settings_decoder = msgspec.json.Decoder(_Settings)


def of_session(session: SessionRecord) -> Attributes:
    """What every span of a session carries."""
    found: Attributes = {names.SESSION_ID: session.session_id, names.UPSTREAM: session.upstream}
    return found | {names.TENANT: session.tenant} if session.tenant else found


def of_call(call: CallRecord) -> Attributes:
    """Known when a call starts."""
    found = of_session(call.session) | _of_turn(call)
    found[names.GEN_AI_CONVERSATION_ID] = call.session.conversation_id
    return found


def _of_turn(call: CallRecord) -> Attributes:
    """The default lane has no name, and needs no attribute."""
    found: Attributes = {names.TURN_ID: call.turn_id, names.REQUEST_ID: call.request_id}
    if call.lane:
        found[names.LANE] = call.lane
    return found


def of_call_end(call: CallRecord) -> Attributes:
    """Known when it has ended."""
    found: Attributes = {
        names.OUTCOME: call.outcome.name.lower(),
        names.ATTEMPTS: call.attempts,
        names.EVENTS: call.events_sent,
    }
    if call.held_s is not None:
        found[names.HELD] = call.held_s
    return found | _ids(call.response_id, call.upstream_request_id) | of_error(call.error)


def of_connect(connect: ConnectRecord) -> Attributes:
    """Known when a handshake starts."""
    session = connect.session
    found = of_session(session)
    found[names.CONNECTION_ID] = connect.connection_id
    found[names.SERVER_ADDRESS], found[names.SERVER_PORT] = session.server_address, session.server_port
    if connect.call is not None:
        found |= _of_turn(connect.call)
    return found


def of_connect_end(connect: ConnectRecord) -> Attributes:
    """Known when it has ended."""
    found = of_error(connect.error)
    if connect.status is not None:
        found[names.HTTP_STATUS] = connect.status
    if connect.upstream_handshake_request_id is not None:
        found[names.UPSTREAM_HANDSHAKE_REQUEST_ID] = connect.upstream_handshake_request_id
    if connect.abandoned:
        found[names.ABANDONED] = True
    return found


def of_attempt(attempt: AttemptRecord) -> Attributes:
    """Known when an attempt's request is about to be sent; what samplers look at comes first."""
    session, call, connect = attempt.session, attempt.call, attempt.connect
    found: Attributes = {
        names.GEN_AI_OPERATION: names.CHAT,
        names.GEN_AI_PROVIDER: session.provider,
        names.GEN_AI_REQUEST_MODEL: attempt.model,
        names.SERVER_ADDRESS: session.server_address,
        names.SERVER_PORT: session.server_port,
        names.GEN_AI_REQUEST_STREAM: True,
        names.GEN_AI_CONVERSATION_ID: session.conversation_id,
        names.OPENAI_API_TYPE: "responses",
        names.ATTEMPT_ID: attempt.attempt_id,
        names.ATTEMPT_NUMBER: attempt.number,
        names.ATTEMPT_KIND: attempt.kind.name.lower(),
        names.TRANSPORT: attempt.transport.name.lower(),
        names.SLOT_OUTCOME: attempt.slot_outcome.name.lower(),
        names.INCREMENTAL: attempt.incremental,
        names.REQUEST_BYTES: len(attempt.request),
    }
    found |= of_session(session)
    if call is not None:
        found |= _of_turn(call)
    if attempt.connection_id:
        found[names.CONNECTION_ID] = attempt.connection_id
    if connect is not None and connect.upstream_handshake_request_id is not None:
        found[names.UPSTREAM_HANDSHAKE_REQUEST_ID] = connect.upstream_handshake_request_id
    return found | _of_delta(attempt) | _of_settings(attempt.request)


def of_attempt_end(attempt: AttemptRecord, capture: Capture | None) -> Attributes:
    """Known when it has ended."""
    found: Attributes = {
        names.OUTCOME: attempt.status.name.lower(),
        names.EVENTS: attempt.events_received,
        names.OUTPUT_ITEMS: len(attempt.output_items),
    }
    found |= of_evidence(attempt) | of_error(attempt.error)
    if attempt.first_event_at_s is not None:
        found[names.GEN_AI_FIRST_CHUNK] = attempt.first_event_at_s - attempt.started_at_s
    if attempt.longest_gap_s is not None:
        found[names.LONGEST_GAP] = attempt.longest_gap_s
    if attempt.http_status is not None:
        found[names.HTTP_STATUS] = attempt.http_status
    reason = _finish_reason(attempt)
    if reason:
        found[names.GEN_AI_FINISH_REASONS] = (reason,)
    if capture is not None:
        found |= captured(attempt, capture)
    return found


def of_evidence(attempt: AttemptRecord) -> Attributes:
    """The ids and figures that came back, as far as they did."""
    found = _ids(attempt.response_id, attempt.upstream_request_id)
    if attempt.response_id:
        found[names.GEN_AI_RESPONSE_ID] = attempt.response_id
    if attempt.response_model:
        found[names.GEN_AI_RESPONSE_MODEL] = attempt.response_model
    if attempt.usage is not None:
        found |= _of_usage(attempt.usage)
    return found


def of_error(error: WarmlineError | None) -> Attributes:
    """Why something ended badly: the reason's code, never its text."""
    if error is None:
        return {}
    return {names.REASON: error.reason.value, names.ERROR_TYPE: error.reason.value}


def captured(attempt: AttemptRecord, capture: Capture) -> Attributes:
    """The request as sent and the finished output items, each cut to the limit."""
    output = b"[" + b",".join(attempt.output_items) + b"]"
    return {
        names.CONTENT_REQUEST: _cut(attempt.request, capture.max_bytes),
        names.CONTENT_OUTPUT: _cut(output, capture.max_bytes),
    }


def _cut(payload: bytes, max_bytes: int) -> str:
    # "ignore" drops at most the character that the cut went through: payloads are valid UTF-8.
    return payload[:max_bytes].decode("utf-8", "ignore")


def _ids(response_id: str, upstream_request_id: str | None) -> Attributes:
    found: Attributes = {names.RESPONSE_ID: response_id} if response_id else {}
    if upstream_request_id is not None:
        found[names.UPSTREAM_REQUEST_ID] = upstream_request_id
    return found


def _of_usage(usage: Usage) -> Attributes:
    return {
        names.GEN_AI_INPUT_TOKENS: usage.input_tokens,
        names.GEN_AI_CACHED_TOKENS: usage.cached_input_tokens,
        names.GEN_AI_OUTPUT_TOKENS: usage.output_tokens,
        names.GEN_AI_REASONING_TOKENS: usage.reasoning_output_tokens,
    }


def _of_delta(attempt: AttemptRecord) -> Attributes:
    found: Attributes = {}
    if attempt.previous_response_id:
        found[names.GEN_AI_REQUEST_PREVIOUS] = attempt.previous_response_id
    if attempt.full_reason is not None:
        found[names.FULL_REASON] = attempt.full_reason.name.lower()
    if attempt.mismatch is not None and attempt.mismatch.field:
        found[names.MISMATCH_FIELD] = attempt.mismatch.field
    if attempt.mismatch is not None and attempt.mismatch.input_index is not None:
        found[names.MISMATCH_INDEX] = attempt.mismatch.input_index
    return found


def _of_settings(request: bytes) -> Attributes:
    try:
        sent = _settings_decoder.decode(request)
    except NOT_JSON:
        return {}
    found: Attributes = {}
    for name, number in (
        (names.GEN_AI_REQUEST_MAX_TOKENS, sent.max_output_tokens),
        (names.GEN_AI_REQUEST_TEMPERATURE, sent.temperature),
        (names.GEN_AI_REQUEST_TOP_P, sent.top_p),
    ):
        # One that the wire of telemetry cannot hold would cost the spans of every caller in its batch.
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 2**63:
            found[name] = number
    effort = sent.reasoning.effort if sent.reasoning is not None else None
    for name, word in ((names.GEN_AI_REQUEST_REASONING, effort), (names.OPENAI_SERVICE_TIER, sent.service_tier)):
        if isinstance(word, str) and len(word) <= MAX_SETTING_CHARS:
            found[name] = word
    return found


def _finish_reason(attempt: AttemptRecord) -> str:
    """Source: the conventions; "error" when a reason was expected and never came."""
    if attempt.status is AttemptStatus.INCOMPLETE:
        return attempt.incomplete_reason[:MAX_SETTING_CHARS]
    return "error" if attempt.status is AttemptStatus.FAILED else ""

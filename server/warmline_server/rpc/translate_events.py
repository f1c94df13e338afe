"""A call's events as messages."""

from collections.abc import Callable, Mapping

import msgspec
from google.protobuf import duration_pb2, timestamp_pb2

from warmline.v1 import turn_service_pb2 as pb
from warmline.v1 import types_pb2 as types
from warmline_server.core import events as ev

TRANSPORTS = {
    ev.Transport.WEBSOCKET: types.TRANSPORT_WEBSOCKET,
    ev.Transport.HTTP: types.TRANSPORT_HTTP,
    ev.Transport.FIXTURE: types.TRANSPORT_FIXTURE,
}
SLOT_OUTCOMES = {
    ev.SlotOutcome.ADOPTED: types.SLOT_OUTCOME_ADOPTED,
    ev.SlotOutcome.AWAITED: types.SLOT_OUTCOME_AWAITED,
    ev.SlotOutcome.REUSED: types.SLOT_OUTCOME_REUSED,
    ev.SlotOutcome.COLD: types.SLOT_OUTCOME_COLD,
    ev.SlotOutcome.NONE: types.SLOT_OUTCOME_NONE,
}
FULL_REASONS = {
    None: types.FULL_REASON_UNSPECIFIED,
    ev.FullReason.NEW_SOCKET: types.FULL_REASON_NEW_SOCKET,
    ev.FullReason.NO_BASELINE: types.FULL_REASON_NO_BASELINE,
    ev.FullReason.SETTINGS_CHANGED: types.FULL_REASON_SETTINGS_CHANGED,
    ev.FullReason.NOT_A_PREFIX: types.FULL_REASON_NOT_A_PREFIX,
    ev.FullReason.TRANSPORT: types.FULL_REASON_TRANSPORT,
    ev.FullReason.PREVIOUS_RESPONSE_LOST: types.FULL_REASON_PREVIOUS_RESPONSE_LOST,
}


def to_proto(emission: ev.Emission, sequence: int, *, raw: bool) -> pb.TurnEvent:
    """An event as a message.

    Args: `raw`: an event of the provider goes as `raw`, but for the terminal ones.
    """
    message = pb.TurnEvent(sequence=sequence, attempt=emission.attempt, upstream_type=emission.upstream_type)
    if emission.payload is not None:
        message.payload_json = emission.payload
    kind = type(emission.event)
    if raw and emission.payload is not None and kind not in _TERMINAL:
        kind = ev.Raw
    _FILL[kind](message, emission)
    return message


def usage(value: ev.Usage | None) -> types.Usage | None:
    """Token counts; None stays absent."""
    if value is None:
        return None
    return types.Usage(
        input_tokens=value.input_tokens,
        cached_input_tokens=value.cached_input_tokens,
        output_tokens=value.output_tokens,
        reasoning_output_tokens=value.reasoning_output_tokens,
        total_tokens=value.total_tokens,
    )


def rate_limits(value: ev.RateLimits, observed_unix_ns: int | None = None) -> types.RateLimitSnapshot:
    """A family of limits; what was not told stays absent."""
    message = types.RateLimitSnapshot(
        limit_id=value.limit_id,
        limit_name=value.limit_name,
        primary=_window(value.primary),
        secondary=_window(value.secondary),
        plan_type=value.plan_type,
    )
    if value.credits is not None:
        message.credits.has_credits = value.credits.has_credits
        message.credits.unlimited = value.credits.unlimited
        message.credits.balance = value.credits.balance
    if observed_unix_ns is not None:
        message.observed_time.FromNanoseconds(observed_unix_ns)
    return message


def _window(value: ev.RateLimitWindow | None) -> types.RateLimitWindow | None:
    if value is None:
        return None
    reset = None if value.resets_at_unix_s is None else timestamp_pb2.Timestamp(seconds=value.resets_at_unix_s)
    return types.RateLimitWindow(used_percent=value.used_percent, window_minutes=value.window_minutes, reset_time=reset)


def duration(value_s: float) -> duration_pb2.Duration:
    """Seconds as a Duration."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(value_s * 1e9))
    return message


_Fill = Callable[[pb.TurnEvent, ev.Emission], None]


def _by_name(member: str) -> _Fill:
    """For events whose fields have the message's names; zero values need not be set."""

    def fill(message: pb.TurnEvent, emission: ev.Emission) -> None:
        target = getattr(message, member)
        target.SetInParent()
        for name, value in msgspec.structs.asdict(emission.event).items():
            if isinstance(value, tuple):
                getattr(target, name).extend(value)
            elif value:
                setattr(target, name, value)

    return fill


def _item(member: str) -> _Fill:
    def fill(message: pb.TurnEvent, emission: ev.Emission) -> None:
        event = emission.event
        assert isinstance(event, ev.ItemAdded | ev.ItemDone)
        target = getattr(message, member)
        target.item.json = event.item
        if event.output_index is not None:
            target.output_index = event.output_index

    return fill


def _attempt_started(message: pb.TurnEvent, emission: ev.Emission) -> None:
    event = emission.event
    assert isinstance(event, ev.AttemptStarted)
    started = message.attempt_started
    started.attempt_id = event.attempt_id
    started.transport = TRANSPORTS[event.transport]
    started.slot_outcome = SLOT_OUTCOMES[event.slot_outcome]
    started.connection_id = event.connection_id
    started.incremental = event.full_reason is None
    started.full_reason = FULL_REASONS[event.full_reason]
    if event.mismatch is not None:
        started.first_mismatch.field = event.mismatch.field
        if event.mismatch.input_index is not None:
            started.first_mismatch.input_index = event.mismatch.input_index


def _retrying(message: pb.TurnEvent, emission: ev.Emission) -> None:
    event = emission.event
    assert isinstance(event, ev.Retrying)
    retrying = pb.Retrying(
        reason=event.reason,
        retry=event.retry,
        max_retries=event.max_retries,
        delay=duration(event.delay_s),
        response_id=event.response_id,
        upstream_request_id=event.upstream_request_id,
        upstream_status=event.upstream_status,
    )
    message.retrying.CopyFrom(retrying)


def _rate_limits(message: pb.TurnEvent, emission: ev.Emission) -> None:
    assert isinstance(emission.event, ev.RateLimits)
    message.rate_limits.CopyFrom(rate_limits(emission.event))


def _reasoning_included(message: pb.TurnEvent, emission: ev.Emission) -> None:
    message.reasoning_included.included = True


def _completed(message: pb.TurnEvent, emission: ev.Emission) -> None:
    event = emission.event
    assert isinstance(event, ev.Completed)
    completed = pb.Completed(
        response_id=event.response_id,
        upstream_request_id=emission.upstream_request_id,
        usage=usage(event.usage),
        end_turn=event.end_turn,
        history_position=emission.history_position,
    )
    message.completed.CopyFrom(completed)


def _incomplete(message: pb.TurnEvent, emission: ev.Emission) -> None:
    event = emission.event
    assert isinstance(event, ev.Incomplete)
    incomplete = pb.Incomplete(
        response_id=event.response_id,
        upstream_request_id=emission.upstream_request_id,
        reason=event.reason,
        usage=usage(event.usage),
        history_position=emission.history_position,
    )
    message.incomplete.CopyFrom(incomplete)


def _raw(message: pb.TurnEvent, emission: ev.Emission) -> None:
    message.raw.SetInParent()


_TERMINAL = frozenset({ev.Completed, ev.Incomplete})
_FILL: Mapping[type, _Fill] = {
    ev.Admitted: _by_name("admitted"),
    ev.AttemptStarted: _attempt_started,
    ev.Retrying: _retrying,
    ev.FellBack: _by_name("fell_back"),
    ev.Restarted: _by_name("restarted"),
    ev.Created: _by_name("created"),
    ev.ItemAdded: _item("item_added"),
    ev.ItemDone: _item("item_done"),
    ev.TextDelta: _by_name("text_delta"),
    ev.ReasoningDelta: _by_name("reasoning_delta"),
    ev.ReasoningSummaryDelta: _by_name("reasoning_summary_delta"),
    ev.ReasoningSummaryPartAdded: _by_name("reasoning_summary_part_added"),
    ev.ToolInputDelta: _by_name("tool_input_delta"),
    ev.RateLimits: _rate_limits,
    ev.ServerModel: _by_name("server_model"),
    ev.ModelsEtag: _by_name("models_etag"),
    ev.ReasoningIncluded: _reasoning_included,
    ev.Completed: _completed,
    ev.Incomplete: _incomplete,
    ev.Raw: _raw,
}

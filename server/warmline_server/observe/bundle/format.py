"""What stands in a bundle's files. The envelope and the inference events are those of the reference client's trace.

What only this server knows (sockets, slots, calls) is in `warmline` objects and in events of type `other`, which a
reader of the original format passes over.
Source: reference/wire-behaviour.md §8, rollout trace of May 2026.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EVENT_LOG = "trace.jsonl"
PAYLOADS = "payloads"
STATE = "state.json"

# What a clock or a counter can say; Python's own integers end nowhere.
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """Absent and None are the same, and absent is written."""


class Manifest(msgspec.Struct, frozen=True):
    schema_version: _Int
    trace_id: str
    rollout_id: str
    root_thread_id: str
    started_at_unix_ms: _Int
    raw_event_log: str = EVENT_LOG
    payloads_dir: str = PAYLOADS


class PayloadType(StrEnum):
    REQUEST = "inference_request"
    RESPONSE = "inference_response"
    PREFIX = "untraced_prefix"
    CHECKPOINT = "compaction_checkpoint"


class PayloadKind(_Part, frozen=True):
    type: str


class PayloadRef(_Part, frozen=True):
    """`path` is relative to the bundle."""

    raw_payload_id: str
    kind: PayloadKind
    path: str


class Status(StrEnum):
    """How an inference, a turn, a thread or a rollout stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


# How a request's `input` relates to what came before.


class FullSnapshot(_Part, frozen=True, tag_field="type", tag="full_snapshot"):
    """The whole visible input, even where the request names a previous response (an untraced warm-up)."""


class Incremental(_Part, frozen=True, tag_field="type", tag="incremental"):
    previous_response_id: str


class IncrementalWithPrefix(_Part, frozen=True, tag_field="type", tag="incremental_with_untraced_prefix"):
    """The previous response was not traced; its input and output are in the payload."""

    previous_response_id: str
    prefix_payload: PayloadRef


InputMode = FullSnapshot | Incremental | IncrementalWithPrefix


# Facts of this server's own.


class AttemptFacts(_Part, frozen=True):
    """Blank and None: unknown, or there is none."""

    request_id: str = ""
    attempt: _Int = 0
    transport: str = ""
    slot_outcome: str = ""
    connection_id: str = ""
    upstream_handshake_request_id: str | None = None
    incremental: bool = False
    full_reason: str = ""
    replaces: str = ""
    started_unix_ns: _Int = 0
    trace_id: str = ""
    span_id: str = ""


class EndFacts(_Part, frozen=True):
    first_event_unix_ns: _Int | None = None
    ended_unix_ns: _Int | None = None
    http_status: _Int | None = None
    events: _Int = 0
    incomplete_reason: str = ""


class Connect(_Part, frozen=True, tag_field="kind", tag="warmline.connect"):
    """A handshake that ended. `request_id` is the call's that asked for it, blank for a warm-up."""

    connection_id: str
    started_unix_ns: _Int
    ended_unix_ns: _Int
    request_id: str = ""
    status: _Int | None = None
    upstream_handshake_request_id: str | None = None
    reason: str = ""
    abandoned: bool = False


class CallStarted(_Part, frozen=True, tag_field="kind", tag="warmline.call_started"):
    request_id: str
    turn_id: str
    lane: str
    started_unix_ns: _Int
    trace_id: str = ""
    span_id: str = ""


class CallEnded(_Part, frozen=True, tag_field="kind", tag="warmline.call_ended"):
    request_id: str
    ended_unix_ns: _Int
    outcome: str
    reason: str = ""


class Evidence(_Part, frozen=True, tag_field="kind", tag="warmline.evidence"):
    """What became known of an inference after its end."""

    inference_call_id: str
    response_id: str | None = None
    upstream_request_id: str | None = None


class Retry(_Part, frozen=True, tag_field="kind", tag="warmline.retry"):
    inference_call_id: str
    delay_s: float
    reason: str = ""


class FellBack(_Part, frozen=True, tag_field="kind", tag="warmline.fell_back"):
    reason: str
    latched: bool
    request_id: str = ""


class Truncated(_Part, frozen=True, tag_field="kind", tag="warmline.truncated"):
    """The writer gave up here: what follows was not recorded."""

    reason: str


OwnFact = Connect | CallStarted | CallEnded | Evidence | Retry | FellBack | Truncated


# Events.


class RolloutStarted(_Part, frozen=True, tag_field="type", tag="rollout_started"):
    trace_id: str
    root_thread_id: str


class RolloutEnded(_Part, frozen=True, tag_field="type", tag="rollout_ended"):
    status: Status


class ThreadStarted(_Part, frozen=True, tag_field="type", tag="thread_started"):
    """A lane is a thread: an independent chain."""

    thread_id: str
    lane: str = ""


class ThreadEnded(_Part, frozen=True, tag_field="type", tag="thread_ended"):
    thread_id: str
    status: Status


class TurnStarted(_Part, frozen=True, tag_field="type", tag="codex_turn_started"):
    codex_turn_id: str
    thread_id: str


class TurnEnded(_Part, frozen=True, tag_field="type", tag="codex_turn_ended"):
    codex_turn_id: str
    status: Status


class InferenceStarted(_Part, frozen=True, tag_field="type", tag="inference_started"):
    inference_call_id: str
    thread_id: str
    codex_turn_id: str
    model: str
    provider_name: str
    request_payload: PayloadRef
    request_input_mode: InputMode | None = None
    warmline: AttemptFacts | None = None


class InferenceCompleted(_Part, frozen=True, tag_field="type", tag="inference_completed"):
    inference_call_id: str
    response_payload: PayloadRef
    response_id: str | None = None
    upstream_request_id: str | None = None
    warmline: EndFacts | None = None


class InferenceFailed(_Part, frozen=True, tag_field="type", tag="inference_failed"):
    inference_call_id: str
    error: str
    upstream_request_id: str | None = None
    partial_response_payload: PayloadRef | None = None
    response_id: str | None = None
    warmline: EndFacts | None = None


class InferenceCancelled(_Part, frozen=True, tag_field="type", tag="inference_cancelled"):
    inference_call_id: str
    reason: str
    upstream_request_id: str | None = None
    partial_response_payload: PayloadRef | None = None
    response_id: str | None = None
    warmline: EndFacts | None = None


class CompactionInstalled(_Part, frozen=True, tag_field="type", tag="compaction_installed"):
    """The thread's history was replaced; the payload holds `replacement_history`."""

    compaction_id: str
    thread_id: str
    codex_turn_id: str
    checkpoint_payload: PayloadRef


class Breadcrumb(_Part, frozen=True, tag_field="type", tag="protocol_event_observed"):
    """Kept by other writers for people; replay passes it over."""


class Other(_Part, frozen=True, tag_field="type", tag="other"):
    """Facts of another kind. `fact` is ours, None where another writer made the event."""

    fact: OwnFact | None = None


Terminal = InferenceCompleted | InferenceFailed | InferenceCancelled
Event = (
    RolloutStarted
    | RolloutEnded
    | ThreadStarted
    | ThreadEnded
    | TurnStarted
    | TurnEnded
    | InferenceStarted
    | InferenceCompleted
    | InferenceFailed
    | InferenceCancelled
    | CompactionInstalled
    | Breadcrumb
    | Other
)


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the log. `seq` counts from 1."""

    schema_version: Annotated[int, msgspec.Meta(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    seq: _Int
    wall_time_unix_ms: _Int
    rollout_id: str
    payload: Event
    thread_id: str | None = None
    codex_turn_id: str | None = None


class TokenUsage(msgspec.Struct, frozen=True):
    """The reducer takes it only whole, so there is no default."""

    input_tokens: _Int
    cached_input_tokens: _Int
    output_tokens: _Int
    reasoning_output_tokens: _Int
    total_tokens: _Int = 0


class ResponsePayload(msgspec.Struct, frozen=True):
    """What came back: complete items, verbatim, no deltas."""

    response_id: str | None
    upstream_request_id: str | None
    token_usage: TokenUsage | None
    output_items: list[msgspec.Raw]

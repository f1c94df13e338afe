"""What a session is, as its creator asked for it, in the server's own terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


class WarmUp(Enum):
    """What opens before the first turn."""

    NONE = auto()
    HANDSHAKE = auto()
    GENERATE_FALSE = auto()


class Source(Enum):
    """Where a session comes from."""

    UNSPECIFIED = auto()
    INTERACTIVE = auto()
    REVIEW = auto()
    COMPACT = auto()
    THREAD_SPAWN = auto()
    MEMORY_CONSOLIDATION = auto()
    SUB_AGENT = auto()


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """A session's settings; None takes the upstream's or the operator's.

    `given` is the caller's own config in a form that is equal for equal configs. `defaults` are body fields as JSON.
    Times are seconds. `conversation_id` is blank when the server shall make one.
    """

    given: bytes = b""
    upstream: str = ""
    warm_up: WarmUp | None = None
    conversation_id: str = ""
    source: Source = Source.UNSPECIFIED
    sub_agent_label: str = ""
    parent_thread_id: str = ""
    installation_id: str = ""
    defaults: Mapping[str, bytes] = field(default_factory=dict)
    stream_max_retries: int | None = None
    request_max_retries: int | None = None
    fallback_after_s: float | None = None
    latch_reprobe_s: float | None = None
    http_only: bool = False
    idle_ttl_s: float | None = None
    max_turn_duration_s: float | None = None
    max_lanes: int | None = None
    max_transcript_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

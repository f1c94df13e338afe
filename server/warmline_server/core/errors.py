"""What can go wrong, as data: a reason, whose fault it is, and what the handler needs to act.

`rpc/status.py` is the only place that turns these into gRPC statuses.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class Reason(StrEnum):
    """Why a call failed: the names of `warmline.v1.ErrorReason` without their prefix (a test keeps them equal)."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    INVALID_REQUEST = auto()
    SESSION_KEY_MISMATCH = auto()
    RESERVED_KEY = auto()
    UNKNOWN_UPSTREAM = auto()
    UPSTREAM_REJECTED = auto()
    INVALID_IMAGE = auto()
    SESSION_NOT_FOUND = auto()
    TURN_NOT_FOUND = auto()
    SESSION_CONFIG_CONFLICT = auto()
    REQUEST_ID_REUSED = auto()
    SESSION_CLOSED = auto()
    UPSTREAM_AUTH = auto()
    UPSTREAM_PERMISSION = auto()
    UPSTREAM_NOT_FOUND = auto()
    CONTEXT_TOO_LONG = auto()
    POLICY_VIOLATION = auto()
    TRANSCRIPT_LOST = auto()
    HISTORY_CONFLICT = auto()
    LANE_BUSY = auto()
    TURN_PREEMPTED = auto()
    LOST_AFTER_TOOL_CALL = auto()
    UPSTREAM_RATE_LIMITED = auto()
    UPSTREAM_QUOTA = auto()
    LIMIT_EXCEEDED = auto()
    SLOW_READER = auto()
    UPSTREAM_UNREACHABLE = auto()
    UPSTREAM_FAILED = auto()
    UPSTREAM_OVERLOADED = auto()
    UPSTREAM_IDLE = auto()
    UPSTREAM_STREAM_LOST = auto()
    UPSTREAM_PROTOCOL = auto()
    SERVER_DRAINING = auto()
    TURN_DRAINED = auto()
    DEADLINE_EXCEEDED = auto()
    MAX_DURATION_EXCEEDED = auto()
    TURN_CANCELLED = auto()
    NOT_IMPLEMENTED = auto()
    UNAUTHENTICATED = auto()
    PERMISSION_DENIED = auto()
    INTERNAL = auto()
    CALLERS_UNVERIFIABLE = auto()


class Heal(Enum):
    """What a resend can do about an upstream failure."""

    NEVER = auto()
    """Final: the same request meets the same answer."""
    RESEND = auto()
    """A resend may succeed; costs a retry."""
    FRESH_SOCKET = auto()
    """A full request on a new socket is expected to succeed; costs a retry (connection limit)."""
    FULL_REQUEST = auto()
    """As FRESH_SOCKET, at once and once per call without cost (the former response was forgotten)."""
    HTTP = auto()
    """The upstream wants HTTP: fall back now, without cost (426)."""
    AUTH = auto()
    """The credential was refused: recover it and repeat, without cost; final when no step is left."""


class WarmlineError(Exception):
    """A failure with a reason. The text may reach the caller: ids and figures, never prompts, answers or secrets.

    `field` is the request's field that is at fault, dotted, blank when none is; `limit` names the limit of this
    server that was met; `retry_after_s` is set where the caller may send the same call again, after that long.
    """

    def __init__(
        self, reason: Reason, text: str, *, field: str = "", limit: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason, text)
        self.reason = reason
        self.text = text
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}"


class CallerError(WarmlineError):
    """The caller broke a rule."""


class ServiceError(WarmlineError):
    """This server cannot, or will not now."""


@dataclass(frozen=True, slots=True)
class UpstreamWords:
    """The provider's own words about a failure, verbatim but for the cut; only its caller may see them."""

    status: int | None = None
    code: str = ""
    type: str = ""
    param: str = ""
    message: str = ""


class UpstreamFailure(WarmlineError):
    """The upstream failed, refused, or broke the protocol.

    `heal` says what a resend can do; `delay_s` is the wait that the upstream asked for, None when it asked for none;
    `words` is None when the upstream said nothing; `upstream_request_id` is the id of the request that failed, None
    when unknown; `handshake` is True when it failed before a socket was there.
    """

    def __init__(
        self,
        reason: Reason,
        text: str,
        *,
        heal: Heal = Heal.RESEND,
        delay_s: float | None = None,
        words: UpstreamWords | None = None,
        upstream_request_id: str | None = None,
        handshake: bool = False,
    ) -> None:
        super().__init__(reason, text)
        self.heal = heal
        self.delay_s = delay_s
        self.words = words
        self.upstream_request_id = upstream_request_id
        self.handshake = handshake


class CredentialFailure(UpstreamFailure):
    """The credential could not be had or renewed. No transport is at fault, so it never leads to another one."""

"""What a call can fail with: one class per thing a caller does differently, the facts as attributes.

`from_rpc_error` is the only place that reads gRPC statuses. Imports nothing of this package but the contract.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from warmline.v1 import errors_pb2

# Domain of the server's `google.rpc.ErrorInfo`. Source: protos/warmline/v1/errors.proto.
DOMAIN = "warmline"
_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that has a value which is not allowed."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A limit that was met."""

    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class UpstreamWords:
    """The provider's own words about the failure, verbatim; `status` is None when there was no HTTP status."""

    status: int | None = None
    code: str = ""
    type: str = ""
    param: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """What is known about a failure. Blank and None mean: not told."""

    code: grpc.StatusCode | None = None
    """Status of the call; None for a failure that the client itself found."""
    reason: str = ""
    """A name of `warmline.v1.ErrorReason` without its prefix."""
    turn_id: str = ""
    request_id: str = ""
    response_id: str = ""
    upstream_request_id: str | None = None
    attempts: int | None = None
    """Attempts made upstream."""
    retry_after_s: float | None = None
    """The same call may be sent again after this long; None: the server did not say so."""
    field_violations: tuple[FieldViolation, ...] = ()
    quota_violations: tuple[QuotaViolation, ...] = ()
    upstream: UpstreamWords | None = None
    is_transport_failure: bool = False
    """UNAVAILABLE without ErrorInfo: the server was not reached, or the connection to it was lost."""


class WarmlineError(Exception):
    """A call failed. `str()` has no words of prompts or answers; the provider's own are in `upstream`."""

    def __init__(self, message: str, facts: ErrorFacts | None = None) -> None:
        facts = facts or ErrorFacts()
        super().__init__(message, facts)
        self.message = message
        self.facts = facts
        self.code = facts.code
        self.reason = facts.reason
        self.turn_id = facts.turn_id
        self.request_id = facts.request_id
        self.response_id = facts.response_id
        self.upstream_request_id = facts.upstream_request_id
        self.attempts = facts.attempts
        self.retry_after_s = facts.retry_after_s
        self.field_violations = facts.field_violations
        self.quota_violations = facts.quota_violations
        self.upstream = facts.upstream

    def __str__(self) -> str:
        name = self.reason or (self.code.name if self.code else "")
        ids = [
            f"{label} {value}"
            for label, value in (
                ("turn", self.turn_id),
                ("response", self.response_id),
                ("upstream request", self.upstream_request_id),
            )
            if value
        ]
        return (f"{name}: " if name else "") + self.message + (f" ({', '.join(ids)})" if ids else "")


class InvalidRequestError(WarmlineError):
    """The request is wrong: change it. `field_violations` or `upstream` say what about it."""


class NotFoundError(WarmlineError):
    """What the request names does not exist."""


class SessionNotFoundError(NotFoundError):
    """No such session: create it, or send its config with the turn."""


class TurnNotFoundError(NotFoundError):
    """No running call matches: it has ended."""


class ConflictError(WarmlineError):
    """The id is taken."""


class SessionConflictError(ConflictError):
    """The session exists with another config: use that config or another id."""


class RequestIdReusedError(ConflictError):
    """A call of this request id is running or has completed: do not send it again."""


class PreconditionError(WarmlineError):
    """The call cannot succeed until something else has changed."""


class SessionClosedError(PreconditionError):
    """The session was closed meanwhile: start a new one."""


class UpstreamSetupError(PreconditionError):
    """The provider refuses this server's credential, permission or model: its operator must act."""


class ContextTooLongError(PreconditionError):
    """The conversation is longer than the model takes: shorten or compact it."""


class PolicyViolationError(PreconditionError):
    """The provider's policy forbids the request."""


class HistoryError(WarmlineError):
    """The server's history of the lane is not the caller's: send the whole conversation."""


class LaneBusyError(WarmlineError):
    """The lane has a running call: wait for it, take another lane, or say `on_busy`."""


class TurnPreemptedError(WarmlineError):
    """A later call took the lane: this one is obsolete."""


class TurnInterruptedError(WarmlineError):
    """The call was cut after it began. What was delivered is in `turn.snapshot()`; decide whether to send again."""


class RateLimitedError(WarmlineError):
    """The provider's rate limit: wait `retry_after_s`."""


class QuotaExhaustedError(WarmlineError):
    """The provider's quota or plan is used up: waiting does not help."""


class LimitExceededError(WarmlineError):
    """A limit of the server, or of gRPC's messages; `quota_violations` names it."""


class SlowReaderError(WarmlineError):
    """The caller read the stream too slowly."""


class UnavailableError(WarmlineError):
    """The server or the provider cannot serve now, and no output was delivered: try again later."""


class DeadlineExceededError(WarmlineError):
    """The call took longer than it may."""


class TurnCancelledError(WarmlineError):
    """The call was cancelled, here or by CancelTurn."""


class NotImplementedByServerError(WarmlineError):
    """The contract has it and this server does not yet."""


class UnauthenticatedError(WarmlineError):
    """The server does not know who calls: give a token or a certificate."""


class PermissionDeniedError(WarmlineError):
    """The caller may not do this."""


class ServerFaultError(WarmlineError):
    """A fault of the server; its log has the detail under the request id."""


class ProtocolError(WarmlineError):
    """The server sent what the contract does not allow."""


class SequenceGapError(ProtocolError):
    """Events are missing or doubled."""


class TextVoidedError(WarmlineError):
    """A resend voided text that `turn.text()` had already given out; the turn itself goes on.

    Only with `retry="reference"`. Go on with `turn.result()`, or read events and honour `restarted`.
    """


# Reasons that a caller treats otherwise than their status code says; all others go by the code.
_BY_REASON: dict[str, type[WarmlineError]] = {
    "SESSION_NOT_FOUND": SessionNotFoundError,
    "TURN_NOT_FOUND": TurnNotFoundError,
    "SESSION_CONFIG_CONFLICT": SessionConflictError,
    "REQUEST_ID_REUSED": RequestIdReusedError,
    "SESSION_CLOSED": SessionClosedError,
    "UPSTREAM_AUTH": UpstreamSetupError,
    "UPSTREAM_PERMISSION": UpstreamSetupError,
    "UPSTREAM_NOT_FOUND": UpstreamSetupError,
    "CONTEXT_TOO_LONG": ContextTooLongError,
    "POLICY_VIOLATION": PolicyViolationError,
    "TRANSCRIPT_LOST": HistoryError,
    "HISTORY_CONFLICT": HistoryError,
    "LANE_BUSY": LaneBusyError,
    "TURN_PREEMPTED": TurnPreemptedError,
    "UPSTREAM_RATE_LIMITED": RateLimitedError,
    "UPSTREAM_QUOTA": QuotaExhaustedError,
    "SLOW_READER": SlowReaderError,
    "TURN_DRAINED": TurnInterruptedError,
}

_BY_CODE: dict[grpc.StatusCode, type[WarmlineError]] = {
    grpc.StatusCode.CANCELLED: TurnCancelledError,
    grpc.StatusCode.UNKNOWN: ServerFaultError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceededError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.ABORTED: TurnInterruptedError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.UNIMPLEMENTED: NotImplementedByServerError,
    grpc.StatusCode.INTERNAL: ServerFaultError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DATA_LOSS: ServerFaultError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
}


def from_rpc_error(error: grpc.aio.AioRpcError, known: ErrorFacts | None = None) -> WarmlineError:
    """Makes the typed error of a status; `known` are the caller's own facts, which the server's overrule."""
    code = error.code()
    facts = replace(known or ErrorFacts(), code=code)
    has_error_info = False
    for detail in _details(error):
        has_error_info |= detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
        facts = _with_detail(facts, detail)
    if code is grpc.StatusCode.UNAVAILABLE and not has_error_info:
        facts = replace(facts, is_transport_failure=True)
    kind = _BY_REASON.get(facts.reason) or _BY_CODE.get(code, WarmlineError)
    typed = kind(error.details() or "no message", facts)
    typed.__cause__ = error
    return typed


def _details(error: grpc.aio.AioRpcError) -> Sequence[AnyMessage]:
    """The status details; empty when there are none, or none that can be read (a proxy's own bytes, say)."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                details: Sequence[AnyMessage] = status_pb2.Status.FromString(value).details
            except DecodeError:
                return ()
            return details
    return ()


def _with_detail(facts: ErrorFacts, detail: AnyMessage) -> ErrorFacts:
    reader = _READERS.get(detail.TypeName())
    try:
        return facts if reader is None else reader(facts, detail.value)
    except DecodeError:
        return facts


def _read_error_info(facts: ErrorFacts, value: bytes) -> ErrorFacts:
    info = error_details_pb2.ErrorInfo.FromString(value)
    if info.domain != DOMAIN:
        return facts
    attempts = info.metadata.get("attempts", "")
    return replace(
        facts,
        reason=info.reason,
        turn_id=info.metadata.get("turn_id") or facts.turn_id,
        request_id=info.metadata.get("request_id") or facts.request_id,
        response_id=info.metadata.get("response_id") or facts.response_id,
        upstream_request_id=info.metadata.get("upstream_request_id") or facts.upstream_request_id,
        attempts=int(attempts) if attempts.isdecimal() else facts.attempts,
    )


def _read_retry_info(facts: ErrorFacts, value: bytes) -> ErrorFacts:
    delay = error_details_pb2.RetryInfo.FromString(value).retry_delay
    return replace(facts, retry_after_s=max(0.0, delay.seconds + delay.nanos / 1e9))


def _read_bad_request(facts: ErrorFacts, value: bytes) -> ErrorFacts:
    found = error_details_pb2.BadRequest.FromString(value).field_violations
    return replace(facts, field_violations=tuple(FieldViolation(v.field, v.description) for v in found))


def _read_quota_failure(facts: ErrorFacts, value: bytes) -> ErrorFacts:
    found = error_details_pb2.QuotaFailure.FromString(value).violations
    return replace(facts, quota_violations=tuple(QuotaViolation(v.subject, v.description) for v in found))


def _read_upstream_error(facts: ErrorFacts, value: bytes) -> ErrorFacts:
    words = errors_pb2.UpstreamError.FromString(value)
    status = words.status if words.HasField("status") else None
    return replace(facts, upstream=UpstreamWords(status, words.code, words.type, words.param, words.message))


_READERS: dict[str, Callable[[ErrorFacts, bytes], ErrorFacts]] = {
    "google.rpc.ErrorInfo": _read_error_info,
    "google.rpc.RetryInfo": _read_retry_info,
    "google.rpc.BadRequest": _read_bad_request,
    "google.rpc.QuotaFailure": _read_quota_failure,
    "warmline.v1.UpstreamError": _read_upstream_error,
}

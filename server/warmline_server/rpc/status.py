"""Failures as gRPC statuses: the one table, and the one place where a status leaves the server."""

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from warmline.v1 import errors_pb2
from warmline_server.core.errors import Heal, Reason, UpstreamFailure, WarmlineError

DOMAIN = "warmline"
DETAILS_KEY = "grpc-status-details-bin"

_Code = grpc.StatusCode

CODES: Mapping[Reason, grpc.StatusCode] = {
    Reason.INVALID_REQUEST: _Code.INVALID_ARGUMENT,
    Reason.SESSION_KEY_MISMATCH: _Code.INVALID_ARGUMENT,
    Reason.RESERVED_KEY: _Code.INVALID_ARGUMENT,
    Reason.UNKNOWN_UPSTREAM: _Code.INVALID_ARGUMENT,
    Reason.UPSTREAM_REJECTED: _Code.INVALID_ARGUMENT,
    Reason.INVALID_IMAGE: _Code.INVALID_ARGUMENT,
    Reason.SESSION_NOT_FOUND: _Code.NOT_FOUND,
    Reason.TURN_NOT_FOUND: _Code.NOT_FOUND,
    Reason.SESSION_CONFIG_CONFLICT: _Code.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: _Code.ALREADY_EXISTS,
    Reason.SESSION_CLOSED: _Code.FAILED_PRECONDITION,
    Reason.UPSTREAM_AUTH: _Code.FAILED_PRECONDITION,
    Reason.UPSTREAM_PERMISSION: _Code.FAILED_PRECONDITION,
    Reason.UPSTREAM_NOT_FOUND: _Code.FAILED_PRECONDITION,
    Reason.CONTEXT_TOO_LONG: _Code.FAILED_PRECONDITION,
    Reason.POLICY_VIOLATION: _Code.FAILED_PRECONDITION,
    Reason.TRANSCRIPT_LOST: _Code.FAILED_PRECONDITION,
    Reason.HISTORY_CONFLICT: _Code.ABORTED,
    Reason.LANE_BUSY: _Code.ABORTED,
    Reason.TURN_PREEMPTED: _Code.ABORTED,
    Reason.LOST_AFTER_TOOL_CALL: _Code.ABORTED,
    Reason.UPSTREAM_RATE_LIMITED: _Code.RESOURCE_EXHAUSTED,
    Reason.UPSTREAM_QUOTA: _Code.RESOURCE_EXHAUSTED,
    Reason.LIMIT_EXCEEDED: _Code.RESOURCE_EXHAUSTED,
    Reason.SLOW_READER: _Code.RESOURCE_EXHAUSTED,
    Reason.UPSTREAM_UNREACHABLE: _Code.UNAVAILABLE,
    Reason.UPSTREAM_FAILED: _Code.UNAVAILABLE,
    Reason.UPSTREAM_OVERLOADED: _Code.UNAVAILABLE,
    Reason.UPSTREAM_IDLE: _Code.UNAVAILABLE,
    Reason.UPSTREAM_STREAM_LOST: _Code.UNAVAILABLE,
    Reason.UPSTREAM_PROTOCOL: _Code.UNAVAILABLE,
    Reason.SERVER_DRAINING: _Code.UNAVAILABLE,
    Reason.TURN_DRAINED: _Code.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: _Code.DEADLINE_EXCEEDED,
    Reason.MAX_DURATION_EXCEEDED: _Code.DEADLINE_EXCEEDED,
    Reason.TURN_CANCELLED: _Code.CANCELLED,
    Reason.NOT_IMPLEMENTED: _Code.UNIMPLEMENTED,
    Reason.UNAUTHENTICATED: _Code.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: _Code.PERMISSION_DENIED,
    Reason.INTERNAL: _Code.INTERNAL,
    Reason.CALLERS_UNVERIFIABLE: _Code.UNAVAILABLE,
}

# The same call may be sent again before output; after it the caller has seen something that a repetition would change.
_ABORTED_AFTER_OUTPUT = frozenset(
    {
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_FAILED,
        Reason.UPSTREAM_OVERLOADED,
        Reason.UPSTREAM_IDLE,
        Reason.UPSTREAM_STREAM_LOST,
        Reason.UPSTREAM_PROTOCOL,
    }
)
# Where the upstream says nothing: the server has spent its own budget already, so callers should not come back at once.
_DEFAULT_RETRY_AFTER_S = 1.0
_RETRIED_BY_CALLERS = frozenset({*_ABORTED_AFTER_OUTPUT, Reason.UPSTREAM_RATE_LIMITED})

# All details of a status share the 8 KiB that clients and proxies take.
_LONGEST_ID = 256

_INTERNAL_TEXT = "internal error; the server's log has the detail"


def code_of(error: WarmlineError, *, output_delivered: bool) -> grpc.StatusCode:
    """The code of a failure, for a call that has or has not delivered output of the model."""
    if output_delivered and error.reason in _ABORTED_AFTER_OUTPUT:
        return _Code.ABORTED
    return CODES[error.reason]


def details_of(
    error: WarmlineError, *, output_delivered: bool = False, ids: Mapping[str, str] | None = None
) -> status_pb2.Status:
    """The whole status: code, text, and details as the contract says.

    Args: `ids` the known ones of `turn_id`, `response_id`, `upstream_request_id`, `attempts`.
    """
    code = code_of(error, output_delivered=output_delivered)
    status = status_pb2.Status(code=code.value[0], message=error.text)
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=ids or {}))
    retry_after_s = _retry_after_s(error, code)
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_after_s * 1e9))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.text)
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if error.limit:
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.limit, description=error.text)
        _add(status, error_details_pb2.QuotaFailure(violations=[quota]))
    if isinstance(error, UpstreamFailure) and error.words is not None:
        words = error.words
        _add(
            status,
            errors_pb2.UpstreamError(
                status=words.status, code=words.code, type=words.type, param=words.param, message=words.message
            ),
        )
    return status


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: WarmlineError,
    *,
    output_delivered: bool = False,
    ids: Mapping[str, str] | None = None,
) -> NoReturn:
    """Ends the RPC with a failure's status; the known ids are also in the trailing metadata."""
    told = {name: value for name, value in (ids or {}).items() if _fits_a_header(value)}
    status = details_of(error, output_delivered=output_delivered, ids=told)
    trailing: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    trailing += [(f"x-warmline-{name.replace('_', '-')}", value) for name, value in told.items()]
    await context.abort(code_of(error, output_delivered=output_delivered), error.text, tuple(trailing))


def _fits_a_header(value: str) -> bool:
    """Whether an id, perhaps a provider's, can be metadata: grpc drops a whole status for one that cannot."""
    return 0 < len(value) <= _LONGEST_ID and value.isascii() and value.isprintable()


def internal() -> WarmlineError:
    """What a caller learns of a fault of ours."""
    return WarmlineError(Reason.INTERNAL, _INTERNAL_TEXT)


def _retry_after_s(error: WarmlineError, code: grpc.StatusCode) -> float | None:
    if error.retry_after_s is not None:
        return error.retry_after_s
    if code is _Code.ABORTED or error.reason not in _RETRIED_BY_CALLERS:
        return None
    if not isinstance(error, UpstreamFailure):
        return _DEFAULT_RETRY_AFTER_S
    if error.heal is Heal.NEVER:  # a redirect: the next call would meet it again
        return None
    return _DEFAULT_RETRY_AFTER_S if error.delay_s is None else error.delay_s


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)

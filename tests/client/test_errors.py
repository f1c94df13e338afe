"""Every reason and every code becomes the error that a caller handles, with all that the status says."""

import grpc
import pytest
from google.rpc import error_details_pb2

import warmline
from client.fake_server import Call as FakeCall
from client.fake_server import FakeServer, Refusal, admitted, refuse, retry_info
from warmline.v1 import errors_pb2

C = grpc.StatusCode

REASONS: dict[str, tuple[grpc.StatusCode, type[warmline.WarmlineError]]] = {
    "INVALID_REQUEST": (C.INVALID_ARGUMENT, warmline.InvalidRequestError),
    "SESSION_KEY_MISMATCH": (C.INVALID_ARGUMENT, warmline.InvalidRequestError),
    "RESERVED_KEY": (C.INVALID_ARGUMENT, warmline.InvalidRequestError),
    "UNKNOWN_UPSTREAM": (C.INVALID_ARGUMENT, warmline.InvalidRequestError),
    "UPSTREAM_REJECTED": (C.INVALID_ARGUMENT, warmline.InvalidRequestError),
    "INVALID_IMAGE": (C.INVALID_ARGUMENT, warmline.InvalidRequestError),
    "SESSION_NOT_FOUND": (C.NOT_FOUND, warmline.SessionNotFoundError),
    "TURN_NOT_FOUND": (C.NOT_FOUND, warmline.TurnNotFoundError),
    "SESSION_CONFIG_CONFLICT": (C.ALREADY_EXISTS, warmline.SessionConflictError),
    "REQUEST_ID_REUSED": (C.ALREADY_EXISTS, warmline.RequestIdReusedError),
    "SESSION_CLOSED": (C.FAILED_PRECONDITION, warmline.SessionClosedError),
    "UPSTREAM_AUTH": (C.FAILED_PRECONDITION, warmline.UpstreamSetupError),
    "UPSTREAM_PERMISSION": (C.FAILED_PRECONDITION, warmline.UpstreamSetupError),
    "UPSTREAM_NOT_FOUND": (C.FAILED_PRECONDITION, warmline.UpstreamSetupError),
    "CONTEXT_TOO_LONG": (C.FAILED_PRECONDITION, warmline.ContextTooLongError),
    "POLICY_VIOLATION": (C.FAILED_PRECONDITION, warmline.PolicyViolationError),
    "TRANSCRIPT_LOST": (C.FAILED_PRECONDITION, warmline.HistoryError),
    "HISTORY_CONFLICT": (C.ABORTED, warmline.HistoryError),
    "LANE_BUSY": (C.ABORTED, warmline.LaneBusyError),
    "TURN_PREEMPTED": (C.ABORTED, warmline.TurnPreemptedError),
    "LOST_AFTER_TOOL_CALL": (C.ABORTED, warmline.TurnInterruptedError),
    "UPSTREAM_RATE_LIMITED": (C.RESOURCE_EXHAUSTED, warmline.RateLimitedError),
    "UPSTREAM_QUOTA": (C.RESOURCE_EXHAUSTED, warmline.QuotaExhaustedError),
    "LIMIT_EXCEEDED": (C.RESOURCE_EXHAUSTED, warmline.LimitExceededError),
    "SLOW_READER": (C.RESOURCE_EXHAUSTED, warmline.SlowReaderError),
    "UPSTREAM_UNREACHABLE": (C.UNAVAILABLE, warmline.UnavailableError),
    "UPSTREAM_FAILED": (C.UNAVAILABLE, warmline.UnavailableError),
    "UPSTREAM_OVERLOADED": (C.UNAVAILABLE, warmline.UnavailableError),
    "UPSTREAM_IDLE": (C.ABORTED, warmline.TurnInterruptedError),
    "UPSTREAM_STREAM_LOST": (C.ABORTED, warmline.TurnInterruptedError),
    "UPSTREAM_PROTOCOL": (C.ABORTED, warmline.TurnInterruptedError),
    "SERVER_DRAINING": (C.UNAVAILABLE, warmline.UnavailableError),
    "TURN_DRAINED": (C.UNAVAILABLE, warmline.TurnInterruptedError),
    "DEADLINE_EXCEEDED": (C.DEADLINE_EXCEEDED, warmline.DeadlineExceededError),
    "MAX_DURATION_EXCEEDED": (C.DEADLINE_EXCEEDED, warmline.DeadlineExceededError),
    "TURN_CANCELLED": (C.CANCELLED, warmline.TurnCancelledError),
    "NOT_IMPLEMENTED": (C.UNIMPLEMENTED, warmline.NotImplementedByServerError),
    "UNAUTHENTICATED": (C.UNAUTHENTICATED, warmline.UnauthenticatedError),
    "PERMISSION_DENIED": (C.PERMISSION_DENIED, warmline.PermissionDeniedError),
    "INTERNAL": (C.INTERNAL, warmline.ServerFaultError),
    "CALLERS_UNVERIFIABLE": (C.UNAVAILABLE, warmline.UnavailableError),
}

CODES: dict[grpc.StatusCode, type[warmline.WarmlineError]] = {
    C.CANCELLED: warmline.TurnCancelledError,
    C.UNKNOWN: warmline.ServerFaultError,
    C.INVALID_ARGUMENT: warmline.InvalidRequestError,
    C.DEADLINE_EXCEEDED: warmline.DeadlineExceededError,
    C.NOT_FOUND: warmline.NotFoundError,
    C.ALREADY_EXISTS: warmline.ConflictError,
    C.PERMISSION_DENIED: warmline.PermissionDeniedError,
    C.RESOURCE_EXHAUSTED: warmline.LimitExceededError,
    C.FAILED_PRECONDITION: warmline.PreconditionError,
    C.ABORTED: warmline.TurnInterruptedError,
    C.OUT_OF_RANGE: warmline.InvalidRequestError,
    C.UNIMPLEMENTED: warmline.NotImplementedByServerError,
    C.INTERNAL: warmline.ServerFaultError,
    C.DATA_LOSS: warmline.ServerFaultError,
    C.UNAUTHENTICATED: warmline.UnauthenticatedError,
    C.UNAVAILABLE: warmline.UnavailableError,
}


def test_every_reason_of_the_contract_is_in_the_table() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118

    assert names - {"UNSPECIFIED"} == REASONS.keys()
    assert {C.OK} | CODES.keys() == set(C)


async def failure(server: FakeServer, session: warmline.Session, refusal: Refusal) -> warmline.WarmlineError:
    server.on("StreamTurn", refuse(refusal))
    async with session.turn("Go.") as turn:
        with pytest.raises(warmline.WarmlineError) as caught:
            await turn.result()
    return caught.value


@pytest.mark.parametrize("reason", REASONS)
async def test_reason_becomes_its_error(server: FakeServer, session: warmline.Session, reason: str) -> None:
    code, kind = REASONS[reason]

    error = await failure(server, session, Refusal(code, reason))

    assert type(error) is kind
    assert (error.code, error.reason) == (code, reason)
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)


@pytest.mark.parametrize("code", [code for code in CODES if code is not C.UNAVAILABLE], ids=lambda code: code.name)
async def test_code_without_details_becomes_its_error(
    server: FakeServer, session: warmline.Session, code: grpc.StatusCode
) -> None:
    error = await failure(server, session, Refusal(code))

    assert type(error) is CODES[code]
    assert (error.code, error.reason, error.retry_after_s) == (code, "", None)


async def test_reason_of_a_newer_server_goes_by_its_code(server: FakeServer, session: warmline.Session) -> None:
    error = await failure(server, session, Refusal(C.ABORTED, "INVENTED_LATER"))

    assert type(error) is warmline.TurnInterruptedError
    assert error.reason == "INVENTED_LATER"


async def test_error_carries_all_details(server: FakeServer, session: warmline.Session) -> None:
    violations = [error_details_pb2.BadRequest.FieldViolation(field="input[0]", description="no JSON")]
    quota = [error_details_pb2.QuotaFailure.Violation(subject="lanes", description="at most 4")]
    words = errors_pb2.UpstreamError(status=400, code="bad_thing", type="invalid", param="input", message="Nö.")
    ids = {"turn_id": "t", "response_id": "r", "upstream_request_id": "u", "attempts": "3"}
    details = [
        error_details_pb2.BadRequest(field_violations=violations),
        error_details_pb2.QuotaFailure(violations=quota),
        words,
    ]

    error = await failure(
        server, session, Refusal(C.INVALID_ARGUMENT, "UPSTREAM_REJECTED", "refused", details, metadata=ids)
    )

    assert (error.turn_id, error.response_id, error.upstream_request_id, error.attempts) == ("t", "r", "u", 3)
    assert error.field_violations == (warmline.FieldViolation("input[0]", "no JSON"),)
    assert error.quota_violations == (warmline.QuotaViolation("lanes", "at most 4"),)
    assert error.upstream == warmline.UpstreamWords(400, "bad_thing", "invalid", "input", "Nö.")
    assert error.request_id == server.calls[0].request.request_id
    assert str(error) == "UPSTREAM_REJECTED: refused (turn t, response r, upstream request u)"


async def test_error_without_upstream_status_says_none(server: FakeServer, session: warmline.Session) -> None:
    error = await failure(
        server, session, Refusal(C.INVALID_ARGUMENT, "UPSTREAM_REJECTED", details=[errors_pb2.UpstreamError(code="x")])
    )

    assert error.upstream is not None
    assert error.upstream.status is None


async def test_error_keeps_the_ids_that_the_events_told(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: FakeCall) -> None:
        await call.send(admitted("turn-4"))
        raise Refusal(C.ABORTED, "UPSTREAM_IDLE")

    server.on("StreamTurn", step)

    async with session.turn("Go.") as turn:
        with pytest.raises(warmline.TurnInterruptedError) as caught:
            await turn.result()

    assert caught.value.turn_id == "turn-4"


async def test_details_that_nobody_can_read_leave_the_code(server: FakeServer, session: warmline.Session) -> None:
    error = await failure(server, session, Refusal(C.ABORTED, raw_details=b"\xff\xff not protobuf"))

    assert type(error) is warmline.TurnInterruptedError
    assert error.reason == ""


async def test_error_info_of_another_domain_is_not_ours(server: FakeServer, session: warmline.Session) -> None:
    foreign = error_details_pb2.ErrorInfo(reason="LANE_BUSY", domain="proxy.example")

    error = await failure(server, session, Refusal(C.UNAVAILABLE, details=[foreign]))

    assert type(error) is warmline.UnavailableError
    assert error.reason == ""
    assert len(server.calls) == 1


async def test_retry_after_is_seconds(server: FakeServer, session: warmline.Session) -> None:
    refusal = Refusal(C.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", details=[retry_info(61.5)])

    error = await failure(server, session, refusal)

    assert error.retry_after_s == pytest.approx(61.5)

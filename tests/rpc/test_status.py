"""The one table of endings: what every failure is to a caller, before output and after it."""

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from warmline.v1 import errors_pb2
from warmline_server.core import failures
from warmline_server.core.errors import CallerError, Heal, Reason, ServiceError, UpstreamFailure, WarmlineError
from warmline_server.core.events import Transport
from warmline_server.rpc import status

CODE = grpc.StatusCode
CONTRACT = Path(__file__).parents[2] / "protos/warmline/v1/errors.proto"

INVALID, NOT_FOUND, EXISTS = CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.ALREADY_EXISTS
PRECONDITION, ABORTED, EXHAUSTED = CODE.FAILED_PRECONDITION, CODE.ABORTED, CODE.RESOURCE_EXHAUSTED
UNAVAILABLE, DEADLINE = CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED

# Reason: code before output, code after output, whether the caller may send the same call again (before, after).
TABLE: dict[Reason, tuple[CODE, CODE, bool, bool]] = {
    Reason.INVALID_REQUEST: (INVALID, INVALID, False, False),
    Reason.SESSION_KEY_MISMATCH: (INVALID, INVALID, False, False),
    Reason.RESERVED_KEY: (INVALID, INVALID, False, False),
    Reason.UNKNOWN_UPSTREAM: (INVALID, INVALID, False, False),
    Reason.UPSTREAM_REJECTED: (INVALID, INVALID, False, False),
    Reason.INVALID_IMAGE: (INVALID, INVALID, False, False),
    Reason.SESSION_NOT_FOUND: (NOT_FOUND, NOT_FOUND, False, False),
    Reason.TURN_NOT_FOUND: (NOT_FOUND, NOT_FOUND, False, False),
    Reason.SESSION_CONFIG_CONFLICT: (EXISTS, EXISTS, False, False),
    Reason.REQUEST_ID_REUSED: (EXISTS, EXISTS, False, False),
    Reason.SESSION_CLOSED: (PRECONDITION, PRECONDITION, False, False),
    Reason.UPSTREAM_AUTH: (PRECONDITION, PRECONDITION, False, False),
    Reason.UPSTREAM_PERMISSION: (PRECONDITION, PRECONDITION, False, False),
    Reason.UPSTREAM_NOT_FOUND: (PRECONDITION, PRECONDITION, False, False),
    Reason.CONTEXT_TOO_LONG: (PRECONDITION, PRECONDITION, False, False),
    Reason.POLICY_VIOLATION: (PRECONDITION, PRECONDITION, False, False),
    Reason.TRANSCRIPT_LOST: (PRECONDITION, PRECONDITION, False, False),
    Reason.HISTORY_CONFLICT: (ABORTED, ABORTED, False, False),
    Reason.LANE_BUSY: (ABORTED, ABORTED, False, False),
    Reason.TURN_PREEMPTED: (ABORTED, ABORTED, False, False),
    Reason.LOST_AFTER_TOOL_CALL: (ABORTED, ABORTED, False, False),
    Reason.UPSTREAM_RATE_LIMITED: (EXHAUSTED, EXHAUSTED, True, True),
    Reason.UPSTREAM_QUOTA: (EXHAUSTED, EXHAUSTED, False, False),
    Reason.LIMIT_EXCEEDED: (EXHAUSTED, EXHAUSTED, False, False),
    Reason.SLOW_READER: (EXHAUSTED, EXHAUSTED, False, False),
    Reason.UPSTREAM_UNREACHABLE: (UNAVAILABLE, ABORTED, True, False),
    Reason.UPSTREAM_FAILED: (UNAVAILABLE, ABORTED, True, False),
    Reason.UPSTREAM_OVERLOADED: (UNAVAILABLE, ABORTED, True, False),
    Reason.UPSTREAM_IDLE: (UNAVAILABLE, ABORTED, True, False),
    Reason.UPSTREAM_STREAM_LOST: (UNAVAILABLE, ABORTED, True, False),
    Reason.UPSTREAM_PROTOCOL: (UNAVAILABLE, ABORTED, True, False),
    Reason.SERVER_DRAINING: (UNAVAILABLE, UNAVAILABLE, False, False),
    Reason.TURN_DRAINED: (UNAVAILABLE, UNAVAILABLE, False, False),
    Reason.DEADLINE_EXCEEDED: (DEADLINE, DEADLINE, False, False),
    Reason.MAX_DURATION_EXCEEDED: (DEADLINE, DEADLINE, False, False),
    Reason.TURN_CANCELLED: (CODE.CANCELLED, CODE.CANCELLED, False, False),
    Reason.NOT_IMPLEMENTED: (CODE.UNIMPLEMENTED, CODE.UNIMPLEMENTED, False, False),
    Reason.UNAUTHENTICATED: (CODE.UNAUTHENTICATED, CODE.UNAUTHENTICATED, False, False),
    Reason.PERMISSION_DENIED: (CODE.PERMISSION_DENIED, CODE.PERMISSION_DENIED, False, False),
    Reason.INTERNAL: (CODE.INTERNAL, CODE.INTERNAL, False, False),
    Reason.CALLERS_UNVERIFIABLE: (UNAVAILABLE, UNAVAILABLE, False, False),
}


def details(error: WarmlineError, **known: Any) -> dict[str, Any]:
    """The details of a failure's status by the name of their type."""
    whole = status.details_of(error, **known)
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.QuotaFailure,
        errors_pb2.UpstreamError,
    )
    found: dict[str, Any] = {"code": whole.code, "message": whole.message}
    for detail in whole.details:
        kind = next(kind for kind in kinds if detail.Is(kind.DESCRIPTOR))
        assert kind.__name__ not in found, "each detail once"
        found[kind.__name__] = kind.FromString(detail.value)
    return found


def seconds(found: dict[str, Any]) -> float | None:
    """The wait that RetryInfo tells; None without one."""
    return found["RetryInfo"].retry_delay.ToNanoseconds() / 1e9 if "RetryInfo" in found else None


def test_table_has_every_reason() -> None:
    assert list(TABLE) == list(Reason)


@pytest.mark.parametrize("after", [False, True], ids=["before output", "after output"])
@pytest.mark.parametrize("reason", Reason)
def test_reason_has_its_code_and_says_whether_to_come_back(reason: Reason, after: bool) -> None:
    error = UpstreamFailure(reason, "what happened")
    found = details(error, output_delivered=after)

    before_code, after_code, *comes_back = TABLE[reason]
    code = after_code if after else before_code
    assert status.code_of(error, output_delivered=after) is code
    assert (found["code"], found["message"]) == (code.value[0], "what happened")
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == (reason.name, "warmline")
    assert ("RetryInfo" in found) == comes_back[after]


def test_contract_says_the_same_of_every_reason() -> None:
    """The comment of each reason in the contract begins with its code, and names the other one where there are two."""
    said = re.findall(r"// ([A-Z_]+)([^\n]*(?:\n  // [^\n]*)*)\n  ERROR_REASON_(\w+) =", CONTRACT.read_text())
    said = [entry for entry in said if entry[2] != "UNSPECIFIED"]
    assert {name for _, _, name in said} == {reason.name for reason in Reason}
    for code, rest, name in said:
        before_code, after_code, *_ = TABLE[Reason[name]]
        assert code == before_code.name, name
        if "ABORTED after" in rest:
            assert after_code is ABORTED, name


def test_server_that_drains_says_when_to_come_back_and_a_cut_call_does_not() -> None:
    refused = ServiceError(Reason.SERVER_DRAINING, "draining", retry_after_s=1.5)

    assert seconds(details(refused)) == 1.5
    assert seconds(details(ServiceError(Reason.TURN_DRAINED, "drained"))) is None


ERRORS: dict[str, tuple[UpstreamFailure, Reason, float | None]] = {
    "connect": (failures.connect_failed("Connection refused"), Reason.UPSTREAM_UNREACHABLE, 1.0),
    "connect timed out": (failures.connect_timed_out(15.0), Reason.UPSTREAM_UNREACHABLE, 1.0),
    "lost": (failures.stream_lost("stream closed"), Reason.UPSTREAM_STREAM_LOST, 1.0),
    "idle": (failures.idle(Transport.HTTP, 300.0, first=True), Reason.UPSTREAM_IDLE, 1.0),
    "protocol": (failures.broke_protocol("no JSON"), Reason.UPSTREAM_PROTOCOL, 1.0),
    **{
        f"status {number}": (failures.from_status(number, headers, b"", handshake=False), reason, wait_s)
        for number, headers, reason, wait_s in (
            (302, {}, Reason.UPSTREAM_PROTOCOL, None),
            (400, {}, Reason.UPSTREAM_REJECTED, None),
            (401, {}, Reason.UPSTREAM_AUTH, None),
            (403, {}, Reason.UPSTREAM_PERMISSION, None),
            (404, {}, Reason.UPSTREAM_NOT_FOUND, None),
            (413, {}, Reason.UPSTREAM_REJECTED, None),
            (422, {}, Reason.UPSTREAM_REJECTED, None),
            (429, {}, Reason.UPSTREAM_RATE_LIMITED, 1.0),
            (429, {"retry-after": "7"}, Reason.UPSTREAM_RATE_LIMITED, 7.0),
            (500, {}, Reason.UPSTREAM_FAILED, 1.0),
            (503, {"retry-after-ms": "2500"}, Reason.UPSTREAM_FAILED, 2.5),
        )
    },
    **{
        f"code {code}": (failures.from_failed_response(b'{"code":"%b"}' % code.encode()), reason, wait_s)
        for code, reason, wait_s in (
            ("context_length_exceeded", Reason.CONTEXT_TOO_LONG, None),
            ("insufficient_quota", Reason.UPSTREAM_QUOTA, None),
            ("usage_limit_reached", Reason.UPSTREAM_QUOTA, None),
            ("rate_limit_exceeded", Reason.UPSTREAM_RATE_LIMITED, 1.0),
            ("server_is_overloaded", Reason.UPSTREAM_OVERLOADED, failures.OVERLOADED_DELAY_S),
            ("cyber_policy", Reason.POLICY_VIOLATION, None),
            ("invalid_image", Reason.INVALID_IMAGE, None),
            ("invalid_prompt", Reason.UPSTREAM_REJECTED, None),
            ("model_not_found", Reason.UPSTREAM_NOT_FOUND, None),
            ("data_residency_mismatch", Reason.UPSTREAM_PERMISSION, None),
            ("server_error", Reason.UPSTREAM_FAILED, 1.0),
            ("never_heard_of", Reason.UPSTREAM_FAILED, 1.0),
        )
    },
}


@pytest.mark.parametrize("after", [False, True], ids=["before output", "after output"])
@pytest.mark.parametrize("name", ERRORS)
def test_failure_of_an_upstream_has_its_code_and_its_wait(name: str, after: bool) -> None:
    failure, reason, wait_s = ERRORS[name]
    found = details(failure, output_delivered=after)

    assert found["ErrorInfo"].reason == reason.name
    before_code, after_code, *comes_back = TABLE[reason]
    assert found["code"] == (after_code if after else before_code).value[0]
    assert seconds(found) == (wait_s if comes_back[after] else None)
    assert ("UpstreamError" in found) == (failure.words is not None)


@pytest.mark.parametrize("heal", Heal)
def test_code_does_not_depend_on_what_could_heal_it(heal: Heal) -> None:
    failure = UpstreamFailure(Reason.UPSTREAM_FAILED, "failed", heal=heal)

    assert status.code_of(failure, output_delivered=False) is UNAVAILABLE


def test_words_of_the_provider_are_a_detail_of_their_own() -> None:
    body = b'{"error":{"code":"c","type":"t","param":"p","message":"the words"}}'
    found = details(failures.from_status(500, {}, body, handshake=False))

    assert found["UpstreamError"] == errors_pb2.UpstreamError(
        status=500, code="c", type="t", param="p", message="the words"
    )
    assert "the words" not in found["message"]


def test_status_that_no_http_had_is_absent() -> None:
    found = details(failures.from_failed_response(b'{"code":"server_error","message":"m"}'))

    assert not found["UpstreamError"].HasField("status")


def test_field_and_limit_are_named_in_details() -> None:
    field = details(CallerError(Reason.INVALID_REQUEST, "input is empty", field="input"))
    limit = details(ServiceError(Reason.LIMIT_EXCEEDED, "too many", limit="max_sessions", retry_after_s=2.0))

    assert [(v.field, v.description) for v in field["BadRequest"].field_violations] == [("input", "input is empty")]
    assert [(v.subject, v.description) for v in limit["QuotaFailure"].violations] == [("max_sessions", "too many")]
    assert seconds(limit) == 2.0
    assert "QuotaFailure" not in field
    assert "BadRequest" not in limit


def test_ids_that_are_known_are_told() -> None:
    ids = {"turn_id": "t", "response_id": "resp_1", "upstream_request_id": "req_1", "attempts": "2"}

    assert dict(details(ServiceError(Reason.TURN_CANCELLED, "x"), ids=ids)["ErrorInfo"].metadata) == ids
    assert dict(details(ServiceError(Reason.TURN_CANCELLED, "x"))["ErrorInfo"].metadata) == {}


def test_longest_status_fits_what_clients_take() -> None:
    """8 KiB is what gRPC clients take of metadata by default; base64 on the way makes a third more of it."""
    long = "é" * 5_000
    body = b'{"error":{"code":"%b","type":"%b","param":"%b","message":"%b"}}' % ((long.encode(),) * 4)
    ids = dict.fromkeys(("turn_id", "response_id", "upstream_request_id", "attempts"), "x" * 256)
    failure = failures.from_status(500, {"x-request-id": "r" * 256}, body, handshake=False)
    whole = status.details_of(failure, ids=ids)
    trailing_bytes = sum(len(name) + 10 + len(value) + 32 for name, value in ids.items())

    assert whole.ByteSize() * 4 / 3 + len(failure.text) + trailing_bytes < 8 * 1024


def test_fault_of_ours_says_nothing_of_itself() -> None:
    found = details(status.internal())

    assert (found["code"], found["ErrorInfo"].reason) == (CODE.INTERNAL.value[0], "INTERNAL")
    assert found["message"] == "internal error; the server's log has the detail"

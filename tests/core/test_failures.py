"""What refusals mean."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core import failures
from warmline_server.core.errors import Heal, Reason, UpstreamFailure, UpstreamWords
from warmline_server.core.events import RateLimits, RateLimitWindow, Transport

JAN_1_2024_UNIX_S = 1_704_067_200.0


def error_body(**error: object) -> bytes:
    return json.dumps({"error": error}).encode()


def refused(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> UpstreamFailure:
    return failures.from_status(status, headers or {}, body, handshake=False, now_unix_s=JAN_1_2024_UNIX_S)


def frame(**members: object) -> UpstreamFailure:
    return failures.from_error_frame(json.dumps({"type": "error", **members}).encode())


def failed(**error: object) -> UpstreamFailure:
    return failures.from_failed_response(json.dumps(error).encode())


FINAL_CODES = [
    ("context_length_exceeded", Reason.CONTEXT_TOO_LONG),
    ("insufficient_quota", Reason.UPSTREAM_QUOTA),
    ("usage_not_included", Reason.UPSTREAM_QUOTA),
    ("cyber_policy", Reason.POLICY_VIOLATION),
    ("bio_policy", Reason.POLICY_VIOLATION),
    ("misalignment_policy_violation", Reason.POLICY_VIOLATION),
    ("image_content_policy_violation", Reason.POLICY_VIOLATION),
    ("data_residency_mismatch", Reason.UPSTREAM_PERMISSION),
    ("invalid_prompt", Reason.UPSTREAM_REJECTED),
    ("invalid_image", Reason.INVALID_IMAGE),
    ("invalid_image_format", Reason.INVALID_IMAGE),
    ("invalid_base64_image", Reason.INVALID_IMAGE),
    ("invalid_image_url", Reason.INVALID_IMAGE),
    ("invalid_image_mode", Reason.INVALID_IMAGE),
    ("image_too_large", Reason.INVALID_IMAGE),
    ("image_too_small", Reason.INVALID_IMAGE),
    ("image_parse_error", Reason.INVALID_IMAGE),
    ("image_file_too_large", Reason.INVALID_IMAGE),
    ("image_file_not_found", Reason.INVALID_IMAGE),
    ("empty_image_file", Reason.INVALID_IMAGE),
    ("unsupported_image_media_type", Reason.INVALID_IMAGE),
    ("failed_to_download_image", Reason.INVALID_IMAGE),
]


@pytest.mark.conformance("C-077")
@pytest.mark.parametrize(("code", "reason"), FINAL_CODES)
def test_failed_response_that_cannot_heal_is_final(code: str, reason: Reason) -> None:
    """D-15 for the codes that the reference does not know and resends."""
    failure = failed(code=code, message="why")

    assert (failure.reason, failure.heal, failure.delay_s) == (reason, Heal.NEVER, None)
    assert failure.words == UpstreamWords(code=code, message="why")


@pytest.mark.conformance("C-077")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("server_error", Reason.UPSTREAM_FAILED),
        ("vector_store_timeout", Reason.UPSTREAM_FAILED),
        ("never_heard_of", Reason.UPSTREAM_FAILED),
        (None, Reason.UPSTREAM_FAILED),
        ("rate_limit_exceeded", Reason.UPSTREAM_RATE_LIMITED),
        ("server_is_overloaded", Reason.UPSTREAM_OVERLOADED),
        ("slow_down", Reason.UPSTREAM_OVERLOADED),
    ],
)
def test_failed_response_that_may_heal_is_resent(code: str | None, reason: Reason) -> None:
    failure = failed(code=code, message="why")

    assert (failure.reason, failure.heal) == (reason, Heal.RESEND)


@pytest.mark.conformance("C-077")
@pytest.mark.parametrize("error", [None, b"null", b"[]", b"7", b"{"])
def test_failed_response_without_an_error_may_heal_and_has_no_words(error: bytes | None) -> None:
    failure = failures.from_failed_response(error)

    assert (failure.reason, failure.heal, failure.words) == (Reason.UPSTREAM_FAILED, Heal.RESEND, None)
    assert failure.text == "response.failed event received without an error"


@pytest.mark.conformance("C-078")
@pytest.mark.parametrize(
    ("code", "message", "delay_s"),
    [
        ("rate_limit_exceeded", "Rate limit reached. Please try again in 11.054s. Visit us", 11.054),
        ("rate_limit_exceeded", "TRY AGAIN IN 28ms.", 0.028),
        ("rate_limit_exceeded", "try again in 35 seconds", 35.0),
        ("rate_limit_exceeded", "try again in 1 second.", 1.0),
        ("rate_limit_exceeded", "try again in 5 minutes", None),
        ("rate_limit_exceeded", "try again later", None),
        ("rate_limit_exceeded", None, None),
        ("server_error", "try again in 11.054s", None),
        (None, "try again in 11.054s", None),
    ],
)
def test_delay_in_words_counts_for_a_rate_limit_only(code: str | None, message: str | None, delay_s: float) -> None:
    assert failed(code=code, message=message).delay_s == delay_s


@pytest.mark.conformance("C-089")
@pytest.mark.parametrize(
    ("status", "error", "reason", "heal"),
    [
        (400, {}, Reason.UPSTREAM_REJECTED, Heal.NEVER),
        (400, {"code": "cyber_policy"}, Reason.POLICY_VIOLATION, Heal.NEVER),
        (400, {"code": "context_length_exceeded"}, Reason.CONTEXT_TOO_LONG, Heal.NEVER),
        (400, {"code": "invalid_value", "param": "input[0].content[1].image_url"}, Reason.INVALID_IMAGE, Heal.NEVER),
        (400, {"code": "invalid_value", "param": "input[0].content"}, Reason.UPSTREAM_REJECTED, Heal.NEVER),
        (
            400,
            {"message": "The image data you provided does not represent a valid image."},
            Reason.INVALID_IMAGE,
            Heal.NEVER,
        ),
        (400, {"code": "previous_response_not_found"}, Reason.UPSTREAM_FAILED, Heal.FULL_REQUEST),
        (401, {}, Reason.UPSTREAM_AUTH, Heal.AUTH),
        (401, {"code": "invalid_api_key", "type": "invalid_request_error"}, Reason.UPSTREAM_AUTH, Heal.AUTH),
        (403, {}, Reason.UPSTREAM_PERMISSION, Heal.NEVER),
        (404, {"code": "model_not_found"}, Reason.UPSTREAM_NOT_FOUND, Heal.NEVER),
        (404, {}, Reason.UPSTREAM_NOT_FOUND, Heal.NEVER),
        (408, {}, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (409, {}, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (413, {}, Reason.UPSTREAM_REJECTED, Heal.NEVER),
        (422, {}, Reason.UPSTREAM_REJECTED, Heal.NEVER),
        (426, {}, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (429, {}, Reason.UPSTREAM_RATE_LIMITED, Heal.RESEND),
        (429, {"code": "rate_limit_exceeded", "type": "tokens"}, Reason.UPSTREAM_RATE_LIMITED, Heal.RESEND),
        (429, {"code": "insufficient_quota"}, Reason.UPSTREAM_QUOTA, Heal.NEVER),
        (429, {"type": "usage_not_included"}, Reason.UPSTREAM_QUOTA, Heal.NEVER),
        (429, {"type": "usage_limit_reached"}, Reason.UPSTREAM_QUOTA, Heal.NEVER),
        (429, {"type": "usage_limit_reached", "code": "rate_limit_exceeded"}, Reason.UPSTREAM_QUOTA, Heal.NEVER),
        (500, {}, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (502, {}, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (503, {}, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (503, {"code": "server_is_overloaded"}, Reason.UPSTREAM_OVERLOADED, Heal.RESEND),
        (503, {"code": "slow_down"}, Reason.UPSTREAM_OVERLOADED, Heal.RESEND),
        (202, {}, Reason.UPSTREAM_PROTOCOL, Heal.RESEND),
        (307, {}, Reason.UPSTREAM_PROTOCOL, Heal.NEVER),
    ],
)
def test_status_of_a_post_has_its_reason_and_cure(
    status: int, error: dict[str, object], reason: Reason, heal: Heal
) -> None:
    """With D-6 (429), D-15 (403, 404) and D-5 (the forgotten response)."""
    failure = refused(status, error_body(**error))

    assert (failure.reason, failure.heal, failure.handshake) == (reason, heal, False)
    assert failure.words is not None
    assert failure.words.status == status


@pytest.mark.conformance("C-039")
def test_post_failures_heal_by_a_resend_for_5xx_and_network_but_not_for_400() -> None:
    """429 is resent too: D-6."""
    healing = [refused(503), failures.connect_failed("connection refused"), refused(429)]

    assert [failure.heal for failure in healing] == [Heal.RESEND] * 3
    assert refused(400).heal is Heal.NEVER


@pytest.mark.conformance("C-089")
@pytest.mark.parametrize(
    ("status", "reason", "heal"),
    [
        (426, Reason.UPSTREAM_FAILED, Heal.HTTP),
        (401, Reason.UPSTREAM_AUTH, Heal.AUTH),
        (403, Reason.UPSTREAM_PERMISSION, Heal.NEVER),
        (400, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (404, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (405, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (413, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (503, Reason.UPSTREAM_FAILED, Heal.RESEND),
        (302, Reason.UPSTREAM_PROTOCOL, Heal.RESEND),
        (200, Reason.UPSTREAM_PROTOCOL, Heal.RESEND),
    ],
)
def test_status_of_a_handshake_has_its_reason_and_cure(status: int, reason: Reason, heal: Heal) -> None:
    failure = failures.from_status(status, {}, b"", handshake=True)

    assert (failure.reason, failure.heal, failure.handshake) == (reason, heal, True)


@pytest.mark.parametrize(
    ("headers", "delay_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 31 Dec 2023 23:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_the_delay(status: int, headers: dict[str, str], delay_s: float | None) -> None:
    """D-6."""
    assert refused(status, b"", headers).delay_s == delay_s


def test_retry_after_date_is_ignored_when_the_time_is_not_known() -> None:
    headers = {"retry-after": "Mon, 01 Jan 2024 00:00:30 GMT"}

    assert failures.from_status(503, headers, b"", handshake=False).delay_s is None


def test_final_failure_has_no_delay() -> None:
    assert refused(400, b"", {"retry-after": "7"}).delay_s is None


def test_overloaded_upstream_is_given_ten_seconds_unless_it_names_its_own() -> None:
    body = error_body(code="slow_down")

    assert refused(503, body).delay_s == 10.0
    assert refused(503, body, {"retry-after": "3"}).delay_s == 3.0


@pytest.mark.conformance("C-089")
def test_ids_come_from_the_headers_and_the_message_stays_out_of_the_text() -> None:
    failure = refused(429, error_body(code="rate_limit_exceeded", message="secret prompt"), {"x-request-id": "req_1"})

    assert failure.upstream_request_id == "req_1"
    assert failure.text == "request refused by upstream: status 429, code rate_limit_exceeded, request id req_1"


@pytest.mark.conformance("C-089")
def test_cf_ray_is_named_in_the_text_when_there_is_no_request_id() -> None:
    failure = failures.from_status(403, {"cf-ray": "8f1-FRA"}, b"", handshake=True)

    assert failure.upstream_request_id is None
    assert failure.text == "websocket handshake refused by upstream: status 403, cf-ray 8f1-FRA"


def test_redirect_says_that_it_is_not_followed() -> None:
    assert refused(307).text == "request refused by upstream: status 307, a redirect, which is never followed"


def test_code_that_is_no_plain_token_stays_out_of_the_text() -> None:
    failure = refused(400, error_body(code="you said: hello"))

    assert failure.text == "request refused by upstream: status 400"
    assert failure.words is not None
    assert failure.words.code == "you said: hello"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b'{"error":{"message":"m","type":"t","param":"p","code":"c"}}',
            UpstreamWords(500, code="c", type="t", param="p", message="m"),
        ),
        (b'{"error":{"message":"m","code":404}}', UpstreamWords(500, code="404", message="m")),
        (b'{"error":{"message":"m","code":null,"type":[]}}', UpstreamWords(500, message="m")),
        (b'{"error":"in a word"}', UpstreamWords(500, message="in a word")),
        (b'{"detail":"Not allowed"}', UpstreamWords(500, message="Not allowed")),
        (b'{"message":"flat","code":"c"}', UpstreamWords(500, code="c", message="flat")),
        (b'{"other":1}', UpstreamWords(500, message='{"other":1}')),
        (b'["x"]', UpstreamWords(500, message='["x"]')),
        (b" upstream connect error\n", UpstreamWords(500, message="upstream connect error")),
        (
            b"<html><head><title>502 Bad\xa0Gateway</title></head><body>" + b"x" * 9000,
            UpstreamWords(500, message="502 Bad\ufffdGateway"),
        ),
        (b"\xff\xfe", UpstreamWords(500, message="\ufffd\ufffd")),
        (b"", UpstreamWords(500)),
    ],
)
def test_words_are_what_the_body_says_in_whatever_form(body: bytes, words: UpstreamWords) -> None:
    assert refused(500, body).words == words


def test_words_are_cut_to_two_kibibytes_without_breaking_a_character() -> None:
    failure = refused(400, error_body(message="\u00e9" * 1025 + "x", code="c" * 300))

    assert failure.words is not None
    assert failure.words.message == "\u00e9" * 1024
    assert failure.words.code == "c" * 256


def test_code_comes_from_the_headers_when_the_body_has_none() -> None:
    told = base64.b64encode(b'{"error":{"code":"token_expired"}}').decode()

    assert refused(401, b"", {"x-error-json": told, "x-openai-authorization-error": "x"}).words == UpstreamWords(
        401, code="token_expired"
    )
    assert refused(401, b"", {"x-openai-authorization-error": "missing"}).words == UpstreamWords(401, code="missing")
    assert refused(401, error_body(code="c"), {"x-error-json": told}).words == UpstreamWords(401, code="c", message="")


@pytest.mark.conformance("C-083")
def test_usage_limit_tells_the_active_family_before_the_failure() -> None:
    headers = {"x-codex-active-limit": "codex_other", "x-codex-other-primary-used-percent": "100"}

    failure = refused(429, error_body(type="usage_limit_reached", plan_type="pro"), headers)

    assert failures.limits_before(failure) == (
        RateLimits("codex_other", primary=RateLimitWindow(100.0), plan_type="pro"),
    )


@pytest.mark.parametrize(
    "failure",
    [
        refused(429, error_body(type="usage_limit_reached")),
        refused(429, b"", {"x-codex-primary-used-percent": "100"}),
    ],
    ids=["no data", "another 429"],
)
def test_no_limits_are_told_without_data_or_before_another_failure(failure: UpstreamFailure) -> None:
    assert failures.limits_before(failure) == ()


@pytest.mark.conformance("C-080")
@pytest.mark.parametrize("members", [{"status": 400}, {"status": 500}, {}])
def test_connection_limit_frame_asks_for_a_fresh_socket_whatever_its_status(members: dict[str, Any]) -> None:
    failure = frame(error={"code": "websocket_connection_limit_reached"}, headers={"retry-after": "9"}, **members)

    assert (failure.heal, failure.delay_s) == (Heal.FRESH_SOCKET, None)


@pytest.mark.conformance("C-081")
@pytest.mark.parametrize("members", [{"status": 400}, {}])
def test_forgotten_response_frame_asks_for_a_full_request(members: dict[str, Any]) -> None:
    assert frame(error={"code": "previous_response_not_found"}, **members).heal is Heal.FULL_REQUEST


@pytest.mark.conformance("C-084")
@pytest.mark.parametrize("name", ["status", "status_code"])
def test_frame_with_status_400_is_final_and_shows_its_message(name: str) -> None:
    failure = frame(**{name: 400}, error={"type": "invalid_request_error", "message": "bad tool"})

    assert (failure.reason, failure.heal) == (Reason.UPSTREAM_REJECTED, Heal.NEVER)
    assert failure.words == UpstreamWords(400, type="invalid_request_error", message="bad tool")
    assert failure.handshake is False


def test_frame_401_is_resent_without_recovery() -> None:
    assert (frame(status=401, error={}).reason, frame(status=401, error={}).heal) == (
        Reason.UPSTREAM_AUTH,
        Heal.RESEND,
    )


@pytest.mark.conformance("C-082")
@pytest.mark.parametrize("members", [{}, {"status": 200}, {"status": "400"}, {"status": 99}, {"status": None}])
@pytest.mark.parametrize(
    ("error", "reason", "heal"),
    [
        ({"code": "cyber_policy"}, Reason.POLICY_VIOLATION, Heal.NEVER),
        ({"code": "rate_limit_exceeded"}, Reason.UPSTREAM_RATE_LIMITED, Heal.RESEND),
        ({"type": "invalid_request_error", "code": "unknown_field"}, Reason.UPSTREAM_REJECTED, Heal.NEVER),
        ({"code": "server_error"}, Reason.UPSTREAM_FAILED, Heal.RESEND),
        ({}, Reason.UPSTREAM_FAILED, Heal.RESEND),
    ],
)
def test_frame_without_a_usable_status_is_mapped_by_its_code(
    members: dict[str, Any], error: dict[str, Any], reason: Reason, heal: Heal
) -> None:
    """D-2."""
    failure = frame(error=error, **members)

    assert (failure.reason, failure.heal) == (reason, heal)
    assert failure.words is not None
    assert failure.words.status is None


def test_flat_error_event_is_read_as_the_nested_one() -> None:
    failure = frame(code="rate_limit_exceeded", message="try again in 2s", param=None)

    assert (failure.reason, failure.delay_s) == (Reason.UPSTREAM_RATE_LIMITED, 2.0)


def test_frame_headers_give_delay_and_request_id_outer_ones_first() -> None:
    failure = frame(
        status=429,
        error={"headers": {"retry-after": "5", "retry-after-ms": "1500"}},
        headers={"retry-after-ms": 20, "x-request-id": "req_2"},
    )

    assert (failure.delay_s, failure.upstream_request_id) == (0.02, "req_2")
    assert frame(status=429, error={"headers": {"Retry-After": 5}}).delay_s == 5.0


@pytest.mark.parametrize(
    ("failure", "reason", "text"),
    [
        (
            failures.connect_failed("connection refused"),
            Reason.UPSTREAM_UNREACHABLE,
            "connect to upstream failed: connection refused",
        ),
        (
            failures.connect_timed_out(15),
            Reason.UPSTREAM_UNREACHABLE,
            "connect to upstream failed: no answer within 15.0 s",
        ),
        (
            failures.stream_lost("stream closed before response.completed"),
            Reason.UPSTREAM_STREAM_LOST,
            "stream closed before response.completed",
        ),
        (failures.broke_protocol("unexpected x"), Reason.UPSTREAM_PROTOCOL, "unexpected x"),
        (
            failures.idle(Transport.WEBSOCKET, 300, first=False),
            Reason.UPSTREAM_IDLE,
            "idle timeout waiting for websocket: no event within 300.0 s",
        ),
        (
            failures.idle(Transport.HTTP, 30, first=True),
            Reason.UPSTREAM_IDLE,
            "idle timeout waiting for SSE: no first event within 30.0 s",
        ),
    ],
)
def test_failures_of_the_transport_may_heal_and_say_what_happened(
    failure: UpstreamFailure, reason: Reason, text: str
) -> None:
    assert (failure.reason, failure.heal, failure.text, failure.words) == (reason, Heal.RESEND, text, None)


@given(st.integers(100, 599), st.binary(max_size=300), st.booleans())
def test_status_with_any_body_is_classified(status: int, body: bytes, handshake: bool) -> None:
    failure = failures.from_status(status, {}, body, handshake=handshake)

    assert failure.words is not None
    assert len(failure.words.message.encode()) <= 2048
    assert failure.heal is not Heal.HTTP or (handshake and status == 426)

"""What an upstream's refusal means: which reason, and what a resend can do about it.

The tables below are the whole classification; `UpstreamFailure.text` never holds the provider's message, which only the
caller who met it may see (`words`).

Source: wire-behaviour.md §6.1 to §6.3, responses-api.md E4, and the deliberate differences D-2, D-5, D-6, D-11, D-15.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Annotated

import msgspec

from warmline_server.core import rate_limits, received_headers
from warmline_server.core.errors import Heal, Reason, UpstreamFailure, UpstreamWords
from warmline_server.core.events import RateLimits, Transport
from warmline_server.core.lenient import LenientDecoder
from warmline_server.core.received_headers import NO_HEADERS, Headers

MAX_MESSAGE_BYTES = 2048
"""The provider's message is cut here: it travels in trailing metadata, which proxies bound at 8 KiB in all."""

OVERLOADED_DELAY_S = 10.0
"""The wait when an overloaded upstream names none. Source: the first of 10, 30, 60 s, §6.1."""

_MAX_CODE_BYTES = 256


class UsageLimitReached(UpstreamFailure):
    """The plan's limit is used up. `limits` is to be shown before the failure: the family that it is about, or none."""

    limits: tuple[RateLimits, ...] = ()


def limits_before(failure: UpstreamFailure) -> tuple[RateLimits, ...]:
    """The rate limits that are shown before `failure`, empty for most."""
    return failure.limits if isinstance(failure, UsageLimitReached) else ()


@dataclass(frozen=True, slots=True)
class _Verdict:
    reason: Reason
    heal: Heal


def _final(reason: Reason) -> _Verdict:
    return _Verdict(reason, Heal.NEVER)


_RESEND = _Verdict(Reason.UPSTREAM_FAILED, Heal.RESEND)
_REJECTED = _final(Reason.UPSTREAM_REJECTED)
_IMAGE = _final(Reason.INVALID_IMAGE)
_POLICY = _final(Reason.POLICY_VIOLATION)
_QUOTA = _final(Reason.UPSTREAM_QUOTA)
_OVERLOADED = _Verdict(Reason.UPSTREAM_OVERLOADED, Heal.RESEND)
_RATE_LIMITED = _Verdict(Reason.UPSTREAM_RATE_LIMITED, Heal.RESEND)

_BY_CODE: dict[str, _Verdict] = {
    "context_length_exceeded": _final(Reason.CONTEXT_TOO_LONG),
    "insufficient_quota": _QUOTA,
    "usage_not_included": _QUOTA,
    "usage_limit_reached": _QUOTA,
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "cyber_policy": _POLICY,
    "bio_policy": _POLICY,
    "misalignment_policy_violation": _POLICY,
    "content_policy_violation": _POLICY,
    "image_content_policy_violation": _POLICY,
    "data_residency_mismatch": _final(Reason.UPSTREAM_PERMISSION),
    "model_not_found": _final(Reason.UPSTREAM_NOT_FOUND),
    "invalid_prompt": _REJECTED,
    "invalid_image": _IMAGE,
    "invalid_image_format": _IMAGE,
    "invalid_base64_image": _IMAGE,
    "invalid_image_url": _IMAGE,
    "invalid_image_mode": _IMAGE,
    "image_too_large": _IMAGE,
    "image_too_small": _IMAGE,
    "image_parse_error": _IMAGE,
    "image_file_too_large": _IMAGE,
    "image_file_not_found": _IMAGE,
    "empty_image_file": _IMAGE,
    "unsupported_image_media_type": _IMAGE,
    "failed_to_download_image": _IMAGE,
    "server_is_overloaded": _OVERLOADED,
    "slow_down": _OVERLOADED,
    "rate_limit_exceeded": _RATE_LIMITED,
    "websocket_connection_limit_reached": _Verdict(Reason.UPSTREAM_STREAM_LOST, Heal.FRESH_SOCKET),
    "websocket_stream_limit_reached": _Verdict(Reason.UPSTREAM_STREAM_LOST, Heal.FRESH_SOCKET),
    "previous_response_not_found": _Verdict(Reason.UPSTREAM_FAILED, Heal.FULL_REQUEST),
}
"""Codes, and types, that mean the same wherever they are met. Any other says no more than the status beside it."""

_BY_STATUS: dict[int, _Verdict] = {
    401: _Verdict(Reason.UPSTREAM_AUTH, Heal.RESEND),
    403: _final(Reason.UPSTREAM_PERMISSION),
    429: _RATE_LIMITED,
}
"""Statuses of all sources; what is not here nor below may heal by a resend (408, 409, 5xx and the unexpected)."""

_BY_REQUEST_STATUS: dict[int, _Verdict] = {
    400: _REJECTED,
    404: _final(Reason.UPSTREAM_NOT_FOUND),
    413: _REJECTED,
    415: _REJECTED,
    422: _REJECTED,
}
"""Only where a request was refused: on a handshake these, as a redirect, come from what knows no WebSocket and stands
between, and say nothing of the turn."""


class _Source(Enum):
    HANDSHAKE = auto()
    POST = auto()
    FRAME = auto()


_WHAT = {
    _Source.HANDSHAKE: "websocket handshake refused by upstream",
    _Source.POST: "request refused by upstream",
    _Source.FRAME: "error event from upstream",
}

# Of a 400 whose cause is an image some providers tell in words only. Source: §6.3 and the text of OpenAI's API.
_INVALID_IMAGE_TEXT = "does not represent a valid image"


class _ErrorObject(msgspec.Struct, gc=False):
    """`error` of a body, a frame or a failed response, and the flat form of the SSE `error` event."""

    code: str | int | None = None
    type: str | None = None
    param: str | None = None
    message: str | None = None
    detail: str | None = None
    plan_type: str | None = None
    headers: msgspec.Raw = msgspec.Raw(b"null")


class _ErrorBody(msgspec.Struct, gc=False):
    error: msgspec.Raw = msgspec.Raw(b"null")


_Status = Annotated[int, msgspec.Meta(ge=100, le=599)]


class _ErrorFrame(_ErrorBody, gc=False):
    status: _Status | None = None
    status_code: _Status | None = None
    headers: msgspec.Raw = msgspec.Raw(b"null")


_ERROR_OBJECT = LenientDecoder(_ErrorObject)
_ERROR_BODY = LenientDecoder(_ErrorBody)
_ERROR_FRAME = LenientDecoder(_ErrorFrame)
_STRING = msgspec.json.Decoder(str)
_NULL = b"null"


def from_status(
    status: int, headers: Headers, body: bytes, *, handshake: bool, now_unix_s: float | None = None
) -> UpstreamFailure:
    """A reply whose status is not the expected one, to a WebSocket handshake or to a POST.

    Args: `body` as far as it was read, decoded; `now_unix_s` is the wall time that a Retry-After date is measured
        from, None to ignore dates.
    """
    source = _Source.HANDSHAKE if handshake else _Source.POST
    return _classify(source, status, headers, _read_body(body, headers), now_unix_s)


def from_error_frame(payload: bytes, now_unix_s: float | None = None) -> UpstreamFailure:
    """An `error` event, nested with a status (WebSocket) or flat without one (SSE).

    Without a valid status that is not 2xx its code decides alone (D-2).
    """
    frame = _ERROR_FRAME.decode(payload) or _ErrorFrame()
    error = _read_error(payload if bytes(frame.error) == _NULL else frame.error)
    headers = {**received_headers.fold_json(error.headers), **received_headers.fold_json(frame.headers)}
    status = frame.status if frame.status is not None else frame.status_code
    if status is not None and 200 <= status < 300:
        status = None
    return _classify(_Source.FRAME, status, headers, error, now_unix_s)


def from_failed_response(error: bytes | msgspec.Raw | None) -> UpstreamFailure:
    """A `response.failed` event.

    Args: `error` is its `response.error` as JSON; None, or anything but an object: the provider did not say why.
    """
    told = _ERROR_OBJECT.decode(error) if error is not None else None
    if told is None:
        return UpstreamFailure(Reason.UPSTREAM_FAILED, "response.failed event received without an error")
    code = _code(told)
    verdict = _BY_CODE.get(code, _RESEND)
    return UpstreamFailure(
        verdict.reason,
        f"response failed upstream{_told_code(code)}",
        heal=verdict.heal,
        delay_s=_delay_s(verdict, NO_HEADERS, told, None),
        words=_words(None, told),
    )


def connect_failed(text: str) -> UpstreamFailure:
    """No connection could be made. Args: `text` is the operating system's or the TLS library's account."""
    return UpstreamFailure(Reason.UPSTREAM_UNREACHABLE, f"connect to upstream failed: {text}", handshake=True)


def connect_timed_out(limit_s: float) -> UpstreamFailure:
    """No answer to a connect or handshake within its limit."""
    return UpstreamFailure(
        Reason.UPSTREAM_UNREACHABLE, f"connect to upstream failed: no answer within {limit_s:.1f} s", handshake=True
    )


def stream_lost(detail: str) -> UpstreamFailure:
    """The stream ended or broke before the response did. Args: `detail` is the whole text."""
    return UpstreamFailure(Reason.UPSTREAM_STREAM_LOST, detail)


def idle(transport: Transport, limit_s: float, *, first: bool) -> UpstreamFailure:
    """The upstream was silent for too long. Args: `first` is True when nothing had come at all."""
    waited_for = "websocket" if transport is Transport.WEBSOCKET else "SSE"
    which = "no first event" if first else "no event"
    return UpstreamFailure(
        Reason.UPSTREAM_IDLE, f"idle timeout waiting for {waited_for}: {which} within {limit_s:.1f} s"
    )


def broke_protocol(detail: str, *, upstream_request_id: str | None = None) -> UpstreamFailure:
    """The upstream answered something that is not the protocol; a resend may meet a better answer."""
    return UpstreamFailure(Reason.UPSTREAM_PROTOCOL, detail, upstream_request_id=upstream_request_id)


def _classify(
    source: _Source, status: int | None, headers: Headers, error: _ErrorObject, now_unix_s: float | None
) -> UpstreamFailure:
    verdict = _judge(source, status, error)
    build = UsageLimitReached if "usage_limit_reached" in (error.code, error.type) else UpstreamFailure
    failure = build(
        verdict.reason,
        _text(source, status, headers, error),
        heal=verdict.heal,
        delay_s=_delay_s(verdict, headers, error, now_unix_s),
        words=_words(status, error),
        upstream_request_id=received_headers.request_id(headers),
        handshake=source is _Source.HANDSHAKE,
    )
    if isinstance(failure, UsageLimitReached):
        failure.limits = _limits(headers, error)
    return failure


def _judge(source: _Source, status: int | None, error: _ErrorObject) -> _Verdict:
    if status == 401 and source is not _Source.FRAME:
        return _Verdict(Reason.UPSTREAM_AUTH, Heal.AUTH)
    if status == 426 and source is _Source.HANDSHAKE:
        return _Verdict(Reason.UPSTREAM_FAILED, Heal.HTTP)
    # The type first: beside a usage limit the code may be that of a passing rate limit.
    if verdict := _BY_CODE.get(error.type or "") or _BY_CODE.get(_code(error)):
        return verdict
    if status is None:
        return _REJECTED if error.type == "invalid_request_error" else _RESEND
    if status == 400 and _blames_image(error):
        return _IMAGE
    if status < 400:
        is_final = status >= 300 and source is not _Source.HANDSHAKE
        return _Verdict(Reason.UPSTREAM_PROTOCOL, Heal.NEVER if is_final else Heal.RESEND)
    if source is not _Source.HANDSHAKE and status in _BY_REQUEST_STATUS:
        return _BY_REQUEST_STATUS[status]
    return _BY_STATUS.get(status, _RESEND)


def _blames_image(error: _ErrorObject) -> bool:
    if _code(error) == "invalid_value" and (error.param or "").endswith(".image_url"):
        return True
    return _INVALID_IMAGE_TEXT in (error.message or "")


def _limits(headers: Headers, error: _ErrorObject) -> tuple[RateLimits, ...]:
    limits = rate_limits.active_family(headers)
    if not rate_limits.has_data(limits):
        return ()
    return (msgspec.structs.replace(limits, plan_type=error.plan_type or ""),)


def _text(source: _Source, status: int | None, headers: Headers, error: _ErrorObject) -> str:
    text = _WHAT[source] + (f": status {status}" if status is not None else "") + _told_code(_code(error))
    if status is not None and 300 <= status < 400:
        text += ", a redirect, which is never followed"
    if (request_id := received_headers.request_id(headers)) is not None:
        return f"{text}, request id {request_id}"
    if (tracking_id := received_headers.tracking_id(headers)) is not None:
        return f"{text}, cf-ray {tracking_id}"
    return text


_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _told_code(code: str) -> str:
    # A code that is no plain token may hold anything, so it stays among the provider's words.
    return f", code {code}" if _TOKEN.fullmatch(code) else ""


def _code(error: _ErrorObject) -> str:
    return "" if error.code is None else str(error.code)


def _words(status: int | None, error: _ErrorObject) -> UpstreamWords:
    return UpstreamWords(
        status=status,
        code=_cut(_code(error), _MAX_CODE_BYTES),
        type=_cut(error.type or "", _MAX_CODE_BYTES),
        param=_cut(error.param or "", _MAX_CODE_BYTES),
        message=_cut(error.message or "", MAX_MESSAGE_BYTES),
    )


def _cut(text: str, limit_bytes: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= limit_bytes else encoded[:limit_bytes].decode(errors="ignore")


_HTML_TITLE = re.compile(r"<title[^>]{0,256}>([^<]{1,512})", re.IGNORECASE)


def _read_body(body: bytes, headers: Headers) -> _ErrorObject:
    """The error that a reply's body tells: nested, flat or no JSON at all; the headers fill in what it leaves out."""
    text = body.decode(errors="replace").strip()
    told = _ERROR_BODY.decode(text.encode())
    if told is None:
        title = _HTML_TITLE.search(text)
        error = _ErrorObject(message=title[1].strip() if title else text)
    else:
        error = _read_error(text.encode() if bytes(told.error) == _NULL else told.error)
    if not error.message:
        error.message = error.detail or ("" if error.code or error.type else text)
    if error.code is None:
        error.code = _code_of_headers(headers) or None
    return error


def _read_error(raw: bytes | msgspec.Raw) -> _ErrorObject:
    error = _ERROR_OBJECT.decode(raw)
    if error is not None:
        return error
    try:
        return _ErrorObject(message=_STRING.decode(raw))
    except (ValueError, RecursionError):
        return _ErrorObject()


def _code_of_headers(headers: Headers) -> str:
    """The code that some refusals tell in headers, as JSON in base64 or as a word. Source: §5.1."""
    try:
        encoded = base64.b64decode(headers.get("x-error-json", ""), validate=True)
    except (binascii.Error, ValueError):
        encoded = b""
    told = _ERROR_BODY.decode(encoded)
    return (_code(_read_error(told.error)) if told else "") or headers.get("x-openai-authorization-error", "")


def _delay_s(verdict: _Verdict, headers: Headers, error: _ErrorObject, now_unix_s: float | None) -> float | None:
    if verdict.heal is not Heal.RESEND:
        return None
    told_s = _retry_after_s(headers, now_unix_s)
    if told_s is None and _code(error) == "rate_limit_exceeded":
        told_s = _delay_in_words_s(error.message or "")
    if told_s is None and verdict.reason is Reason.UPSTREAM_OVERLOADED:
        return OVERLOADED_DELAY_S
    return told_s


_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
# The longest form of a date with its weekday spelled out has 36.
_LONGEST_DATE = 64
_TRY_AGAIN_IN = re.compile(r"try again in ([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|seconds?)\b", re.IGNORECASE)


def _retry_after_s(headers: Headers, now_unix_s: float | None) -> float | None:
    """What `retry-after-ms`, else `retry-after`, asks for: seconds, or a date measured from `now_unix_s`."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _SECONDS.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    told = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(told):
        return float(told)
    if not told or len(told) > _LONGEST_DATE or now_unix_s is None:
        return None
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - now_unix_s)
    except (ValueError, OverflowError):
        return None


def _delay_in_words_s(message: str) -> float | None:
    match = _TRY_AGAIN_IN.search(message)
    if match is None:
        return None
    return float(match[1]) / 1000 if match[2].lower() == "ms" else float(match[1])

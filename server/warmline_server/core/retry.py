"""What follows a failed attempt: a resend, the fall back to HTTP, or the end of the call.

A pure function of the failure and the situation. After output nothing is resent in silence.
"""

from dataclasses import dataclass
from enum import Enum, auto

from warmline_server.core.errors import CredentialFailure, Heal, Reason, UpstreamFailure, WarmlineError
from warmline_server.core.events import Transport

# 200 ms doubling, within 10 %. Source: wire-behaviour §7, C-038.
BACKOFF_S = 0.2
JITTER = 0.1
# A budget of 100 would double to longer than the age of the universe (D-19).
MAX_BACKOFF_S = 30.0

# Another transport cannot heal these, so they never lead to it (D-15).
_TRANSPORT_IS_NOT_AT_FAULT = frozenset({Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_OVERLOADED})


class RetryMode(Enum):
    """What may be sent again."""

    BEFORE_OUTPUT = auto()
    REFERENCE = auto()
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a call stands when an attempt fails.

    `retries` and `max_retries` count on this transport; `request_retries` and `request_max_retries` count resends of a
    POST that had no response yet; `may_fall_back` is True on a WebSocket; `response_started`: the failed attempt had an
    answer to read; `client_call_finished`: a tool call that the caller executes is among the delivered items;
    `forgotten_before`: the upstream has already forgotten a response once in this call; `remaining_s` is None without a
    deadline; `jitter` is in [-1, 1]; `retry_after_cap_s` bounds the wait that an upstream may ask for (0: its wish is
    ignored); `fell_back`: another call has latched the session meanwhile, so this one's WebSocket was its last.
    """

    mode: RetryMode
    transport: Transport
    retries: int
    max_retries: int
    request_retries: int
    request_max_retries: int
    may_fall_back: bool
    response_started: bool
    output_delivered: bool
    client_call_finished: bool
    forgotten_before: bool
    remaining_s: float | None
    jitter: float
    retry_after_cap_s: float
    fell_back: bool = False


@dataclass(frozen=True, slots=True)
class Resend:
    """Send again on the same transport after `delay_s`, over a WebSocket on a new one.

    `counts`: which budget it costs ("stream", "request" or "").
    """

    delay_s: float
    counts: str


@dataclass(frozen=True, slots=True)
class FallBack:
    """Go on over HTTP at once and for good, with a budget of its own."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the call with this error."""

    error: WarmlineError


def backoff_s(retry: int, jitter: float) -> float:
    """Wait before resend number `retry` (from 1); `jitter` in [-1, 1]."""
    return float(min(MAX_BACKOFF_S, BACKOFF_S * 2 ** (retry - 1)) * (1 + JITTER * jitter))


def decide(failure: UpstreamFailure, situation: Situation) -> Resend | FallBack | GiveUp:
    """Decides what follows a failed attempt; recovery of credentials (Heal.AUTH) was tried before."""
    if failure.heal in (Heal.NEVER, Heal.AUTH) or _output_forbids(situation):
        return GiveUp(_final(failure, situation))
    if failure.heal is Heal.HTTP and situation.may_fall_back:
        return FallBack("upgrade_required")
    if situation.mode is RetryMode.NEVER:
        return GiveUp(_final(failure, situation))
    if failure.heal is Heal.FULL_REQUEST and not situation.forgotten_before:
        return Resend(0.0, counts="")
    if situation.transport is Transport.HTTP and not situation.response_started:
        return _resend_post(failure, situation)
    return _resend(failure, situation, "stream")


def _output_forbids(situation: Situation) -> bool:
    return situation.output_delivered and (situation.mode is RetryMode.BEFORE_OUTPUT or situation.client_call_finished)


def _resend_post(failure: UpstreamFailure, situation: Situation) -> Resend | FallBack | GiveUp:
    """A POST that had no response has a budget of its own, and costs a stream retry when that is used up (C-039).

    A rate limit is no failure of the request: it waits on the stream's budget.
    """
    if failure.reason in _TRANSPORT_IS_NOT_AT_FAULT or situation.request_retries >= situation.request_max_retries:
        return _resend(failure, situation, "stream")
    return _within_deadline(failure, situation, situation.request_retries + 1, "request")


def _resend(failure: UpstreamFailure, situation: Situation, counts: str) -> Resend | FallBack | GiveUp:
    is_last = situation.fell_back and _transport_may_be_at_fault(failure)
    if situation.retries < situation.max_retries and not is_last:
        return _within_deadline(failure, situation, situation.retries + 1, counts)
    if situation.may_fall_back and _transport_may_be_at_fault(failure):
        return FallBack("retries_exhausted")
    return GiveUp(_final(failure, situation))


def _transport_may_be_at_fault(failure: UpstreamFailure) -> bool:
    return failure.reason not in _TRANSPORT_IS_NOT_AT_FAULT and not isinstance(failure, CredentialFailure)


def _within_deadline(failure: UpstreamFailure, situation: Situation, retry: int, counts: str) -> Resend | GiveUp:
    """A wait that would pass the deadline is not begun."""
    delay_s = backoff_s(retry, situation.jitter)
    if failure.delay_s is not None and situation.retry_after_cap_s > 0:
        if failure.delay_s > situation.retry_after_cap_s:
            return GiveUp(_final(failure, situation))
        delay_s = failure.delay_s
    if situation.remaining_s is not None and delay_s >= situation.remaining_s:
        return GiveUp(_final(failure, situation))
    return Resend(delay_s, counts)


def _final(failure: UpstreamFailure, situation: Situation) -> WarmlineError:
    """The error that ends the call: a caller that executed a tool must learn that what it saw counts."""
    if situation.client_call_finished and failure.heal is not Heal.NEVER:
        lost = UpstreamFailure(
            Reason.LOST_AFTER_TOOL_CALL,
            f"the response was lost after a finished tool call ({failure.text}); the items delivered count",
            heal=Heal.NEVER,
            words=failure.words,
            upstream_request_id=failure.upstream_request_id,
        )
        lost.__cause__ = failure
        return lost
    return failure

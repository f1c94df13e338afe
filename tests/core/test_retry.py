"""What follows a failed attempt."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmline_server.core.errors import CredentialFailure, Heal, Reason, UpstreamFailure, UpstreamWords
from warmline_server.core.events import Transport
from warmline_server.core.retry import FallBack, GiveUp, Resend, RetryMode, Situation, backoff_s, decide

# The first attempt of a call failed on a WebSocket before any output; nothing presses.
FIRST = Situation(
    mode=RetryMode.BEFORE_OUTPUT,
    transport=Transport.WEBSOCKET,
    retries=0,
    max_retries=5,
    request_retries=0,
    request_max_retries=4,
    may_fall_back=True,
    response_started=False,
    output_delivered=False,
    client_call_finished=False,
    forgotten_before=False,
    remaining_s=None,
    jitter=0.0,
    retry_after_cap_s=60.0,
)
OVER_HTTP = replace(FIRST, transport=Transport.HTTP, may_fall_back=False)


def failure(
    heal: Heal = Heal.RESEND, reason: Reason = Reason.UPSTREAM_STREAM_LOST, delay_s: float | None = None
) -> UpstreamFailure:
    return UpstreamFailure(reason, "it broke", heal=heal, delay_s=delay_s)


def reason_of(decision: object) -> Reason:
    assert isinstance(decision, GiveUp)
    return decision.error.reason


# Backoff


@pytest.mark.conformance("C-038")
@pytest.mark.parametrize(
    ("retry", "expected_ms"), [(1, 200), (2, 400), (3, 800), (4, 1600), (5, 3200)], ids=lambda each: str(each)
)
def test_backoff_doubles_from_200_ms_within_a_tenth(retry: int, expected_ms: int) -> None:
    waits_ms = [1000 * backoff_s(retry, jitter) for jitter in (-1.0, 0.0, 1.0)]

    assert waits_ms == pytest.approx([0.9 * expected_ms, expected_ms, 1.1 * expected_ms])


@pytest.mark.conformance("C-038")
def test_decide_waits_the_backoff_of_each_retry() -> None:
    decisions = [decide(failure(), replace(FIRST, retries=done, jitter=0.5)) for done in range(5)]

    assert decisions == [Resend(backoff_s(retry, 0.5), "stream") for retry in (1, 2, 3, 4, 5)]


# Budgets


def test_decide_used_up_websocket_budget_falls_back_with_the_latch() -> None:
    assert decide(failure(), replace(FIRST, retries=5)) == FallBack("retries_exhausted")


def test_decide_budget_of_nothing_falls_back_at_once() -> None:
    assert decide(failure(), replace(FIRST, max_retries=0)) == FallBack("retries_exhausted")


def test_decide_used_up_budget_without_another_transport_ends_with_the_failure() -> None:
    lost = failure()

    assert decide(lost, replace(OVER_HTTP, response_started=True, retries=5)) == GiveUp(lost)


@pytest.mark.parametrize("reason", [Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_OVERLOADED])
def test_decide_what_another_transport_cannot_heal_never_falls_back(reason: Reason) -> None:
    assert reason_of(decide(failure(reason=reason), replace(FIRST, retries=5))) is reason


def test_decide_session_that_fell_back_meanwhile_is_followed_at_once() -> None:
    assert decide(failure(), replace(FIRST, fell_back=True)) == FallBack("retries_exhausted")


def test_decide_session_that_fell_back_meanwhile_does_not_shorten_what_no_transport_heals() -> None:
    limited = failure(reason=Reason.UPSTREAM_RATE_LIMITED)

    assert decide(limited, replace(FIRST, fell_back=True)) == Resend(0.2, "stream")


def test_decide_credential_that_cannot_be_had_never_falls_back() -> None:
    missing = CredentialFailure(Reason.UPSTREAM_UNREACHABLE, "the token endpoint does not answer")

    assert decide(missing, replace(FIRST, retries=5)) == GiveUp(missing)


def test_decide_post_without_an_answer_costs_its_own_budget() -> None:
    assert decide(failure(), replace(OVER_HTTP, request_retries=3)) == Resend(1.6, "request")


def test_decide_post_without_an_answer_costs_the_streams_when_its_own_is_used_up() -> None:
    assert decide(failure(), replace(OVER_HTTP, request_retries=4)) == Resend(0.2, "stream")


def test_decide_post_with_an_answer_costs_the_streams() -> None:
    assert decide(failure(), replace(OVER_HTTP, response_started=True)) == Resend(0.2, "stream")


def test_decide_rate_limited_post_costs_the_streams() -> None:
    limited = failure(reason=Reason.UPSTREAM_RATE_LIMITED)

    assert decide(limited, OVER_HTTP) == Resend(0.2, "stream")


# What kind of failure it is


@pytest.mark.parametrize("heal", [Heal.NEVER, Heal.AUTH])
@pytest.mark.parametrize("mode", RetryMode)
def test_decide_what_cannot_heal_is_final(heal: Heal, mode: RetryMode) -> None:
    final = failure(heal)

    assert decide(final, replace(FIRST, mode=mode)) == GiveUp(final)


@pytest.mark.parametrize("mode", RetryMode)
def test_decide_upgrade_required_falls_back_without_cost(mode: RetryMode) -> None:
    assert decide(failure(Heal.HTTP), replace(FIRST, mode=mode, max_retries=0)) == FallBack("upgrade_required")


def test_decide_upgrade_required_over_http_is_resent_like_any_failure() -> None:
    assert decide(failure(Heal.HTTP), OVER_HTTP) == Resend(0.2, "request")


def test_decide_forgotten_response_is_sent_whole_at_once_and_for_nothing() -> None:
    decision = decide(failure(Heal.FULL_REQUEST), replace(FIRST, retries=5))

    assert decision == Resend(0.0, counts="")


def test_decide_response_forgotten_twice_costs_a_retry() -> None:
    decision = decide(failure(Heal.FULL_REQUEST), replace(FIRST, forgotten_before=True))

    assert decision == Resend(0.2, "stream")


def test_decide_fresh_socket_costs_a_retry() -> None:
    assert decide(failure(Heal.FRESH_SOCKET), FIRST) == Resend(0.2, "stream")


# Waits


def test_decide_wish_of_the_upstream_replaces_the_backoff() -> None:
    assert decide(failure(delay_s=7.0), FIRST) == Resend(7.0, "stream")


@pytest.mark.parametrize(("delay_s", "waits"), [(60.0, True), (60.1, False)], ids=["at_cap", "past_cap"])
def test_decide_wish_beyond_the_cap_ends_the_call(delay_s: float, waits: bool) -> None:
    wish = failure(delay_s=delay_s)

    assert decide(wish, FIRST) == (Resend(delay_s, "stream") if waits else GiveUp(wish))


def test_decide_wish_is_ignored_without_a_cap() -> None:
    assert decide(failure(delay_s=7.0), replace(FIRST, retry_after_cap_s=0.0)) == Resend(0.2, "stream")


@pytest.mark.parametrize(("remaining_s", "waits"), [(7.1, True), (7.0, False)], ids=["before", "at_deadline"])
def test_decide_wait_that_would_meet_the_deadline_is_not_begun(remaining_s: float, waits: bool) -> None:
    wish = failure(delay_s=7.0)

    assert decide(wish, replace(FIRST, remaining_s=remaining_s)) == (Resend(7.0, "stream") if waits else GiveUp(wish))


# Output


def test_decide_never_sends_nothing_again() -> None:
    lost = failure()

    assert decide(lost, replace(FIRST, mode=RetryMode.NEVER)) == GiveUp(lost)


def test_decide_before_output_ends_once_output_was_delivered() -> None:
    lost = failure()

    assert decide(lost, replace(FIRST, output_delivered=True)) == GiveUp(lost)


def test_decide_reference_resends_after_output() -> None:
    after_output = replace(FIRST, mode=RetryMode.REFERENCE, output_delivered=True)

    assert decide(failure(), after_output) == Resend(0.2, "stream")


@pytest.mark.parametrize("heal", [each for each in Heal if each is not Heal.NEVER])
@pytest.mark.parametrize("mode", RetryMode)
def test_decide_after_a_finished_client_call_the_items_count(heal: Heal, mode: RetryMode) -> None:
    lost = UpstreamFailure(
        Reason.UPSTREAM_IDLE, "no event for 5 s", heal=heal, words=UpstreamWords(503), upstream_request_id="req-1"
    )

    decision = decide(lost, replace(FIRST, mode=mode, output_delivered=True, client_call_finished=True))

    assert reason_of(decision) is Reason.LOST_AFTER_TOOL_CALL
    assert isinstance(decision, GiveUp)
    assert isinstance(decision.error, UpstreamFailure)
    assert (decision.error.words, decision.error.upstream_request_id) == (lost.words, "req-1")
    assert decision.error.__cause__ is lost


def test_decide_final_failure_after_a_finished_client_call_keeps_its_reason() -> None:
    refused = failure(Heal.NEVER, Reason.POLICY_VIOLATION)

    assert decide(refused, replace(FIRST, output_delivered=True, client_call_finished=True)) == GiveUp(refused)


# Any sequence of failures


@dataclass(frozen=True)
class Mishap:
    """How one attempt fails, and what it delivered before."""

    failure: UpstreamFailure
    response_started: bool
    output: bool
    client_call: bool


REASONS = st.sampled_from(
    [Reason.UPSTREAM_STREAM_LOST, Reason.UPSTREAM_FAILED, Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_OVERLOADED]
)
FAILURES = st.builds(
    failure,
    st.sampled_from([each for each in Heal if each not in (Heal.NEVER, Heal.AUTH)]),
    REASONS,
    st.none() | st.floats(0, 120),
)
MISHAPS = st.builds(
    lambda fails, started, output, call: Mishap(fails, started or output or call, output or call, call),
    FAILURES,
    st.booleans(),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([False, False, False, False, True]),
)
CALLS = st.builds(
    lambda mode, websocket, retries, request_retries, remaining_s, jitter, cap_s: replace(
        FIRST if websocket else OVER_HTTP,
        mode=mode,
        max_retries=retries,
        request_max_retries=request_retries,
        remaining_s=remaining_s,
        jitter=jitter,
        retry_after_cap_s=cap_s,
    ),
    st.sampled_from(RetryMode),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 2),
    st.none() | st.floats(0, 600),
    st.floats(-1, 1),
    st.sampled_from([0.0, 60.0]),
)


# 4 over the WebSocket, 1 for a forgotten response, then 4 times 3 over HTTP.
MOST_ATTEMPTS = 17


def is_post_without_answer(situation: Situation) -> bool:
    return situation.transport is Transport.HTTP and not situation.response_started


def follow(situation: Situation, mishap: Mishap, decision: Resend | FallBack) -> Situation:
    """Where the call stands before its next attempt, by the books that the decisions are to be held to."""
    if isinstance(decision, FallBack):
        return replace(situation, transport=Transport.HTTP, may_fall_back=False, retries=0, request_retries=0)
    after = replace(
        situation,
        forgotten_before=situation.forgotten_before or mishap.failure.heal is Heal.FULL_REQUEST,
        remaining_s=None if situation.remaining_s is None else situation.remaining_s - decision.delay_s,
    )
    if decision.counts == "stream":
        return replace(after, retries=after.retries + 1, request_retries=0)
    return replace(after, request_retries=after.request_retries + (decision.counts == "request"))


@settings(max_examples=400)
@given(CALLS, st.data())
def test_decide_any_sequence_of_failures_keeps_every_promise(start: Situation, data: st.DataObject) -> None:
    situation, resends, fallbacks, free = start, 0, 0, 0
    for _ in range(MOST_ATTEMPTS):
        mishap = data.draw(MISHAPS)
        situation = replace(
            situation,
            response_started=mishap.response_started,
            output_delivered=situation.output_delivered or mishap.output,
            client_call_finished=situation.client_call_finished or mishap.client_call,
            fell_back=situation.may_fall_back and data.draw(st.booleans()),
        )

        decision = decide(mishap.failure, situation)

        if isinstance(decision, GiveUp):
            break
        assert not situation.client_call_finished
        assert not (situation.output_delivered and situation.mode is RetryMode.BEFORE_OUTPUT)
        if isinstance(decision, FallBack):
            fallbacks += 1
            assert situation.may_fall_back
        else:
            assert situation.mode is not RetryMode.NEVER
            resends += 1
            free += decision.counts == ""
            assert_keeps_to_time(decision, mishap, situation)
            assert decision.counts != "request" or is_post_without_answer(situation)
        situation = follow(situation, mishap, decision)
        assert situation.retries <= situation.max_retries
        assert situation.request_retries <= situation.request_max_retries
    else:
        pytest.fail("a call that fails without end was not ended")
    assert fallbacks <= 1
    assert free <= 1
    over_http = (1 + start.max_retries) * (1 + start.request_max_retries)
    assert resends <= start.max_retries + over_http + 1


def assert_keeps_to_time(decision: Resend, mishap: Mishap, situation: Situation) -> None:
    if decision.delay_s and situation.remaining_s is not None:
        assert decision.delay_s < situation.remaining_s
    if decision.delay_s and mishap.failure.delay_s is not None and situation.retry_after_cap_s:
        assert decision.delay_s == mishap.failure.delay_s <= situation.retry_after_cap_s


@pytest.mark.conformance("D-19")
def test_backoff_of_a_large_budget_stays_below_half_a_minute_and_a_tenth() -> None:
    waits_s = [backoff_s(retry, 0.0) for retry in range(1, 101)]

    assert waits_s[:8] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6])
    assert set(waits_s[8:]) == {30.0}
    assert backoff_s(100, 1.0) == pytest.approx(33.0)

"""When the client sends a call again: the decision, without a clock."""

import pytest

from warmline.errors import ErrorFacts, UnavailableError
from warmline.retry import CallRetry

UNREACHED = UnavailableError("refused", ErrorFacts(is_transport_failure=True))
TOLD = UnavailableError("draining", ErrorFacts(reason="SERVER_DRAINING", retry_after_s=3.0))
FINAL = UnavailableError("upstream down", ErrorFacts(reason="UPSTREAM_FAILED"))


def wait_s(
    error: UnavailableError,
    *,
    tries: int = 1,
    waited_s: float = 0.0,
    remaining_s: float | None = None,
    jitter: float = 0.0,
) -> float | None:
    retry = CallRetry(max_tries=5, first_wait_s=0.2, longest_wait_s=1.0, total_wait_s=10.0)
    return retry.wait_s(error, tries=tries, waited_s=waited_s, remaining_s=remaining_s, jitter=jitter)


def test_server_not_reached_waits_double_each_time_up_to_the_longest() -> None:
    waits = [wait_s(UNREACHED, tries=tries, jitter=0.999999) for tries in (1, 2, 3, 4)]

    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.0], rel=1e-3)


def test_jitter_takes_at_most_half_of_the_wait() -> None:
    assert wait_s(UNREACHED, jitter=0.0) == pytest.approx(0.1)


def test_wait_that_the_server_told_is_kept_and_spread() -> None:
    assert wait_s(TOLD, jitter=0.0) == pytest.approx(3.0)
    assert wait_s(TOLD, jitter=0.5) == pytest.approx(3.1)


def test_error_that_nobody_allowed_is_final() -> None:
    assert wait_s(FINAL) is None


@pytest.mark.parametrize("error", [UNREACHED, TOLD], ids=["unreached", "told"])
def test_last_try_is_final(error: UnavailableError) -> None:
    assert wait_s(error, tries=4) is not None
    assert wait_s(error, tries=5) is None


def test_wait_past_the_total_is_not_begun() -> None:
    assert wait_s(TOLD, waited_s=7.0) == pytest.approx(3.0)
    assert wait_s(TOLD, waited_s=7.1) is None


def test_wait_past_the_deadline_is_not_begun() -> None:
    assert wait_s(TOLD, remaining_s=3.1) == pytest.approx(3.0)
    assert wait_s(TOLD, remaining_s=3.0) is None

"""What tenants may use and hold: counted in a few steps, however many there are."""

import contextlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core.errors import CallerError, Reason, ServiceError
from warmline_server.session.tenants import BURST_S, Admission, Tenants
from warmline_server.settings import Auth, Limits, TenantPolicy


def admission(limits: Limits | None = None, **tenants: TenantPolicy) -> Admission:
    limits = limits or Limits(max_concurrent_turns=0, max_sessions=0)
    return Admission(Tenants(Auth(tenants=tenants), limits), limits)


def limit_met(counts: Admission, tenant: str, now_s: float = 0.0) -> tuple[str, float | None]:
    with pytest.raises(ServiceError) as caught:
        counts.admit_call(tenant, now_s)
    assert caught.value.reason is Reason.LIMIT_EXCEEDED
    return caught.value.limit, caught.value.retry_after_s


def test_allowance_is_the_tenants_own_or_that_of_all() -> None:
    limits = Limits(max_sessions_per_tenant=5, max_turns_per_s_per_tenant=7.0)
    tenants = Tenants(Auth(tenants={"a": TenantPolicy(max_sessions=9)}, upstreams=("u",)), limits)

    assert (tenants.of("a").max_sessions, tenants.of("a").max_turns_per_s) == (9, 7.0)
    assert (tenants.of("b").max_sessions, tenants.of("b").upstreams) == (5, frozenset({"u"}))


def test_upstream_is_asked_by_name_alone() -> None:
    tenants = Tenants(Auth(tenants={"a": TenantPolicy(upstreams=("one", "two"))}), Limits())

    tenants.check_upstream("a", "two", "upstream")
    tenants.check_upstream("b", "anything", "upstream")
    with pytest.raises(CallerError, match=r"'three' is not among the caller's: one, two") as caught:
        tenants.check_upstream("a", "three", "config.upstream")
    assert (caught.value.reason, caught.value.field) == (Reason.PERMISSION_DENIED, "config.upstream")


def test_refused_call_counts_nowhere() -> None:
    counts = admission(Limits(max_concurrent_turns=2), a=TenantPolicy(max_concurrent_turns=1))

    counts.admit_call("a", 0.0)
    assert limit_met(counts, "a")[0] == "max_concurrent_turns_per_tenant"
    counts.admit_call("b", 0.0)
    assert limit_met(counts, "b")[0] == "max_concurrent_turns"
    counts.call_ended("a")
    counts.admit_call("a", 0.0)

    assert counts.calls == 2


@pytest.mark.parametrize("per_s", [0.01, 0.5, 3.0, 100.0])
def test_rate_lets_a_burst_in_and_then_one_at_a_time(per_s: float) -> None:
    counts = admission(a=TenantPolicy(max_turns_per_s=per_s))
    for _ in range(max(1, int(per_s * BURST_S))):
        counts.admit_call("a", 1000.0)
    limit, wait_s = limit_met(counts, "a", 1000.0)

    assert wait_s == pytest.approx(1 / per_s)
    assert limit == "max_turns_per_s_per_tenant"
    assert limit_met(counts, "a", 1000.0 + 0.9 / per_s)[0] == "max_turns_per_s_per_tenant"
    counts.admit_call("a", 1000.0 + 1.0 / per_s)
    counts.admit_call("b", 1000.0)


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200), st.floats(0.1, 20.0))
def test_rate_holds_over_any_time(waits_s: list[float], per_s: float) -> None:
    counts = admission(a=TenantPolicy(max_turns_per_s=per_s))
    now_s, admitted_at_s = 0.0, []
    for wait_s in waits_s:
        now_s += wait_s
        with contextlib.suppress(ServiceError):
            counts.admit_call("a", now_s)
            admitted_at_s.append(now_s)
    for first, start_s in enumerate(admitted_at_s):
        for last in range(first, len(admitted_at_s)):
            allowed = max(1.0, per_s * BURST_S) + per_s * (admitted_at_s[last] - start_s)
            assert last - first + 1 <= allowed + 1e-6


@given(st.lists(st.tuples(st.sampled_from(["call", "end", "open", "close"]), st.sampled_from("abc")), max_size=80))
def test_counts_are_those_of_a_list(steps: list[tuple[str, str]]) -> None:
    counts = admission(
        Limits(max_sessions=4, max_concurrent_turns=4, max_sessions_per_tenant=2, max_concurrent_turns_per_tenant=3)
    )
    held: dict[str, Counter[str]] = {"call": Counter(), "open": Counter()}
    for step, tenant in steps:
        kind = {"end": "call", "close": "open"}.get(step, step)
        mine = held[kind]
        if step in ("end", "close"):
            if mine[tenant]:
                mine[tenant] -= 1
                (counts.call_ended if step == "end" else counts.session_closed)(tenant)
            continue
        has_room = mine.total() < 4 and mine[tenant] < (3 if kind == "call" else 2)
        try:
            counts.admit_call(tenant, 0.0) if kind == "call" else counts.admit_session(tenant)
        except ServiceError:
            assert not has_room
        else:
            assert has_room
            mine[tenant] += 1
    assert (counts.calls, counts.sessions) == (held["call"].total(), held["open"].total())


def test_tenants_that_hold_nothing_are_forgotten() -> None:
    counts = admission()
    counts.admit_session("stays")

    for number in range(5000):
        counts.admit_call(f"tenant-{number}", 0.0)
        counts.call_ended(f"tenant-{number}")

    assert len(counts._uses) <= 1001
    counts.session_closed("stays")


def test_tenant_is_not_forgotten_while_its_rate_is_used_up() -> None:
    counts = admission(a=TenantPolicy(max_turns_per_s=0.1))
    counts.admit_call("a", 0.0)
    counts.call_ended("a")

    for number in range(2000):
        counts.admit_session(f"tenant-{number}")
        counts.session_closed(f"tenant-{number}")

    assert limit_met(counts, "a", 1.0)[0] == "max_turns_per_s_per_tenant"

"""Limits out of headers and events."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core import rate_limits
from warmline_server.core.events import Credits, RateLimits, RateLimitWindow

PRIMARY = {
    "x-codex-primary-used-percent": "12.5",
    "x-codex-primary-window-minutes": "300",
    "x-codex-primary-reset-at": "1704069000",
}


def test_default_family_is_always_told_even_when_nothing_is_known() -> None:
    assert rate_limits.from_headers({}) == (RateLimits("codex"),)


def test_default_family_has_both_windows_name_and_credits() -> None:
    headers = {
        **PRIMARY,
        "x-codex-secondary-used-percent": "80",
        "x-codex-limit-name": "main",
        "x-codex-credits-has-credits": "True",
        "x-codex-credits-unlimited": "0",
        "x-codex-credits-balance": " 9.99 ",
    }

    assert rate_limits.from_headers(headers) == (
        RateLimits(
            "codex",
            "main",
            RateLimitWindow(12.5, 300, 1704069000),
            RateLimitWindow(80.0),
            Credits(has_credits=True, unlimited=False, balance="9.99"),
        ),
    )


def test_other_families_follow_sorted_and_only_with_a_window() -> None:
    headers = {
        "x-zeta-primary-used-percent": "1",
        "x-codex-other-primary-used-percent": "30",
        "x-codex-other-limit-name": "other limit",
        "x-empty-primary-used-percent": "0",
        "x-broken-primary-used-percent": "much",
        **PRIMARY,
    }

    told = rate_limits.from_headers(headers)

    assert [limits.limit_id for limits in told] == ["codex", "codex_other", "zeta"]
    assert told[1] == RateLimits("codex_other", "other limit", RateLimitWindow(30.0))


@pytest.mark.parametrize(
    ("headers", "window"),
    [
        ({"used-percent": "0", "window-minutes": "0"}, None),
        ({"used-percent": "0"}, None),
        ({"used-percent": "0", "window-minutes": "5"}, RateLimitWindow(0.0, 5)),
        ({"used-percent": "0", "reset-at": "7"}, RateLimitWindow(0.0, None, 7)),
        ({"window-minutes": "5"}, None),
        ({"used-percent": "nan", "window-minutes": "5"}, None),
        ({"used-percent": "inf"}, None),
        ({"used-percent": "1", "window-minutes": "5.5", "reset-at": "soon"}, RateLimitWindow(1.0)),
        ({"used-percent": "1", "reset-at": "253402300800"}, RateLimitWindow(1.0)),
        ({"used-percent": "1", "reset-at": "9" * 5000}, RateLimitWindow(1.0)),
    ],
)
def test_window_is_dropped_without_a_percentage_or_without_content(
    headers: dict[str, str], window: RateLimitWindow | None
) -> None:
    named = {f"x-codex-primary-{name}": value for name, value in headers.items()}

    assert rate_limits.of_family(named, "codex").primary == window


@pytest.mark.parametrize(
    ("has_credits", "unlimited", "credits"),
    [
        ("true", "false", Credits(has_credits=True, unlimited=False)),
        ("1", "1", Credits(has_credits=True, unlimited=True)),
        ("yes", "1", None),
        ("1", None, None),
    ],
)
def test_credits_need_both_flags(has_credits: str, unlimited: str | None, credits: Credits | None) -> None:
    headers = {"x-codex-credits-has-credits": has_credits}
    if unlimited is not None:
        headers["x-codex-credits-unlimited"] = unlimited

    assert rate_limits.of_family(headers, "codex").credits == credits


def test_active_family_is_the_one_that_the_header_names() -> None:
    headers = {"x-codex-active-limit": "Codex_Other", "x-codex-other-primary-used-percent": "99", **PRIMARY}

    assert rate_limits.active_family(headers) == RateLimits("codex_other", primary=RateLimitWindow(99.0))
    assert rate_limits.active_family(PRIMARY).limit_id == "codex"


@pytest.mark.parametrize(
    ("event", "limits"),
    [
        ({}, RateLimits("codex")),
        ({"metered_limit_name": "Codex-Other"}, RateLimits("codex_other")),
        ({"limit_name": "extra"}, RateLimits("extra", "extra")),
        ({"rate_limits": {"primary": {"window_minutes": 5}}, "credits": {"unlimited": True}}, RateLimits("codex")),
        (
            {"rate_limits": {"primary": 5, "secondary": {"used_percent": 0.5, "reset_at": "x"}}, "plan_type": 5},
            RateLimits("codex", secondary=RateLimitWindow(0.5)),
        ),
        (
            {"credits": {"has_credits": True, "unlimited": False, "balance": 5}},
            RateLimits("codex", credits=Credits(has_credits=True, unlimited=False, balance="5")),
        ),
    ],
)
def test_event_tells_limits_and_leaves_out_what_has_a_wrong_shape(event: dict[str, object], limits: RateLimits) -> None:
    assert rate_limits.from_event(json.dumps({"type": "codex.rate_limits", **event}).encode()) == limits


def test_event_that_is_no_object_tells_nothing() -> None:
    assert rate_limits.from_event(b"[]") is None


NAMES = st.from_regex(
    r"x-(codex|a)-(primary|secondary|credits)-(used-percent|window-minutes|reset-at|x)", fullmatch=True
)


@given(st.dictionaries(NAMES, st.text(max_size=30)))
def test_headers_of_any_value_never_raise(headers: dict[str, str]) -> None:
    assert rate_limits.from_headers(headers)[0].limit_id == "codex"


def test_reply_with_more_families_than_any_provider_has_tells_the_first_of_them() -> None:
    headers = {f"x-f{number:03}-primary-used-percent": "1" for number in range(1000)}

    told = rate_limits.from_headers(headers)

    assert [limits.limit_id for limits in told] == ["codex", *(f"f{number:03}" for number in range(31))]


def test_event_with_names_longer_than_any_known_one_tells_the_rest() -> None:
    long = '"' + "x" * 257 + '"'
    event = f'{{"metered_limit_name":{long},"plan_type":{long},"rate_limits":{{"primary":{{"used_percent":5}}}}}}'

    told = rate_limits.from_event(event.encode())

    assert told is not None
    assert (told.limit_id, told.plan_type, told.primary) == ("codex", "", RateLimitWindow(5.0))

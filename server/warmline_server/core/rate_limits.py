"""The provider's limits, out of reply headers and out of `codex.rate_limits` events.

Source: wire-behaviour.md §5.4.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec

from warmline_server.core.events import Credits, RateLimits, RateLimitWindow
from warmline_server.core.lenient import LenientDecoder

DEFAULT_LIMIT = "codex"

MAX_FAMILIES = 32
"""Of one reply are read, and of one session are kept; providers have a handful."""

LONGEST_NAME = 256

# The last second that a protobuf Timestamp can hold: 9999-12-31T23:59:59Z.
_LAST_UNIX_S = 253_402_300_799
_LAST_MINUTES = 2**63 - 1

_FAMILY_PREFIX = "x-"
_FAMILY_SUFFIX = "-primary-used-percent"


def from_headers(headers: Mapping[str, str]) -> tuple[RateLimits, ...]:
    """All families that the headers tell of: the default one first and always, the others sorted, with windows only.

    Credits are the account's, so every family carries them.

    Args: names in lower case.
    """
    default = of_family(headers, DEFAULT_LIMIT)
    others = (of_family(headers, limit_id) for limit_id in sorted(_other_families(headers))[: MAX_FAMILIES - 1])
    return (default, *(limits for limits in others if limits.primary or limits.secondary))


def active_family(headers: Mapping[str, str]) -> RateLimits:
    """The family that a usage-limit error is about."""
    return of_family(headers, headers.get("x-codex-active-limit", "").strip() or DEFAULT_LIMIT)


def has_data(limits: RateLimits) -> bool:
    """Whether anything was told but the family's name."""
    return limits.primary is not None or limits.secondary is not None or limits.credits is not None


def of_family(headers: Mapping[str, str], limit_id: str) -> RateLimits:
    """One family, its windows absent where the headers do not tell them."""
    prefix = f"x-{limit_id.lower().replace('_', '-')}"
    return RateLimits(
        limit_id=_limit_id(limit_id),
        limit_name=headers.get(f"{prefix}-limit-name", "").strip(),
        primary=_window(headers, f"{prefix}-primary"),
        secondary=_window(headers, f"{prefix}-secondary"),
        credits=_credits(headers),
    )


def _other_families(headers: Mapping[str, str]) -> set[str]:
    families = {
        _limit_id(name[len(_FAMILY_PREFIX) : -len(_FAMILY_SUFFIX)])
        for name in headers
        if name.startswith(_FAMILY_PREFIX) and name.endswith(_FAMILY_SUFFIX) and len(name) > len(_FAMILY_SUFFIX) + 2
    }
    return families - {DEFAULT_LIMIT}


def _limit_id(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _window(headers: Mapping[str, str], prefix: str) -> RateLimitWindow | None:
    used_percent = _finite(headers.get(f"{prefix}-used-percent"))
    if used_percent is None:
        return None
    window_minutes = _whole(headers.get(f"{prefix}-window-minutes"), _LAST_MINUTES)
    resets_at_unix_s = _whole(headers.get(f"{prefix}-reset-at"), _LAST_UNIX_S)
    if used_percent == 0 and not window_minutes and resets_at_unix_s is None:
        return None
    return RateLimitWindow(used_percent, window_minutes, resets_at_unix_s)


def _credits(headers: Mapping[str, str]) -> Credits | None:
    has_credits = _flag(headers.get("x-codex-credits-has-credits"))
    unlimited = _flag(headers.get("x-codex-credits-unlimited"))
    if has_credits is None or unlimited is None:
        return None
    return Credits(has_credits, unlimited, headers.get("x-codex-credits-balance", "").strip())


def _finite(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _whole(text: str | None, last: int) -> int | None:
    # int() takes underscores, blanks and other scripts' digits, and is slow beyond reason on long ones.
    if not text or len(text) > 19 or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= last else None


def _flag(text: str | None) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get((text or "").strip().lower())


# Longer texts are none of these names: a session keeps them for as long as it lives.
_Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]


class _EventWindow(msgspec.Struct, gc=False):
    used_percent: float | None = None
    window_minutes: Annotated[int, msgspec.Meta(ge=0, le=_LAST_MINUTES)] | None = None
    reset_at: Annotated[int, msgspec.Meta(ge=0, le=_LAST_UNIX_S)] | None = None


class _EventWindows(msgspec.Struct, gc=False):
    primary: msgspec.Raw = msgspec.Raw(b"null")
    secondary: msgspec.Raw = msgspec.Raw(b"null")


class _EventCredits(msgspec.Struct, gc=False):
    has_credits: bool | None = None
    unlimited: bool | None = None
    balance: _Name | int | float | None = None


class _Event(msgspec.Struct, gc=False):
    plan_type: _Name | None = None
    metered_limit_name: _Name | None = None
    limit_name: _Name | None = None
    rate_limits: msgspec.Raw = msgspec.Raw(b"null")
    credits: msgspec.Raw = msgspec.Raw(b"null")


_EVENT = LenientDecoder(_Event)
_EVENT_WINDOWS = LenientDecoder(_EventWindows)
_EVENT_WINDOW = LenientDecoder(_EventWindow)
_EVENT_CREDITS = LenientDecoder(_EventCredits)


def from_event(payload: bytes) -> RateLimits | None:
    """What a `codex.rate_limits` event tells; None when it is no JSON object."""
    event = _EVENT.decode(payload)
    if event is None:
        return None
    windows = _EVENT_WINDOWS.decode(event.rate_limits) or _EventWindows()
    return RateLimits(
        limit_id=_limit_id(event.metered_limit_name or event.limit_name or DEFAULT_LIMIT),
        limit_name=event.limit_name or "",
        primary=_event_window(windows.primary),
        secondary=_event_window(windows.secondary),
        credits=_event_credits(event.credits),
        plan_type=event.plan_type or "",
    )


def _event_window(raw: msgspec.Raw) -> RateLimitWindow | None:
    window = _EVENT_WINDOW.decode(raw)
    if window is None or window.used_percent is None:
        return None
    return RateLimitWindow(window.used_percent, window.window_minutes, window.reset_at)


def _event_credits(raw: msgspec.Raw) -> Credits | None:
    told = _EVENT_CREDITS.decode(raw)
    if told is None or told.has_credits is None or told.unlimited is None:
        return None
    return Credits(told.has_credits, told.unlimited, "" if told.balance is None else str(told.balance))

"""A short text that matches a regular expression, for string schemas with a pattern. Pure."""

from __future__ import annotations

import importlib
import re
from typing import Any

# The interpreter's own parser is the only one that agrees with `re` on every pattern; it has no public name.
sre: Any = importlib.import_module("re._constants")
sre_parse: Any = importlib.import_module("re._parser")


def example(shape: str) -> str | None:
    """A text in which `shape` is found; None when the pattern is beyond this small generator or is not valid."""
    try:
        text = "".join(_write(token, value) for token, value in sre_parse.parse(shape))
    except (re.error, _BeyondError, OverflowError, RecursionError):
        return None
    return text if re.search(shape, text) else None


class _BeyondError(Exception):
    """A construct the generator does not know."""


def _write(token: Any, value: Any) -> str:
    if token is sre.LITERAL:
        return chr(value)
    if token is sre.NOT_LITERAL:
        return "a" if value != ord("a") else "b"
    if token is sre.ANY:
        return "a"
    if token is sre.AT:
        return ""
    if token is sre.IN:
        return _write_set(value)
    if token in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        least, most, body = value
        return "".join(_write(*each) for each in body) * int(max(least, min(1, most)))
    if token is sre.SUBPATTERN:
        return "".join(_write(*each) for each in value[3])
    if token is sre.BRANCH:
        return "".join(_write(*each) for each in value[1][0])
    raise _BeyondError(str(token))


def _write_set(members: Any) -> str:
    """One character of a set."""
    if members[0][0] is sre.NEGATE:
        return next(chr(code) for code in range(48, 123) if not any(_has(member, code) for member in members[1:]))
    token, value = members[0]
    if token is sre.LITERAL:
        return chr(value)
    if token is sre.RANGE:
        return chr(value[0])
    return next(chr(code) for code in range(32, 127) if _has((token, value), code))


def _has(member: Any, code: int) -> bool:
    token, value = member
    if token is sre.LITERAL:
        return bool(value == code)
    if token is sre.RANGE:
        return bool(value[0] <= code <= value[1])
    classes = {
        sre.CATEGORY_DIGIT: r"\d",
        sre.CATEGORY_NOT_DIGIT: r"\D",
        sre.CATEGORY_SPACE: r"\s",
        sre.CATEGORY_NOT_SPACE: r"\S",
        sre.CATEGORY_WORD: r"\w",
        sre.CATEGORY_NOT_WORD: r"\W",
    }
    return re.fullmatch(classes[value], chr(code)) is not None

"""Checks of single fields: types, bounds and known values. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warmline_simulator.refusal import Refusal

Check = Callable[[Any, str], Refusal | None]
"""Takes a value and the name the error gives it; None when the value is allowed."""

_NAMES: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def missing(name: str) -> Refusal:
    """A required field is absent."""
    return Refusal(400, "missing_required_parameter", f"Missing required parameter: '{name}'.", name)


def wrong_type(name: str, expected: str, value: Any) -> Refusal:
    """A field has another JSON type."""
    got = _NAMES.get(type(value), "something else")
    return Refusal(400, "invalid_type", f"Invalid type for '{name}': expected {expected}, but got {got} instead.", name)


def wrong_value(name: str, value: Any, expected: str) -> Refusal:
    """A field has the right type and a value that is not allowed."""
    shown = str(value)[:80]
    return Refusal(400, "invalid_value", f"Invalid value: '{shown}'. {expected}", name)


def boolean(value: Any, name: str) -> Refusal | None:
    """true or false."""
    return None if isinstance(value, bool) else wrong_type(name, "a boolean", value)


def text(*, longest: int | None = None) -> Check:
    """A string, of at most `longest` characters."""

    def check(value: Any, name: str) -> Refusal | None:
        if not isinstance(value, str):
            return wrong_type(name, "a string", value)
        return too_long(name, len(value), longest) if longest is not None and len(value) > longest else None

    return check


def too_long(name: str, length: int, longest: int) -> Refusal:
    """A string is longer than allowed."""
    message = f"Invalid '{name}': string too long. Expected a maximum length of {longest}, but got length {length}."
    return Refusal(400, "string_above_max_length", message, name)


def one_of(*values: str) -> Check:
    """One of these strings."""

    def check(value: Any, name: str) -> Refusal | None:
        if not isinstance(value, str):
            return wrong_type(name, "a string", value)
        return None if value in values else wrong_value(name, value, f"Supported values are: {', '.join(values)}.")

    return check


def whole_number(*, least: int, most: int | None = None) -> Check:
    """An integer between the bounds, which are allowed themselves."""

    def check(value: Any, name: str) -> Refusal | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return wrong_type(name, "an integer", value)
        if value < least:
            return _out_of_bounds(name, value, "integer_below_min_value", f">= {least}")
        return (
            _out_of_bounds(name, value, "integer_above_max_value", f"<= {most}")
            if most is not None and value > most
            else None
        )

    return check


def number(least: float, most: float) -> Check:
    """A number between the bounds, which are allowed themselves."""

    def check(value: Any, name: str) -> Refusal | None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return wrong_type(name, "a decimal", value)
        if not value >= least:
            return _out_of_bounds(name, value, "decimal_below_min_value", f">= {least}")
        return None if value <= most else _out_of_bounds(name, value, "decimal_above_max_value", f"<= {most}")

    return check


def _out_of_bounds(name: str, value: float, code: str, bound: str) -> Refusal:
    return Refusal(400, code, f"Invalid '{name}': expected a value {bound}, but got {str(value)[:40]} instead.", name)


def mapping(**known: Check) -> Check:
    """An object; the named fields are checked, others are let through."""

    def check(value: Any, name: str) -> Refusal | None:
        if not isinstance(value, dict):
            return wrong_type(name, "an object", value)
        for field, check_field in known.items():
            given = value.get(field)
            refusal = check_field(given, f"{name}.{field}") if given is not None else None
            if refusal is not None:
                return refusal
        return None

    return check


def list_of(each: Check) -> Check:
    """An array whose elements pass `each`."""

    def check(value: Any, name: str) -> Refusal | None:
        if not isinstance(value, list):
            return wrong_type(name, "an array", value)
        for position, element in enumerate(value):
            refusal = each(element, f"{name}[{position}]")
            if refusal is not None:
                return refusal
        return None

    return check


def string_map(*, most: int | None = None, longest_key: int | None = None, longest_value: int | None = None) -> Check:
    """An object of strings with limits on count and lengths; None is no limit."""

    def check(value: Any, name: str) -> Refusal | None:
        if not isinstance(value, dict):
            return wrong_type(name, "an object", value)
        if most is not None and len(value) > most:
            message = f"Invalid '{name}': too many properties. Expected at most {most}, but got {len(value)}."
            return Refusal(400, "object_above_max_properties", message, name)
        for key, each in value.items():
            if longest_key is not None and len(key) > longest_key:
                return too_long(name, len(key), longest_key)
            refusal = text(longest=longest_value)(each, f"{name}.{key}")
            if refusal is not None:
                return refusal
        return None

    return check

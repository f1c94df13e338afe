"""Values that satisfy a JSON Schema: what the model puts in tool arguments and structured output. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

from warmline_simulator import pattern

Json = dict[str, Any]

_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}
_DEEPEST = 12
"""Recursive schemas end here, with an empty value even where that is one too few."""
_MOST_VALUES = 10_000
"""Arrays and objects stop growing here, whatever minimum they ask for."""


def value_for(schema: Any, *, word: str = "sample") -> Any:
    """A value the schema accepts; an empty or unknown schema accepts `word`.

    Covers type, enum, const, properties and required, items, prefixItems, bounds, lengths, pattern, format, $ref into
    the same document, anyOf, oneOf and allOf.

    Args:
        word: used for free strings, so that arguments say where they came from.
    """
    return _Maker(schema if isinstance(schema, dict) else {}, word).make(schema, 0)


class _Maker:
    def __init__(self, root: Json, word: str) -> None:
        self._root = root
        self._word = word
        self._values_left = _MOST_VALUES

    def make(self, schema: Any, depth: int) -> Any:
        self._values_left -= 1
        if not isinstance(schema, dict):
            return self._word
        schema = self._merged(schema)
        if "const" in schema:
            return schema["const"]
        enum = schema.get("enum")
        if isinstance(enum, list) and enum:
            return enum[0]
        kind = self._kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in ("integer", "number"):
            return self._number(schema, is_integer=kind == "integer")
        if kind == "boolean":
            return True
        return None if kind == "null" else self._string(schema)

    def _merged(self, schema: Json) -> Json:
        """The schema with references and combinations folded in; of alternatives, the first."""
        for _ in range(_DEEPEST):
            reference = schema.get("$ref")
            if isinstance(reference, str):
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self._resolve(reference), **rest}
                continue
            for name in ("allOf", "anyOf", "oneOf"):
                options = schema.get(name)
                if isinstance(options, list) and options:
                    rest = {key: value for key, value in schema.items() if key != name}
                    schema = self._joined(rest, options if name == "allOf" else options[:1])
                    break
            else:
                return schema
        return {"type": "null"}

    def _joined(self, schema: Json, parts: list[Any]) -> Json:
        for part in parts:
            if not isinstance(part, dict):
                continue
            merged = self._merged(part)
            for name in ("properties", "required"):
                both = (schema.get(name), merged.get(name))
                if isinstance(both[0], dict) and isinstance(both[1], dict):
                    merged = {**merged, name: {**both[0], **both[1]}}
                elif isinstance(both[0], list) and isinstance(both[1], list):
                    merged = {**merged, name: [*both[0], *both[1]]}
            schema = {**schema, **merged}
        return schema

    def _resolve(self, reference: str) -> Json:
        target: Any = self._root
        for part in reference.removeprefix("#").split("/"):
            if part and isinstance(target, dict):
                target = target.get(part.replace("~1", "/").replace("~0", "~"))
        return target if isinstance(target, dict) else {}

    def _kind(self, schema: Json) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((name for name in kind if name != "null"), "null")
        if isinstance(kind, str):
            return kind
        if "properties" in schema:
            return "object"
        return "array" if "items" in schema else "string"

    def _object(self, schema: Json, depth: int) -> Json:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        wanted = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        if not wanted and depth < 2:
            wanted = list(properties)
        if depth >= _DEEPEST:
            wanted = []
        made = {name: self.make(properties.get(name), depth + 1) for name in dict.fromkeys(wanted)}
        extra = schema.get("additionalProperties")
        for number in range(min(self._values_left, _count(schema, "minProperties") - len(made))):
            made[f"key_{number}"] = self.make(extra if isinstance(extra, dict) else {}, depth + 1)
        return made

    def _array(self, schema: Json, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems")
        made = [self.make(each, depth + 1) for each in prefix] if isinstance(prefix, list) else []
        least = _count(schema, "minItems")
        wanted = 0 if depth >= _DEEPEST else max(least, min(1, _count(schema, "maxItems", 1)))
        items = schema.get("items", {})
        while len(made) < wanted and self._values_left > 0:
            made.append(
                self._distinct(items, made, depth) if schema.get("uniqueItems") else self.make(items, depth + 1)
            )
        return made

    def _distinct(self, items: Any, made: list[Any], depth: int) -> Any:
        """One more element that differs from those before."""
        enum = items.get("enum") if isinstance(items, dict) else None
        if isinstance(enum, list):
            return next((value for value in enum if value not in made), self.make(items, depth + 1))
        value = self.make(items, depth + 1)
        if isinstance(value, bool) and value in made:
            return not value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value + len(made)
        return f"{value}{len(made)}" if isinstance(value, str) and value in made else value

    def _number(self, schema: Json, *, is_integer: bool) -> int | float:
        low, high = schema.get("minimum"), schema.get("maximum")
        step = schema.get("multipleOf")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        unit = step if _is_number(step) and step > 0 else 1
        value: int | float = 1 if unit == 1 else unit
        if _is_number(low) and value < low:
            value = low
        if _is_number(above) and value <= above:
            value = above + unit
        if _is_number(high) and value > high:
            value = high
        if _is_number(below) and value >= below:
            value = (below + above) / 2 if _is_number(above) and not is_integer else below - unit
        if unit != 1:
            value = -(-value // unit) * unit
        return int(-(-value // 1)) if is_integer else value

    def _string(self, schema: Json) -> str:
        shape = schema.get("pattern")
        if isinstance(shape, str):
            made = pattern.example(shape)
            if made is not None:
                return made
        known = _FORMATS.get(str(schema.get("format")))
        if known is not None:
            return known
        text = self._word
        least, most = _count(schema, "minLength"), _count(schema, "maxLength", 1_000_000)
        return (text * (least // max(1, len(text)) + 1) if len(text) < least else text)[: max(most, least)]


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(schema: Json, name: str, absent: int = 0) -> int:
    value = schema.get(name)
    return min(value, 1_000_000) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else absent


def is_name(text: str) -> bool:
    """Whether a text may be a tool's name."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) is not None

"""One setting's value: from TOML or a variable's text to its type, or the words that say what is wrong with it."""

import difflib
import math
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from warmline_server.settings.annotations import HIDE, UNIT, Table, extra, metas

# Longer texts are not shown in errors: a key pasted into the wrong place is longer than any word expected there.
MAX_SHOWN = 20
MAX_COMPARED = 100


class Rejected(Exception):
    """A value does not fit. `found`, `expected` and `hint` as in Problem."""

    def __init__(self, found: str, expected: str, hint: str = "") -> None:
        super().__init__(found, expected, hint)
        self.found = found
        self.expected = expected
        self.hint = hint


def base_type(annotation: Any) -> Any:
    """The type without its annotations."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def table_type(annotation: Any) -> type[Table] | None:
    """The Table class of a setting that is a table of settings, else None."""
    base = base_type(annotation)
    return base if isinstance(base, type) and issubclass(base, Table) else None


def named_table_type(annotation: Any) -> type[Table] | None:
    """The Table class of a setting that holds such tables by name, else None."""
    base = base_type(annotation)
    return table_type(get_args(base)[1]) if get_origin(base) is dict else None


def from_toml(value: object, annotation: Any) -> object:
    """The value of a setting. Raises: Rejected."""
    choices = _choices(annotation)
    if choices and get_origin(base_type(annotation)) is tuple and isinstance(value, str):
        value = _words(value)
    return _converted(value, annotation, strict=True)


def from_text(text: str, annotation: Any) -> object:
    """The value of a setting from a variable: lists as JSON or words with commas, tables as JSON. Raises: Rejected."""
    origin = get_origin(base_type(annotation))
    if origin is dict or (origin is tuple and text.lstrip().startswith("[")):
        try:
            return _converted(msgspec.json.decode(text), annotation, strict=True)
        except (ValueError, RecursionError):
            raise Rejected("a text that is no JSON", f"{expected(annotation)}, as JSON") from None
    if origin is tuple:
        return _converted(_words(text), annotation, strict=True)
    return _converted(text.strip(), annotation, strict=False)


def expected(annotation: Any) -> str:
    """What a setting takes, in words."""
    base = base_type(annotation)
    origin = get_origin(base)
    if table_type(annotation) or named_table_type(annotation):
        return "a table"
    if origin is Literal:
        return f"one of {', '.join(get_args(base))}"
    if origin is tuple:
        return f"a list, each {expected(get_args(base)[0])}"
    if origin is dict:
        return "a table of texts"
    words = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}[base]
    unit = {"s": " of seconds", "bytes": " of bytes", None: ""}[extra(annotation, UNIT)]
    return f"{words}{unit}{bounds(annotation)}"


def bounds(annotation: Any) -> str:
    """The range of a number, as ` >= 0`; blank without one."""
    found = ""
    for meta in metas(annotation):
        for sign, bound in ((">=", meta.ge), (">", meta.gt), ("<=", meta.le), ("<", meta.lt)):
            if bound is not None:
                found += f"{' and' if found else ''} {sign} {bound:g}"
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` is most like; blank when it is like none."""
    # The comparison takes the square of the length, and no key is longer.
    word = word[:MAX_COMPARED].lower()
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def kind_of(value: object) -> str:
    """What a value is, without what it says."""
    kinds: dict[type | UnionType, str] = {bool: "true or false", int | float: "a number", str: "a text"}
    kinds |= {list | tuple: "a list", dict: "a table"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def _converted(value: object, annotation: Any, *, strict: bool) -> object:
    try:
        converted = msgspec.convert(value, annotation, strict=strict)
    except msgspec.ValidationError:
        raise Rejected(_found(value, annotation), expected(annotation), _choice_hint(value, annotation)) from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise Rejected(str(converted), expected(annotation))
    return converted


def _found(value: object, annotation: Any) -> str:
    """The value, where it is safe and short, else what it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    shows = base_type(annotation) in (bool, int, float) or _choices(annotation)
    texts = value if isinstance(value, list) else [value]
    if shows and not extra(annotation, HIDE) and all(isinstance(t, str) and len(t) <= MAX_SHOWN for t in texts):
        return ", ".join(repr(text) for text in texts) or "nothing"
    return kind_of(value)


def _choice_hint(value: object, annotation: Any) -> str:
    choices = _choices(annotation)
    texts = value if isinstance(value, list) else [value]
    wrong = (text for text in texts if isinstance(text, str) and text not in choices)
    likely = nearest(next(wrong, ""), choices)
    return f"did you mean {likely!r}?" if likely else ""


def _choices(annotation: Any) -> tuple[str, ...]:
    """The words that a setting, or each element of one that is a list, may be; empty when any."""
    base = base_type(annotation)
    if get_origin(base) is tuple:
        base = get_args(base)[0]
    return get_args(base) if get_origin(base) is Literal else ()


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    return [] if words in ([""], ["none"]) else words

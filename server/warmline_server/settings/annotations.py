"""How a setting is described: its text, unit and range stand beside the field, and every document is made from them."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

UNIT = "unit"
HIDE = "hide"
LATER = "later"
HIDDEN = "***"

Seconds = Annotated[float, Meta(ge=0, extra={UNIT: "s"})]
PositiveSeconds = Annotated[float, Meta(gt=0, extra={UNIT: "s"})]
Bytes = Annotated[int, Meta(ge=0, extra={UNIT: "bytes"})]
PositiveBytes = Annotated[int, Meta(gt=0, extra={UNIT: "bytes"})]
Count = Annotated[int, Meta(ge=0)]
PositiveCount = Annotated[int, Meta(gt=0)]
Rate = Annotated[float, Meta(ge=0)]
# The reference caps both retry settings at 100 (wire-behaviour §7).
Retries = Annotated[int, Meta(ge=0, le=100)]


def doc(text: str) -> Meta:
    """What a setting means, what it is good for, and what its special values do."""
    return Meta(description=text)


def secret(text: str) -> Meta:
    """As `doc`, for a value that may hold a secret: neither a repr nor an error shows it."""
    return Meta(description=text, extra={HIDE: True})


def later(text: str) -> Meta:
    """As `doc`, for a setting that this version does not carry out: setting it is refused, never ignored."""
    return Meta(description=text, extra={LATER: True})


def metas(annotation: object) -> Iterator[Meta]:
    """The Metas of an Annotated type, outermost last."""
    return (meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Meta))


def extra(annotation: object, key: str) -> Any:
    """What an annotation says under `key`; None when it says nothing."""
    found = [meta.extra[key] for meta in metas(annotation) if meta.extra and key in meta.extra]
    return found[-1] if found else None


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of settings. Its repr shows no secret."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value}" for name, value in self._shown())
        return f"{type(self).__name__}({fields})"

    def _shown(self) -> Iterable[tuple[str, str]]:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            yield field.name, HIDDEN if value and extra(field.type, HIDE) else repr(value)

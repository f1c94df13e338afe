"""Decoding of JSON whose known fields may have any shape: a field of the wrong shape counts as absent.

Providers, and the gateways in front of them, differ in what they send beside the fields that matter.
"""

import re
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON. RecursionError: nested beyond reason."""


# Escapes of a JSON string, so that an escaped backslash is never taken for the start of the next one.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u([dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


def mend(payload: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Puts U+FFFD in the place of each half of a surrogate pair that stands alone.

    JSON allows such a half, as a model leaves it that was cut inside an emoji; msgspec and UTF-8 do not.
    Returns: JSON of the same length, so that offsets hold, and the halves that were replaced; none: unchanged.
    """
    halves: list[bytes] = []

    def replace(match: re.Match[bytes]) -> bytes:
        half = match.group(1)
        if half is None:
            return match.group()
        halves.append(half.lower())
        return b"\\ufffd"

    return _ESCAPES.sub(replace, payload), tuple(halves)


class LenientDecoder(Generic[T]):
    """Decodes a JSON object into a Struct all of whose fields have defaults."""

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._whole = msgspec.json.Decoder(struct)
        self._fields = {
            field.encode_name: (field.name, msgspec.json.Decoder(field.type))
            for field in msgspec.structs.fields(struct)
        }

    def decode(self, payload: bytes | msgspec.Raw) -> T | None:
        """Returns: the value, its fields of a wrong shape at their defaults; None when this is no JSON object."""
        try:
            return self._whole.decode(payload)
        except msgspec.ValidationError:
            return self._decode_by_field(payload)
        except NOT_JSON:
            return None

    def _decode_by_field(self, payload: bytes | msgspec.Raw) -> T | None:
        try:
            members = _OBJECT.decode(payload)
        except NOT_JSON:
            return None
        values = {}
        for encoded_name, raw in members.items():
            name, decoder = self._fields.get(encoded_name, (None, None))
            if name is None or decoder is None:
                continue
            try:
                values[name] = decoder.decode(raw)
            except NOT_JSON:
                continue
        return self._struct(**values)

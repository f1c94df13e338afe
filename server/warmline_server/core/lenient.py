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


# A whole pair of surrogates, or half of one, after as many backslashes as escape each other: matched from the first of
# them on, so that an escaped one is never taken for the start of an escape, and no run of them is looked at twice.
_SURROGATES = re.compile(
    rb"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u([dD][89a-fA-F][0-9a-fA-F]{2}))"
)
_REPLACEMENT = b"fffd"
# A text is cut once, and a stream of deltas now and then; what has more halves was made to be mended.
MAX_HALVES = 1000


def mend(payload: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Puts U+FFFD in the place of each half of a surrogate pair that stands alone.

    JSON allows such a half, as a model leaves it that was cut inside an emoji; msgspec and UTF-8 do not.
    Returns: JSON of the same length, so that offsets hold, and the halves that were replaced; none: unchanged.
    """
    mended = bytearray()
    halves: list[bytes] = []
    for match in _SURROGATES.finditer(payload):
        half = match.group(1)
        if half is None:
            continue
        if len(halves) == MAX_HALVES:
            return payload, ()
        halves.append(half.lower())
        mended = mended or bytearray(payload)
        mended[match.start(1) : match.end(1)] = _REPLACEMENT
    return (bytes(mended), tuple(halves)) if halves else (payload, ())


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

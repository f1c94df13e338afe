"""What of a request its socket already holds.

A socket's memory is its last request and the output observed on it. A request that repeats it, item by item, and has
equal settings, is sent as the id of the last response plus the new items. Any doubt means the whole request.
Items are compared by JSON value, since agents write them anew: by digest of a canonical form, 16 bytes an item.
"""

import hashlib
import json
import math
from collections.abc import Mapping

import msgspec

from warmline_server.core.events import FullReason, Mismatch
from warmline_server.core.lenient import NOT_JSON, mend

DIGEST_BYTES = 16
# Up to here every integer is a float of its own. Source: IEEE 754, binary64.
_EXACT_BELOW = 2**53

_encode = msgspec.json.Encoder(order="sorted").encode


def _number(text: str) -> float | int:
    """1.0 and 1 are one JSON value, as long as both are exact."""
    value = float(text)
    if math.isinf(value):
        raise msgspec.ValidationError("number out of range")  # as without this hook; encoded it would be null
    return int(value) if value.is_integer() and abs(value) < _EXACT_BELOW else value


_decode = msgspec.json.Decoder(float_hook=_number).decode


def canonical(value: bytes) -> bytes:
    """One spelling for all spellings of a JSON value. Raises: one of `lenient.NOT_JSON`."""
    try:
        return _encode(_decode(value))
    except NOT_JSON:
        mended, halves = mend(value)
        if not halves:
            raise
        _decode(mended)  # it is JSON but for the halves, which the standard library reads and writes as they are
        return json.dumps(json.loads(value, parse_float=_number), sort_keys=True).encode()


def digest(item: bytes) -> bytes:
    """Digest of one JSON value, the same for all its spellings. Raises: one of `lenient.NOT_JSON`."""
    return raw_digest(canonical(item))


def raw_digest(text: bytes) -> bytes:
    """Digest of bytes as they are."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


class Baseline(msgspec.Struct, frozen=True):
    """What a socket holds: `settings` by name in canonical JSON, `history` the digests of input and output in order."""

    settings: Mapping[str, bytes]
    history: bytes
    response_id: str


class Plan(msgspec.Struct, frozen=True):
    """How a request is sent: from input index `start` on, after `previous_response_id` (blank: the whole request).

    `full_reason` is None exactly for an incremental request; `mismatch` says where a comparison first failed.
    """

    start: int = 0
    previous_response_id: str = ""
    full_reason: FullReason | None = None
    mismatch: Mismatch | None = None


def plan(baseline: Baseline | None, settings: Mapping[str, bytes], history: bytes) -> Plan:
    """Decides whether a request extends what its socket holds.

    Args: `baseline` None when the socket's last response did not complete; `history` the digests of the whole input.
    Returns: an incremental plan, possibly with nothing new, or a full one with its reason.
    """
    if baseline is None or not baseline.response_id:
        return Plan(full_reason=FullReason.NO_BASELINE)
    field = _first_difference(baseline.settings, settings)
    if field is not None:
        return Plan(full_reason=FullReason.SETTINGS_CHANGED, mismatch=Mismatch(field=field))
    if not history.startswith(baseline.history):
        index = _first_index(baseline.history, history)
        return Plan(full_reason=FullReason.NOT_A_PREFIX, mismatch=Mismatch(input_index=index))
    return Plan(start=len(baseline.history) // DIGEST_BYTES, previous_response_id=baseline.response_id)


def _first_difference(former: Mapping[str, bytes], now: Mapping[str, bytes]) -> str | None:
    if former == now:
        return None
    return next(name for name in (*now, *former) if former.get(name) != now.get(name))


def _first_index(former: bytes, now: bytes) -> int:
    for at in range(0, len(former), DIGEST_BYTES):
        if former[at : at + DIGEST_BYTES] != now[at : at + DIGEST_BYTES]:
            return at // DIGEST_BYTES
    raise AssertionError("equal histories have no first difference")

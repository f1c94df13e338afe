"""The keys that an issuer signs with, out of its JSON Web Key Set. Pure. Source: RFC 7517, RFC 7518 §6."""

from collections.abc import Collection, Mapping
from typing import Any

import jwt
import msgspec

from warmline_server.callers.reloaded import Unreadable

# No issuer has more; each is parsed, which takes time.
MAX_KEYS = 100

# What a key can sign with when it does not say. RSA keys must say where only one of its two ways is meant.
_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


class _Set(msgspec.Struct):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """Verification keys by key id and algorithm. Secret keys, and keys for anything but signatures, are left out."""

    def __init__(self, keys: Mapping[tuple[str, str], jwt.PyJWK]) -> None:
        self._keys = keys
        self._ids = frozenset(key_id for key_id, _ in keys)

    def has(self, key_id: str) -> bool:
        """Whether there is a key of this id; blank: whether there is only one key, which then needs no id."""
        return key_id in self._ids if key_id else len(self._ids) == 1

    def find(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        """The key, None when there is none that verifies this algorithm."""
        if not key_id and len(self._ids) == 1:
            (key_id,) = self._ids
        return self._keys.get((key_id, algorithm))


def read_keys(content: bytes, algorithms: Collection[str]) -> IssuerKeys:
    """Reads a key set; keys that cannot be used for these algorithms are passed over. Raises: Unreadable."""
    try:
        found = msgspec.json.decode(content, type=_Set).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unreadable("it is no JSON Web Key Set") from None
    if len(found) > MAX_KEYS:
        raise Unreadable(f"it has more than {MAX_KEYS} keys")
    keys: dict[tuple[str, str], jwt.PyJWK] = {}
    for fields in found:
        key_id = fields.get("kid", "")
        if not isinstance(key_id, str) or fields.get("use", "sig") != "sig":
            continue
        for algorithm in _algorithms(fields) & set(algorithms):
            try:
                keys[key_id, algorithm] = jwt.PyJWK(fields, algorithm)
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                continue  # its text would quote the key
    if not keys:
        raise Unreadable("it has no key that can be used")
    return IssuerKeys(keys)


def _algorithms(fields: Mapping[str, Any]) -> frozenset[str]:
    """What a key may verify: never a secret key's, whatever it says of itself."""
    kind, curve = fields.get("kty"), fields.get("crv")
    possible = _RSA if kind == "RSA" else frozenset()
    if kind in ("EC", "OKP") and isinstance(curve, str) and curve in _BY_CURVE:
        possible = frozenset({_BY_CURVE[curve]})
    said = fields.get("alg")
    return possible if said is None else possible & {said if isinstance(said, str) else ""}

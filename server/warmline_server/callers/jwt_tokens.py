"""JSON Web Tokens as callers' identity. Source: RFC 7519, RFC 8725."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jwt

from warmline_server.callers.caller import Caller, NamePattern, Refused
from warmline_server.callers.issuer_keys import IssuerKeys
from warmline_server.callers.key_source import KeySource
from warmline_server.clock import Clock
from warmline_server.core.errors import Reason, ServiceError
from warmline_server.settings import Jwt

# Verified tokens that are remembered: a signature costs about 0.1 ms of the one loop, a look here a hundredth of that.
MAX_REMEMBERED = 10_000
# Latest moment that a token may name: beyond it the number is no time.
_MAX_UNIX_S = 1e12

_WHYS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.InvalidSignatureError, "the token's signature does not match"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is of another issuer"),
    (jwt.MissingRequiredClaimError, "the token lacks a claim"),
)


@dataclass(frozen=True, slots=True)
class Verified:
    """Whom a token names, until when, and by which keys this was found."""

    caller: Caller
    expires_unix_s: float
    key_id: str
    keys: IssuerKeys


def verify(token: str, keys: IssuerKeys, settings: Jwt, pattern: NamePattern, now_unix_s: float) -> Verified:
    """Whom a token names. Pure. Raises: Refused."""
    key_id, algorithm = read_header(token)
    if algorithm not in settings.algorithms:
        raise Refused("the token's algorithm is not accepted")
    key = keys.find(key_id, algorithm)
    if key is None:
        raise Refused("the token's key is not the issuer's")
    claims = _claims(token, key, algorithm, settings)
    # The times are compared here, on the server's clock: they are compared again when the token is remembered.
    expires = _moment(claims, "exp")
    if expires is None:
        raise Refused("the token lacks a claim")
    if now_unix_s >= expires + settings.leeway_s:
        raise Refused("the token has expired")
    begins = _moment(claims, "nbf")
    if begins is not None and now_unix_s < begins - settings.leeway_s:
        raise Refused("the token is not valid yet")
    named = claims.get(settings.tenant_claim)
    tenant, _ = pattern.tenant([named] if isinstance(named, str) else [])
    name = claims.get("sub")
    return Verified(Caller(tenant, name[:256] if isinstance(name, str) else ""), expires, key_id, keys)


def read_header(token: str) -> tuple[str, str]:
    """A token's key id, blank when it has none, and its algorithm: claims, so far. Raises: Refused."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Refused("shows no token that is known") from None
    key_id, algorithm = header.get("kid", ""), header.get("alg")
    if not isinstance(key_id, str) or not isinstance(algorithm, str):
        raise Refused("shows no token that is known")
    return key_id, algorithm


def _claims(token: str, key: jwt.PyJWK, algorithm: str, settings: Jwt) -> dict[str, Any]:
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=settings.issuer,
            audience=settings.audience,
            options={
                "require": ["exp", "iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
                "verify_jti": False,
                "enforce_minimum_key_length": True,
            },
        )
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        # Outside of the handler, so that the library's text, which may quote, is in no traceback.
        why = next((why for kind, why in _WHYS if isinstance(error, kind)), "the token cannot be read")
    raise Refused(why)


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """A claim's Unix seconds; None when there is none. Raises: Refused when it is no time."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_UNIX_S:
        raise Refused("the token has a time that is none")
    return float(value)


class JwtTokens:
    """Verifies tokens, and remembers those that are good until they expire or the issuer's keys change."""

    def __init__(self, settings: Jwt, source: KeySource, clock: Clock) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._pattern = NamePattern(settings.tenant_pattern)
        self._known: OrderedDict[bytes, Verified] = OrderedDict()

    async def find(self, token: str) -> Caller:
        """Whose token this is. Raises: Refused; ServiceError CALLERS_UNVERIFIABLE while there are no keys.

        Cancel: safe.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        key_id = read_header(token)[0] if known is None else known.key_id
        keys = await self._source.keys(key_id)
        if keys is None:
            raise ServiceError(
                Reason.CALLERS_UNVERIFIABLE,
                "the keys that tokens are verified with are not here yet",
                retry_after_s=2.0,
            )
        now_unix_s = self._clock.unix_ns() / 1e9
        if known is None or known.keys is not keys:
            known = self._known[digest] = verify(token, keys, self._settings, self._pattern, now_unix_s)
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        elif now_unix_s >= known.expires_unix_s + self._settings.leeway_s:
            self._known.pop(digest, None)
            raise Refused("the token has expired")
        else:
            self._known.move_to_end(digest)
        return known.caller

    async def warm(self) -> None:
        """Gets the keys ahead of the first call. Cancel: safe."""
        await self._source.keys("")

    async def close(self) -> None:
        """Ends what is under way. Idempotent."""
        await self._source.close()

"""A credential as it is held, and how one is read from what foreign programs write. Pure; shows no value anywhere."""

import base64
import re
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from warmline_server.core.lenient import NOT_JSON

# More than any token known, less than any server takes as a header.
MAX_TOKEN_BYTES = 16 * 1024
MAX_OUTPUT_BYTES = 256 * 1024
# Source: RFC 9110 §5.5, without blanks: no token has one.
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class Malformed(Exception):
    """What was read holds no usable credential. The text says why, and not what."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that no repr shows."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A credential. `expires_unix_s` None: not known; `account_id` and `refresh_token` blank: none."""

    value: str = field(repr=False)
    account_id: str = ""
    expires_unix_s: float | None = None
    refresh_token: str = field(default="", repr=False)


# Beyond any date: what is larger is no time.
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class _Claims(msgspec.Struct):
    exp: _Seconds | None = None


class _Fields(msgspec.Struct):
    """Of a token file, or of a token endpoint's answer."""

    access_token: str | None = ""
    refresh_token: str | None = ""
    account_id: str | None = ""
    expires_at: _Seconds | None = None
    expires_in: _Seconds | None = None

    def __repr__(self) -> str:
        return "_Fields(...)"


class _File(_Fields):
    tokens: _Fields | None = None


_claims = msgspec.json.Decoder(_Claims)
_fields = msgspec.json.Decoder(_Fields)
_file = msgspec.json.Decoder(_File)


def from_text(text: bytes) -> Token:
    """A credential that is the whole text, trimmed. Raises: Malformed."""
    return Token(_legal(_decoded(text).strip()))


def from_file(content: bytes) -> Token:
    """A token file: a JSON object with the fields at its top or under `tokens`. A token that it lacks is blank.

    Raises: Malformed, also when it has neither an access nor a refresh token.
    """
    try:
        found = _file.decode(content)
    except NOT_JSON:
        raise Malformed("it is no JSON object with tokens as texts") from None
    fields = found.tokens or found
    value, refresh_token = fields.access_token or "", fields.refresh_token or ""
    if not value and not refresh_token:
        raise Malformed("it holds neither access_token nor refresh_token")
    expires = fields.expires_at if fields.expires_at is not None else expiry_of(value)
    return Token(_legal(value) if value else "", _account(fields), expires, refresh_token)


def from_reply(body: bytes, former: Token, now_unix_s: float) -> Token:
    """A token endpoint's answer; what it leaves out stays as it was.

    Raises: Malformed. Source: RFC 6749 §5.1 and §6.
    """
    try:
        fields = _fields.decode(body)
    except NOT_JSON:
        raise Malformed("it is no JSON object with tokens as texts") from None
    if not fields.access_token:
        raise Malformed("it holds no access_token")
    value = _legal(fields.access_token)
    expires = now_unix_s + fields.expires_in if fields.expires_in is not None else expiry_of(value)
    if expires is not None and expires <= now_unix_s:
        expires = None  # one of the two clocks is wrong; it is used until it is refused
    return Token(value, _account(fields) or former.account_id, expires, fields.refresh_token or former.refresh_token)


def renewed_file(content: bytes, token: Token) -> bytes:
    """A token file with the new tokens in the place of the old ones, and all else as it was.

    Args: `content` as `from_file` has read it; what is none by now is written anew.
    """
    try:
        from_file(content)
        document = msgspec.json.decode(content, type=dict[str, object])
    except (Malformed, *NOT_JSON):
        document = {}
    nested = document.get("tokens")
    fields = nested if isinstance(nested, dict) else document
    fields["access_token"] = token.value
    fields["refresh_token"] = token.refresh_token
    fields.pop("expires_at", None)
    if token.expires_unix_s is not None:
        fields["expires_at"] = int(token.expires_unix_s)
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def expiry_of(value: str) -> float | None:
    """When a JSON Web Token expires, by its own word, Unix seconds; None for any other text. Nothing is verified."""
    parts = value.split(".")
    if len(parts) != 3:
        return None
    try:
        return _claims.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))).exp
    except (ValueError, RecursionError):
        return None


def _account(fields: _Fields) -> str:
    """It goes into a header. Blank: none was told."""
    return _legal(fields.account_id) if fields.account_id else ""


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")


def _legal(value: str) -> str:
    if not value:
        raise Malformed("it is empty")
    if len(value) > MAX_TOKEN_BYTES:
        raise Malformed(f"it has {len(value)} characters, more than {MAX_TOKEN_BYTES}")
    if not _VISIBLE.fullmatch(value):
        raise Malformed("it holds a blank or another character that no header value with a credential has")
    return value

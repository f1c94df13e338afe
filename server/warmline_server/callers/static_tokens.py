"""Tokens that the operator hands out, as a file of their digests."""

import hashlib
import re
import tomllib
from collections.abc import Mapping

import msgspec

from warmline_server.callers.caller import MAX_NAME, Caller
from warmline_server.callers.reloaded import Unreadable

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    tenant: str
    sha256: str
    name: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    token: list[_Entry] = []


def read_tokens(content: bytes) -> Mapping[bytes, Caller]:
    """The callers by the digest of their token. Raises: Unreadable."""
    try:
        entries = msgspec.convert(tomllib.loads(content.decode()), _File).token
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        raise Unreadable("it is no TOML") from None
    except msgspec.ValidationError:
        raise Unreadable("it is no list of [[token]] with tenant, sha256 and perhaps name, all texts") from None
    found: dict[bytes, Caller] = {}
    for number, entry in enumerate(entries, 1):
        if not 0 < len(entry.tenant) <= MAX_NAME or not entry.tenant.isprintable():
            raise Unreadable(f"token {number}: tenant is no text of 1 to {MAX_NAME} visible characters")
        if not _DIGEST.fullmatch(entry.sha256):
            # A token in its place would be a secret in a file that is taken for harmless.
            raise Unreadable(f"token {number}: sha256 is not 64 hexadecimal digits")
        digest = bytes.fromhex(entry.sha256)
        if digest in found:
            raise Unreadable(f"token {number}: its digest is there before")
        found[digest] = Caller(entry.tenant, entry.name[:MAX_NAME])
    return found


def find(callers: Mapping[bytes, Caller], token: str) -> Caller | None:
    """Whose token this is; None: nobody's.

    By its digest: what the time of the search tells is about digests, which nobody can choose.
    """
    return callers.get(hashlib.sha256(token.encode()).digest())

"""The token that a call shows. Source: RFC 6750 §2.1."""

from collections.abc import Iterable

from warmline_server.callers.caller import Refused

KEY = "authorization"
# More than any token known; the metadata as a whole has its own limit.
MAX_TOKEN_BYTES = 16 * 1024


def shown_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The bearer token of a call's metadata; None when there is none at all.

    Raises: Refused for several, for another scheme and for what can be no token.
    """
    found = [value for key, value in metadata if key == KEY]
    if not found:
        return None
    if len(found) > 1:
        raise Refused("shows several tokens")
    scheme, _, token = str(found[0]).partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Refused("shows no bearer token")
    if len(token) > MAX_TOKEN_BYTES or not (token.isascii() and token.isprintable()):
        raise Refused("shows what can be no token")
    return token

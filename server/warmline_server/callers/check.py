"""What `warmline config check` finds in the files that callers are known by."""

from collections.abc import Iterator

from warmline_server.callers.issuer_keys import read_keys
from warmline_server.callers.reloaded import BadFile, Reloaded
from warmline_server.callers.server_certificate import read_material
from warmline_server.callers.static_tokens import read_tokens
from warmline_server.settings import Auth, Finding


def check_callers(auth: Auth) -> Iterator[Finding]:
    """Reads the files as the server would at its start. Connects nowhere."""
    if auth.tokens_file:
        try:
            if not Reloaded(auth.tokens_file, read_tokens).current():
                yield Finding("warning", "auth.tokens_file", f"{auth.tokens_file} holds no token")
        except BadFile as error:
            yield Finding("error", "auth.tokens_file", str(error))
    if auth.jwt.jwks_file:
        try:
            Reloaded(auth.jwt.jwks_file, lambda content: read_keys(content, auth.jwt.algorithms))
        except BadFile as error:
            yield Finding("error", "auth.jwt.jwks_file", str(error))
    if auth.tls.cert_file:
        try:
            read_material(auth.tls)
        except BadFile as error:
            yield Finding("error", "auth.tls", str(error))

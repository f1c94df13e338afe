"""Credentials of upstreams: where they come from, how they are renewed. May import `core`, `clock` and `settings`.

No value is ever in a repr, an error or a log.
"""

import os
from collections.abc import Mapping

from warmline_server.clock import Clock
from warmline_server.credentials.oauth import OAuthCredential, TokenHttp
from warmline_server.credentials.source import AuthFacts, CredentialSource, Outcome, Recovery
from warmline_server.credentials.stored import CommandCredential, EnvironmentCredential, FileCredential
from warmline_server.settings import Credential

__all__ = ["AuthFacts", "CredentialSource", "Outcome", "Recovery", "TokenHttp", "open_credential"]


def open_credential(
    settings: Credential, *, http: TokenHttp, clock: Clock, environ: Mapping[str, str] = os.environ
) -> CredentialSource:
    """The credential that the settings describe; `close` it. Nothing is read from files or programs until it is used.

    Args: `http` reaches the token endpoint of `oauth`; `environ` is read now.
    """
    match settings.source:
        case "none":
            return CredentialSource(settings, clock)
        case "env":
            return EnvironmentCredential(settings, clock, environ)
        case "file":
            return FileCredential(settings, clock)
        case "command":
            return CommandCredential(settings, clock)
        case "oauth":
            return OAuthCredential(settings, clock, environ, http)

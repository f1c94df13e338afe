"""Who calls: a token where one is shown and taken, else the certificate."""

from collections.abc import Iterable

from warmline_server.callers.bearer import shown_token
from warmline_server.callers.caller import Caller, Refused
from warmline_server.callers.certificates import AuthContext, Certificates
from warmline_server.callers.jwt_tokens import JwtTokens
from warmline_server.callers.key_source import KeyFile, KeysHttp, KeySource, KeyUrl
from warmline_server.callers.reloaded import Reloaded
from warmline_server.callers.static_tokens import find, read_tokens
from warmline_server.clock import Clock
from warmline_server.core.errors import CallerError, Reason
from warmline_server.settings import Auth, Jwt


class Authenticator:
    """The ways to authenticate that the settings name. `close` it."""

    def __init__(self, settings: Auth, *, http: KeysHttp | None, clock: Clock) -> None:
        """Args: `http` reaches the issuer of JSON Web Tokens; None where none are taken from a URL.

        Raises: BadFile.
        """
        self._known = settings.tenants.keys() if settings.known_tenants_only else None
        self._takes_tokens = settings.takes_tokens
        self._static = Reloaded(settings.tokens_file, read_tokens) if settings.tokens_file else None
        self._jwt = _jwt_tokens(settings.jwt, http, clock)
        self._certificates = Certificates(settings.tls)
        self._takes_certificates = bool(settings.tls.client_ca_file) and settings.tls.tenant_from != "none"

    async def by_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller | None:
        """Whose token a call shows; None when it shows none that is taken here, and a certificate may do instead.

        Raises: Refused: a token that is not believed is never made up for by a certificate; CallerError
            PERMISSION_DENIED; ServiceError CALLERS_UNVERIFIABLE when it cannot be verified now.
        Cancel: safe.
        """
        token = shown_token(metadata) if self._takes_tokens else None
        if token is None:
            if not self._takes_certificates:
                raise Refused("shows no token")
            return None
        caller = find(self._static.current(), token) if self._static is not None else None
        if caller is None:
            if self._jwt is None:
                raise Refused("shows no token that is known")
            caller = await self._jwt.find(token)
        return self._admitted(caller)

    def by_certificate(self, auth_context: AuthContext) -> Caller:
        """Whose certificate the connection was made with. Raises: Refused; CallerError PERMISSION_DENIED."""
        return self._admitted(self._certificates.find(auth_context))

    async def warm(self) -> None:
        """Fetches what the first call would wait for. Raises nothing. Cancel: safe, it goes on."""
        if self._jwt is not None:
            await self._jwt.warm()

    async def close(self) -> None:
        """Ends what is under way. Idempotent."""
        if self._jwt is not None:
            await self._jwt.close()

    def _admitted(self, caller: Caller) -> Caller:
        if self._known is not None and caller.tenant not in self._known:
            raise CallerError(Reason.PERMISSION_DENIED, "the caller's tenant may not use this server")
        return caller


def _jwt_tokens(settings: Jwt, http: KeysHttp | None, clock: Clock) -> JwtTokens | None:
    if not settings.is_on:
        return None
    if settings.jwks_file:
        source: KeySource = KeyFile(settings)
    else:
        assert http is not None, "a URL is fetched through a client"
        source = KeyUrl(settings, http, clock)
    return JwtTokens(settings, source, clock)

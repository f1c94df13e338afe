"""An access token that is renewed with a refresh token, before it expires and when it is refused."""

import asyncio
import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from warmline_server.clock import Clock
from warmline_server.core.errors import UpstreamFailure
from warmline_server.credentials import token as tokens
from warmline_server.credentials.renewal import permanent, transient
from warmline_server.credentials.source import Step
from warmline_server.credentials.stored import FileCredential
from warmline_server.credentials.token import Malformed, Secret, Token
from warmline_server.settings import Credential

_log = logging.getLogger(__name__)

# Answers that another try of the same request does not change, but these two of them.
_REFUSALS = frozenset(range(300, 500)) - {408, 429}


class Reply(Protocol):
    """A whole HTTP reply."""

    @property
    def body(self) -> bytes:
        """Its body, decoded."""


class TokenHttp(Protocol):
    """The one thing needed of an HTTP client; `transport.http.HttpTransport` has it."""

    async def post_json(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, *, connect_timeout_s: float, timeout_s: float
    ) -> Reply:
        """Sends a POST. Raises: UpstreamFailure, with the status in its words, unless the reply is 2xx."""


class OAuthCredential(FileCredential):
    """Tokens from a file, kept fresh at a token endpoint, and written back."""

    def __init__(self, settings: Credential, clock: Clock, environ: Mapping[str, str], http: TokenHttp) -> None:
        super().__init__(settings, clock)
        self._http = http
        self._client_secret = Secret(environ.get(settings.client_secret_env, ""))
        self._stored: Token | None = None
        self._refused: Token | None = None
        self._refreshed_unix_s: float | None = None

    async def _current(self) -> Token:
        token = await super()._current()
        expires = token.expires_unix_s
        left_s = math.inf if expires is None else expires - self._now_unix_s()
        if not token.value or left_s <= 0:
            await self._renewal.run()
            return await super()._current()
        if expires is not None and left_s <= self._margin_s(expires):
            self._renewal.start_nowait()
        return token

    def _margin_s(self, expires_unix_s: float) -> float:
        """How long before its end a token is renewed: not in the first half of its life, or a short one never rests."""
        if self._refreshed_unix_s is None:
            return self.settings.refresh_before_s
        return min(self.settings.refresh_before_s, (expires_unix_s - self._refreshed_unix_s) / 2)

    def _steps(self) -> Sequence[Step]:
        return [("reload", self._reload_step), ("refresh_token", self._renew_step)]

    def _parsed(self, content: bytes) -> Token:
        """What the file holds; what is held already when the file says nothing new, since the file may be behind."""
        stored = tokens.from_file(content)
        former, self._stored = self._stored, stored
        return self._token if self._token is not None and stored == former else stored

    async def _renew(self) -> None:
        if self._reload():
            return  # whoever shares the file has done it
        held = self._token
        assert held is not None, "it was loaded, or that raised"
        if not held.refresh_token:
            raise permanent("refresh the credential: there is no refresh token")
        if self._refused is not None and held.refresh_token == self._refused.refresh_token:
            raise permanent("refresh the credential: the refresh token was refused")
        self._hold(await self._refreshed(held))
        self._refreshed_unix_s = self._now_unix_s()
        _log.info("credential refreshed")
        if self.settings.write_back:
            await asyncio.to_thread(self._write_back)

    async def _refreshed(self, held: Token) -> Token:
        limit_s = self.settings.refresh_timeout_s
        headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
        try:
            reply = await self._http.post_json(
                self.settings.token_url,
                headers,
                self._form(held.refresh_token),
                connect_timeout_s=limit_s,
                timeout_s=limit_s,
            )
        except UpstreamFailure as failure:
            status = failure.words.status if failure.words is not None else None
        else:
            try:
                return tokens.from_reply(reply.body, held, self._now_unix_s())
            except Malformed as error:
                raise transient(f"refresh the credential: of the token endpoint's answer, {error}") from None
        # The endpoint's own words stay here: they could quote what was sent.
        if status in _REFUSALS:
            self._refused = held
            raise permanent(f"refresh the credential: the token endpoint answered {status}")
        told = f"answered {status}" if status is not None else "did not answer"
        raise transient(f"refresh the credential: the token endpoint {told}")

    def _form(self, refresh_token: str) -> bytes:
        """Source: RFC 6749 §6 and §2.3.1."""
        fields = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": self.settings.client_id,
            "client_secret": self._client_secret.value,
            "scope": self.settings.scope,
        }
        return urlencode({name: value for name, value in fields.items() if value}).encode()

    def _write_back(self) -> None:
        """Replaces the file as a whole, so that no reader ever sees half of it."""
        assert self._token is not None, "it was refreshed just now"
        try:
            path = Path(os.path.realpath(self.settings.file))
            content = tokens.renewed_file(path.read_bytes(), self._token)
            _replace(path, content)
        except OSError as error:
            _log.error("renewed tokens not written back", extra={"path": self.settings.file, "why": error.strerror})

    def _now_unix_s(self) -> float:
        return self.clock.unix_ns() / 1e9


def _replace(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, path.stat().st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise

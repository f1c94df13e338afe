"""Where the issuer's keys come from: a URL or a file. Only a call whose key is not here waits for them."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from warmline_server.callers.issuer_keys import IssuerKeys, read_keys
from warmline_server.callers.reloaded import Reloaded, Unreadable
from warmline_server.clock import Clock
from warmline_server.core.errors import UpstreamFailure
from warmline_server.settings import Jwt

_log = logging.getLogger(__name__)

# Tokens with ids of keys that do not exist make the server ask the issuer no more often than this.
MIN_FETCH_INTERVAL_S = 10.0


class Reply(Protocol):
    """A whole HTTP reply."""

    @property
    def body(self) -> bytes:
        """Its body, decoded."""


class KeysHttp(Protocol):
    """The one thing needed of an HTTP client; `transport.http.HttpTransport` has it. Follows no redirect."""

    async def get(
        self, url: str, headers: Sequence[tuple[str, str]], *, connect_timeout_s: float, timeout_s: float
    ) -> Reply:
        """Sends a GET. Raises: UpstreamFailure unless the reply is 2xx or 304."""


class KeySource(Protocol):
    """The issuer's keys."""

    async def keys(self, key_id: str) -> IssuerKeys | None:
        """The keys, after another look when this one is not among them; None: there have never been any."""

    async def close(self) -> None:
        """Ends what is under way. Idempotent."""


class KeyFile:
    """Keys from a file."""

    def __init__(self, settings: Jwt) -> None:
        """Raises: BadFile."""
        self._keys = Reloaded(settings.jwks_file, lambda content: read_keys(content, settings.algorithms))

    async def keys(self, key_id: str) -> IssuerKeys | None:
        """As KeySource."""
        return self._keys.current()

    async def close(self) -> None:
        """As KeySource."""


class KeyUrl:
    """Keys from the issuer itself, by one request at a time.

    Old ones are used while new ones are fetched, and for as long as the issuer does not answer: a call whose key is
    here never waits. A call whose key is not here waits for one fetch, and starts none soon after another.
    """

    def __init__(self, settings: Jwt, http: KeysHttp, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        self._keys: IssuerKeys | None = None
        self._fetched_at_s = 0.0
        self._next_at_s = 0.0
        self._fetching: asyncio.Task[None] | None = None

    async def keys(self, key_id: str) -> IssuerKeys | None:
        """As KeySource. Cancel: safe, the fetch goes on."""
        if self._keys is None or not self._keys.has(key_id):
            fetching = self._fetching or self._start()
            if fetching is not None:
                await asyncio.shield(fetching)
        elif self._clock.now_s() - self._fetched_at_s >= self._settings.keys_cache_s:
            self._start()
        return self._keys

    async def close(self) -> None:
        """As KeySource."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _start(self) -> "asyncio.Task[None] | None":
        """A fetch, unless one is under way or began just now."""
        now_s = self._clock.now_s()
        if self._fetching is not None or now_s < self._next_at_s:
            return None
        self._next_at_s = now_s + MIN_FETCH_INTERVAL_S
        self._fetching = asyncio.create_task(self._fetch(), name="fetch an issuer's keys")
        return self._fetching

    async def _fetch(self) -> None:
        limit_s = self._settings.keys_timeout_s
        try:
            reply = await self._http.get(
                self._settings.jwks_url,
                [("Accept", "application/json")],
                connect_timeout_s=limit_s,
                timeout_s=limit_s,
            )
            self._keys = read_keys(reply.body, self._settings.algorithms)
            self._fetched_at_s = self._clock.now_s()
        except (UpstreamFailure, Unreadable) as error:
            # Of a refusal the status alone: the issuer's words are another's.
            status = error.words.status if isinstance(error, UpstreamFailure) and error.words is not None else None
            why = f"it answered {status}" if status is not None else getattr(error, "text", str(error))
            _log.warning("the issuer's keys were not fetched", extra={"why": why, "has_keys": self._keys is not None})
        finally:
            self._fetching = None

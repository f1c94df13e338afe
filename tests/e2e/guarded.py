"""A server whose callers must authenticate, and clients that do."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from opentelemetry.sdk.trace import SpanProcessor

import warmline
from callers.kit import tokens_toml
from e2e.line import settings_for
from warmline_server.app import App
from warmline_server.settings import Auth, TenantPolicy
from warmline_simulator import Script, Simulator

TOKENS = {"a": "token-of-a", "b": "token-of-b"}


class _Authorized:
    """A stub whose calls show a token."""

    def __init__(self, stub: Any, token: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(self._stub, name), metadata=self._metadata)


class TenantClient(warmline.Client):
    """A client whose stubs show its token too."""

    def __init__(self, target: str, token: str) -> None:
        super().__init__(target, token=token, retry=warmline.CallRetry(max_tries=1))
        self._token = token

    @property
    def sessions(self) -> Any:
        return _Authorized(super().sessions, self._token)

    @property
    def turns(self) -> Any:
        return _Authorized(super().turns, self._token)

    @property
    def traces(self) -> Any:
        return _Authorized(super().traces, self._token)


@dataclass(frozen=True, slots=True)
class Guarded:
    """The simulator and the server before it. `client` makes clients of it."""

    sim: Simulator
    app: App

    def client(self, token: str | None = None, *, tls: bool | warmline.Tls = False) -> warmline.Client:
        """A client that shows this token and certificate, and sends nothing twice; enter it."""
        return warmline.Client(self.app.address, token=token, tls=tls, retry=warmline.CallRetry(max_tries=1))

    def of(self, tenant: str) -> TenantClient:
        """A client of a tenant of TOKENS."""
        return TenantClient(self.app.address, TOKENS[tenant])


def with_tokens(folder: Path, *, tenants: Mapping[str, TenantPolicy] | None = None, **auth: Any) -> Auth:
    """Settings that take TOKENS, from a file in `folder`."""
    path = folder / "tokens.toml"
    path.write_text(tokens_toml(**TOKENS))
    return Auth(tokens_file=str(path), tenants=dict(tenants or {}), **auth)


@asynccontextmanager
async def guarded(
    auth: Auth,
    script: Script | None = None,
    *,
    upstreams: tuple[str, ...] = (),
    limits: Mapping[str, Any] | None = None,
    profile: Mapping[str, Any] | None = None,
    span_processors: Sequence[SpanProcessor] = (),
    **settings: Any,
) -> AsyncIterator[Guarded]:
    """Opens both.

    Args: `upstreams`: names of further upstreams, all of them the simulator; `settings`: fields of the settings.
    """
    async with Simulator(script) as sim:
        made = settings_for(sim.base_url, limits=limits, profile=profile)
        profiles = dict.fromkeys(("simulator", *upstreams), made.upstreams["simulator"])
        made = msgspec.structs.replace(made, auth=auth, upstreams=profiles, **settings)
        async with App(made, span_processors=span_processors) as app:
            yield Guarded(sim, app)

"""The interceptor that knows who calls, before a handler that would do anything for anybody."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from callers.kit import tokens_toml
from e2e.kit import read_refusal
from manual_clock import ManualClock
from warmline_server.callers.authenticator import Authenticator
from warmline_server.rpc.callers import LOG_INTERVAL_S, CallerInterceptor, tenant_of
from warmline_server.settings import Auth

TENANTS = [f"tenant-{number}" for number in range(50)]


@dataclass
class Service:
    """A service of two methods; `read` counts requests that were read, `tenants` what their handlers were told."""

    read: int = 0
    tenants: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    clock: ManualClock = field(default_factory=ManualClock)
    channel: Any = None

    def deserialize(self, message: bytes) -> bytes:
        self.read += 1
        return message

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.tenants.append((request.decode(), tenant_of(context)))
        await asyncio.sleep(0)
        self.tenants.append((request.decode(), tenant_of(context)))
        return b""

    async def stream(self, request: bytes, context: Any) -> None:
        await self.unary(request, context)
        await context.write(b"")

    async def ask(self, method: str, request: bytes, *metadata: tuple[str, str]) -> None:
        if method == "Stream":
            async for _ in self.channel.unary_stream(f"/s.S/{method}")(request, metadata=metadata):
                pass
        else:
            await self.channel.unary_unary(f"/s.S/{method}")(request, metadata=metadata)


@asynccontextmanager
async def served(authenticator: Authenticator | None) -> AsyncIterator[Service]:
    service = Service()
    interceptor = CallerInterceptor(authenticator, clock=service.clock, refused=service.refused.append)
    server = grpc.aio.server(interceptors=[interceptor])
    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(service.unary, service.deserialize),
        "Stream": grpc.unary_stream_rpc_method_handler(service.stream, service.deserialize),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s.S", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as service.channel:
        yield service
    await server.stop(None)


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    path = tmp_path / "tokens.toml"
    path.write_text(tokens_toml(**{tenant: f"token-of-{tenant}" for tenant in TENANTS}))
    return Authenticator(Auth(tokens_file=str(path)), http=None, clock=ManualClock())


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


@pytest.mark.parametrize("method", ["Unary", "Stream"])
async def test_each_of_many_calls_at_once_has_its_own_tenant(authenticator: Authenticator, method: str) -> None:
    async with served(authenticator) as service:
        await asyncio.gather(
            *(service.ask(method, tenant.encode(), bearer(f"token-of-{tenant}")) for tenant in TENANTS * 4)
        )

    assert len(service.tenants) == 2 * 4 * len(TENANTS)
    assert all(asked == told for asked, told in service.tenants)


@pytest.mark.parametrize("method", ["Unary", "Stream"])
@pytest.mark.parametrize(
    "metadata", [[], [bearer("wrong")], [("authorization", "Basic x")]], ids=["none", "bad", "other"]
)
async def test_nothing_is_read_of_a_caller_that_is_not_known(
    authenticator: Authenticator, method: str, metadata: list[tuple[str, str]]
) -> None:
    async with served(authenticator) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.ask(method, b"x" * 3_000_000, *metadata)

    told = read_refusal(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert told.text == "it is not known who calls: a valid token or certificate is missing"
    assert (told.retry_after_s, told.fields, dict(told.ids)) == (None, (), {})
    assert service.tenants == []
    assert service.refused == ["UNAUTHENTICATED"]
    assert service.read == 0


async def test_all_are_one_tenant_where_nobody_authenticates() -> None:
    async with served(None) as service:
        await service.ask("Unary", b"1")
        await service.ask("Stream", b"1", bearer("whatever"))

    assert {told for _, told in service.tenants} == {""}


async def test_handler_that_nobody_has_authenticated_fails() -> None:
    with pytest.raises(LookupError):
        await asyncio.create_task(Service().unary(b"", None))


async def test_unknown_method_is_unknown_to_strangers_too(authenticator: Authenticator) -> None:
    async with served(authenticator) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.ask("Other", b"")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_fault_while_asking_lets_nobody_in_and_quotes_nothing(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(metadata: object) -> None:
        raise ValueError("CANARY")

    monkeypatch.setattr(authenticator, "by_token", broken)
    async with served(authenticator) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.ask("Unary", b"", bearer("token-of-tenant-1"))

    assert read_refusal(caught.value).reason == "INTERNAL"
    assert service.tenants == []
    assert "CANARY" not in str([vars(record) for record in caplog.records]) + str(caught.value)
    assert "ValueError" in str([vars(record) for record in caplog.records]), "what kind of fault it was is told"


async def test_guessing_does_not_fill_the_log(authenticator: Authenticator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with served(authenticator) as service:
        for wait_s in (0.0,) * 20 + (LOG_INTERVAL_S,):
            await service.clock.advance(wait_s)
            with pytest.raises(grpc.aio.AioRpcError):
                await service.ask("Unary", b"", bearer("guess"))

    lines = [vars(record) for record in caplog.records]
    assert [(line["why"], line["left_out"]) for line in lines] == [
        ("shows no token that is known", 0),
        ("shows no token that is known", 19),
    ]

from collections.abc import AsyncIterator

import pytest

import warmline
from client.fake_server import FakeServer


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[warmline.Client]:
    async with warmline.Client(server.target) as opened:
        yield opened


@pytest.fixture
def session(client: warmline.Client) -> warmline.Session:
    return client.session("session-1", start="lazy", model="small")

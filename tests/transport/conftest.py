"""What the HTTP tests share."""

from collections.abc import AsyncIterator

import pytest

from manual_clock import ManualClock
from transport.http_kit import LIMITS, RawServer, raw_server, soon
from warmline_server.transport.http import HttpTransport


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(unix_ns=1_704_067_200_000_000_000)  # 1 January 2024


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as served:
        yield served


@pytest.fixture
async def http(clock: ManualClock) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(clock, proxy=None, limits=LIMITS)
    yield transport
    await soon(transport.close())

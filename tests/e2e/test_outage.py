"""Upstreams that break while they are being connected to, for many sessions at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from e2e.line import open_line, session_config, settings_for
from manual_clock import ManualClock
from warmline_server.app import App
from warmline_server.core.config import SessionConfig
from warmline_simulator import Connection, Script

SESSIONS = 5_000
CAP = 16
# Of the simulator's answer to an upgrade, all but the end of its last line.
ANSWER_BYTES = 160


async def test_upgrade_reset_at_each_byte_of_its_answer_leads_to_http() -> None:
    script = Script(connections=[Connection(reset_after_bytes=n) for n in range(ANSWER_BYTES)])
    config = session_config(warm_up="none", retries=0)
    async with open_line(script) as line:
        for n in range(ANSWER_BYTES):
            async with line.session(f"s-{n}", config=config) as session, session.turn("hello") as turn:
                result = await turn.result()
            assert (n, result.transport, result.fell_back) == (n, "HTTP", "retries_exhausted")

        assert len(line.sim.handshakes) == ANSWER_BYTES


class Silent:
    """An upstream that accepts connections and never answers."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0
        self.total = 0
        self.changed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.total += 1
        self.most = max(self.most, self.open)
        async with self.changed:
            self.changed.notify_all()
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def wait_for_total(self, total: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: self.total >= total)


@asynccontextmanager
async def silent_upstream() -> AsyncIterator[tuple[Silent, str]]:
    silent = Silent()
    server = await asyncio.start_server(silent.serve, "127.0.0.1", 0, backlog=1024)
    async with server:
        yield silent, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_sessions_behind_an_outage_never_have_more_than_the_cap_of_connects_in_flight() -> None:
    clock = ManualClock()
    async with silent_upstream() as (silent, base_url):
        settings = settings_for(base_url, profile={"max_connects_in_flight": CAP, "connect_timeout_s": 15.0})
        async with App(settings, clock=clock) as app:
            for n in range(SESSIONS):
                app.registry.create("", f"s-{n}", SessionConfig())
            for rounds in range(1, 5):
                await silent.wait_for_total(CAP * rounds)
                await clock.advance(15.1)

    # The far end may hear of a new connection before it hears of the end of the one that it replaces.
    assert silent.most <= 2 * CAP
    assert silent.total < SESSIONS

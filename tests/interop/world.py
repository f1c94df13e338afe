"""The other ends of a runner: the real server with the simulator behind it, or the fake server; how it acts on them."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from interop.fake_server import FakeServer
from interop.relay import Relay, open_relay
from interop.scenario import Scenario
from warmline_server.app import App
from warmline_server.settings import Settings
from warmline_simulator import Simulator

# Longest wait for what a scenario expects to happen; only reached when it fails.
PATIENCE_S = 20.0


class RealWorld:
    """The real server in this process, on real sockets, with the simulator as its one upstream."""

    def __init__(self, scenario: Scenario) -> None:
        self.sim = Simulator(scenario.script, **scenario.simulator)
        self._scenario = scenario
        self._app: App | None = None
        self._drains: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "RealWorld":
        await self.sim.start()
        await self._start("127.0.0.1:0")
        return self

    async def __aexit__(self, *_: object) -> None:
        for drain in self._drains:
            drain.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        await self.app.__aexit__(None, None, None)
        await self.sim.stop()

    @property
    def app(self) -> App:
        """The server as it is now."""
        assert self._app is not None, "the world is open"
        return self._app

    @property
    def address(self) -> str:
        """Where the server listens."""
        return self.app.address

    def now_s(self) -> float:
        """The time on the clock of `aborted_at_s`."""
        return self.sim.state.clock.now_s()

    @property
    def aborted_at_s(self) -> list[float]:
        """When each call given up by the caller was noticed to be so, oldest first."""
        return sorted(r.aborted_at_s for r in self.sim.requests if r.aborted_at_s is not None)

    async def wait_calls_ended(self) -> None:
        """Waits until no call runs at the server. Raises: TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            await self.app.registry.wait_idle()

    async def act(self, verb: str, words: list[str], query: Mapping[str, str]) -> Mapping[str, Any]:
        """Does what the control endpoint was asked for. Raises: LookupError, TimeoutError."""
        match verb, words:
            case "release", [gate]:
                self.sim.release(gate)
            case "restart-server", []:
                await self._restart()
            case "drain", []:
                await self._drain(float(query.get("grace_s", "30")))
            case "counters", []:
                return dataclasses.asdict(self.sim.counters)
            case "wait", [what, value]:
                await self._wait(what, value)
            case _:
                raise LookupError(f"no control {verb} {words}")
        return {}

    async def _wait(self, what: str, value: str) -> None:
        match what:
            case "gate":
                await self.sim.wait_for_gate(value, timeout_s=PATIENCE_S)
            case "handshakes":
                await self.sim.wait_for_answered_handshakes(int(value), timeout_s=PATIENCE_S)
            case "requests":
                await self.sim.wait_for_requests(int(value), timeout_s=PATIENCE_S)
            case "aborts":
                await self.sim.wait_for_aborts(int(value), timeout_s=PATIENCE_S)
            case _:
                raise LookupError(f"no wait for {what}")

    async def _start(self, listen: str) -> None:
        self._app = await App(settings_for(self._scenario, self.sim.base_url, listen)).__aenter__()

    async def _restart(self) -> None:
        address = self.address
        await self.app.__aexit__(None, None, None)
        await self._start(address)

    async def _drain(self, grace_s: float) -> None:
        """Returns when new calls are refused; running ones go on until they end or the grace is over."""
        self._drains.append(asyncio.create_task(self.app.drain(grace_s)))
        async with asyncio.timeout(PATIENCE_S):
            # Asked between one step of the loop and the next: the server tells nobody of this moment.
            while not self.app.registry.draining:  # noqa: ASYNC110
                await asyncio.sleep(0)


class FakeWorld:
    """The fake server, directly or behind a relay: for a runner the same as `RealWorld`."""

    def __init__(self, server: FakeServer, relay: Relay | None = None) -> None:
        self.server = server
        self._relay = relay

    @property
    def address(self) -> str:
        return self.server.address if self._relay is None else self._relay.address

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def aborted_at_s(self) -> list[float]:
        return self.server.aborted_at_s

    async def act(self, verb: str, words: list[str], query: Mapping[str, str]) -> Mapping[str, Any]:
        match verb, words:
            case "counters", []:
                return {"calls": dict(self.server.calls), "aborts": len(self.server.aborted_at_s)}
            case "mute", [] if self._relay is not None:
                self._relay.mute()
            case "wait", ["aborts", count]:
                async with asyncio.timeout(PATIENCE_S):
                    await self.server.wait_aborts(int(count))
            case _:
                raise LookupError(f"no control {verb} {words}")
        return {}


def settings_for(scenario: Scenario, base_url: str, listen: str) -> Settings:
    """Settings of the server; what would make a scenario wait is short or off."""
    chosen = {"dialect": "codex", "rearm_jitter_s": 0.0, "fallback_after_s": 0.0, "circuit_open_s": 0.0}
    profile = {"base_url": base_url, **chosen, **scenario.server.profile}
    table = {
        "listen": listen,
        "default_upstream": "simulator",
        "limits": scenario.server.limits,
        "upstreams": {"simulator": profile, **scenario.server.upstreams},
    }
    return msgspec.convert(table, Settings)


@asynccontextmanager
async def open_world(scenario: Scenario, tls_folder: Any) -> AsyncIterator[RealWorld | FakeWorld]:
    """Opens what the scenario plays against, and closes it."""
    async with AsyncExitStack() as stack:
        if scenario.peer == "server":
            yield await stack.enter_async_context(RealWorld(scenario))
            return
        tls = tls_folder if scenario.peer in ("fake_tls", "fake_mtls") else None
        server = await stack.enter_async_context(FakeServer(tls, asks_for_certificate=scenario.peer == "fake_mtls"))
        relay = await stack.enter_async_context(open_relay(server.address)) if scenario.peer == "fake_relay" else None
        yield FakeWorld(server, relay)

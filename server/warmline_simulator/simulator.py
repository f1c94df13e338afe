"""The simulator itself: starts and stops the port, and is what tests hold in their hands."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Self, Unpack

from warmline_simulator import routes, upgrade
from warmline_simulator.clock import Clock, LoopClock
from warmline_simulator.http_side import HttpSide
from warmline_simulator.records import Counters, HandshakeRecord, RequestRecord, SteerRecord
from warmline_simulator.script import Script
from warmline_simulator.settings import Settings, SettingsArguments
from warmline_simulator.state import State
from warmline_simulator.websocket import WebSocketSide
from warmline_simulator.wire import Side, Wire


class SimulatorFailedError(AssertionError):
    """A run did not go as scripted: a step was never asked for, or something came that must not."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("the simulator's run failed:\n" + "\n".join(f"- {problem}" for problem in problems))


class Simulator:
    """A Responses upstream on one port. Use it with `async with`; see docs/simulator.md.

    Args:
        script: what to do; None leaves everything to the built-in model.
        tls: serve HTTPS and WSS with this context. None: plain.
        clock: None: the event loop's. See `ManualClock`.
        host, port: where to listen; port 0 takes a free one.
        expect_violations: do not fail the run for broken request invariants; they stay in `violations`.
        settings: the switches of `Settings`.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        expect_violations: bool = False,
        **settings: Unpack[SettingsArguments],
    ) -> None:
        self.expect_violations = expect_violations
        self._script = script if script is not None else Script()
        self._settings = Settings(**settings)
        self._tls = tls
        self._clock = clock
        self._host, self._port = host, port
        self._wires: set[Wire] = set()
        self._server: asyncio.Server | None = None
        self._state: State | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.stop()
        if kind is None:
            self.assert_exhausted()

    async def start(self) -> None:
        """Listen. OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        clock = self._clock if self._clock is not None else LoopClock()
        self._state = State(self._settings, self._script, clock)
        self._server = await loop.create_server(self._accept, self._host, self._port, ssl=self._tls, backlog=4096)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end every connection; safe to repeat. Cancel: may leave connections open."""
        if self._server is None:
            return
        self._server.close()
        wires = list(self._wires)
        for wire in wires:
            wire.drop()
        await asyncio.gather(*(wire.wait_until_lost() for wire in wires))
        await self._server.wait_closed()
        self._server = None

    def _accept(self) -> Wire:
        return Wire(self.state, self._first_side, on_made=self._wires.add, on_lost=self._wires.discard)

    def _first_side(self, wire: Wire) -> Side:
        state = self.state
        return HttpSide(
            wire,
            state,
            serve=lambda side, request: routes.serve(state, side, request),
            upgrade=lambda side, request: upgrade.take_upgrade(state, side, request),
        )

    @property
    def state(self) -> State:
        """Everything inside, for tools that extend the simulator. RuntimeError before the start."""
        if self._state is None:
            raise RuntimeError("use the simulator: it was never started — expected `async with Simulator()`")
        return self._state

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def base_url(self) -> str:
        """Base URL for clients, with `/v1` and without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}/v1"

    @property
    def handshakes(self) -> list[HandshakeRecord]:
        """Every upgrade, in order of arrival."""
        return self.state.handshakes

    @property
    def requests(self) -> list[RequestRecord]:
        """Every create frame and POST responses, in order of arrival over both transports."""
        return self.state.requests

    @property
    def unary_requests(self) -> list[RequestRecord]:
        """Every other HTTP request, in order of arrival."""
        return self.state.unary_requests

    @property
    def steers(self) -> list[SteerRecord]:
        """Every steer frame, in order of arrival."""
        return self.state.steers

    @property
    def counters(self) -> Counters:
        """Totals."""
        return self.state.counters

    @property
    def violations(self) -> list[str]:
        """Broken request invariants, one line each."""
        return self.state.violations

    @property
    def refuse_upgrades(self) -> int | None:
        """Status for unscripted upgrades; None accepts them. May be changed at any time."""
        return self.state.refuse_upgrades

    @refuse_upgrades.setter
    def refuse_upgrades(self, status: int | None) -> None:
        self.state.refuse_upgrades = status

    def posts(self) -> list[RequestRecord]:
        """The requests that came over HTTP."""
        return [record for record in self.requests if record.transport == "http"]

    def creates(self, connection: int | None = None) -> list[RequestRecord]:
        """The requests that came as frames, optionally only those of one handshake's connection."""
        frames = [record for record in self.requests if record.transport == "ws"]
        return [record for record in frames if connection is None or record.connection == connection]

    def release(self, gate: str) -> None:
        """Open a gate for good; also before anything reached it."""
        self.state.stage.gate(gate).opened.set()

    async def wait_for_gate(self, gate: str, n: int = 1, *, timeout_s: float = 5.0) -> None:
        """Return once the gate was reached `n` times. Raises WaitTimeoutError. Cancel: safe."""
        state = self.state.stage.gate(gate)
        await self._wait(lambda: state.reached >= n, timeout_s, f"gate {gate!r} to be reached {n} times")

    async def wait_for_handshakes(self, n: int, *, timeout_s: float = 5.0) -> list[HandshakeRecord]:
        """Return once `n` upgrades arrived, answered or not. Raises WaitTimeoutError. Cancel: safe."""
        await self._wait(lambda: self.counters.handshakes >= n, timeout_s, f"{n} handshakes")
        return self.handshakes

    async def wait_for_answered_handshakes(self, n: int, *, timeout_s: float = 5.0) -> list[HandshakeRecord]:
        """Return once `n` upgrades were answered with any status. Raises WaitTimeoutError. Cancel: safe."""
        await self._wait(lambda: self.counters.handshakes_answered >= n, timeout_s, f"{n} answered handshakes")
        return self.handshakes

    async def wait_for_requests(self, n: int, *, timeout_s: float = 5.0) -> list[RequestRecord]:
        """Return once `n` requests arrived over both transports. Raises WaitTimeoutError. Cancel: safe."""
        await self._wait(lambda: self.state.requests_seen >= n, timeout_s, f"{n} requests")
        return self.requests

    async def wait_for_idle(self, *, timeout_s: float = 5.0) -> None:
        """Return once no answer is in flight. Raises WaitTimeoutError. Cancel: safe."""
        await self._wait(lambda: self.counters.responses_running == 0, timeout_s, "no answer in flight")

    async def wait_for_connections_closed(self, n: int, *, timeout_s: float = 5.0) -> None:
        """Return once `n` WebSocket connections were closed. Raises WaitTimeoutError. Cancel: safe."""

        def closed() -> bool:
            return self.counters.upgrades_accepted - self.counters.websockets_open >= n

        await self._wait(closed, timeout_s, f"{n} closed WebSocket connections")

    async def wait_for_aborts(self, n: int, *, timeout_s: float = 5.0) -> None:
        """Return once `n` answers were given up because the client had gone. Raises WaitTimeoutError. Cancel: safe."""
        await self._wait(lambda: self.counters.aborted_turns >= n, timeout_s, f"{n} aborted answers")

    async def _wait(self, condition: Any, timeout_s: float, wanted: str) -> None:
        await self.state.watch.until(condition, timeout_s=timeout_s, wanted=wanted, seen=self.describe)

    def describe(self) -> str:
        """What was seen so far, on one line."""
        handshakes = [record.status for record in self.handshakes]
        requests = [f"{record.transport}:{record.outcome}" for record in self.requests]
        return (
            f"handshakes {handshakes}, requests {requests}, in flight {self.counters.responses_running}, "
            f"websockets open {self.counters.websockets_open}, aborted {self.counters.aborted_turns}"
        )

    def _websocket(self, connection: int) -> WebSocketSide:
        """The open WebSocket of that handshake. LookupError when it is closed or never was."""
        for wire in self._wires:
            if isinstance(wire.side, WebSocketSide) and wire.side.record.index == connection:
                return wire.side
        raise LookupError(f"websocket of handshake {connection}: not open — seen {self.describe()}")

    def drop_connection(self, connection: int) -> None:
        """Reset the WebSocket of that handshake. LookupError when it is not open."""
        self._websocket(connection).wire.drop()

    def close_connection(self, connection: int, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame on the WebSocket of that handshake. LookupError when it is not open."""
        self._websocket(connection).close(code, reason)

    def send_event(self, connection: int, event: Mapping[str, Any]) -> None:
        """Send an event nobody asked for on the WebSocket of that handshake. LookupError when it is not open."""
        side = self._websocket(connection)
        side.put_event(event)
        side.wire.flush()

    def problems(self) -> list[str]:
        """Everything that makes the run a failure so far, one line each; empty when it is clean."""
        state = self.state
        found = [f"never asked for: {step}" for step in state.stage.unasked()]
        found += [f"not in the script: {request}" for request in state.unscripted]
        found += [f"simulator fault: {fault!r}" for fault in state.faults]
        if not self.expect_violations:
            found += [f"request invariant broken: {violation}" for violation in state.violations]
        return found

    def assert_exhausted(self) -> None:
        """Fail unless every scripted step was asked for, nothing unexpected came, and the invariants held.

        Raises:
            SimulatorFailedError: names every problem. A clean exit of `async with` calls this too.
        """
        found = self.problems()
        if found:
            raise SimulatorFailedError(found)

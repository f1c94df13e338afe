"""A server that is told to stop: it says so, takes nothing new, lets calls finish, cuts the rest, and ends well."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import warmline
from e2e.kit import Refusal, config, refused, turn_request
from e2e.line import open_line, settings_for
from e2e.server_process import ServerProcess, serving
from warmline.v1 import session_service_pb2 as sessions
from warmline.v1 import turn_service_pb2 as turns
from warmline_server.app import App
from warmline_server.settings import Drain
from warmline_simulator import Reply, Script, Simulator

CODE = grpc.StatusCode
HealthStatus = health_pb2.HealthCheckResponse


@asynccontextmanager
async def busy_server(**settings: str) -> AsyncIterator[tuple[Simulator, ServerProcess, warmline.Client, Any]]:
    """A server process with one call that waits at the simulator's gate "g"."""
    async with (
        Simulator(Script(creates=[Reply.model(gate="g")])) as sim,
        serving(sim.base_url, **settings) as server,
        warmline.Client(server.address) as client,
    ):
        call = client.turns.StreamTurn(turn_request("one", session_config=config(), turn_id="t"))
        await sim.wait_for_gate("g")
        yield sim, server, client, call


async def health(address: str) -> list[int]:
    """What the server says of itself, of its readiness and of its liveness."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        names = ("", "readiness", "liveness")
        return [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]


async def test_stop_lets_the_running_call_finish_and_takes_no_other() -> None:
    async with busy_server() as (sim, server, client, call):
        before = await health(server.address)
        server.signal(signal.SIGTERM)
        await server.logged("draining")
        during = await health(server.address)
        told = [
            await refused(client.turns.StreamTurn(turn_request("one", lane="other"))),
            await refused(client.turns.StreamTurn(turn_request("two", session_config=config()))),
            await refused(client.sessions.CreateSession(sessions.CreateSessionRequest(session_id="two"))),
            await refused(client.sessions.Preconnect(sessions.PreconnectRequest(session_id="one"))),
        ]
        found = await client.sessions.GetSession(sessions.GetSessionRequest(session_id="one"))
        sim.release("g")
        events = [event async for message in call for event in message.events]
        status = await server.ended()

    assert before == [HealthStatus.SERVING] * 3
    assert during == [HealthStatus.NOT_SERVING, HealthStatus.NOT_SERVING, HealthStatus.SERVING]
    for refusal in told:
        assert (refusal.code, refusal.reason) == (CODE.UNAVAILABLE, "SERVER_DRAINING")
        assert refusal.retry_after_s is not None
    assert found.session.state == sessions.SESSION_STATE_DRAINING
    assert events[-1].HasField("completed")
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert await call.code() is CODE.OK
    assert status == 0
    assert len(sim.requests) == 1


def assert_cut(told: Refusal) -> None:
    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "TURN_DRAINED")
    assert told.retry_after_s is None, "what was cut may have had its effect"
    assert (told.ids["turn_id"], told.ids["attempts"]) == ("t", "1")


async def test_call_that_outlasts_the_grace_is_cut_and_the_server_ends_well() -> None:
    async with busy_server(DRAIN__GRACE_S="0.3") as (sim, server, _, call):
        server.signal(signal.SIGTERM)
        told = await refused(call)
        await sim.wait_for_aborts(1)
        await server.logged("cutting running calls")
        status = await server.ended()

    assert_cut(told)
    assert status == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_second_signal_ends_the_wait(second: signal.Signals) -> None:
    async with busy_server(DRAIN__GRACE_S="3600") as (sim, server, _, call):
        server.signal(signal.SIGTERM)
        await server.logged("draining")
        server.signal(second)
        told = await refused(call)
        await sim.wait_for_aborts(1)
        status = await server.ended()

    assert_cut(told)
    assert status == 0


async def test_server_with_open_watches_ends() -> None:
    async with (
        Simulator() as sim,
        serving(sim.base_url) as server,
        warmline.Client(server.address) as client,
        client.session("one", config()) as session,
        session.watch() as states,
    ):
        await anext(states)
        server.signal(signal.SIGTERM)
        draining = await anext(states)
        status = await server.ended()

    assert draining.state == sessions.SESSION_STATE_DRAINING
    assert status == 0


async def _drain(app: App, hurry: asyncio.Event, grace_s: float) -> "asyncio.Task[None]":
    """Starts a drain; returns when the server says that it is not ready."""
    draining = asyncio.create_task(app.drain(grace_s, hurry=hurry))
    async with grpc.aio.insecure_channel(app.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="readiness"))
        while (await watch.read()).status != HealthStatus.NOT_SERVING:
            pass
        watch.cancel()
    return draining


async def test_server_takes_calls_until_those_who_route_have_noticed() -> None:
    hurry = asyncio.Event()
    async with Simulator() as sim:
        settings = msgspec.structs.replace(settings_for(sim.base_url), drain=Drain(propagation_s=3600.0))
        async with App(settings) as app, warmline.Client(app.address) as client:
            draining = await _drain(app, hurry, 60.0)
            async with client.session("one", config()).turn("while it propagates") as turn:
                served = await turn.result()
            hurry.set()
            await draining
            told = await refused(client.turns.StreamTurn(turn_request("one")))

    assert served.ending == "completed"
    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "SERVER_DRAINING")


async def test_calls_that_wait_for_a_lane_are_drained_too() -> None:
    """Both are let through in their order, as they were admitted before."""
    script = Script(creates=[Reply.model(gate="g"), Reply.model()])
    async with open_line(script) as line:
        running = line.client.turns.StreamTurn(turn_request("one", session_config=config()))
        await line.sim.wait_for_gate("g")
        waiting = line.client.turns.StreamTurn(turn_request("one", on_busy=turns.BUSY_MODE_WAIT))
        await line.until_calls(line.client.session("one", start="attach"), 2)
        draining = await _drain(line.app, asyncio.Event(), 60.0)
        line.sim.release("g")
        endings = [[event async for message in call for event in message.events][-1] for call in (running, waiting)]
        await draining

    assert all(ending.HasField("completed") for ending in endings)


async def test_calls_that_wait_are_cut_with_those_that_run() -> None:
    async with open_line(Script(creates=[Reply.model(gate="g")])) as line:
        running = line.client.turns.StreamTurn(turn_request("one", session_config=config(), turn_id="t"))
        await line.sim.wait_for_gate("g")
        waiting = line.client.turns.StreamTurn(turn_request("one", on_busy=turns.BUSY_MODE_WAIT, turn_id="w"))
        await line.until_calls(line.client.session("one", start="attach"), 2)
        await line.app.drain(0.0)
        told = [await refused(call) for call in (running, waiting)]
        await line.sim.wait_for_aborts(1)

    assert [(refusal.reason, refusal.retry_after_s) for refusal in told] == [("TURN_DRAINED", None)] * 2
    assert [refusal.ids.get("attempts") for refusal in told] == ["1", "0"]


async def test_drain_closes_the_slots_that_wait_for_calls() -> None:
    async with open_line() as line, line.session() as session:
        await session.preconnect(wait=True)
        draining = asyncio.ensure_future(line.app.drain(5.0))
        await line.sim.wait_for_connections_closed(1)
        await draining

        told = await session.get()

    assert told.slot.state == sessions.SLOT_STATE_IDLE
    assert told.state == sessions.SESSION_STATE_DRAINING
    assert len(line.sim.handshakes) == 1

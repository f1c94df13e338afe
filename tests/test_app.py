"""The composition root: what a server serves, what it refuses to share, and that it leaves nothing behind."""

import asyncio
import gc
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import warmline
from e2e.kit import config, refused, turn_request
from e2e.line import settings_for
from warmline.v1 import session_service_pb2 as sessions
from warmline_server.app import App, ListenError
from warmline_server.settings import Settings, SettingsError
from warmline_simulator import Reply, Script, Simulator

NOWHERE = "http://127.0.0.1:9/v1"
SERVING = health_pb2.HealthCheckResponse.SERVING


def settings(**fields: Any) -> Settings:
    """A server's settings whose upstream nobody asks."""
    return msgspec.structs.replace(settings_for(NOWHERE), **fields)


async def services(address: str) -> list[str]:
    """The services that reflection lists."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        async for answer in stub.ServerReflectionInfo(asked):
            return [service.name for service in answer.list_services_response.service]
    raise AssertionError("reflection did not answer")


async def test_open_server_is_well_ready_and_alive() -> None:
    async with App(settings()) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "readiness", "liveness"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
        unknown = await refused(stub.Check(health_pb2.HealthCheckRequest(service="other")))

    assert unknown.code is grpc.StatusCode.NOT_FOUND


async def test_address_has_the_port_that_was_free() -> None:
    async with App(settings()) as one, App(settings()) as two:
        assert one.address.startswith("127.0.0.1:")
        assert one.address != two.address
        assert not one.address.endswith(":0")


async def test_server_listens_on_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'warmline.sock'}"
    async with App(settings(listen=address)) as app, warmline.Client(app.address) as client:
        assert app.address == address
        assert [session async for session in client.list_sessions()] == []


async def test_reflection_lists_what_is_served_and_can_be_switched_off() -> None:
    async with App(settings()) as app:
        listed = await services(app.address)
    async with App(settings(reflection=False)) as app:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await services(app.address)

    ours = [f"warmline.v1.{name}Service" for name in ("Session", "Trace", "Turn")]
    assert sorted(listed) == sorted([*ours, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"])
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_channelz_is_on_a_port_of_its_own() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    asked = channelz_pb2.GetServersRequest()
    async with App(settings(admin_listen=admin)) as app:
        async with grpc.aio.insecure_channel(admin) as channel:
            assert len((await channelz_pb2_grpc.ChannelzStub(channel).GetServers(asked)).server) >= 1
        async with grpc.aio.insecure_channel(app.address) as channel:
            told = await refused(channelz_pb2_grpc.ChannelzStub(channel).GetServers(asked))

    assert told.code is grpc.StatusCode.UNIMPLEMENTED


async def test_port_in_use_is_refused_and_not_shared() -> None:
    async with App(settings()) as app:
        with pytest.raises(ListenError) as refusal:
            async with App(settings(listen=app.address)):
                pass
        async with warmline.Client(app.address) as client:
            assert [session async for session in client.list_sessions()] == []
        address = app.address

    assert f"cannot listen on {address}" in str(refusal.value)
    async with App(settings(listen=address)):
        pass


async def test_server_that_cannot_be_built_leaves_nothing_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        admin = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError):
            async with App(settings(admin_listen=admin)):
                pass
    with pytest.raises(SettingsError, match=r"upstreams\.simulator\.ca_bundle"):
        async with App(settings_for(NOWHERE, profile={"ca_bundle": "/none.pem"})):
            pass
    # What was built and not closed would complain when it is collected; warnings are errors here.
    gc.collect()


async def test_server_that_closes_ends_running_calls_and_their_upstream() -> None:
    async with (
        Simulator(Script(creates=[Reply.model(gate="g")])) as sim,
        App(settings_for(sim.base_url)) as app,
        warmline.Client(app.address) as client,
    ):
        call = client.turns.StreamTurn(turn_request("one", session_config=config()))
        await sim.wait_for_gate("g")
        await app.__aexit__(None, None, None)
        told = await refused(call)
        await sim.wait_for_aborts(1)

    assert told.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_burst_of_new_calls_is_not_cut() -> None:
    """With gRPC's own limits part of a burst is cancelled before anybody saw it."""
    calls = 3_000
    async with App(settings()) as app, warmline.Client(app.address) as client:
        await client.sessions.CreateSession(sessions.CreateSessionRequest(session_id="one", config=config()))
        asked = sessions.WatchSessionRequest(session_id="one")
        watches = [client.sessions.WatchSession(asked) for _ in range(calls)]
        first = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
        for watch in watches:
            watch.cancel()

    assert [state for state in first if isinstance(state, BaseException)] == []


async def test_metadata_beyond_the_limit_is_refused_and_below_it_taken() -> None:
    request = sessions.ListSessionsRequest()
    limits = msgspec.structs.replace(settings().limits, max_metadata_bytes=16 * 1024)
    async with App(settings(limits=limits)) as app, warmline.Client(app.address) as client:
        await client.sessions.ListSessions(request, metadata=(("x-filler", "x" * 12_000),))
        told = await refused(client.sessions.ListSessions(request, metadata=(("x-filler", "x" * 60_000),)))
        await client.sessions.ListSessions(request)

    assert told.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_server_that_knows_no_callers_loads_no_cryptography() -> None:
    program = "import sys, warmline_server.app; print(sorted({'jwt', 'cryptography', 'httpx'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"

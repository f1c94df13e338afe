"""What probes and proxies ask the server, while it serves and while it drains."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from e2e.line import admitted, open_line
from warmline_server.app import LIVENESS, READINESS, App
from warmline_simulator import Gate, Reply, Script, ev

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(app: App) -> dict[str, int]:
    """What each name answers."""
    async with grpc.aio.insecure_channel(app.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return {
            name: (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
            for name in ("", READINESS, LIVENESS)
        }


async def until_unready(app: App) -> None:
    """Watches the readiness, as clients that balance by themselves do."""
    async with grpc.aio.insecure_channel(app.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=READINESS))
        async with asyncio.timeout(5.0):
            async for answer in watch:
                if answer.status == NOT_SERVING:
                    return


async def test_a_server_that_drains_is_alive_and_not_ready() -> None:
    script = Script(creates=[Reply(events=[Gate("held"), *ev.text_response("done", response_id="resp-1")])])
    async with open_line(script) as line, line.session() as session:
        assert await health(line.app) == {"": SERVING, READINESS: SERVING, LIVENESS: SERVING}
        async with session.turn("hello") as turn:
            await admitted(turn)
            await line.sim.wait_for_gate("held")
            draining = asyncio.create_task(line.app.drain(5.0))
            await until_unready(line.app)
            assert await health(line.app) == {"": NOT_SERVING, READINESS: NOT_SERVING, LIVENESS: SERVING}
            line.sim.release("held")
            assert (await turn.result()).text == "done"
        await draining

"""Asks a server how it is, as probes do."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from warmline_server.app import LIVENESS, READINESS, App

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

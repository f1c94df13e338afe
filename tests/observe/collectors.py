"""Ends of an OTLP line, good and bad, on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Behaviour = Callable[[], Awaitable[grpc.StatusCode]]


async def accept() -> grpc.StatusCode:
    return grpc.StatusCode.OK


async def refuse() -> grpc.StatusCode:
    return grpc.StatusCode.PERMISSION_DENIED


async def turn_away() -> grpc.StatusCode:
    return grpc.StatusCode.UNAVAILABLE


async def hang() -> grpc.StatusCode:
    await asyncio.Event().wait()
    return grpc.StatusCode.OK


@dataclass
class Received:
    """What came over the wire."""

    spans: list[Span] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    resource: dict[str, str] = field(default_factory=dict)
    requests: int = 0


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received: Received, behaviour: Behaviour) -> None:
        self._received, self._behaviour = received, behaviour

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self._received.requests += 1
        code = await self._behaviour()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "no")
        for resource in request.resource_spans:
            pairs = resource.resource.attributes
            self._received.resource |= {pair.key: pair.value.string_value for pair in pairs}
            for scope in resource.scope_spans:
                self._received.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, received: Received, behaviour: Behaviour) -> None:
        self._received, self._behaviour = received, behaviour

    async def Export(
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        code = await self._behaviour()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "no")
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self._received.metrics |= {metric.name for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@asynccontextmanager
async def collector(behaviour: Behaviour = accept) -> AsyncIterator[tuple[str, Received]]:
    """A receiver. Gives its endpoint and what it received."""
    received, server = Received(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(received, behaviour), server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(received, behaviour), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"http://127.0.0.1:{port}", received
    await server.stop(None)


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """An endpoint where connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@asynccontextmanager
async def black_hole() -> AsyncIterator[str]:
    """An endpoint that takes connections and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"

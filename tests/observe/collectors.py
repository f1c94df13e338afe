"""Ends of an OTLP line, good and bad, on loopback. Each ends the exporters that were made while it was there."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

EXPORTERS = (OTLPSpanExporter, OTLPMetricExporter)
# Far more than the end of a thread takes.
ENDING_S = 10.0

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
    with _exporters_ended():
        yield f"http://127.0.0.1:{port}", received
    await server.stop(None)


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """An endpoint where connections are refused."""
    with socket.socket() as taken, _exporters_ended():
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@asynccontextmanager
async def black_hole() -> AsyncIterator[str]:
    """An endpoint that takes connections and never says a word."""
    with socket.socket() as silent, _exporters_ended():
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


@contextmanager
def _exporters_ended() -> Iterator[None]:
    """Ends the exporters that its body makes, and their threads.

    One that was given up tries on for half a minute: in later tests, and in the random numbers that those rely on.
    """
    made: list[Any] = []

    def noting(init: Callable[..., None]) -> Callable[..., None]:
        def noted(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            made.append(self)

        return noted

    before = threading.enumerate()
    with pytest.MonkeyPatch.context() as patch:
        for kind in EXPORTERS:
            patch.setattr(kind, "__init__", noting(kind.__init__))
        yield
    for exporter in made:
        exporter.shutdown()
    for thread in threading.enumerate():
        if thread not in before and thread.name.startswith("Otel"):
            thread.join(ENDING_S)
            assert not thread.is_alive(), f"{thread.name} does not end"

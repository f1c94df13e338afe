"""The SERVER span at each of an RPC's endings, on real channels, and the parts that others hang beneath it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from observe.spans import EndedSpans, attribute, provider_of
from warmline_server.rpc.tracing_interceptor import TracingInterceptor, current_rpc_trace_carrier

Context = grpc.aio.ServicerContext[bytes, bytes]
Behaviour = Callable[[bytes, Context], Awaitable[bytes | None]]

SERVICE = "warmline.probe.Probe"
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


@dataclass
class Probe:
    """A server whose two methods do what the test wants, and what telemetry saw of it."""

    channel: Any  # its stubs are typed by serializers, and these methods have none
    spans: EndedSpans
    reader: InMemoryMetricReader
    behaviour: Behaviour | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: bytes, context: Context) -> bytes | None:
        assert self.behaviour is not None
        return await self.behaviour(request, context)

    async def span(self) -> ReadableSpan:
        return (await self.spans.wait(1))[0]


def _handlers(probe: Probe) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Unary": grpc.unary_unary_rpc_method_handler(probe.serve),
            "Stream": grpc.unary_stream_rpc_method_handler(probe.serve),
        },
    )


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    spans, reader = EndedSpans(), InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    server = grpc.aio.server(interceptors=[TracingInterceptor(provider_of(spans), meters)])
    port = server.add_insecure_port("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        probe = Probe(channel, spans, reader)
        server.add_generic_rpc_handlers((_handlers(probe),))
        await server.start()
        yield probe
        await server.stop(None)
    meters.shutdown()


async def _call(
    probe: Probe, kind: str, *, timeout_s: float | None = None, metadata: Mapping[str, str] | None = None
) -> grpc.StatusCode:
    """Calls to the end. Returns: the status that the client saw."""
    pairs = tuple((metadata or {}).items())
    try:
        if kind == "Unary":
            await probe.channel.unary_unary(f"/{SERVICE}/Unary")(b"", timeout=timeout_s, metadata=pairs)
        else:
            async for _ in probe.channel.unary_stream(f"/{SERVICE}/Stream")(b"", timeout=timeout_s, metadata=pairs):
                pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def _answer(_request: bytes, context: Context) -> bytes | None:
    await asyncio.sleep(0)
    return b"done"


async def _abort(_request: bytes, context: Context) -> bytes | None:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")


async def _abort_internal(_request: bytes, context: Context) -> bytes | None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "away")


async def _raise(_request: bytes, _context: Context) -> bytes | None:
    raise ValueError("MARKER-in-exception")


def _waiter(probe: Probe) -> Behaviour:
    """Waits for ever, and says that it does."""

    async def wait(_request: bytes, _context: Context) -> bytes | None:
        probe.entered.set()
        await asyncio.Event().wait()
        return b""

    return wait


def _stuck_writer(probe: Probe) -> Behaviour:
    """Writes to a client that reads nothing, and says when a write has been held up."""

    async def write(_request: bytes, context: Context) -> bytes | None:
        while True:
            held = asyncio.get_running_loop().call_later(0.2, probe.entered.set)
            await context.write(b"x" * 1_048_576)
            held.cancel()

    return write


BOTH = pytest.mark.parametrize("kind", ["Unary", "Stream"])


@BOTH
async def test_ending_ok_leaves_the_status_unset(probe: Probe, kind: str) -> None:
    probe.behaviour = _answer if kind == "Unary" else _stream_two

    assert await _call(probe, kind) is grpc.StatusCode.OK

    span = await probe.span()
    assert span.kind is SpanKind.SERVER
    assert span.name == f"{SERVICE}/{kind}" == attribute(span, "rpc.method")
    assert attribute(span, "rpc.system.name") == "grpc"
    assert attribute(span, "rpc.response.status_code") == "OK"
    assert attribute(span, "error.type") is None
    assert attribute(span, "network.peer.address") == "127.0.0.1"
    assert isinstance(attribute(span, "network.peer.port"), int)
    assert span.status.status_code is StatusCode.UNSET


async def _stream_two(_request: bytes, context: Context) -> None:
    await context.write(b"1")
    await context.write(b"2")


@BOTH
@pytest.mark.parametrize(
    ("behaviour", "code", "status"),
    [
        pytest.param(_abort, "RESOURCE_EXHAUSTED", StatusCode.UNSET, id="abort-caller-side"),
        pytest.param(_abort_internal, "UNAVAILABLE", StatusCode.ERROR, id="abort-server-side"),
        pytest.param(_raise, "UNKNOWN", StatusCode.ERROR, id="exception"),
    ],
)
async def test_ending_by_the_handler_has_its_code(
    probe: Probe, kind: str, behaviour: Behaviour, code: str, status: StatusCode
) -> None:
    probe.behaviour = behaviour

    assert (await _call(probe, kind)).name == code

    span = await probe.span()
    assert attribute(span, "rpc.response.status_code") == code == attribute(span, "error.type")
    assert span.status.status_code is status
    assert "MARKER" not in span.to_json()
    assert not span.events


@pytest.mark.parametrize(
    ("kind", "make"),
    [("Unary", _waiter), ("Stream", _waiter), ("Stream", _stuck_writer)],
    ids=["unary", "stream-waiting", "stream-writing"],
)
async def test_ending_by_the_clients_cancel_is_cancelled(
    probe: Probe, kind: str, make: Callable[[Probe], Behaviour]
) -> None:
    probe.behaviour = make(probe)
    stub = probe.channel.unary_unary if kind == "Unary" else probe.channel.unary_stream
    call = stub(f"/{SERVICE}/{kind}")(b"", timeout=30)
    await asyncio.wait_for(probe.entered.wait(), 10)

    call.cancel()

    span = await probe.span()
    assert attribute(span, "rpc.response.status_code") == "CANCELLED" == attribute(span, "error.type")
    assert span.status.status_code is StatusCode.UNSET


@BOTH
async def test_ending_by_the_deadline_is_deadline_exceeded(probe: Probe, kind: str) -> None:
    probe.behaviour = _waiter(probe)

    assert await _call(probe, kind, timeout_s=0.2) is grpc.StatusCode.DEADLINE_EXCEEDED

    span = await probe.span()
    assert attribute(span, "rpc.response.status_code") == "DEADLINE_EXCEEDED"
    assert span.status.status_code is StatusCode.ERROR


async def test_the_callers_traceparent_is_the_parent(probe: Probe) -> None:
    probe.behaviour = _answer

    await _call(probe, "Unary", metadata={"traceparent": TRACEPARENT})

    span = await probe.span()
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert f"{span.parent.span_id:016x}" == PARENT_ID


async def test_the_carrier_in_a_handler_names_the_server_span(probe: Probe) -> None:
    carriers: list[Mapping[str, str]] = []

    async def keep(_request: bytes, _context: Context) -> bytes:
        await asyncio.sleep(0)
        carriers.append(current_rpc_trace_carrier())
        return b""

    probe.behaviour = keep

    await asyncio.gather(_call(probe, "Unary"), _call(probe, "Unary"))

    spans = await probe.spans.wait(2)
    found = {f"00-{s.context.trace_id:032x}-{s.context.span_id:016x}-03" for s in spans if s.context is not None}
    assert {carrier["traceparent"] for carrier in carriers} == found
    assert len(found) == 2
    assert current_rpc_trace_carrier() == {}


async def test_methods_of_grpc_itself_have_no_span() -> None:
    spans = EndedSpans()
    interceptor = TracingInterceptor(provider_of(spans), MeterProvider(shutdown_on_exit=False))
    handler: object = grpc.unary_unary_rpc_method_handler(_answer)

    @dataclass
    class Details:
        method: str
        invocation_metadata: tuple[tuple[str, str], ...] = ()

    async def continuation(_details: object) -> object:
        return handler

    assert await interceptor.intercept_service(continuation, Details("/grpc.health.v1.Health/Check")) is handler
    assert await interceptor.intercept_service(continuation, Details("/warmline.v1.X/Y")) is not handler


async def test_the_duration_metric_carries_method_and_code(probe: Probe) -> None:
    probe.behaviour = _abort

    await _call(probe, "Stream")
    await probe.span()

    data = probe.reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "rpc.server.call.duration"
    (point,) = metric.data.data_points
    assert point.attributes is not None
    assert point.attributes["rpc.method"] == f"{SERVICE}/Stream"
    assert point.attributes["rpc.response.status_code"] == "RESOURCE_EXHAUSTED"

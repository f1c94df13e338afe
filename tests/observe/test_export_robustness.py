"""A collector that is dead, silent, slow or refusing costs spans and nothing else."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from observe import record_kit as kit
from observe.collectors import EXPORTERS, black_hole, collector, hang, nobody, refuse, turn_away
from observe.record_kit import Play
from warmline_server.core.records import CallOutcome
from warmline_server.observe.setup import SpanPipeline, open_telemetry
from warmline_server.settings import Telemetry as TelemetrySettings

QUEUE = 64
TURNS = 200
# About two seconds on a quiet machine; unbounded it would be thirty.
SHUTDOWN_LIMIT_S = 8.0


@asynccontextmanager
async def _endpoint(kind: str) -> AsyncIterator[str]:
    if kind == "dead":
        async with nobody() as endpoint:
            yield endpoint
    elif kind == "black-holed":
        async with black_hole() as endpoint:
            yield endpoint
    else:
        behaviour = {"slow": hang, "refusing": refuse, "unavailable": turn_away}[kind]
        async with collector(behaviour) as (endpoint, _):
            yield endpoint


@pytest.fixture
def export_threads(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Idents of the threads in which an export ran."""
    seen: set[int] = set()
    for exporter in EXPORTERS:
        original = exporter.export

        def export(self: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            seen.add(threading.get_ident())
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(exporter, "export", export)
    return seen


@pytest.mark.parametrize("kind", ["dead", "black-holed", "slow", "refusing", "unavailable"])
async def test_bad_collector_costs_no_turn_no_loop_time_and_little_shutdown(
    monkeypatch: pytest.MonkeyPatch, export_threads: set[int], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(QUEUE))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    async with _endpoint(kind) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = open_telemetry(TelemetrySettings(traces=("otlp",), metrics=("otlp",), shutdown_s=2.0))
        play = Play(telemetry.observer)
        slowest_s = 0.0
        for _ in range(TURNS):
            started_at_s = time.monotonic()
            call = play.start(kit.call(kit.session()))
            play.end(call, CallOutcome.COMPLETED)
            slowest_s = max(slowest_s, time.monotonic() - started_at_s)
            await asyncio.sleep(0)
        started_at_s = time.monotonic()
        loop_lag_s = await _lag_during(telemetry.close())
        shutdown_s = time.monotonic() - started_at_s

    assert export_threads, "the exporters were asked"
    assert threading.get_ident() not in export_threads
    # Waiting for an export would take its ten seconds; a busy machine takes far less.
    assert slowest_s < 3.0
    assert loop_lag_s < 3.0
    assert shutdown_s < SHUTDOWN_LIMIT_S
    assert any(
        r.message in ("spans were lost", "telemetry shut down before all of it was sent") for r in caplog.records
    )


async def _lag_during(work: Any) -> float:
    """The longest that the loop did not run while `work` did."""
    longest_s, last_at_s = 0.0, time.monotonic()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=0.01)
        longest_s, last_at_s = max(longest_s, time.monotonic() - last_at_s - 0.01), time.monotonic()
    task.result()
    return longest_s


class _Blocked(SpanExporter):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.go.wait(10)
        self.taken += len(spans)
        return SpanExportResult.SUCCESS


def test_waiting_spans_are_bounded_and_every_loss_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(QUEUE))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    exporter = _Blocked()
    pipeline = SpanPipeline(exporter, meters)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(pipeline)
    tracer = provider.get_tracer("test")
    for number in range(1000):
        tracer.start_span("x").end()
        if number == 15:  # a batch is full: from now on the exporter holds it, and nothing leaves the queue
            assert exporter.entered.wait(10)

    figures = _figures(reader)
    exporter.go.set()
    pipeline.shutdown()

    assert figures["otel.sdk.processor.span.queue.size"] <= QUEUE
    assert pipeline.accepted == 1000
    assert exporter.taken <= QUEUE + 16
    assert pipeline.lost == 1000 - exporter.taken
    dropped = figures["otel.sdk.processor.span.processed queue_full"]
    assert dropped == pipeline.lost
    told = [(r.__dict__["lost"], r.__dict__["accepted"]) for r in caplog.records if r.message == "spans were lost"]
    assert (pipeline.lost, 1000) in told
    meters.shutdown()


def _figures(reader: InMemoryMetricReader) -> dict[str, int]:
    """Sums by metric name and, where there is one, error type."""
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, int] = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    error = (point.attributes or {}).get("error.type", "")
                    found[f"{metric.name} {error}".strip()] = getattr(point, "value", 0)
    return found

"""Telemetry put together from the settings, and shut down within a limit.

Exporting happens in threads of the SDK. Standard `OTEL_*` variables are honoured: which exporters, where to, sampler,
resource, batching.
"""

import asyncio
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from warmline_server.observe import otlp
from warmline_server.observe.attributes import Capture
from warmline_server.observe.bundle.writer import BundleObserver
from warmline_server.observe.logs import LogObserver
from warmline_server.observe.loop_lag import LoopLag, observe_tasks
from warmline_server.observe.metrics import GenAiNames, MetricsObserver, observe_dropped
from warmline_server.observe.otlp import TelemetryError
from warmline_server.observe.ring import InferenceRing
from warmline_server.observe.tracing import TracingObserver
from warmline_server.session.observer import Observer, Observers
from warmline_server.settings import Telemetry as TelemetrySettings

if TYPE_CHECKING:
    from warmline_server.observe.prometheus import PrometheusEndpoint

_log = logging.getLogger(__name__)

# Standard names that the SDK keeps to itself.
OTEL_TRACES_EXPORTER = "OTEL_TRACES_EXPORTER"
OTEL_METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"

# Of the shutdown's limit, the part in which exporters may still send what waits; the rest is for ending them.
FLUSH_SHARE = 0.8


@dataclass
class _Closing:
    """Something that ends in a thread: `close` may block for long, `abort` makes it give up."""

    name: str
    close: Callable[[], object]
    abort: Callable[[], object] | None = None


@dataclass
class Telemetry:
    """What the composition root needs.

    `observer` passes steps to all sinks, spans first; `prometheus_address` is blank where nothing is served.
    """

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    observer: Observer
    ring: InferenceRing
    shutdown_s: float
    loop_lag: LoopLag
    prometheus_address: str = ""
    closings: list[_Closing] = field(default_factory=list)

    async def close(self) -> None:
        """Sends what waits, and gives up after `shutdown_s`. Never blocks the loop. Idempotent.

        Cancel: gives up at once.
        """
        self.loop_lag.stop()
        closings, self.closings = self.closings, []
        late = await _run_all([(c.name, c.close) for c in closings], self.shutdown_s * FLUSH_SHARE)
        aborts = [(c.name, c.abort) for c in closings if c.name in late and c.abort is not None]
        if late:
            _log.warning("telemetry shut down before all of it was sent", extra={"late": sorted(late)})
        await _run_all(aborts, self.shutdown_s * (1 - FLUSH_SHARE))


def open_telemetry(settings: TelemetrySettings, *, span_processors: Sequence[SpanProcessor] = ()) -> Telemetry:
    """Sets everything up. Called on a running loop.

    Args: `span_processors` take ended spans besides the configured exporters; they belong to whoever gave them.
    Raises: TelemetryError.
    """
    exporters, readers = _span_exporters(settings), _readers(settings)
    scraped = _prometheus(settings.prometheus_listen)  # last of what may be refused: it listens from here on
    if scraped is not None:
        readers.append(scraped.reader)
    if readers:
        # The SDK's own counts of exported and dropped items; it reads the variable and nothing else.
        os.environ.setdefault(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "true")
    resource = _resource()
    closings = []
    meters: MeterProvider = NoOpMeterProvider()  # a figure that nobody reads is not worked out
    if readers:
        meters = sdk_meters = SdkMeterProvider(readers, resource=resource, shutdown_on_exit=False)
        closings.append(_Closing("metrics", sdk_meters.shutdown))
    is_traced = bool(exporters or span_processors)
    tracers = TracerProvider(
        None if is_traced else ALWAYS_OFF,
        resource=resource,
        shutdown_on_exit=False,
        # Its own counts of spans begun and alive cost a fifth of a span (measured); what is exported, queued and
        # dropped is counted by processor and exporter.
        meter_provider=NoOpMeterProvider(),
    )
    if scraped is not None:
        closings.append(_Closing("prometheus", scraped.close))
    for processor in span_processors:
        tracers.add_span_processor(processor)
    closings += _add_pipelines(tracers, meters, exporters)
    ring, loop_lag = InferenceRing(settings.inference_ring), LoopLag(meters)
    capture = Capture(settings.content_max_bytes) if settings.capture_content else None
    # Tracing comes first: it puts the span's ids on the records, and the others name them.
    observers: list[Observer] = [TracingObserver(tracers, capture=capture, is_recorded=is_traced), LogObserver(), ring]
    if readers:
        observers.append(MetricsObserver(meters, GenAiNames(settings.genai_metrics)))
    if settings.bundle_dir:
        bundles = BundleObserver(Path(settings.bundle_dir))
        observe_dropped(meters, lambda: bundles.dropped)
        observers.append(bundles)
        closings.append(_Closing("bundles", bundles.close))
    loop_lag.start()
    observe_tasks(meters, asyncio.get_running_loop())
    address = scraped.address if scraped is not None else ""
    return Telemetry(tracers, meters, Observers(observers), ring, settings.shutdown_s, loop_lag, address, closings)


def _add_pipelines(
    tracers: TracerProvider, meters: MeterProvider, exporters: Sequence[tuple[str, SpanExporter]]
) -> list[_Closing]:
    closings = []
    for name, exporter in exporters:
        pipeline = SpanPipeline(exporter, meters)
        tracers.add_span_processor(pipeline)
        closings.append(_Closing(f"spans to {name}", pipeline.shutdown, exporter.shutdown))
    return closings


class SpanPipeline(BatchSpanProcessor):
    """Batches spans towards one exporter, in its thread, and counts what came to what."""

    def __init__(self, exporter: SpanExporter, meters: MeterProvider) -> None:
        self.accepted = 0
        self._counted = _Counted(exporter)
        super().__init__(self._counted, meter_provider=meters)

    @property
    def lost(self) -> int:
        """Spans that were taken and not exported. Meaningful once the pipeline is shut down."""
        return self.accepted - self._counted.exported

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.accepted += 1
        super().on_end(span)

    def shutdown(self) -> None:
        super().shutdown()  # type: ignore[no-untyped-call]
        if self.lost:
            _log.warning("spans were lost", extra={"lost": self.lost, "accepted": self.accepted})


class _Counted(SpanExporter):
    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.exported = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def _resource() -> Resource:
    """Who we are; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` have the last word."""
    ours = {
        SERVICE_NAME: "warmline",
        SERVICE_VERSION: version("warmline"),
        SERVICE_INSTANCE_ID: str(uuid.uuid4()),
    }
    return Resource.create(ours | dict(OTELResourceDetector().detect().attributes))


def _span_exporters(settings: TelemetrySettings) -> list[tuple[str, SpanExporter]]:
    found: list[tuple[str, SpanExporter]] = []
    for name in _chosen(OTEL_TRACES_EXPORTER, settings.traces):
        if name == "otlp":
            found.append((name, otlp.span_exporter()))
        elif name == "console":
            found.append((name, _console()))
        else:
            raise TelemetryError(f"traces to {name!r}: there are otlp, console and none")
    return found


def _console() -> SpanExporter:
    # The exporter's own default is the standard output of the moment in which it was imported.
    return ConsoleSpanExporter(out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + os.linesep)


def _readers(settings: TelemetrySettings) -> list[MetricReader]:
    found: list[MetricReader] = []
    for name in _chosen(OTEL_METRICS_EXPORTER, settings.metrics):
        if name == "otlp":
            found.append(PeriodicExportingMetricReader(otlp.metric_exporter()))
        elif name == "console":
            found.append(PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stdout)))
        else:
            raise TelemetryError(f"metrics to {name!r}: there are otlp, console and none")
    return found


def _prometheus(listen: str) -> "PrometheusEndpoint | None":
    if not listen:
        return None
    try:
        from warmline_server.observe.prometheus import PrometheusEndpoint
    except ImportError as error:
        raise TelemetryError("telemetry.prometheus_listen needs the extra: warmline[prometheus]") from error
    try:
        return PrometheusEndpoint(listen)
    except (OSError, ValueError) as error:
        raise TelemetryError(f"telemetry.prometheus_listen: cannot serve metrics on {listen!r}: {error}") from error


def _chosen(variable: str, setting: Sequence[str]) -> list[str]:
    """Exporters by name; the standard variable wins over the setting, and "none" is no exporter."""
    given = os.environ.get(variable, "").strip()
    wanted = [name.strip() for name in given.split(",")] if given else list(setting)
    return [name for name in wanted if name != "none"]


async def _run_all(work: Sequence[tuple[str, Callable[[], object]]], limit_s: float) -> set[str]:
    """Runs each in a thread of its own. Returns: the names of those that had not ended in time.

    The threads are daemons: asyncio's own pool would be waited for at exit, for as long as an exporter hangs.
    """
    loop = asyncio.get_running_loop()
    running = {name: loop.create_future() for name, _ in work}

    def run(name: str, what: Callable[[], object]) -> None:
        try:
            what()
        except Exception:  # noqa: BLE001 - one sink's failure must not keep the others from ending
            _log.exception("telemetry failed to shut down", extra={"sink": name})
        try:
            loop.call_soon_threadsafe(_resolve, running[name])
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    for name, what in work:
        threading.Thread(target=run, args=(name, what), name=f"close {name}", daemon=True).start()
    if running:
        await asyncio.wait(running.values(), timeout=limit_s)
    return {name for name, done in running.items() if not done.done()}


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

"""Metrics of sessions, calls, connects and attempts; their names, and where these are used."""

import asyncio
import importlib.util
import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from observe import record_kit as kit
from observe.prometheus_names import prometheus_labels, prometheus_names
from observe.record_kit import Play
from warmline_server.core.errors import Reason
from warmline_server.core.events import SlotOutcome
from warmline_server.core.records import AttemptStatus, CallOutcome
from warmline_server.observe import loop_lag, metric_table, metrics
from warmline_server.observe.loop_lag import LoopLag, observe_tasks
from warmline_server.observe.metrics import GenAiNames, MetricsObserver, observe_dropped
from warmline_server.observe.otlp import TelemetryError
from warmline_server.observe.setup import open_telemetry
from warmline_server.settings import Telemetry as TelemetrySettings

ROOT = Path(__file__).parents[2]


class Metered:
    """A metrics observer on a real provider, and its figures."""

    def __init__(self, genai: GenAiNames = GenAiNames.LATEST) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = MetricsObserver(self.provider, genai)
        self.play = Play(self.observer)
        self.session = kit.session()

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Attributes and point of each stream of a metric; nothing for one without measurements."""
        data = self.reader.get_metrics_data()
        return [
            (dict(point.attributes or {}), point)
            for resource in (data.resource_metrics if data is not None else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str, *labels: str) -> dict[Any, float]:
        """Values by the named attributes, without the zeros."""
        found: dict[Any, float] = {}
        for attributes, point in self.points(name):
            key = tuple(attributes.get(label) for label in labels)
            value = point.value if hasattr(point, "value") else point.count
            if value:
                found[key if len(labels) != 1 else key[0]] = value
        return found

    def names(self) -> dict[str, set[str]]:
        """Every metric that has a measurement, with the attributes that were used."""
        data = self.reader.get_metrics_data()
        found: dict[str, set[str]] = {}
        for resource in data.resource_metrics if data is not None else []:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        found.setdefault(metric.name, set()).update(point.attributes or {})
        return found


@pytest.fixture
def metered() -> Metered:
    return Metered()


def _everything(metered: Metered) -> None:
    """A life in which every step happens."""
    observer, play, session = metered.observer, metered.play, metered.session
    observer.session_opened(session)
    observer.slot_changed(session, "IDLE", "IN_FLIGHT")
    warm = play.warm(session)
    observer.slot_changed(session, "IN_FLIGHT", "READY")
    play.open(kit.connect(session), error=kit.refused(Reason.UPSTREAM_UNREACHABLE))
    call = play.start(kit.call(session))
    call.queued, call.held_s = [b"x" * 300, b"y" * 400], 0.002
    first = play.send(kit.attempt(session, call, warm))
    play.first_event(first)
    lost = kit.refused(Reason.UPSTREAM_STREAM_LOST)
    play.finish(first, AttemptStatus.FAILED, lost)
    observer.retry_scheduled(call, first, lost, 0.2)
    observer.fell_back(session, call, "retries_exhausted", latched=True)
    play.complete(play.send(kit.attempt(session, call)), "resp-1")
    observer.circuit_changed("simulator", "OPEN")
    observer.call_refused(Reason.LANE_BUSY)
    observer.socket_closed(warm, "peer", 1011)


def test_a_whole_life_is_counted(metered: Metered) -> None:
    _everything(metered)

    assert metered.values("warmline.sessions", "warmline.state") == {"latched": 1}
    assert metered.values("warmline.slots", "warmline.state") == {"ready": 1}
    assert metered.values("warmline.slot.outcomes", "warmline.slot.outcome") == {"adopted": 1, "none": 1}
    assert metered.values("warmline.connects", "warmline.outcome", "warmline.reason") == {
        ("open", None): 1,
        ("failed", "UPSTREAM_UNREACHABLE"): 1,
    }
    assert metered.values("warmline.socket.closes", "warmline.cause", "warmline.close_code") == {("peer", 1011): 1}
    assert metered.values("warmline.sockets") == {}
    assert metered.values("warmline.calls.active") == {(): 1}
    assert metered.values("warmline.attempts", "warmline.transport", "warmline.outcome") == {
        ("websocket", "failed"): 1,
        ("http", "completed"): 1,
    }
    assert metered.values("warmline.retries", "warmline.reason") == {"UPSTREAM_STREAM_LOST": 1}
    assert metered.values("warmline.fallbacks", "warmline.reason", "warmline.latched") == {
        ("retries_exhausted", True): 1
    }
    assert metered.values("warmline.circuit.state") == {(): 2}
    assert metered.values("warmline.refusals", "warmline.reason") == {"LANE_BUSY": 1}
    assert metered.values("warmline.queue.bytes") == {(): 700}
    assert metered.values("warmline.events") == {(): 12}
    assert metered.values("warmline.call.time_to_send", "warmline.slot.outcome") == {"adopted": 1}
    assert metered.values("warmline.attempt.longest_gap") == {(): 1}


def test_ended_call_is_counted_once_by_its_outcome(metered: Metered) -> None:
    call = metered.play.start(kit.call(metered.session))
    call.held_s = 0.002
    metered.play.end(call, CallOutcome.FAILED, kit.refused())

    assert metered.values("warmline.calls", "warmline.outcome", "warmline.reason") == {("failed", "UPSTREAM_FAILED"): 1}
    assert metered.values("warmline.calls.active") == {}
    assert metered.values("warmline.queue.bytes") == {}
    ((_, duration),) = metered.points("warmline.call.duration")
    assert duration.sum == pytest.approx(0.2)
    ((_, held),) = metered.points("warmline.call.held")
    assert held.sum == pytest.approx(0.002)


def test_closed_sessions_leave_nothing_behind(metered: Metered) -> None:
    observer, session = metered.observer, metered.session
    observer.session_opened(session)
    observer.slot_changed(session, "IDLE", "READY")
    observer.fell_back(session, None, "upgrade_required", latched=True)
    observer.unlatched(session)
    observer.fell_back(session, None, "upgrade_required", latched=True)
    observer.session_closed(session, "caller")
    observer.slot_changed(session, "READY", "CLOSED")

    assert metered.values("warmline.sessions") == {}
    assert metered.values("warmline.slots") == {}


def test_streams_of_a_metric_are_bounded_whatever_callers_name(
    metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MAX_STREAMS", 3)
    for number in range(10):
        call = kit.call(metered.session)
        attempt = kit.attempt(metered.session, call)
        attempt.model = f"model-{number}"
        metered.play.complete(metered.play.send(attempt), "resp-1")

    streams = metered.values(
        "gen_ai.client.inference.usage.input_tokens", "gen_ai.request.model", "otel.metric.overflow"
    )
    assert streams == {
        ("model-0", None): 100,
        ("model-1", None): 100,
        ("model-2", None): 100,
        (None, True): 700,
    }


def test_fallback_of_one_attempt_latches_nothing(metered: Metered) -> None:
    metered.observer.session_opened(metered.session)
    metered.observer.fell_back(metered.session, None, "circuit_open", latched=False)

    assert metered.values("warmline.sessions", "warmline.state") == {"websocket": 1}


def test_usage_of_a_warm_up_is_told_apart_from_a_turns(metered: Metered) -> None:
    play, session = metered.play, metered.session
    warm = play.warm(session)
    play.complete(play.send(kit.attempt(session, None, warm)), "resp-warm")
    call = play.start(kit.call(session))
    play.complete(play.send(kit.attempt(session, call, warm, slot_outcome=SlotOutcome.REUSED)), "resp-1")

    tokens = metered.values("gen_ai.client.inference.usage.input_tokens", "warmline.attempt.kind")
    assert tokens == {"warm_up": 100, "turn": 100}
    assert metered.values("gen_ai.client.inference.usage.cache_read.input_tokens", "warmline.attempt.kind") == {
        "warm_up": 60,
        "turn": 60,
    }
    assert metered.values("warmline.slot.outcomes", "warmline.slot.outcome") == {"reused": 1}


def test_time_to_first_and_between_events(metered: Metered) -> None:
    call = metered.play.start(kit.call(metered.session))
    metered.play.complete(metered.play.send(kit.attempt(metered.session, call)), "resp-1")

    ((_, first),) = metered.points("gen_ai.client.inference.time_to_first_chunk")
    ((_, between),) = metered.points("gen_ai.client.inference.time_per_output_chunk")
    ((_, duration),) = metered.points("gen_ai.client.inference.duration")
    assert first.sum == pytest.approx(0.03)
    assert between.sum == pytest.approx(0.1 / 10)
    assert duration.sum == pytest.approx(0.13)


@pytest.mark.parametrize(
    ("genai", "wanted", "unwanted"),
    [
        (GenAiNames.LATEST, metric_table.LATEST_GENAI, metric_table.OLDER_GENAI),
        (GenAiNames.V1_3X, metric_table.OLDER_GENAI, metric_table.LATEST_GENAI),
        (GenAiNames.BOTH, (*metric_table.LATEST_GENAI, *metric_table.OLDER_GENAI), ()),
    ],
)
def test_switch_chooses_the_generation_of_names(genai: GenAiNames, wanted: Any, unwanted: Any) -> None:
    metered = Metered(genai)
    _everything(metered)

    found = metered.names().keys()
    assert {metric.name for metric in wanted} <= found
    assert not {metric.name for metric in unwanted} & found


async def test_every_metric_of_the_table_is_emitted_with_its_attributes_and_no_other() -> None:
    metered = Metered(GenAiNames.BOTH)
    observe_dropped(metered.provider, lambda: 3)
    observe_tasks(metered.provider, asyncio.get_running_loop())
    _everything(metered)
    call = metered.play.start(kit.call(metered.session))
    call.held_s = 0.001
    metered.play.end(call, CallOutcome.FAILED, kit.refused())
    lag = LoopLag(metered.provider)
    lag.start()
    lag.stop()
    lag._lag.record(0.1)

    found = metered.names()

    table = {metric.name: set(metric.attributes) for metric in metric_table.ALL}
    del table["rpc.server.call.duration"]  # tests/rpc/test_tracing_interceptor.py
    assert found.keys() == table.keys()
    for name, attributes in found.items():
        assert attributes <= table[name], name


def test_no_metric_names_a_session_a_turn_or_a_request(metered: Metered) -> None:
    _everything(metered)

    used = {label for labels in metered.names().values() for label in labels}
    assert not used & {"session_id", "turn_id", "warmline.request_id", "response_id", "warmline.attempt.id"}


def _block(duration_s: float) -> None:
    """What must not happen on a loop."""
    time.sleep(duration_s)


async def test_blocked_loop_shows_as_lag(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "PERIOD_S", 0.01)
    lag = LoopLag(metered.provider)
    lag.start()
    _block(0.06)
    await asyncio.sleep(0)  # the late timer fires
    await asyncio.sleep(0)
    lag.stop()

    ((_, point),) = metered.points("warmline.event_loop.lag")
    assert point.max >= 0.04


async def test_tasks_of_the_loop_are_counted_from_the_readers_thread_until_they_have_ended(metered: Metered) -> None:
    observe_tasks(metered.provider, asyncio.get_running_loop())

    async def count() -> float:
        ((_, point),) = await asyncio.to_thread(metered.points, "warmline.event_loop.tasks")
        return float(point.value)

    before, gate = await count(), asyncio.Event()
    tasks = [asyncio.create_task(gate.wait()) for _ in range(3)]
    during = await count()
    gate.set()
    await asyncio.gather(*tasks)

    assert (during - before, await count() - before) == (3, 0)


async def test_scraper_reads_the_metrics() -> None:
    telemetry = open_telemetry(TelemetrySettings(prometheus_listen="127.0.0.1:0"))
    telemetry.observer.session_opened(kit.session())
    url = f"http://{telemetry.prometheus_address}/metrics"

    text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
    await telemetry.close()

    assert re.search(r'^warmline_sessions\{.*warmline_state="websocket".*\} 1\.0$', text, re.MULTILINE)
    with pytest.raises(OSError):
        await asyncio.to_thread(urllib.request.urlopen, url, None, 2)


@pytest.mark.parametrize("listen", ["nowhere", "256.0.0.1:9"])
async def test_address_that_cannot_be_served_is_told(listen: str) -> None:
    with pytest.raises(TelemetryError, match="prometheus_listen"):
        open_telemetry(TelemetrySettings(prometheus_listen=listen))


# Where the names are used


async def test_prometheus_names_are_what_a_scraper_sees() -> None:
    telemetry = open_telemetry(TelemetrySettings(prometheus_listen="127.0.0.1:0", genai_metrics="both"))
    play, session = Play(telemetry.observer), kit.session()
    telemetry.observer.session_opened(session)
    telemetry.observer.circuit_changed("simulator", "OPEN")
    call = play.start(kit.call(session))
    play.complete(play.send(kit.attempt(session, call, play.warm(session))), "resp-1")
    play.end(call, CallOutcome.COMPLETED)
    url = f"http://{telemetry.prometheus_address}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
    await telemetry.close()

    scraped = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    ours = {name for name in scraped if name.startswith(("warmline_", "gen_ai_", "rpc_"))}
    assert len(ours) > 40
    assert ours - prometheus_names() == set()


def test_every_query_of_the_dashboard_names_metrics_and_labels_that_exist() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/warmline.json").read_text())
    expressions = [t["expr"] for panel in _panels(dashboard) for t in panel.get("targets", [])]
    labels = prometheus_labels()

    used = {name for e in expressions for name in re.findall(r"\b(?:warmline|gen_ai|rpc|otel)_[a-z0-9_]+", e)}
    metrics = {name for name in used if name not in labels}
    assert len(expressions) >= 20
    assert {name for name in metrics if not name.startswith("otel_sdk_")} <= prometheus_names()
    grouped = {
        label.strip() for e in expressions for group in re.findall(r"by ?\(([^)]*)\)", e) for label in group.split(",")
    }
    assert grouped <= labels | {"le", "service_instance_id", "error_type"}


def _panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", []))]


def test_table_in_the_docs_is_the_table_in_the_code() -> None:
    spec = importlib.util.spec_from_file_location("metrics_docs", ROOT / "scripts/metrics_docs.py")
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "docs/tracing.md").read_text(encoding="utf-8")

    assert text == script.page(text), "run scripts/metrics_docs.py"

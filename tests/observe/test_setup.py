"""Telemetry as the settings and the standard variables ask for it, on the wire."""

import json

import pytest

from observe import record_kit as kit
from observe.collectors import collector
from observe.record_kit import Play
from observe.spans import EndedSpans
from warmline_server.core.records import CallOutcome
from warmline_server.observe import attributes
from warmline_server.observe.otlp import TelemetryError
from warmline_server.observe.setup import open_telemetry
from warmline_server.settings import Telemetry as TelemetrySettings


def _one_turn(play: Play) -> None:
    session = kit.session()
    play.observer.session_opened(session)
    warm = play.warm(session)
    call = play.start(kit.call(session))
    play.complete(play.send(kit.attempt(session, call, warm)), "resp-1")
    play.end(call, CallOutcome.COMPLETED)


async def test_spans_and_metrics_arrive_over_otlp_with_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pod-7")
    async with collector() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = open_telemetry(TelemetrySettings(traces=("otlp",), metrics=("otlp",)))
        _one_turn(Play(telemetry.observer))
        await telemetry.close()

    assert {span.name for span in received.spans} == {"turn", "chat m-1", "preconnect"}
    assert received.resource["service.name"] == "warmline"
    assert received.resource["k8s.pod.name"] == "pod-7"
    assert {"service.version", "service.instance.id"} <= received.resource.keys()
    assert {"warmline.calls", "warmline.slot.outcomes", "gen_ai.client.inference.duration"} <= received.metrics
    assert any(name.startswith("otel.sdk.") for name in received.metrics), "the SDK counts its own exports and drops"


async def test_spans_that_nobody_takes_keep_their_ids_and_cost_no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "of_attempt", lambda attempt: pytest.fail("nobody takes them"))
    telemetry = open_telemetry(TelemetrySettings())
    play = Play(telemetry.observer)
    session = kit.session()
    play.observer.session_opened(session)
    call = play.start(kit.call(session, carrier={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}))
    attempt = play.send(kit.attempt(session, call))
    play.complete(attempt, "resp-1")
    play.end(call, CallOutcome.COMPLETED)
    await telemetry.close()

    assert call.span is not None
    assert attempt.span is not None
    assert call.span.trace_id == attempt.span.trace_id == "a" * 32
    assert call.span.span_id != attempt.span.span_id
    assert not attempt.span.sampled


async def test_standard_service_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-line")
    telemetry = open_telemetry(TelemetrySettings())
    spans = telemetry.tracer_provider.resource.attributes
    await telemetry.close()

    assert spans["service.name"] == "my-line"


async def test_console_writes_one_json_object_per_span(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = open_telemetry(TelemetrySettings(traces=("console",)))
    _one_turn(Play(telemetry.observer))
    await telemetry.close()

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["name"] for line in lines} == {"turn", "chat m-1", "preconnect"}


async def test_several_sinks_each_get_every_span(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = EndedSpans()
    async with collector() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = open_telemetry(TelemetrySettings(traces=("otlp", "console")), span_processors=[memory])
        _one_turn(Play(telemetry.observer))
        await telemetry.close()

    assert len(received.spans) == len(memory.spans) == len(capsys.readouterr().out.splitlines()) == 3


async def test_standard_exporter_variable_wins_over_the_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    telemetry = open_telemetry(TelemetrySettings(traces=("console",)))
    _one_turn(Play(telemetry.observer))
    await telemetry.close()

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "statsd", "statsd"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "http/protobuf"),
    ],
)
async def test_what_is_not_there_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(TelemetryError, match=named):
        open_telemetry(TelemetrySettings(traces=("otlp",), metrics=("otlp",)))


async def test_sampler_variable_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    memory = EndedSpans()
    telemetry = open_telemetry(TelemetrySettings(), span_processors=[memory])
    _one_turn(Play(telemetry.observer))
    await telemetry.close()

    assert memory.spans == []

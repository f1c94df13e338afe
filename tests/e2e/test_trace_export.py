"""Turns while the collector is away: none fails, none waits, and the server still ends in time."""

import time

import msgspec
import pytest

import warmline
from e2e.line import MODEL, answer, settings_for
from observe.collectors import black_hole, nobody
from warmline_server.app import App
from warmline_server.settings import Telemetry
from warmline_simulator import Simulator

TURNS = 40
# About two seconds on a quiet machine; unbounded it would be thirty.
SHUTDOWN_LIMIT_S = 8.0


@pytest.mark.parametrize("away", [nobody, black_hole], ids=["dead", "black-holed"])
async def test_turns_go_on_without_a_collector(monkeypatch: pytest.MonkeyPatch, away: object) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "32")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    async with away() as endpoint, Simulator() as sim:  # type: ignore[operator]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = Telemetry(traces=("otlp",), metrics=("otlp",), shutdown_s=2.0)
        settings = msgspec.structs.replace(settings_for(sim.base_url), telemetry=telemetry)
        app = App(settings)
        took_s = []
        async with app:
            async with (
                warmline.Client(app.address, retry=warmline.CallRetry(max_tries=1)) as client,
                client.session("s-1", model=MODEL) as session,
            ):
                for number in range(TURNS):
                    started_at_s = time.monotonic()
                    assert (await answer(session.turn(f"hello {number}"))).ending == "completed"
                    took_s.append(time.monotonic() - started_at_s)
            closing_at_s = time.monotonic()
        shutdown_s = time.monotonic() - closing_at_s

    assert max(took_s) < 5.0, "an export's own limit is 10 s"
    assert shutdown_s < SHUTDOWN_LIMIT_S

"""The whole line for a test: the simulator as upstream, the real server, the real client, on loopback."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import warmline
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from warmline_server.app import App
from warmline_server.clock import Clock
from warmline_server.settings import Credential, Limits, Settings, UpstreamProfile
from warmline_simulator import Script, Simulator


@dataclass(frozen=True, slots=True)
class Line:
    """Both ends and the middle. `app.registry` has the sessions; `spans` what was traced."""

    sim: Simulator
    app: App
    client: warmline.Client
    spans: InMemorySpanExporter


def settings_for(
    base_url: str, *, profile: Mapping[str, Any] | None = None, limits: Mapping[str, Any] | None = None
) -> Settings:
    """Settings of a server on a free port with one upstream, "simulator", of the codex dialect.

    What would make a test wait is short or off: no jitter before a re-arm, no hedge towards HTTP.
    """
    chosen = {"dialect": "codex", "rearm_jitter_s": 0.0, "fallback_after_s": 0.0, "circuit_open_s": 0.0}
    upstream = UpstreamProfile(
        base_url=base_url, **{"credential": Credential(source="none"), **chosen, **(profile or {})}
    )
    return Settings(
        listen="127.0.0.1:0",
        default_upstream="simulator",
        upstreams={"simulator": upstream},
        limits=Limits(**(limits or {})),
    )


@asynccontextmanager
async def open_line(
    script: Script | None = None,
    *,
    profile: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    **simulator: Any,
) -> AsyncIterator[Line]:
    """Opens everything and closes it; the simulator then fails the test where its script was not used up.

    Args: `profile` fields of the upstream's profile; `limits` fields of the server's limits; `clock` the server's time,
        None for real time; `simulator` its settings.
    """
    spans = InMemorySpanExporter()
    async with Simulator(script, **simulator) as sim:
        settings = settings_for(sim.base_url, profile=profile, limits=limits)
        async with (
            App(settings, clock=clock, span_processors=[SimpleSpanProcessor(spans)]) as app,
            warmline.Client(app.address) as client,
        ):
            yield Line(sim, app, client, spans)

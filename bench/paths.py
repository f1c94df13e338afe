"""The ways from a client to the upstream that are measured side by side."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bench.children import CACHE, PYTHON, RIG_CORE, SERVER_CORE, Child


class Served(Protocol):
    """An upstream as paths see it."""

    @property
    def http_url(self) -> str:
        """Where `/responses` is appended to."""

    @property
    def ws_url(self) -> str:
        """Where a WebSocket is opened."""


@dataclass(slots=True)
class Running:
    """A path that serves. `plan` is what the load client needs to use it; `server` None where nothing is between."""

    plan: Mapping[str, object]
    server: Child | None = None
    beside: list[Child] = field(default_factory=list)
    """What runs for the path on the rig's core: its CPU is not the server's."""
    is_held_still: bool = False
    """It is stopped by a signal while it is not measured."""

    def stop(self) -> None:
        """Ends what was started for it."""
        for child in (self.server, *self.beside):
            if child is not None:
                child.stop()


@dataclass(frozen=True, slots=True)
class Path:
    """A way to the upstream. `baseline` names the path without anything between that it is compared with."""

    name: str
    title: str
    baseline: str
    start: Callable[[Served], Running]
    is_peer: bool = False


def _direct(upstream: Served) -> Running:
    return Running({"mode": "ws", "target": upstream.ws_url})


def _direct_http(upstream: Served) -> Running:
    return Running({"mode": "http", "target": f"{upstream.http_url}/responses"})


def _relay(upstream: Served) -> Running:
    child = Child("relay", [PYTHON, "-m", "bench.bare_relay", upstream.ws_url], core=SERVER_CORE)
    return Running({"mode": "relay", "target": _address(child)}, child)


def _address(child: Child) -> str:
    return child.wait_for("listening ")


def start_warmline(
    upstream: Served, *, traced: bool = False, over_http: bool = False, certificate: str = ""
) -> Running:
    """A server as an operator runs it: one configuration file, JSON logs, no telemetry or both signals over OTLP."""
    sinks = '"otlp"' if traced else '"none"'
    name = "warmline-traced" if traced else "warmline-http" if over_http else "warmline"
    config = CACHE / f"{name}.toml"
    config.write_text(
        'listen = "127.0.0.1:0"\ndefault_upstream = "bench"\n'
        "[upstreams.bench]\n"
        f"supports_websockets = {'false' if over_http else 'true'}\n"
        f"base_url = {json.dumps(upstream.http_url)}\nca_bundle = {json.dumps(certificate)}\n"
        # More sessions than the defaults allow are part of some cells.
        "[limits]\nmax_warm_sockets = 20000\nmax_sessions = 20000\nmax_concurrent_turns = 20000\n"
        f'[telemetry]\ntraces = {sinks}\nmetrics = {sinks}\nlog_format = "json"\n'
    )
    environ = {"OTEL_SDK_DISABLED": "false" if traced else "true"}
    beside = []
    if traced:
        sink = Child("sink", [str(CACHE / "load"), "sink"], core=RIG_CORE)
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{_address(sink)}"
        beside.append(sink)
    command = [PYTHON, "-m", "warmline_cli.main", "serve", "--config", str(config)]
    child = Child(name, command, core=SERVER_CORE, environ=environ)
    return Running({"mode": "grpc", "target": child.wait_for('"address": "')}, child, beside)


def _warmline(upstream: Served) -> Running:
    return start_warmline(upstream)


def _warmline_http(upstream: Served) -> Running:
    return start_warmline(upstream, over_http=True)


def _warmline_traced(upstream: Served) -> Running:
    return start_warmline(upstream, traced=True)


PATHS = {
    path.name: path
    for path in (
        Path("direct", "direct, WebSocket", "direct", _direct),
        Path("direct-http", "direct, POST and SSE", "direct-http", _direct_http),
        Path("relay", "bare relay", "direct", _relay),
        Path("warmline", "Warmline", "direct", _warmline),
        Path("warmline-http", "Warmline, POST upstream", "direct-http", _warmline_http),
        Path("warmline-traced", "Warmline, traced", "direct", _warmline_traced),
    )
}
OWN = ("direct", "relay", "warmline", "warmline-traced")

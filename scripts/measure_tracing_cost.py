"""What tracing costs: the server's CPU per streamed event with spans and metrics exported over OTLP, against both off.

Two servers run as processes of their own, against one simulator; rounds alternate between them, so that a busy machine
burdens both alike. Run: `python scripts/measure_tracing_cost.py`; it exits 1 above the limit.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

import warmline
from warmline_simulator import Simulator

LIMIT = 0.10
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    spans = 0

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.spans += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    async def Export(
        self, _request: metrics_service_pb2.ExportMetricsServiceRequest, _context: object
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        return metrics_service_pb2.ExportMetricsServiceResponse()


@dataclass
class Server:
    """A server process and what it cost per event, round by round, in microseconds."""

    name: str
    pid: int
    address: str
    rounds_us: list[float] = field(default_factory=list)

    def cpu_s(self) -> float:
        """CPU seconds so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@asynccontextmanager
async def _server(name: str, base_url: str, directory: Path, environ: dict[str, str]) -> AsyncIterator[Server]:
    config = directory / f"{name}.toml"
    sinks = '"otlp"' if name == "on" else '"none"'
    config.write_text(
        f'listen = "127.0.0.1:0"\ndefault_upstream = "bench"\n'
        f'[upstreams.bench]\nbase_url = "{base_url}"\ndialect = "codex"\n'
        f'[telemetry]\ntraces = {sinks}\nmetrics = {sinks}\nlog_format = "json"\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "warmline_cli.main",
        "serve",
        "--config",
        str(config),
        env=os.environ | environ,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        yield Server(name, process.pid, await _address(process.stderr))
    finally:
        process.terminate()
        await process.stderr.read()
        await process.wait()


async def _address(log: asyncio.StreamReader) -> str:
    seen = ""
    while line := (await log.readline()).decode():
        seen += line
        _, found, rest = line.partition('"address": "')
        if found:
            return rest.partition('"')[0]
    raise SystemExit(f"the server did not start:\n{seen}")


async def _round(server: Server, args: argparse.Namespace) -> int:
    """Runs turns on several lines at once. Returns: the events that came."""
    shape = {"sim_words": str(args.words), "sim_pace_s": str(args.pace)}

    async def one(client: warmline.Client, number: int) -> int:
        events, name = 0, f"{server.name}-{number}-{len(server.rounds_us)}"
        async with client.session(name, model="sim-small") as session:
            for _ in range(args.turns):
                async with session.turn("hello", request_json={"metadata": shape}) as turn:
                    async for _event in turn:
                        events += 1
        return events

    async with warmline.Client(server.address) as client:
        return sum(await asyncio.gather(*(one(client, number) for number in range(args.sessions))))


async def _measure(args: argparse.Namespace) -> int:
    traces, receiver = _Traces(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(traces, receiver)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(), receiver)  # type: ignore[no-untyped-call]
    port = receiver.add_insecure_port("127.0.0.1:0")
    await receiver.start()
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_METRIC_EXPORT_INTERVAL": "5000"}
    with tempfile.TemporaryDirectory() as directory:
        async with (
            Simulator(seed=1) as sim,
            _server("off", sim.base_url, Path(directory), {"OTEL_SDK_DISABLED": "true"}) as off,
            _server("on", sim.base_url, Path(directory), on) as traced,
        ):
            for number in range(args.rounds + 1):
                for server in (off, traced) if number % 2 else (traced, off):
                    before_s = server.cpu_s()
                    events = await _round(server, args)
                    if number:  # the first round warms up
                        server.rounds_us.append((server.cpu_s() - before_s) / events * 1e6)
    await receiver.stop(None)
    return _report(off, traced, traces.spans, events)


def _report(off: Server, on: Server, spans: int, events: int) -> int:
    plain_us, traced_us = statistics.median(off.rounds_us), statistics.median(on.rounds_us)
    cost = traced_us / plain_us - 1
    print(f"{'':10} {'median':>10} {'least':>10} {'most':>10}   µs of server CPU per event")
    for server in (off, on):
        rounds = server.rounds_us
        print(f"tracing {server.name:3} {statistics.median(rounds):9.2f} {min(rounds):10.2f} {max(rounds):10.2f}")
    print(f"cost {cost:+.1%} (limit {LIMIT:.0%}); {events} events a round, {spans} spans exported")
    return 0 if cost <= LIMIT else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="rounds per server that count; default %(default)s")
    parser.add_argument("--sessions", type=int, default=16, help="sessions at once; default %(default)s")
    parser.add_argument("--turns", type=int, default=2, help="turns per session and round; default %(default)s")
    parser.add_argument("--words", type=int, default=200, help="words per answer; default %(default)s")
    parser.add_argument(
        "--pace",
        type=float,
        default=0.01,
        help="seconds between words; default %(default)s. 0: as fast as it goes, which no model is, and which lets the "
        "server write hundreds of events as one",
    )
    return asyncio.run(_measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

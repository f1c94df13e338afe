"""The command: serves a simulator until it is told to stop. `warmline simulate`, or `python -m warmline_simulator`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

from warmline_simulator import ceiling, recording, tls
from warmline_simulator.eventloop import loop_factory
from warmline_simulator.records import HandshakeRecord, RequestRecord
from warmline_simulator.script import Script
from warmline_simulator.script_file import ScriptFileError, load
from warmline_simulator.simulator import Simulator

DEFAULT_PORT = 8088


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.description = "A scripted Responses-API upstream: WebSocket and HTTP on one port."
    parser.add_argument(
        "--script", type=Path, metavar="FILE", help="a YAML script; without one the small model answers"
    )
    parser.add_argument("--replay", type=Path, metavar="DIR", help="serve what --record wrote there")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write down what is served, for --replay")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve TLS with this certificate chain (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")
    parser.add_argument("--tls-self-signed", action="store_true", help="serve TLS with a certificate made for the run")
    parser.add_argument("--quiet", action="store_true", help="no line per handshake and request, even on a terminal")
    parser.add_argument("--ceiling", action="store_true", help="measure the simulator's own speed and exit")
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Arguments that are settings of the same name; None leaves the script's or the default."""
    group = parser.add_argument_group("behaviour (these win over the script's settings)")
    group.add_argument("--seed", type=int, help="the model's words follow from it")
    group.add_argument("--pace", type=float, dest="pace_s", metavar="S", help="seconds between the model's words")
    group.add_argument(
        "--first-delay", type=float, dest="first_delay_s", metavar="S", help="seconds before its first word"
    )
    group.add_argument("--words", type=int, help="length of its answers")
    group.add_argument("--strict", action="store_true", default=None, help="refuse and report what no script expects")
    group.add_argument(
        "--serial", action="store_true", default=None, help="one response at a time per socket, no lanes"
    )
    group.add_argument("--refuse-upgrades", type=int, metavar="STATUS", help="answer upgrades with it (426: use HTTP)")
    group.add_argument("--lifetime", type=float, dest="lifetime_s", metavar="S", help="age at which sockets are ended")
    group.add_argument(
        "--no-compression", action="store_false", default=None, dest="compression", help="decline permessage-deflate"
    )
    group.add_argument(
        "--token", action="append", dest="tokens", metavar="TOKEN", help="require one of these (repeatable)"
    )
    group.add_argument("--turn-state", metavar="TOKEN", help="send it as x-codex-turn-state")
    group.add_argument("--keep-records", type=int, metavar="N", help="records kept in memory (default: 1000)")


_SETTINGS = (
    "seed", "pace_s", "first_delay_s", "words", "strict", "serial", "refuse_upgrades", "lifetime_s", "compression",
    "tokens", "turn_state", "keep_records",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM.

    Returns:
        0 after a clean run, 1 when the run did not go as scripted, 2 when it could not start.
    """
    if args.ceiling:
        ceiling.main()
        return 0
    try:
        script, settings = _what_to_serve(args)
    except ScriptFileError as fault:
        print(fault, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        try:
            context = _tls(args, Path(scratch))
        except (OSError, ssl.SSLError) as fault:
            print(f"prepare TLS: {fault}", file=sys.stderr)
            return 2
        simulator = Simulator(script, tls=context, host=args.host, port=args.port, **settings)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_serve(simulator, args))


def _what_to_serve(args: argparse.Namespace) -> tuple[Script, dict[str, Any]]:
    settings: dict[str, Any] = {"keep_records": 1000}
    script = Script()
    if args.script is not None and args.replay is not None:
        raise ScriptFileError("choose what to serve: --script and --replay were both given — expected one")
    path = args.replay / "script.yaml" if args.replay is not None else args.script
    if path is not None:
        loaded = load(path)
        script, settings = loaded.script, {**settings, **loaded.settings}
    settings |= {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    if args.record is not None:
        settings |= {"keep_frames": True, "keep_records": None}
    return script, settings


def _tls(args: argparse.Namespace, scratch: Path) -> ssl.SSLContext | None:
    if args.tls_self_signed:
        certificate, key = tls.make_certificate(scratch, args.host)
        print(f"certificate for clients: {certificate}")
        return tls.server_context(certificate, key)
    if args.tls_cert is None:
        return None
    return tls.server_context(args.tls_cert, args.tls_key or args.tls_cert)


async def _serve(simulator: Simulator, args: argparse.Namespace) -> int:
    stop = _stop_on_signals()
    try:
        await simulator.start()
    except OSError as fault:
        print(f"listen on {args.host}:{args.port}: {fault.strerror or fault}", file=sys.stderr)
        return 2
    recorder = recording.Recorder(simulator.state, args.record) if args.record is not None else None
    if sys.stderr.isatty() and not args.quiet:
        simulator.state.observers.append(_print_line)
    print(f"simulator: {simulator.base_url} — {_describe(args)}", flush=True)
    await stop.wait()
    await simulator.stop()
    if recorder is not None:
        recorder.close()
    counters = dataclasses.asdict(simulator.counters)
    print("counters: " + " ".join(f"{name}={value}" for name, value in counters.items() if value), flush=True)
    problems = simulator.problems()
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _describe(args: argparse.Namespace) -> str:
    """What is served, in a few words."""
    if args.replay is not None:
        source = f"replay of {args.replay}"
    else:
        source = f"script {args.script}" if args.script is not None else "the small model"
    return f"{source}; POST responses (SSE, zstd), WebSocket responses, models, compact, memories; Ctrl-C ends it"


def _print_line(what: str, record: HandshakeRecord | RequestRecord) -> None:
    line = recording.describe(record, what)
    if line is not None:
        print(line, file=sys.stderr, flush=True)


def _stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set; installed before anybody is told that the command runs."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def main() -> int:
    """The command on its own."""
    parser = argparse.ArgumentParser(prog="python -m warmline_simulator")
    add_arguments(parser)
    return run(parser.parse_args())

"""`warmline serve`: settings in, a running server until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

from warmline_server.app import App, ListenError
from warmline_server.observe import log_pipe
from warmline_server.observe.otlp import TelemetryError
from warmline_server.settings import Settings, SettingsError, load

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--config", type=Path, help="TOML file; WARMLINE_* variables override it")
    parser.add_argument("--listen", help="address, for example 127.0.0.1:50051; port 0 takes a free one")


def run(args: argparse.Namespace) -> int:
    """Serves. Returns: 0 after a drain, 1 when it cannot listen, 2 for bad settings."""
    environ = dict(os.environ)
    if args.listen:
        environ["WARMLINE_LISTEN"] = args.listen
    try:
        settings = load(args.config, environ)
        pipe = log_pipe.configure(settings.telemetry.log_format, settings.telemetry.log_level)
        try:
            run_loop(_serve(settings))
        finally:
            pipe.close()
    except (SettingsError, ListenError, TelemetryError) as error:
        print(f"warmline: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    return 0


def run_loop(main: Coroutine[object, object, None]) -> None:
    """Runs a coroutine on uvloop where that is installed, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def spare_the_collector() -> None:
    """Keeps the garbage collector's longest pauses away from streams, once the server stands.

    A full collection visits every object while all calls wait: 60 ms with 1,000 sessions, every few seconds. What the
    start has made is never visited again; what calls leave is freed without the collector
    (tests/e2e/test_no_garbage.py) but for half a dozen small objects of grpc's, so full ones may be rarer.
    """
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 10 * old)


async def _serve(settings: Settings) -> None:
    """Serves until the first SIGTERM or SIGINT, then drains; a second one ends the drain at once."""
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with App(settings) as app:
        spare_the_collector()
        _log.info("serving", extra={"address": app.address, "upstreams": sorted(settings.upstreams)})
        await stop.wait()
        await app.drain(settings.drain.grace_s, hurry=hurry)
    _log.info("stopped")

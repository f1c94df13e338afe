"""Fixtures for users' tests: `pytest_plugins = ["warmline_simulator.pytest_plugin"]` in a conftest.

`simulator` starts simulators in the test's own event loop and ends them with it; `simulator_server` runs one beside
tests that are not asynchronous.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from warmline_simulator.script import Script
from warmline_simulator.simulator import Simulator


async def _running() -> AsyncIterator[Callable[..., Awaitable[Simulator]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(script: Script | None = None, **options: Any) -> Simulator:
            return await stack.enter_async_context(Simulator(script, **options))

        yield start


def _async_fixture(function: Any) -> Any:
    """The fixture decorator of pytest-asyncio, or pytest's own for another plugin that runs async fixtures."""
    try:
        import pytest_asyncio
    except ImportError:
        return pytest.fixture(name="simulator")(function)
    return pytest_asyncio.fixture(name="simulator")(function)


simulator = _async_fixture(_running)


class SimulatorServer:
    """A simulator on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)
        self._thread.start()
        self.simulator: Simulator | None = None

    @property
    def base_url(self) -> str:
        """Base URL of the running simulator. RuntimeError when none was started."""
        if self.simulator is None:
            raise RuntimeError("use the simulator: it was never started — expected a call of start()")
        return self.simulator.base_url

    def start(self, script: Script | None = None, **options: Any) -> Simulator:
        """Start it; read its records once the client under test is done."""

        async def begin() -> Simulator:
            simulator = Simulator(script, **options)
            await simulator.start()
            return simulator

        self.simulator = asyncio.run_coroutine_threadsafe(begin(), self._loop).result()
        return self.simulator

    def close(self) -> None:
        """End it and fail if the run did not go as scripted."""
        if self.simulator is not None:
            asyncio.run_coroutine_threadsafe(self.simulator.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.simulator is not None:
            self.simulator.assert_exhausted()


@pytest.fixture
def simulator_server() -> Iterator[SimulatorServer]:
    """Start it with `simulator_server.start(script)`; a run that did not go as scripted fails the test."""
    server = SimulatorServer()
    try:
        yield server
    except BaseException:
        server.simulator = None
        raise
    server.close()

"""How the event loop fares: how late it is, by a timer that tells when it should have fired, and how many tasks it has.

Blocking work anywhere in the process shows in the lag before it shows as slow turns; what is never ended, in the tasks.
"""

import asyncio

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from warmline_server.observe.metric_table import LOOP_LAG, LOOP_TASKS
from warmline_server.observe.metrics import histogram, open_meter

# Often enough to catch a stall of one timer's length; two timers a second cost nothing.
PERIOD_S = 0.5


class LoopLag:
    """Measures from `start`, which a running loop calls, to `stop`."""

    def __init__(self, provider: MeterProvider) -> None:
        self._lag = histogram(open_meter(provider), LOOP_LAG)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measures on the running loop from now on."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PERIOD_S, self._fired, loop, loop.time() + PERIOD_S)

    def stop(self) -> None:
        """Measures no more. Harmless when it does not run."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self, loop: asyncio.AbstractEventLoop, due_at_s: float) -> None:
        self._lag.record(max(0.0, loop.time() - due_at_s))
        self.start()


def observe_tasks(provider: MeterProvider, loop: asyncio.AbstractEventLoop) -> None:
    """Tells how many tasks the loop has, whenever metrics are collected: counting all of them is not for a timer."""

    def read(_options: CallbackOptions) -> list[Observation]:
        return [Observation(len(asyncio.all_tasks(loop)))]  # made to be asked from another thread, as a reader's is

    open_meter(provider).create_observable_gauge(LOOP_TASKS.name, [read], LOOP_TASKS.unit, LOOP_TASKS.says)

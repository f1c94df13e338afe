"""How late the event loop is: a timer that tells when it should have fired.

Blocking work anywhere in the process shows here before it shows as slow turns.
"""

import asyncio

from opentelemetry.metrics import MeterProvider

from warmline_server.observe.metric_table import LOOP_LAG
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

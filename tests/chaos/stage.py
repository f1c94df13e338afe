"""The whole line for one cell, with the proxy in the middle."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import warmline
from chaos.network import FALLBACK_AFTER_S, IDLE_TIMEOUT_S, PING_INTERVAL_S, PING_TIMEOUT_S
from chaos.proxy import Proxy
from chaos.scripted import MAX_EVENT_BYTES
from e2e.books import settled
from e2e.line import Event, pass_by, seconds, settings_for
from manual_clock import ManualClock
from observe.spans import EndedSpans
from warmline_server.app import App
from warmline_simulator import Script, Simulator

MODEL = "sim-small"
# Real seconds: far more than anything here takes, far less than a run that hangs may cost.
PATIENCE_S = 10.0
# The product's defaults, spelt out where the tests' usual line has others.
PROFILE: dict[str, Any] = {
    "fallback_after_s": FALLBACK_AFTER_S,
    "circuit_open_s": 30.0,
    "idle_timeout_s": IDLE_TIMEOUT_S,
    "idle_ping_interval_s": PING_INTERVAL_S,
    "idle_ping_timeout_s": PING_TIMEOUT_S,
    "compression": False,
    "max_event_bytes": MAX_EVENT_BYTES,
    "max_frame_bytes": MAX_EVENT_BYTES,
}


@dataclass(slots=True)
class Stage:
    """Both ends, the middle, and the proxy between the two last. Time at the server is moved by hand."""

    sim: Simulator
    proxy: Proxy
    app: App
    client: warmline.Client
    clock: ManualClock
    spans: EndedSpans
    left: list[str] = field(default_factory=list)
    """What the server left behind when it was closed."""


class Listener:
    """Reads one turn in the background; announced waits are passed by hand, each after `before_wait`.

    `stops_after`: it reads no more after so many events of a name, until `read_on`.
    """

    def __init__(
        self,
        turn: warmline.Turn,
        clock: ManualClock,
        *,
        before_wait: Callable[[], Awaitable[None]] | None = None,
        stops_after: tuple[str, int] | None = None,
    ) -> None:
        self.turn = turn
        self._before_wait = before_wait
        self._stops_after = stops_after
        self._reads_on = asyncio.Event()
        self.events: list[Event] = []
        self.error: warmline.WarmlineError | None = None
        self._clock = clock
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._listen(), name="chaos listener")

    async def _listen(self) -> None:
        try:
            async with self.turn as events:
                async for event in events:
                    self.events.append(event)
                    self._more.set()
                    if event.HasField("retrying"):
                        if self._before_wait is not None:
                            await self._before_wait()
                        await pass_by(self._clock, seconds(event.retrying))
                    if self._stops_after is not None and self.kinds.count(self._stops_after[0]) == self._stops_after[1]:
                        await self._reads_on.wait()
                        self._stops_after = None
        except warmline.WarmlineError as error:
            self.error = error
        finally:
            self._more.set()

    @property
    def kinds(self) -> list[str]:
        """Names of the events, oldest first."""
        return [str(event.WhichOneof("event")) for event in self.events]

    def of(self, kind: str) -> list[Any]:
        """The events of one name, as their own messages."""
        return [getattr(event, kind) for event in self.events if event.HasField(kind)]  # type: ignore[arg-type]

    def read_on(self) -> None:
        """It reads again."""
        self._reads_on.set()

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._task.done()

    async def until(self, kind: str, count: int = 1) -> None:
        """Returns once so many events of that name came. Raises: AssertionError when the call ends before."""
        async with asyncio.timeout(PATIENCE_S):
            while self.kinds.count(kind) < count:
                if self._task.done():
                    raise AssertionError(f"the call ended before {kind} came {count} times: {self.kinds} {self.error}")
                self._more.clear()
                await self._more.wait()

    async def ended(self) -> None:
        """Waits for the end of the call. Raises: AssertionError when it does not end."""
        _, left = await asyncio.wait([self._task], timeout=PATIENCE_S)
        if left:
            self._task.cancel()
            await asyncio.wait([self._task])
            raise AssertionError(f"the call does not end: {self.kinds}")
        self._task.result()

    async def give_up(self) -> None:
        """Ends the listening, whatever came of it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(condition: Callable[[], bool], wanted: str) -> None:
    """Lets the loop run until `condition` holds. Raises: AssertionError when it does not come."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {wanted}") from None


async def until_due(clock: ManualClock, after_s: float) -> None:
    """Returns once something is due at the server exactly that long from now: the clock stands still meanwhile."""
    at_s = clock.now_s() + after_s
    await until(
        lambda: any(abs(due_s - at_s) < 1e-6 for due_s in clock.pending_at_s),
        f"a limit of {after_s:g} s, found {[round(due_s - clock.now_s(), 3) for due_s in clock.pending_at_s]}",
    )


async def _note_left(stage: Stage) -> None:
    """The server is closed: nothing of it may be there."""
    if not await settled(lambda: not stage.proxy.open_links):
        stage.left.append(f"{len(stage.proxy.open_links)} connections to the upstream")
    counters = stage.sim.counters
    if not await settled(lambda: not counters.websockets_open and not counters.responses_running):
        stage.left.append(f"{counters.websockets_open} WebSockets, {counters.responses_running} answers upstream")
    if stage.spans.open:
        stage.left.append(f"spans that never ended: {stage.spans.open}")


@asynccontextmanager
async def open_stage(script: Script, *, limits: dict[str, Any] | None = None) -> AsyncIterator[Stage]:
    """Opens everything; the end closes it. The simulator does not fail the run for what was not asked for."""
    clock, spans = ManualClock(), EndedSpans()
    sim = Simulator(script, keep_frames=True)
    await sim.start()
    try:
        async with Proxy(sim.port) as proxy:
            settings = settings_for(
                f"http://127.0.0.1:{proxy.port}/v1", profile=PROFILE, limits={"slow_reader_s": 0.0, **(limits or {})}
            )
            async with (
                App(settings, clock=clock, span_processors=[spans]) as app,
                warmline.Client(app.address, retry=warmline.CallRetry(max_tries=1)) as client,
            ):
                stage = Stage(sim, proxy, app, client, clock, spans)
                yield stage
            await _note_left(stage)
    finally:
        await sim.stop()

"""The whole line for a test: the simulator as upstream, the real server, the real client, on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import warmline
from manual_clock import ManualClock
from warmline.items import Options
from warmline.v1 import session_service_pb2, trace_service_pb2, turn_service_pb2, types_pb2
from warmline_server.app import App
from warmline_server.clock import Clock
from warmline_server.settings import Credential, Limits, Settings, TurnMetadata, UpstreamProfile
from warmline_simulator import Reply, Script, Simulator

MODEL = "sim-large"
TRANSPORTS = pytest.mark.parametrize("transport", ["ws", "http"])
# Fields of a profile whose idle sockets are left alone.
NO_CARE = {"warm_socket_idle_ttl_s": 0.0, "idle_ping_interval_s": 0.0, "max_connection_age_s": 0.0}

Event = turn_service_pb2.TurnEvent
WarmUp = Literal["none", "handshake", "generate_false"]


@dataclass(frozen=True, slots=True)
class Line:
    """Both ends and the middle. `app.registry` has the sessions; `spans` what was traced."""

    sim: Simulator
    app: App
    client: warmline.Client
    spans: InMemorySpanExporter

    def session(
        self,
        session_id: str = "session-1",
        config: types_pb2.SessionConfig | None = None,
        *,
        start: Literal["now", "lazy"] = "now",
        **defaults: Unpack[Options],
    ) -> warmline.Session:
        """A session of the simulator's model; entering it begins the warm-up."""
        options: Options = {"model": MODEL}
        options.update(defaults)
        return self.client.session(session_id, config, start=start, **options)

    async def until(self, condition: Callable[[], bool], wanted: str) -> None:
        """Waits until the simulator has seen that; `condition` is asked after each thing that it sees."""
        await self.sim.state.watch.until(condition, timeout_s=5.0, wanted=wanted, seen=self.sim.describe)

    async def until_handshake_ended(self, index: int) -> None:
        """Waits until the connection of that upgrade is gone, answered or not."""
        await self.until(lambda: self.sim.handshakes[index].closed_at_s is not None, f"the end of upgrade {index}")

    async def until_calls(self, session: warmline.Session, count: int) -> None:
        """Waits until so many calls run or wait at the server, asking between one answer of it and the next."""
        async with asyncio.timeout(5.0):
            while self.app.registry.running_calls != count:
                await session.get()


@dataclass(slots=True)
class Heard:
    """What one call told its caller, to its end."""

    events: list[Event] = field(default_factory=list)
    error: warmline.WarmlineError | None = None
    snapshot: warmline.TurnResult | None = None

    @property
    def kinds(self) -> list[str]:
        """Names of the events, oldest first."""
        return [str(event.WhichOneof("event")) for event in self.events]

    def of(self, kind: str) -> list[Any]:
        """The events of one name, as their own messages."""
        return [getattr(event, kind) for event in self.events if event.HasField(kind)]  # type: ignore[arg-type]

    @property
    def result(self) -> warmline.TurnResult:
        """The outcome of a call that ended well."""
        if self.error is not None:
            raise self.error
        return self.so_far

    @property
    def so_far(self) -> warmline.TurnResult:
        """What was delivered, also when the call failed."""
        assert self.snapshot is not None, "the call was heard to its end"
        return self.snapshot

    @property
    def failure(self) -> warmline.WarmlineError:
        """The error of a call that failed."""
        assert self.error is not None, f"the call ended well: {self.kinds}"
        return self.error

    @property
    def outcomes(self) -> list[str]:
        """Where each attempt's socket came from."""
        return [
            types_pb2.SlotOutcome.Name(started.slot_outcome).removeprefix("SLOT_OUTCOME_")
            for started in self.of("attempt_started")
        ]

    @property
    def delays_s(self) -> list[float]:
        """The announced waits before resends."""
        return [seconds(retrying) for retrying in self.of("retrying")]


async def hear(turn: warmline.Turn, clock: ManualClock | None = None) -> Heard:
    """Runs a call to its end, well or not. With the server's `clock`, each announced wait is passed by hand."""
    heard = Heard()
    try:
        async with turn as events:
            async for event in events:
                heard.events.append(event)
                if clock is not None and event.HasField("retrying"):
                    await pass_by(clock, seconds(event.retrying))
    except warmline.WarmlineError as error:
        heard.error = error
    heard.snapshot = turn.snapshot()
    return heard


async def inferences(session: warmline.Session) -> list[trace_service_pb2.Inference]:
    """The session's attempts, newest first."""
    return [inference async for inference in session.list_inferences()]


async def answer(turn: warmline.Turn, clock: ManualClock | None = None) -> warmline.TurnResult:
    """Runs a call that shall end well."""
    return (await hear(turn, clock)).result


def seconds(retrying: turn_service_pb2.Retrying) -> float:
    """The wait that a resend announces."""
    return float(retrying.delay.ToNanoseconds()) / 1e9


async def pass_by(clock: ManualClock, duration_s: float) -> None:
    """Waits until the server waits for that long, and lets the time pass."""
    # What is told in whole nanoseconds may be a little less than the wait itself.
    duration_s += 1e-6
    if duration_s > 1e-6:
        await clock.wait_for_timer(duration_s)
    await clock.advance(duration_s)


async def admitted(turn: warmline.Turn) -> None:
    """Reads an entered turn's first event."""
    assert (await anext(turn)).HasField("admitted")


async def read_until(turn: warmline.Turn, kind: str) -> Event:
    """Reads an entered turn up to its next event of that name."""
    async for event in turn:
        if event.WhichOneof("event") == kind:
            return event
    raise AssertionError(f"the call ended without {kind}")


async def slot_state(session: warmline.Session) -> str:
    """IDLE, IN_FLIGHT or READY, as the server tells."""
    state = (await session.get()).slot.state
    return session_service_pb2.SlotState.Name(state).removeprefix("SLOT_STATE_")


async def until_session(
    session: warmline.Session, condition: Callable[[session_service_pb2.Session], bool]
) -> session_service_pb2.Session:
    """Watches the session's states until one is as wanted."""
    async with asyncio.timeout(5.0), session.watch() as states:
        async for state in states:
            if condition(state):
                return state
    raise AssertionError("the session was closed before it was as wanted")


async def until_slot(session: warmline.Session, state: str) -> session_service_pb2.Session:
    """Watches the session until its slot is IDLE, IN_FLIGHT or READY."""
    wanted = session_service_pb2.SlotState.Value(f"SLOT_STATE_{state}")
    return await until_session(session, lambda found: found.slot.state == wanted)


async def until_warm_up_failed(session: warmline.Session) -> session_service_pb2.Session:
    """Watches the session until its slot's last handshake has failed."""
    return await until_session(session, lambda found: bool(found.slot.last_failure_reason))


def session_config(
    *,
    warm_up: WarmUp | None = None,
    retries: int | None = None,
    request_retries: int | None = None,
    **fields: Any,
) -> types_pb2.SessionConfig:
    """A session's config in few words; `fields` are those of the message."""
    config = types_pb2.SessionConfig(**fields)
    if warm_up is not None:
        config.warm_up = types_pb2.WarmUpMode.Value(f"WARM_UP_MODE_{warm_up.upper()}")
    if retries is not None:
        config.retry_policy.stream_max_retries = retries
    if request_retries is not None:
        config.retry_policy.request_max_retries = request_retries
    return config


def config_for(transport: str, **fields: Any) -> types_pb2.SessionConfig:
    """A config of a session that uses that transport, "ws" or "http"."""
    return session_config(fallback_policy={"http_only": transport == "http"}, **fields)


def script_for(transport: str, *replies: Reply) -> Script:
    """Answers to the requests that come over that transport."""
    return Script(posts=replies) if transport == "http" else Script(creates=replies)


def settings_for(
    base_url: str,
    *,
    profile: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    turn_metadata: TurnMetadata | None = None,
) -> Settings:
    """Settings of a server on a free port with one upstream, "simulator", of the codex dialect.

    What would make a test wait is short or off: no jitter before a re-arm, no hedge towards HTTP.
    """
    chosen = {
        "base_url": base_url,
        "credential": Credential(source="none"),
        "dialect": "codex",
        "rearm_jitter_s": 0.0,
        "fallback_after_s": 0.0,
        "circuit_open_s": 0.0,
    }
    upstream = UpstreamProfile(**{**chosen, **(profile or {})})
    return Settings(
        listen="127.0.0.1:0",
        default_upstream="simulator",
        upstreams={"simulator": upstream},
        limits=Limits(**(limits or {})),
        turn_metadata=turn_metadata or TurnMetadata(),
    )


@asynccontextmanager
async def open_line(
    script: Script | None = None,
    *,
    profile: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    turn_metadata: TurnMetadata | None = None,
    clock: Clock | None = None,
    **simulator: Any,
) -> AsyncIterator[Line]:
    """Opens everything and closes it; the simulator then fails the test where its script was not used up.

    The client never sends a call again by itself.

    Args: `profile` fields of the upstream's profile; `limits` fields of the server's limits; `turn_metadata` that of
        calls which bring none; `clock` the server's time, None for real time; `simulator` its settings.
    """
    spans = InMemorySpanExporter()
    if clock is not None:
        # A write may be under way while a test moves the clock, and its reader is not slow.
        limits = {"slow_reader_s": 0.0, **(limits or {})}
    async with Simulator(script, **simulator) as sim:
        settings = settings_for(sim.base_url, profile=profile, limits=limits, turn_metadata=turn_metadata)
        async with (
            App(settings, clock=clock, span_processors=[SimpleSpanProcessor(spans)]) as app,
            warmline.Client(app.address, retry=warmline.CallRetry(max_tries=1)) as client,
        ):
            yield Line(sim, app, client, spans)

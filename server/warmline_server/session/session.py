"""A session: one conversation's transport state.

Owns the slot's keeper, the lanes with their sockets, the fallback latch and the window. A call (`call.py`) borrows
from it and gives back.
"""

import importlib.metadata
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from warmline_server.clock import Clock
from warmline_server.core import outgoing
from warmline_server.core.config import SessionConfig, WarmUp
from warmline_server.core.errors import CallerError, Heal, Reason, ServiceError, UpstreamFailure
from warmline_server.core.events import RateLimits, Transport
from warmline_server.core.items import of_provider
from warmline_server.core.rate_limits import MAX_FAMILIES
from warmline_server.core.records import CallRecord, ConnectRecord, SessionRecord
from warmline_server.core.request import Settings, base_settings, build, merge
from warmline_server.core.request_reader import RequestReader
from warmline_server.core.slot import SlotState
from warmline_server.ids import new_id
from warmline_server.session.attempt import IdleWatch
from warmline_server.session.call import Call
from warmline_server.session.call_spec import CallSpec, Sink
from warmline_server.session.changes import Changes
from warmline_server.session.handshake import Handshake
from warmline_server.session.keeper import Acquisition, SlotKeeper
from warmline_server.session.lane import Lane
from warmline_server.session.latch import Latch
from warmline_server.session.observer import Observer
from warmline_server.session.running_calls import RunningCalls
from warmline_server.session.turn_metadata import TurnMetadataSource
from warmline_server.session.unary import Compacted, Summaries, Trace, UnaryCalls
from warmline_server.session.upstream import Upstream
from warmline_server.session.warm_sockets import Lost, WarmSockets
from warmline_server.session.warm_up import WarmUpRequest
from warmline_server.settings import Limits
from warmline_server.transport.websocket import WebSocket

VERSION = importlib.metadata.version("warmline")
USER_AGENT = f"warmline/{VERSION}"

_NO_CARRIER: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions of a server share."""

    clock: Clock
    observer: Observer
    limits: Limits
    warm_sockets: WarmSockets
    turn_metadata: TurnMetadataSource
    default_warm_up: WarmUp
    jitter: Callable[[], float] = field(default=lambda: random.uniform(-1.0, 1.0))


class Session:
    """One conversation's line to its upstream. Everything here runs on one event loop."""

    def __init__(
        self, session_id: str, tenant: str, config: SessionConfig, upstream: Upstream, around: Surroundings
    ) -> None:
        self.config = config
        self.upstream = upstream
        self.around = around
        self.clock = around.clock
        self.observer = around.observer
        self.record = SessionRecord(
            session_id=session_id,
            conversation_id=config.conversation_id or new_id(),
            tenant=tenant,
            upstream=upstream.name,
            provider=upstream.profile.provider,
            server_address=upstream.profile.address,
            server_port=upstream.profile.port,
        )
        wish = config.latch_reprobe_s
        self.latch = Latch(
            self.clock,
            reprobe_s=upstream.profile.latch_reprobe_s if wish is None else wish,
            probe=lambda: self._probe(self._latch_probed),
        )
        self.calls = RunningCalls()
        self.changes = Changes()
        self.window_generation = 0
        self.lanes: dict[str, Lane] = {}
        self.rate_limits: dict[str, tuple[RateLimits, int]] = {}
        self.created_unix_ns = self.active_unix_ns = self.clock.unix_ns()
        self.active_at_s = self.clock.now_s()
        self.closed = False
        self.draining = False
        self._probes: set[Handshake] = set()
        self.keeper = SlotKeeper(
            open_warm=lambda: self.open_handshake(None, None, warm_up_request=self._warm_up_request()),
            may_warm=self._may_warm,
            is_current=lambda handshake: handshake.window_generation == self.window_generation,
            failed=self._warm_up_failed,
            changed=self._slot_changed,
            warm_sockets=around.warm_sockets,
            idle_policy=upstream.idle_policy,
            clock=self.clock,
            warm_up_limit_s=upstream.profile.connect_timeout_s,
            rearm_delay_s=upstream.rearm_delay_s,
        )
        self.observer.session_opened(self.record)
        self._latch_if_http_only()
        self.keeper.arm()

    @property
    def session_id(self) -> str:
        return self.record.session_id

    @property
    def idle_ttl_s(self) -> float:
        """Seconds without a call after which the session is closed; 0: never."""
        limit = self.around.limits.session_idle_ttl_s
        wish = self.config.idle_ttl_s
        return limit if wish is None else min(wish, limit) if limit else wish

    # Calls

    def max_duration_s(self, wish_s: float | None) -> float:
        """The longest a call may take: the least of the caller's wish, the session's limit and the operator's."""
        limits = (self.around.limits.max_turn_duration_s, self.config.max_turn_duration_s, wish_s)
        return min(limit for limit in limits if limit is not None)

    async def run_call(self, spec: CallSpec, sink: Sink, record: CallRecord) -> None:
        """Runs one call to its end.

        Raises: WarmlineError; asyncio.CancelledError or CallerGone when the caller went away.
        Cancel: stops the upstream read at once; the books are closed.
        """
        if self.closed:
            raise ServiceError(Reason.SESSION_CLOSED, f"session {self.session_id!r} was closed")
        self.calls.refuse_used(spec.request_id)
        # Before the lane, so that a request that is wrong leaves none behind.
        reader = self.lanes[spec.lane].reader if spec.lane in self.lanes else RequestReader()
        whole = build(spec.settings, spec.items, reader=reader) if spec.append_at is None else None
        call = Call(self, self._lane(spec.lane, reader), spec, sink, record, whole)
        self.touch()
        try:
            with self.calls.running(call):
                await call.run()
        finally:
            self.touch()

    def _lane(self, name: str, reader: RequestReader) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            limit = self.around.limits.max_lanes
            if self.config.max_lanes is not None:
                limit = min(limit, self.config.max_lanes)
            if len(self.lanes) >= limit:
                raise ServiceError(
                    Reason.LIMIT_EXCEEDED,
                    f"the session has {len(self.lanes)} lanes, the most allowed; lane {name!r} would be one more",
                    limit="max_lanes",
                )
            lane = self.lanes[name] = Lane(
                name,
                reader,
                turn_state_ttl_s=self.around.limits.max_turn_duration_s,
                max_waiting=self.around.limits.max_waiting_calls_per_lane,
            )
        return lane

    # Calls that are answered whole

    async def compact(self, lane_name: str, items: tuple[bytes, ...], overrides: Settings, turn_id: str) -> Compacted:
        """Has the provider compact a conversation (empty: the lane's transcript), and starts a new window with it.

        Raises: WarmlineError. Cancel: the request is dropped, the window stays.
        """
        lane = self.lanes.get(lane_name)
        held = lane is not None and not items
        if lane is not None and held:
            items = lane.transcript.items if lane.transcript is not None else ()
        facts = self.facts(
            await self.around.turn_metadata.get(b""), turn_state=None, request_id=new_id(), turn_id=turn_id
        )
        settings = self.settings({}, overrides)
        compacted = await self._unary().compact(settings, items, facts)
        if compacted.items:
            self.advance_window(None)
            if lane is not None and held:
                lane.transcript, lane.history_position = of_provider(compacted.items), len(compacted.items)
        return compacted

    async def summarize(self, model: str, effort: str | None, traces: Sequence[Trace]) -> Summaries:
        """Has the provider summarize traces into memories. Raises: WarmlineError. Cancel: the request is dropped."""
        facts = self.facts(b"", turn_state=None, request_id=new_id())
        if not model:
            model = msgspec.json.decode(self.config.defaults.get("model", b'""'), type=str)
        if not model:
            raise CallerError(
                Reason.INVALID_REQUEST, "model: no model is named, and the session has none", field="model"
            )
        return await self._unary().summarize(model, effort, traces, facts)

    def _unary(self) -> UnaryCalls:
        """Holds nothing of a session's: its cache of models is the registry's affair."""
        return UnaryCalls(self.upstream, self.clock, self.around.jitter)

    # Sockets

    @property
    def wants_websocket(self) -> bool:
        """Whether calls go over the WebSocket."""
        return not self.latch.active

    @property
    def warm_up(self) -> WarmUp:
        return self.config.warm_up or self.around.default_warm_up

    def _may_warm(self) -> bool:
        unwanted = self.closed or self.draining or self.warm_up is WarmUp.NONE
        return self.wants_websocket and not unwanted

    def open_handshake(
        self, call: Call | None, turn_state: str | None, *, warm_up_request: Settings | None = None
    ) -> Handshake:
        """Starts a handshake for a call, or (None) for the slot; a warm-up replays no routing token.

        Args: `warm_up_request`: settings of the request that follows on the open socket; None: none does.
        """
        record = ConnectRecord(
            connection_id=new_id(),
            session=self.record,
            call=call.record if call is not None else None,
            started_unix_ns=self.clock.unix_ns(),
            started_at_s=self.clock.now_s(),
        )
        handshake = Handshake(record, carries_turn_state=turn_state is not None)
        handshake.start(self._connect(handshake, call, turn_state, warm_up_request))
        return handshake

    async def _connect(
        self, handshake: Handshake, call: Call | None, turn_state: str | None, warm_up_request: Settings | None
    ) -> WebSocket:
        """The work of every handshake, whoever it is for."""
        record, profile = handshake.record, self.upstream.profile
        metadata = await self.around.turn_metadata.get(call.spec.turn_metadata if call is not None else b"")
        handshake.window_generation = self.window_generation
        facts = self.facts(metadata, turn_state=turn_state, request_id=record.connection_id)
        headers = outgoing.handshake_headers(
            facts, profile.provider_headers, profile.extra_headers, dict(await self.upstream.credential.headers())
        )
        socket = await self.upstream.connect(record, headers)
        handshake.upgraded.set()
        if warm_up_request is not None:
            await WarmUpRequest(self, handshake, warm_up_request).run(socket, metadata)
        return socket

    def _warm_up_request(self) -> Settings | None:
        """What a warm-up sends: nothing, unless the mode says so and no call has run yet (C-027)."""
        if self.warm_up is not WarmUp.GENERATE_FALSE or self.lanes or "model" not in self.config.defaults:
            return None
        return self.settings({}, {})

    def settings(self, extra: Settings, overrides: Settings) -> Settings:
        """A request's body fields. Raises: CallerError when no model is named."""
        base = base_settings(self.record.conversation_id, store=self.upstream.profile.stores_by_default)
        return merge(base, extra, self.config.defaults, overrides)

    async def acquire(self, call: Call) -> Acquisition | None:
        """A socket for a call's attempt, from the slot or new; None when the session was latched meanwhile.

        As `SlotKeeper.acquire`.
        """
        wish = self.config.fallback_after_s
        patience_s = self.upstream.profile.fallback_after_s if wish is None else wish
        token = call.lane.turn_state.token(self.clock.now_s())

        def open_cold() -> Handshake | None:
            return self.open_handshake(call, token) if self.wants_websocket else None

        return await self.keeper.acquire(open_cold, patience_s=patience_s or None)

    def _warm_up_failed(self, failure: UpstreamFailure) -> None:
        """A warm-up surfaces no error, but an upstream that asks for HTTP is believed at once (C-030)."""
        if failure.heal is Heal.HTTP:
            self.fall_back("upgrade_required", None)

    def probe_circuit(self) -> None:
        """While the circuit is open, one handshake at a time tries the upstream in the background."""
        if self.upstream.take_probe():
            self._probe(self.keeper.offer)

    def _probe(self, ended: Callable[[Handshake], None]) -> None:
        """Opens a socket that no call waits for."""
        probe = self.open_handshake(None, None)
        self._probes.add(probe)

        def finish(_task: object) -> None:
            self._probes.discard(probe)
            ended(probe)

        probe.task.add_done_callback(finish)

    def facts(
        self,
        turn_metadata: bytes,
        *,
        turn_state: str | None,
        request_id: str,
        turn_id: str = "",
        trace_carrier: Mapping[str, str] = _NO_CARRIER,
    ) -> outgoing.Facts:
        """What headers and client metadata tell the upstream about this session."""
        config, profile = self.config, self.upstream.profile
        return outgoing.Facts(
            dialect=profile.dialect,
            conversation_id=self.record.conversation_id,
            window_generation=self.window_generation,
            installation_id=config.installation_id or profile.installation_id,
            source=config.source,
            sub_agent_label=config.sub_agent_label,
            parent_thread_id=config.parent_thread_id,
            turn_metadata=turn_metadata,
            turn_state=turn_state,
            turn_state_via=profile.turn_state_via,
            beta_features=profile.beta_features,
            timing_metrics=profile.timing_metrics,
            originator=profile.originator,
            user_agent=profile.user_agent or USER_AGENT,
            request_id=request_id,
            turn_id=turn_id,
            traceparent=trace_carrier.get("traceparent", ""),
            tracestate=trace_carrier.get("tracestate", ""),
        )

    def idle_watch(self, transport: Transport) -> IdleWatch:
        """A watch over one exchange, with the upstream's limits."""
        profile = self.upstream.profile
        return IdleWatch(self.clock, transport, first_s=profile.first_event_timeout_s, between_s=profile.idle_timeout_s)

    def park(self, lane: Lane) -> None:
        """A call left its lane's socket usable, or never took it: it waits there for the next call."""
        acquired, warm_sockets = lane.acquired, self.around.warm_sockets
        if acquired is None:
            return
        unwanted = "session closed" if self.closed else "fallback" if not self.wants_websocket else ""
        unwanted = unwanted or ("window" if lane.generation != self.window_generation else "")
        if unwanted:
            lane.forget_socket()
            warm_sockets.take(acquired.socket)
            acquired.socket.close(unwanted)
        elif acquired.socket not in warm_sockets:
            lost = partial(self._lane_lost, lane)
            warm_sockets.park(self.record.tenant, acquired.socket, self.upstream.idle_policy, lost)

    def give_up_socket(self, lane: Lane, cause: str) -> None:
        """A call that did not end well cuts its lane's socket, unless it never took it: then nothing was sent on it."""
        if lane.acquired is not None and lane.acquired.socket not in self.around.warm_sockets:
            lane.drop_socket(cause)

    def take_parked(self, lane: Lane) -> Acquisition | None:
        """The lane's own socket for the next attempt; None when it has none that is open."""
        acquired = lane.acquired
        if acquired is None:
            return None
        self.around.warm_sockets.take(acquired.socket)
        if acquired.socket.is_open:
            return acquired
        lane.forget_socket()
        acquired.socket.drop("stale")
        return None

    def _lane_lost(self, lane: Lane, lost: Lost) -> None:
        acquired = lane.forget_socket()
        assert acquired is not None, "a parked lane has a socket"
        acquired.socket.close(lost.value)
        self.changes.note()
        if lost.wants_another:
            self.keeper.rearm_soon()

    # Fallback and window

    def fall_back(self, reason: str, call: CallRecord | None) -> bool:
        """Latches the session to HTTP and drops its idle sockets. Returns: whether this was the first time (C-034)."""
        first = not self.latch.active
        if first:
            self.latch.set(reason)
            self.observer.fell_back(self.record, call, reason, latched=True)
        self._drop_idle_sockets("fallback")
        self.changes.note()
        return first

    def _latch_if_http_only(self) -> None:
        if self.config.http_only:
            self.latch.set_for_good("http_only")
        elif not self.upstream.profile.supports_websockets or self.upstream.profile.kind == "fixture":
            self.latch.set_for_good("upstream_without_websockets")

    def _latch_probed(self, probe: Handshake) -> None:
        """The WebSocket was tried in the background; no call waited for it (D-16)."""
        if probe.socket() is not None:
            self.latch.release()
            self.observer.unlatched(self.record)
        elif not self.closed:
            self.latch.probe_later()
        self.keeper.offer(probe)
        self.changes.note()

    def advance_window(self, expected: int | None) -> int:
        """Starts a new window: each lane's next call opens a new socket and sends everything (C-065).

        Raises: CallerError when `expected` is not the present generation.
        """
        if expected is not None and expected != self.window_generation:
            raise CallerError(
                Reason.HISTORY_CONFLICT,
                f"expected_generation is {expected}, the session's window_generation is {self.window_generation}",
                field="expected_generation",
            )
        self.window_generation += 1
        if self.keeper.state is SlotState.IN_FLIGHT:
            self.keeper.arm(replace=True)  # C-010: its handshake names the old window
        self._drop_idle_sockets("window", slot_too=self.keeper.state is not SlotState.IN_FLIGHT)
        self.keeper.arm()
        self.changes.note()
        return self.window_generation

    def _drop_idle_sockets(self, cause: str, *, slot_too: bool = True) -> None:
        if slot_too:
            self.keeper.clear(cause)
        for lane in self.lanes.values():
            acquired = lane.acquired
            if lane.running is None and acquired is not None:
                lane.forget_socket()
                self.around.warm_sockets.take(acquired.socket)
                acquired.socket.close(cause)

    # Life

    def touch(self) -> None:
        """A call started or ended."""
        self.active_at_s, self.active_unix_ns = self.clock.now_s(), self.clock.unix_ns()
        self.changes.note()

    def note_rate_limits(self, limits: RateLimits) -> None:
        """Keeps the newest snapshot of each family."""
        self.rate_limits.pop(limits.limit_id, None)
        self.rate_limits[limits.limit_id] = (limits, self.clock.unix_ns())
        if len(self.rate_limits) > MAX_FAMILIES:
            del self.rate_limits[next(iter(self.rate_limits))]  # the one not told of for longest
        self.changes.note()

    def drain(self) -> None:
        """Running calls go on; nothing is opened or kept for calls that will not come."""
        self.draining = True
        self.keeper.clear("draining")
        self.changes.note()

    def close(self, reason: str) -> None:
        """Ends the session: running calls end with SESSION_CLOSED, its sockets say goodbye. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.latch.close()
        self.calls.stop(ServiceError(Reason.SESSION_CLOSED, f"session {self.session_id!r} was closed ({reason})"))
        for probe in self._probes:
            probe.abort()
        self._drop_idle_sockets("session closed", slot_too=False)
        self.keeper.close("session closed")
        self.observer.session_closed(self.record, reason)
        self.changes.note()

    def _slot_changed(self, former: SlotState, now: SlotState) -> None:
        self.observer.slot_changed(self.record, former.name, now.name)
        self.changes.note()

"""One StreamTurn call: takes its lane, runs attempts until one ends well, and leaves the lane usable.

What follows a failure is decided in `core.retry`; what is sent in `core.delta`. This shell obeys, and makes sure that
whatever ends a call stops the upstream read, closes the books and drops a socket that is out of step.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import msgspec

from warmline_server.clock import TimeLimit, Timer
from warmline_server.core import delta, failures, outgoing, retry
from warmline_server.core import request as requests
from warmline_server.core.errors import (
    CallerError,
    Reason,
    ServiceError,
    UpstreamFailure,
    WarmlineError,
)
from warmline_server.core.events import (
    Admitted,
    AttemptStarted,
    Completed,
    Emission,
    FellBack,
    FullReason,
    RateLimits,
    Restarted,
    SlotOutcome,
    Transport,
)
from warmline_server.core.items import Conversation, of_provider
from warmline_server.core.records import AttemptKind, AttemptRecord, AttemptStatus, CallOutcome, CallRecord
from warmline_server.core.request import ModelRequest
from warmline_server.ids import new_id
from warmline_server.session.attempt import Attempt
from warmline_server.session.call_spec import CallerGone, CallSpec, OnBusy, Sink
from warmline_server.session.keeper import Acquisition, HandshakeUnanswered
from warmline_server.session.lane import Lane
from warmline_server.session.outbox import Outbox
from warmline_server.session.resends import Resends
from warmline_server.transport.base import Exchange
from warmline_server.transport.fixture import open_fixture

if TYPE_CHECKING:
    from warmline_server.session.session import Session


class Call:
    """One call on one lane. Made and run by its session, in the RPC's own task.

    `whole` is the request of a FULL call; None for APPEND, whose request is put together when the lane is the call's.
    """

    def __init__(
        self,
        session: "Session",
        lane: Lane,
        spec: CallSpec,
        sink: Sink,
        record: CallRecord,
        whole: ModelRequest | None,
    ) -> None:
        self.session = session
        self.lane = lane
        self.spec = spec
        self.record = record
        self.completed = False
        self._outbox = Outbox(sink, keeps_items=spec.retry is retry.RetryMode.REFERENCE)
        self._resends = Resends(session, spec, record, self._outbox)
        self._task: asyncio.Task[object] | None = None
        self._stopped: WarmlineError | None = None
        self._timers: list[Timer] = []
        self._base = whole
        self._request: ModelRequest | None = None
        self._metadata = b""
        self._attempt: Attempt | None = None
        self._newest: AttemptRecord | None = None
        self._announce_restart = False

    # From the outside

    def stop(self, error: WarmlineError) -> None:
        """Ends the call with `error`, wherever it is; the first reason counts."""
        if self._stopped is None and self._task is not None:
            self._stopped = error
            self._task.cancel()

    async def run(self) -> None:
        """Runs the call to its end. As `Session.run_call`."""
        self._task = asyncio.current_task()
        self._refuse_busy()
        self.session.observer.call_started(self.record)
        self._set_timers()
        error: BaseException | None = None
        try:
            await self._run_in_lane()
        except asyncio.CancelledError as cancelled:
            error = self._why_cancelled(cancelled)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the books are closed, and it goes on to the edge
            error = failure
        finally:
            for timer in self._timers:
                timer.cancel()
            self._close_books(error)
        if error is not None:
            try:
                raise error
            finally:
                # It holds this frame: a circle that would keep the whole call until the collector comes by.
                del error

    def _why_cancelled(self, cancelled: asyncio.CancelledError) -> BaseException:
        """Our own stop, made an error; else the caller's, which stays a cancellation."""
        assert self._task is not None
        if self._stopped is None:
            return cancelled
        self._task.uncancel()
        return self._stopped

    def _close_books(self, error: BaseException | None) -> None:
        record, clock = self.record, self.session.clock
        if error is not None and not self.completed:
            gone = isinstance(error, asyncio.CancelledError | CallerGone)
            record.outcome = CallOutcome.CANCELLED if gone or self._stopped is error else CallOutcome.FAILED
            if not gone:
                ours = ServiceError(Reason.INTERNAL, "a fault of this server")
                record.error = error if isinstance(error, WarmlineError) else ours
        record.ended_at_s, record.ended_unix_ns = clock.now_s(), clock.unix_ns()
        record.events_sent = self._outbox.sequence
        self.session.observer.call_ended(record)

    def _set_timers(self) -> None:
        clock, spec = self.session.clock, self.spec
        self._timers.append(clock.call_at(self.record.started_at_s + spec.max_duration_s, self._too_long))
        if spec.deadline_at_s is not None:
            self._timers.append(clock.call_at(spec.deadline_at_s, self._too_late))

    def _too_long(self) -> None:
        limit_s = self.spec.max_duration_s
        text = f"the call did not end within its max_duration of {limit_s:g} s"
        self.stop(ServiceError(Reason.MAX_DURATION_EXCEEDED, text))

    def _too_late(self) -> None:
        self.stop(ServiceError(Reason.DEADLINE_EXCEEDED, "the call did not end within its deadline"))

    # In the lane

    def _refuse_busy(self) -> None:
        running = self.lane.running
        if running is not None and self.spec.on_busy is OnBusy.REJECT:
            raise ServiceError(
                Reason.LANE_BUSY,
                f"lane {self.lane.name!r} runs the call {running.spec.request_id!r} of turn {running.spec.turn_id!r}",
            )

    async def _run_in_lane(self) -> None:
        running, preempts = self.lane.running, self.spec.on_busy is OnBusy.PREEMPT
        if running is not None and preempts:
            running.stop(
                ServiceError(Reason.TURN_PREEMPTED, f"the call {self.spec.request_id!r} took lane {self.lane.name!r}")
            )
        await self.lane.enter(self, first=preempts)
        try:
            await self._run_attempts()
        except BaseException:
            if not self.completed:
                # Whatever ended the call, a response may still be on its way: the socket is out of step (D-4).
                self.session.give_up_socket(self.lane, "abandoned")
            raise
        finally:
            self.lane.leave()
            self.session.park(self.lane)

    async def _run_attempts(self) -> None:
        spec, lane = self.spec, self.lane
        self._request = self._base = self._base or self._appended()
        lane.turn_state.begin(spec.turn_id)
        self._metadata = await self.session.around.turn_metadata.get(spec.turn_metadata)
        conversation_id = self.session.record.conversation_id
        self._outbox.add(Admitted(spec.turn_id, spec.request_id, conversation_id, spec.session_created), 0)
        while True:
            try:
                await self._run_attempt()
                return
            except UpstreamFailure as failure:
                # The frames that it passed hold the attempt, whose record holds it: a circle, with the request in it.
                failure.__traceback__ = None
                self.session.give_up_socket(lane, "failed")
                await self._resends.after(failure, self._attempt)
                if self.record.output_delivered:
                    self._restart()

    def _appended(self) -> ModelRequest:
        """The whole request of an APPEND call: the lane's transcript and the new items."""
        lane, spec = self.lane, self.spec
        lane.uses_append = True
        if lane.transcript is None or (spec.append_at != lane.history_position and lane.history_position == 0):
            raise ServiceError(
                Reason.TRANSCRIPT_LOST, f"the server does not hold the conversation of lane {lane.name!r}; send it FULL"
            )
        if spec.append_at != lane.history_position:
            raise CallerError(
                Reason.HISTORY_CONFLICT,
                f"expected_history_position is {spec.append_at}, the lane's position is {lane.history_position}",
                field="expected_history_position",
            )
        if not spec.items:
            raise CallerError(Reason.INVALID_REQUEST, "input is empty; expected at least one item", field="input")
        return requests.build(spec.settings, spec.items, before=lane.transcript, reader=lane.reader)

    # One attempt

    async def _run_attempt(self) -> None:
        self._attempt = None
        acquisition = await self._acquire()
        if acquisition is None:
            await self._run_without_socket()
        else:
            await self._run_over_websocket(acquisition)

    async def _acquire(self) -> Acquisition | None:
        """The socket for the next attempt; None when it goes over HTTP.

        Raises: UpstreamFailure of the handshake.
        """
        session, lane = self.session, self.lane
        if not session.wants_websocket:
            return None
        acquired = session.take_parked(lane)
        if acquired is not None:
            return msgspec.structs.replace(acquired, outcome=SlotOutcome.REUSED)
        if not self._may_wait_for_handshake():
            self._pass_over("circuit_open")
            return None
        await self._outbox.flush()  # a handshake may take a while: the caller should know that it was admitted
        try:
            acquisition = await session.acquire(self)
        except HandshakeUnanswered as unanswered:
            if unanswered.began:
                session.upstream.trip_circuit()
            self._pass_over("handshake_unanswered")
            return None
        if acquisition is None:
            self._outbox.add(FellBack(latched=True, reason=session.latch.reason), self.record.attempts)
            return None
        lane.acquired, lane.generation = acquisition, acquisition.handshake.window_generation
        lane.baseline = acquisition.handshake.baseline
        if session.upstream.profile.turn_state_via == "handshake":
            self.note_turn_state(acquisition.handshake.turn_state)
        return acquisition

    def _may_wait_for_handshake(self) -> bool:
        session = self.session
        if session.upstream.circuit.allows_waiting or session.keeper.ready_connection_id:
            return True
        session.probe_circuit()
        return False

    def _pass_over(self, reason: str) -> None:
        """This attempt goes over HTTP; the session stays with the WebSocket (D-14)."""
        self._outbox.add(FellBack(latched=False, reason=reason), self.record.attempts)
        self.session.observer.fell_back(self.session.record, self.record, reason, latched=False)

    async def _run_over_websocket(self, acquisition: Acquisition) -> None:
        session, lane, request = self.session, self.lane, self._whole_request
        plan = self._plan(acquisition)
        lane.baseline = None  # whatever the response becomes, the former one is no longer the last
        record = self._new_record(Transport.WEBSOCKET, plan, acquisition)
        facts = self._facts(record)
        record.request = requests.frame(
            request, plan, outgoing.client_metadata(facts), stream_field=session.upstream.profile.sends_stream_field
        )
        attempt = self._begin(record)
        try:
            exchange = await acquisition.socket.send(record.request, session.upstream.profile.send_timeout_s)
            await self._outbox.flush()
            watch = self.session.idle_watch(Transport.WEBSOCKET)
            if session.upstream.profile.ping_counts_as_activity:
                acquisition.socket.on_ping = watch.note_ping
            await attempt.read(exchange, watch, self)
        except BaseException as error:
            self._end_badly(attempt, error)
            raise

    async def _run_without_socket(self) -> None:
        is_fixture = self.session.upstream.profile.kind == "fixture"
        transport = Transport.FIXTURE if is_fixture else Transport.HTTP
        record = self._new_record(transport, delta.Plan(full_reason=FullReason.TRANSPORT), None)
        facts = self._facts(record)
        record.request = requests.body(self._whole_request, outgoing.body_metadata(facts))
        attempt = self._begin(record)
        exchange: Exchange | None = None
        try:
            await self._outbox.flush()
            exchange = await (self._play_fixture() if is_fixture else self._post(facts, record.request))
            await attempt.read(exchange, self.session.idle_watch(transport), self)
        except BaseException as error:
            if exchange is not None:
                exchange.abandon()
            self._end_badly(attempt, error)
            raise

    async def _play_fixture(self) -> Exchange:
        return await open_fixture(self.session.upstream.profile.fixture_path)

    def _facts(self, record: AttemptRecord) -> outgoing.Facts:
        session = self.session
        return session.facts(
            self._metadata,
            turn_state=self.lane.turn_state.token(session.clock.now_s()),
            request_id=record.attempt_id,
            turn_id=self.spec.turn_id,
            trace_carrier=self.record.trace_carrier,
        )

    async def _post(self, facts: outgoing.Facts, body: bytes) -> Exchange:
        """Sends a POST; its answer's head counts as the first event for the idle limit."""
        upstream, clock = self.session.upstream, self.session.clock
        profile = upstream.profile
        credential = dict(await upstream.credential.headers())
        headers = outgoing.post_headers(facts, profile.provider_headers, profile.extra_headers, credential)
        limit_s = profile.first_event_timeout_s or profile.idle_timeout_s
        try:
            async with TimeLimit(clock, clock.now_s() + limit_s if limit_s > 0 else None):
                return await upstream.http.open(
                    upstream.http_url,
                    headers,
                    body,
                    compress=profile.zstd,
                    connect_timeout_s=profile.connect_timeout_s,
                )
        except TimeoutError as error:
            raise failures.idle(Transport.HTTP, limit_s, first=True) from error

    def _plan(self, acquisition: Acquisition) -> delta.Plan:
        if self._resends.forgotten:
            return delta.Plan(full_reason=FullReason.PREVIOUS_RESPONSE_LOST)
        if acquisition.outcome is not SlotOutcome.REUSED and self.lane.baseline is None:
            return delta.Plan(full_reason=FullReason.NEW_SOCKET)
        request = self._whole_request
        return delta.plan(self.lane.baseline, request.canonical_settings, request.history)

    def _new_record(self, transport: Transport, plan: delta.Plan, acquisition: Acquisition | None) -> AttemptRecord:
        session = self.session
        self.record.attempts += 1
        record = AttemptRecord(
            attempt_id=new_id(),
            session=session.record,
            call=self.record,
            number=self.record.attempts,
            kind=AttemptKind.TURN,
            model=self._whole_request.model,
            transport=transport,
            started_unix_ns=session.clock.unix_ns(),
            started_at_s=session.clock.now_s(),
            incremental=plan.full_reason is None,
            full_reason=plan.full_reason,
            mismatch=plan.mismatch,
            previous_response_id=plan.previous_response_id,
            replaces=self._newest,
            auth_mode=session.upstream.credential.facts.mode,
            auth_recovery_step=self._resends.recovery_step,
        )
        if acquisition is not None:
            record.slot_outcome = acquisition.outcome
            record.connection_id = acquisition.socket.connection_id
            record.connect = acquisition.handshake.record
        self._newest = record
        return record

    def _begin(self, record: AttemptRecord) -> Attempt:
        session = self.session
        attempt = Attempt(
            record,
            clock=session.clock,
            observer=session.observer,
            with_payload=self.spec.with_payload,
            max_response_bytes=session.upstream.profile.max_response_bytes,
        )
        self._attempt = attempt
        started = AttemptStarted(
            record.attempt_id,
            record.transport,
            record.slot_outcome,
            record.connection_id,
            record.full_reason,
            record.mismatch,
        )
        self._outbox.add(started, record.number)
        if self._announce_restart:
            self._announce_restart = False
            kept = tuple(sequence for sequence, _ in self._outbox.kept)
            self._outbox.add(Restarted(record.number, kept), record.number)
        attempt.begin()
        return attempt

    def _end_badly(self, attempt: Attempt, error: BaseException) -> None:
        """Closes an attempt's record with what ended it. Without effect on one that has ended well."""
        self._resends.client_call_finished |= attempt.response.client_call_finished
        self.record.response_id = attempt.record.response_id or self.record.response_id
        if isinstance(error, UpstreamFailure):
            attempt.end(AttemptStatus.FAILED, error)
        elif isinstance(error, asyncio.CancelledError | CallerGone):
            attempt.end(AttemptStatus.CANCELLED, self._stopped)
        else:
            attempt.end(AttemptStatus.FAILED, ServiceError(Reason.INTERNAL, "a fault of this server"))
        self.record.upstream_request_id = attempt.record.upstream_request_id

    # What an attempt asks (`attempt.Hooks`)

    def send(self, emissions: Sequence[Emission]) -> Awaitable[None]:
        """Passes events on to the caller."""
        if self._attempt is not None and self._attempt.response.has_output:
            self.record.output_delivered = True
        return self._outbox.send(emissions)

    def settle(self, terminal: Emission) -> Emission:
        """The response has ended well: the lane's chain and the books are up to date before the caller hears of it."""
        attempt, lane, request = self._attempt, self.lane, self._whole_request
        assert attempt is not None, "a terminal event belongs to an attempt"
        response, record = attempt.response, attempt.record
        output = of_provider(response.items)
        whole = isinstance(terminal.event, Completed)
        attempt.end(AttemptStatus.COMPLETED if whole else AttemptStatus.INCOMPLETE)
        if whole and lane.acquired is not None:
            history = request.history + output.digests
            lane.baseline = delta.Baseline(request.canonical_settings, history, response.response_id)
        lane.history_position = len(request.input) + len(response.items)
        self._keep_transcript(request.conversation.followed_by(output))
        self.completed = True
        self.record.outcome = CallOutcome.COMPLETED if whole else CallOutcome.INCOMPLETE
        self.record.response_id = response.response_id
        self.record.upstream_request_id = record.upstream_request_id
        return Emission(
            terminal.event,
            terminal.attempt,
            terminal.upstream_type,
            terminal.payload,
            record.upstream_request_id,
            lane.history_position,
        )

    def _keep_transcript(self, conversation: Conversation) -> None:
        """Holds the conversation for APPEND calls, on lanes that make them, within the limit."""
        lane, session = self.lane, self.session
        lane.transcript = None
        if lane.uses_append:
            limit = session.around.limits.max_transcript_bytes
            wish = session.config.max_transcript_bytes
            limit = limit if wish is None else min(limit, wish)
            if sum(map(len, conversation.items)) <= limit:
                lane.transcript = conversation

    def note_turn_state(self, token: str | None) -> None:
        """A routing token was told, or (None) was not."""
        self.lane.turn_state.offer(token, self.session.clock.now_s())

    def note_rate_limits(self, limits: RateLimits) -> None:
        """The provider told its limits."""
        self.session.note_rate_limits(limits)

    def _restart(self) -> None:
        """The next attempt follows output: finished items go back to the model, the rest is void (D-12)."""
        assert self._base is not None, "a request is built before an attempt"
        self._announce_restart = True
        self._request = self._base.extended([item for _, item in self._outbox.kept])

    @property
    def _whole_request(self) -> ModelRequest:
        assert self._request is not None, "a request is built before an attempt"
        return self._request

"""TurnService: one coroutine per RPC. Translates, admits, runs the call, and ends the stream with its status."""

import asyncio
import logging
from functools import partial
from typing import Any

import grpc

from warmline.v1 import turn_service_pb2 as pb
from warmline.v1 import turn_service_pb2_grpc as pb_grpc
from warmline.v1 import types_pb2 as types
from warmline_server.clock import Clock, TimeLimit, sleep
from warmline_server.core.errors import CallerError, Reason, ServiceError, WarmlineError
from warmline_server.core.records import CallRecord
from warmline_server.rpc import status, translate
from warmline_server.rpc.callers import tenant_of
from warmline_server.rpc.cut import cut_rpc
from warmline_server.rpc.edge import answered, session_key
from warmline_server.rpc.sink import GrpcSink
from warmline_server.rpc.tracing_interceptor import current_rpc_trace_carrier
from warmline_server.session.call_spec import CallerGone, CallSpec
from warmline_server.session.registry import Registry
from warmline_server.session.session import Session

_log = logging.getLogger(__name__)

_EVENT_MODES: dict[int, None] = dict.fromkeys(pb.EventMode.values())
_DISCONNECT_MODES: dict[int, None] = dict.fromkeys(pb.DisconnectMode.values())
_INPUT_MODES: dict[int, None] = dict.fromkeys(pb.InputMode.values())

# A choice: a reader that was too slow, and comes back, needs a while for the messages before its status.
LEAST_STATUS_WAIT_S = 10.0
# A choice: the timers of one deadline, ours and grpc's, lie a few milliseconds apart.
SAME_DEADLINE_S = 0.05

# The generated servicer's context is of both kinds, sync and aio; ours is aio.
Context = Any


class TurnService(pb_grpc.TurnServiceServicer):
    """Runs calls."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def StreamTurn(self, request: pb.StreamTurnRequest, context: Context) -> None:  # type: ignore[override]
        """One call. The status is sent last and once, outside of everything that could catch it."""
        record: CallRecord | None = None
        sink: GrpcSink | None = None
        try:
            session, spec = self._admit(request, context)
        except WarmlineError as error:
            self._registry.around.observer.call_refused(error.reason)
            failure = error
        except Exception:  # noqa: BLE001 - the edge: nothing of ours may leave as a text
            _log.exception("a call could not be admitted for a fault of this server")
            failure = status.internal()
        else:
            record = self._record(session, spec)
            sink = self._sink(session, spec, request, context)
            try:
                await self._run(session, spec, record, sink)
                return
            except WarmlineError as error:
                failure = error
            except (asyncio.CancelledError, CallerGone):
                raise
            except Exception:  # noqa: BLE001 - as above
                _log.exception("a call failed for a fault of this server", extra={"request_id": spec.request_id})
                failure = status.internal()
        await self._end(context, failure, record, sink)

    async def _end(
        self, context: Context, failure: WarmlineError, record: CallRecord | None, sink: GrpcSink | None
    ) -> None:
        """Sends the status. A reader that leaves it waiting behind messages for too long is cut off instead.

        None is sent for a call that is gone: it fails, and grpc never frees it, 440 bytes each. Measured: grpcio
        1.85.1; grpc/grpc#43360. The context cannot be asked: its `done()` and `cancelled()` are False while the
        handler runs.
        """
        # It holds the frames of this very RPC: a circle that would keep everything until the collector comes by.
        failure.__traceback__ = None
        handler = asyncio.current_task()
        assert handler is not None, "an RPC is served by a task"
        if handler.cancelling():  # grpc cancelled the call in the moment in which our own reason ended it
            raise asyncio.CancelledError
        around = self._registry.around
        slow_reader_s = around.limits.slow_reader_s
        limit_s = max(slow_reader_s, LEAST_STATUS_WAIT_S)
        try:
            async with TimeLimit(around.clock, around.clock.now_s() + limit_s if slow_reader_s > 0 else None):
                if sink is not None:
                    await sink.settled()
                if failure.reason is Reason.DEADLINE_EXCEEDED:
                    await _leave_to_grpc(context, around.clock)
                await _abort(context, failure, record)
        except TimeoutError:
            cut = cut_rpc(handler)
            _log.warning("a caller took no status", extra={"reason": failure.reason.value, "cut": cut})
            raise asyncio.CancelledError from None

    async def _run(self, session: Session, spec: CallSpec, record: CallRecord, sink: GrpcSink) -> None:
        try:
            await session.run_call(spec, sink, record)
        finally:
            sink.close()
            self._registry.call_ended(session.record.tenant)

    def _sink(self, session: Session, spec: CallSpec, request: pb.StreamTurnRequest, context: Context) -> GrpcSink:
        around = self._registry.around
        return GrpcSink(
            context,
            request.events,
            clock=around.clock,
            slow_reader_s=around.limits.slow_reader_s,
            stop=partial(session.calls.stop, request_id=spec.request_id),
        )

    def _admit(self, request: pb.StreamTurnRequest, context: Context) -> tuple[Session, CallSpec]:
        """Finds or makes the session and reads the request.

        Raises: WarmlineError for everything that is wrong with it; nothing was sent then, and nothing is counted.
        """
        _refuse_oversize(request, self._registry.around.limits.max_request_bytes)
        _refuse_later_fields(request)
        session_key(context, request.session_id)
        session_id = translate.name(request.session_id, "session_id")
        translate.choice(_EVENT_MODES, request.events, "events")
        translate.choice(_DISCONNECT_MODES, request.on_disconnect, "on_disconnect")
        tenant, created = tenant_of(context), False
        if request.HasField("session_config"):
            session, created = self._create(tenant, session_id, request.session_config)
        else:
            session = self._registry.find(tenant, session_id)
        try:
            spec = self._spec(request, session, context, created=created)
            self._registry.admit_call(tenant)
        except WarmlineError:
            if created:
                # Kept, its config would stand in the way of the corrected request's.
                self._registry.close(session, "refused")
            raise
        return session, spec

    def _create(self, tenant: str, session_id: str, message: types.SessionConfig) -> tuple[Session, bool]:
        """As `Registry.create`; a config that came before is not read again."""
        session = self._registry.known(tenant, session_id, translate.given(message))
        if session is not None:
            return session, False
        config = translate.config(message, "session_config")
        return self._registry.create(tenant, session_id, config, config_field="session_config")

    def _spec(self, request: pb.StreamTurnRequest, session: Session, context: Context, *, created: bool) -> CallSpec:
        overrides = translate.options(request.options, "options")
        translate.choice(_INPUT_MODES, request.input_mode, "input_mode")
        remaining_s = context.time_remaining()
        now_s = self._registry.around.clock.now_s()
        return CallSpec(
            lane=translate.name(request.lane, "lane", blank_is=""),
            turn_id=translate.identifier(request.turn_id, "turn_id"),
            request_id=translate.identifier(request.request_id, "request_id"),
            settings=session.settings(translate.extra_fields(request.request_json), overrides),
            items=translate.items(request.input, "input"),
            append_at=_append_at(request),
            turn_metadata=translate.metadata(request.turn_metadata_json),
            retry=translate.choice(translate.RETRIES, request.retry, "retry"),
            on_busy=translate.choice(translate.BUSY, request.on_busy, "on_busy"),
            deadline_at_s=None if remaining_s is None else now_s + remaining_s,
            max_duration_s=session.max_duration_s(
                translate.seconds(request.max_duration, "max_duration", zero_allowed=False)
                if request.HasField("max_duration")
                else None
            ),
            with_payload=request.events in (pb.EVENT_MODE_RAW, pb.EVENT_MODE_BOTH),
            session_created=created,
        )

    def _record(self, session: Session, spec: CallSpec) -> CallRecord:
        clock = self._registry.around.clock
        return CallRecord(
            session=session.record,
            lane=spec.lane,
            turn_id=spec.turn_id,
            request_id=spec.request_id,
            started_unix_ns=clock.unix_ns(),
            started_at_s=clock.now_s(),
            trace_carrier=current_rpc_trace_carrier(),
        )

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Context) -> pb.CancelTurnResponse:
        async def work() -> pb.CancelTurnResponse:
            session_key(context, request.session_id)
            session = self._registry.find(tenant_of(context), translate.name(request.session_id, "session_id"))
            if not request.request_id and not request.turn_id:
                raise translate.invalid("request_id", "neither request_id nor turn_id is given")
            error = ServiceError(Reason.TURN_CANCELLED, "the turn was cancelled by CancelTurn")
            ended = session.calls.stop(error, request_id=request.request_id, turn_id=request.turn_id)
            if not ended:
                raise CallerError(
                    Reason.TURN_NOT_FOUND,
                    "no such call is running",
                    field="request_id" if request.request_id else "turn_id",
                )
            return pb.CancelTurnResponse(request_ids=ended)

        return await answered(context, work)

    async def SteerTurn(self, request: pb.SteerTurnRequest, context: Context) -> pb.SteerTurnResponse:
        async def work() -> pb.SteerTurnResponse:
            raise translate.not_implemented("SteerTurn")

        return await answered(context, work)


def add_turn_service(service: TurnService, server: grpc.aio.Server) -> None:
    """Serves it. As the generated function does, but that StreamTurn has no serializer: its sink writes bytes."""
    handlers: dict[str, Any] = {
        "StreamTurn": grpc.unary_stream_rpc_method_handler(
            service.StreamTurn, request_deserializer=pb.StreamTurnRequest.FromString
        ),
        "CancelTurn": grpc.unary_unary_rpc_method_handler(
            service.CancelTurn,
            request_deserializer=pb.CancelTurnRequest.FromString,
            response_serializer=pb.CancelTurnResponse.SerializeToString,
        ),
        "SteerTurn": grpc.unary_unary_rpc_method_handler(
            service.SteerTurn,
            request_deserializer=pb.SteerTurnRequest.FromString,
            response_serializer=pb.SteerTurnResponse.SerializeToString,
        ),
    }
    name = pb.DESCRIPTOR.services_by_name["TurnService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _append_at(request: pb.StreamTurnRequest) -> int | None:
    if request.input_mode != pb.INPUT_MODE_APPEND:
        return None
    if not request.HasField("expected_history_position"):
        raise translate.invalid("expected_history_position", "APPEND needs the position that the caller knows")
    return request.expected_history_position


def _refuse_oversize(request: pb.StreamTurnRequest, limit_bytes: int) -> None:
    if request.ByteSize() > limit_bytes:
        raise ServiceError(
            Reason.LIMIT_EXCEEDED,
            f"the request has {request.ByteSize()} bytes, the most allowed are {limit_bytes}",
            limit="max_request_bytes",
        )


def _refuse_later_fields(request: pb.StreamTurnRequest) -> None:
    """What the contract carries and this server does not do yet is refused, never ignored."""
    if request.on_disconnect == pb.DISCONNECT_MODE_DETACH:
        raise translate.not_implemented("on_disconnect")
    for field in ("detach_grace", "after_sequence", "fork_from_lane"):
        if request.HasField(field):
            raise translate.not_implemented(field)


async def _leave_to_grpc(context: Context, clock: Clock) -> None:
    """Waits for the cancel by grpc of a call whose deadline has passed: caller and core keep it as well.

    Returns: where no cancel comes, or the deadline has passed by `clock` alone.
    """
    if context.time_remaining() <= SAME_DEADLINE_S:
        await sleep(clock, SAME_DEADLINE_S)


async def _abort(context: Context, failure: WarmlineError, record: CallRecord | None) -> None:
    ids: dict[str, str] = {}
    delivered = False
    if record is not None:
        delivered = record.output_delivered
        ids = {
            "turn_id": record.turn_id,
            "response_id": record.response_id,
            "upstream_request_id": record.upstream_request_id or "",
            "attempts": str(record.attempts),
        }
    await status.abort(context, failure, output_delivered=delivered, ids={k: v for k, v in ids.items() if v})

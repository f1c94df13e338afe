"""TraceService: the newest attempts of a session and their live tail, out of the ring."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import grpc
from google.protobuf import timestamp_pb2

from warmline.v1 import trace_service_pb2 as pb
from warmline.v1 import trace_service_pb2_grpc as pb_grpc
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.records import AttemptKind, AttemptStatus
from warmline_server.observe.ring import Inference, InferenceRing
from warmline_server.rpc import translate_events
from warmline_server.rpc.callers import tenant_of
from warmline_server.rpc.edge import answered, session_key
from warmline_server.session.call_spec import CallerGone

# The generated servicer's context is of both kinds, sync and aio; ours is aio.
Context = Any

DEFAULT_PAGE = 100
MAX_PAGE = 1000

KINDS = {AttemptKind.TURN: pb.INFERENCE_KIND_TURN, AttemptKind.WARM_UP: pb.INFERENCE_KIND_WARM_UP}
STATUSES = {
    AttemptStatus.RUNNING: pb.INFERENCE_STATUS_RUNNING,
    AttemptStatus.COMPLETED: pb.INFERENCE_STATUS_COMPLETED,
    AttemptStatus.INCOMPLETE: pb.INFERENCE_STATUS_INCOMPLETE,
    AttemptStatus.FAILED: pb.INFERENCE_STATUS_FAILED,
    AttemptStatus.CANCELLED: pb.INFERENCE_STATUS_CANCELLED,
}


class TraceService(pb_grpc.TraceServiceServicer):
    """Reads the ring. A session that is closed can be listed until its ring is forgotten."""

    def __init__(self, ring: InferenceRing, watched: Callable[[str], AbstractContextManager[None]]) -> None:
        """Args: `watched`: around a tenant's tail; raises WarmlineError where there is no room for it."""
        self._ring = ring
        self._watched = watched

    async def ListInferences(self, request: pb.ListInferencesRequest, context: Context) -> pb.ListInferencesResponse:
        async def work() -> pb.ListInferencesResponse:
            tenant = self._tenant(request.session_id, context)
            size = _page_size(request.page_size)
            newest = self._ring.newest(tenant, request.session_id, before=_page_start(request.page_token))
            shown = list(islice(_wanted(newest, request.turn_id, request.upstream_id), size + 1))
            token = str(shown[size - 1].ring_number) if len(shown) > size else ""
            return pb.ListInferencesResponse(inferences=map(to_proto, shown[:size]), next_page_token=token)

        return await answered(context, work)

    async def TailInferences(self, request: pb.TailInferencesRequest, context: Context) -> None:  # type: ignore[override]
        async def work() -> None:
            tenant = self._tenant(request.session_id, context)
            with self._watched(tenant):
                await follow(tenant)

        async def follow(tenant: str) -> None:
            tail = self._ring.open_tail(tenant, request.session_id)
            try:
                await context.send_initial_metadata(())  # tells the caller that nothing is missed from here on
                while (news := await tail.next()) is not None:
                    entry, skipped = news
                    await context.write(pb.TailInferencesResponse(inference=to_proto(entry), skipped=skipped))
            except grpc.aio.BaseError as error:
                raise CallerGone from error
            finally:
                self._ring.close_tail(tenant, request.session_id, tail)

        await answered(context, work)

    def _tenant(self, session_id: str, context: Context) -> str:
        """The caller's tenant. Raises: CallerError when it has no such session."""
        session_key(context, session_id)
        tenant = tenant_of(context)
        if not self._ring.knows(tenant, session_id):
            raise CallerError(Reason.SESSION_NOT_FOUND, f"no session {session_id[:80]!r}", field="session_id")
        return tenant


def _wanted(entries: Iterator[Inference], turn_id: str, upstream_id: str) -> Iterator[Inference]:
    for entry in entries:
        if turn_id in ("", entry.turn_id) and upstream_id in ("", entry.response_id, entry.upstream_request_id):
            yield entry


def _page_size(wanted: int) -> int:
    if not 0 <= wanted <= MAX_PAGE:
        raise CallerError(Reason.INVALID_REQUEST, f"page_size is {wanted}; expected 0 to {MAX_PAGE}", field="page_size")
    return wanted or DEFAULT_PAGE


def _page_start(token: str) -> int | None:
    if token and not (token.isascii() and token.isdigit()):
        raise CallerError(
            Reason.INVALID_REQUEST, "page_token is none of this server's; send next_page_token", field="page_token"
        )
    return int(token) if token else None


def to_proto(entry: Inference) -> pb.Inference:
    """An entry as its message; what is not known stays absent."""
    return pb.Inference(
        attempt_id=entry.attempt_id,
        request_id=entry.request_id,
        turn_id=entry.turn_id,
        lane=entry.lane,
        attempt=entry.attempt,
        kind=KINDS[entry.kind],
        status=STATUSES[entry.status],
        transport=translate_events.TRANSPORTS[entry.transport],
        slot_outcome=translate_events.SLOT_OUTCOMES[entry.slot_outcome],
        connection_id=entry.connection_id,
        incremental=entry.incremental,
        full_reason=translate_events.FULL_REASONS[entry.full_reason],
        model=entry.model,
        response_id=entry.response_id,
        upstream_request_id=entry.upstream_request_id,
        upstream_handshake_request_id=entry.upstream_handshake_request_id,
        usage=translate_events.usage(entry.usage),
        start_time=_time(entry.started_unix_ns),
        first_event_time=_time(entry.first_event_unix_ns),
        end_time=_time(entry.ended_unix_ns),
        error_reason=entry.error_reason,
        upstream_status=entry.upstream_status,
        trace_id=entry.span.trace_id if entry.span is not None else "",
        span_id=entry.span.span_id if entry.span is not None else "",
        request_bytes=entry.request_bytes,
        output_items=entry.output_items,
    )


def _time(unix_ns: int | None) -> timestamp_pb2.Timestamp | None:
    if unix_ns is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(unix_ns)
    return stamp

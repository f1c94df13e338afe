"""TraceService over a real channel: pages, filters, the tail, and its refusals."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from manual_clock import ManualClock
from observe import record_kit as kit
from observe.record_kit import Play
from warmline.v1 import trace_service_pb2 as pb
from warmline.v1 import trace_service_pb2_grpc as pb_grpc
from warmline.v1 import types_pb2
from warmline_server.core.records import CallRecord, SessionRecord, SpanIds
from warmline_server.observe.ring import InferenceRing, Tail
from warmline_server.rpc.callers import CallerInterceptor
from warmline_server.rpc.status import DETAILS_KEY
from warmline_server.rpc.trace_service import TraceService


class WatchedRing(InferenceRing):
    """Tells when a tail has been closed."""

    def __init__(self) -> None:
        super().__init__(50)
        self.left = asyncio.Event()

    def close_tail(self, tenant: str, session_id: str, tail: Tail) -> None:
        super().close_tail(tenant, session_id, tail)
        self.left.set()


@dataclass
class Service:
    ring: WatchedRing
    stub: "pb_grpc.TraceServiceAsyncStub"
    session: SessionRecord
    call: CallRecord
    play: Play

    def complete(self, response_id: str, request_id: str | None = None) -> None:
        attempt = kit.attempt(self.session, self.call)
        attempt.span = SpanIds("a" * 32, "b" * 16, sampled=True)
        self.play.complete(self.play.send(attempt), response_id, request_id=request_id)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    ring, session = WatchedRing(), kit.session()
    ring.session_opened(session)
    server = grpc.aio.server(interceptors=[CallerInterceptor(None, clock=ManualClock())])
    port = server.add_insecure_port("127.0.0.1:0")
    pb_grpc.add_TraceServiceServicer_to_server(TraceService(ring, lambda tenant: nullcontext()), server)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Service(ring, pb_grpc.TraceServiceStub(channel), session, kit.call(session), Play(ring))
    await server.stop(None)


async def test_list_pages_newest_first(service: Service) -> None:
    for number in range(5):
        service.complete(f"resp-{number}")

    pages, token = [], ""
    while True:
        answer = await service.stub.ListInferences(
            pb.ListInferencesRequest(session_id="s-1", page_size=2, page_token=token)
        )
        pages.append([inference.response_id for inference in answer.inferences])
        token = answer.next_page_token
        if not token:
            break

    assert pages == [["resp-4", "resp-3"], ["resp-2", "resp-1"], ["resp-0"]]


async def test_message_carries_every_fact(service: Service) -> None:
    service.complete("resp-1", "req-1")

    answer = await service.stub.ListInferences(pb.ListInferencesRequest(session_id="s-1"))

    (found,) = answer.inferences
    assert found.status == pb.INFERENCE_STATUS_COMPLETED
    assert found.kind == pb.INFERENCE_KIND_TURN
    assert found.transport == types_pb2.TRANSPORT_HTTP
    assert found.slot_outcome == types_pb2.SLOT_OUTCOME_NONE
    assert found.full_reason == types_pb2.FULL_REASON_TRANSPORT
    assert (found.turn_id, found.request_id, found.attempt) == ("turn-1", service.call.request_id, 1)
    assert (found.response_id, found.upstream_request_id) == ("resp-1", "req-1")
    assert not found.HasField("upstream_handshake_request_id")
    assert found.usage.input_tokens == 100
    assert found.start_time.ToNanoseconds() < found.first_event_time.ToNanoseconds() < found.end_time.ToNanoseconds()
    assert (found.trace_id, found.span_id) == ("a" * 32, "b" * 16)
    assert found.request_bytes > 0


@pytest.mark.parametrize("wanted", ["resp-1", "req-1"])
async def test_filter_accepts_either_id(service: Service, wanted: str) -> None:
    service.complete("resp-0", "req-0")
    service.complete("resp-1", "req-1")

    answer = await service.stub.ListInferences(pb.ListInferencesRequest(session_id="s-1", upstream_id=wanted))

    assert [inference.response_id for inference in answer.inferences] == ["resp-1"]


async def test_filter_by_turn(service: Service) -> None:
    service.complete("resp-0")

    answer = await service.stub.ListInferences(pb.ListInferencesRequest(session_id="s-1", turn_id="other"))

    assert list(answer.inferences) == []


async def test_unknown_upstream_request_id_is_absent(service: Service) -> None:
    service.complete("resp-0", None)

    answer = await service.stub.ListInferences(pb.ListInferencesRequest(session_id="s-1"))

    assert not answer.inferences[0].HasField("upstream_request_id")


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (pb.ListInferencesRequest(session_id="nobody"), "NOT_FOUND", "SESSION_NOT_FOUND", "session_id"),
        (pb.ListInferencesRequest(session_id="s-1", page_size=-1), "INVALID_ARGUMENT", "INVALID_REQUEST", "page_size"),
        (
            pb.ListInferencesRequest(session_id="s-1", page_size=1001),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
            "page_size",
        ),
        (
            pb.ListInferencesRequest(session_id="s-1", page_token="x"),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
            "page_token",
        ),
    ],
    ids=["unknown-session", "negative-page", "huge-page", "strange-token"],
)
async def test_bad_listing_is_refused_with_its_field(
    service: Service, request_: pb.ListInferencesRequest, code: str, reason: str, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.ListInferences(request_)

    assert caught.value.code().name == code
    assert _reason_and_field(caught.value) == (reason, field)


async def test_tail_of_an_unknown_session_is_refused(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in service.stub.TailInferences(pb.TailInferencesRequest(session_id="nobody")):
            pass

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_tail_follows_until_the_session_is_closed(service: Service) -> None:
    call = service.stub.TailInferences(pb.TailInferencesRequest(session_id="s-1"))
    await call.initial_metadata()
    service.complete("resp-1")
    service.ring.session_closed(service.session, "caller")

    got = [message async for message in call]

    assert [message.inference.status for message in got] == [
        pb.INFERENCE_STATUS_RUNNING,
        pb.INFERENCE_STATUS_COMPLETED,
    ]
    assert [message.skipped for message in got] == [0, 0]
    assert await call.code() is grpc.StatusCode.OK


async def test_tail_that_is_cancelled_is_forgotten(service: Service) -> None:
    call = service.stub.TailInferences(pb.TailInferencesRequest(session_id="s-1"))
    await call.initial_metadata()

    call.cancel()

    await asyncio.wait_for(service.ring.left.wait(), 5)


def _reason_and_field(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    raw = next(value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY)
    status = status_pb2.Status.FromString(raw if isinstance(raw, bytes) else raw.encode())
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        _ = detail.Unpack(info) or detail.Unpack(bad)
    return info.reason, bad.field_violations[0].field

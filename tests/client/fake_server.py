"""A scripted server on a real socket: answers calls in the order of its script and fails when a step was not consumed.

Knows the contract and nothing of the client.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from warmline.v1 import (
    session_service_pb2_grpc,
    trace_service_pb2_grpc,
    turn_service_pb2,
    turn_service_pb2_grpc,
    types_pb2,
)

# Longest wait for what a test expects to happen at once; only reached when the test fails.
PATIENCE_S = 10.0


@dataclass
class Refusal(Exception):
    """Ends a call with a status; `reason` blank: no ErrorInfo."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "scripted"
    details: Sequence[Message] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    raw_details: bytes | None = None
    """Bytes sent as the status details instead of real ones."""

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        if self.raw_details is not None:
            return (("grpc-status-details-bin", self.raw_details),)
        details = list(self.details)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="warmline", metadata=self.metadata)
            details.insert(0, info)
        if not details:
            return ()
        packed = [AnyMessage() for _ in details]
        for target, detail in zip(packed, details, strict=True):
            target.Pack(detail)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def retry_info(delay_s: float) -> Message:
    """The detail that allows the same call again."""
    detail = error_details_pb2.RetryInfo()
    detail.retry_delay.FromMilliseconds(round(delay_s * 1000))
    message: Message = detail
    return message


class Call:
    """One call as the server saw it, and what its script writes with."""

    def __init__(self, method: str, request: Any, context: Any) -> None:
        self.method = method
        self.request = request
        self.metadata = dict(context.invocation_metadata())
        self.time_remaining_s: float | None = context.time_remaining()
        self.was_cancelled = False
        self.ended = asyncio.Event()
        self.messages_written = 0
        self._context = context
        self._sequence = 0

    async def write(self, message: Message) -> None:
        """Writes one message of a stream."""
        await self._context.write(message)
        self.messages_written += 1

    async def send(self, *members: Message, attempt: int = 1) -> None:
        """Writes one batch of turn events, each made of the message of its oneof's member."""
        await self.write(turn_service_pb2.StreamTurnResponse(events=[self.event(m, attempt=attempt) for m in members]))

    def event(self, member: Message, *, attempt: int = 1) -> turn_service_pb2.TurnEvent:
        """The next event; its sequence goes on by itself."""
        self._sequence += 1
        event = turn_service_pb2.TurnEvent(sequence=self._sequence, attempt=attempt)
        getattr(event, member_name(member)).CopyFrom(member)
        return event

    async def wait_cancelled(self) -> None:
        """Runs until the client goes away."""
        await asyncio.Event().wait()

    async def wait_ended(self) -> None:
        """Waits until the server is done with the call."""
        async with asyncio.timeout(PATIENCE_S):
            await self.ended.wait()


Step = Callable[[Call], Awaitable[Message | None]]


def answer(message: Message) -> Step:
    """A step that answers a unary call."""

    async def step(call: Call) -> Message:
        return message

    return step


def refuse(refusal: Refusal) -> Step:
    """A step that ends a call with a status."""

    async def step(call: Call) -> None:
        raise refusal

    return step


class FakeServer:
    """Serves the three services by script. Enter it to start; leaving fails if a step was left or a call unexpected."""

    def __init__(self, *, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.calls: list[Call] = []
        self.port = port
        self._credentials = credentials
        self._steps: dict[str, list[Step]] = {}
        self._faults: list[str] = []
        self._arrived = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def on(self, method: str, *steps: Step) -> None:
        """Adds the next steps of a method, one per call."""
        if method not in _METHODS:
            raise ValueError(f"script: no method {method}")
        self._steps.setdefault(method, []).extend(steps)

    def of(self, method: str) -> list[Call]:
        """The calls of a method so far."""
        return [call for call in self.calls if call.method == method]

    async def wait_call(self, method: str, count: int = 1) -> Call:
        """Waits for the n-th call of a method."""
        async with asyncio.timeout(PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.of(method)) >= count)
        return self.of(method)[count - 1]

    async def __aenter__(self) -> "FakeServer":
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        for servicer, add in _SERVICES:
            handlers = {name: self._handler(name) for name in vars(servicer) if not name.startswith("_")}
            add(type(servicer.__name__, (servicer,), handlers)(), server)
        if self._credentials is None:
            self.port = server.add_insecure_port(self.target)
        else:
            self.port = server.add_secure_port(self.target, self._credentials)
        await server.start()
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None:
            left = {method: len(steps) for method, steps in self._steps.items() if steps}
            assert not left, f"steps never asked for: {left}"
            assert not self._faults, self._faults

    async def stop(self) -> None:
        """Goes away, and waits until every call has ended."""
        assert self._server is not None
        await self._server.stop(None)
        for call in self.calls:
            await call.wait_ended()

    def _handler(self, method: str) -> Callable[[Any, Any, Any], Awaitable[Message | None]]:
        async def handle(servicer: Any, request: Any, context: Any) -> Message | None:
            call = Call(method, request, context)
            async with self._arrived:
                self.calls.append(call)
                self._arrived.notify_all()
            try:
                answered = await self._play(call)
            except Refusal as refusal:
                await context.abort(refusal.code, refusal.message, refusal.trailing_metadata())
            except (asyncio.CancelledError, grpc.aio.BaseError):
                call.was_cancelled = True
                raise
            finally:
                call.ended.set()
            return answered

        return handle

    async def _play(self, call: Call) -> Message | None:
        steps = self._steps.get(call.method)
        if not steps:
            self._faults.append(f"unexpected {call.method}")
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, message="not scripted")
        step = steps.pop(0)
        try:
            return await step(call)
        except (Refusal, asyncio.CancelledError, grpc.aio.BaseError):
            raise
        except Exception as error:
            self._faults.append(f"{call.method}: {error!r}")
            raise


def admitted(turn_id: str = "turn-1", request_id: str = "request-1") -> turn_service_pb2.Admitted:
    return turn_service_pb2.Admitted(turn_id=turn_id, request_id=request_id, conversation_id="conversation-1")


def started(
    transport: types_pb2.Transport.ValueType = types_pb2.TRANSPORT_WEBSOCKET,
    slot_outcome: types_pb2.SlotOutcome.ValueType = types_pb2.SLOT_OUTCOME_ADOPTED,
) -> turn_service_pb2.AttemptStarted:
    return turn_service_pb2.AttemptStarted(
        attempt_id="attempt-1", transport=transport, slot_outcome=slot_outcome, connection_id="connection-1"
    )


def created(response_id: str = "resp_1") -> turn_service_pb2.ResponseCreated:
    return turn_service_pb2.ResponseCreated(response_id=response_id)


def text(delta: str, item_id: str = "msg_1") -> turn_service_pb2.TextDelta:
    return turn_service_pb2.TextDelta(delta=delta, item_id=item_id)


def done(item: bytes) -> turn_service_pb2.ItemDone:
    return turn_service_pb2.ItemDone(item=types_pb2.Item(json=item))


def message_item(words: str, item_id: str = "msg_1") -> bytes:
    """A finished message, with the odd blank that re-serialising would lose."""
    parts = json.dumps([{"type": "output_text", "annotations": [], "text": words}], ensure_ascii=False)
    return f'{{"id":"{item_id}","type":"message",  "role":"assistant","content":{parts}}}'.encode()


def call_item(call_id: str = "call_1", name: str = "look", arguments: str = "{}") -> bytes:
    """A finished function call; `arguments` is JSON text."""
    call = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    return json.dumps(call, ensure_ascii=False).encode()


def completed(
    response_id: str = "resp_1", *, upstream_request_id: str | None = None, history_position: int = 2
) -> turn_service_pb2.Completed:
    return turn_service_pb2.Completed(
        response_id=response_id,
        upstream_request_id=upstream_request_id,
        usage=types_pb2.Usage(input_tokens=12, cached_input_tokens=4, output_tokens=5, total_tokens=17),
        history_position=history_position,
    )


def says(*pieces: str) -> Step:
    """A step that streams a whole turn which says the pieces."""

    async def step(call: Call) -> None:
        await call.send(admitted(call.request.turn_id or "turn-1", call.request.request_id))
        await call.send(started(), created())
        for piece in pieces:
            await call.send(text(piece))
        await call.send(done(message_item("".join(pieces))), completed())

    return step


def member_name(member: Message) -> str:
    """The name of the oneof's member that holds a message."""
    names = [
        field.name
        for field in turn_service_pb2.TurnEvent.DESCRIPTOR.oneofs_by_name["event"].fields
        if field.message_type is not None and field.message_type.full_name == member.DESCRIPTOR.full_name
    ]
    assert len(names) == 1, f"no event has a {member.DESCRIPTOR.full_name}"
    return names[0]


_SERVICES: Sequence[tuple[type, Callable[[Any, grpc.aio.Server], None]]] = (
    (
        session_service_pb2_grpc.SessionServiceServicer,
        session_service_pb2_grpc.add_SessionServiceServicer_to_server,
    ),
    (turn_service_pb2_grpc.TurnServiceServicer, turn_service_pb2_grpc.add_TurnServiceServicer_to_server),
    (trace_service_pb2_grpc.TraceServiceServicer, trace_service_pb2_grpc.add_TraceServiceServicer_to_server),
)
_METHODS = frozenset(name for servicer, _ in _SERVICES for name in vars(servicer) if not name.startswith("_"))

"""What the tests of bad input and bad days share: requests as messages, refusals as values, and bystanders."""

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

import warmline
from e2e.line import Line
from warmline.v1 import errors_pb2, turn_service_pb2, types_pb2

MODEL = "sim-small"
DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A non-OK status with everything in it. Blank, empty and None: it has no such detail."""

    code: grpc.StatusCode
    text: str
    reason: str = ""
    fields: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    retry_after_s: float | None = None
    upstream: errors_pb2.UpstreamError | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    trailing: Mapping[str, str] = field(default_factory=dict)


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """The status of a failed call. The details' own code and text must be the status's."""
    found: dict[str, Any] = {"code": error.code(), "text": error.details() or "", "trailing": {}}
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for detail in status.details:
                found |= _read_detail(detail)
        else:
            found["trailing"][key] = value
    return Refusal(**found)


def _read_detail(detail: Any) -> dict[str, Any]:
    match detail.TypeName():
        case "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            assert info.domain == "warmline"
            return {"reason": info.reason, "ids": dict(info.metadata)}
        case "google.rpc.RetryInfo":
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            return {"retry_after_s": delay.seconds + delay.nanos / 1e9}
        case "google.rpc.BadRequest":
            violations = error_details_pb2.BadRequest.FromString(detail.value).field_violations
            return {"fields": tuple(violation.field for violation in violations)}
        case "google.rpc.QuotaFailure":
            quotas = error_details_pb2.QuotaFailure.FromString(detail.value).violations
            return {"limits": tuple(violation.subject for violation in quotas)}
        case "warmline.v1.UpstreamError":
            return {"upstream": errors_pb2.UpstreamError.FromString(detail.value)}
    raise AssertionError(f"a detail that the contract does not have: {detail.TypeName()}")


async def refused(call: Any) -> Refusal:
    """Runs a call to its end, unary or streamed and perhaps read in part, that must fail. Returns: its status."""
    try:
        if isinstance(call, grpc.aio.UnaryStreamCall):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError("the call was not refused")


async def refused_turn(line: Line, request: turn_service_pb2.StreamTurnRequest, **call: Any) -> Refusal:
    """Sends a turn as it is, without the client's help; it must fail. Returns: its status."""
    return await refused(line.client.turns.StreamTurn(request, **call))


async def completed(
    line: Line, request: turn_service_pb2.StreamTurnRequest, **call: Any
) -> list[turn_service_pb2.TurnEvent]:
    """Sends a turn as it is; it must end with OK. Returns: its events."""
    stream = line.client.turns.StreamTurn(request, **call)
    events = [event async for message in stream for event in message.events]
    assert await stream.code() is grpc.StatusCode.OK
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return events


def turn_request(session_id: str, text: str = "hello", **fields: Any) -> turn_service_pb2.StreamTurnRequest:
    """A turn of a session that exists; `fields` stand in for those made here."""
    made: dict[str, Any] = {"session_id": session_id, "input": [warmline.user(text)]}
    return turn_service_pb2.StreamTurnRequest(**{**made, **fields})


def item(json: bytes) -> types_pb2.Item:
    """An item whose JSON is exactly this."""
    return types_pb2.Item(json=json)


def config(**fields: Any) -> types_pb2.SessionConfig:
    """A session's config that names a model and opens nothing ahead; `fields` stand in for those made here."""
    made: dict[str, Any] = {
        "request_defaults": types_pb2.RequestOptions(model=MODEL),
        "warm_up": types_pb2.WARM_UP_MODE_NONE,
    }
    return types_pb2.SessionConfig(**{**made, **fields})


class Bystander:
    """A session that had a turn; `goes_on` proves that nothing happened to its line since."""

    def __init__(self, line: Line, session_id: str, lane: str = "") -> None:
        self._lane = lane
        self._session = line.client.session(session_id, config())
        self._conversation: list[warmline.ItemLike] = []

    async def start(self) -> "Bystander":
        """Has its first turn."""
        async with self._session:
            await self._turn("hello")
        return self

    async def goes_on(self) -> None:
        """Its next turn completes on the socket of the former one, and sends only what is new."""
        result = await self._turn("and again")
        assert (result.slot_outcome, result.incremental) == ("REUSED", True)

    async def _turn(self, text: str) -> warmline.TurnResult:
        self._conversation.append(text)
        async with self._session.turn(self._conversation, lane=self._lane) as turn:
            result = await turn.result()
        assert result.ending == "completed"
        assert result.text.startswith(f"You said: {text}")
        self._conversation += result.items
        return result


_numbers = itertools.count()


@asynccontextmanager
async def unharmed(line: Line, *, sends: int = 0) -> AsyncIterator[str]:
    """Gives a session's id to send a bad request to; afterwards it and another session go on as if nothing came.

    Args: `sends`: how many requests the test has sent upstream on purpose.
    """
    number = next(_numbers)
    one, two = [await Bystander(line, f"{name}-{number}").start() for name in ("one", "two")]
    asked = len(line.sim.requests)
    yield f"one-{number}"
    assert len(line.sim.requests) == asked + sends, "a refused request reached the upstream"
    await one.goes_on()
    await two.goes_on()

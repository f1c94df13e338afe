"""A server that does what a real one never does, or not yet: each turn's `turn_id` names what it meets.

`echo` tells what the call carried; `newer` is a server of a later contract; `broken-contract`, `gap`, `doubled`,
`endless`, `no-end` break the contract; `late-status` fails after the end; `CODE:REASON` refuses with that; the others
are about resends.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from warmline.v1 import (
    errors_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    turn_service_pb2,
    turn_service_pb2_grpc,
)

Response = turn_service_pb2.StreamTurnResponse
Event = turn_service_pb2.TurnEvent

# Numbers that this contract does not have and a later one might.
NEWER_MEMBER = 90
NEWER_FIELD = 95
NEWER_VALUE = 77
BIG_BYTES = 20 * 1024 * 1024


class FakeServer:
    """Enter it to start. `calls` counts the sends of each turn; `aborted_at_s`: when a caller was seen to have left."""

    def __init__(self, tls: Path | None = None, *, asks_for_certificate: bool = False) -> None:
        """Args: `tls`: folder of `certificates.make`; None: plain text."""
        self.address = ""
        self.calls: Counter[str] = Counter()
        self.aborted_at_s: list[float] = []
        self._tls = tls
        self._asks_for_certificate = asks_for_certificate
        self._changed = asyncio.Condition()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)])

    async def __aenter__(self) -> "FakeServer":
        turns = _serving(turn_service_pb2_grpc.TurnServiceServicer, StreamTurn=self._stream_turn)
        sessions = _serving(session_service_pb2_grpc.SessionServiceServicer, CreateSession=_create_session)
        turn_service_pb2_grpc.add_TurnServiceServicer_to_server(turns, self._server)
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, self._server)
        if self._tls is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", _tls_credentials(self._tls, self._asks_for_certificate))
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def wait_aborts(self, count: int) -> None:
        """Waits until that many callers have left before the end. Cancel: safe."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.aborted_at_s) >= count)

    async def _stream_turn(self, request: Any, context: Any) -> None:
        self.calls[request.turn_id] += 1
        try:
            await _play(Call(request, context, self.calls[request.turn_id]))
        except grpc.aio.AbortError:
            raise
        except (asyncio.CancelledError, grpc.aio.BaseError):
            # A caller who leaves is told by either, as it meets a call that waits or a write under way.
            await asyncio.shield(self._note_abort())
            raise

    async def _note_abort(self) -> None:
        self.aborted_at_s.append(asyncio.get_running_loop().time())
        async with self._changed:
            self._changed.notify_all()


async def _unimplemented(servicer: Any, request: Any, context: Any) -> None:
    await _refuse(context, grpc.StatusCode.UNIMPLEMENTED)


def _serving(servicer: type, **methods: Any) -> Any:
    """A servicer of these methods; all others are unimplemented."""
    names = [name for name in vars(servicer) if not name.startswith("_")]
    return type(servicer.__name__, (servicer,), {**dict.fromkeys(names, _unimplemented), **methods})()


async def _create_session(servicer: Any, request: Any, context: Any) -> Any:
    if request.session_id == "refused":
        await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, _info("LIMIT_EXCEEDED"))
    return session_service_pb2.CreateSessionResponse(created=True)


class Call:
    """One StreamTurn as it came; `sends` is its number among those of its turn, from 1."""

    def __init__(self, request: Any, context: Any, sends: int) -> None:
        self.request = request
        self.context = context
        self.sends = sends
        self.sequence = 0

    def event(self, member: Message | None = None, *, sequence: int | None = None) -> Event:
        """The next event."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        event = Event(sequence=self.sequence, attempt=0 if isinstance(member, turn_service_pb2.Admitted) else 1)
        if member is not None:
            (field,) = [f for f in _EVENT.fields if f.message_type is member.DESCRIPTOR]
            getattr(event, field.name).CopyFrom(member)
        return event

    async def write(self, *events: Event) -> None:
        """Writes one message."""
        await self.context.write(Response(events=events))

    def admitted(self) -> Event:
        """The first event."""
        ids = {"turn_id": self.request.turn_id, "request_id": self.request.request_id}
        return self.event(turn_service_pb2.Admitted(conversation_id="conversation-1", **ids))

    async def say(self, text: str) -> None:
        """A whole turn that says this, in one message."""
        delta = turn_service_pb2.TextDelta(delta=text, item_id="msg_1")
        await self.write(self.admitted(), self.event(delta), self.event(turn_service_pb2.Completed(response_id="r")))


_EVENT = Event.DESCRIPTOR.oneofs_by_name["event"]


async def _play(call: Call) -> None:
    name: str = call.request.turn_id
    if name in _TURNS:
        await _TURNS[name](call)
        return
    code, _, reason = name.partition(":")
    ids = {"turn_id": name, "response_id": "resp_1", "upstream_request_id": "req_1", "attempts": "3"}
    await _refuse(call.context, grpc.StatusCode[code], _info(reason, **ids), *_further_details(reason))


async def _echo(call: Call) -> None:
    metadata = dict(call.context.invocation_metadata())
    told = {
        "session": metadata.get("x-warmline-session", ""),
        "authorization": metadata.get("authorization", ""),
        "agent": metadata.get("user-agent", "").partition("-")[0],
        "config": call.request.HasField("session_config"),
        "request_id": len(call.request.request_id) > 0,
        "deadline": call.context.time_remaining() is not None,
    }
    await call.say(" ".join(f"{name}={_WORDS.get(value, value)}" for name, value in told.items()))


_WORDS: dict[object, str] = {True: "yes", False: "no"}


async def _newer(call: Call) -> None:
    """An unknown member between known ones and alone, an unknown field, unknown enum values."""
    started = turn_service_pb2.AttemptStarted(attempt_id="a", connection_id="c")
    started.transport = NEWER_VALUE  # type: ignore[assignment]
    started.slot_outcome = NEWER_VALUE  # type: ignore[assignment]
    delta = turn_service_pb2.TextDelta.FromString(
        turn_service_pb2.TextDelta(delta="known", item_id="msg_1").SerializeToString() + _field(NEWER_FIELD, b"new")
    )
    await call.write(call.admitted(), call.event(started), _unknown(call), call.event(delta))
    await call.write(_unknown(call))
    await call.write(call.event(turn_service_pb2.Completed(response_id="resp_1", history_position=2)))


async def _broken_contract(call: Call) -> None:
    """What no server of this contract may do: a member that is known has moved to another number."""
    moved = Event.FromString(call.event().SerializeToString() + _field(NEWER_MEMBER, b"\x0a\x05known"))
    started = turn_service_pb2.AttemptStarted(attempt_id="a", connection_id="c")
    await call.write(call.admitted(), call.event(started), moved)
    await call.write(call.event(turn_service_pb2.Completed(response_id="resp_1", history_position=2)))


async def _gap(call: Call) -> None:
    await call.write(call.admitted(), call.event(turn_service_pb2.ServerModel(model="m"), sequence=3))
    await asyncio.Event().wait()


async def _doubled(call: Call) -> None:
    await call.write(call.admitted())
    await call.write(call.event(turn_service_pb2.ServerModel(model="m"), sequence=1))
    await asyncio.Event().wait()


async def _no_end(call: Call) -> None:
    await call.write(call.admitted())


async def _endless(call: Call) -> None:
    """Says that it is complete, and never ends the stream."""
    await call.say("done")
    await asyncio.Event().wait()


async def _late_status(call: Call) -> None:
    await call.say("done")
    await _refuse(call.context, grpc.StatusCode.ABORTED, _info("UPSTREAM_FAILED"))


async def _unreached_twice(call: Call) -> None:
    if call.sends < 3:
        await _refuse(call.context, grpc.StatusCode.UNAVAILABLE)
    await call.say("reached")


async def _retry_info(call: Call) -> None:
    if call.sends == 1:
        await _refuse(call.context, grpc.StatusCode.UNAVAILABLE, _info("SERVER_DRAINING"), _retry_after(0.05))
    await call.say("again")


async def _no_retry_info(call: Call) -> None:
    await _refuse(call.context, grpc.StatusCode.UNAVAILABLE, _info("TURN_DRAINED"))


async def _lost_after_event(call: Call) -> None:
    await call.write(call.admitted())
    await _refuse(call.context, grpc.StatusCode.UNAVAILABLE)


async def _retry_info_after_event(call: Call) -> None:
    await call.write(call.admitted())
    await _refuse(call.context, grpc.StatusCode.UNAVAILABLE, _info("UPSTREAM_FAILED"), _retry_after(0.01))


async def _foreign(call: Call) -> None:
    """A proxy's own refusal: it has an ErrorInfo, of another domain."""
    info = error_details_pb2.ErrorInfo(reason="NO_HEALTHY_UPSTREAM", domain="proxy.example")
    await _refuse(call.context, grpc.StatusCode.UNAVAILABLE, info)


async def _unreadable(call: Call) -> None:
    await call.context.abort(
        grpc.StatusCode.ABORTED, "no details", (("grpc-status-details-bin", b"\xff\xff not a status"),)
    )


async def _big(call: Call) -> None:
    await call.say("x" * BIG_BYTES)


async def _big_then_silent(call: Call) -> None:
    await call.write(call.admitted())
    await call.write(call.event(turn_service_pb2.TextDelta(delta="x" * BIG_BYTES, item_id="msg_1")))
    await asyncio.Event().wait()


async def _silent(call: Call) -> None:
    await call.write(call.admitted())
    await asyncio.Event().wait()


_TURNS: dict[str, Callable[[Call], Awaitable[None]]] = {
    "echo": _echo,
    "newer": _newer,
    "broken-contract": _broken_contract,
    "gap": _gap,
    "doubled": _doubled,
    "no-end": _no_end,
    "endless": _endless,
    "late-status": _late_status,
    "unreached-twice": _unreached_twice,
    "retry-info": _retry_info,
    "no-retry-info": _no_retry_info,
    "lost-after-event": _lost_after_event,
    "retry-info-after-event": _retry_info_after_event,
    "foreign": _foreign,
    "unreadable": _unreadable,
    "big": _big,
    "big-then-silent": _big_then_silent,
    "silent": _silent,
}


def _unknown(call: Call) -> Event:
    """An event whose member a later contract made."""
    return Event.FromString(call.event().SerializeToString() + _field(NEWER_MEMBER, b"\x0a\x03new"))


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field on the wire; number below 2048, value below 128 bytes."""
    tag = number << 3 | 2
    return bytes([tag & 0x7F | 0x80, tag >> 7, len(value)]) + value


def _info(reason: str, **ids: str) -> Message:
    info: Message = error_details_pb2.ErrorInfo(reason=reason, domain="warmline", metadata=ids)
    return info


def _retry_after(delay_s: float) -> Message:
    detail = error_details_pb2.RetryInfo()
    detail.retry_delay.FromNanoseconds(round(delay_s * 1e9))
    message: Message = detail
    return message


def _further_details(reason: str) -> list[Message]:
    """What some reasons carry besides."""
    match reason:
        case "INVALID_REQUEST":
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=name, description=f"{name} is wrong")
                for name in ("lane", "input[0]")
            ]
            return [error_details_pb2.BadRequest(field_violations=violations)]
        case "LIMIT_EXCEEDED":
            violation = error_details_pb2.QuotaFailure.Violation(subject="max_lanes", description="too many")
            return [error_details_pb2.QuotaFailure(violations=[violation])]
        case "UPSTREAM_RATE_LIMITED":
            words = errors_pb2.UpstreamError(status=429, code="slow", type="rate", param="p", message="Zähl bis zehn.")
            return [words, _retry_after(90.0)]
        case _:
            return []


async def _refuse(context: Any, code: grpc.StatusCode, *details: Message) -> None:
    trailing: tuple[tuple[str, bytes], ...] = ()
    if details:
        packed = [AnyMessage() for _ in details]
        for target, detail in zip(packed, details, strict=True):
            target.Pack(detail)
        status = status_pb2.Status(code=code.value[0], message="scripted", details=packed)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, "scripted", trailing)


def _tls_credentials(folder: Path, asks_for_certificate: bool) -> grpc.ServerCredentials:
    """The folder is `certificates.make`'s."""
    key, chain, ca = ((folder / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem"))
    return grpc.ssl_server_credentials([(key, chain)], ca, asks_for_certificate)

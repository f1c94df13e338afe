"""The WebSocket side of a connection: frames in, lanes, lifetime, and the outlet of an answer on a lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from websockets import frames
from websockets.extensions import Extension
from websockets.frames import Opcode
from websockets.protocol import CLOSING, OPEN
from websockets.server import ServerProtocol

from warmline_simulator import decoding, respond, steering
from warmline_simulator.answer import Answer
from warmline_simulator.ev.errors import DEFAULT_CODES
from warmline_simulator.lanes import Lanes
from warmline_simulator.memory import LaneMemory
from warmline_simulator.records import HandshakeRecord, Json, RequestRecord
from warmline_simulator.refusal import Refusal
from warmline_simulator.respond import Parent
from warmline_simulator.script import Connection, Frame, Reply
from warmline_simulator.sse import GATHERED_BYTES
from warmline_simulator.stage import Mounts
from warmline_simulator.state import State
from warmline_simulator.wire import Wire

_encode = msgspec.json.Encoder().encode


CLOSE_TIMEOUT_S = 10.0
"""How long a peer may take to answer a close frame before the connection is ended. Source: default of `websockets`."""


@dataclass(slots=True)
class Job:
    """One create on its way to an answer."""

    record: RequestRecord
    reply: Reply | None
    refusal: Refusal | None = None
    """Found before its turn came; told in its turn."""
    parent: Parent = field(default_factory=Parent)
    answer: Answer | None = None


class WebSocketSide:
    """One open WebSocket."""

    def __init__(
        self,
        wire: Wire,
        state: State,
        record: HandshakeRecord,
        scripted: tuple[Connection, Mounts] | None,
        extensions: list[Extension],
    ) -> None:
        self.wire = wire
        self.state = state
        self.record = record
        self.connection, self._mounts = scripted if scripted is not None else (Connection(), Mounts((), "replies"))
        settings = state.settings
        self.lanes: Lanes[Job] = Lanes(
            max_in_flight=settings.max_in_flight, max_lanes=settings.max_lanes, serial=settings.serial
        )
        self.memory = LaneMemory()
        self.steers = steering.Desk(self)
        self._protocol = ServerProtocol(state=OPEN, max_size=settings.max_body_bytes)
        self._protocol.extensions = extensions
        self._fragments: list[bytes] = []
        self._is_text = True
        self._is_over = False
        self._answered = 0
        self._timers = [state.clock.call_later(settings.lifetime_s, self._expire)]
        self.running: list[Job] = []

    def feed(self, data: bytes) -> None:
        if self._is_over:
            return
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            if isinstance(frame, frames.Frame):
                self._take_frame(frame)
        self._write_protocol()

    def ended(self) -> None:
        self._is_over = True
        self.wire.close()

    def lost(self) -> None:
        self._is_over = True
        for timer in self._timers:
            timer.cancel()
        now_s = self.state.clock.now_s()
        self.record.closed_at_s = now_s
        self.state.counters.websockets_open -= 1
        for job in self.running:
            job.record.disconnected_at_s = now_s
            if job.answer is not None:
                job.answer.abort()
        for job in self.lanes.abandon():
            job.record.outcome = "aborted"
            job.record.disconnected_at_s = job.record.aborted_at_s = job.record.ended_at_s = now_s
            self.state.counters.aborted_turns += 1
            self.state.tell("request_ended", job.record)
        self.state.tell("handshake_ended", self.record)

    def _write_protocol(self) -> None:
        """Send what the protocol wants sent: pongs, the answer to a close, the end."""
        for data in self._protocol.data_to_send():
            if data:
                self.wire.put(data)
            else:
                self._is_over = True
                self.wire.close()
                return
        self.wire.flush()

    def _take_frame(self, frame: frames.Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            self.record.close_code = received.code if received is not None else None
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) or self._is_over:
            return
        if self._protocol.state is not OPEN:
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            message = b"".join(self._fragments)
            self._fragments.clear()
            self._take_message(message)

    def _take_message(self, message: bytes) -> None:
        """One whole message arrived."""
        if not self._is_text:
            self._refuse_frame(Refusal(400, None, "Expected a text frame with a JSON object, but got a binary frame."))
            return
        try:
            message.decode()
        except UnicodeDecodeError:
            self._protocol.fail(frames.CloseCode.INVALID_DATA, "invalid UTF-8")
            return
        body = decoding.read_object(message)
        if isinstance(body, Refusal):
            self._refuse_frame(body)
        elif body.get("type") == "response.create":
            self._take_create(body, message)
        elif body.get("type") == "response.steer":
            self.steers.take(body)
        else:
            self._refuse_type(body)

    def _refuse_type(self, body: Json) -> None:
        kind = body.get("type")
        if kind is None:
            refusal = Refusal(400, "missing_required_parameter", "Missing required parameter: 'type'.", "type")
        else:
            text = f"Invalid value: '{str(kind)[:80]}'. Supported values are: response.create, response.steer."
            refusal = Refusal(400, "invalid_value", text, "type")
        self._refuse_frame(refusal)

    def _refuse_frame(self, refusal: Refusal) -> None:
        """Refuse something that is not a create, so that no record of a request stands for it."""
        self.state.counters.refused += 1
        self.put_event(refusal.frame(None))
        self.wire.flush()
        self.state.watch.notify()

    def _take_create(self, body: Json, raw: bytes) -> None:
        record = RequestRecord(
            index=self.state.requests_seen,
            transport="ws",
            connection=self.record.index,
            connection_id=self.record.connection_id,
            method="GET",
            path=self.record.path,
            headers=self.record.headers,
            received_at_s=self.state.clock.now_s(),
            body=body,
            raw=raw,
        )
        self._count(record)
        refusal = None
        if self.state.clock.now_s() - (self.record.answered_at_s or 0.0) >= self.state.settings.lifetime_s:
            self._expire()
            return
        if "stream_id" in body:
            refusal = self.lanes.admit(body["stream_id"])
        reply = self._mounts.take(record) or self.state.stage.creates.take(record) if refusal is None else None
        self.lanes.enqueue(self._lane_of(record), Job(record, reply, refusal))
        self._start_jobs()
        self.state.tell("request", record)

    def _lane_of(self, record: RequestRecord) -> str | None:
        return None if self.state.settings.serial else record.stream_id

    def _count(self, record: RequestRecord) -> None:
        state, counters = self.state, self.state.counters
        state.requests_seen += 1
        state.requests.append(record)
        state.keep(state.requests)
        if record.is_warm_up:
            counters.warm_ups += 1
        elif record.previous_response_id is not None:
            counters.creates_delta += 1
        else:
            counters.creates_full += 1

    def _start_jobs(self) -> None:
        """Start what may run now: look its parent up and let it answer."""
        for job in self.lanes.start():
            self.running.append(job)
            self.wire.spawn(self._run(job, self._prepare(job)))

    def _prepare(self, job: Job) -> Answer:
        """Look the parent of a job up and make its answer; it counts as in flight from here on."""
        record = job.record
        job.parent = respond.find_parent(self.state, record, self.memory)
        record.queued_input = self.steers.claim(record)
        respond.note_visible(self.state, record, job.parent)
        outlet = LaneOutlet(self, record.stream_id)
        answer = Answer(self.state, record, outlet, stream_id=record.stream_id, on_terminal=self._remember(job))
        answer.is_steered = lambda: self.steers.waits_for(answer.response_id)
        answer.start()
        job.answer = answer
        return answer

    def _remember(self, job: Job) -> Callable[[Answer], None]:
        return lambda answer: respond.remember(answer, job.parent, self.memory)

    async def _run(self, job: Job, answer: Answer) -> None:
        if job.refusal is not None:
            answer.refuse(job.refusal)
            answer.outlet.flush()
            answer.finish()
        else:
            await respond.respond(answer, job.reply, job.parent)
        successor = self.steers.settle(job.record, answer)
        self.running.remove(job)
        if successor is not None:
            next_job = Job(successor, None)
            self.running.append(next_job)
            await self._run(next_job, self._prepare(next_job))
            return
        self.lanes.finish(self._lane_of(job.record))
        self._answered += 1
        if self._answered == self.connection.close_after:
            self.close(self.connection.close_code, "")
        self._start_jobs()

    def _expire(self) -> None:
        """The socket is too old: say so and end it, whatever is running."""
        if self._is_over:
            return
        minutes = self.state.settings.lifetime_s / 60
        text = (
            f"Responses websocket connection limit reached ({minutes:g} minutes). "
            "Create a new websocket connection to continue."
        )
        refusal = Refusal(400, "websocket_connection_limit_reached", text)
        for job in self.running:
            job.record.outcome, job.record.error_code, job.record.status = "error", refusal.code, refusal.status
        self.put_event(refusal.frame(None))
        self.close(1000, "")

    def put_event(self, event: Mapping[str, Any]) -> None:
        """Gather one event that belongs to no answer."""
        self.put_text(_encode(event))

    def put_text(self, payload: bytes) -> None:
        """Gather a text frame. Written by hand when nothing compresses it, as frames are the bulk of the work."""
        if self._protocol.extensions or self._protocol.state is not OPEN:
            self.put_frame(frames.Frame(Opcode.TEXT, payload))
        else:
            self.wire.put(_frame_head(0x81, len(payload)) + payload)

    def put_texts(self, payloads: Sequence[bytes]) -> None:
        """Gather many text frames."""
        if self._protocol.extensions or self._protocol.state is not OPEN:
            for payload in payloads:
                self.put_text(payload)
        else:
            self.wire.put(b"".join([_frame_head(0x81, len(payload)) + payload for payload in payloads]))

    def put_frame(self, frame: frames.Frame) -> None:
        """Gather a frame; after a close frame there is none."""
        if self._protocol.state is OPEN:
            self.wire.put(frame.serialize(mask=False, extensions=self._protocol.extensions))

    def put_raw_frame(self, frame: Frame) -> None:
        """Gather a frame exactly as described, uncompressed."""
        first = (0x80 if frame.fin else 0) | (0x40 if frame.rsv1 else 0) | (frame.opcode & 0x0F)
        self.wire.put(_frame_head(first, len(frame.payload)) + frame.payload)

    def close(self, code: int | None, reason: str) -> None:
        """Send a close frame and wait for the peer's; the peer ends the connection, or this side after its answer."""
        if self._protocol.state is OPEN:
            payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
            self.put_frame(frames.Frame(Opcode.CLOSE, payload))
            self._protocol.close_sent = frames.Close(code if code is not None else 1005, reason)
            self._protocol.state = CLOSING
            self._timers.append(self.state.clock.call_later(CLOSE_TIMEOUT_S, self.wire.close))
        self.wire.flush()


def _frame_head(first: int, size: int) -> bytes:
    """The head of an unmasked frame. Source: RFC 6455, 5.2."""
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


class LaneOutlet:
    """Implements `answer.Outlet` for one answer on a WebSocket."""

    __slots__ = ("_side", "_stream_id")

    def __init__(self, side: WebSocketSide, stream_id: str | None) -> None:
        self._side = side
        self._stream_id = stream_id

    def begin(self, reply: Reply | None) -> None:
        """A frame has no head."""

    def event(self, kind: str, payload: bytes) -> None:
        self._side.put_text(payload)

    def events(self, kind: str, payloads: Sequence[bytes]) -> None:
        self._side.put_texts(payloads)

    def text(self, text: str) -> None:
        self._side.put_text(text.encode())

    def raw(self, data: bytes) -> None:
        self._side.put_frame(frames.Frame(Opcode.BINARY, data))

    def ping(self, payload: bytes) -> None:
        self._side.put_frame(frames.Frame(Opcode.PING, payload))

    def frame(self, frame: Frame) -> None:
        self._side.put_raw_frame(frame)

    def refuse(self, refusal: Refusal) -> None:
        self._side.put_event(refusal.frame(self._stream_id))

    def error_reply(self, reply: Reply) -> None:
        self._side.put_text(_error_frame(reply))

    def end(self) -> None:
        """A lane stays open."""

    def flush(self) -> None:
        self._side.wire.flush()

    def needs_drain(self) -> bool:
        return self._side.wire.pending_bytes > GATHERED_BYTES

    async def drain(self) -> None:
        await self._side.wire.drain()

    def drop(self) -> None:
        self._side.wire.drop()

    def close(self, code: int | None, reason: str) -> None:
        self._side.close(code, reason)

    def stall(self) -> None:
        self._side.wire.stall()


def _error_frame(reply: Reply) -> bytes:
    """A scripted error as a frame: the error object of its body, with status and headers."""
    if isinstance(reply.body, str | bytes):
        return reply.body.encode() if isinstance(reply.body, str) else reply.body
    refusal = Refusal(reply.status, DEFAULT_CODES.get(reply.status), f"Simulated error with status {reply.status}.")
    frame = refusal.frame(None)
    if reply.body is not None and isinstance(reply.body.get("error"), Mapping):
        frame["error"] = dict(reply.body["error"])
    told = {name: value for name, value in reply.headers.items() if value is not None}
    if told:
        frame["error"]["headers"] = told
    return _encode(frame)

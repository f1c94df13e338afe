"""One answer in the making: fills in what events leave out, encodes them, and notes what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from warmline_simulator import ev
from warmline_simulator.records import Json, Outcome, RequestRecord
from warmline_simulator.refusal import Refusal
from warmline_simulator.script import Event, Frame, Reply, TextDeltas
from warmline_simulator.state import State

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

TERMINALS: dict[str, Outcome] = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "error": "error",
}


class Outlet(Protocol):
    """Where an answer goes: a lane of a WebSocket, or the body of an HTTP response."""

    def begin(self, reply: Reply | None) -> None:
        """The answer starts now, with the reply's headers if a reply makes it."""

    def event(self, kind: str, payload: bytes) -> None:
        """Gather one event."""

    def events(self, kind: str, payloads: Sequence[bytes]) -> None:
        """Gather events of one kind."""

    def text(self, text: str) -> None:
        """Gather text as it is."""

    def raw(self, data: bytes) -> None:
        """Gather bytes: a binary frame, or raw bytes of the body."""

    def ping(self, payload: bytes) -> None:
        """Gather a ping, or a comment."""

    def frame(self, frame: Frame) -> None:
        """Gather one frame of any shape."""

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error instead."""

    def error_reply(self, reply: Reply) -> None:
        """Answer with the reply's status and body instead of events."""

    def end(self) -> None:
        """Nothing more comes."""

    def flush(self) -> None:
        """Hand what was gathered to the network."""

    def needs_drain(self) -> bool:
        """So much is gathered that it should leave now."""

    async def drain(self) -> None:
        """Return once the network takes more."""

    def drop(self) -> None:
        """Reset the connection."""

    def close(self, code: int | None, reason: str) -> None:
        """End the connection."""

    def stall(self) -> None:
        """Fall silent for good."""


def _never() -> bool:
    return False


class Answer:
    """The answer to one request."""

    __slots__ = (
        "is_steered",
        "items",
        "on_terminal",
        "outlet",
        "record",
        "response",
        "response_id",
        "scripted",
        "sequence",
        "state",
        "stream_id",
    )

    def __init__(
        self,
        state: State,
        record: RequestRecord,
        outlet: Outlet,
        *,
        stream_id: str | None = None,
        on_terminal: Callable[[Answer], None] | None = None,
    ) -> None:
        self.state = state
        self.record = record
        self.outlet = outlet
        self.stream_id = stream_id
        self.response_id = ""
        self.scripted = False
        self.sequence = 0
        self.is_steered: Callable[[], bool] = _never
        """Whether user input waits to interrupt it; asked by the model before each word."""
        self.items: list[Json] = []
        """Output items that were announced as done."""
        self.response: Json | None = None
        """The final response object; None before the terminal event."""
        self.on_terminal = on_terminal
        """Called once, when the outcome is known and before the client can."""

    def send(self, event: Event) -> None:
        """Fill in, encode and gather one event."""
        kind = str(event.get("type", ""))
        filled: dict[str, Any] = dict(event)
        if kind.startswith("response."):
            if "sequence_number" not in filled:
                filled["sequence_number"] = self.sequence
            self.sequence += 1
        if self.stream_id is not None and "stream_id" not in filled:
            filled["stream_id"] = self.stream_id
        payload = _encode(filled)
        if self.scripted and b"{{" in payload:
            payload = self._substitute(payload)
        self._count(payload)
        self._note(kind, filled, payload)
        self.outlet.event(kind, payload)

    def send_deltas(self, deltas: TextDeltas) -> None:
        """Gather many text deltas: what they share is encoded once, as they are most of all events."""
        shared = ev.text_delta("", item_id=deltas.item_id, output_index=deltas.output_index)
        shared["content_index"] = deltas.content_index
        head, _, tail = _encode(shared).partition(b'"delta":""')
        tail = tail[:-1] + b',"sequence_number":'
        end = b"}" if self.stream_id is None else b',"stream_id":' + _encode(self.stream_id) + b"}"
        head += b'"delta":'
        first = self.sequence
        payloads = [
            b"%b%b%b%d%b" % (head, _encode(piece), tail, number, end)
            for number, piece in enumerate(deltas.pieces, start=first)
        ]
        self.sequence += len(payloads)
        self._count_many(payloads)
        self.outlet.events("response.output_text.delta", payloads)

    def send_text(self, text: str) -> None:
        """Gather text as it is."""
        self._count(text.encode())
        self.outlet.text(text)

    def _count(self, payload: bytes) -> None:
        self._count_many((payload,))

    def _count_many(self, payloads: Sequence[bytes]) -> None:
        record = self.record
        record.events_sent += len(payloads)
        self.state.counters.events_sent += len(payloads)
        if record.answered_at_s is None:
            record.answered_at_s = self.state.clock.now_s()
        if self.state.settings.keep_frames:
            record.frames.extend(payloads)

    def _substitute(self, payload: bytes) -> bytes:
        model = self.record.body.get("model")
        values = {
            b"{{response_id}}": self.response_id,
            b"{{key}}": self.response_id.removeprefix("resp_"),
            b"{{model}}": model if isinstance(model, str) else "sim-large",
        }
        for placeholder, value in values.items():
            payload = payload.replace(placeholder, _encode(value)[1:-1])
        return payload

    def keep_frame(self, payload: bytes) -> None:
        """Keep what was sent in the record, when the simulator was told to."""
        if self.state.settings.keep_frames:
            self.record.frames.append(payload)

    def _note(self, kind: str, event: dict[str, Any], payload: bytes) -> None:
        """Keep what later requests and the records need."""
        if kind == "response.output_item.done":
            item = _decode(payload).get("item") if self.scripted else event.get("item")
            if isinstance(item, dict):
                self.items.append(item)
        elif kind == "response.created":
            self.record.response_id = self.response_id
        elif kind in TERMINALS:
            self._note_terminal(kind, _decode(payload) if self.scripted else event)

    def _note_terminal(self, kind: str, event: dict[str, Any]) -> None:
        record = self.record
        if record.outcome != "running":
            return
        record.outcome = TERMINALS[kind]
        body = event if kind == "error" else event.get("response")
        problem = body.get("error", body) if isinstance(body, dict) else None
        if isinstance(problem, dict) and kind in ("error", "response.failed"):
            code = problem.get("code")
            record.error_code = code if isinstance(code, str) else None
        if kind == "error":
            status = event.get("status")
            record.status = status if isinstance(status, int) else record.status
        elif isinstance(body, dict):
            record.response_id = self.response_id
            self.response = body
        if self.on_terminal is not None:
            self.on_terminal(self)

    def refuse(self, refusal: Refusal, outcome: Outcome = "refused") -> None:
        """Answer with an error instead of a response."""
        record = self.record
        record.outcome, record.status, record.error_code = outcome, refusal.status, refusal.code
        record.answered_at_s = self.state.clock.now_s()
        if outcome == "refused":
            self.state.counters.refused += 1
        if self.on_terminal is not None:
            self.on_terminal(self)
        self.keep_frame(_encode(refusal.body()))
        self.outlet.refuse(refusal)

    def start(self) -> None:
        """The answer counts as in flight from here on."""
        self.state.counters.responses_running += 1

    def finish(self) -> None:
        """Everything was handed to the network."""
        self.record.finished = True
        self._end("ended")

    def cut(self) -> None:
        """The script ended the connection."""
        self.record.finished = True
        self._end("cut")

    def abort(self) -> None:
        """The client went away. Without effect once the answer is over; a terminal event that was sent still counts."""
        record = self.record
        if record.ended_at_s is None and record.outcome == "running":
            record.aborted_at_s = self.state.clock.now_s()
            self.state.counters.aborted_turns += 1
        self._end("aborted")

    def _end(self, outcome: Outcome) -> None:
        record, counters = self.record, self.state.counters
        if record.ended_at_s is not None:
            return
        record.ended_at_s = self.state.clock.now_s()
        if record.outcome == "running":
            record.outcome = outcome
        counters.responses_running -= 1
        if record.outcome == "completed":
            counters.responses_completed += 1
        elif record.outcome in ("failed", "incomplete", "error"):
            counters.responses_failed += 1
        self.state.tell("request_ended", record)

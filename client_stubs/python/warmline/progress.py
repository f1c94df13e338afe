"""What a turn has brought so far, folded from its events. Pure: no I/O, no asyncio."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from warmline.errors import ErrorFacts, SequenceGapError
from warmline.items import custom_tool_output, function_output, verbatim_member
from warmline.v1 import turn_service_pb2, types_pb2

Ending = Literal["completed", "incomplete", "unfinished"]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function that the model wants called; `arguments` is its JSON text."""

    call_id: str
    name: str
    arguments: str

    def answer(self, output: str) -> types_pb2.Item:
        """The item that answers the call."""
        return function_output(self.call_id, output)


@dataclass(frozen=True, slots=True)
class CustomToolCall:
    """A custom tool that the model wants called; `input` is free text."""

    call_id: str
    name: str
    input: str

    def answer(self, output: str) -> types_pb2.Item:
        """The item that answers the call."""
        return custom_tool_output(self.call_id, output)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """A turn's outcome. None and blank mean: not told, or not known."""

    ending: Ending
    """"unfinished" only in a snapshot."""
    text: str
    """Text of the answer: of the finished messages, then what was streamed of an unfinished one."""
    items: tuple[bytes, ...]
    """The finished output items, oldest first, each one JSON object byte for byte as it came: send them back so."""
    function_calls: tuple[FunctionCall, ...]
    custom_tool_calls: tuple[CustomToolCall, ...]
    turn_id: str
    request_id: str
    conversation_id: str
    response_id: str
    upstream_request_id: str | None
    """The provider's id of the request; None: unknown, as always over a WebSocket."""
    usage: types_pb2.Usage | None
    end_turn: bool | None
    incomplete_reason: str | None
    """Why the response ended early; None: it did not."""
    history_position: int | None
    """Items of the lane's conversation, for a next turn's `append_at`; None before the end."""
    attempts: int
    """Number of the newest attempt upstream."""
    slot_outcome: str
    """Of the newest attempt: ADOPTED, AWAITED, REUSED, COLD or NONE; the number itself where no name is known."""
    transport: str
    """Of the newest attempt: WEBSOCKET, HTTP or FIXTURE; likewise."""
    connection_id: str
    incremental: bool
    """Whether the newest attempt sent only new items."""
    full_reason: str
    """Why it did not."""
    fell_back: str | None
    """Why the call went on over HTTP; None: it did not."""
    server_model: str
    """The model that really served the request."""
    unknown_events: int
    """Events of a newer server that this client skipped."""
    unknown_values: int
    """How many of `slot_outcome`, `transport` and `full_reason` are a newer server's, and so numbers."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """An item that is done; `text` is a message's, else blank."""

    sequence: int
    attempt: int
    item: bytes
    text: str


@dataclass(slots=True)
class TurnProgress:
    """Folds the events of one call, in order. Linear in their number."""

    turn_id: str
    request_id: str
    sequence: int = 0
    """Of the newest event; 0: none has come."""
    attempts: int = 0
    unknown_events: int = 0
    conversation_id: str = ""
    response_id: str = ""
    upstream_request_id: str | None = None
    ending: Ending = "unfinished"
    has_voided_text: bool = False
    """Whether a resend took back text that had been delivered."""
    _items: list[_Finished] = field(default_factory=list)
    _open_text: dict[str, list[str]] = field(default_factory=dict)
    """Pieces of messages that are not finished, by item id (blank when not told), in order of their beginning."""
    _attempt: turn_service_pb2.AttemptStarted = field(default_factory=turn_service_pb2.AttemptStarted)
    _fell_back: str | None = None
    _server_model: str = ""
    _end: turn_service_pb2.Completed | turn_service_pb2.Incomplete | None = None

    def accept(self, event: turn_service_pb2.TurnEvent) -> bool:
        """Takes the next event.

        Returns:
            Whether the caller shall see it; False for a member that this client does not know.

        Raises:
            SequenceGapError: an event is missing or doubled; the progress stays as it was.
        """
        if event.sequence != self.sequence + 1:
            raise SequenceGapError(
                f"read turn events: event {event.sequence} came, expected {self.sequence + 1}", self.facts()
            )
        self.sequence = event.sequence
        self.attempts = max(self.attempts, event.attempt)
        kind = event.WhichOneof("event")
        if kind is None:
            self.unknown_events += 1
            return False
        if apply := _APPLY.get(kind):
            apply(self, event)
        return True

    def facts(self) -> ErrorFacts:
        """The ids so far, for an error."""
        return ErrorFacts(
            turn_id=self.turn_id,
            request_id=self.request_id,
            response_id=self.response_id,
            upstream_request_id=self.upstream_request_id,
            attempts=self.attempts or None,
        )

    def snapshot(self) -> TurnResult:
        """The outcome so far; the events' end decides when it is final."""
        end = self._end
        outputs = [_object(finished.item) for finished in self._items]
        completed = end if isinstance(end, turn_service_pb2.Completed) else None
        incomplete = end if isinstance(end, turn_service_pb2.Incomplete) else None
        slot_outcome = _name(types_pb2.SlotOutcome, self._attempt.slot_outcome, "SLOT_OUTCOME_")
        transport = _name(types_pb2.Transport, self._attempt.transport, "TRANSPORT_")
        full_reason = _name(types_pb2.FullReason, self._attempt.full_reason, "FULL_REASON_")
        return TurnResult(
            ending=self.ending,
            text="".join(finished.text for finished in self._items) + self._unfinished_text(),
            items=tuple(finished.item for finished in self._items),
            function_calls=tuple(_function_call(o) for o in outputs if o.get("type") == "function_call"),
            custom_tool_calls=tuple(_custom_tool_call(o) for o in outputs if o.get("type") == "custom_tool_call"),
            turn_id=self.turn_id,
            request_id=self.request_id,
            conversation_id=self.conversation_id,
            response_id=self.response_id,
            upstream_request_id=self.upstream_request_id,
            usage=end.usage if end is not None and end.HasField("usage") else None,
            end_turn=completed.end_turn if completed is not None and completed.HasField("end_turn") else None,
            incomplete_reason=incomplete.reason if incomplete is not None else None,
            history_position=end.history_position if end is not None else None,
            attempts=self.attempts,
            slot_outcome=slot_outcome,
            transport=transport,
            connection_id=self._attempt.connection_id,
            incremental=self._attempt.incremental,
            full_reason=full_reason,
            fell_back=self._fell_back,
            server_model=self._server_model,
            unknown_events=self.unknown_events,
            unknown_values=sum(name.lstrip("-").isdigit() for name in (slot_outcome, transport, full_reason)),
        )

    def _unfinished_text(self) -> str:
        return "".join(piece for pieces in self._open_text.values() for piece in pieces)

    def _take_admitted(self, event: turn_service_pb2.TurnEvent) -> None:
        self.turn_id = event.admitted.turn_id
        self.request_id = event.admitted.request_id
        self.conversation_id = event.admitted.conversation_id

    def _take_attempt_started(self, event: turn_service_pb2.TurnEvent) -> None:
        self._attempt = event.attempt_started
        self.response_id = ""
        self.upstream_request_id = None

    def _take_retrying(self, event: turn_service_pb2.TurnEvent) -> None:
        retrying = event.retrying
        self.response_id = retrying.response_id
        self.upstream_request_id = retrying.upstream_request_id if retrying.HasField("upstream_request_id") else None

    def _take_fell_back(self, event: turn_service_pb2.TurnEvent) -> None:
        self._fell_back = event.fell_back.reason

    def _take_restarted(self, event: turn_service_pb2.TurnEvent) -> None:
        kept = set(event.restarted.kept_item_sequences)
        counts = [f for f in self._items if f.attempt >= event.restarted.attempt or f.sequence in kept]
        voided_text = sum(len(f.text) for f in self._items) - sum(len(f.text) for f in counts)
        self.has_voided_text |= voided_text > 0 or bool(self._open_text)
        self._items = counts
        self._open_text.clear()

    def _take_created(self, event: turn_service_pb2.TurnEvent) -> None:
        self.response_id = event.created.response_id

    def _take_item_done(self, event: turn_service_pb2.TurnEvent) -> None:
        self._finish_item(event, event.item_done.item.json)

    def _take_text_delta(self, event: turn_service_pb2.TurnEvent) -> None:
        delta = event.text_delta
        self._open_text.setdefault(delta.item_id, []).append(delta.delta)

    def _take_server_model(self, event: turn_service_pb2.TurnEvent) -> None:
        self._server_model = event.server_model.model

    def _take_completed(self, event: turn_service_pb2.TurnEvent) -> None:
        self.ending = "completed"
        self._take_end(event.completed)

    def _take_incomplete(self, event: turn_service_pb2.TurnEvent) -> None:
        self.ending = "incomplete"
        self._take_end(event.incomplete)

    def _take_end(self, end: turn_service_pb2.Completed | turn_service_pb2.Incomplete) -> None:
        self._end = end
        self.response_id = end.response_id or self.response_id
        self.upstream_request_id = end.upstream_request_id if end.HasField("upstream_request_id") else None

    def _take_raw(self, event: turn_service_pb2.TurnEvent) -> None:
        """Reads what a result needs of events that the caller asked to have raw."""
        match event.upstream_type:
            case "response.output_item.done":
                item = verbatim_member(event.payload_json, "item")
                if item is not None:
                    self._finish_item(event, item)
            case "response.output_text.delta":
                payload = _object(event.payload_json)
                self._open_text.setdefault(_text(payload, "item_id"), []).append(_text(payload, "delta"))
            case "response.created":
                response = verbatim_member(event.payload_json, "response")
                self.response_id = _text(_object(response or b"{}"), "id")

    def _finish_item(self, event: turn_service_pb2.TurnEvent, item: bytes) -> None:
        output = _object(item)
        if output.get("type") == "message":
            self._open_text.pop(_text(output, "id"), None)
            self._open_text.pop("", None)
        self._items.append(_Finished(event.sequence, event.attempt, item, _message_text(output)))


def text_delta(event: turn_service_pb2.TurnEvent) -> str | None:
    """The piece of the answer's text that an event carries, typed or raw; None for any other event."""
    if event.HasField("text_delta"):
        return event.text_delta.delta
    if event.HasField("raw") and event.upstream_type == "response.output_text.delta":
        return _text(_object(event.payload_json), "delta")
    return None


def _object(json_text: bytes) -> dict[str, Any]:
    """A JSON object; empty for anything else, because a result must not fail on an item that it cannot read."""
    try:
        value = json.loads(json_text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _message_text(output: dict[str, Any]) -> str:
    """The text of a message's parts; blank for any other item."""
    parts = output.get("content") if output.get("type") == "message" else None
    if not isinstance(parts, list):
        return ""
    return "".join(
        _text(part, "text") for part in parts if isinstance(part, dict) and part.get("type") == "output_text"
    )


def _function_call(output: dict[str, Any]) -> FunctionCall:
    return FunctionCall(_text(output, "call_id"), _text(output, "name"), _text(output, "arguments"))


def _custom_tool_call(output: dict[str, Any]) -> CustomToolCall:
    return CustomToolCall(_text(output, "call_id"), _text(output, "name"), _text(output, "input"))


def _name(enum: Any, value: int, prefix: str) -> str:
    """A value's name without its prefix, blank for UNSPECIFIED, the number when a newer server made it."""
    if value == 0:
        return ""
    known = enum.DESCRIPTOR.values_by_number.get(value)
    return str(value) if known is None else str(known.name).removeprefix(prefix)


_APPLY: dict[str, Callable[[TurnProgress, turn_service_pb2.TurnEvent], None]] = {
    "admitted": TurnProgress._take_admitted,
    "attempt_started": TurnProgress._take_attempt_started,
    "retrying": TurnProgress._take_retrying,
    "fell_back": TurnProgress._take_fell_back,
    "restarted": TurnProgress._take_restarted,
    "created": TurnProgress._take_created,
    "item_done": TurnProgress._take_item_done,
    "text_delta": TurnProgress._take_text_delta,
    "server_model": TurnProgress._take_server_model,
    "completed": TurnProgress._take_completed,
    "incomplete": TurnProgress._take_incomplete,
    "raw": TurnProgress._take_raw,
}

"""Steering: user input for a response that is under way, taken up by a successor.

Source: OpenAPI 2.3.0, events `response.steer*`. Accepted input belongs to the service. The active response ends early
with `incomplete` / `steered` (or as usual), and a successor starts by itself with the input. When the response owes
tool outputs, the input waits for the create that answers them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmline_simulator import ev, tools
from warmline_simulator.answer import Answer
from warmline_simulator.input_rules import check_input
from warmline_simulator.read import input_items
from warmline_simulator.records import Json, RequestRecord, SteerRecord

if TYPE_CHECKING:
    from warmline_simulator.websocket import WebSocketSide

FIELDS = {"type", "previous_response_id", "input"}
PARTS = ("input_text", "input_image", "input_file")
_KEPT_ENDED = 1000
"""Ended responses remembered per socket, to tell `already completed` from `not found`."""


@dataclass(frozen=True, slots=True)
class Steer:
    """Accepted input."""

    record: SteerRecord
    id: str
    items: list[Json]


class Desk:
    """The steers of one socket."""

    def __init__(self, side: WebSocketSide) -> None:
        self._side = side
        self._waiting: dict[str, list[Steer]] = {}
        self._ended: dict[str, str] = {}

    def waits_for(self, response_id: str) -> bool:
        """Whether input waits to interrupt that response."""
        return bool(self._waiting.get(response_id))

    def take(self, body: Json) -> None:
        """A `response.steer` frame arrived."""
        state = self._side.state
        state.counters.steers += 1
        record = SteerRecord(connection=self._side.record.index, body=body, received_at_s=state.clock.now_s())
        state.steers.append(record)
        target = body.get("previous_response_id")
        problem = self._problem(body, target)
        if problem is not None:
            record.error_code = problem[0]
            failed = ev.steer_failed(*problem, previous_response_id=str(target or ""), input=body.get("input"))
            self._side.put_event({**failed, "sequence_number": 0})
            self._side.wire.flush()
        else:
            self._accept(record, str(target))
        state.watch.notify()

    def _problem(self, body: Json, target: Any) -> tuple[str, str] | None:
        """Code and message of a refusal; None when the input is taken."""
        invalid = _invalid(body)
        if invalid is not None:
            return "invalid_input", invalid
        settings = self._side.state.settings
        if settings.serial or not settings.steering:
            return "steering_not_supported", "Steering is not supported here."
        if target in self._ended:
            if self._ended[target] == "completed":
                return "response_already_completed", f"Response '{target}' has already completed."
            return "response_not_active", f"Response '{target}' is no longer active."
        answer = self._active(target)
        if answer is None:
            return "response_not_found", f"Response '{target}' is not available on this connection."
        if answer.scripted:
            return "steering_not_supported", "A scripted reply cannot be steered."
        if len(self._waiting.get(target, ())) >= settings.max_pending_steers:
            return "too_many_pending_steers", f"Too much steering input is pending for response '{target}'."
        return None

    def _active(self, response_id: str) -> Answer | None:
        for job in self._side.running:
            if job.answer is not None and job.answer.response_id == response_id:
                return job.answer
        return None

    def _accept(self, record: SteerRecord, target: str) -> None:
        record.steer_id = self._side.state.ids.new("steer")
        self._waiting.setdefault(target, []).append(Steer(record, record.steer_id, input_items(record.body)))
        answer = self._active(target)
        if answer is not None:
            answer.send(ev.steer_accepted(record.steer_id, target))
            answer.outlet.flush()

    def claim(self, record: RequestRecord) -> list[Json]:
        """The input queued for the response that a create continues, oldest first; it is taken with this."""
        steers = self._waiting.pop(record.previous_response_id or "", [])
        return [item for steer in steers for item in steer.items]

    def settle(self, record: RequestRecord, answer: Answer) -> RequestRecord | None:
        """An answer is over: say what becomes of its steers. Returns the successor's request, if there is one."""
        response_id = answer.response_id
        if not response_id:
            return None
        self._ended[response_id] = record.outcome
        if len(self._ended) > _KEPT_ENDED:
            del self._ended[next(iter(self._ended))]
        steers = self._waiting.get(response_id)
        if not steers:
            return None
        if record.outcome not in ("completed", "incomplete"):
            self._give_back(response_id)
            return None
        required = [_stub(item) for item in tools.owed(answer.items)]
        if required:
            for steer in steers:
                answer.send(ev.steer_pending(steer.id, response_id, required))
            answer.outlet.flush()
            return None
        return self._successor(record, response_id, steers)

    def _give_back(self, response_id: str) -> None:
        for steer in self._waiting.pop(response_id):
            event = ev.steer_failed(
                "successor_creation_failed",
                "The response failed.",
                previous_response_id=response_id,
                input=steer.record.body.get("input"),
                steer_id=steer.id,
            )
            self._side.put_event({**event, "sequence_number": 0})
        self._side.wire.flush()

    def _successor(self, record: RequestRecord, response_id: str, steers: list[Steer]) -> RequestRecord:
        body = {**record.body, "previous_response_id": response_id, "input": []}
        successor = RequestRecord(
            index=-1,
            transport="ws",
            connection=record.connection,
            connection_id=record.connection_id,
            method=record.method,
            path=record.path,
            headers=record.headers,
            received_at_s=self._side.state.clock.now_s(),
            body=body,
            raw=b"",
        )
        for steer in steers:
            steer.record.successor = successor
        return successor


def _invalid(body: Mapping[str, Any]) -> str | None:
    """Why a steer frame is not valid; None when it is."""
    unknown = sorted(set(body) - FIELDS)
    if unknown:
        return f"Unknown parameter: '{unknown[0]}'."
    if not isinstance(body.get("previous_response_id"), str):
        return "Missing required parameter: 'previous_response_id'."
    given = body.get("input")
    if given is None or given in ("", []):
        return "Missing required parameter: 'input'."
    refusal = check_input(given, "input")
    if refusal is not None:
        return refusal.message
    if not all(_is_user_message(item) for item in input_items(body)):
        return "Steering accepts only messages with the user role."
    return None


def _is_user_message(item: Mapping[str, Any]) -> bool:
    if item.get("type", "message") != "message" or item.get("role") != "user":
        return False
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return not set(item) - {"type", "role", "content"} and all(part.get("type") in PARTS for part in parts)


def _stub(item: Mapping[str, Any]) -> Json:
    """The input that a call waits for, without its result."""
    stub: Json = {"type": f"{item['type']}_output", "call_id": item["call_id"]}
    if item["type"] == "function_call":
        stub["name"] = item["name"]
    return stub

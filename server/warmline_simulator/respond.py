"""Decides who answers a request (a script, the model, or a refusal) and lets it answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from warmline_simulator import invariants, model, rules
from warmline_simulator.answer import Answer
from warmline_simulator.memory import LaneMemory, Remembered
from warmline_simulator.play import hold, play, response_id_of
from warmline_simulator.read import input_items
from warmline_simulator.records import Json, RequestRecord
from warmline_simulator.refusal import Refusal
from warmline_simulator.script import Reply
from warmline_simulator.sse import body_bytes
from warmline_simulator.state import State

_SPARE_LEVELS = 20
"""Levels of nesting an event may add around what it echoes; it adds three."""


@dataclass(frozen=True, slots=True)
class Parent:
    """What a request continues."""

    response: Remembered | None = None
    """None: nothing, or nothing that is known."""
    is_named: bool = False
    """The request names a previous response."""
    is_hydrated: bool = False
    """It came from the store."""

    @property
    def is_missing(self) -> bool:
        """The request names a response that is not known."""
        return self.is_named and self.response is None


def find_parent(state: State, record: RequestRecord, memory: LaneMemory | None) -> Parent:
    """Look the previous response up: in the connection's memory, then in the store."""
    wanted = record.previous_response_id
    if wanted is None:
        return Parent()
    cached = memory.get(wanted) if memory is not None else None
    if cached is not None:
        return Parent(cached, is_named=True)
    stored = state.store.get(wanted)
    return Parent(stored, is_named=True, is_hydrated=stored is not None)


def note_visible(state: State, record: RequestRecord, parent: Parent) -> None:
    """Work out the conversation the model sees, and check it against the invariants."""
    record.hydrated = parent.is_hydrated
    before: list[Json] | None = []
    if parent.is_named:
        before = parent.response.visible() if parent.response is not None else None
    if before is None:
        return
    record.visible_input = [*before, *record.queued_input, *input_items(record)]
    for violation in invariants.violations(record.visible_input, is_warm_up=record.is_warm_up):
        state.violations.append(f"{record.transport} request {record.index}: {violation}")


async def respond(answer: Answer, reply: Reply | None, parent: Parent) -> None:
    """Answer one request to its end. Cancel: the client has gone; the answer is recorded as aborted."""
    state = answer.state
    if reply is not None:
        answer.record.scripted = True
        await hold(state, reply.gate, reply.delay_s)
    if reply is not None and not reply.by_model:
        goes_on = await _play_reply(answer, reply)
    elif reply is None and state.stage.refuses:
        refuse_unscripted(answer)
        goes_on = True
    else:
        goes_on = await _let_model(answer, parent, reply)
    if goes_on and reply is not None and reply.then is not None:
        await play(answer, [reply.then], between_s=0)
    if answer.record.ended_at_s is None:
        answer.outlet.end()
        answer.outlet.flush()
        await answer.outlet.drain()
        answer.finish()


def refuse_unscripted(answer: Answer) -> None:
    """Refuse a request that no script expects; the run fails."""
    record = answer.record
    answer.state.unscripted.append(f"{record.transport} request {record.index}: {record.method} {record.path}")
    answer.refuse(Refusal(500, "simulator_unscripted", "The script does not expect this request."))


async def _play_reply(answer: Answer, reply: Reply) -> bool:
    if reply.status != 200 or reply.body is not None:
        record = answer.record
        record.status = reply.status
        record.outcome = "error" if reply.status != 200 else "completed"
        record.answered_at_s = answer.state.clock.now_s()
        answer.keep_frame(body_bytes(reply.body, reply.status))
        answer.outlet.error_reply(reply)
        return True
    answer.scripted = True
    answer.response_id = response_id_of(reply) or answer.state.ids.new("resp")
    answer.outlet.begin(reply)
    return await play(answer, reply.events, between_s=reply.between_s or 0.0)


async def _let_model(answer: Answer, parent: Parent, reply: Reply | None) -> bool:
    state, record = answer.state, answer.record
    refusal = rules.check(record, state, is_parent_missing=parent.is_missing)
    if refusal is not None:
        answer.refuse(refusal)
        return True
    if parent.is_hydrated and state.settings.hydration_delay_s > 0:
        await state.clock.sleep(state.settings.hydration_delay_s)
    answer.response_id = state.ids.new("resp")
    pace_s = model.pace_s(record.body, state.settings)
    if reply is not None and reply.between_s is not None:
        pace_s = reply.between_s
    asked = model.Question(
        response_id=answer.response_id,
        body=record.body,
        visible=record.visible_input if record.visible_input is not None else input_items(record),
        known_tokens=parent.response.tokens if parent.response is not None else 0,
        settings=state.settings,
        is_paced=pace_s > 0,
        is_steered=answer.is_steered,
    )
    if _is_too_deep(asked):
        answer.refuse(Refusal(400, None, "The JSON body of your request is nested too deeply."))
        return True
    answer.outlet.begin(reply)
    return await play(answer, model.answer(asked), between_s=pace_s, only_before_deltas=True)


def _is_too_deep(asked: model.Question) -> bool:
    """Whether a body could be read but is nested too deeply to be echoed from here."""
    # As deep again as an event wraps it, and more.
    wrapped: Any = asked.body
    for _ in range(_SPARE_LEVELS):
        wrapped = [wrapped]
    try:
        msgspec.json.encode(wrapped)
    except RecursionError:
        return True
    return False


def remember(answer: Answer, parent: Parent, memory: LaneMemory | None) -> None:
    """Keep the response for later requests, as its store flag and its lane say; forget what a failure invalidates."""
    record, state = answer.record, answer.state
    lane = record.stream_id
    if record.outcome not in ("completed", "incomplete"):
        if memory is not None and record.previous_response_id is not None:
            memory.evict(lane, record.previous_response_id)
        return
    response_usage = (answer.response or {}).get("usage") or {}
    remembered = Remembered(
        id=answer.response_id,
        parent=parent.response,
        input_items=[*record.queued_input, *input_items(record)],
        output_items=tuple(answer.items or (answer.response or {}).get("output") or ()),
        tokens=int(response_usage.get("total_tokens") or 0),
        stored=record.body.get("store") is not False,
        response=answer.response,
        complete=not parent.is_missing,
    )
    if memory is not None:
        memory.put(lane, remembered)
    if remembered.stored:
        state.store.put(remembered)

"""Plays an answer: events, pauses, gates and faults, in order, onto its outlet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from warmline_simulator import ev
from warmline_simulator.answer import Answer, Outlet
from warmline_simulator.script import (
    Close,
    Drop,
    Frame,
    Gate,
    Hang,
    Nothing,
    Oversize,
    Pause,
    Ping,
    Reply,
    Stall,
    Step,
    TextDeltas,
    Waitable,
)
from warmline_simulator.state import State

_DELTAS_AT_ONCE = 256
"""Deltas gathered before the outlet is asked whether to write: about a socket buffer of them."""


async def hold(state: State, gate: str | Waitable | None, delay_s: float) -> None:
    """Wait at a gate, then for a while. Cancel: safe."""
    if isinstance(gate, str):
        await state.stage.pass_gate(gate)
    elif gate is not None:
        await gate.wait()
    if delay_s > 0:
        await state.clock.sleep(delay_s)


def response_id_of(reply: Reply) -> str | None:
    """The id a reply spells out; None when it leaves the choice to the simulator."""
    if reply.response_id is not None:
        return reply.response_id
    for step in reply.events:
        response = step.get("response") if isinstance(step, Mapping) else None
        chosen = response.get("id") if isinstance(response, Mapping) else None
        if isinstance(chosen, str) and chosen and "{{" not in chosen:
            return chosen
    return None


async def play(answer: Answer, steps: Iterable[Step], *, between_s: float, only_before_deltas: bool = False) -> bool:
    """Send the steps in order.

    Args:
        between_s: silence between two events; 0 gathers as many as are ready into one write.
        only_before_deltas: be silent before deltas only, as a model is that thinks of the next word.
    Returns:
        False when a step ended the answer or its connection.
    Cancel: the client has gone; what was gathered is lost.
    """
    outlet, clock = answer.outlet, answer.state.clock
    is_first = True
    for step in steps:
        if isinstance(step, TextDeltas):
            await _send_deltas(answer, step)
            continue
        if not isinstance(step, Mapping):
            if not await _take_step(answer, step):
                return False
            await _drain_if_full(outlet)
            continue
        if between_s > 0 and not is_first and (not only_before_deltas or _is_delta(step)):
            outlet.flush()
            await outlet.drain()
            await clock.sleep(between_s)
        is_first = False
        answer.send(step)
        await _drain_if_full(outlet)
    return True


async def _drain_if_full(outlet: Outlet) -> None:
    """Waits for a client that reads slower than the script sends."""
    if outlet.needs_drain():
        outlet.flush()
        await outlet.drain()


async def _send_deltas(answer: Answer, deltas: TextDeltas) -> None:
    """Send many deltas, a buffer at a time."""
    for start in range(0, len(deltas.pieces), _DELTAS_AT_ONCE):
        part = deltas.pieces[start : start + _DELTAS_AT_ONCE]
        answer.send_deltas(TextDeltas(part, deltas.item_id, deltas.output_index, deltas.content_index))
        await _drain_if_full(answer.outlet)


def _is_delta(event: Mapping[str, Any]) -> bool:
    return str(event.get("type")).endswith(".delta")


async def _take_step(answer: Answer, step: Step) -> bool:
    """Take one step that is not an event; False when it ended the answer."""
    outlet = answer.outlet
    match step:
        case str():
            answer.send_text(step)
        case bytes():
            outlet.raw(step)
        case Ping():
            outlet.ping(step.payload)
        case Frame():
            outlet.frame(step)
        case Oversize():
            answer.send(ev.text_delta("x" * step.size_bytes))
        case Nothing():
            return False
        case _:
            return await _take_silence(answer, step)
    return True


async def _take_silence(answer: Answer, step: Step) -> bool:
    """Take one step that waits or ends the connection; what was gathered leaves first."""
    outlet, state = answer.outlet, answer.state
    outlet.flush()
    await outlet.drain()
    match step:
        case Pause():
            await state.clock.sleep(step.delay_s)
            return True
        case Gate():
            await state.stage.pass_gate(step.name)
            return True
        case Drop():
            answer.cut()
            outlet.drop()
        case Close():
            answer.cut()
            outlet.close(step.code, step.reason)
        case Stall():
            outlet.stall()
            await asyncio.Event().wait()
        case Hang():
            await asyncio.Event().wait()
        case _:
            raise TypeError(f"play a step: {type(step).__name__} — expected an event or a step of warmline_simulator")
    return False

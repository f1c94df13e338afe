"""The table walker, and the tables that it walks."""

from enum import Enum, auto

import pytest

from warmline_server.core.machine import IllegalTransition, Machine
from warmline_server.core.slot import TRANSITIONS, SlotState


class Door(Enum):
    OPEN = auto()
    SHUT = auto()


DOOR = {(Door.OPEN, "pushed"): Door.SHUT, (Door.SHUT, "pulled"): Door.OPEN}

SLOT_EVENTS = sorted({event for _, event in TRANSITIONS})
SLOT_PAIRS = [(state, event) for state in SlotState for event in SLOT_EVENTS]


def reachable_from(start: SlotState) -> set[SlotState]:
    found, fresh = {start}, {start}
    while fresh:
        fresh = {to for (state, _), to in TRANSITIONS.items() if state in fresh} - found
        found |= fresh
    return found


def test_machine_allowed_event_moves_and_returns_the_new_state() -> None:
    machine = Machine("door", Door.OPEN, DOOR)

    assert machine.step("pushed") is Door.SHUT
    assert machine.state is Door.SHUT


def test_machine_absent_pair_raises_with_its_facts_and_stays() -> None:
    machine = Machine("door", Door.OPEN, DOOR)

    with pytest.raises(IllegalTransition) as raised:
        machine.step("pulled")

    assert (raised.value.machine, raised.value.state, raised.value.event) == ("door", Door.OPEN, "pulled")
    assert machine.state is Door.OPEN


def test_machine_illegal_transition_text() -> None:
    assert str(IllegalTransition("door", Door.OPEN, "pulled")) == "door: event 'pulled' is not allowed in state OPEN"


def test_machine_can_tells_without_moving() -> None:
    machine = Machine("door", Door.OPEN, DOOR)

    assert machine.can("pushed")
    assert not machine.can("pulled")
    assert machine.state is Door.OPEN


@pytest.mark.parametrize(("state", "event"), SLOT_PAIRS, ids=lambda each: getattr(each, "name", each))
def test_slot_table_pair_does_what_the_table_says(state: SlotState, event: str) -> None:
    machine = Machine("slot", state, TRANSITIONS)

    if (state, event) in TRANSITIONS:
        assert machine.step(event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            machine.step(event)
        assert machine.state is state


def test_slot_table_reaches_every_state_from_idle() -> None:
    assert reachable_from(SlotState.IDLE) == set(SlotState)


@pytest.mark.parametrize("state", SlotState, ids=lambda each: each.name)
def test_slot_table_every_state_can_close(state: SlotState) -> None:
    assert TRANSITIONS[state, "closed"] is SlotState.CLOSED


def test_slot_table_nothing_leaves_closed() -> None:
    assert reachable_from(SlotState.CLOSED) == {SlotState.CLOSED}

"""The preconnect slot: who gets its socket, and what is thrown away."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from warmline_server.core.machine import IllegalTransition
from warmline_server.core.slot import Acquired, Arrival, Cleared, Slot, SlotState


def armed(slot: Slot) -> int:
    arming = slot.arm()
    assert arming is not None
    return arming[0]


def ready(slot: Slot) -> None:
    assert slot.connected(armed(slot)) is Arrival.KEEP


def test_slot_arm_idle_asks_for_a_handshake_and_aborts_none() -> None:
    slot = Slot()

    arming = slot.arm()

    assert arming is not None
    assert arming[1] is None
    assert slot.state is SlotState.IN_FLIGHT


def test_slot_arm_in_flight_does_nothing() -> None:
    slot = Slot()
    armed(slot)

    assert slot.arm() is None


@pytest.mark.conformance("C-010")
def test_slot_arm_replacing_aborts_the_handshake_under_way() -> None:
    slot = Slot()
    first = armed(slot)

    arming = slot.arm(replace=True)

    assert arming is not None
    second, replaced = arming
    assert replaced == first
    assert second != first
    assert slot.connected(first) is Arrival.DISCARD
    assert slot.connected(second) is Arrival.KEEP


def test_slot_arm_replacing_leaves_a_claimed_handshake_to_its_turn() -> None:
    slot = Slot()
    ticket = armed(slot)
    slot.acquire()

    assert slot.arm(replace=True) is None
    assert slot.connected(ticket) is Arrival.GRANT


@pytest.mark.conformance("C-016")
def test_slot_arm_after_the_handshake_ended_keeps_ready() -> None:
    slot = Slot()
    ready(slot)

    assert slot.arm() is None
    assert slot.arm(replace=True) is None
    assert slot.state is SlotState.READY
    assert slot.acquire() is Acquired.TAKE


@pytest.mark.conformance("C-007")
def test_slot_failed_handshake_leaves_the_turn_to_open_its_own() -> None:
    slot = Slot()
    slot.failed(armed(slot))

    assert slot.state is SlotState.IDLE
    assert slot.acquire() is Acquired.OPEN


@pytest.mark.conformance("C-009")
def test_slot_ready_goes_to_one_of_two_turns() -> None:
    slot = Slot()
    ready(slot)

    assert [slot.acquire(), slot.acquire()] == [Acquired.TAKE, Acquired.OPEN]
    assert slot.state is SlotState.IDLE


def test_slot_in_flight_is_claimed_by_one_of_two_turns() -> None:
    slot = Slot()
    armed(slot)

    assert [slot.acquire(), slot.acquire()] == [Acquired.WAIT, Acquired.OPEN]


def test_slot_claimed_handshake_is_granted_and_the_slot_is_free() -> None:
    slot = Slot()
    ticket = armed(slot)
    slot.acquire()

    assert slot.connected(ticket) is Arrival.GRANT
    assert (slot.state, slot.claimed) == (SlotState.IDLE, False)
    assert slot.arm() is not None


def test_slot_claimed_handshake_that_fails_frees_the_slot_for_the_next_turn() -> None:
    slot = Slot()
    ticket = armed(slot)
    slot.acquire()

    slot.failed(ticket)

    assert (slot.state, slot.claimed) == (SlotState.IDLE, False)
    armed(slot)
    assert slot.acquire() is Acquired.WAIT


def test_slot_abandoned_handshake_goes_on_for_the_next_turn() -> None:
    slot = Slot()
    ticket = armed(slot)
    slot.acquire()

    slot.abandon()

    assert slot.connected(ticket) is Arrival.KEEP
    assert slot.acquire() is Acquired.TAKE


def test_slot_abandoned_handshake_can_be_claimed_again() -> None:
    slot = Slot()
    armed(slot)
    slot.acquire()
    slot.abandon()

    assert slot.acquire() is Acquired.WAIT


@pytest.mark.conformance("C-012")
def test_slot_cleared_in_flight_aborts_it_and_discards_its_late_success() -> None:
    slot = Slot()
    ticket = armed(slot)

    assert slot.clear() == Cleared(ticket, close_ready=False)
    assert slot.state is SlotState.IDLE
    assert slot.connected(ticket) is Arrival.DISCARD
    assert slot.state is SlotState.IDLE


@pytest.mark.conformance("C-012")
def test_slot_cleared_ready_drops_the_socket() -> None:
    slot = Slot()
    ready(slot)

    assert slot.clear() == Cleared(None, close_ready=True)
    assert slot.state is SlotState.IDLE
    assert slot.acquire() is Acquired.OPEN


@pytest.mark.conformance("C-034")
def test_slot_cleared_twice_has_nothing_more_to_throw_away() -> None:
    slot = Slot()
    armed(slot)
    slot.clear()

    assert slot.clear() == Cleared(None, close_ready=False)


def test_slot_clear_forgets_a_claim() -> None:
    slot = Slot()
    armed(slot)
    slot.acquire()
    slot.clear()
    ticket = armed(slot)

    assert slot.connected(ticket) is Arrival.KEEP


def test_slot_failure_of_a_replaced_handshake_leaves_its_successor() -> None:
    slot = Slot()
    first = armed(slot)
    slot.clear()
    second = armed(slot)

    slot.failed(first)

    assert slot.state is SlotState.IN_FLIGHT
    assert slot.connected(second) is Arrival.KEEP


def test_slot_offered_socket_is_kept_when_idle() -> None:
    slot = Slot()

    assert slot.offer() is Arrival.KEEP
    assert slot.acquire() is Acquired.TAKE


@pytest.mark.parametrize("state", [SlotState.IN_FLIGHT, SlotState.READY, SlotState.CLOSED], ids=lambda each: each.name)
def test_slot_offered_socket_is_discarded_when_not_idle(state: SlotState) -> None:
    slot = Slot()
    {SlotState.IN_FLIGHT: armed, SlotState.READY: ready, SlotState.CLOSED: Slot.close}[state](slot)

    assert slot.offer() is Arrival.DISCARD
    assert slot.state is state


def test_slot_lost_socket_frees_the_slot() -> None:
    slot = Slot()
    ready(slot)

    slot.lost()

    assert slot.state is SlotState.IDLE
    assert slot.arm() is not None


def test_slot_lost_without_a_socket_is_a_fault() -> None:
    with pytest.raises(IllegalTransition):
        Slot().lost()


def test_slot_closed_keeps_nothing_from_then_on() -> None:
    slot = Slot()
    ticket = armed(slot)

    assert slot.close() == Cleared(ticket, close_ready=False)

    assert slot.connected(ticket) is Arrival.DISCARD
    assert slot.offer() is Arrival.DISCARD
    assert slot.arm() is None
    assert slot.acquire() is Acquired.OPEN
    assert slot.clear() == Cleared(None, close_ready=False)
    assert slot.close() == Cleared(None, close_ready=False)
    assert slot.state is SlotState.CLOSED


class SlotModel(RuleBasedStateMachine):
    """Drives a slot in any order, and counts sockets and claims beside it."""

    @initialize()
    def begin(self) -> None:
        self.slot = Slot()
        self.live: int | None = None  # the ticket of the handshake that still counts
        self.old: set[int] = set()  # tickets whose handshake was answered, aborted or replaced
        self.sockets = 0  # in the slot
        self.claimants = 0  # turns that wait for the live handshake
        self.closed = False

    def retire_live(self) -> None:
        if self.live is not None:
            self.old.add(self.live)
        self.live, self.claimants = None, 0

    @rule(replace=st.booleans())
    def arm(self, replace: bool) -> None:
        may = not self.closed and not self.sockets and (self.live is None or (replace and not self.claimants))
        arming = self.slot.arm(replace=replace)
        assert (arming is not None) == may
        if arming is not None:
            ticket, replaced = arming
            assert replaced == self.live
            assert ticket not in self.old
            self.retire_live()
            self.live = ticket

    @rule()
    def acquire(self) -> None:
        match self.slot.acquire():
            case Acquired.TAKE:
                assert self.sockets == 1
                self.sockets = 0
            case Acquired.WAIT:
                assert self.live is not None
                self.claimants += 1
            case Acquired.OPEN:
                assert self.sockets == 0
                assert self.live is None or self.claimants == 1

    @precondition(lambda self: self.claimants)
    @rule()
    def abandon(self) -> None:
        self.slot.abandon()
        self.claimants = 0

    @precondition(lambda self: self.live is not None)
    @rule(succeeds=st.booleans())
    def answer_live(self, succeeds: bool) -> None:
        assert self.live is not None
        if not succeeds:
            self.slot.failed(self.live)
        elif self.claimants:
            assert self.slot.connected(self.live) is Arrival.GRANT
        else:
            assert self.slot.connected(self.live) is Arrival.KEEP
            self.sockets += 1
        self.retire_live()

    @precondition(lambda self: self.old)
    @rule(data=st.data(), succeeds=st.booleans())
    def answer_old(self, data: st.DataObject, succeeds: bool) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.old)))
        before = self.slot.state, self.slot.claimed
        if succeeds:
            assert self.slot.connected(ticket) is Arrival.DISCARD
        else:
            self.slot.failed(ticket)
        assert (self.slot.state, self.slot.claimed) == before

    @rule()
    def offer(self) -> None:
        free = not self.closed and not self.sockets and self.live is None
        assert (self.slot.offer() is Arrival.KEEP) == free
        self.sockets += free

    @precondition(lambda self: self.sockets)
    @rule()
    def lose(self) -> None:
        self.slot.lost()
        self.sockets = 0

    @rule(ends=st.booleans())
    def throw_away(self, ends: bool) -> None:
        cleared = self.slot.close() if ends else self.slot.clear()
        assert cleared == Cleared(self.live, close_ready=bool(self.sockets))
        self.retire_live()
        self.sockets = 0
        self.closed |= ends

    @invariant()
    def state_tells_what_is_there(self) -> None:
        expected = SlotState.IDLE
        if self.closed:
            expected = SlotState.CLOSED
        elif self.live is not None:
            expected = SlotState.IN_FLIGHT
        elif self.sockets:
            expected = SlotState.READY
        assert self.slot.state is expected
        assert self.sockets <= 1
        assert self.claimants == self.slot.claimed


TestSlotInAnyOrder = SlotModel.TestCase
TestSlotInAnyOrder.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)

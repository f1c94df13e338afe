"""The sticky-routing token: written once per lane and turn."""

import pytest

from warmline_server.core.turn_state import TurnState

TTL_S = 60.0


def begun(turn_id: str = "turn-1") -> TurnState:
    cell = TurnState(TTL_S)
    cell.begin(turn_id)
    return cell


def test_turn_state_new_cell_is_empty() -> None:
    assert begun().token(0.0) is None


@pytest.mark.conformance("C-062")
def test_turn_state_is_replayed_in_its_turn_and_gone_in_the_next() -> None:
    cell = begun("turn-1")
    cell.offer("ts-1", 0.0)

    cell.begin("turn-1")
    follow_up = cell.token(1.0)
    cell.begin("turn-2")
    next_turn = cell.token(2.0)

    assert (follow_up, next_turn) == ("ts-1", None)


@pytest.mark.conformance("C-063")
def test_turn_state_second_token_of_a_turn_is_ignored() -> None:
    cell = begun()
    cell.offer("ts-1", 0.0)

    cell.offer("ts-2", 1.0)

    assert cell.token(2.0) == "ts-1"


@pytest.mark.conformance("C-017")
def test_turn_state_of_an_adopted_socket_does_not_replace_the_turns_own() -> None:
    cell = begun()
    cell.offer("B", 0.0)

    cell.offer("A", 1.0)

    assert cell.token(1.0) == "B"


def test_turn_state_of_an_adopted_socket_fills_an_empty_cell() -> None:
    cell = begun()

    cell.offer("A", 1.0)

    assert cell.token(1.0) == "A"


def test_turn_state_nothing_offered_changes_nothing() -> None:
    cell = begun()
    cell.offer(None, 0.0)
    cell.offer("ts-1", 1.0)
    cell.offer(None, 2.0)

    assert cell.token(3.0) == "ts-1"


def test_turn_state_next_turn_takes_its_own_token() -> None:
    cell = begun("turn-1")
    cell.offer("ts-1", 0.0)
    cell.begin("turn-2")

    cell.offer("ts-2", 1.0)

    assert cell.token(1.0) == "ts-2"


@pytest.mark.parametrize(("age_s", "expected"), [(TTL_S, "ts-1"), (TTL_S + 0.001, None)], ids=["at_ttl", "past_ttl"])
def test_turn_state_lives_as_long_as_its_time(age_s: float, expected: str | None) -> None:
    cell = begun()
    cell.offer("ts-1", 0.0)

    assert cell.token(age_s) == expected


def test_turn_state_that_expired_gives_way_to_a_new_one() -> None:
    cell = begun()
    cell.offer("ts-1", 0.0)

    cell.offer("ts-2", TTL_S + 1)

    assert cell.token(TTL_S + 1) == "ts-2"


def test_turn_state_is_as_old_as_its_first_offer() -> None:
    cell = begun()
    cell.offer("ts-1", 0.0)
    cell.offer("ts-1", TTL_S - 1)

    assert cell.token(TTL_S + 1) is None


def test_turn_state_cleared_forgets_token_and_turn() -> None:
    cell = begun("turn-1")
    cell.offer("ts-1", 0.0)

    cell.clear()

    assert cell.token(0.0) is None
    cell.begin("turn-1")
    assert cell.token(0.0) is None

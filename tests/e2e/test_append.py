"""APPEND calls: the server holds the conversation, and says when it no longer does."""

import json
from typing import Any

import pytest

import warmline
from e2e.line import NO_CARE, Line, open_line
from manual_clock import ManualClock


async def say(session: warmline.Session, words: str, at: int | None) -> warmline.TurnResult:
    """One turn of one new message. `at`: after this many items; None: it is the whole conversation."""
    async with session.turn(words, append_at=at) as turn:
        return await turn.result()


def seen(line: Line) -> list[Any]:
    """The conversation that the newest request showed the upstream: a user's words, or an item's id."""
    return [item.get("id") or item["content"][0]["text"] for item in line.sim.requests[-1].visible_input or ()]


def output_ids(*results: warmline.TurnResult) -> list[str]:
    return [json.loads(item)["id"] for result in results for item in result.items]


async def test_append_sends_what_is_new_and_shows_the_upstream_everything() -> None:
    async with open_line() as line, line.session() as session:
        first = await say(session, "one", 0)
        second = await say(session, "two", first.history_position)

        assert (first.history_position, second.history_position) == (2, 4)
        assert second.incremental
        assert len(line.sim.requests[-1].body["input"]) == 1
        assert seen(line) == ["one", *output_ids(first), "two"]


async def test_append_after_a_lost_socket_is_rebuilt_whole() -> None:
    async with open_line() as line, line.session() as session:
        first = await say(session, "one", 0)
        line.sim.drop_connection(0)
        await line.sim.wait_for_connections_closed(1)
        second = await say(session, "two", first.history_position)

        assert not second.incremental
        assert len(line.sim.requests[-1].body["input"]) == 3
        assert seen(line) == ["one", *output_ids(first), "two"]


async def test_append_at_another_position_is_a_conflict_and_loses_nothing() -> None:
    async with open_line() as line, line.session() as session:
        first = await say(session, "one", 0)
        with pytest.raises(warmline.HistoryError) as told:
            await say(session, "two", 1)
        assert told.value.reason == "HISTORY_CONFLICT"

        assert (await say(session, "two", first.history_position)).history_position == 4


async def test_call_that_ends_before_it_takes_the_socket_leaves_it_waiting_for_its_time() -> None:
    clock = ManualClock()
    profile = NO_CARE | {"warm_socket_idle_ttl_s": 60.0}
    async with open_line(clock=clock, profile=profile) as line, line.session() as session:
        first = await say(session, "one", 0)
        for _ in range(2):
            with pytest.raises(warmline.HistoryError):
                await say(session, "two", 1)
        second = await say(session, "two", first.history_position)
        assert (second.slot_outcome, second.incremental) == ("REUSED", True)

        with pytest.raises(warmline.HistoryError):
            await say(session, "three", 1)
        await clock.advance(61)
        await line.sim.wait_for_connections_closed(1)
        assert len(line.app.registry.around.warm_sockets) == 0


async def test_append_to_a_server_that_never_saw_the_conversation_asks_for_all_of_it() -> None:
    async with open_line() as line, line.session() as session:
        with pytest.raises(warmline.HistoryError) as told:
            await say(session, "five", 8)
        assert told.value.reason == "TRANSCRIPT_LOST"
        assert line.sim.requests == []

        whole = await say(session, "one", None)
        assert (await say(session, "two", whole.history_position)).history_position == 4
        assert seen(line) == ["one", *output_ids(whole), "two"]


async def test_conversation_beyond_the_limit_is_not_held() -> None:
    async with open_line(limits={"max_transcript_bytes": 200}) as line, line.session() as session:
        first = await say(session, "x" * 400, 0)
        with pytest.raises(warmline.HistoryError) as told:
            await say(session, "two", first.history_position)

        assert told.value.reason == "TRANSCRIPT_LOST"


async def test_append_checks_calls_over_the_whole_conversation() -> None:
    async with open_line() as line, line.session() as session:
        first = await say(session, "one", 0)
        with pytest.raises(warmline.InvalidRequestError) as told:
            async with session.turn(
                [warmline.function_output("call-nobody-made", "42")], append_at=first.history_position
            ) as turn:
                await turn.result()

        assert [violation.field for violation in told.value.field_violations] == ["input[0]"]

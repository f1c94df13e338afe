"""The sticky-routing token: which requests replay it, and which must not."""

import pytest

from e2e.line import answer, hear, open_line, session_config
from manual_clock import ManualClock
from warmline_simulator import Connection, Drop, Reply, Script

TOKEN = "x-codex-turn-state"
HTTP_ONLY = session_config(fallback_policy={"http_only": True})


def posts(*tokens: str | None) -> Script:
    """POSTs that the model answers, each with its token."""
    return Script(posts=[Reply.model(headers={TOKEN: token}) for token in tokens])


@pytest.mark.conformance("C-062")
async def test_a_token_told_over_http_is_replayed_for_its_turn_and_not_for_the_next() -> None:
    async with open_line(posts("ts-1", None, None)) as line, line.session(config=HTTP_ONLY) as session:
        for turn_id in ("T1", "T1", "T2"):
            await answer(session.turn("hello", turn_id=turn_id))
        assert [post.headers.get(TOKEN) for post in line.sim.posts()] == [None, "ts-1", None]


@pytest.mark.conformance("C-063")
async def test_the_first_token_of_a_turn_is_kept() -> None:
    async with open_line(posts("ts-1", "ts-2", "ts-3")) as line, line.session(config=HTTP_ONLY) as session:
        for _ in range(3):
            await answer(session.turn("hello", turn_id="T"))
        assert [post.headers.get(TOKEN) for post in line.sim.posts()] == [None, "ts-1", "ts-1"]


@pytest.mark.conformance("C-062")
async def test_calls_without_a_turn_id_are_turns_of_their_own() -> None:
    async with open_line(posts("ts-1", None)) as line, line.session(config=HTTP_ONLY) as session:
        first = await answer(session.turn("hello"))
        second = await answer(session.turn("hello"))
        assert first.turn_id != second.turn_id
        assert [post.headers.get(TOKEN) for post in line.sim.posts()] == [None, None]


@pytest.mark.conformance("C-062")
async def test_a_turns_token_does_not_come_back_when_the_turn_id_does() -> None:
    async with open_line(posts("ts-1", None, None)) as line, line.session(config=HTTP_ONLY) as session:
        for turn_id in ("T1", "T2", "T1"):
            await answer(session.turn("hello", turn_id=turn_id))
        assert [post.headers.get(TOKEN) for post in line.sim.posts()] == [None, None, None]


@pytest.mark.conformance("C-062")
async def test_a_token_belongs_to_its_lane() -> None:
    async with open_line(posts("ts-1", None, None)) as line, line.session(config=HTTP_ONLY) as session:
        for lane in ("a", "b", "a"):
            await answer(session.turn("hello", turn_id="T", lane=lane))
        assert [post.headers.get(TOKEN) for post in line.sim.posts()] == [None, None, "ts-1"]


@pytest.mark.conformance("C-062")
async def test_a_handshakes_token_is_not_replayed_for_the_next_turn() -> None:
    script = Script(
        connections=[
            Connection(headers={TOKEN: "A"}, replies=[Reply.model(), Reply(events=[Drop()])]),
            Connection(replies=[Reply.model()]),
        ]
    )
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        first = await answer(session.turn("hello", turn_id="T1"))
        heard = await hear(session.turn(["hello", *first.items, "go on"], turn_id="T2"), clock)
        assert heard.outcomes == ["REUSED", "COLD"]
        assert [handshake.headers.get(TOKEN) for handshake in line.sim.handshakes] == [None, None]


@pytest.mark.conformance("C-063")
async def test_the_first_token_of_a_turn_is_kept_over_a_reconnect() -> None:
    script = Script(
        connections=[
            Connection(headers={TOKEN: "A"}, replies=[Reply(events=[Drop()])]),
            Connection(headers={TOKEN: "B"}, replies=[Reply(events=[Drop()])]),
            Connection(replies=[Reply.model()]),
        ]
    )
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        await session.preconnect(wait=True)
        await answer(session.turn("hello", turn_id="T"), clock)
        assert [handshake.headers.get(TOKEN) for handshake in line.sim.handshakes] == [None, "A", "A"]


@pytest.mark.conformance("C-062")
async def test_a_token_is_forgotten_when_it_outlived_the_longest_call() -> None:
    clock = ManualClock()
    script = posts("ts-1", None, None)
    async with (
        open_line(script, clock=clock, limits={"max_turn_duration_s": 100.0}) as line,
        line.session(config=HTTP_ONLY) as session,
    ):
        await answer(session.turn("hello", turn_id="T"))
        await clock.advance(100.0)
        await answer(session.turn("hello", turn_id="T"))
        await clock.advance(0.1)
        await answer(session.turn("hello", turn_id="T"))
        assert [post.headers.get(TOKEN) for post in line.sim.posts()] == [None, "ts-1", None]

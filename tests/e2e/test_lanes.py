"""Lanes: chains of calls beside each other in one session, one call at a time in each."""

import asyncio

import grpc
import pytest

import warmline
from e2e.line import answer, hear, open_line, read_until, session_config, until_slot
from warmline.items import ItemLike
from warmline_simulator import Connection, Drop, Gate, Reply, Script, ev, read


def held(gate: str) -> Reply:
    """An answer that stops at a gate before its end."""
    events = ev.text_response("words")
    return Reply(events=[*events[:-1], Gate(gate), events[-1]])


async def test_each_lane_has_a_socket_and_a_chain_of_its_own() -> None:
    async with open_line() as line, line.session() as session:
        conversations: dict[str, list[ItemLike]] = {"": ["hello"], "fork": ["hello"], "agent": ["other"]}
        for lane, conversation in conversations.items():
            conversation.extend((await answer(session.turn(conversation, lane=lane))).items)
        for lane, conversation in conversations.items():
            result = await answer(session.turn([*conversation, f"more for {lane or 'main'}"], lane=lane))
            assert (result.slot_outcome, result.incremental) == ("REUSED", True)
        firsts, seconds = line.sim.requests[:3], line.sim.requests[3:]
        assert [request.connection for request in seconds] == [request.connection for request in firsts] == [0, 1, 2]
        assert [request.previous_response_id for request in seconds] == [request.response_id for request in firsts]
        assert [read.message_texts(request.body) for request in seconds] == [
            ["more for main"],
            ["more for fork"],
            ["more for agent"],
        ]
        names = [lane.name for lane in (await session.get()).lanes]
        assert names == ["", "fork", "agent"]


async def test_lanes_run_at_the_same_time_and_in_any_order() -> None:
    script = Script(connections=[Connection(replies=[held(gate)]) for gate in ("a", "b")])
    async with open_line(script) as line, line.session() as session:
        await until_slot(session, "READY")
        calls = {}
        for number, lane in enumerate(("a", "b"), start=1):
            calls[lane] = asyncio.create_task(answer(session.turn("hello", lane=lane)))
            await line.sim.wait_for_gate(lane)
            await line.sim.wait_for_requests(number)
        line.sim.release("b")
        assert (await calls["b"]).text == "words"
        assert not calls["a"].done()
        line.sim.release("a")
        assert (await calls["a"]).text == "words"


async def test_what_one_lane_loses_costs_the_others_nothing() -> None:
    script = Script(
        connections=[
            Connection(replies=[Reply.model(), Reply.model()]),
            Connection(replies=[Reply(events=[*ev.text_response("half")[:5], Drop()])]),
        ]
    )
    async with open_line(script) as line, line.session() as session:
        first = await answer(session.turn("hello", lane="keeps"))
        assert (await hear(session.turn("hello", lane="loses"))).failure.code is grpc.StatusCode.ABORTED
        second = await answer(session.turn(["hello", *first.items, "go on"], lane="keeps"))
        assert second.incremental


async def test_a_call_on_a_busy_lane_is_refused_and_the_running_one_goes_on() -> None:
    async with (
        open_line(Script(creates=[held("end")])) as line,
        line.session() as session,
        session.turn("hello") as running,
    ):
        await read_until(running, "item_done")
        refused = await hear(session.turn("another"))
        assert isinstance(refused.failure, warmline.LaneBusyError)
        assert (refused.failure.code, refused.kinds) == (grpc.StatusCode.ABORTED, [])
        assert running.request_id in refused.failure.message
        line.sim.release("end")
        assert (await running.result()).ending == "completed"
        assert len(line.sim.requests) == 1


async def test_calls_that_wait_for_a_lane_run_in_their_order_on_its_socket() -> None:
    async with open_line(Script(creates=[held("end")])) as line, line.session() as session:
        async with session.turn("hello") as running:
            await read_until(running, "item_done")
            waiting = []
            for number in (1, 2):
                waiting.append(asyncio.create_task(answer(session.turn(f"waited {number}", on_busy="wait"))))
                await line.until_calls(session, 1 + number)
            line.sim.release("end")
            await running.result()
        results = await asyncio.gather(*waiting)
        assert [result.slot_outcome for result in results] == ["REUSED", "REUSED"]
        assert [read.message_texts(request.body)[-1] for request in line.sim.requests] == [
            "hello",
            "waited 1",
            "waited 2",
        ]


async def test_a_call_that_preempts_ends_the_running_one_and_goes_before_those_that_wait() -> None:
    async with open_line(Script(connections=[Connection(replies=[held("never")])])) as line, line.session() as session:
        async with session.turn("hello") as running:
            await read_until(running, "item_done")
            waiting = asyncio.create_task(answer(session.turn("waited", on_busy="wait")))
            await line.until_calls(session, 2)
            preempting = await answer(session.turn("urgent", on_busy="preempt"))
            with pytest.raises(warmline.TurnPreemptedError) as caught:
                await running.result()
        assert caught.value.code is grpc.StatusCode.ABORTED
        assert (preempting.slot_outcome, (await waiting).slot_outcome) == ("COLD", "REUSED")
        assert [read.message_texts(request.body)[-1] for request in line.sim.requests] == ["hello", "urgent", "waited"]
        assert [request.connection for request in line.sim.requests] == [0, 1, 1]


async def test_a_call_that_waits_may_leave() -> None:
    async with open_line(Script(creates=[held("end")])) as line, line.session() as session:
        async with session.turn("hello") as running:
            await read_until(running, "item_done")
            async with session.turn("waited", on_busy="wait"):
                await line.until_calls(session, 2)
            await line.until_calls(session, 1)
            line.sim.release("end")
            await running.result()
        assert (await answer(session.turn("next"))).ending == "completed"
        assert [read.message_texts(request.body)[-1] for request in line.sim.requests] == ["hello", "next"]


async def test_a_lane_has_a_bound_of_calls_that_wait() -> None:
    limits = {"max_waiting_calls_per_lane": 1}
    async with open_line(Script(creates=[held("end")]), limits=limits) as line, line.session() as session:
        async with session.turn("hello") as running:
            await read_until(running, "item_done")
            waiting = asyncio.create_task(answer(session.turn("waited", on_busy="wait")))
            await line.until_calls(session, 2)
            refused = await hear(session.turn("one too many", on_busy="wait"))
            assert isinstance(refused.failure, warmline.LimitExceededError)
            assert [violation.subject for violation in refused.failure.quota_violations] == [
                "max_waiting_calls_per_lane"
            ]
            line.sim.release("end")
            await running.result()
        assert (await waiting).ending == "completed"


async def test_a_session_has_a_bound_of_lanes() -> None:
    config = session_config(limits={"max_lanes": 2})
    async with open_line() as line, line.session(config=config) as session:
        for lane in ("a", "b"):
            await answer(session.turn("hello", lane=lane))
        refused = await hear(session.turn("hello", lane="c"))
        assert isinstance(refused.failure, warmline.LimitExceededError)
        assert [violation.subject for violation in refused.failure.quota_violations] == ["max_lanes"]
        assert (await answer(session.turn("hello again", lane="a"))).slot_outcome == "REUSED"


async def test_closing_a_session_ends_the_calls_of_all_its_lanes_and_its_sockets() -> None:
    script = Script(creates=[held("never"), held("never")])
    async with open_line(script) as line, line.session() as session:
        calls = [asyncio.create_task(hear(session.turn("hello", lane=lane))) for lane in ("a", "b")]
        await line.sim.wait_for_gate("never", 2)
        await session.close()
        for heard in await asyncio.gather(*calls):
            assert isinstance(heard.failure, warmline.SessionClosedError)
        await line.sim.wait_for_connections_closed(2)
        await line.sim.wait_for_aborts(2)

"""`response.steer`: accepted, pending, failed, and the successor that takes the input up."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from warmline_simulator import Gate, ManualClock, Reply, Script, Simulator, ev, read

from .wire_client import ask, calls_of, create, id_of, open_ws, receive, receive_until_end, send, types

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}


async def steer(ws: ClientConnection, response_id: str, given: Any = "faster", **fields: Any) -> None:
    await send(ws, {"type": "response.steer", "previous_response_id": response_id, "input": given, **fields})


async def begin(ws: ClientConnection, **fields: Any) -> str:
    """Start a paced response and return its id."""
    await send(ws, create("tell me a story", **fields))
    return str((await receive(ws))["response"]["id"])


async def test_steering_ends_the_response_early_and_a_successor_takes_the_input() -> None:
    clock = ManualClock()
    async with Simulator(clock=clock, pace_s=10.0, max_pending_steers=2) as sim, open_ws(sim) as ws:
        first_id = await begin(ws, stream_id="a", instructions="be kind")
        await steer(ws, first_id, "shorter please")
        while (accepted := await receive(ws))["type"] != "response.steer.accepted":
            pass
        clock.advance(10.0)
        rest = await receive_until_end(ws)
        clock.advance(10_000.0)
        successor = [await receive(ws) for _ in range(5)]

    assert accepted["steer"]["previous_response_id"] == first_id
    assert accepted["stream_id"] == "a"
    assert rest[-1]["type"] == "response.incomplete"
    assert rest[-1]["response"]["incomplete_details"] == {"reason": "steered"}
    assert rest[-1]["sequence_number"] == accepted["sequence_number"] + len(rest)
    assert types(successor)[0] == "response.created"
    assert successor[0]["response"]["previous_response_id"] == first_id
    assert successor[0]["response"]["instructions"] == "be kind"
    assert sim.steers[0].successor is not None
    assert read.message_texts({"input": sim.steers[0].successor.visible_input}) == ["tell me a story", "shorter please"]
    assert len(sim.requests) == 1


async def test_a_steer_during_a_tool_call_is_told_as_pending_with_the_stub_of_the_call() -> None:
    clock = ManualClock()
    async with Simulator(clock=clock, pace_s=10.0) as sim, open_ws(sim) as ws:
        await send(ws, create("use the tool look", tools=[TOOL]))
        events = [await receive(ws) for _ in range(3)]
        first_id = str(events[0]["response"]["id"])
        await steer(ws, first_id, "and be quick")
        assert (await receive(ws))["type"] == "response.steer.accepted"
        clock.advance(10.0)
        done = await receive_until_end(ws)
        pending = await receive(ws)
        call = calls_of(done)[0]
        output = ev.function_call_output(call["call_id"], "seen")
        await send(ws, create([output], previous_response_id=first_id))
        await sim.wait_for_requests(2)

    assert done[-1]["type"] == "response.completed"
    assert pending["type"] == "response.steer.pending"
    assert pending["required_input"] == [{"type": "function_call_output", "call_id": call["call_id"], "name": "look"}]
    assert read.message_texts({"input": sim.requests[1].visible_input}) == ["use the tool look", "and be quick"]


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (None, {}),
        ("", {}),
        ([], {}),
        ([ev.developer_message("x")], {}),
        ([ev.function_call_output("c", "x")], {}),
        ([{**ev.user_message("x"), "id": "msg_1"}], {}),
        ("x", {"stream_id": "a"}),
        (7, {}),
    ],
)
async def test_input_that_is_no_user_message_comes_back(given: Any, fields: dict[str, str]) -> None:
    clock = ManualClock()
    async with Simulator(clock=clock, pace_s=10.0) as sim, open_ws(sim) as ws:
        first_id = await begin(ws)
        await steer(ws, first_id, given, **fields)
        while (failed := await receive(ws))["type"] != "response.steer.failed":
            pass

    assert failed["error"]["code"] == "invalid_input"
    assert failed["error"]["type"] == "invalid_request_error"
    assert failed["steer"] == {"previous_response_id": first_id, "input": given}
    assert sim.steers[0].error_code == "invalid_input"


async def test_each_reason_for_not_steering_has_its_code() -> None:
    clock = ManualClock()
    script = Script(
        creates=[
            Reply.model(between_s=0.0),
            Reply(events=ev.failed_response()),
            Reply(events=[ev.created(), Gate("x"), ev.completed()]),
        ]
    )
    async with Simulator(script, clock=clock, pace_s=10.0, max_pending_steers=1) as sim, open_ws(sim) as ws:
        done = id_of(await ask(ws))
        failed = id_of(await ask(ws))
        scripted = await begin(ws, stream_id="s")
        running = await begin(ws, stream_id="r")
        codes = []
        for target in (done, failed, scripted, "resp_none", running, running):
            await steer(ws, target)
            while not (event := await receive(ws))["type"].startswith("response.steer."):
                pass
            codes.append(event.get("error", {}).get("code"))
        sim.release("x")

    assert codes == [
        "response_already_completed",
        "response_not_active",
        "steering_not_supported",
        "response_not_found",
        None,
        "too_many_pending_steers",
    ]


@pytest.mark.parametrize("settings", [{"serial": True}, {"steering": False}])
async def test_steering_can_be_absent(settings: Any) -> None:
    async with Simulator(**settings) as sim, open_ws(sim) as ws:
        await steer(ws, "resp_any")
        assert (await receive(ws))["error"]["code"] == "steering_not_supported"

"""The readers of requests, and the invariants every conversation must satisfy."""

from __future__ import annotations

import pytest

from warmline_simulator import Simulator, SimulatorFailedError, ev, read
from warmline_simulator.invariants import violations

from .wire_client import Json, ask, calls_of, id_of, open_http, open_ws

IMAGE = {"type": "input_image", "image_url": "https://example.com/a.png"}
BODY = {
    "model": "m",
    "instructions": "be brief",
    "previous_response_id": "resp_1",
    "client_metadata": {"window": "w:1"},
    "tools": [{"type": "function", "name": "look"}, {"type": "local_shell"}],
    "input": [
        {"role": "user", "content": "plain"},
        ev.user_message([{"type": "input_text", "text": "with "}, {"type": "input_text", "text": "image"}, IMAGE]),
        ev.developer_message("rules"),
        ev.reasoning("r", encrypted_content="gAAA", id="rs_1"),
        ev.message("answer", id="msg_1"),
        ev.function_call("look", '{"at": 1}', call_id="c1", id="fc_1"),
        ev.function_call_output("c1", [{"type": "input_text", "text": "seen"}]),
        ev.local_shell_call(["ls"], call_id="c2", id="l"),
        ev.local_shell_call_output("c2", "files"),
        ev.custom_tool_call("run", "x", call_id="c3", id="ctc"),
        {**ev.custom_tool_call_output("c3", "ran"), "success": False},
    ],
}


def test_readers_find_what_a_body_holds() -> None:
    assert read.message_texts(BODY) == ["plain", "with image"]
    assert read.message_texts(BODY, "developer") == ["rules"]
    assert read.message_texts(BODY, "assistant") == ["answer"]
    assert read.image_urls(BODY) == ["https://example.com/a.png"]
    assert len(read.inputs_of_type(BODY, "message")) == 4
    assert read.inputs_of_type(BODY, "compaction") == []
    assert [call["call_id"] for call in read.calls(BODY)] == ["c1", "c2", "c3"]
    assert [call["call_id"] for call in read.calls(BODY, "look")] == ["c1"]
    assert (read.has_function_call(BODY, "c1"), read.has_function_call(BODY, "c2")) == (True, False)
    assert read.call_arguments(BODY, "c1") == {"at": 1}
    assert [read.call_output_text(BODY, call) for call in ("c1", "c2", "c3")] == ["seen", "files", "ran"]
    assert (read.call_output_success(BODY, "c3"), read.call_output_success(BODY, "c1")) == (False, None)
    assert read.encrypted_contents(BODY) == ["gAAA"]
    assert read.instructions(BODY) == "be brief"
    assert read.tool_names(BODY) == ["look", "local_shell"]
    assert read.previous_response_id(BODY) == "resp_1"
    assert (read.client_metadata(BODY, "window"), read.client_metadata(BODY, "none")) == ("w:1", None)
    assert not read.is_warm_up(BODY)
    assert read.is_warm_up({"prompt_cache_options": {"prewarm": True}})


def test_readers_of_an_empty_body_find_nothing() -> None:
    assert read.message_texts({"input": "just text"}) == ["just text"]
    assert (read.instructions({}), read.tool_names({}), read.previous_response_id({})) == (None, [], None)
    assert (read.input_items({}), read.calls({}), read.find_output({}, "c")) == ([], [], None)


def test_a_missing_output_or_call_is_named_with_what_is_there() -> None:
    with pytest.raises(LookupError, match=r"'none'.*\['c1', None, 'c3'\]"):
        read.call_output(BODY, "none")
    with pytest.raises(LookupError, match="'none'"):
        read.call_arguments(BODY, "none")


async def test_header_and_visible_items_read_the_record() -> None:
    async with Simulator() as sim, open_ws(sim, additional_headers={"X-Own": "yes"}) as ws:
        first = await ask(ws, "one")
        await ask(ws, "two", previous_response_id=id_of(first))
        await ask(ws, "lost", previous_response_id="resp_none")

        assert read.header(sim.requests[0], "x-own") == "yes"
        assert read.header(sim.requests[0], "x-none") is None
        assert [read.item_type(item) for item in read.visible_items(sim.requests[1])] == ["message"] * 3
        with pytest.raises(LookupError, match="visible input of request 2"):
            read.visible_items(sim.requests[2])


CALL, OUTPUT = ev.function_call("f", call_id="c", id="i"), ev.function_call_output("c", "o")


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([CALL, OUTPUT], []),
        ([CALL], ["no tool output found for function_call c"]),
        ([OUTPUT], ["no tool call found for function_call_output c"]),
        ([OUTPUT, CALL], ["no tool call found for function_call_output c", "no tool output found for function_call c"]),
        ([CALL, OUTPUT, OUTPUT], ["function_call_output c appears twice"]),
        ([CALL, CALL, OUTPUT], ["function_call c appears twice"]),
        ([{**CALL, "call_id": ""}], ["function_call at position 0 has an empty call_id"]),
        ([{**OUTPUT, "call_id": None}], ["function_call_output at position 0 has an empty call_id"]),
        (
            [CALL, ev.custom_tool_call_output("c", "o")],
            ["no tool call found for custom_tool_call_output c", "no tool output found for function_call c"],
        ),
        ([ev.local_shell_call(["a"], call_id="c", id="i"), ev.function_call_output("c", "o")], []),
        ([ev.local_shell_call(["a"], call_id="c", id="i"), ev.local_shell_call_output("c", "o")], []),
        ([ev.shell_call(["a"], call_id="c", id="i"), ev.shell_call_output("c")], []),
        ([ev.apply_patch_call("f", call_id="c", id="i"), ev.apply_patch_call_output("c")], []),
        ([ev.computer_call(call_id="c", id="i"), ev.computer_call_output("c", "u")], []),
        ([ev.tool_search_call({}, call_id="c", id="i"), ev.tool_search_output("c")], []),
        ([ev.tool_search_call({}, call_id="c", id="i", execution="server")], []),
        ([ev.web_search_call("q", id="i"), ev.mcp_call("n", id="i")], []),
    ],
)  # fmt: skip
def test_invariants_name_what_is_broken(items: list[Json], told: list[str]) -> None:
    assert violations(items, is_warm_up=False) == told


def test_a_warm_up_may_leave_calls_open_but_not_outputs() -> None:
    assert violations([CALL], is_warm_up=True) == []
    assert violations([OUTPUT], is_warm_up=True) != []


async def test_a_broken_invariant_is_refused_recorded_and_fails_the_run() -> None:
    async def run(*, expect_violations: bool) -> list[str]:
        async with Simulator(expect_violations=expect_violations) as sim, open_http(sim) as http:
            response = await http.post("/responses", json={"model": "m", "input": [OUTPUT]})
            assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
            return sim.violations

    told = ["http request 0: no tool call found for function_call_output c"]
    assert await run(expect_violations=True) == told
    with pytest.raises(SimulatorFailedError, match="request invariant broken: http request 0"):
        await run(expect_violations=False)


async def test_invariants_look_at_the_whole_chain() -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    async with Simulator(expect_violations=True) as sim, open_ws(sim) as ws:
        first = await ask(ws, "use the tool look", tools=[tool])
        call_id = calls_of(first)[0]["call_id"]
        await ask(ws, [ev.function_call_output(call_id, "seen")], previous_response_id=id_of(first))
        assert sim.violations == []
        refused = await ask(ws, "never mind", previous_response_id=id_of(first))

    assert sim.violations == [f"ws request 2: no tool output found for function_call {call_id}"]
    assert refused[0]["error"]["message"] == f"No tool output found for function_call {call_id}."

"""One socket over many requests: what is sent again, and what only once."""

import asyncio
import json
import random
from typing import Any

import pytest

import warmline
from e2e.line import answer, hear, open_line, read_until
from warmline.items import ItemLike
from warmline_simulator import Connection, Gate, Reply, RequestRecord, Script, Stall, ev, read

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
OTHER_TOOL = {**TOOL, "name": "listen"}


def extended(result: warmline.TurnResult, *new: ItemLike) -> list[ItemLike]:
    """The conversation after "hello" was answered."""
    return ["hello", *result.items, *new]


def without_input(request: RequestRecord) -> dict[str, Any]:
    """What must not change between requests for the second to continue the first."""
    changing = ("input", "previous_response_id", "client_metadata")
    return {name: value for name, value in request.body.items() if name not in changing}


@pytest.mark.conformance("C-050")
async def test_the_next_turn_uses_the_same_socket() -> None:
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn("hello", turn_id="T1"))
        second = await answer(session.turn(extended(first, "go on"), turn_id="T2"))
        assert second.slot_outcome == "REUSED"
        assert second.connection_id == first.connection_id
        assert [request.connection for request in line.sim.requests] == [0, 0]
        assert len(line.sim.handshakes) == 1


@pytest.mark.conformance("C-051")
async def test_a_tool_follow_up_sends_its_output_alone_and_all_settings() -> None:
    call = Reply(events=ev.function_call_response("look", "{}", "call-1", response_id="resp-1"))
    script = Script(connections=[Connection(replies=[call, Reply.model()])])
    async with open_line(script) as line, line.session(instructions="Be brief.", tools=[TOOL]) as session:
        first = await answer(session.turn("hello", turn_id="T"))
        (function_call,) = first.function_calls
        second = await answer(session.turn(extended(first, function_call.answer("a tree")), turn_id="T"))
        former, request = line.sim.requests
        assert request.previous_response_id == "resp-1"
        assert request.body["input"] == [{"type": "function_call_output", "call_id": "call-1", "output": "a tree"}]
        assert without_input(request) == without_input(former)
        assert without_input(request)["instructions"] == "Be brief."
        assert second.incremental
        assert second.full_reason == ""


@pytest.mark.conformance("C-052")
async def test_requests_stay_incremental_over_several_turns() -> None:
    async with open_line() as line, line.session() as session:
        conversation: list[ItemLike] = []
        results = []
        for number in range(3):
            conversation.append(f"question {number}")
            result = await answer(session.turn(conversation, turn_id=f"T{number}"))
            conversation.extend(result.items)
            results.append(result)
        assert [result.incremental for result in results] == [False, True, True]
        previous = [request.previous_response_id for request in line.sim.requests]
        assert previous == [None, results[0].response_id, results[1].response_id]
        for number, request in enumerate(line.sim.requests):
            assert read.message_texts(request.body) == [f"question {number}"]
            assert len(read.visible_items(request)) == 2 * number + 1


@pytest.mark.conformance("C-051")
async def test_items_that_were_only_spelled_anew_are_not_sent_again() -> None:
    """Prefix comparison is by JSON value (DESIGN §3): agents parse items and write them again."""
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn([b'{"type":"message","role":"user","content":"h\\u00e9 1"}']))
        spelled = '{ "content" : "h\u00e9 1", "role":"user",\n"type":"message"}'.encode()
        output = [json.dumps(json.loads(item), indent=1, sort_keys=True).encode() for item in first.items]
        assert output != list(first.items)
        result = await answer(session.turn([spelled, *output, "go on"]))
        assert result.incremental
        assert line.sim.requests[1].previous_response_id == first.response_id


@pytest.mark.conformance("C-053")
@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("model", {"model": "sim-small"}),
        ("instructions", {"instructions": "Be long."}),
        ("tools", {"tools": [OTHER_TOOL]}),
        ("tool_choice", {"tool_choice": "none"}),
        ("parallel_tool_calls", {"parallel_tool_calls": True}),
        ("reasoning", {"reasoning_effort": "high"}),
        ("store", {"store": True}),
        ("include", {"include": ["reasoning.encrypted_content"]}),
        ("service_tier", {"service_tier": "priority"}),
        ("prompt_cache_key", {"prompt_cache_key": "another"}),
        ("text", {"verbosity": "low"}),
        ("metadata", {"request_json": {"metadata": {"a": "b"}}}),
    ],
)
async def test_a_changed_field_makes_a_whole_request_on_the_same_socket(field: str, change: dict[str, Any]) -> None:
    async with open_line() as line, line.session(instructions="Be brief.", tools=[TOOL]) as session:
        first = await answer(session.turn("hello"))
        heard = await hear(session.turn(extended(first, "go on"), **change))
        request = line.sim.requests[1]
        (started,) = heard.of("attempt_started")
        assert (request.connection, request.previous_response_id) == (0, None)
        assert len(request.body["input"]) == 3
        assert heard.result.full_reason == "SETTINGS_CHANGED"
        assert started.first_mismatch.field == field


@pytest.mark.conformance("C-053")
@pytest.mark.parametrize("index", [0, 1, 2])
async def test_a_conversation_that_does_not_extend_the_former_is_sent_whole(index: int) -> None:
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn("hello"))
        conversation = [*extended(first), "go on"]
        second = await answer(session.turn(conversation))
        whole = [*conversation, *second.items]
        whole[index] = "something else"
        heard = await hear(session.turn([*whole, "and then"]))
        (started,) = heard.of("attempt_started")
        request = line.sim.requests[2]
        assert (request.connection, request.previous_response_id) == (0, None)
        assert len(request.body["input"]) == 5
        assert heard.result.full_reason == "NOT_A_PREFIX"
        assert started.first_mismatch.input_index == index


@pytest.mark.conformance("C-053")
async def test_a_shorter_conversation_is_sent_whole() -> None:
    async with open_line() as line, line.session() as session:
        await answer(session.turn("hello"))
        heard = await hear(session.turn("hello"))
        (started,) = heard.of("attempt_started")
        assert line.sim.requests[1].previous_response_id is None
        assert heard.result.full_reason == "NOT_A_PREFIX"
        assert started.first_mismatch.input_index == 1


@pytest.mark.conformance("C-054")
async def test_other_turn_metadata_leaves_a_request_incremental_and_is_sent() -> None:
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn("hello", turn_metadata={"n": 1}))
        await answer(session.turn(extended(first, "go on"), turn_metadata={"n": 2}))
        told = [read.client_metadata(request, "x-codex-turn-metadata") for request in line.sim.requests]
        assert told == ['{"n":1}', '{"n":2}']
        assert line.sim.requests[1].previous_response_id == first.response_id


@pytest.mark.conformance("C-055")
async def test_unknown_keys_of_turn_metadata_pass_unchanged() -> None:
    metadata = b'{"turn_id":"T","future": {"deep":[1,2.50]},"big":12345678901234567890}'
    async with open_line() as line, line.session() as session:
        await answer(session.turn("hello", turn_metadata=metadata))
        assert read.client_metadata(line.sim.requests[0], "x-codex-turn-metadata") == metadata.decode()


@pytest.mark.conformance("C-056")
async def test_after_a_failed_response_the_next_request_is_whole_and_on_a_new_socket() -> None:
    failing = Reply(events=[ev.created(), ev.failed("invalid_prompt", "no")])
    script = Script(connections=[Connection(replies=[Reply.model(), failing]), Connection(replies=[Reply.model()])])
    async with open_line(script) as line, line.session() as session:
        first = await answer(session.turn("hello"))
        failed = await hear(session.turn(extended(first, "go on")))
        assert failed.failure.reason == "UPSTREAM_REJECTED"
        third = await answer(session.turn(extended(first, "go on, please")))
        assert third.full_reason == "NEW_SOCKET"
        assert [request.connection for request in line.sim.requests] == [0, 0, 1]
        assert line.sim.requests[2].previous_response_id is None
        assert len(line.sim.requests[2].body["input"]) == 3


@pytest.mark.conformance("C-058")
async def test_two_requests_on_one_socket_have_their_own_traceparent() -> None:
    async with open_line() as line, line.session() as session:
        first = await answer(session.turn("hello"))
        await answer(session.turn(extended(first, "go on")))
        told = [read.client_metadata(request, "ws_request_header_traceparent") for request in line.sim.requests]
        rpcs = [span for span in line.spans.get_finished_spans() if span.name.endswith("/StreamTurn")]
        traces = [f"{span.context.trace_id:032x}" for span in rpcs if span.context is not None]
        assert [value and value.split("-")[1] for value in told] == traces
        assert len(set(traces)) == 2
        assert all("trace" not in request.body for request in line.sim.requests)
        assert len(line.sim.handshakes) == 1


@pytest.mark.conformance("C-092")
async def test_after_a_completed_response_its_id_and_its_items_are_the_prefix() -> None:
    output = [ev.reasoning("thought", encrypted_content="opaque"), ev.message("one"), ev.message("two")]
    script = Script(connections=[Connection(replies=[Reply(events=ev.response_of(*output)), Reply.model()])])
    async with open_line(script) as line, line.session() as session:
        first = await answer(session.turn("hello"))
        assert len(first.items) == 3
        second = await answer(session.turn(extended(first)))
        request = line.sim.requests[1]
        # Nothing new is still an increment.
        assert (request.previous_response_id, request.body["input"]) == (first.response_id, [])
        assert second.incremental


@pytest.mark.conformance("C-093")
async def test_after_a_failed_response_there_is_no_prefix() -> None:
    failing = Reply(events=[*ev.text_response("half")[:-1], ev.failed("invalid_prompt", "no")])
    script = Script(connections=[Connection(replies=[failing]), Connection()])
    async with open_line(script) as line, line.session() as session:
        failed = await hear(session.turn("hello"))
        assert len(failed.so_far.items) == 1
        await answer(session.turn(extended(failed.so_far, "go on")))
        assert line.sim.requests[1].previous_response_id is None
        assert len(line.sim.requests[1].body["input"]) == 3


@pytest.mark.conformance("C-093")
async def test_after_a_cancelled_response_there_is_no_prefix() -> None:
    cut = Reply(events=[*ev.text_response("half")[:-1], Gate("never")])
    script = Script(connections=[Connection(replies=[cut]), Connection()])
    async with open_line(script) as line, line.session() as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "item_done")
            assert await session.cancel_turn(request_id=turn.request_id) == [turn.request_id]
            with pytest.raises(warmline.TurnCancelledError):
                await turn.result()
        await answer(session.turn(extended(turn.snapshot(), "go on")))
        request = line.sim.requests[1]
        assert (request.connection, request.previous_response_id) == (1, None)
        assert len(request.body["input"]) == 3


@pytest.mark.conformance("C-096")
@pytest.mark.conformance("D-4")
async def test_a_caller_that_leaves_mid_response_costs_the_socket_and_the_next_call_does_not_wait() -> None:
    """The [N] form, D-4: the reference of May waited for the abandoned response's end."""
    script = Script(connections=[Connection(replies=[Reply(events=[ev.created(), Stall()])]), Connection()])
    async with open_line(script) as line, line.session() as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "created")
        await line.sim.wait_for_connections_closed(1)
        heard = await hear(session.turn("hello again", on_busy="wait"))
        assert heard.outcomes == ["COLD"]
        assert heard.result.full_reason == "NEW_SOCKET"
        assert [request.connection for request in line.sim.requests] == [0, 1]


@pytest.mark.conformance("C-096")
@pytest.mark.conformance("D-4")
async def test_a_call_that_waits_for_an_abandoned_one_gets_the_lane_at_once() -> None:
    script = Script(connections=[Connection(replies=[Reply(events=[ev.created(), Stall()])]), Connection()])
    async with open_line(script) as line, line.session() as session:
        async with session.turn("hello") as turn:
            await read_until(turn, "created")
            waiting = asyncio.create_task(hear(session.turn("hello again", on_busy="wait")))
            await line.until_calls(session, 2)
            turn.cancel()
            heard = await waiting
        assert heard.result.ending == "completed"
        assert [request.connection for request in line.sim.requests] == [0, 1]


def mutated(conversation: list[ItemLike], chance: random.Random) -> list[ItemLike]:
    """The conversation as an agent may send it next: extended, or cut, or with another item somewhere."""
    match chance.choice(["extend", "extend", "extend", "cut", "edit"]):
        case "cut":
            conversation = conversation[: chance.randint(0, len(conversation))]
        case "edit":
            conversation[chance.randrange(len(conversation))] = f"edited {chance.random()}"
    return [*conversation, *(f"said {chance.random()}" for _ in range(chance.randint(1, 3)))]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_sent_and_lost_the_model_sees_the_whole_conversation(seed: int) -> None:
    """The simulator follows the chain of responses: what it sees is its baseline and the delta."""
    chance = random.Random(seed)
    conversation: list[ItemLike] = ["hello"]
    async with open_line() as line, line.session() as session:
        for number in range(12):
            options: dict[str, Any] = {"instructions": "Be long."} if chance.random() < 0.15 else {}
            result = await answer(session.turn(conversation, **options))
            seen = line.sim.requests[number].visible_input
            assert seen is not None
            assert [as_seen(item) for item in seen] == [as_given(item) for item in conversation]
            conversation = mutated([*conversation, *result.items], chance)
            if chance.random() < 0.3:
                before = len(line.sim.handshakes)
                line.sim.drop_connection(line.sim.requests[-1].connection)
                await line.sim.wait_for_answered_handshakes(before + 1)
        deltas = line.sim.counters.creates_delta
        assert 0 < deltas < 12


def as_given(item: ItemLike) -> Any:
    """What identifies an item that was sent: its text, or its id."""
    return item if isinstance(item, str) else json.loads(bytes(item))["id"]  # type: ignore[arg-type]


def as_seen(item: dict[str, Any]) -> Any:
    """The same of an item that the simulator saw."""
    return item.get("id") or item["content"][0]["text"]


async def test_two_hundred_steps_of_tools_send_bytes_in_proportion() -> None:
    calls = [
        Reply(events=ev.function_call_response("look", '{"at":"something"}', f"call-{step}")) for step in range(200)
    ]
    async with open_line(Script(creates=calls)) as line, line.session(tools=[TOOL]) as session:
        conversation: list[ItemLike] = ["hello"]
        for step in range(200):
            result = await answer(session.turn(conversation, turn_id="T"))
            output = result.function_calls[0].answer(f"result of step {step}: " + "x" * 200)
            conversation += [*result.items, output]
        requests = line.sim.requests
        sent = [len(request.raw) for request in requests]
        whole = [len(json.dumps(request.visible_input)) for request in requests]
        for step in (0, 1, 99, 199):
            print(f"step {step + 1}: {sent[step]} bytes sent, {whole[step]} bytes of conversation")
        assert max(sent[1:]) - min(sent[1:]) < 20
        assert whole[199] > 50 * whole[1]
        assert all(request.previous_response_id for request in requests[1:])

"""Replay of conversations: which item is which over requests that repeat, continue, reorder and replace history."""

from pathlib import Path

import pytest

from observe.bundle_kit import (
    THREAD,
    Json,
    Log,
    assistant,
    call_of,
    item_of,
    reasoning,
    texts,
    tool_call,
    tool_output,
    user,
)
from warmline_server.observe.bundle.errors import Damage, ReplayError


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "bundle")


def _turn(log: Log, call_id: str, items: list[Json], output: list[Json], *, previous: str | None = None) -> None:
    log.start(call_id, items, previous=previous)
    log.complete(call_id, output, response_id=f"resp-{call_id}")


@pytest.mark.conformance("C-120")
def test_identical_text_at_a_new_place_is_a_new_item(log: Log) -> None:
    log.start("1", [user("go")])
    log.start("2", [user("go"), user("go")])

    state = log.replay()

    first, second = call_of(state, "1").request_item_ids, call_of(state, "2").request_item_ids
    assert second[0] == first[0]
    assert second[1] != first[0]


@pytest.mark.conformance("C-121")
def test_completed_output_is_in_the_thread_at_once(log: Log) -> None:
    _turn(log, "1", [user("hi")], [assistant("hello")])

    state = log.replay()

    call = call_of(state, "1")
    assert state.threads[THREAD].conversation_item_ids == call.request_item_ids + call.response_item_ids
    assert texts(state, state.threads[THREAD].conversation_item_ids) == ["hi", "hello"]


@pytest.mark.conformance("C-122")
def test_tool_call_sent_back_is_the_same_item(log: Log) -> None:
    _turn(log, "1", [user("hi")], [tool_call("c1", '{"a": 1,"b":2}')])
    sent_back = {k: v for k, v in tool_call("c1", '{"b":2,"a":1}').items() if k != "id"}
    log.start("2", [user("hi"), sent_back, tool_output("c1")])

    state = log.replay()

    assert call_of(state, "2").request_item_ids[:2] == state.inference_calls["1"].request_item_ids + (
        call_of(state, "1").response_item_ids
    )


@pytest.mark.conformance("C-123")
def test_incremental_request_carries_request_and_answer_forward(log: Log) -> None:
    usage = {"input_tokens": 9, "cached_input_tokens": 4, "output_tokens": 3, "reasoning_output_tokens": 1}
    log.start("1", [user("hi")])
    log.complete("1", [assistant("hello")], response_id="resp-1", upstream_request_id="req-1", usage=usage)
    log.start("2", [user("more")], previous="resp-1")

    state = log.replay()

    first, second = call_of(state, "1"), call_of(state, "2")
    assert second.request_item_ids[:2] == first.request_item_ids + first.response_item_ids
    assert texts(state, second.request_item_ids) == ["hi", "hello", "more"]
    assert first.usage is not None
    assert first.usage.input_tokens == 9


@pytest.mark.conformance("C-123")
def test_response_of_another_thread_is_no_parent(log: Log) -> None:
    _turn(log, "1", [user("hi")], [assistant("hello")])
    log.event("thread_started", thread_id="thread-2")
    log.turn("turn-2", "thread-2")
    log.start("2", [user("more")], previous="resp-1", turn_id="turn-2", thread_id="thread-2")

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert caught.value.damage is Damage.UNKNOWN_PARENT


@pytest.mark.conformance("C-124")
def test_reordered_snapshot_keeps_its_items(log: Log) -> None:
    log.start("1", [user("a"), user("b"), user("c")])
    log.start("2", [user("summary"), user("c"), user("a")])

    state = log.replay()

    a, _, c = call_of(state, "1").request_item_ids
    summary, third, first = call_of(state, "2").request_item_ids
    assert (third, first) == (c, a)
    assert summary not in call_of(state, "1").request_item_ids


@pytest.mark.conformance("C-125")
def test_reasoning_parts_stand_in_one_order(log: Log) -> None:
    _turn(log, "1", [user("hi")], [reasoning("enc", text="think", summary="sum")])

    state = log.replay()

    (item_id,) = call_of(state, "1").response_item_ids
    assert [(part.kind, part.text) for part in item_of(state, item_id).body] == [
        ("text", "think"),
        ("summary", "sum"),
        ("encoded", "enc"),
    ]


@pytest.mark.conformance("C-125")
def test_reasoning_is_known_by_its_encrypted_content(log: Log) -> None:
    _turn(log, "1", [user("hi")], [reasoning("enc", text="think")])
    log.start("2", [user("hi"), reasoning("enc")])

    state = log.replay()

    assert call_of(state, "2").request_item_ids[1:] == call_of(state, "1").response_item_ids


@pytest.mark.conformance("C-125")
def test_reasoning_takes_a_kind_that_it_lacked(log: Log) -> None:
    _turn(log, "1", [user("hi")], [reasoning("enc", text="think")])
    log.start("2", [user("hi"), reasoning("enc", summary="sum")])

    state = log.replay()

    body = item_of(state, call_of(state, "1").response_item_ids[0]).body
    assert [part.text for part in body] == ["think", "sum", "enc"]


@pytest.mark.conformance("C-125")
def test_first_readable_reasoning_wins(log: Log) -> None:
    _turn(log, "1", [user("hi")], [reasoning("enc", text="first", summary="one")])
    log.start("2", [user("hi"), reasoning("enc", text="second", summary="two")])

    state = log.replay()

    assert texts(state, call_of(state, "2").request_item_ids[1:]) == ["first|one|enc"]


@pytest.mark.conformance("C-125")
def test_other_encrypted_content_is_another_item(log: Log) -> None:
    _turn(log, "1", [user("hi")], [reasoning("enc-1", text="think")])
    log.start("2", [user("hi"), reasoning("enc-2", text="think")])

    state = log.replay()

    assert call_of(state, "2").request_item_ids[1:] != call_of(state, "1").response_item_ids


@pytest.mark.conformance("C-126")
def test_call_id_used_again_with_other_content_is_refused(log: Log) -> None:
    _turn(log, "1", [user("hi")], [tool_call("c1")])
    log.start("2", [user("hi"), tool_call("c1", '{"a":2}'), tool_output("c1")])

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert caught.value.damage is Damage.CALL_ID_CONFLICT


@pytest.mark.conformance("C-103")
@pytest.mark.conformance("C-127")
def test_full_snapshot_mode_wins_over_the_id_of_an_untraced_warm_up(log: Log) -> None:
    log.start("1", [user("hi")], previous="resp-warm", mode={"type": "full_snapshot"})

    state = log.replay()

    assert texts(state, call_of(state, "1").request_item_ids) == ["hi"]


@pytest.mark.conformance("C-103")
@pytest.mark.conformance("C-127")
@pytest.mark.parametrize("delta", [[], [user("more")]], ids=["empty-delta", "delta"])
def test_untraced_prefix_rebuilds_the_whole_visible_input(log: Log, delta: list[Json]) -> None:
    prefix = log.payload("untraced_prefix", {"input": [user("hi"), assistant("hello")]})
    mode = {
        "type": "incremental_with_untraced_prefix",
        "previous_response_id": "resp-warm",
        "prefix_payload": prefix,
    }
    log.start("1", delta, previous="resp-warm", mode=mode)

    state = log.replay()

    expected = ["hi", "hello"] + ["more" for _ in delta]
    assert texts(state, call_of(state, "1").request_item_ids) == expected
    assert prefix["raw_payload_id"] in state.raw_payloads


def _compact(log: Log, replacement: list[Json]) -> None:
    log.event(
        "compaction_installed",
        compaction_id="compaction-1",
        thread_id=THREAD,
        codex_turn_id="turn-1",
        checkpoint_payload=log.payload("compaction_checkpoint", {"replacement_history": replacement}),
    )


@pytest.mark.conformance("C-128")
def test_compaction_leaves_an_empty_marker_and_its_replacement_is_reused(log: Log) -> None:
    _turn(log, "1", [user("a"), user("b")], [assistant("c")])
    _compact(log, [user("b"), user("summary")])
    log.start("2", [user("b"), user("summary"), user("next")])

    state = log.replay()

    compaction = state.compactions["compaction-1"]
    marker = item_of(state, compaction.marker_item_id)
    assert (marker.kind, marker.body) == ("compaction_marker", [])
    assert call_of(state, "2").request_item_ids[:2] == compaction.replacement_item_ids
    assert item_of(state, compaction.replacement_item_ids[0]).produced_by[0].id == "compaction-1"


@pytest.mark.conformance("C-128")
def test_history_from_before_the_compaction_is_new_when_it_comes_again(log: Log) -> None:
    log.start("1", [user("a"), user("b")])
    _compact(log, [user("summary")])
    log.start("2", [user("a"), user("summary")])

    state = log.replay()

    prefix, kept = call_of(state, "2").request_item_ids
    assert prefix not in call_of(state, "1").request_item_ids
    assert kept == state.compactions["compaction-1"].replacement_item_ids[0]


@pytest.mark.conformance("C-129")
def test_tool_call_and_its_output_are_linked_both_ways(log: Log) -> None:
    _turn(log, "1", [user("hi")], [tool_call("c1"), tool_call("c2")])
    log.start("2", [tool_output("c1", "one"), tool_output("c2", "two")], previous="resp-1")

    state = log.replay()

    started = call_of(state, "1").tool_call_ids_started_by_response
    first, second = (state.tool_calls[tool_id] for tool_id in started)
    assert [first.call_id, second.call_id] == ["c1", "c2"]
    assert [first.call_item_id, second.call_item_id] == call_of(state, "1").response_item_ids
    outputs = call_of(state, "2").request_item_ids[-2:]
    assert [first.output_item_ids, second.output_item_ids] == [[outputs[0]], [outputs[1]]]
    assert {first.started_by_inference_call_id, second.started_by_inference_call_id} == {"1"}


def test_answer_that_meets_another_item_in_its_place_is_refused(log: Log) -> None:
    log.start("1", [user("hi")])
    log.start("2", [user("hi"), user("quick")])
    log.complete("1", [assistant("late")], response_id="resp-1")

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert (caught.value.damage, caught.value.line) == (Damage.APPEND_MISMATCH, log.line)


def test_answer_that_the_next_request_holds_already_is_the_same_item(log: Log) -> None:
    log.start("1", [user("hi")])
    log.start("2", [user("hi"), assistant("late")])
    log.complete("1", [assistant("late")], response_id="resp-1")

    state = log.replay()

    assert call_of(state, "1").response_item_ids == call_of(state, "2").request_item_ids[1:]


def test_every_supported_item_type_is_read(log: Log) -> None:
    kinds = [
        "web_search_call",
        "image_generation_call",
        "local_shell_call",
        "mcp_tool_call_output",
        "tool_search_call",
        "tool_search_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "compaction",
        "compaction_summary",
        "context_compaction",
    ]
    items = [{"type": kind, "call_id": f"c-{kind}"} if "call" in kind else {"type": kind} for kind in kinds]
    items.append({"type": "agent_message", "author": "a", "recipient": "b", "content": "hello"})
    log.start("1", items)

    state = log.replay()

    assert [item_of(state, i).kind for i in call_of(state, "1").request_item_ids] == [*kinds, "agent_message"]

"""What a turn brought, folded from its events: items that count, text, restarts, raw events."""

import json

import pytest
from google.protobuf.message import Message

import warmline
from client.fake_server import admitted, call_item, completed, created, done, member_name, message_item, started, text
from warmline.progress import TurnProgress, TurnResult
from warmline.v1 import turn_service_pb2, types_pb2

REASONING = b'{"type":"reasoning", "encrypted_content":"gAAAA==","summary":[ ]}'


def event(
    member: Message, sequence: int, *, attempt: int = 1, upstream_type: str = "", payload: bytes | None = None
) -> turn_service_pb2.TurnEvent:
    made = turn_service_pb2.TurnEvent(
        sequence=sequence, attempt=attempt, upstream_type=upstream_type, payload_json=payload
    )
    getattr(made, member_name(member)).CopyFrom(member)
    return made


def fold(*members: Message | tuple[Message, int]) -> TurnProgress:
    """Folds messages of the oneof's members; a pair names the attempt."""
    progress = TurnProgress(turn_id="", request_id="")
    for sequence, member in enumerate(members, 1):
        message, attempt = member if isinstance(member, tuple) else (member, 1)
        progress.accept(event(message, sequence, attempt=attempt))
    return progress


def restarted(attempt: int, *kept: int) -> turn_service_pb2.Restarted:
    return turn_service_pb2.Restarted(attempt=attempt, kept_item_sequences=kept)


def test_items_are_the_bytes_that_came() -> None:
    result = fold(done(REASONING), done(message_item("Hi")), done(call_item())).snapshot()

    assert result.items == (REASONING, message_item("Hi"), call_item())


def test_text_of_an_unfinished_message_follows_the_finished_ones() -> None:
    progress = fold(
        text("One.", "msg_1"), done(message_item("One.", "msg_1")), text(" Tw", "msg_2"), text("o", "msg_2")
    )

    assert progress.snapshot().text == "One. Two"
    assert progress.snapshot().ending == "unfinished"


def test_text_of_a_message_without_deltas_is_in_the_result() -> None:
    assert fold(done(message_item("whole"))).snapshot().text == "whole"


def test_restart_voids_what_it_does_not_keep() -> None:
    progress = fold(
        done(REASONING),
        done(message_item("kept")),
        text("half", "msg_2"),
        (restarted(2, 1, 2), 2),
        (text("new", "msg_9"), 2),
        (done(message_item("new", "msg_9")), 2),
        (completed(), 2),
    )

    result = progress.snapshot()
    assert result.items == (REASONING, message_item("kept"), message_item("new", "msg_9"))
    assert result.text == "keptnew"
    assert result.attempts == 2
    assert progress.has_voided_text


def test_restart_voids_older_items_that_are_not_named() -> None:
    progress = fold(done(REASONING), done(message_item("gone")), (restarted(2, 1), 2), (completed(), 2))

    assert progress.snapshot().items == (REASONING,)
    assert progress.snapshot().text == ""
    assert progress.has_voided_text


def test_restart_that_takes_no_text_back_is_none() -> None:
    progress = fold(
        text("kept"), done(message_item("kept")), done(REASONING), (restarted(2, 2), 2), (text(" more", "msg_2"), 2)
    )

    assert progress.snapshot().text == "kept more"
    assert progress.snapshot().items == (message_item("kept"),)
    assert not progress.has_voided_text


def test_retry_and_fall_back_are_in_the_outcome() -> None:
    progress = fold(
        admitted(),
        started(),
        turn_service_pb2.Retrying(reason="UPSTREAM_FAILED", retry=1, response_id="resp_old"),
        turn_service_pb2.FellBack(latched=True, reason="retries_exhausted"),
        (started(types_pb2.TRANSPORT_HTTP, types_pb2.SLOT_OUTCOME_NONE), 2),
        (created("resp_new"), 2),
        (completed("resp_new", upstream_request_id="req_http"), 2),
    )

    result = progress.snapshot()
    assert (result.attempts, result.transport, result.slot_outcome) == (2, "HTTP", "NONE")
    assert (result.response_id, result.upstream_request_id) == ("resp_new", "req_http")
    assert result.fell_back == "retries_exhausted"


def test_ids_of_a_failed_attempt_are_told_until_the_next_one_starts() -> None:
    retrying = turn_service_pb2.Retrying(response_id="resp_old", upstream_request_id="req_old")
    members: list[Message] = [admitted(), started(), created("resp_old"), retrying]

    failed = fold(*members)
    next_one = fold(*members, (started(), 2))

    assert (failed.response_id, failed.upstream_request_id) == ("resp_old", "req_old")
    assert (next_one.response_id, next_one.upstream_request_id) == ("", None)


def test_why_a_request_was_full_is_in_the_outcome() -> None:
    attempt = started()
    attempt.full_reason = types_pb2.FULL_REASON_NOT_A_PREFIX

    result = fold(attempt, turn_service_pb2.ServerModel(model="small-2")).snapshot()

    assert (result.incremental, result.full_reason, result.server_model) == (False, "NOT_A_PREFIX", "small-2")


def test_raw_events_bring_the_same_outcome_as_typed_ones() -> None:
    item = message_item("Grüße ☀")
    payloads = [
        ("response.created", b'{"type":"response.created","response":{"id":"resp_5"}}'),
        ("response.output_text.delta", '{"item_id":"msg_1", "delta":"Grüße ☀"}'.encode()),
        ("response.output_item.done", b'{ "output_index" : 0 , "item" : ' + item + b' , "type":"x"}'),
    ]
    progress = TurnProgress(turn_id="", request_id="")

    for sequence, (upstream_type, payload) in enumerate(payloads, 1):
        raw = event(turn_service_pb2.RawEvent(), sequence, upstream_type=upstream_type, payload=payload)
        assert progress.accept(raw)

    result = progress.snapshot()
    assert (result.items, result.text, result.response_id) == ((item,), "Grüße ☀", "resp_5")


@pytest.mark.parametrize(
    "item",
    [
        b'{"type":"message"}',
        b'{"type":"message","content":null}',
        b'{"type":"message","content":["odd",{"type":"output_text"}]}',
        b'{"type":"function_call"}',
        b"[1]",
        b"not json",
    ],
)
def test_item_that_cannot_be_read_is_kept_as_it_is(item: bytes) -> None:
    result = fold(done(item)).snapshot()

    assert result.items == (item,)
    assert result.text == ""


def test_calls_are_answered_by_items_of_their_kind() -> None:
    custom = b'{"type":"custom_tool_call","call_id":"c2","name":"patch","input":"*** Begin"}'

    result = fold(done(call_item("c1", "look", "{}")), done(custom)).snapshot()

    assert result.function_calls == (warmline.FunctionCall("c1", "look", "{}"),)
    assert result.custom_tool_calls == (warmline.CustomToolCall("c2", "patch", "*** Begin"),)
    assert result.function_calls[0].answer("seen").function_call_output.call_id == "c1"
    assert json.loads(result.custom_tool_calls[0].answer("done").json) == {
        "type": "custom_tool_call_output",
        "call_id": "c2",
        "output": "done",
    }


def test_result_is_a_value() -> None:
    assert fold(done(REASONING), completed()).snapshot() == fold(done(REASONING), completed()).snapshot()
    with pytest.raises(AttributeError):
        fold(completed()).snapshot().text = "changed"  # type: ignore[misc]
    assert isinstance(fold().snapshot(), TurnResult)

"""Replay of inferences' lives: ends, late evidence, turn ends, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from observe.bundle_kit import THREAD, Log, assistant, call_of, item_of, texts, user
from warmline_server.observe.bundle.errors import Damage, ReplayError
from warmline_server.observe.bundle.format import Status
from warmline_server.observe.bundle.state import Producer


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "bundle")


@pytest.mark.conformance("C-100")
def test_start_and_completion_keep_both_ids_apart_and_two_payloads(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.complete("call-1", [assistant("hello")], response_id="resp-1", upstream_request_id="req-1")

    state = log.replay()

    call = call_of(state, "call-1")
    assert (call.response_id, call.upstream_request_id) == ("resp-1", "req-1")
    assert call.execution.status is Status.COMPLETED
    assert (call.execution.started_seq, call.execution.ended_seq) == (4, 5)
    assert (call.raw_request_payload_id, call.raw_response_payload_id) == ("raw_payload:1", "raw_payload:2")
    assert set(state.raw_payloads) == {"raw_payload:1", "raw_payload:2"}


@pytest.mark.conformance("C-110")
def test_cancelled_inference_keeps_its_partial_items_with_their_producer(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.cancel("call-1", [assistant("hel")], upstream_request_id="req-1")

    state = log.replay()

    call = call_of(state, "call-1")
    assert (call.execution.status, call.upstream_request_id, call.reason) == (Status.CANCELLED, "req-1", "caller")
    (item_id,) = call.response_item_ids
    assert item_of(state, item_id).produced_by == [Producer("inference", "call-1")]


@pytest.mark.conformance("C-111")
@pytest.mark.parametrize(
    ("turn", "inference"),
    [("completed", "cancelled"), ("cancelled", "cancelled"), ("failed", "failed"), ("aborted", "aborted")],
)
def test_turn_end_ends_a_running_inference(log: Log, turn: str, inference: str) -> None:
    log.start("call-1", [user("hi")])
    log.end_turn(status=turn)

    state = log.replay()

    execution = call_of(state, "call-1").execution
    assert execution.status == inference
    assert execution.ended_seq == log.line == state.codex_turns["turn-1"].execution.ended_seq


@pytest.mark.conformance("C-112")
def test_terminal_after_the_turns_end_adds_evidence_and_keeps_status_and_end(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.end_turn(status="failed")
    ended_seq = log.line
    log.cancel("call-1", [assistant("hel")], upstream_request_id="req-late", response_id="resp-late")

    state = log.replay()

    call = call_of(state, "call-1")
    assert (call.execution.status, call.execution.ended_seq) == (Status.FAILED, ended_seq)
    assert texts(state, call.response_item_ids) == ["hel"]
    # D-3: the reference drops the late request id.
    assert (call.response_id, call.upstream_request_id) == ("resp-late", "req-late")


@pytest.mark.conformance("C-112")
def test_late_terminal_without_ids_clears_none(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.complete("call-1", response_id="resp-1", upstream_request_id="req-1")
    log.end_turn()
    log.fail("call-1")

    call = call_of(log.replay(), "call-1")

    # D-3: the reference lets the late record clear the response id.
    assert (call.response_id, call.upstream_request_id) == ("resp-1", "req-1")
    assert call.execution.status is Status.COMPLETED


def test_evidence_event_adds_what_was_missing(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.cancel("call-1", response_id="resp-1")
    fact = {"kind": "warmline.evidence", "inference_call_id": "call-1", "response_id": "x", "upstream_request_id": "r"}
    log.event("other", fact=fact)

    call = call_of(log.replay(), "call-1")

    assert (call.response_id, call.upstream_request_id) == ("resp-1", "r")


@pytest.mark.conformance("C-113")
def test_failure_without_partial_has_no_response_payload_and_no_items(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.fail("call-1", upstream_request_id="req-1")

    call = call_of(log.replay(), "call-1")

    assert call.execution.status is Status.FAILED
    assert call.raw_response_payload_id is None
    assert call.response_item_ids == []
    assert call.upstream_request_id == "req-1"


def test_usage_is_taken_only_when_it_is_whole(log: Log) -> None:
    whole = {"input_tokens": 9, "cached_input_tokens": 4, "output_tokens": 3, "reasoning_output_tokens": 1}
    log.start("call-1", [user("a")])
    log.complete("call-1", response_id="r-1", usage=whole)
    log.start("call-2", [user("a")])
    log.complete("call-2", response_id="r-2", usage={"input_tokens": 9, "output_tokens": 3})

    state = log.replay()

    usage = call_of(state, "call-1").usage
    assert usage is not None
    assert (usage.input_tokens, usage.cached_input_tokens, usage.reasoning_output_tokens) == (9, 4, 1)
    assert call_of(state, "call-2").usage is None


def test_blank_lines_breadcrumbs_foreign_facts_and_gaps_in_seq_are_passed_over(log: Log) -> None:
    log.raw("\n   \n")
    log.event("protocol_event_observed", name="x")
    log.event("other", something="else")
    log.line += 100
    log.start("call-1", [user("hi")])
    log.complete("call-1", response_id="resp-1")

    assert call_of(log.replay(), "call-1").execution.status is Status.COMPLETED


def _duplicate_inference(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.start("call-1", [user("hi")])


def _duplicate_turn(log: Log) -> None:
    log.turn("turn-1")


def _duplicate_thread(log: Log) -> None:
    log.event("thread_started", thread_id=THREAD)


def _wrong_thread(log: Log) -> None:
    log.event("thread_started", thread_id="thread-2")
    log.start("call-1", [user("hi")], thread_id="thread-2")


def _unknown_terminal(log: Log) -> None:
    log.complete("nobody", response_id="resp-1")


def _unknown_turn(log: Log) -> None:
    log.start("call-1", [user("hi")], turn_id="turn-9")


def _unknown_thread(log: Log) -> None:
    log.turn("turn-2", "thread-9")


def _unknown_parent(log: Log) -> None:
    log.start("call-1", [user("hi")], previous="resp-9")


def _request_id_as_parent(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.complete("call-1", response_id="resp-1", upstream_request_id="req-1")
    log.start("call-2", [user("more")], previous="req-1")


def _missing_payload(log: Log) -> None:
    log.start("call-1", [user("hi")])
    (log.path / "payloads" / "1.json").unlink()


def _payload_outside(log: Log) -> None:
    ref = {"raw_payload_id": "raw_payload:1", "kind": {"type": "inference_request"}, "path": "../../etc/hostname"}
    log.event(
        "inference_started",
        inference_call_id="call-1",
        thread_id=THREAD,
        codex_turn_id="turn-1",
        model="m",
        provider_name="p",
        request_payload=ref,
    )


def _broken_payload(log: Log) -> None:
    log.start("call-1", [user("hi")])
    (log.path / "payloads" / "1.json").write_text('{"input": [')


def _missing_input(log: Log) -> None:
    log.start("call-1", body={"model": "m-1"})


def _unknown_item(log: Log) -> None:
    log.start("call-1", [{"type": "telepathy"}])


def _mode_mismatch(log: Log) -> None:
    log.start("call-1", [user("hi")])
    log.complete("call-1", response_id="resp-1")
    mode = {"type": "incremental", "previous_response_id": "resp-1"}
    log.start("call-2", [user("more")], previous="resp-2", mode=mode)


def _missing_field(log: Log) -> None:
    log.event("inference_started", inference_call_id="call-1")


def _unknown_event(log: Log) -> None:
    log.event("teleported")


@pytest.mark.parametrize(
    ("damage", "write"),
    [
        pytest.param(Damage.DUPLICATE_START, _duplicate_inference, marks=pytest.mark.conformance("C-114")),
        pytest.param(Damage.WRONG_THREAD, _wrong_thread, marks=pytest.mark.conformance("C-114")),
        pytest.param(Damage.UNKNOWN_CALL, _unknown_terminal, marks=pytest.mark.conformance("C-114")),
        pytest.param(Damage.UNKNOWN_TURN, _unknown_turn, marks=pytest.mark.conformance("C-126")),
        pytest.param(Damage.UNKNOWN_PARENT, _unknown_parent, marks=pytest.mark.conformance("C-126")),
        pytest.param(Damage.UNKNOWN_PARENT, _request_id_as_parent, marks=pytest.mark.conformance("C-123")),
        pytest.param(Damage.BAD_PAYLOAD, _missing_input, marks=pytest.mark.conformance("C-126")),
        pytest.param(Damage.UNKNOWN_ITEM_TYPE, _unknown_item, marks=pytest.mark.conformance("C-126")),
        (Damage.DUPLICATE_START, _duplicate_turn),
        (Damage.DUPLICATE_START, _duplicate_thread),
        (Damage.UNKNOWN_THREAD, _unknown_thread),
        (Damage.MISSING_PAYLOAD, _missing_payload),
        (Damage.MISSING_PAYLOAD, _payload_outside),
        (Damage.BAD_PAYLOAD, _broken_payload),
        (Damage.MODE_MISMATCH, _mode_mismatch),
        (Damage.BAD_EVENT, _missing_field),
        (Damage.BAD_EVENT, _unknown_event),
    ],
)
def test_damage_is_named_with_its_line(log: Log, damage: Damage, write: Callable[[Log], None]) -> None:
    write(log)

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert caught.value.damage is damage
    assert caught.value.line == log.line
    assert str(caught.value).startswith(f"line {log.line}: {damage}: ")


@pytest.mark.parametrize("cut", [1, 20, 80])
def test_truncated_last_line_is_named(log: Log, cut: int) -> None:
    log.start("call-1", [user("hi")])
    path = log.path / "trace.jsonl"
    path.write_text(path.read_text()[: -1 - cut])

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert (caught.value.damage, caught.value.line) == (Damage.TRUNCATED_LINE, log.line)


def test_line_that_is_no_json_is_named(log: Log) -> None:
    log.raw("hello\n")

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert (caught.value.damage, caught.value.line) == (Damage.BAD_EVENT, log.line + 1)


@pytest.mark.parametrize(
    ("name", "content", "damage"),
    [
        ("manifest.json", None, Damage.NO_BUNDLE),
        ("trace.jsonl", None, Damage.NO_BUNDLE),
        ("manifest.json", "{}", Damage.BAD_MANIFEST),
        ("manifest.json", "[", Damage.BAD_MANIFEST),
    ],
)
def test_directory_that_is_no_bundle_is_named(log: Log, name: str, content: str | None, damage: Damage) -> None:
    (log.path / name).unlink()
    if content is not None:
        (log.path / name).write_text(content)

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert (caught.value.damage, caught.value.line) == (damage, 0)


def test_other_schema_version_is_refused(log: Log) -> None:
    path = log.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))

    with pytest.raises(ReplayError) as caught:
        log.replay()

    assert caught.value.damage is Damage.BAD_MANIFEST

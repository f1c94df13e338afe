"""Bundles written by the observer, read back by the reducer."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from observe import record_kit as kit
from observe.bundle_kit import texts
from observe.record_kit import Play
from warmline_server.clock import SystemClock
from warmline_server.core.errors import Reason
from warmline_server.core.events import Usage
from warmline_server.core.records import AttemptRecord, AttemptStatus, CallOutcome, CallRecord, SessionRecord
from warmline_server.observe.bundle.format import Status
from warmline_server.observe.bundle.reduce import replay
from warmline_server.observe.bundle.state import State
from warmline_server.observe.bundle.writer import BundleObserver
from warmline_server.observe.setup import open_telemetry
from warmline_server.session.attempt import Attempt
from warmline_server.settings import Telemetry as TelemetrySettings

USER = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}'
MORE = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"more"}]}'
ANSWER = b'{"type":"message","id":"m-1","role":"assistant","content":[{"type":"output_text","text":"hello"}]}'
THINKING = (
    b'{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}],"encrypted_content":"e"}'
)


def request(*items: bytes, previous: str = "") -> bytes:
    tail = f',"previous_response_id":"{previous}"' if previous else ""
    return b'{"type":"response.create","model":"m-1","input":[' + b",".join(items) + b"]" + tail.encode() + b"}"


class Written:
    """An observer that writes beneath a directory, and one session's steps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.observer = BundleObserver(root)
        self.play = Play(self.observer)
        self.session = kit.session()
        self.observer.session_opened(self.session)

    def call(self, turn_id: str = "turn-1", *, lane: str = "") -> CallRecord:
        return self.play.start(kit.call(self.session, turn_id, lane=lane))

    def send(self, call: CallRecord, body: bytes, *, previous: str = "") -> AttemptRecord:
        attempt = kit.attempt(self.session, call, request=body)
        attempt.previous_response_id = previous
        return self.play.send(attempt)

    def turn(self, turn_id: str, body: bytes, *items: bytes, response_id: str, previous: str = "") -> None:
        call = self.call(turn_id)
        self.play.complete(self.send(call, body, previous=previous), response_id, items=items)
        self.play.end(call, CallOutcome.COMPLETED)

    @property
    def path(self) -> Path:
        (path,) = self.root.iterdir()
        return path

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.path / "trace.jsonl").read_text().splitlines()]

    def replayed(self) -> State:
        self.observer.close()
        return replay(self.path)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "bundles")


@pytest.mark.conformance("C-102")
def test_log_counts_from_one_payloads_come_first_and_the_manifest_is_whole(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: list[str] = []
    encode: Callable[[object], bytes] = msgspec.json.encode

    def checked(value: object) -> bytes:
        """Runs when an event's line is made: the payloads that it names must be there by then."""
        line = encode(value)
        for number in (1, 2):
            if f'"payloads/{number}.json"'.encode() in line and not (written.path / f"payloads/{number}.json").exists():
                missing.append(f"payloads/{number}.json")
        return line

    monkeypatch.setattr(msgspec.json, "encode", checked)
    written.turn("turn-1", request(USER), ANSWER, response_id="resp-1")
    written.observer.session_closed(written.session, "caller")

    state = written.replayed()

    assert missing == []
    events = written.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["schema_version"] for event in events} == {1}
    assert sorted(p.name for p in (written.path / "payloads").iterdir()) == ["1.json", "2.json"]
    manifest = json.loads((written.path / "manifest.json").read_text())
    assert manifest.keys() == {
        "schema_version",
        "trace_id",
        "rollout_id",
        "root_thread_id",
        "started_at_unix_ms",
        "raw_event_log",
        "payloads_dir",
    }
    assert (manifest["rollout_id"], manifest["root_thread_id"]) == ("s-1", written.session.conversation_id)
    assert list(state.raw_payloads) == ["raw_payload:1", "raw_payload:2"]
    assert state.execution.status is Status.COMPLETED


def test_written_turn_replays_to_what_happened(written: Written) -> None:
    written.turn("turn-1", request(USER), ANSWER, response_id="resp-1")
    written.turn("turn-2", request(MORE, previous="resp-1"), response_id="resp-2", previous="resp-1")

    state = written.replayed()

    first, second = state.inference_calls.values()
    assert (first.response_id, first.upstream_request_id, first.model) == ("resp-1", None, "m-1")
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.cached_input_tokens) == (100, 60)
    assert texts(state, second.request_item_ids) == ["hi", "hello", "more"]
    assert [turn.execution.status for turn in state.codex_turns.values()] == [Status.COMPLETED, Status.RUNNING]
    assert first.facts is not None
    assert (first.facts.transport, first.facts.slot_outcome, first.facts.attempt) == ("http", "none", 1)


@pytest.mark.conformance("C-101")
def test_readable_reasoning_is_in_the_payload(written: Written) -> None:
    written.turn("turn-1", request(USER), THINKING, response_id="resp-1")

    state = written.replayed()

    (call,) = state.inference_calls.values()
    assert texts(state, call.response_item_ids) == ["hm|e"]


@pytest.mark.conformance("C-090")
def test_cancelled_attempt_leaves_its_partial_items(written: Written) -> None:
    call = written.call()
    attempt = written.send(call, request(USER))
    attempt.output_items, attempt.upstream_request_id = [ANSWER], "req-1"
    written.play.finish(attempt, AttemptStatus.CANCELLED, response_id="resp-1")
    written.play.end(call, CallOutcome.CANCELLED)

    state = written.replayed()

    (inference,) = state.inference_calls.values()
    assert inference.execution.status is Status.CANCELLED
    assert (inference.response_id, inference.upstream_request_id) == ("resp-1", "req-1")
    assert texts(state, inference.response_item_ids) == ["hello"]
    assert len(state.raw_payloads) == 2


@pytest.mark.conformance("C-113")
def test_failure_without_output_writes_no_response_payload(written: Written) -> None:
    call = written.call()
    attempt = written.send(call, request(USER))
    attempt.upstream_request_id, attempt.http_status = "req-1", 503
    written.play.finish(attempt, AttemptStatus.FAILED, kit.refused(text="MARKER words"))
    written.play.end(call, CallOutcome.FAILED, kit.refused())

    state = written.replayed()

    (inference,) = state.inference_calls.values()
    assert (inference.execution.status, inference.reason) == (Status.FAILED, "UPSTREAM_FAILED")
    assert inference.raw_response_payload_id is None
    assert inference.end_facts is not None
    assert inference.end_facts.http_status == 503
    assert "MARKER" not in (written.path / "trace.jsonl").read_text()


@pytest.mark.conformance("C-104")
def test_only_the_first_ending_of_an_attempt_is_written(written: Written) -> None:
    call = written.call()
    record = written.send(call, request(USER))
    attempt = Attempt(
        record, clock=SystemClock(), observer=written.observer, with_payload=False, max_response_bytes=1024
    )

    attempt.end(AttemptStatus.COMPLETED)
    attempt.end(AttemptStatus.FAILED, kit.refused())

    state = written.replayed()
    assert [call.execution.status for call in state.inference_calls.values()] == [Status.COMPLETED]
    kinds = [event["payload"]["type"] for event in written.events()]  # type: ignore[index]
    assert [kind for kind in kinds if kind.startswith("inference_")] == ["inference_started", "inference_completed"]


@pytest.mark.conformance("C-112")
def test_late_evidence_is_added(written: Written) -> None:
    call = written.call()
    attempt = written.send(call, request(USER))
    written.play.finish(attempt, AttemptStatus.CANCELLED)
    written.play.end(call, CallOutcome.CANCELLED)
    attempt.response_id, attempt.upstream_request_id = "resp-late", "req-late"
    written.observer.attempt_evidence(attempt)

    (inference,) = written.replayed().inference_calls.values()

    assert (inference.response_id, inference.upstream_request_id) == ("resp-late", "req-late")
    assert inference.execution.status is Status.CANCELLED


def _warm_up(written: Written, body: bytes, *items: bytes) -> None:
    warm = written.play.warm(written.session)
    attempt = written.play.send(kit.attempt(written.session, None, warm, request=body))
    written.play.complete(attempt, "resp-warm", items=items)


@pytest.mark.conformance("C-026")
def test_warm_up_is_no_inference(written: Written) -> None:
    _warm_up(written, request())

    state = written.replayed()

    assert state.inference_calls == {}
    assert len(state.connects) == 1


@pytest.mark.conformance("C-103")
@pytest.mark.parametrize(
    ("warmed", "delta", "expected"),
    [((), (USER,), ["hi"]), ((USER,), (), ["hi"]), ((USER,), (MORE,), ["hi", "more"])],
    ids=["empty-warm-up", "empty-delta", "prefix-and-delta"],
)
def test_turn_that_continues_a_warm_up_shows_its_whole_visible_input(
    written: Written, warmed: tuple[bytes, ...], delta: tuple[bytes, ...], expected: list[str]
) -> None:
    _warm_up(written, request(*warmed))
    written.turn("turn-1", request(*delta, previous="resp-warm"), response_id="resp-1", previous="resp-warm")

    state = written.replayed()

    (call,) = state.inference_calls.values()
    assert texts(state, call.request_item_ids) == expected


def test_lanes_are_threads_and_their_turns_do_not_mix(written: Written) -> None:
    main, side = written.call("turn-1"), written.call("turn-1", lane="side")
    written.play.complete(written.send(main, request(USER)), "resp-1")
    written.play.complete(written.send(side, request(MORE)), "resp-2")
    written.play.end(main, CallOutcome.COMPLETED)
    written.play.end(side, CallOutcome.COMPLETED)

    state = written.replayed()

    root = written.session.conversation_id
    assert {thread.thread_id: thread.lane for thread in state.threads.values()} == {root: "", f"{root}/side": "side"}
    assert [call.thread_id for call in state.inference_calls.values()] == [root, f"{root}/side"]
    assert len(state.codex_turns) == 2


def test_waiting_call_of_the_next_turn_does_not_take_the_running_ones_attempts(written: Written) -> None:
    first = written.call("turn-1")
    attempt = written.send(first, request(USER))
    second = written.call("turn-2")
    written.play.complete(attempt, "resp-1")
    written.play.complete(written.send(first, request(USER)), "resp-2")
    written.play.end(first, CallOutcome.COMPLETED)
    written.play.end(second, CallOutcome.CANCELLED)
    written.observer.session_closed(written.session, "caller")

    state = written.replayed()

    assert {call.codex_turn_id for call in state.inference_calls.values()} == {"turn-1"}
    statuses = {turn.codex_turn_id: turn.execution.status for turn in state.codex_turns.values()}
    assert statuses == {"turn-1": Status.COMPLETED, "turn-2": Status.CANCELLED}


def test_follow_up_calls_of_a_turn_stay_in_it_and_a_turn_that_comes_back_is_another(written: Written) -> None:
    written.turn("turn-1", request(USER), response_id="resp-1")
    written.turn("turn-1", request(USER), response_id="resp-2")
    written.turn("turn-2", request(USER), response_id="resp-3")
    written.turn("turn-1", request(USER), response_id="resp-4")

    state = written.replayed()

    assert {key: len(turn.inference_call_ids) for key, turn in state.codex_turns.items()} == {
        "turn-1": 2,
        "turn-2": 1,
        "turn-1#2": 1,
    }


def test_session_closed_under_a_running_call_still_gets_its_end(written: Written) -> None:
    call = written.call()
    attempt = written.send(call, request(USER))
    written.observer.session_closed(written.session, "caller")
    attempt.output_items = [ANSWER]
    written.play.finish(attempt, AttemptStatus.CANCELLED, kit.refused(Reason.SESSION_CLOSED), response_id="resp-1")
    written.play.end(call, CallOutcome.CANCELLED)

    state = written.replayed()

    (inference,) = state.inference_calls.values()
    assert (inference.response_id, inference.reason) == ("resp-1", "SESSION_CLOSED")
    assert state.execution.status is Status.COMPLETED


def test_incomplete_response_keeps_its_reason(written: Written) -> None:
    call = written.call()
    attempt = written.send(call, request(USER))
    attempt.incomplete_reason = "max_output_tokens"
    written.play.finish(attempt, AttemptStatus.INCOMPLETE, response_id="resp-1")

    (inference,) = written.replayed().inference_calls.values()

    assert inference.end_facts is not None
    assert inference.end_facts.incomplete_reason == "max_output_tokens"


def test_usage_not_told_is_absent(written: Written) -> None:
    call = written.call()
    written.play.complete(written.send(call, request(USER)), "resp-1", usage=None)
    other = written.call()
    written.play.complete(written.send(other, request(USER)), "resp-2", usage=Usage(input_tokens=1))

    usages = [call.usage for call in written.replayed().inference_calls.values()]

    assert usages[0] is None
    assert usages[1] is not None


@pytest.mark.conformance("C-105")
async def test_without_a_directory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    telemetry = open_telemetry(TelemetrySettings())
    play, session = Play(telemetry.observer), kit.session()
    telemetry.observer.session_opened(session)
    call = play.start(kit.call(session))
    play.complete(play.send(kit.attempt(session, call, request=request(USER))), "resp-1")
    await telemetry.close()

    assert os.listdir(tmp_path) == []


@pytest.mark.conformance("C-105")
def test_directory_that_cannot_be_written_costs_no_call_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bundles").write_text("a file")
    written = Written(tmp_path / "bundles")
    written.turn("turn-1", request(USER), response_id="resp-1")
    written.turn("turn-2", request(USER), response_id="resp-2")
    written.observer.close()

    assert written.observer.dropped > 2
    assert [r.message for r in caplog.records] == ["a trace bundle ends here"]


@pytest.mark.conformance("C-105")
def test_payload_that_cannot_be_written_is_not_named_by_an_event(
    written: Written, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call = written.call()
    written.play.complete(written.send(call, b"no JSON"), "resp-1")
    written.observer.close()

    state = replay(written.path)

    assert state.inference_calls == {}
    assert len(state.codex_turns) == 1
    assert "a trace bundle ends here" in caplog.text


def test_full_queue_ends_the_bundle_with_a_word_and_leaves_it_replayable(tmp_path: Path) -> None:
    gate = threading.Event()

    def wait() -> None:
        gate.wait(10)

    class SlowDisk(BundleObserver):
        def session_opened(self, session: SessionRecord) -> None:
            super().session_opened(session)
            bundle = self._bundles[session]
            self._disk.do(0, bundle, wait)

    written = Written.__new__(Written)
    written.root, written.session = tmp_path / "bundles", kit.session()
    written.observer = SlowDisk(written.root, max_queued_bytes=1000)
    written.play = Play(written.observer)
    written.observer.session_opened(written.session)
    for number in range(30):
        written.turn(f"turn-{number}", request(USER), ANSWER, response_id=f"resp-{number}")
    gate.set()

    state = written.replayed()

    assert state.truncated == "the queue to the disk was full"
    assert 0 < len(state.inference_calls) < 30
    assert written.observer.dropped > 10

"""Log lines: their fields, their levels, and what never gets into them."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from observe import record_kit as kit
from observe.record_kit import Play
from warmline_server.core.errors import Reason, ServiceError, WarmlineError
from warmline_server.core.records import AttemptStatus, CallOutcome, SpanIds
from warmline_server.observe import log_pipe
from warmline_server.observe.log_pipe import LogPipe
from warmline_server.observe.logs import LogObserver

SPAN = SpanIds("a" * 32, "b" * 16, sampled=True)


class Captured:
    """A configured pipe into memory; `lines` ends it and reads what was written."""

    def __init__(self, log_format: str, level: str = "debug") -> None:
        self.out = io.StringIO()
        self.pipe: LogPipe | None = log_pipe.configure(log_format, level, stream=self.out)

    def text(self) -> str:
        self.close()
        return self.out.getvalue()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def close(self) -> None:
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None


@pytest.fixture
def json_log() -> Iterator[Captured]:
    captured = Captured("json")
    yield captured
    captured.close()


def test_line_of_an_ended_call_names_session_turn_trace_and_ids(json_log: Captured) -> None:
    call = kit.call(kit.session(), lane="side")
    call.span, call.response_id, call.upstream_request_id = SPAN, "resp-1", "req-1"
    Play(LogObserver()).end(call, CallOutcome.COMPLETED)

    (line,) = json_log.lines()

    expected = {
        "event": "call ended",
        "level": "info",
        "session_id": "s-1",
        "turn_id": "turn-1",
        "lane": "side",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "response_id": "resp-1",
        "upstream_request_id": "req-1",
        "outcome": "completed",
        "duration_s": 0.2,
    }
    assert {name: line[name] for name in expected} == expected
    assert "timestamp" in line


@pytest.mark.parametrize(
    ("outcome", "error", "level"),
    [
        (CallOutcome.COMPLETED, None, "info"),
        (CallOutcome.CANCELLED, None, "info"),
        (CallOutcome.CANCELLED, ServiceError(Reason.DEADLINE_EXCEEDED, "x"), "info"),
        (CallOutcome.FAILED, kit.refused(), "warning"),
        (CallOutcome.FAILED, WarmlineError(Reason.INTERNAL, "x"), "error"),
        (CallOutcome.RUNNING, None, "error"),
    ],
    ids=["completed", "caller-gone", "deadline", "failed", "internal", "without-outcome"],
)
def test_level_says_whether_someone_must_look(
    json_log: Captured, outcome: CallOutcome, error: WarmlineError | None, level: str
) -> None:
    Play(LogObserver()).end(kit.call(kit.session()), outcome, error)

    assert [line["level"] for line in json_log.lines()] == [level]


def test_attempts_line_has_its_own_span_and_its_calls_turn(json_log: Captured) -> None:
    call = kit.call(kit.session())
    call.span = SpanIds("a" * 32, "c" * 16, sampled=True)
    attempt = kit.attempt(call.session, call)
    attempt.span, attempt.http_status = SPAN, 503
    Play(LogObserver()).finish(attempt, AttemptStatus.FAILED, kit.refused(text="MARKER"))

    (line,) = json_log.lines()

    assert (line["turn_id"], line["span_id"], line["trace_id"]) == ("turn-1", "b" * 16, "a" * 32)
    assert (line["reason"], line["http_status"], line["attempt"]) == ("UPSTREAM_FAILED", 503, 1)
    assert "MARKER" not in json.dumps(line)


def test_every_step_logs_a_line(json_log: Captured) -> None:
    observer, session = LogObserver(), kit.session()
    play = Play(observer)
    observer.session_opened(session)
    observer.slot_changed(session, "IDLE", "IN_FLIGHT")
    warm = play.warm(session)
    call = play.start(kit.call(session))
    attempt = play.send(kit.attempt(session, call, warm))
    observer.retry_scheduled(call, attempt, kit.refused(), 0.5)
    observer.fell_back(session, call, "upgrade_required", latched=True)
    observer.unlatched(session)
    observer.circuit_changed("simulator", "OPEN")
    observer.call_refused(Reason.LANE_BUSY)
    observer.attempt_evidence(attempt)
    observer.socket_closed(warm, "peer", 1000)
    observer.session_closed(session, "caller")

    events = [line["event"] for line in json_log.lines()]

    assert events == [
        "session opened",
        "slot changed",
        "connect started",
        "connect ended",
        "call started",
        "attempt started",
        "retry scheduled",
        "fell back to HTTP",
        "back to the WebSocket",
        "circuit changed",
        "call refused",
        "late evidence",
        "socket closed",
        "session closed",
    ]


def test_traceback_keeps_places_and_our_texts_and_drops_foreign_texts(json_log: Captured) -> None:
    prompt = "MARKER".lower()
    try:
        try:
            raise ValueError(prompt)
        except ValueError as cause:
            raise ServiceError(Reason.LIMIT_EXCEEDED, "7 of 7") from cause
    except ServiceError:
        logging.getLogger("any").exception("it failed")

    (line,) = json_log.lines()

    assert "builtins.ValueError" in line["exception"]
    assert "ServiceError: LIMIT_EXCEEDED: 7 of 7" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert "marker" not in json.dumps(line)


async def test_forgotten_task_does_not_print_its_exceptions_text(json_log: Captured) -> None:
    loop = asyncio.get_running_loop()
    error = ValueError("MARKER prompt")
    loop.call_exception_handler({"message": "Task exception was never retrieved", "exception": error, "task": error})

    (line,) = (line for line in json_log.lines() if line["level"] == "error")

    assert line["event"] == "Task exception was never retrieved"
    assert "MARKER" not in json.dumps(line)


@pytest.mark.parametrize("name", log_pipe.QUIET)
def test_libraries_that_log_what_they_send_stay_quiet_at_debug(json_log: Captured, name: str) -> None:
    logging.getLogger(name).debug("MARKER")
    logging.getLogger(f"{name}.child").info("MARKER")

    assert json_log.text() == ""


def test_line_that_cannot_be_spelled_costs_no_other(json_log: Captured, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("any")
    log.info("before")
    log.info("lost", extra={"field": _Mute()})
    log.info("after", extra={"field": object()})

    assert [line["event"] for line in json_log.lines()] == ["before", "after"]
    assert "Logging error" in capsys.readouterr().err


def test_line_has_the_time_of_its_event_and_not_of_its_writing(json_log: Captured) -> None:
    record = logging.makeLogRecord({"msg": "hello", "created": 1_700_000_000.25, "levelno": logging.INFO})
    logging.getLogger("any").handle(record)

    assert [line["timestamp"] for line in json_log.lines()] == ["2023-11-14T22:13:20.250000Z"]


def test_text_is_one_line_for_a_person() -> None:
    captured = Captured("text")
    Play(LogObserver()).end(kit.call(kit.session()), CallOutcome.COMPLETED)

    (line,) = captured.text().splitlines()

    assert "call ended" in line
    assert "turn_id=turn-1" in line
    assert not line.startswith("{")


def test_auto_is_json_where_nobody_watches() -> None:
    captured = Captured("auto", "info")
    logging.getLogger("any").info("hello")

    (line,) = captured.lines()

    assert line["event"] == "hello"


def test_stalled_reader_costs_lines_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pipe, "MAX_WAITING_LINES", 5)
    stalled = _Stalled()
    pipe = log_pipe.configure("json", "info", stream=stalled)
    try:
        for _ in range(50):
            logging.getLogger("any").info("hello")
        assert pipe.dropped >= 50 - 5 - 2
    finally:
        stalled.go.set()
        pipe.close()


class _Mute:
    def __str__(self) -> str:
        raise ValueError("no word")


class _Stalled(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(10)
        return super().write(text)

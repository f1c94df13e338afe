"""Logs: JSON for machines, text for people; one line per event, with session, turn, trace and span.

Lines are written by a thread, so a reader of our output that stalls does not stall turns. No content gets in: records
have none, tracebacks are printed without the texts of foreign exceptions, and libraries that log what they send are
kept above the level at which they do.
"""

import logging
import logging.handlers
import queue
import sys
import threading
import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

from warmline_server.core.errors import Reason, WarmlineError
from warmline_server.core.records import (
    AttemptRecord,
    AttemptStatus,
    CallOutcome,
    CallRecord,
    ConnectRecord,
    SessionRecord,
    SpanIds,
)
from warmline_server.session.observer import Observer

_log = logging.getLogger(__name__)

# At DEBUG, and httpx at INFO, these log URLs, headers or frames.
QUIET = ("websockets", "httpx", "httpcore", "hpack", "grpc")
# Lines that wait for the writing thread; beyond that the newest are dropped and counted.
MAX_WAITING_LINES = 10_000
# How long the writing thread lets lines gather.
PAUSE_S = 0.05
# A reader that stalls may not keep the process from ending.
CLOSE_S = 1.0

Fields = dict[str, object]


class LogPipe:
    """The root logger's way out. `close` writes what waits and gives the root logger back."""

    def __init__(self, formatter: logging.Formatter, level: int, stream: TextIO) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(MAX_WAITING_LINES)
        self._closing = threading.Event()
        self._handler = _Enqueue(self._lines)
        self._writer = logging.StreamHandler(stream)
        self._writer.setFormatter(formatter)
        self._thread = threading.Thread(target=self._write, name="log writer", daemon=True)
        self._root = logging.getLogger()
        self._former_level = self._root.level
        self._root.addHandler(self._handler)
        self._root.setLevel(level)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost because the reader of our output stalled."""
        return self._handler.dropped

    def close(self) -> None:
        """Writes what waits, for at most CLOSE_S."""
        self._closing.set()
        self._root.removeHandler(self._handler)
        self._root.setLevel(self._former_level)
        try:
            self._lines.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_S)

    def _write(self) -> None:
        """Waits for a line, then a moment for those that follow: to be woken by each would cost more than it says."""
        record = self._lines.get()
        while record is not None:
            self._closing.wait(PAUSE_S)
            while record is not None:
                self._writer.handle(record)
                try:
                    record = self._lines.get_nowait()
                except queue.Empty:
                    record = self._lines.get()
                    break


class _Enqueue(logging.handlers.QueueHandler):
    def __init__(self, lines: "queue.Queue[logging.LogRecord | None]") -> None:
        super().__init__(lines)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The default formats here, on the event loop, and with the exception's text.
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


def configure(log_format: str, level: str, *, stream: TextIO | None = None) -> LogPipe:
    """Sends all logs of the process through one pipe.

    Args: `log_format` "json", "text", or "auto": text where a person watches; `level` a name of the standard library's;
    `stream` None: standard error.
    """
    out = stream if stream is not None else sys.stderr
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    text = log_format == "text" or (log_format == "auto" and out.isatty())
    formatter = _formatter(text=text, colors=out.isatty())
    return LogPipe(formatter, logging.getLevelNamesMapping()[level.upper()], out)


def _formatter(*, text: bool, colors: bool) -> logging.Formatter:
    chain: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_reprs,
        _safe_traceback,
    ]
    renderer: structlog.typing.Processor
    if text:
        renderer = structlog.dev.ConsoleRenderer(colors=colors)
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=chain, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )


def _json(event: object, **_: object) -> str:
    # With a blank after each colon, as people search for it.
    return msgspec.json.format(msgspec.json.encode(event, enc_hook=str), indent=0).decode()


def _without_reprs(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """asyncio appends the repr of a failed task, and with it the text of whatever it raised."""
    event.pop("message", None)  # the same text again, left on the record by another handler
    if event.get("logger") == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _safe_traceback(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else None
    if error is not None:
        event["exception"] = format_exception(error)
    return event


def format_exception(error: BaseException) -> str:
    """A traceback with the classes of all exceptions, and the texts of our own alone: others may quote content."""
    parts = []
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = f": {cause}" if isinstance(cause, WarmlineError) else ""
        name = f"{type(cause).__module__}.{type(cause).__qualname__}"
        parts.append("".join(traceback.format_tb(cause.__traceback__)) + name + text)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\ncaused by:\n".join(parts)


class LogObserver(Observer):
    """A line per event of a session's life. Steps are DEBUG, ends INFO, what was served in spite of trouble WARNING."""

    def session_opened(self, session: SessionRecord) -> None:
        _log.info("session opened", extra=_of_session(session))

    def session_closed(self, session: SessionRecord, reason: str) -> None:
        _log.info("session closed", extra=_of_session(session) | {"reason": reason})

    def slot_changed(self, session: SessionRecord, former: str, state: str) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("slot changed", extra=_of_session(session) | {"former": former, "state": state})

    def call_started(self, call: CallRecord) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("call started", extra=_of_call(call))

    def call_ended(self, call: CallRecord) -> None:
        error = call.error
        level = logging.INFO
        if call.outcome is CallOutcome.RUNNING or (error is not None and error.reason is Reason.INTERNAL):
            level = logging.ERROR
        elif call.outcome is CallOutcome.FAILED:
            level = logging.WARNING
        fields = _of_call(call) | _of_error(error) | _took(call.started_at_s, call.ended_at_s)
        fields |= {"outcome": call.outcome.name.lower(), "attempts": len(call.attempts), "events": call.events_sent}
        _log.log(level, "call ended", extra=fields | _ids(call.response_id, call.upstream_request_id))

    def call_refused(self, reason: str) -> None:
        _log.info("call refused", extra={"reason": str(reason)})

    def connect_started(self, connect: ConnectRecord) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("connect started", extra=_of_connect(connect))

    def connect_ended(self, connect: ConnectRecord) -> None:
        level = logging.DEBUG if connect.error is None else logging.WARNING
        fields = _of_connect(connect) | _took(connect.started_at_s, connect.ended_at_s) | _of_error(connect.error)
        if connect.status is not None:
            fields["http_status"] = connect.status
        if connect.upstream_handshake_request_id is not None:
            fields["upstream_handshake_request_id"] = connect.upstream_handshake_request_id
        _log.log(level, "connect ended", extra=fields)

    def socket_closed(self, connect: ConnectRecord, cause: str, code: int | None) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("socket closed", extra=_of_connect(connect) | {"cause": cause, "close_code": code})

    def attempt_started(self, attempt: AttemptRecord) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("attempt started", extra=_of_attempt(attempt))

    def attempt_ended(self, attempt: AttemptRecord) -> None:
        level = logging.WARNING if attempt.status is AttemptStatus.FAILED else logging.DEBUG
        if not _log.isEnabledFor(level):
            return
        fields = _of_attempt(attempt) | _of_error(attempt.error) | _took(attempt.started_at_s, attempt.ended_at_s)
        fields |= {"status": attempt.status.name.lower(), "http_status": attempt.http_status}
        _log.log(level, "attempt ended", extra=fields | _ids(attempt.response_id, attempt.upstream_request_id))

    def attempt_evidence(self, attempt: AttemptRecord) -> None:
        fields = _of_attempt(attempt) | _ids(attempt.response_id, attempt.upstream_request_id)
        _log.info("late evidence", extra=fields)

    def retry_scheduled(self, attempt: AttemptRecord, delay_s: float) -> None:
        _log.warning("retry scheduled", extra=_of_attempt(attempt) | _of_error(attempt.error) | {"delay_s": delay_s})

    def fell_back(self, session: SessionRecord, call: CallRecord | None, reason: str, *, latched: bool) -> None:
        fields = _of_call(call) if call is not None else _of_session(session)
        _log.warning("fell back to HTTP", extra=fields | {"reason": reason, "latched": latched})

    def unlatched(self, session: SessionRecord) -> None:
        _log.info("back to the WebSocket", extra=_of_session(session))

    def circuit_changed(self, upstream: str, state: str) -> None:
        level = logging.WARNING if state == "OPEN" else logging.INFO
        _log.log(level, "circuit changed", extra={"upstream": upstream, "state": state})


def _of_session(session: SessionRecord) -> Fields:
    fields: Fields = {"session_id": session.session_id, "upstream": session.upstream}
    return fields | {"tenant": session.tenant} if session.tenant else fields


def _of_call(call: CallRecord) -> Fields:
    fields = _of_session(call.session) | _of_span(call.span)
    return fields | {"turn_id": call.turn_id, "request_id": call.request_id, "lane": call.lane}


def _of_connect(connect: ConnectRecord) -> Fields:
    call = connect.call
    fields = _of_session(connect.session) if call is None else _of_call(call)
    return fields | _of_span(connect.span) | {"connection_id": connect.connection_id}


def _of_attempt(attempt: AttemptRecord) -> Fields:
    fields = _of_session(attempt.session) if attempt.call is None else _of_call(attempt.call)
    fields |= _of_span(attempt.span)
    fields |= {"attempt_id": attempt.attempt_id, "attempt": attempt.number, "kind": attempt.kind.name.lower()}
    return fields | {
        "transport": attempt.transport.name.lower(),
        "slot_outcome": attempt.slot_outcome.name.lower(),
    }


def _of_span(span: SpanIds | None) -> Fields:
    return {} if span is None else {"trace_id": span.trace_id, "span_id": span.span_id}


def _of_error(error: WarmlineError | None) -> Fields:
    """The reason alone: an error's text is its caller's."""
    return {} if error is None else {"reason": error.reason.value}


def _ids(response_id: str, upstream_request_id: str | None) -> Fields:
    return {"response_id": response_id or None, "upstream_request_id": upstream_request_id}


def _took(started_at_s: float, ended_at_s: float | None) -> Fields:
    return {} if ended_at_s is None else {"duration_s": round(ended_at_s - started_at_s, 6)}

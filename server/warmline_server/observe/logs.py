"""What a session's steps say in the log. Records have no content, so no line has any."""

import logging

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

Fields = dict[str, object]


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
        fields |= {"outcome": call.outcome.name.lower(), "attempts": call.attempts, "events": call.events_sent}
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

    def retry_scheduled(
        self, call: CallRecord, attempt: AttemptRecord | None, failure: WarmlineError, delay_s: float
    ) -> None:
        fields = _of_attempt(attempt) if attempt is not None else _of_call(call)
        _log.warning("retry scheduled", extra=fields | _of_error(failure) | {"delay_s": delay_s})

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

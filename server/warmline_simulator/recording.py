"""Writes down what a simulator served, as a script that serves it again.

A directory gets `script.yaml`, one file per answer under `answers/`, and `requests.jsonl` with everything received.
Authorization headers are not written. Binary frames, pings and the time between events are not kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from warmline_simulator.records import HandshakeRecord, Headers, Json, RequestRecord
from warmline_simulator.state import State

_SECRET = ("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key")
_OF_THE_HANDSHAKE = (
    "date", "upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions", "server", "content-length",
    "content-type", "transfer-encoding",
)  # fmt: skip
"""Response headers that each run makes anew."""


class Recorded(str):
    """A file name that stands as `!recorded` in the script."""


class Recorder:
    """Collects a run and writes it on `close`. The simulator must keep frames."""

    def __init__(self, state: State, folder: Path) -> None:
        """Begin to record. OSError when the folder cannot be made."""
        self._folder = folder
        self._handshakes: list[HandshakeRecord] = []
        self._requests: list[RequestRecord] = []
        self._unary_requests: list[RequestRecord] = []
        self._received: list[Json] = []
        (folder / "answers").mkdir(parents=True, exist_ok=True)
        state.observers.append(self._observe)

    def _observe(self, what: str, record: HandshakeRecord | RequestRecord) -> None:
        if isinstance(record, HandshakeRecord):
            if what == "handshake":
                self._handshakes.append(record)
                self._received.append(
                    {"handshake": record.index, "path": record.path, "headers": _headers(record.headers)}
                )
        elif what == "unary":
            self._unary_requests.append(record)
        elif what == "request":
            self._requests.append(record)
            self._received.append(
                {
                    "request": record.index, "transport": record.transport, "connection": record.connection,
                    "path": record.path, "headers": _headers(record.headers), "body": record.body,
                }
            )  # fmt: skip

    def close(self) -> None:
        """Write everything. OSError when that fails."""
        script = {
            "connections": [self._connection(record) for record in self._handshakes],
            "posts": [self._reply(record) for record in self._requests if record.transport == "http"],
            "compact": [self._unary(record) for record in self._requests_to("/compact")],
            "memories": [self._unary(record) for record in self._requests_to("/trace_summarize")],
            "rest": "refuse",
        }
        text = yaml.dump(script, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        (self._folder / "script.yaml").write_text(text, encoding="utf-8")
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in self._received)
        (self._folder / "requests.jsonl").write_bytes(lines)

    def _requests_to(self, ending: str) -> list[RequestRecord]:
        return [record for record in self._unary_requests if record.path.partition("?")[0].endswith(ending)]

    def _unary(self, record: RequestRecord) -> Json:
        body = msgspec.json.decode(record.frames[-1]) if record.frames else None
        return {"status": record.status or 200, "body": body}

    def _connection(self, record: HandshakeRecord) -> Json:
        if record.status is None:
            return {"swallow": True}
        headers = {name: value for name, value in record.response_headers.pairs() if name not in _OF_THE_HANDSHAKE}
        made: Json = {"headers": headers}
        if record.status != 101:
            return {**made, "status": record.status}
        frames = (each for each in self._requests if each.transport == "ws" and each.connection == record.index)
        return {**made, "replies": [self._reply(each) for each in frames]}

    def _reply(self, record: RequestRecord) -> Json:
        made: Json = {}
        if record.request_id is not None:
            made["headers"] = {"x-request-id": record.request_id}
        if record.outcome == "refused" or (record.outcome == "error" and record.status not in (None, 200)):
            body = msgspec.json.decode(record.frames[-1]) if record.frames else None
            problem = {"error": body["error"]} if isinstance(body, dict) and "error" in body else None
            return {**made, "status": record.status or 400, "body": problem}
        name = f"answers/{record.index:05d}.jsonl"
        (self._folder / name).write_bytes(b"".join(_line(frame) for frame in record.frames))
        made["events"] = [Recorded(name)]
        if record.response_id is not None:
            made["response_id"] = record.response_id
        end = {"cut": "drop", "aborted": "hang", "running": "hang"}.get(record.outcome)
        return made if end is None else {**made, "then": Step(end)}


class Step(str):
    """The name of a step, written as a tag."""


class _Dumper(yaml.SafeDumper):
    """YAML with the tags of a script."""


_Dumper.add_representer(Recorded, lambda dumper, value: dumper.represent_scalar("!recorded", str(value)))
_Dumper.add_representer(Step, lambda dumper, value: dumper.represent_scalar(f"!{value}", ""))


def _headers(headers: Headers) -> list[list[str]]:
    return [[name, value] for name, value in headers.pairs() if name not in _SECRET]


def _line(frame: bytes) -> bytes:
    """A frame as one line: an event as it is, anything else as a JSON string."""
    try:
        is_event = isinstance(msgspec.json.decode(frame), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        is_event = False
    is_event = is_event and b"\n" not in frame
    return (frame if is_event else msgspec.json.encode(frame.decode(errors="replace"))) + b"\n"


def describe(record: HandshakeRecord | RequestRecord, what: str) -> str | None:
    """One line for a person who watches; None for what is not worth one."""
    if isinstance(record, HandshakeRecord):
        return f"{record.connection_id} upgrade {record.status}" if what == "handshake_answered" else None
    if what != "request_ended":
        return None
    return f"{record.connection_id} {record.transport} {_detail(record)}"


def _detail(record: RequestRecord) -> str:
    parts: list[Any] = [record.response_id or record.path, record.outcome]
    if record.is_warm_up:
        parts.append("warm-up")
    if record.previous_response_id is not None:
        parts.append(f"after {record.previous_response_id}")
    if record.error_code is not None:
        parts.append(record.error_code)
    if record.ended_at_s is not None:
        parts.append(f"{record.events_sent} events in {record.ended_at_s - record.received_at_s:.3f} s")
    return " ".join(str(part) for part in parts)

"""The outlet of an answer over HTTP: an SSE stream, one JSON object, or an error body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from warmline_simulator.answer import TERMINALS
from warmline_simulator.ev.errors import DEFAULT_CODES, http_error
from warmline_simulator.http_side import HttpSide
from warmline_simulator.records import RequestRecord
from warmline_simulator.refusal import Refusal
from warmline_simulator.script import Frame, HeaderValues, Reply

GATHERED_BYTES = 64 * 1024
"""More than this is handed to the network before an answer goes on; about one socket buffer."""


def merged(defaults: Mapping[str, str], chosen: HeaderValues) -> list[tuple[str, str]]:
    """The default headers, replaced, extended, or (None) taken away by the chosen ones."""
    result: dict[str, str | None] = {name.lower(): value for name, value in defaults.items()}
    result.update({name.lower(): value for name, value in chosen.items()})
    return [(name, value) for name, value in result.items() if value is not None]


def body_bytes(body: str | bytes | Mapping[str, object] | None, status: int) -> bytes:
    """A scripted body as bytes; an error object that fits the status when there is none."""
    if body is None:
        return msgspec.json.encode(http_error(status, DEFAULT_CODES.get(status))) if status >= 400 else b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)


class HttpOutlet:
    """Implements `answer.Outlet` for one HTTP response."""

    def __init__(self, side: HttpSide, record: RequestRecord, headers: Mapping[str, str]) -> None:
        self._side = side
        self._record = record
        self._headers = headers
        self._is_stream = record.body.get("stream") is True
        self._has_begun = False
        self._extra: HeaderValues = {}
        self._final: bytes | None = None
        self._final_status = 200
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0

    def _head(self, status: int, content_type: str, extra: HeaderValues) -> list[tuple[str, str]]:
        headers = merged({**self._headers, "content-type": content_type}, extra)
        self._record.status = status
        self._record.request_id = dict(headers).get("x-request-id")
        self._has_begun = True
        return headers

    def begin(self, reply: Reply | None) -> None:
        self._extra = reply.headers if reply is not None else {}
        if self._is_stream:
            content_type = reply.content_type if reply is not None and reply.content_type else "text/event-stream"
            self._side.head(200, self._head(200, content_type, self._extra))

    def event(self, kind: str, payload: bytes) -> None:
        if self._is_stream:
            self._put(b"event: %b\ndata: %b\n\n" % (kind.encode(), payload))
        elif kind in TERMINALS and self._final is None:
            decoded = msgspec.json.decode(payload)
            if kind == "error":
                problem = decoded.get("error", decoded)
                self._final_status = decoded.get("status") or 500
                self._final = msgspec.json.encode({"error": problem})
            else:
                self._final = msgspec.json.encode(decoded.get("response"))

    def _put(self, data: bytes) -> None:
        self._gathered.append(data)
        self._gathered_bytes += len(data)

    def events(self, kind: str, payloads: Sequence[bytes]) -> None:
        if self._is_stream:
            head = b"event: " + kind.encode() + b"\ndata: "
            self._put(b"".join([b"%b%b\n\n" % (head, payload) for payload in payloads]))

    def text(self, text: str) -> None:
        self._put(b"data: " + text.encode() + b"\n\n")

    def raw(self, data: bytes) -> None:
        self._put(data)

    def ping(self, payload: bytes) -> None:
        self._put(b": " + (payload or b"ping") + b"\n\n")

    def frame(self, frame: Frame) -> None:
        raise TypeError("play a Frame: the answer goes over HTTP — expected a WebSocket")

    def refuse(self, refusal: Refusal) -> None:
        headers = self._head(refusal.status, "application/json", dict(refusal.headers))
        self._side.respond(refusal.status, headers, msgspec.json.encode(refusal.body()))

    def error_reply(self, reply: Reply) -> None:
        is_json = reply.body is None or isinstance(reply.body, Mapping)
        content_type = reply.content_type or ("application/json" if is_json else "text/plain")
        self._side.respond(
            reply.status, self._head(reply.status, content_type, reply.headers), body_bytes(reply.body, reply.status)
        )

    def end(self) -> None:
        self.flush()
        if not self._has_begun:
            body = self._final if self._final is not None else b""
            self._side.respond(
                self._final_status, self._head(self._final_status, "application/json", self._extra), body
            )
        elif self._is_stream:
            self._side.end()

    def flush(self) -> None:
        if self._gathered:
            self._side.data(b"".join(self._gathered))
            self._gathered.clear()
            self._gathered_bytes = 0
        self._side.wire.flush()

    def needs_drain(self) -> bool:
        return self._gathered_bytes > GATHERED_BYTES

    async def drain(self) -> None:
        await self._side.wire.drain()

    def drop(self) -> None:
        self._side.wire.drop()

    def close(self, code: int | None, reason: str) -> None:
        self._side.wire.close()

    def stall(self) -> None:
        self._side.wire.stall()

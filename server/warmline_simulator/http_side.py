"""The HTTP/1.1 side of a connection: reads requests one after the other, hands them to `routes`, or upgrades."""

from __future__ import annotations

import http
from collections.abc import Callable

import h11
import msgspec

from warmline_simulator import decoding
from warmline_simulator.records import Headers
from warmline_simulator.refusal import Refusal
from warmline_simulator.state import State
from warmline_simulator.wire import Wire

_encode = msgspec.json.encode
_PHRASES = {int(status): status.phrase.encode() for status in http.HTTPStatus}
_FRAMING = ("content-length", "transfer-encoding", "connection")


def _line(name: str, value: str) -> bytes:
    """One header line. ValueError for what would end the line early."""
    line = f"{name}: {value}"
    if "\r" in line or "\n" in line:
        raise ValueError(f"send header {name!r}: the value has a line break")
    return line.encode("latin-1", "replace") + b"\r\n"


class HttpRequest:
    """One request head and, later, its decoded body."""

    __slots__ = ("body", "headers", "http_version", "method", "path", "received_at_s", "refusal")

    def __init__(self, event: h11.Request, now_s: float) -> None:
        self.method = event.method.decode("ascii")
        self.path = event.target.decode("latin-1")
        self.headers = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
        self.http_version = event.http_version.decode("ascii")
        self.received_at_s = now_s
        self.body = b""
        self.refusal: Refusal | None = None
        """Why the body could not be taken; None when it could."""

    @property
    def is_upgrade(self) -> bool:
        """It asks for a WebSocket."""
        return self.method == "GET" and "websocket" in self.headers.get("upgrade", "").lower()


class HttpSide:
    """HTTP on one connection. One request is answered at a time; what comes meanwhile waits in the parser."""

    def __init__(
        self,
        wire: Wire,
        state: State,
        serve: Callable[[HttpSide, HttpRequest], None],
        upgrade: Callable[[HttpSide, HttpRequest], None],
    ) -> None:
        self.wire = wire
        self.state = state
        self._serve = serve
        self._upgrade = upgrade
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=state.settings.max_head_bytes)
        self._request: HttpRequest | None = None
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._is_broken = False
        self._is_upgrading = False

    def feed(self, data: bytes) -> None:
        if self._is_broken:
            return
        self._connection.receive_data(data)
        if not self._is_upgrading:
            self._read_events()

    def ended(self) -> None:
        if self._is_upgrading:
            self.wire.close()
        elif not self._is_broken:
            self._connection.receive_data(b"")
            self._read_events()

    def lost(self) -> None:
        """Whatever was being answered is given up by the wire."""

    def _read_events(self) -> None:
        try:
            while not self._is_broken:
                event = self._connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    self._continue_if_waited_for()
                    return
                if not self._take(event):
                    return
        except h11.RemoteProtocolError as fault:
            self._reject(fault)

    def _continue_if_waited_for(self) -> None:
        if self._connection.they_are_waiting_for_100_continue:
            interim = self._connection.send(h11.InformationalResponse(status_code=100, headers=[]))
            self.wire.put(interim or b"")
            self.wire.flush()

    def _take(self, event: object) -> bool:
        """Take one parser event; False when reading must stop here."""
        if isinstance(event, h11.Request):
            self._request = HttpRequest(event, self.state.clock.now_s())
            self._chunks, self._body_bytes = [], 0
        elif isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
            if self._body_bytes <= self.state.settings.max_body_bytes:
                self._chunks.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and self._request is not None:
            if self._request.is_upgrade:
                self._is_upgrading = True
                self._upgrade(self, self._request)
                return False
            self._read_body(self._request)
            self._serve(self, self._request)
        elif isinstance(event, h11.ConnectionClosed):
            self.wire.close()
            return False
        return True

    def _read_body(self, request: HttpRequest) -> None:
        limit = self.state.settings.max_body_bytes
        if self._body_bytes > limit:
            request.refusal = Refusal(413, "request_too_large", f"The request body exceeds {limit} bytes.")
            return
        encoding = request.headers.get("content-encoding", "identity")
        decoded = decoding.decode(b"".join(self._chunks), encoding, limit)
        if isinstance(decoded, Refusal):
            request.refusal = decoded
        else:
            request.body = decoded

    def _reject(self, fault: h11.RemoteProtocolError) -> None:
        """Answer what is not HTTP, then end the connection: nothing after it can be understood."""
        self._is_broken = True
        if self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = fault.error_status_hint
            refusal = Refusal(status, None, f"The request could not be read as HTTP/1.1: {fault}.")
            headers = [("content-type", "application/json"), ("connection", "close")]
            self.respond(status, headers, _encode(refusal.body()))
        self.wire.close()

    def _send(self, *events: h11.Event) -> None:
        for event in events:
            self.wire.put(self._connection.send(event) or b"")

    def head(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Gather a response head.

        The parser is shown only what frames the body and writes that part; it would take longer to look at the other
        headers than all else does.
        """
        framing = [pair for pair in headers if pair[0] in _FRAMING]
        start = self._connection.send(
            h11.Response(status_code=status, headers=framing, reason=_PHRASES.get(status, b""))
        )
        others = b"".join([_line(name, value) for name, value in headers if name not in _FRAMING])
        self.wire.put((start or b"\r\n")[:-2] + others + b"\r\n")

    def switch(self, headers: list[tuple[str, str]]) -> bytes:
        """Gather the 101 and give the connection away; returns what arrived after the upgrade."""
        encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
        answer = h11.InformationalResponse(status_code=101, headers=encoded, reason=b"Switching Protocols")
        trailing = self._connection.trailing_data[0]
        self._send(answer)
        self._is_broken = True
        return trailing

    def data(self, data: bytes) -> None:
        """Gather a piece of the body."""
        if data:
            self._send(h11.Data(data=data))

    def end(self) -> None:
        """End the response and go on to the next request of the connection, if there may be one."""
        if self._connection.our_state is h11.SEND_BODY:
            try:
                self._send(h11.EndOfMessage())
            except h11.LocalProtocolError:
                # The script promised another content-length: the connection cannot be used any further.
                self._is_broken = True
                self.wire.close()
                return
        self.wire.flush()
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
            self._read_events()
        elif self._connection.our_state in (h11.MUST_CLOSE, h11.CLOSED):
            self.wire.close()

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Gather a whole response; a content-length among the headers is taken as it is, right or wrong."""
        if not any(name == "content-length" for name, _ in headers):
            headers = [*headers, ("content-length", str(len(body)))]
        self._is_upgrading = False
        self.head(status, headers)
        if self._request is None or self._request.method != "HEAD":
            self.data(body)
        self.end()

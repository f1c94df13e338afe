"""Answers WebSocket upgrades: records them, asks the script, refuses or switches the connection over."""

from __future__ import annotations

import asyncio

import msgspec
from websockets.datastructures import Headers as WsHeaders
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol

from warmline_simulator import rules
from warmline_simulator.answer import Answer
from warmline_simulator.http_side import HttpRequest, HttpSide
from warmline_simulator.play import hold, play
from warmline_simulator.records import HandshakeRecord, Headers, RequestRecord
from warmline_simulator.refusal import Refusal
from warmline_simulator.script import Connection
from warmline_simulator.sse import body_bytes, merged
from warmline_simulator.stage import Mounts
from warmline_simulator.state import State
from warmline_simulator.websocket import LaneOutlet, WebSocketSide

Scripted = tuple[Connection, Mounts] | None


def take_upgrade(state: State, side: HttpSide, request: HttpRequest) -> None:
    """Record an upgrade and begin to answer it."""
    record = HandshakeRecord(
        index=state.counters.handshakes,
        connection_id=side.wire.id,
        path=request.path,
        headers=request.headers,
        received_at_s=request.received_at_s,
    )
    state.counters.handshakes += 1
    state.handshakes.append(record)
    state.keep(state.handshakes)
    scripted = state.stage.next_connection()
    side.wire.spawn(_answer(state, side, request, record, scripted), given_up=lambda: _note_lost(state, record))
    state.tell("handshake", record)


def _note_lost(state: State, record: HandshakeRecord) -> None:
    record.closed_at_s = state.clock.now_s()
    state.tell("handshake_ended", record)


async def _answer(
    state: State, side: HttpSide, request: HttpRequest, record: HandshakeRecord, scripted: Scripted
) -> None:
    connection = scripted[0] if scripted is not None else Connection()
    if connection.swallow:
        await asyncio.Event().wait()
    await hold(state, connection.gate, connection.accept_delay_s)
    if scripted is not None and connection.status != 101:
        _refuse(state, side, request, record, connection)
        return
    refusal = _find_refusal(state, request, record, is_scripted=scripted is not None)
    if refusal is not None:
        reply = Connection(status=refusal.status, headers=refusal.headers, body=refusal.body())
        _refuse(state, side, request, record, reply)
        return
    _switch(state, side, request, record, scripted)


def _find_refusal(state: State, request: HttpRequest, record: HandshakeRecord, *, is_scripted: bool) -> Refusal | None:
    if not request.path.partition("?")[0].endswith("/responses"):
        return Refusal(404, None, f"Unknown request URL: GET {request.path}.")
    refusal = rules.check_authorization(request.headers.get("authorization"), state)
    refusal = refusal or rules.check_client_request_id(request.headers.get("x-client-request-id"))
    if refusal is not None or is_scripted:
        return refusal
    if state.refuse_upgrades is not None:
        status = state.refuse_upgrades
        return Refusal(status, None, f"This upstream refuses WebSocket upgrades with status {status}.")
    if state.stage.refuses:
        state.unscripted.append(f"upgrade {record.index}: GET {request.path}")
        return Refusal(500, "simulator_unscripted", "The script does not expect this upgrade.")
    return None


def _refuse(
    state: State, side: HttpSide, request: HttpRequest, record: HandshakeRecord, connection: Connection
) -> None:
    headers = merged(
        {**state.service_headers(request.headers), "content-type": "application/json", "connection": "close"},
        connection.headers,
    )
    _note_answered(state, record, connection.status, headers)
    side.respond(connection.status, headers, body_bytes(connection.body, connection.status))
    side.wire.close()


def _note_answered(state: State, record: HandshakeRecord, status: int, headers: list[tuple[str, str]]) -> None:
    record.status, record.response_headers = status, Headers(headers)
    record.answered_at_s = state.clock.now_s()
    state.counters.handshakes_answered += 1
    state.tell("handshake_answered", record)


def _switch(state: State, side: HttpSide, request: HttpRequest, record: HandshakeRecord, scripted: Scripted) -> None:
    connection = scripted[0] if scripted is not None else Connection()
    compresses = state.settings.compression and connection.compression
    negotiator = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()] if compresses else [])
    wanted = Request(request.path, WsHeaders(request.headers.pairs()), request.method, f"HTTP/{request.http_version}")
    response = negotiator.accept(wanted)
    if response.status_code != 101:
        body = msgspec.json.encode(
            Refusal(response.status_code, None, bytes(response.body or b"").decode().strip()).body()
        )
        _refuse(state, side, request, record, Connection(status=response.status_code, body=body))
        return
    headers = merged(
        {**dict(response.headers.raw_items()), **state.service_headers(request.headers)}, connection.headers
    )
    extensions: list[Extension] = negotiator.extensions
    record.compressed = bool(extensions)
    trailing = side.switch(headers)
    websocket = WebSocketSide(side.wire, state, record, scripted, extensions)
    side.wire.side = websocket
    state.counters.upgrades_accepted += 1
    state.counters.websockets_open += 1
    _note_answered(state, record, 101, headers)
    side.wire.flush()
    side.wire.reset_after_bytes = connection.reset_after_bytes
    side.wire.read_bytes_per_s = connection.read_bytes_per_s
    if connection.then:
        side.wire.spawn(_play_unasked(state, websocket, connection))
    if trailing:
        websocket.feed(trailing)


async def _play_unasked(state: State, side: WebSocketSide, connection: Connection) -> None:
    """Play a connection's own steps, which answer no request."""
    record = RequestRecord(
        index=-1,
        transport="ws",
        connection=side.record.index,
        connection_id=side.record.connection_id,
        method="GET",
        path=side.record.path,
        headers=side.record.headers,
        received_at_s=state.clock.now_s(),
        body={},
        raw=b"",
    )
    answer = Answer(state, record, LaneOutlet(side, None))
    answer.scripted = True
    record.ended_at_s = record.received_at_s  # no request is under way, so its end must not count as one's
    await play(answer, connection.then, between_s=0)
    answer.outlet.flush()

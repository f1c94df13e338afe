"""The HTTP endpoints: POST responses, the stored responses, compact, memories and models."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

from warmline_simulator import decoding, ev, model, respond, rules
from warmline_simulator.answer import Answer
from warmline_simulator.http_side import HttpRequest, HttpSide
from warmline_simulator.memory import Remembered
from warmline_simulator.play import hold
from warmline_simulator.read import input_items
from warmline_simulator.records import Json, RequestRecord
from warmline_simulator.refusal import Refusal
from warmline_simulator.script import Reply
from warmline_simulator.sse import HttpOutlet, body_bytes
from warmline_simulator.stage import Mounts
from warmline_simulator.state import State

Unary = Callable[["State", RequestRecord], "Json | Refusal | Reply"]


def serve(state: State, side: HttpSide, request: HttpRequest) -> None:
    """Begin to answer one HTTP request."""
    path = request.path.partition("?")[0].rstrip("/")
    is_create = request.method == "POST" and path.endswith("/responses")
    record = _record(state, side, request, is_create=is_create)
    refusal = _find_refusal(state, request) or request.refusal or _read_json(record)
    answer = Answer(state, record, HttpOutlet(side, record, _headers(state, request)))
    answer.start()
    work = _create(answer, refusal) if is_create else _unary(answer, path, refusal)
    side.wire.spawn(work, given_up=lambda: _note_lost(state, answer))
    state.tell("request" if is_create else "unary", record)


def _note_lost(state: State, answer: Answer) -> None:
    answer.record.disconnected_at_s = state.clock.now_s()
    answer.abort()


def _record(state: State, side: HttpSide, request: HttpRequest, *, is_create: bool) -> RequestRecord:
    kept = state.requests if is_create else state.unary_requests
    record = RequestRecord(
        index=state.requests_seen if is_create else state.unary_seen,
        transport="http",
        connection=-1,
        connection_id=side.wire.id,
        method=request.method,
        path=request.path,
        headers=request.headers,
        received_at_s=request.received_at_s,
        body={},
        raw=request.body,
    )
    if is_create:
        state.requests_seen += 1
        state.counters.posts += 1
    else:
        state.unary_seen += 1
        state.counters.unary += 1
    kept.append(record)
    state.keep(kept)
    return record


def _headers(state: State, request: HttpRequest) -> dict[str, str]:
    return {"date": _http_date(), **state.service_headers(request.headers)}


def _http_date() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def _find_refusal(state: State, request: HttpRequest) -> Refusal | None:
    refusal = rules.check_authorization(request.headers.get("authorization"), state)
    return refusal or rules.check_client_request_id(request.headers.get("x-client-request-id"))


def _read_json(record: RequestRecord) -> Refusal | None:
    """Decode the body into the record; a refusal when it is no JSON object."""
    if record.method != "POST":
        return None
    body = decoding.read_object(record.raw)
    if isinstance(body, Refusal):
        return body
    record.body = body
    return None


async def _create(answer: Answer, refusal: Refusal | None) -> None:
    state, record = answer.state, answer.record
    if refusal is not None:
        answer.refuse(refusal)
        _finish(answer)
        return
    reply = state.stage.posts.take(record)
    parent = respond.find_parent(state, record, None)
    respond.note_visible(state, record, parent)
    answer.on_terminal = lambda each: respond.remember(each, parent, None)
    await respond.respond(answer, reply, parent)


def _finish(answer: Answer) -> None:
    answer.outlet.flush()
    answer.finish()


async def _unary(answer: Answer, path: str, refusal: Refusal | None) -> None:
    state, record = answer.state, answer.record
    mounts, make = _find_endpoint(state, record.method, path)
    reply = mounts.take(record) if mounts is not None else None
    if reply is not None:
        record.scripted = True
        if not reply.by_model:
            await respond.respond(answer, reply, respond.Parent())
            return
        await hold(state, reply.gate, reply.delay_s)
    if refusal is not None:
        answer.refuse(refusal)
    elif mounts is not None and reply is None and state.stage.refuses and mounts is not state.stage.model_replies:
        respond.refuse_unscripted(answer)
    else:
        try:
            _tell(answer, make(state, record))
        except RecursionError:
            answer.refuse(Refusal(400, None, "The JSON body of your request is nested too deeply."))
    _finish(answer)


def _tell(answer: Answer, result: Json | Refusal | Reply) -> None:
    if isinstance(result, Refusal):
        answer.refuse(result)
    else:
        reply = result if isinstance(result, Reply) else Reply(body=result)
        answer.record.status, answer.record.outcome = reply.status, "completed"
        answer.keep_frame(body_bytes(reply.body, reply.status))
        answer.outlet.error_reply(reply)


def _find_endpoint(state: State, method: str, path: str) -> tuple[Mounts | None, Unary]:
    """The endpoint of a path under any prefix."""
    stage = state.stage
    if method == "POST" and path.endswith("/responses/compact"):
        return stage.compact, _compact
    if method == "POST" and path.endswith("/memories/trace_summarize"):
        return stage.memories, _summarize
    if method == "GET" and path.endswith("/models"):
        return stage.model_replies, _list_models
    if "/responses/" in path:
        return None, _stored(method, *path.rpartition("/responses/")[2].split("/"))
    return None, _unknown


def _unknown(state: State, record: RequestRecord) -> Refusal:
    return Refusal(
        404, None, f"Unknown request URL: {record.method} {record.path[:200]}.", kind="invalid_request_error"
    )


def _list_models(state: State, record: RequestRecord) -> Reply:
    etag = f'W/"{hashlib.sha256(" ".join(state.models).encode()).hexdigest()[:16]}"'
    if record.headers.get("if-none-match") == etag:
        return Reply(status=304, headers={"etag": etag, "content-type": None}, body=b"")
    data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "simulator"} for name in state.models]
    return Reply(
        headers={"etag": etag},
        body={"object": "list", "data": data, "models": [{"slug": name} for name in state.models]},
    )


def _compact(state: State, record: RequestRecord) -> Json | Refusal:
    """User messages as they are, then one compaction item."""
    if record.body.get("model") is None:
        return rules.missing_model()
    parent = respond.find_parent(state, record, None)
    if parent.is_missing:
        return rules.parent_not_found(str(record.previous_response_id))
    before = parent.response.visible() if parent.response is not None else []
    items = [*(before or []), *input_items(record)]
    key = state.ids.new("cmp")
    users = [item for item in items if item.get("role") == "user"]
    return {
        "id": state.ids.new("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*users, ev.compaction(f"gAAAA{key}", id=key)],
        "usage": ev.usage(max(1, len(record.raw) // 4), 16),
    }


def _summarize(state: State, record: RequestRecord) -> Json | Refusal:
    """One summary per trace."""
    traces = record.body.get("traces")
    if not isinstance(traces, list):
        return Refusal(400, "missing_required_parameter", "Missing required parameter: 'traces'.", "traces")
    return {"output": [_summary(trace) for trace in traces]}


def _summary(trace: Any) -> Json:
    items = trace.get("items") if isinstance(trace, dict) else None
    user_text, _ = model.last_exchange(
        [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    )
    count = len(items) if isinstance(items, list) else 0
    return {
        "trace_summary": f"A trace of {count} items; the user last said: {user_text or 'nothing'}",
        "memory_summary": f"The user cares about: {user_text or 'nothing'}",
    }


def _stored(method: str, response_id: str, *rest: str) -> Unary:
    """GET, DELETE, cancel and the input items of a stored response."""

    def answer(state: State, record: RequestRecord) -> Json | Refusal:
        found = state.store.get(response_id)
        if found is None or found.response is None:
            text = f"Response with id '{response_id[:80]}' not found."
            return Refusal(404, None, text, "response_id", kind="invalid_request_error")
        if method == "DELETE" and not rest:
            state.store.forget(response_id)
            return {"id": response_id, "object": "response", "deleted": True}
        if method == "GET" and not rest:
            return found.response
        if method == "GET" and rest == ("input_items",):
            return _item_list(found)
        if method == "POST" and rest == ("cancel",):
            return Refusal(400, None, "Only responses created with background=true can be cancelled.")
        return _unknown(state, record)

    return answer


def _item_list(found: Remembered) -> Json:
    data = [{"id": f"item_{number}", **item} for number, item in enumerate(found.input_items)][::-1]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": False}

"""Bundles made by hand, event by event, for the tests of the reducer."""

import json
from pathlib import Path
from typing import Any

from warmline_server.observe.bundle.reduce import replay
from warmline_server.observe.bundle.state import ConversationItem, InferenceCall, State

THREAD = "thread-1"
Json = dict[str, Any]


class Log:
    """Writes a bundle; each method appends one event, whose line number is `line` afterwards."""

    def __init__(self, path: Path, *, started: bool = True) -> None:
        self.path = path
        self.line = 0
        self._payloads = 0
        (path / "payloads").mkdir(parents=True)
        manifest = {
            "schema_version": 1,
            "trace_id": "trace-1",
            "rollout_id": "rollout-1",
            "root_thread_id": THREAD,
            "started_at_unix_ms": 1000,
            "raw_event_log": "trace.jsonl",
            "payloads_dir": "payloads",
        }
        (path / "manifest.json").write_text(json.dumps(manifest))
        (path / "trace.jsonl").touch()
        if started:
            self.event("rollout_started", trace_id="trace-1", root_thread_id=THREAD)
            self.event("thread_started", thread_id=THREAD)
            self.turn("turn-1")

    def event(self, kind: str, **fields: object) -> None:
        self.line += 1
        envelope = {
            "schema_version": 1,
            "seq": self.line,
            "wall_time_unix_ms": 1000 + self.line,
            "rollout_id": "rollout-1",
            "payload": {"type": kind, **fields},
        }
        self.raw(json.dumps(envelope) + "\n")

    def raw(self, text: str) -> None:
        with (self.path / "trace.jsonl").open("a") as log:
            log.write(text)

    def payload(self, kind: str, content: object) -> Json:
        self._payloads += 1
        name = f"payloads/{self._payloads}.json"
        (self.path / name).write_text(json.dumps(content))
        return {"raw_payload_id": f"raw_payload:{self._payloads}", "kind": {"type": kind}, "path": name}

    def turn(self, turn_id: str, thread_id: str = THREAD) -> None:
        self.event("codex_turn_started", codex_turn_id=turn_id, thread_id=thread_id)

    def end_turn(self, turn_id: str = "turn-1", status: str = "completed") -> None:
        self.event("codex_turn_ended", codex_turn_id=turn_id, status=status)

    def start(
        self,
        call_id: str,
        items: list[Json] | None = None,
        *,
        previous: str | None = None,
        turn_id: str = "turn-1",
        thread_id: str = THREAD,
        mode: Json | None = None,
        body: Json | None = None,
    ) -> None:
        request: Json = {"model": "m-1", "input": items or []} if body is None else body
        if previous is not None:
            request["previous_response_id"] = previous
        more = {} if mode is None else {"request_input_mode": mode}
        self.event(
            "inference_started",
            inference_call_id=call_id,
            thread_id=thread_id,
            codex_turn_id=turn_id,
            model="m-1",
            provider_name="openai",
            request_payload=self.payload("inference_request", request),
            **more,
        )

    def complete(
        self,
        call_id: str,
        items: list[Json] | None = None,
        *,
        response_id: str | None = None,
        upstream_request_id: str | None = None,
        usage: Json | None = None,
    ) -> None:
        payload = self._response(items or [], response_id, upstream_request_id, usage)
        self.event(
            "inference_completed",
            inference_call_id=call_id,
            response_id=response_id,
            upstream_request_id=upstream_request_id,
            response_payload=payload,
        )

    def fail(self, call_id: str, items: list[Json] | None = None, **fields: object) -> None:
        self.event(
            "inference_failed", inference_call_id=call_id, error="UPSTREAM_FAILED", **self._partial(items), **fields
        )

    def cancel(self, call_id: str, items: list[Json] | None = None, **fields: object) -> None:
        self.event("inference_cancelled", inference_call_id=call_id, reason="caller", **self._partial(items), **fields)

    def _partial(self, items: list[Json] | None) -> Json:
        return {} if not items else {"partial_response_payload": self._response(items, None, None, None)}

    def _response(self, items: list[Json], response_id: str | None, request_id: str | None, usage: Json | None) -> Json:
        content = {
            "response_id": response_id,
            "upstream_request_id": request_id,
            "token_usage": usage,
            "output_items": items,
        }
        return self.payload("inference_response", content)

    def replay(self) -> State:
        return replay(self.path)


def user(text: str) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def assistant(text: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": f"msg-{text}", "status": "completed", "role": "assistant", "content": content}


def tool_call(call_id: str, arguments: str = '{"a":1}', name: str = "search") -> Json:
    return {"type": "function_call", "id": f"fc-{call_id}", "name": name, "arguments": arguments, "call_id": call_id}


def tool_output(call_id: str, output: str = "found") -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def reasoning(encrypted: str = "", *, text: str = "", summary: str = "") -> Json:
    item: Json = {"type": "reasoning", "summary": [{"type": "summary_text", "text": summary}] if summary else []}
    if text:
        item["content"] = [{"type": "reasoning_text", "text": text}]
    if encrypted:
        item["encrypted_content"] = encrypted
    return item


def call_of(state: State, call_id: str) -> InferenceCall:
    return state.inference_calls[call_id]


def texts(state: State, ids: list[str]) -> list[str]:
    """The text of each item's body, parts joined."""
    return ["|".join(part.text for part in state.conversation_items[item_id].body) for item_id in ids]


def item_of(state: State, item_id: str) -> ConversationItem:
    return state.conversation_items[item_id]

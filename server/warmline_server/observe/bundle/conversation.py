"""The reducer's part that rebuilds what the model saw: items with an identity over all requests of a thread.

Source: reference/wire-behaviour.md §8.6.
"""

import msgspec

from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle import items
from warmline_server.observe.bundle.errors import Damage, ReplayError
from warmline_server.observe.bundle.items import Seen
from warmline_server.observe.bundle.read import UNREADABLE, BundleReader
from warmline_server.observe.bundle.state import (
    Compaction,
    ConversationItem,
    InferenceCall,
    Part,
    Producer,
    State,
    Thread,
    ToolCall,
)

COMPACTION_MARKER = "compaction_marker"


class Conversation:
    """Adds requests and responses to a state's items."""

    def __init__(self, state: State, reader: BundleReader) -> None:
        self._state = state
        self._reader = reader
        self._by_call_id: dict[tuple[str, str, str], str] = {}

    def add_request(self, call: InferenceCall, event: fmt.InferenceStarted, unix_ms: int) -> None:
        """Finds or makes the item of each part of a request's visible input.

        Raises: ReplayError.
        """
        request = self._decode(event.request_payload)
        seen = _items(request, "input")
        mode = event.request_input_mode or _derived_mode(request)
        self._check_mode(mode, request)
        thread = self._state.threads[call.thread_id]
        match mode:
            case fmt.FullSnapshot():
                ids = self._snapshot(thread, call, seen, unix_ms)
            case fmt.Incremental(previous_response_id=parent_id):
                parent = self._parent(call, parent_id)
                prefix = parent.request_item_ids + parent.response_item_ids
                ids = prefix + [self._new_or_known(call, item, unix_ms) for item in seen]
            case fmt.IncrementalWithPrefix(prefix_payload=ref):
                before = _items(self._decode(ref), "input")
                ids = self._snapshot(thread, call, before + seen, unix_ms)
        call.request_item_ids = ids
        thread.conversation_item_ids = list(ids)

    def add_response(self, call: InferenceCall, ref: fmt.PayloadRef, unix_ms: int) -> fmt.TokenUsage | None:
        """Appends a response's items after its request's. Returns: the usage, None unless it was told whole.

        Raises: ReplayError.
        """
        payload = self._decode(ref)
        thread = self._state.threads[call.thread_id]
        place = len(call.request_item_ids)
        producer = Producer("inference", call.inference_call_id)
        for offset, seen in enumerate(_items(payload, "output_items")):
            item_id = self._append(thread, call, place + offset, seen, unix_ms)
            item = self._state.conversation_items[item_id]
            if producer not in item.produced_by:
                item.produced_by.append(producer)
            if item_id not in call.response_item_ids:
                call.response_item_ids.append(item_id)
            self._note_started_tool(call, item)
        return _usage(payload.get("token_usage"))

    def compact(self, event: fmt.CompactionInstalled, unix_ms: int) -> None:
        """Puts a marker and the replacement in the history's place; the next full request is compared with these."""
        thread = self._state.threads[event.thread_id]
        where = (event.thread_id, event.codex_turn_id)
        marker = self._make(where, Seen(COMPACTION_MARKER, "", "", ()), unix_ms)
        replacement = []
        producer = Producer("compaction", event.compaction_id)
        for seen in _items(self._decode(event.checkpoint_payload), "replacement_history"):
            item = self._make(where, seen, unix_ms)
            item.produced_by.append(producer)
            replacement.append(item.item_id)
        thread.conversation_item_ids = replacement
        self._state.compactions[event.compaction_id] = Compaction(
            event.compaction_id, *where, unix_ms, marker.item_id, replacement
        )

    def _snapshot(self, thread: Thread, call: InferenceCall, seen: list[Seen], unix_ms: int) -> list[str]:
        """The same place first, then any equal item that is left, then a new one (C-120, C-122, C-124)."""
        former = thread.conversation_item_ids
        taken: list[str | None] = [
            former[i] if i < len(former) and self._is(former[i], item) else None for i, item in enumerate(seen)
        ]
        left = [item_id for i, item_id in enumerate(former) if i >= len(taken) or taken[i] is None]
        ids = []
        for item, known in zip(seen, taken, strict=True):
            found = known or next((item_id for item_id in left if self._is(item_id, item)), None)
            if found is not None and known is None:
                left.remove(found)
            ids.append(self._see(found, item) if found is not None else self._new_or_known(call, item, unix_ms))
        return ids

    def _append(self, thread: Thread, call: InferenceCall, place: int, seen: Seen, unix_ms: int) -> str:
        ids = thread.conversation_item_ids
        if place < len(ids):
            if not self._is(ids[place], seen):
                raise ReplayError(
                    Damage.APPEND_MISMATCH,
                    f"item {place} of thread {thread.thread_id} is taken by {ids[place]}, "
                    f"which differs from the answer of inference {call.inference_call_id}",
                )
            return self._see(ids[place], seen)
        item_id = self._new_or_known(call, seen, unix_ms)
        ids.append(item_id)
        return item_id

    def _is(self, item_id: str, seen: Seen) -> bool:
        item = self._state.conversation_items[item_id]
        return seen.equals(item.kind, item.role, item.call_id, item.body)

    def _see(self, item_id: str, seen: Seen) -> str:
        """An item was seen again; reasoning may show more of itself."""
        item = self._state.conversation_items[item_id]
        if seen.encrypted:
            item.body = items.merge(item.body, seen.body)
        return item_id

    def _new_or_known(self, call: InferenceCall, seen: Seen, unix_ms: int) -> str:
        """A new item, but for calls and outputs: the model knows those by their call id, which may have one content."""
        known = self._by_call_id.get((call.thread_id, seen.kind, seen.call_id)) if seen.call_id else None
        if known is None:
            return self._make((call.thread_id, call.codex_turn_id), seen, unix_ms).item_id
        if not self._is(known, seen):
            raise ReplayError(Damage.CALL_ID_CONFLICT, f"{seen.kind} of call_id {seen.call_id!r} differs from {known}")
        return known

    def _make(self, where: tuple[str, str], seen: Seen, unix_ms: int) -> ConversationItem:
        known = self._state.conversation_items
        item = ConversationItem(
            f"item:{len(known) + 1}", *where, unix_ms, seen.kind, seen.role, seen.call_id, list[Part](seen.body)
        )
        known[item.item_id] = item
        if seen.call_id:
            self._by_call_id[item.thread_id, item.kind, item.call_id] = item.item_id
            self._link_tool(item)
        return item

    def _link_tool(self, item: ConversationItem) -> None:
        tool = self._tool(item)
        if item.kind in items.OUTPUTS:
            tool.output_item_ids.append(item.item_id)
        elif item.kind in items.CALLS:
            tool.call_item_id = item.item_id

    def _note_started_tool(self, call: InferenceCall, item: ConversationItem) -> None:
        if item.call_id and item.kind in items.CALLS:
            tool = self._tool(item)
            tool.started_by_inference_call_id = tool.started_by_inference_call_id or call.inference_call_id
            if tool.tool_call_id not in call.tool_call_ids_started_by_response:
                call.tool_call_ids_started_by_response.append(tool.tool_call_id)

    def _tool(self, item: ConversationItem) -> ToolCall:
        tool_id = f"{item.thread_id}:{item.call_id}"
        fresh = ToolCall(tool_id, item.thread_id, item.call_id)
        return self._state.tool_calls.setdefault(tool_id, fresh)

    def _parent(self, call: InferenceCall, response_id: str) -> InferenceCall:
        """By response id and never by request id (C-123), within the thread."""
        for other in reversed(self._state.inference_calls.values()):
            if other is not call and (other.thread_id, other.response_id) == (call.thread_id, response_id):
                return other
        raise ReplayError(
            Damage.UNKNOWN_PARENT, f"previous_response_id {response_id!r} is no response of thread {call.thread_id}"
        )

    def _check_mode(self, mode: fmt.InputMode, request: dict[str, object]) -> None:
        if isinstance(mode, fmt.FullSnapshot):
            return
        sent = request.get("previous_response_id")
        if mode.previous_response_id != sent:
            raise ReplayError(
                Damage.MODE_MISMATCH,
                f"request_input_mode names {mode.previous_response_id!r}, the request names {sent!r}",
            )

    def _decode(self, ref: fmt.PayloadRef) -> dict[str, object]:
        try:
            found: object = msgspec.json.decode(self._reader.payload(ref))
        except UNREADABLE as error:
            raise ReplayError(Damage.BAD_PAYLOAD, f"{ref.path}: {error}") from error
        if not isinstance(found, dict):
            raise ReplayError(Damage.BAD_PAYLOAD, f"{ref.path} is no JSON object")
        return found


def _derived_mode(request: dict[str, object]) -> fmt.InputMode:
    previous = request.get("previous_response_id")
    return fmt.Incremental(previous) if isinstance(previous, str) and previous else fmt.FullSnapshot()


def _items(payload: dict[str, object], field: str) -> list[Seen]:
    found = payload.get(field)
    if not isinstance(found, list):
        raise ReplayError(Damage.BAD_PAYLOAD, f"{field} is missing, or no array")
    return [items.normalize(raw) for raw in found]


def _usage(raw: object) -> fmt.TokenUsage | None:
    try:
        return msgspec.convert(raw, fmt.TokenUsage)
    except msgspec.ValidationError:
        return None

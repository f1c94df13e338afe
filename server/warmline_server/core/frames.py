"""Upstream events, as JSON, into the values of `events.py`: the same for WebSocket frames and SSE data.

Source: wire-behaviour.md §5.2, responses-api.md E5.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec

from warmline_server.core import events as ev
from warmline_server.core import failures, rate_limits, received_headers
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.lenient import NOT_JSON, LenientDecoder, mend
from warmline_server.core.nesting import MAX_DEPTH, is_too_deep
from warmline_server.core.received_headers import LONGEST_ID

# Indexes are 32 bits wide in the contract, token counts 63.
_Index = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Names are kept for long and go into spans and metrics; what is longer than any known one is none.
_Name = Annotated[str, msgspec.Meta(max_length=LONGEST_ID)]

_ABSENT = msgspec.Raw()


class _Frame(msgspec.Struct, gc=False):
    """The fields that are routed on; all others are skipped unread."""

    type: str = ""
    delta: str | None = None
    item_id: str | None = None
    call_id: str | None = None
    output_index: _Index | None = None
    content_index: _Index | None = None
    summary_index: _Index | None = None
    item: msgspec.Raw = _ABSENT
    response: msgspec.Raw = _ABSENT
    headers: msgspec.Raw = _ABSENT


class _Item(msgspec.Struct, gc=False):
    type: str = ""


class _Response(msgspec.Struct, gc=False):
    id: _Name = ""
    model: _Name = ""
    headers: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: _Count = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens: _Count = 0
    output_tokens_details: _OutputDetails | None = None
    total_tokens: _Count = 0


class _CompletedResponse(msgspec.Struct, gc=False):
    id: _Name
    usage: _Usage | None = None
    end_turn: bool | None = None


class _IncompleteDetails(msgspec.Struct, gc=False):
    reason: _Name = ""


class _IncompleteResponse(msgspec.Struct, gc=False):
    id: _Name = ""
    usage: _Usage | None = None
    incomplete_details: _IncompleteDetails | None = None


_FRAME = LenientDecoder(_Frame)
_ITEM = LenientDecoder(_Item)
_RESPONSE = LenientDecoder(_Response)
_COMPLETED_RESPONSE = msgspec.json.Decoder(_CompletedResponse)
_INCOMPLETE_RESPONSE = LenientDecoder(_IncompleteResponse)

_RAW = ev.Raw()


class FrameReader:
    """Reads the events of one attempt.

    `response_id` and `response_model` are the last that any event told, blank before; `server_model` the last model
    announced as serving the request; `skipped` counts the events that were not understood.
    """

    def __init__(self, server_model: str = "", *, now_unix_s: Callable[[], float] | None = None) -> None:
        """Args: `server_model` is what the reply's head already announced; `now_unix_s` tells the wall time that a date
        in an error frame's Retry-After is measured from, None to ignore dates.
        """
        self._now_unix_s = now_unix_s
        self.response_id = ""
        self.response_model = ""
        self.server_model = server_model
        self.skipped = 0

    def read(
        self, payload: bytes, attempt: int, out: list[ev.Emission], *, with_payload: bool
    ) -> UpstreamFailure | None:
        """Reads one event and appends what it means to `out`, oldest first.

        At most one of the appended emissions carries the event's type and payload: what an event tells besides, in its
        headers, looks as if made from a header. What cannot be understood appends nothing and is counted.

        Args: `payload` the event's JSON; `with_payload` puts it into the emission (always for `Raw`).
        Returns: the failure, when the event is one; what `out` got is then to be shown before it.
        """
        # Raw members are not looked into, so the encoding is checked here for all that is passed on verbatim.
        frame = _FRAME.decode(payload) if payload.isascii() or _is_utf8(payload) else None
        if frame is None:
            return self._read_mended(payload, attempt, out, with_payload=with_payload)
        if not frame.type:
            self.skipped += 1
            return None
        if frame.response is not _ABSENT or frame.headers is not _ABSENT:
            self._read_heads(frame, attempt, out)
        make = _EVENTS.get(frame.type)
        if make is None:
            return self._read_rare(frame, payload, attempt, out, with_payload)
        if (with_payload or frame.item is not _ABSENT) and is_too_deep(payload if with_payload else bytes(frame.item)):
            return _too_deep()
        event = make(frame)
        if event is None:
            self.skipped += 1
            return None
        out.append(ev.Emission(event, attempt, frame.type, payload if with_payload else None))
        return None

    def _read_mended(
        self, payload: bytes, attempt: int, out: list[ev.Emission], *, with_payload: bool
    ) -> UpstreamFailure | None:
        """Reads an event with half a surrogate pair in it: texts are mended, items and payload stay as they came."""
        mended, halves = mend(payload)
        if not halves:
            self.skipped += 1
            return None
        first = len(out)
        failure = self.read(mended, attempt, out, with_payload=with_payload)
        out[first:] = [_unmended(emission, payload, mended) for emission in out[first:]]
        return failure

    def _read_rare(
        self, frame: _Frame, payload: bytes, attempt: int, out: list[ev.Emission], with_payload: bool
    ) -> UpstreamFailure | None:
        event: ev.ModelEvent = _RAW
        match frame.type:
            case "response.completed":
                completed = _completed(frame)
                if completed is None:
                    return failures.broke_protocol("response.completed event without a response that can be read")
                event = completed
            case "response.failed":
                return failures.from_failed_response(_error_of(frame))
            case "error":
                failure = failures.from_error_frame(payload, self._now_unix_s() if self._now_unix_s else None)
                out.extend(ev.Emission(limits, attempt) for limits in failures.limits_before(failure))
                return failure
            case "codex.rate_limits":
                event = rate_limits.from_event(payload) or _RAW
        if (with_payload or event is _RAW) and is_too_deep(payload):
            return _too_deep()
        out.append(ev.Emission(event, attempt, frame.type, payload if with_payload or event is _RAW else None))
        return None

    def _read_heads(self, frame: _Frame, attempt: int, out: list[ev.Emission]) -> None:
        """Takes ids, the serving model and routing tokens from the parts that any event may carry."""
        model = ""
        if frame.response is not _ABSENT:
            response = _RESPONSE.decode(frame.response) or _Response()
            self.response_id = response.id or self.response_id
            self.response_model = response.model or self.response_model
            model = _server_model(response.headers)
        if frame.headers is not _ABSENT:
            headers = received_headers.fold_json(frame.headers)
            model = model or received_headers.server_model(headers)
            if frame.type in _METADATA:
                out.extend(ev.Emission(event, attempt) for event in _metadata(headers))
        if model and model != self.server_model:
            self.server_model = model
            out.append(ev.Emission(ev.ServerModel(model), attempt))


# Both spellings are in use. Source: §5.2.
_METADATA = frozenset({"response.metadata", "codex.response.metadata"})


def _too_deep() -> UpstreamFailure:
    """What is passed on verbatim shall be readable for whoever gets it."""
    return failures.broke_protocol(f"event nested deeper than {MAX_DEPTH} levels")


def _unmended(emission: ev.Emission, payload: bytes, mended: bytes) -> ev.Emission:
    """The emission with the event's own bytes where it holds bytes of it."""
    event = emission.event
    if isinstance(event, ev.ItemAdded | ev.ItemDone):
        start = mended.index(event.item)
        event = msgspec.structs.replace(event, item=payload[start : start + len(event.item)])
    return msgspec.structs.replace(
        emission, event=event, payload=payload if emission.payload is not None else emission.payload
    )


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _server_model(headers: msgspec.Raw) -> str:
    return "" if headers is _ABSENT else received_headers.server_model(received_headers.fold_json(headers))


def _metadata(headers: Mapping[str, str]) -> list[ev.ModelEvent]:
    told: list[ev.ModelEvent] = []
    if token := received_headers.turn_state(headers):
        told.append(ev.TurnStateSeen(token))
    if etag := received_headers.etag(headers):
        told.append(ev.ModelsEtag(etag))
    return told


def _error_of(frame: _Frame) -> msgspec.Raw | None:
    response = _RESPONSE.decode(frame.response) if frame.response is not _ABSENT else None
    return response.error if response is not None and response.error is not _ABSENT else None


def _usage(told: _Usage | None) -> ev.Usage | None:
    if told is None:
        return None
    cached = told.input_tokens_details.cached_tokens if told.input_tokens_details else None
    reasoning = told.output_tokens_details.reasoning_tokens if told.output_tokens_details else None
    return ev.Usage(told.input_tokens, cached or 0, told.output_tokens, reasoning or 0, told.total_tokens)


def _completed(frame: _Frame) -> ev.Completed | None:
    try:
        response = _COMPLETED_RESPONSE.decode(frame.response)
    except NOT_JSON:
        return None
    return ev.Completed(response.id, _usage(response.usage), response.end_turn)


def _incomplete(frame: _Frame) -> ev.Incomplete:
    response = _INCOMPLETE_RESPONSE.decode(frame.response) or _IncompleteResponse()
    reason = response.incomplete_details.reason if response.incomplete_details else ""
    return ev.Incomplete(reason or "unknown", response.id, _usage(response.usage))


def _created(frame: _Frame) -> ev.Created | None:
    response = _RESPONSE.decode(frame.response)
    return None if response is None else ev.Created(response.id)


def _item_added(frame: _Frame) -> ev.ItemAdded | None:
    if _ITEM.decode(frame.item) is None:
        return None
    return ev.ItemAdded(bytes(frame.item), frame.output_index)


def _item_done(frame: _Frame) -> ev.ItemDone | None:
    item = _ITEM.decode(frame.item)
    return None if item is None else ev.ItemDone(bytes(frame.item), item.type, frame.output_index)


def _text_delta(frame: _Frame) -> ev.TextDelta | None:
    if frame.delta is None:
        return None
    return ev.TextDelta(frame.delta, frame.item_id or "", frame.content_index or 0)


def _reasoning_delta(frame: _Frame) -> ev.ReasoningDelta | None:
    if frame.delta is None or frame.content_index is None:
        return None
    return ev.ReasoningDelta(frame.delta, frame.item_id or "", frame.content_index)


def _reasoning_summary_delta(frame: _Frame) -> ev.ReasoningSummaryDelta | None:
    if frame.delta is None or frame.summary_index is None:
        return None
    return ev.ReasoningSummaryDelta(frame.delta, frame.item_id or "", frame.summary_index)


def _reasoning_summary_part_added(frame: _Frame) -> ev.ReasoningSummaryPartAdded | None:
    if frame.summary_index is None:
        return None
    return ev.ReasoningSummaryPartAdded(frame.item_id or "", frame.summary_index)


def _tool_input_delta(frame: _Frame) -> ev.ToolInputDelta | None:
    if frame.delta is None or not (frame.item_id or frame.call_id):
        return None
    return ev.ToolInputDelta(frame.delta, frame.item_id or "", frame.call_id or "")


# What a type means; None when a field that it needs is missing. Every type not here or in `_read_rare` is Raw.
_EVENTS: dict[str, Callable[[_Frame], ev.ModelEvent | None]] = {
    "response.created": _created,
    "response.output_item.added": _item_added,
    "response.output_item.done": _item_done,
    "response.output_text.delta": _text_delta,
    "response.reasoning_text.delta": _reasoning_delta,
    "response.reasoning_summary_text.delta": _reasoning_summary_delta,
    "response.reasoning_summary_part.added": _reasoning_summary_part_added,
    "response.custom_tool_call_input.delta": _tool_input_delta,
    "response.function_call_arguments.delta": _tool_input_delta,
    "response.incomplete": _incomplete,
}

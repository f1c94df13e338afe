"""What is compared after a cell: the caller's view, the upstream's, the trace, and what is left behind."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from chaos.phases import CALL, FIRST, SECOND, WHOLE_TEXT, Phase
from chaos.rules import Attempt, Backoff, Expected
from chaos.stage import MODEL, Listener, Stage
from e2e.books import settled
from e2e.line import seconds
from observe.spans import attribute
from warmline.v1 import trace_service_pb2, types_pb2
from warmline_server.observe import names
from warmline_simulator.records import HandshakeRecord, RequestRecord

if TYPE_CHECKING:
    from chaos.cell import Cell

CHAT = f"chat {MODEL}"
STREAM_TURN = "warmline.v1.TurnService/StreamTurn"
SERVICE_EVENTS = ("attempt_started", "retrying", "fell_back", "restarted")
MODEL_SAYS = "You said: second question"
# Nothing is wrong with a service that does what its caller asks for.
WISHED = ("TURN_CANCELLED",)
# What was delivered when the answer breaks off: text, and how many items were done.
PART: Mapping[Phase, tuple[str, int]] = {
    Phase.MID_DELTA: ("one two", 0),
    Phase.AFTER_ITEM: ("one two three four", 1),
    Phase.AT_TERMINAL: (WHOLE_TEXT, 2),
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the turn that met the fault told its caller, and what the upstream saw of it."""

    listener: Listener
    requests: Sequence[RequestRecord]
    handshakes: Sequence[HandshakeRecord]


class Problems(list[str]):
    """What was found to be wrong."""

    def expect(self, what: str, found: object, expected: object) -> None:
        """Notes a problem unless both are equal."""
        if found != expected:
            self.append(f"{what}: found {found!r}, expected {expected!r}")


def mark(item: Mapping[str, Any]) -> str:
    """An item in few words, the same however it was written."""
    if item.get("role") == "user":
        content = item["content"]
        return content if isinstance(content, str) else str(content[0]["text"])
    return f"{item.get('type')} {item.get('id') or ''}".strip()


def of_turn(cell: "Cell", expected: Expected, told: Told) -> list[str]:
    """The ending, the story, what was delivered, and what the upstream was asked."""
    problems, listener = Problems(), told.listener
    _of_ending(problems, expected, listener)
    problems.expect("story", tuple(k for k in listener.kinds if k in SERVICE_EVENTS), expected.story)
    problems.expect("first event", listener.kinds[:1], ["admitted"])
    sequences = [event.sequence for event in listener.events]
    problems.expect("sequences", sequences, list(range(1, len(sequences) + 1)))
    _of_service_events(problems, cell, expected, listener)
    _of_content(problems, cell, expected, listener)
    problems.expect("requests upstream", len(told.requests), expected.requests)
    of_payloads(problems, expected, told)
    return problems


def _of_ending(problems: Problems, expected: Expected, listener: Listener) -> None:
    error = listener.error
    if not expected.code:
        problems.expect("error", str(error) if error else None, None)
        problems.expect("last event", listener.kinds[-1:], [expected.ending])
        return
    if error is None:
        problems.append(f"the call ended well ({listener.kinds[-1:]}), expected {expected.code} {expected.ending}")
        return
    found = (error.code.name if error.code else "", error.reason)
    problems.expect("status", found, (expected.code, expected.ending))
    problems.expect("RetryInfo", error.retry_after_s is not None, expected.retry_info)
    problems.expect("attempts in the status", error.attempts or 0, len(expected.attempts))
    problems.expect("turn_id in the status", error.turn_id, "turn-2")


def _of_service_events(problems: Problems, cell: "Cell", expected: Expected, listener: Listener) -> None:
    delays = [seconds(retrying) for retrying in listener.of("retrying")]
    problems.expect("resends", len(delays), len(expected.waits))
    for number, (delay_s, wanted) in enumerate(zip(delays, expected.waits, strict=False), start=1):
        if not (wanted.fits(delay_s) if isinstance(wanted, Backoff) else abs(delay_s - wanted) < 1e-6):
            problems.append(f"wait {number}: {delay_s:g} s, expected {wanted}")
    fell_back = [(event.latched, event.reason) for event in listener.of("fell_back")]
    problems.expect("fell back", fell_back, [expected.fell_back] if expected.fell_back else [])
    started = listener.of("attempt_started")
    transports = ["http" if event.transport == types_pb2.TRANSPORT_HTTP else "ws" for event in started]
    problems.expect("transports", transports, [attempt.transport for attempt in expected.attempts])
    if started and not expected.fell_back:
        problems.expect("first socket", _outcome(started[0]), _first_socket(cell, expected))


def _outcome(started: Any) -> str:
    return types_pb2.SlotOutcome.Name(started.slot_outcome).removeprefix("SLOT_OUTCOME_")


def _first_socket(cell: "Cell", expected: Expected) -> str:
    """Where the first attempt's socket must come from."""
    if cell.transport == "http":
        return "NONE"
    if cell.phase in (Phase.CONNECT, Phase.HANDSHAKE):
        return "COLD"
    return "ADOPTED" if cell.phase is Phase.IDLE and getattr(cell.effect, "warmed_again", False) else "REUSED"


def _of_content(problems: Problems, cell: "Cell", expected: Expected, listener: Listener) -> None:
    found, tool = listener.turn.snapshot(), cell.tool_call
    text, items = PART.get(cell.phase, ("", 0))
    if tool:
        text = {Phase.AT_TERMINAL: "five six"}.get(cell.phase, "")
    # A piece of an item that was not finished is void once the turn goes on elsewhere.
    kept = "" if cell.phase is Phase.MID_DELTA else text
    match expected.answered_by:
        case "part":
            problems.expect("text", found.text, text)
            problems.expect("items", len(found.items), items)
        case "both":
            problems.expect("text", found.text.startswith(kept + MODEL_SAYS), True)
            problems.expect("items", len(found.items), items + 1)
            (restarted,) = listener.of("restarted")
            problems.expect("kept items", len(restarted.kept_item_sequences), items)
        case "script" if cell.is_scripted:
            problems.expect("text", found.text, "five six" if tool else WHOLE_TEXT)
            problems.expect(
                "items", [_id(item) for item in found.items], [CALL["id"] if tool else FIRST["id"], SECOND["id"]]
            )
        case "script" | "model":
            problems.expect("text", found.text.startswith(MODEL_SAYS), True)
            problems.expect("items", len(found.items), 1)


def _id(item: bytes) -> str:
    return str(json.loads(item)["id"])


def of_payloads(problems: Problems, expected: Expected, told: Told) -> None:
    """Each attempt's events are what the upstream sent for it, in its order and none twice.

    What is left out is what cannot be read, and what belongs to the session; those are no events of the model's.
    """
    reached = iter(told.requests)
    for number, attempt in enumerate(expected.attempts, start=1):
        record = next(reached, None) if attempt.reached else None
        delivered = [e.payload_json for e in told.listener.events if e.attempt == number and e.HasField("payload_json")]
        frames = iter(record.frames if record is not None else ())
        strays = [payload for payload in delivered if payload not in frames]
        if strays:
            problems.append(f"attempt {number}: events that the upstream did not send, or twice: {strays[:2]}")
        if record is not None and attempt.status == "COMPLETED" and len(delivered) < 5:
            problems.append(f"attempt {number}: only {len(delivered)} events were delivered")


def of_trace(
    cell: "Cell",
    expected: Expected,
    told: Told,
    inferences: Sequence[trace_service_pb2.Inference],
    spans: Sequence[ReadableSpan],
) -> list[str]:
    """The spans of the turn, its RPC and its attempts, with their ids and links, and the ring beside them."""
    problems = Problems()
    mine = [span for span in spans if attribute(span, names.TURN_ID) == "turn-2"]
    calls = [span for span in mine if span.name == names.CALL_SPAN]
    rpcs = [span for span in mine if span.name == STREAM_TURN]
    chats = [span for span in mine if span.name == CHAT]
    connects = [span for span in mine if span.name == names.CONNECT_SPAN]
    problems.expect("spans of the turn", (len(rpcs), len(calls)), (1, 1))
    problems.expect("spans of attempts", len(chats), len(expected.attempts))
    problems.expect("inferences", len(inferences), len(expected.attempts))
    if problems:
        return problems
    (call,), (rpc,) = calls, rpcs
    outcome = expected.outcome or ("failed" if expected.code else expected.ending)
    problems.expect("turn span: outcome", attribute(call, names.OUTCOME), outcome)
    problems.expect("turn span: attempts", attribute(call, names.ATTEMPTS), len(expected.attempts))
    _of_status(problems, "turn span", call, expected.ending if expected.code and expected.ending not in WISHED else "")
    problems.expect("RPC span: status", attribute(rpc, names.RPC_STATUS), expected.code or "OK")
    unread = int(cell.phase is Phase.CONNECT and expected.handshakes[:1] == ("400",))
    _of_handshakes(problems, expected, connects, call, told.handshakes, unread=unread)
    pairs = _records(expected, told)
    for number, (attempt, record) in enumerate(pairs, start=1):
        span, inference = chats[number - 1], inferences[-number]
        _of_attempt(problems, f"attempt {number}", attempt, record, span, call)
        _of_links(problems, f"attempt {number}", attempt, span, chats[:number], spans)
        _of_inference(problems, f"inference {number}", attempt, record, inference, span)
    if pairs:
        attempt, record = pairs[-1]
        for name, span in (("turn span", call), ("RPC span", rpc)):
            _of_ids(problems, name, attempt, record, span)
    return problems


def _records(expected: Expected, told: Told) -> list[tuple[Attempt, RequestRecord | None]]:
    reached: Iterator[RequestRecord] = iter(told.requests)
    return [(attempt, next(reached, None) if attempt.reached else None) for attempt in expected.attempts]


def _of_status(problems: Problems, what: str, span: ReadableSpan, reason: str) -> None:
    found = (span.status.status_code, span.status.description)
    problems.expect(f"{what}: status", found, (StatusCode.ERROR, reason) if reason else (StatusCode.UNSET, None))


def _of_attempt(
    problems: Problems,
    what: str,
    attempt: Attempt,
    record: RequestRecord | None,
    span: ReadableSpan,
    call: ReadableSpan,
) -> None:
    number = int(what.rpartition(" ")[2])
    problems.expect(f"{what}: number", attribute(span, names.ATTEMPT_NUMBER), number)
    problems.expect(f"{what}: outcome", attribute(span, names.OUTCOME), attempt.status.lower())
    _of_status(problems, what, span, "" if attempt.reason in WISHED else attempt.reason)
    problems.expect(f"{what}: reason", attribute(span, names.REASON), attempt.reason or None)
    transport = "http" if attempt.transport == "http" else "websocket"
    problems.expect(f"{what}: transport", attribute(span, names.TRANSPORT), transport)
    assert call.context is not None, "a recorded span has a context"
    problems.expect(f"{what}: parent", span.parent.span_id if span.parent else None, call.context.span_id)
    _of_ids(problems, what, attempt, record, span)


def _ids_of(attempt: Attempt, record: RequestRecord | None) -> tuple[str | None, str | None]:
    """The response's and the upstream request's id that must be known of an attempt, by the upstream's own record."""
    response_id = record.response_id if record is not None and attempt.created else None
    over_http = attempt.transport == "http" and attempt.head and record is not None
    request_id = record.request_id if over_http and record is not None else None
    return response_id, attempt.told_id or request_id


def _of_ids(problems: Problems, what: str, attempt: Attempt, record: RequestRecord | None, span: ReadableSpan) -> None:
    found = (attribute(span, names.RESPONSE_ID), attribute(span, names.UPSTREAM_REQUEST_ID))
    problems.expect(f"{what}: ids", found, _ids_of(attempt, record))


def _of_links(
    problems: Problems,
    what: str,
    attempt: Attempt,
    span: ReadableSpan,
    chats: Sequence[ReadableSpan],
    spans: Sequence[ReadableSpan],
) -> None:
    """To the handshake that opened its socket, and to the attempt that it replaces."""
    found = {str((link.attributes or {}).get(names.LINK)): link.context.span_id for link in span.links}
    wanted: dict[str, int] = {}
    if attempt.transport == "ws":
        connection_id = attribute(span, names.CONNECTION_ID)
        opened = [
            other
            for other in spans
            if other.name in (names.CONNECT_SPAN, names.PRECONNECT_SPAN)
            and attribute(other, names.CONNECTION_ID) == connection_id
        ]
        problems.expect(f"{what}: handshakes of its socket", len(opened), 1)
        if opened and opened[0].context is not None:
            wanted[names.LINK_CONNECTION] = opened[0].context.span_id
    if len(chats) > 1 and chats[-2].context is not None:
        wanted[names.LINK_REPLACES] = chats[-2].context.span_id
    problems.expect(f"{what}: links", found, wanted)


def _of_handshakes(
    problems: Problems,
    expected: Expected,
    connects: Sequence[ReadableSpan],
    call: ReadableSpan,
    handshakes: Sequence[HandshakeRecord],
    *,
    unread: int,
) -> None:
    """The handshakes that the turn opened itself; one that it left may still run."""
    found = tuple(_handshake(span) for span in connects)
    problems.expect("handshakes", found, tuple(how for how in expected.handshakes if how != "left"))
    for span in connects:
        assert call.context is not None, "a recorded span has a context"
        problems.expect("handshake: parent", span.parent.span_id if span.parent else None, call.context.span_id)
    ids = [attribute(span, names.UPSTREAM_HANDSHAKE_REQUEST_ID) for span in connects]
    found_ids = {str(told) for told in ids if told is not None}
    answered = {record.response_headers["x-request-id"] for record in handshakes if record.status}
    # What cannot read an upgrade keeps no record of it, and its refusal has no id.
    known = sum(how.isdigit() for how in expected.handshakes) - unread
    if len(found_ids) != known or not found_ids <= answered:
        problems.append(f"handshake ids: found {found_ids}, expected {known} of {answered}")


def _handshake(span: ReadableSpan) -> str:
    status = attribute(span, names.HTTP_STATUS)
    return str(status) if status is not None else "failed" if span.status.status_code is StatusCode.ERROR else "left"


def _of_inference(
    problems: Problems,
    what: str,
    attempt: Attempt,
    record: RequestRecord | None,
    found: trace_service_pb2.Inference,
    span: ReadableSpan,
) -> None:
    status = trace_service_pb2.InferenceStatus.Name(found.status).removeprefix("INFERENCE_STATUS_")
    problems.expect(f"{what}: status", status, attempt.status)
    problems.expect(f"{what}: reason", found.error_reason, attempt.reason)
    request_id = found.upstream_request_id if found.HasField("upstream_request_id") else None
    problems.expect(f"{what}: ids", (found.response_id or None, request_id), _ids_of(attempt, record))
    assert span.context is not None, "a recorded span has a context"
    problems.expect(f"{what}: span", found.span_id, f"{span.context.span_id:016x}")


async def of_stage(stage: Stage, *, is_warm: bool) -> list[str]:
    """Nothing runs any more, here or upstream, and no more sockets are open than a session keeps."""
    problems = Problems()
    registry, counters = stage.app.registry, stage.sim.counters
    await settled(lambda: not registry.running_calls and not counters.responses_running)
    problems.expect("running calls", registry.running_calls, 0)
    problems.expect("answers under way upstream", counters.responses_running, 0)
    most = 2 if is_warm else 1
    await settled(lambda: counters.websockets_open <= most)
    problems.expect("WebSockets beyond those that are kept", max(0, counters.websockets_open - most), 0)
    problems.expect("problems of the upstream", [p for p in stage.sim.problems() if "fault" in p or "broken" in p], [])
    return problems

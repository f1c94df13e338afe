"""What an upstream says: events, refusals, headers. All of it ends in messages for a caller, or in a failure with a
status that fits into trailers."""

import json
import math
from collections.abc import Callable

from fuzz.checks import Take
from warmline.v1 import turn_service_pb2 as pb
from warmline_server.core import delta, failures, outgoing, rate_limits, received_headers
from warmline_server.core.errors import Reason, UpstreamFailure
from warmline_server.core.events import Emission, ItemAdded, ItemDone, RateLimits, Transport, TurnStateSeen
from warmline_server.core.frames import FrameReader
from warmline_server.core.items import is_client_call, of_provider
from warmline_server.core.nesting import MAX_DEPTH
from warmline_server.core.received_headers import LONGEST_ID
from warmline_server.core.response import Response
from warmline_server.rpc import status
from warmline_server.rpc.encode import Encoder
from warmline_server.rpc.translate_events import to_proto

NOW_UNIX_S = 1_700_000_000.0
# What proxies and clients take in trailers.
MAX_DETAILS_BYTES = 8 * 1024
# A failure of the provider's doing has one of these reasons, never one of ours.
UPSTREAM = frozenset(
    {
        *(reason for reason in Reason if reason.startswith("UPSTREAM_")),
        Reason.CONTEXT_TOO_LONG,
        Reason.POLICY_VIOLATION,
        Reason.INVALID_IMAGE,
    }
)


def check_events(data: bytes) -> None:
    """Events, one a line: each is understood, passed on verbatim, skipped, or a failure; nothing deep goes on."""
    take = Take(data)
    raw = take.flag()
    reader, response = FrameReader(now_unix_s=lambda: NOW_UNIX_S), Response(max_bytes=1_000_000)
    caller = _Caller(raw=raw)
    for payload in take.rest().split(b"\n"):
        out: list[Emission] = []
        skipped = reader.skipped
        failure = reader.read(payload, 1, out, with_payload=raw)
        assert failure is not None or out or reader.skipped == skipped + 1, "an event vanished without a trace"
        for emission in out:
            _check_verbatim(emission, payload)
        del out[response.take(out) :]
        caller.take(out)
        if failure is not None:
            check_failure(failure)
            break
    assert len(reader.response_id) <= LONGEST_ID
    assert len(reader.response_model) <= LONGEST_ID
    assert len(reader.server_model) <= LONGEST_ID
    assert len(of_provider(response.items).digests) == len(response.items) * delta.DIGEST_BYTES


def _check_verbatim(emission: Emission, payload: bytes) -> None:
    event = emission.event
    assert emission.payload in (None, payload)
    passed_on = [emission.payload] if emission.payload is not None else []
    if isinstance(event, ItemAdded | ItemDone):
        assert event.item in payload, "an item left otherwise than it came"
        is_client_call(event.item)
        passed_on.append(event.item)
    for text in passed_on:
        assert depth(text) <= MAX_DEPTH, "what is passed on is too deep for whoever gets it"
    if isinstance(event, TurnStateSeen):
        _check_token(event.token)
    if isinstance(event, RateLimits):
        _check_limits(event)


class _Caller:
    """Takes a call's events as a caller does: each message can be made, sent, and read again as what it was made of."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._encoder = Encoder(raw=raw)
        self._sequence = 0

    def take(self, out: list[Emission]) -> None:
        """A batch, without what is the session's."""
        shown = [emission for emission in out if not isinstance(emission.event, TurnStateSeen)]
        message = pb.StreamTurnResponse.FromString(self._encoder.encode(shown, self._sequence))
        numbered = enumerate(shown, start=self._sequence + 1)
        assert list(message.events) == [to_proto(emission, number, raw=self._raw) for number, emission in numbered]
        self._sequence += len(shown)


def depth(text: bytes) -> int:
    """The nesting of JSON, counted the slow way."""
    level = deepest = 0
    inside = escaped = False
    for byte in text:
        if inside:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest


def check_failure(failure: UpstreamFailure) -> None:
    """It has a reason of the upstream's, a sane wait, words that are cut, and a status that leaves."""
    assert failure.reason in UPSTREAM, failure
    assert failure.text.isprintable(), failure.text
    assert len(failure.text) < 1000
    assert failure.delay_s is None or (failure.delay_s >= 0 and math.isfinite(failure.delay_s))
    for output_delivered in (False, True):
        details = status.details_of(failure, output_delivered=output_delivered)
        assert len(details.SerializeToString()) <= MAX_DETAILS_BYTES
    for limits in failures.limits_before(failure):
        _check_limits(limits)


def check_refusals(data: bytes) -> None:
    """A reply of any status, headers and body, and the same body as an error event, are one UpstreamFailure each."""
    take = Take(data)
    code = 100 + (take.byte() * 256 + take.byte()) % 500
    handshake = take.flag()
    head, _, body = take.rest().partition(b"\n\n")
    headers = _headers(head)
    check_failure(failures.from_status(code, headers, body, handshake=handshake, now_unix_s=NOW_UNIX_S))
    check_failure(failures.from_error_frame(body, NOW_UNIX_S))
    check_failure(failures.from_failed_response(body))


def check_headers(data: bytes) -> None:
    """Headers of a reply, and the same as JSON in an event: what they mean can be shown, kept, and sent back."""
    for headers in (_headers(data), received_headers.fold_json(data)):
        for transport in (Transport.WEBSOCKET, Transport.HTTP):
            events = received_headers.head_events(headers, transport)
            assert len(events) <= rate_limits.MAX_FAMILIES + 3
            _Caller(raw=False).take([Emission(event) for event in events])
            for event in events:
                if isinstance(event, RateLimits):
                    _check_limits(event)
        if (token := received_headers.turn_state(headers)) is not None:
            _check_token(token)
        for told in (received_headers.request_id(headers), received_headers.tracking_id(headers)):
            assert told is None or (told.isascii() and told.isprintable() and len(told) <= LONGEST_ID)
        # What is not the right shape for one reader is another's business.
        rate_limits.active_family(headers)


def _headers(head: bytes) -> received_headers.Headers:
    lines = head.decode("latin-1").split("\n")
    return received_headers.fold((name, value) for name, _, value in (line.partition(":") for line in lines))


def _check_token(token: str) -> None:
    """A routing token is sent back just as it came, on both transports."""
    facts = outgoing.Facts("codex", "conversation-1", "request-1", turn_state=token)
    for headers in (outgoing.handshake_headers(facts, {}, {}, {}), outgoing.post_headers(facts, {}, {}, {})):
        assert dict(headers)["x-codex-turn-state"] == token.strip()


def _check_limits(limits: RateLimits) -> None:
    for window in (limits.primary, limits.secondary):
        assert window is None or math.isfinite(window.used_percent)
    # A session keeps the newest of each family.
    assert len(json.dumps([limits.limit_id, limits.limit_name, limits.plan_type])) < 500_000


CHECKS: tuple[Callable[[bytes], None], ...] = (check_events, check_refusals, check_headers)

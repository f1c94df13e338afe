"""A batch of events as the bytes of one StreamTurnResponse.

A message of repeated events is one event after the other, each behind its tag and length. Protobuf builds each, but for
the deltas that come by the thousand: within a stream only their number and text change, so they are put together from
the parts that do not. A test holds them to protobuf's own bytes.
"""

from collections.abc import Sequence

from msgspec.structs import astuple

from warmline.v1 import turn_service_pb2 as pb
from warmline_server.core import events as ev
from warmline_server.core.protobuf_wire import LENGTH, VARINT, tag, varint
from warmline_server.rpc.translate_events import to_proto

_EVENT = tag(pb.StreamTurnResponse.EVENTS_FIELD_NUMBER, LENGTH)
_SEQUENCE = tag(pb.TurnEvent.SEQUENCE_FIELD_NUMBER, VARINT)
# Their messages have the delta first, then what stays the same.
_DELTAS = {
    ev.TextDelta: "text_delta",
    ev.ReasoningDelta: "reasoning_delta",
    ev.ReasoningSummaryDelta: "reasoning_summary_delta",
    ev.ToolInputDelta: "tool_input_delta",
}
_DELTA = tag(pb.TextDelta.DELTA_FIELD_NUMBER, LENGTH)


class Encoder:
    """Encodes the events of one call. Args: `raw`: the provider's events go as `raw`, but for the terminal ones."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._same: tuple[object, ...] = ()
        self._before = self._after = b""

    def encode(self, emissions: Sequence[ev.Emission], sequence: int) -> bytes:
        """One message of all `emissions`, numbered from `sequence` + 1."""
        parts: list[bytes] = []
        for emission in emissions:
            sequence += 1
            if type(emission.event) in _DELTAS and emission.payload is None:
                event = self._delta(emission, sequence)
            else:
                event = to_proto(emission, sequence, raw=self._raw).SerializeToString()
            parts += (_EVENT, varint(len(event)), event)
        return b"".join(parts)

    def _delta(self, emission: ev.Emission, sequence: int) -> bytes:
        delta, item_id, other = astuple(emission.event)
        same = (type(emission.event), emission.attempt, emission.upstream_type, item_id, other)
        if same != self._same:
            self._same = same
            self._prepare(emission)
        text = delta.encode()
        member = b"".join((_DELTA, varint(len(text)), text, self._after)) if text else self._after
        return b"".join((_SEQUENCE, varint(sequence), self._before, varint(len(member)), member))

    def _prepare(self, emission: ev.Emission) -> None:
        member = _DELTAS[type(emission.event)]
        field = pb.TurnEvent.DESCRIPTOR.fields_by_name[member]
        whole = to_proto(emission, 0, raw=False)
        rest = getattr(whole, member)
        rest.delta = ""
        self._after = rest.SerializeToString()
        whole.ClearField("event")
        self._before = whole.SerializeToString() + tag(field.number, LENGTH)

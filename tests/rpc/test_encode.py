"""The bytes of a batch are protobuf's own, whatever is in it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline.v1 import turn_service_pb2 as pb
from warmline_server.core import events as ev
from warmline_server.core.protobuf_wire import varint
from warmline_server.rpc.encode import Encoder
from warmline_server.rpc.translate_events import to_proto

TEXTS = st.text(max_size=300)
INDEXES = st.integers(0, 2**32 - 1)
# Few ids, so that many events share theirs with the one before.
IDS = st.sampled_from(["", "msg_1", "msg_2", "é" * 70])
EVENTS = st.one_of(
    st.builds(ev.TextDelta, TEXTS, IDS, INDEXES),
    st.builds(ev.ReasoningDelta, TEXTS, IDS, INDEXES),
    st.builds(ev.ReasoningSummaryDelta, TEXTS, IDS, INDEXES),
    st.builds(ev.ToolInputDelta, TEXTS, IDS, IDS),
    st.builds(ev.ItemDone, st.binary(max_size=300), st.just("message"), st.none() | INDEXES),
    st.just(ev.Raw()),
)
EMISSIONS = st.builds(
    ev.Emission,
    EVENTS,
    st.integers(0, 3),
    st.sampled_from(["", "response.output_text.delta"]),
    st.none() | st.binary(max_size=50),
)


def by_protobuf(emissions: Sequence[ev.Emission], sequence: int, *, raw: bool) -> bytes:
    events = [to_proto(emission, sequence + at, raw=raw) for at, emission in enumerate(emissions, start=1)]
    return pb.StreamTurnResponse(events=events).SerializeToString()


@given(batches=st.lists(st.lists(EMISSIONS, max_size=6), max_size=4), first=st.integers(0, 2**63), raw=st.booleans())
def test_batch_has_protobufs_own_bytes(batches: list[list[ev.Emission]], first: int, raw: bool) -> None:
    encoder = Encoder(raw=raw)
    for emissions in batches:
        assert encoder.encode(emissions, first) == by_protobuf(emissions, first, raw=raw)
        first += len(emissions)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 2**14 - 1, 2**14, 2**21, 2**64 - 1])
def test_number_is_written_as_protobuf_writes_it(value: int) -> None:
    assert b"\x08" + varint(value) == (pb.TurnEvent(sequence=value).SerializeToString() or b"\x08\x00")

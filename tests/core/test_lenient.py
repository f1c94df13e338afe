"""Fields of a wrong shape count as absent."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core.delta import digest
from warmline_server.core.events import Emission, ItemDone, TextDelta
from warmline_server.core.frames import FrameReader
from warmline_server.core.lenient import MAX_HALVES, LenientDecoder, mend
from warmline_server.core.request import build


class Point(msgspec.Struct):
    x: int = 0
    label: str = msgspec.field(name="Label", default="")


DECODER = LenientDecoder(Point)


@pytest.mark.parametrize(
    ("payload", "point"),
    [
        (b'{"x":1,"Label":"a"}', Point(1, "a")),
        (b'{"x":"1","Label":"a","other":[]}', Point(0, "a")),
        (b'{"x":2,"Label":null}', Point(2, "")),
        (b'{"x":[]}', Point()),
        (b"{}", Point()),
        (b"[]", None),
        (b"{", None),
        (b'{"x":"1","Label":"\xff"}', Point()),
        (b"[" * 100_000, None),
        (b'{"x":"1","other":' + b"[" * 100_000, None),
    ],
)
def test_decode_gives_what_has_the_right_shape(payload: bytes, point: Point | None) -> None:
    assert DECODER.decode(payload) == point


def test_half_a_surrogate_pair_is_mended_at_its_place_and_nothing_else_is() -> None:
    text = rb'{"a":"\ud83d","b":"\ud83d\ude00","c":"\\ud83d","d":"\ude00x\n"}'

    mended, halves = mend(text)

    assert mended == rb'{"a":"\ufffd","b":"\ud83d\ude00","c":"\\ud83d","d":"\ufffdx\n"}'
    assert halves == (b"d83d", b"de00")


def test_event_with_half_a_surrogate_pair_is_delivered_with_its_item_as_it_came() -> None:
    item = rb'{"type":"message","content":[{"type":"output_text","text":"cut \ud83d"}]}'
    out: list[Emission] = []

    FrameReader().read(
        b'{"type":"response.output_item.done","output_index":0,"item":' + item + b"}", 1, out, with_payload=False
    )
    FrameReader().read(rb'{"type":"response.output_text.delta","delta":"cut \ud83d"}', 1, out, with_payload=True)

    assert out[0].event == ItemDone(item, "message", 0)
    assert out[1].event == TextDelta("cut \ufffd")
    assert out[1].payload == rb'{"type":"response.output_text.delta","delta":"cut \ud83d"}'


def test_conversation_with_half_a_surrogate_pair_can_be_continued() -> None:
    item = rb'{"type":"message","role":"user","content":"cut \ud83d"}'
    respelled = rb'{"role":"user","type":"message","content":"cut \uD83D"}'
    other = rb'{"type":"message","role":"user","content":"cut \ud83c"}'

    assert build({"model": b'"m"'}, [item]).input == (item,)
    assert digest(item) == digest(respelled) != digest(other)


def test_text_of_more_halves_than_any_model_leaves_is_not_mended() -> None:
    most, more = rb"\ud83d" * MAX_HALVES, rb"\ud83d" * (MAX_HALVES + 1)

    assert mend(most) == (rb"\ufffd" * MAX_HALVES, (b"d83d",) * MAX_HALVES)
    assert mend(more) == (more, ())


@given(st.lists(st.sampled_from([r"\\", r"\n", r"\"", "u", "d83d", r"\ud83d", r"\udc00", r"\uD83D\uDE00", "a"])))
def test_mended_text_is_the_text_with_its_halves_replaced(parts: list[str]) -> None:
    text = '"' + "".join(parts) + '"'

    mended, halves = mend(text.encode())

    value = json.loads(text)
    expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    assert json.loads(mended) == msgspec.json.decode(mended) == expected
    assert len(halves) == sum("\ud800" <= c <= "\udfff" for c in value)

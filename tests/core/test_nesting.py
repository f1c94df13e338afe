"""How deep JSON is nested."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.checks.events import depth
from warmline_server.core.delta import digest
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.events import Emission
from warmline_server.core.frames import FrameReader
from warmline_server.core.nesting import BUNDLE_DEPTH, MAX_DEPTH, is_too_deep
from warmline_server.core.request import build

VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('[]{}"\\ a\n')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"\\', max_size=3), inner, max_size=3),
    max_leaves=12,
)


def nested(levels: int) -> bytes:
    """An object of so many levels."""
    return b'{"type":"x","a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@given(VALUES, st.integers(0, 6), st.sampled_from([None, 1]))
def test_depth_is_that_of_the_value_whatever_its_texts_hold(value: object, limit: int, indent: int | None) -> None:
    text = json.dumps(value, indent=indent).encode()

    # What is short passes without a look: a real limit is far above what two bytes a level allow.
    assert is_too_deep(text, limit) == (depth(text) > limit and len(text) > 2 * limit)


@pytest.mark.parametrize("limit", [MAX_DEPTH, BUNDLE_DEPTH])
def test_depth_at_the_limit_passes_and_beyond_it_does_not(limit: int) -> None:
    assert not is_too_deep(nested(limit), limit)
    assert is_too_deep(nested(limit + 1), limit)
    assert is_too_deep(b"[" * 1_000_000, limit)


def test_depth_is_counted_on_over_the_pieces_that_it_is_counted_in() -> None:
    wide = b"[" * 100 + b"[]," * 20_000

    assert not is_too_deep(wide, 101)
    assert is_too_deep(wide + b"[" * 29, MAX_DEPTH)


@pytest.mark.conformance("D-20")
@pytest.mark.parametrize("with_payload", [False, True])
def test_event_too_deep_to_be_passed_on_breaks_the_protocol(with_payload: bool) -> None:
    for payload in (
        b'{"type":"response.output_item.done","item":' + nested(MAX_DEPTH + 1) + b"}",
        b'{"type":"response.unheard_of","a":' + nested(MAX_DEPTH) + b"}",
    ):
        out: list[Emission] = []
        failure = FrameReader().read(payload, 1, out, with_payload=with_payload)

        assert failure is not None
        assert (failure.reason, failure.text) == (Reason.UPSTREAM_PROTOCOL, "event nested deeper than 128 levels")
        assert out == []


def test_event_whose_deep_part_nobody_gets_is_read() -> None:
    payload = b'{"type":"response.created","response":{"id":"resp_1","tools":' + nested(MAX_DEPTH) + b"}}"
    reader = FrameReader()
    out: list[Emission] = []

    assert reader.read(payload, 1, out, with_payload=False) is None
    assert len(out) == 1
    assert reader.read(payload, 1, [], with_payload=True) is not None


def test_item_at_the_limit_is_taken_from_a_caller_and_beyond_it_named() -> None:
    settings = {"model": b'"m"'}

    assert build(settings, [nested(MAX_DEPTH)]).history == digest(nested(MAX_DEPTH))
    with pytest.raises(CallerError, match=r"input\[1\]: nested deeper than 128 levels") as caught:
        build(settings, [b"{}", nested(MAX_DEPTH + 1)])
    assert caught.value.field == "input[1]"

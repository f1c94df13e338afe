"""Every target's check over its seeds, and over what becomes of them by edits; the same cases every time."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import target as targets

ALL = [pytest.param(targets.load(name), id=name) for name in targets.names()]
# What parsers trip over: brackets, halves of things, numbers beyond their types, depth.
ODD = [
    *(bytes([byte]) for byte in b'[]{}",:\\\n\r\0 \xff'),
    *(b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"null", b"-0.0", b"1e400", b"NaN"),
    *(b"9" * 20, b"9" * 400, b"9" * 5000, b"[" * 150, b"[" * 3000, b'{"a":' * 150, b"\0" * 70, b"data:"),
]


@st.composite
def edited(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with a few places cut out, put in, or taken from another seed."""
    case = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(case)))
        end = draw(st.integers(start, min(len(case), start + 40)))
        other = draw(st.sampled_from(seeds))
        other_start = draw(st.integers(0, len(other)))
        piece = draw(
            st.one_of(
                st.sampled_from(ODD),
                st.binary(max_size=6),
                st.just(other[other_start : other_start + 60]),
                st.just(case[start:end] * 3),
            )
        )
        case = case[:start] + piece + case[end:]
    return case


@pytest.mark.parametrize("target", ALL)
def test_check_holds_for_every_seed(target: targets.Target) -> None:
    assert len(set(target.seeds)) == len(target.seeds) > 0
    for seed in target.seeds:
        target.check(seed)


@pytest.mark.parametrize("target", ALL)
@settings(max_examples=120, derandomize=True)
@given(data=st.data())
def test_check_holds_for_whatever_is_made_of_the_seeds(target: targets.Target, data: st.DataObject) -> None:
    target.check(data.draw(edited(target.seeds)))


@pytest.mark.parametrize("target", ALL)
def test_seeds_are_the_same_every_time(target: targets.Target) -> None:
    assert targets.load(target.name).seeds == target.seeds

"""A lane's reader: what comes again is known, and what is known is what reading it anew would tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core import delta
from warmline_server.core.delta import canonical
from warmline_server.core.errors import CallerError
from warmline_server.core.request_reader import RequestReader

ITEMS = st.sampled_from([b'{"a":1}', b'{ "a":1.0 }', b'{"type":"function_call","call_id":"c"}', b"{}", b'{"b":[]}'])
SETTINGS = st.dictionaries(st.sampled_from(["model", "tools"]), st.sampled_from([b'"m"', b"[ 1.0 ]", b"[1]"]))


@given(requests=st.lists(st.tuples(st.lists(ITEMS, max_size=5), SETTINGS), max_size=5))
def test_reader_tells_of_every_request_what_a_new_one_tells(
    requests: list[tuple[list[bytes], dict[str, bytes]]],
) -> None:
    reader = RequestReader()
    for items, settings in requests:
        assert reader.read_items(items) == RequestReader().read_items(items)
        assert reader.read_settings(settings) == RequestReader().read_settings(settings)


def test_items_and_settings_that_come_again_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = RequestReader()
    former, new = [b'{"a":1}', b'{"b":2}'], b'{"c":3}'
    reader.read_items(former)
    reader.read_settings({"model": b'"m"'})
    read: list[bytes] = []

    def note(value: bytes) -> bytes:
        read.append(value)
        return canonical(value)

    monkeypatch.setattr(delta, "canonical", note)
    reader.read_settings({"model": b'"m"', "tools": b"[]"})
    reader.read_items([*former, new])

    assert read == [b"[]", new]


def test_what_was_left_out_is_forgotten() -> None:
    """What is kept is bounded by one request."""
    reader = RequestReader()
    reader.read_items([b'{"a":1}', b'{"b":2}'])
    reader.read_items([b'{"b":2}'])

    assert len(reader._facts) == 1


def test_item_that_was_refused_is_refused_again() -> None:
    reader = RequestReader()
    for _ in range(2):
        with pytest.raises(CallerError, match=r"input\[1\]: expected one JSON object"):
            reader.read_items([b"{}", b"[]"])

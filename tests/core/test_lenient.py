"""Fields of a wrong shape count as absent."""

import msgspec
import pytest

from warmline_server.core.lenient import LenientDecoder


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

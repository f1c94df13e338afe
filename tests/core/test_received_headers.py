"""What reply headers mean."""

import pytest

from warmline_server.core import received_headers
from warmline_server.core.events import (
    ModelsEtag,
    RateLimits,
    RateLimitWindow,
    ReasoningIncluded,
    ServerModel,
    Transport,
)

PAIRS = [
    ("X-Reasoning-Included", ""),
    ("X-Models-Etag", "etag-1"),
    ("X-Codex-Primary-Used-Percent", "5"),
    ("OpenAI-Model", "m-1"),
    ("openai-model", "m-2"),
    ("X-Request-Id", "req_1"),
    ("X-Codex-Turn-State", "ts-1"),
]


@pytest.mark.conformance("C-072")
def test_head_of_an_http_reply_tells_model_limits_etag_and_reasoning_in_this_order() -> None:
    events = received_headers.head_events(received_headers.fold(PAIRS), Transport.HTTP)

    assert events == (
        ServerModel("m-1"),
        RateLimits("codex", primary=RateLimitWindow(5.0)),
        ModelsEtag("etag-1"),
        ReasoningIncluded(),
    )


@pytest.mark.conformance("C-070")
def test_head_of_a_handshake_tells_the_same_without_limits() -> None:
    events = received_headers.head_events(received_headers.fold(PAIRS), Transport.WEBSOCKET)

    assert events == (ServerModel("m-1"), ModelsEtag("etag-1"), ReasoningIncluded())


@pytest.mark.conformance("C-089")
@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"x-request-id": "a", "x-oai-request-id": "b"}, "a"),
        ({"x-oai-request-id": "b", "cf-ray": "c"}, "b"),
        ({"cf-ray": "c"}, None),
        ({"x-request-id": "", "x-oai-request-id": "b"}, "b"),
        ({"x-request-id": "caf\u00e9"}, None),
        ({"x-request-id": "a\tb"}, None),
        ({"x-request-id": "a" * 257}, None),
    ],
)
def test_request_id_is_the_first_that_was_told_and_can_be_passed_on(
    headers: dict[str, str], request_id: str | None
) -> None:
    assert received_headers.request_id(headers) == request_id


def test_turn_state_is_none_when_absent_or_blank() -> None:
    assert received_headers.turn_state(received_headers.fold(PAIRS)) == "ts-1"
    assert received_headers.turn_state({}) is None
    assert received_headers.turn_state({"x-codex-turn-state": ""}) is None


def test_json_headers_take_strings_numbers_booleans_and_first_elements() -> None:
    raw = b'{"A":" x ","b":12.50,"c":true,"d":["y","z"],"e":[],"f":{},"g":null,"h":[[1]],"i":[{}],"a":"later"}'

    assert received_headers.fold_json(raw) == {"a": "x", "b": "12.50", "c": "true", "d": "y", "h": "1"}


@pytest.mark.parametrize("raw", [b"null", b"[]", b'"x"', b"", b"{", b'{"a":"\xff"}'])
def test_json_headers_of_a_wrong_shape_are_none(raw: bytes) -> None:
    assert received_headers.fold_json(raw) == {}


@pytest.mark.parametrize("token", ["", "a\r\nX-Evil: 1", "caf\xe9", "x" * 4097])
def test_token_that_no_header_can_carry_back_is_none(token: str) -> None:
    assert received_headers.turn_state({"x-codex-turn-state": token}) is None
    assert received_headers.turn_state({"x-codex-turn-state": "x" * 4096}) == "x" * 4096


def test_names_that_are_longer_than_any_known_one_are_not_told() -> None:
    headers = dict.fromkeys(["openai-model", "x-models-etag", "x-request-id"], "x" * 257)

    assert received_headers.head_events(headers, Transport.WEBSOCKET) == ()
    assert received_headers.request_id(headers) is None


@pytest.mark.parametrize(
    ("pairs", "too_many"),
    [
        ([("a", "b")] * 256, False),
        ([("a", "b")] * 257, True),
        ([("a", "x" * 65_535)], False),
        ([("a", "x" * 65_536)], True),
    ],
    ids=["most", "too many", "largest", "too large"],
)
def test_headers_have_a_number_and_a_size(pairs: list[tuple[str, str]], too_many: bool) -> None:
    assert received_headers.are_too_many(pairs) == too_many

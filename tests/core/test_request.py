"""One call's request: what is refused, and the bytes that go upstream."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.test_items import call, output
from warmline_server.core import delta
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.items import of_provider
from warmline_server.core.request import (
    RESERVED_KEYS,
    base_settings,
    body,
    build,
    frame,
    parse_extra,
    warm_up,
    warm_up_frame,
)

SETTINGS = {"model": b'"m"', "tools": b'[ {"type":"function"} ]', "store": b"false"}
USER = b'{"type":"message","role":"user","content":[]}'
WHOLE = delta.Plan()

members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def sent_items(text: bytes) -> list[bytes]:
    """The items of a body or frame, byte for byte."""
    return [bytes(item) for item in raw_items(members(text)["input"])]


def sent_fields(text: bytes) -> dict[str, object]:
    fields = json.loads(text)
    assert isinstance(fields, dict)
    return fields


# Building


def test_build_orders_the_fields_and_keeps_others_in_the_callers_order() -> None:
    settings = {"seed": b"1", "text": b"{}", "model": b'"m"', "metadata": b"{}", "instructions": b'"be brief"'}

    request = build(settings, [USER])

    assert list(request.settings) == ["model", "instructions", "text", "seed", "metadata"]


def test_build_keeps_settings_as_they_came_and_canonical_beside_them() -> None:
    request = build({"model": b'"m"', "reasoning": b'{ "b": 1.0, "a": "\\u0061" }'}, [USER])

    assert request.settings["reasoning"] == b'{ "b": 1.0, "a": "\\u0061" }'
    assert request.canonical_settings == {"model": b'"m"', "reasoning": b'{"a":"a","b":1}'}


def test_build_history_is_a_digest_an_item() -> None:
    assert build(SETTINGS, [USER, USER]).history == 2 * delta.digest(USER)


def test_build_without_items_is_refused() -> None:
    with pytest.raises(CallerError) as raised:
        build(SETTINGS, [])

    assert (raised.value.reason, raised.value.field) == (Reason.INVALID_REQUEST, "input")


NOT_ONE_OBJECT = {
    "empty": b"",
    "text": b"hello",
    "array": b"[]",
    "cut": b'{"type":',
    "two": b"{} {}",
    "closing": b'{}],"input":[{}',
    "not utf-8": b'{"type":"\xff"}',
    "too deep": b'{"type":' + b"[" * 5000,
}


@pytest.mark.parametrize("item", NOT_ONE_OBJECT.values(), ids=NOT_ONE_OBJECT)
@pytest.mark.parametrize("index", [0, 2])
def test_build_item_that_is_not_one_object_is_refused_by_its_index(item: bytes, index: int) -> None:
    items = [USER] * 3
    items[index] = item

    with pytest.raises(CallerError) as raised:
        build(SETTINGS, items)

    assert (raised.value.reason, raised.value.field) == (Reason.INVALID_REQUEST, f"input[{index}]")


@pytest.mark.parametrize(("at", "field"), [(0, "input[0]"), (1, "input[1]")])
def test_build_index_counts_from_the_callers_first_item(at: int, field: str) -> None:
    items = [USER] * 2
    items[at] = b"[]"

    with pytest.raises(CallerError) as raised:
        build(SETTINGS, items, before=of_provider([USER, USER]))

    assert raised.value.field == field


def test_build_extends_what_the_server_holds_as_if_the_caller_had_sent_it() -> None:
    held = of_provider([USER, call("function_call")])

    assert build(SETTINGS, [output("function_call")], before=held) == build(
        SETTINGS, [USER, call("function_call"), output("function_call")]
    )


def test_build_call_that_the_server_holds_needs_its_output_too() -> None:
    with pytest.raises(CallerError) as raised:
        build(SETTINGS, [USER], before=of_provider([USER, call("function_call")]))

    assert raised.value.field == "transcript"


def test_build_setting_that_is_not_json_is_refused_by_its_name() -> None:
    with pytest.raises(CallerError) as raised:
        build({"model": b'"m"', "metadata": b'{"a":"\xff"}'}, [USER])

    assert (raised.value.reason, raised.value.field) == (Reason.INVALID_REQUEST, "metadata")


def test_build_error_text() -> None:
    with pytest.raises(CallerError) as raised:
        build(SETTINGS, [USER, b"[]"])

    assert str(raised.value) == "INVALID_REQUEST: input[1]: expected one JSON object"


@pytest.mark.parametrize(("settings", "model"), [({"model": b'"m"'}, "m"), ({"model": b"1"}, ""), ({}, "")])
def test_model_is_the_slug_or_blank(settings: dict[str, bytes], model: str) -> None:
    assert build(settings, [USER]).model == model


def test_extended_appends_items_and_their_digests() -> None:
    request = build(SETTINGS, [USER])
    answer = b'{"type":"message","role":"assistant"}'

    extended = request.extended([answer])

    assert extended == build(SETTINGS, [USER, answer])


@pytest.mark.parametrize(("store", "expected"), [(True, b"true"), (False, b"false")])
def test_base_settings_say_what_nobody_said(store: bool, expected: bytes) -> None:
    assert base_settings('a"b', store=store) == {
        "tool_choice": b'"auto"',
        "parallel_tool_calls": b"false",
        "reasoning": b"null",
        "store": expected,
        "prompt_cache_key": b'"a\\"b"',
    }


# The caller's further fields


def test_parse_extra_keeps_values_as_they_came() -> None:
    extra = parse_extra(b'{ "seed" : 1.0, "prompt_cache_options": {"a": 1}, "x\\u0079": [ 1 ] }', frozenset())

    assert extra == {"seed": b"1.0", "prompt_cache_options": b'{"a": 1}', "xy": b"[ 1 ]"}


def test_parse_extra_of_nothing_is_empty() -> None:
    assert parse_extra(b"", frozenset()) == {}


@pytest.mark.parametrize("name", sorted(RESERVED_KEYS))
@pytest.mark.parametrize("spell", [json.dumps, lambda name: f'"\\u{ord(name[0]):04x}{name[1:]}"'], ids=["plain", "hex"])
def test_parse_extra_refuses_reserved_keys_in_any_spelling(name: str, spell: object) -> None:
    assert callable(spell)

    with pytest.raises(CallerError) as raised:
        parse_extra(f'{{"seed":1,{spell(name)}:null}}'.encode(), frozenset())

    assert (raised.value.reason, raised.value.field) == (Reason.RESERVED_KEY, f"request_json.{name}")


def test_reserved_keys_are_what_the_server_sets() -> None:
    server_sets = sent_fields(warm_up_frame(warm_up({}), {}, stream_field=True))
    server_sets |= sent_fields(frame(build({}, [USER]), delta.Plan(0, "resp-1"), {}, stream_field=True))

    assert server_sets.keys() <= RESERVED_KEYS


def test_parse_extra_refuses_prewarm_inside_the_cache_options() -> None:
    with pytest.raises(CallerError) as raised:
        parse_extra(b'{"prompt_cache_options":{"ttl":1,"prewarm":true}}', frozenset())

    assert raised.value.reason is Reason.RESERVED_KEY
    assert raised.value.field == "request_json.prompt_cache_options.prewarm"


def test_parse_extra_refuses_the_servers_own_metadata_names() -> None:
    with pytest.raises(CallerError) as raised:
        parse_extra(b'{"client_metadata":{"mine":"1","x-ours":"2"}}', frozenset({"x-ours"}))

    assert (raised.value.reason, raised.value.field) == (Reason.RESERVED_KEY, "request_json.client_metadata.x-ours")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"[]", "request_json"),
        (b"{", "request_json"),
        (b'{"\xff":1}', "request_json"),
        (b'{"a":' + b"[" * 5000, "request_json"),
        (b'{"client_metadata":[]}', "request_json.client_metadata"),
        (b'{"prompt_cache_options":1}', "request_json.prompt_cache_options"),
    ],
    ids=["array", "cut", "bytes", "deep", "metadata", "cache"],
)
def test_parse_extra_refuses_what_is_not_an_object(text: bytes, field: str) -> None:
    with pytest.raises(CallerError) as raised:
        parse_extra(text, frozenset())

    assert (raised.value.reason, raised.value.field) == (Reason.INVALID_REQUEST, field)


# The bytes that leave

ITEM_TEXTS = st.builds(
    lambda left, name, gap, right: f'{left}{{"type":"message",{gap}"n":{json.dumps(name)},{gap}"v":1.00e0}}{right}',
    st.sampled_from(["", " ", "\n"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from(["", " "]),
).map(str.encode)


@given(st.lists(ITEM_TEXTS, min_size=1, max_size=5), st.data())
def test_items_leave_byte_for_byte(items: list[bytes], data: st.DataObject) -> None:
    request = build(SETTINGS, items)
    start = data.draw(st.integers(0, len(items)))
    trimmed = [item.strip() for item in items]

    whole = frame(request, WHOLE, {}, stream_field=False)
    rest = frame(request, delta.Plan(start, "resp-1"), {}, stream_field=False)

    assert request.input == tuple(items)
    assert sent_items(body(request, {})) == trimmed
    assert sent_items(whole) == trimmed
    assert sent_items(rest) == trimmed[start:]


def test_body_is_the_whole_request() -> None:
    assert body(build(SETTINGS, [USER]), {"k": "v"}) == (
        b'{"stream":true,"model":"m","tools":[ {"type":"function"} ],"store":false,"input":['
        + USER
        + b'],"client_metadata":{"k":"v"}}'
    )


def test_body_without_metadata_has_no_such_field() -> None:
    assert "client_metadata" not in sent_fields(body(build(SETTINGS, [USER]), {}))


def test_frame_is_a_create_with_the_whole_request() -> None:
    assert frame(build(SETTINGS, [USER]), WHOLE, {}, stream_field=False) == (
        b'{"type":"response.create","model":"m","tools":[ {"type":"function"} ],"store":false,"input":[' + USER + b"]}"
    )


@pytest.mark.parametrize("stream_field", [True, False])
def test_frame_says_stream_where_it_is_asked_to(stream_field: bool) -> None:
    request = build(SETTINGS, [USER])

    frames = [
        frame(request, WHOLE, {}, stream_field=stream_field),
        warm_up_frame(request, {}, stream_field=stream_field),
    ]

    assert [sent_fields(each).get("stream") for each in frames] == [stream_field or None] * 2


@pytest.mark.conformance("C-051")
def test_frame_incremental_has_the_former_id_the_new_items_and_all_settings() -> None:
    request = build(SETTINGS, [USER, call("function_call"), output("function_call")])

    fields = sent_fields(frame(request, delta.Plan(2, 'resp-"1"'), {}, stream_field=False))

    assert fields == {
        "type": "response.create",
        "previous_response_id": 'resp-"1"',
        "model": "m",
        "tools": [{"type": "function"}],
        "store": False,
        "input": [json.loads(output("function_call"))],
    }


@pytest.mark.conformance("C-053")
def test_frame_full_has_no_former_id() -> None:
    fields = sent_fields(frame(build(SETTINGS, [USER]), WHOLE, {}, stream_field=False))

    assert "previous_response_id" not in fields


def test_warm_up_frame_generates_nothing_and_has_all_settings() -> None:
    fields = sent_fields(warm_up_frame(warm_up(SETTINGS), {"k": "v"}, stream_field=False))

    assert fields == {
        "type": "response.create",
        "generate": False,
        "model": "m",
        "tools": [{"type": "function"}],
        "store": False,
        "input": [],
        "client_metadata": {"k": "v"},
    }


def test_metadata_of_the_caller_stays_beneath_the_servers() -> None:
    request = build({"model": b'"m"', "client_metadata": b'{"mine":[1],"k":"theirs"}'}, [USER])

    texts = [body(request, {"k": "ours"}), frame(request, WHOLE, {"k": "ours"}, stream_field=False)]

    assert [sent_fields(text)["client_metadata"] for text in texts] == [{"mine": [1], "k": "ours"}] * 2

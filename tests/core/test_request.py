"""One call's request: what is refused, and the bytes that go upstream."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core import delta
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.request import (
    CLIENT_CALLS,
    RESERVED_KEYS,
    base_settings,
    body,
    build,
    check_calls,
    frame,
    is_client_call,
    item_head,
    parse_extra,
    warm_up,
    warm_up_frame,
)

SETTINGS = {"model": b'"m"', "tools": b'[ {"type":"function"} ]', "store": b"false"}
USER = b'{"type":"message","role":"user","content":[]}'
WHOLE = delta.Plan()

members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def call(kind: str, call_id: str = "c1") -> bytes:
    return json.dumps({"type": kind, "call_id": call_id}).encode()


def output(kind: str, call_id: str = "c1") -> bytes:
    name = "tool_search_output" if kind == "tool_search_call" else f"{kind}_output"
    return json.dumps({"type": name, "call_id": call_id, "output": ""}).encode()


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


@pytest.mark.parametrize(("at", "field"), [(0, "transcript"), (1, "transcript"), (2, "input[0]"), (3, "input[1]")])
def test_build_index_counts_from_the_callers_first_item(at: int, field: str) -> None:
    items = [USER] * 4
    items[at] = b"[]"

    with pytest.raises(CallerError) as raised:
        build(SETTINGS, items, first_index=2)

    assert raised.value.field == field


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


# Calls and their outputs


@pytest.mark.parametrize("kind", sorted(CLIENT_CALLS))
def test_check_calls_call_and_output_pass_wherever_they_are(kind: str) -> None:
    check_calls([USER, call(kind), USER, output(kind), USER])


@pytest.mark.parametrize("kind", sorted(CLIENT_CALLS))
@pytest.mark.parametrize("at", [0, 1, 2])
def test_check_calls_output_without_its_call_is_found_at_any_place(kind: str, at: int) -> None:
    items = [USER, USER]
    items.insert(at, output(kind))

    with pytest.raises(CallerError) as raised:
        check_calls(items)

    assert raised.value.field == f"input[{at}]"


@pytest.mark.parametrize("kind", sorted(CLIENT_CALLS))
@pytest.mark.parametrize("at", [0, 1, 2])
def test_check_calls_call_without_its_output_is_found_at_any_place(kind: str, at: int) -> None:
    items = [USER, USER]
    items.insert(at, call(kind))

    with pytest.raises(CallerError) as raised:
        check_calls(items)

    assert raised.value.field == f"input[{at}]"


def test_check_calls_output_before_its_call_is_refused() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls([output("function_call"), call("function_call")])

    assert raised.value.field == "input[0]"


def test_check_calls_output_of_another_kind_of_call_is_refused() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls([call("custom_tool_call"), output("function_call")])

    assert raised.value.field == "input[1]"


def test_check_calls_output_of_another_call_is_refused() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls([call("function_call", "c1"), output("function_call", "c2")])

    assert raised.value.field == "input[1]"


@pytest.mark.parametrize("call_id", [b"", b',"call_id":null', b',"call_id":""', b',"call_id":5'])
def test_check_calls_output_without_a_usable_id_is_refused(call_id: bytes) -> None:
    with pytest.raises(CallerError) as raised:
        check_calls([b'{"type":"function_call_output"' + call_id + b"}"])

    assert raised.value.field == "input[0]"


def test_check_calls_parallel_calls_pass_in_any_order_of_their_outputs() -> None:
    kinds = [("function_call", "c1"), ("function_call", "c2"), ("custom_tool_call", "c1")]

    check_calls([*(call(*each) for each in kinds), *(output(*each) for each in reversed(kinds))])


@pytest.mark.parametrize("call_id", [b"null", b'"c1"'])
def test_check_calls_leaves_both_halves_of_the_providers_own_calls_alone(call_id: bytes) -> None:
    search = b'{"type":"tool_search_call","execution":"server","call_id":' + call_id + b"}"
    found = b'{"type":"tool_search_output","execution":"server","call_id":' + call_id + b"}"

    check_calls([search])
    check_calls([search, found])
    check_calls([found])


def test_check_calls_counts_from_the_callers_first_item() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls([USER, USER, output("function_call")], first_index=1)

    assert raised.value.field == "input[1]"


@pytest.mark.parametrize("kind", sorted(CLIENT_CALLS))
def test_is_client_call_of_each_kind(kind: str) -> None:
    assert is_client_call(call(kind))


# Nulls and unknown shapes: providers differ in what stands beside the fields that matter.
@pytest.mark.parametrize("beside", [b'"execution":null', b'"role":null', b'"call_id":7', b'"execution":"client"'])
def test_is_client_call_whatever_stands_beside_the_type(beside: bytes) -> None:
    assert is_client_call(b'{"type":"function_call",' + beside + b"}")


@pytest.mark.parametrize(
    "item",
    [
        USER,
        b'{"type":"web_search_call"}',
        b'{"type":"tool_search_call","execution":"server"}',
        b'{"type":"function_call_output","call_id":"c1"}',
        b"{}",
        b"[]",
        b'{"type":"function_call\xff"}',
    ],
)
def test_is_client_call_not_of_anything_else(item: bytes) -> None:
    assert not is_client_call(item)


def test_item_head_of_no_json_is_blank() -> None:
    assert (item_head(b"[" * 5000).type, item_head(b"{").call_id) == ("", None)


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

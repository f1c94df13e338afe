"""What is known of items, and which call belongs to which output."""

import json
from collections.abc import Iterable

import pytest

from warmline_server.core.delta import DIGEST_BYTES, digest
from warmline_server.core.errors import CallerError
from warmline_server.core.items import (
    CLIENT_CALLS,
    Facts,
    check_calls,
    facts_of,
    is_client_call,
    item_head,
    of_provider,
)

USER = b'{"type":"message","role":"user","content":[]}'


def call(kind: str, call_id: str = "c1") -> bytes:
    return json.dumps({"type": kind, "call_id": call_id}).encode()


def output(kind: str, call_id: str = "c1") -> bytes:
    name = "tool_search_output" if kind == "tool_search_call" else f"{kind}_output"
    return json.dumps({"type": name, "call_id": call_id, "output": ""}).encode()


def facts_of_all(items: Iterable[bytes]) -> list[Facts]:
    return [facts_of(item) for item in items]


@pytest.mark.parametrize("kind", sorted(CLIENT_CALLS))
def test_check_calls_call_and_output_pass_wherever_they_are(kind: str) -> None:
    check_calls(facts_of_all([USER, call(kind), USER, output(kind), USER]))


@pytest.mark.parametrize("kind", sorted(CLIENT_CALLS))
@pytest.mark.parametrize("at", [0, 1, 2])
def test_check_calls_output_without_its_call_is_found_at_any_place(kind: str, at: int) -> None:
    items = [USER, USER]
    items.insert(at, output(kind))

    with pytest.raises(CallerError) as raised:
        check_calls(facts_of_all(items))

    assert raised.value.field == f"input[{at}]"


@pytest.mark.parametrize("kind", sorted(CLIENT_CALLS))
@pytest.mark.parametrize("at", [0, 1, 2])
def test_check_calls_call_without_its_output_is_found_at_any_place(kind: str, at: int) -> None:
    items = [USER, USER]
    items.insert(at, call(kind))

    with pytest.raises(CallerError) as raised:
        check_calls(facts_of_all(items))

    assert raised.value.field == f"input[{at}]"


def test_check_calls_output_before_its_call_is_refused() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls(facts_of_all([output("function_call"), call("function_call")]))

    assert raised.value.field == "input[0]"


def test_check_calls_output_of_another_kind_of_call_is_refused() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls(facts_of_all([call("custom_tool_call"), output("function_call")]))

    assert raised.value.field == "input[1]"


def test_check_calls_output_of_another_call_is_refused() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls(facts_of_all([call("function_call", "c1"), output("function_call", "c2")]))

    assert raised.value.field == "input[1]"


@pytest.mark.parametrize("call_id", [b"", b',"call_id":null', b',"call_id":""', b',"call_id":5'])
def test_check_calls_output_without_a_usable_id_is_refused(call_id: bytes) -> None:
    with pytest.raises(CallerError) as raised:
        check_calls(facts_of_all([b'{"type":"function_call_output"' + call_id + b"}"]))

    assert raised.value.field == "input[0]"


def test_check_calls_parallel_calls_pass_in_any_order_of_their_outputs() -> None:
    kinds = [("function_call", "c1"), ("function_call", "c2"), ("custom_tool_call", "c1")]

    check_calls(facts_of_all([*(call(*each) for each in kinds), *(output(*each) for each in reversed(kinds))]))


@pytest.mark.parametrize("call_id", [b"null", b'"c1"'])
def test_check_calls_leaves_both_halves_of_the_providers_own_calls_alone(call_id: bytes) -> None:
    search = b'{"type":"tool_search_call","execution":"server","call_id":' + call_id + b"}"
    found = b'{"type":"tool_search_output","execution":"server","call_id":' + call_id + b"}"

    check_calls(facts_of_all([search]))
    check_calls(facts_of_all([search, found]))
    check_calls(facts_of_all([found]))


def test_check_calls_counts_from_the_callers_first_item() -> None:
    with pytest.raises(CallerError) as raised:
        check_calls(facts_of_all([USER, USER, output("function_call")]), first_index=1)

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


# What the provider made


def test_digests_of_output_are_those_of_its_items_in_order() -> None:
    assert of_provider([b'{"a":1}', b"{}"]).digests == digest(b'{ "a": 1 }') + digest(b"{}")


@pytest.mark.parametrize("garbage", [b'{"a":"\xff"}', b"[" * 5000], ids=["bytes", "deep"])
def test_digests_of_output_that_is_no_json_count_it_as_it_came(garbage: bytes) -> None:
    found = of_provider([garbage, b"{}"]).digests

    assert len(found) == 2 * DIGEST_BYTES
    assert found[DIGEST_BYTES:] == digest(b"{}")
    assert of_provider([garbage]).digests != of_provider([garbage + b" "]).digests

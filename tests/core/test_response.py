"""What an attempt has brought so far."""

import pytest

from warmline_server.core import events as ev
from warmline_server.core.response import MAX_ITEMS, Response

CALL = ev.ItemDone(b'{"type":"function_call","call_id":"c1"}', "function_call", 0)
MESSAGE = ev.ItemDone(b'{"type":"message"}', "message", 0)
OUTPUT = [
    ev.ItemAdded(b"{}", 0),
    MESSAGE,
    ev.TextDelta("a"),
    ev.ReasoningDelta("a"),
    ev.ReasoningSummaryDelta("a"),
    ev.ToolInputDelta("a"),
]
NO_OUTPUT = [
    ev.Created("resp-1"),
    ev.ServerModel("m"),
    ev.ModelsEtag("e"),
    ev.ReasoningIncluded(),
    ev.RateLimits("codex"),
    ev.TurnStateSeen("ts-1"),
    ev.Raw(),
    ev.Completed("resp-1"),
]


def taken(*events: ev.ModelEvent) -> Response:
    response = Response(max_bytes=1000)
    response.take([ev.Emission(event) for event in events])
    return response


def kind(event: object) -> str:
    return type(event).__name__


@pytest.mark.parametrize("event", OUTPUT, ids=kind)
def test_response_output_is_what_the_caller_may_have_acted_on(event: ev.ModelEvent) -> None:
    assert taken(event).has_output


@pytest.mark.parametrize("event", NO_OUTPUT, ids=kind)
def test_response_notices_are_no_output(event: ev.ModelEvent) -> None:
    assert not taken(event).has_output


def test_response_keeps_finished_items_in_order_byte_for_byte() -> None:
    assert taken(ev.ItemAdded(b"{ }", 0), MESSAGE, CALL).items == [MESSAGE.item, CALL.item]


@pytest.mark.parametrize(
    ("events", "finished"),
    [
        ([MESSAGE], False),
        ([ev.ItemAdded(CALL.item, 0)], False),
        ([CALL], True),
        ([CALL, MESSAGE], True),
        ([ev.ItemDone(b'{"type":"web_search_call"}', "web_search_call", 0)], False),
    ],
    ids=["message", "call_added", "call_done", "message_after_it", "call_of_the_provider"],
)
def test_response_tells_whether_a_client_call_is_finished(events: list[ev.ModelEvent], finished: bool) -> None:
    assert taken(*events).client_call_finished is finished


@pytest.mark.parametrize(
    ("events", "response_id"),
    [
        ([], ""),
        ([ev.Created("resp-1")], "resp-1"),
        ([ev.Created("resp-1"), ev.Created("")], "resp-1"),
        ([ev.Created("resp-1"), ev.Completed("resp-2")], "resp-2"),
        ([ev.Created("resp-1"), ev.Incomplete("max_output_tokens")], "resp-1"),
        ([ev.Incomplete("max_output_tokens", "resp-2")], "resp-2"),
    ],
    ids=["nothing", "created", "blank_later", "completed", "incomplete_blank", "incomplete"],
)
def test_response_keeps_the_id_that_was_told_last(events: list[ev.ModelEvent], response_id: str) -> None:
    assert taken(*events).response_id == response_id


@pytest.mark.parametrize("terminal", [ev.Completed("resp-1"), ev.Incomplete("x", "resp-1")], ids=kind)
def test_response_ends_with_its_terminal_event_and_takes_nothing_after_it(terminal: ev.ModelEvent) -> None:
    response = Response(max_bytes=1000)
    batch = [MESSAGE, terminal, CALL, ev.Created("resp-2")]

    counted = response.take([ev.Emission(event) for event in batch])

    assert counted == 2
    assert response.terminal is terminal
    assert (response.items, response.response_id) == ([MESSAGE.item], "resp-1")
    assert not response.client_call_finished


def test_response_counts_a_whole_batch_without_a_terminal_event() -> None:
    response = Response(max_bytes=1000)

    assert response.take([ev.Emission(MESSAGE), ev.Emission(ev.Raw())]) == 2
    assert response.take([]) == 0
    assert response.terminal is None


def test_response_collects_over_batches() -> None:
    response = Response(max_bytes=1000)

    for event in (ev.Created("resp-1"), CALL, MESSAGE):
        response.take([ev.Emission(event)])

    assert (response.response_id, response.items) == ("resp-1", [CALL.item, MESSAGE.item])
    assert response.has_output
    assert response.client_call_finished


def done(size: int) -> ev.Emission:
    return ev.Emission(ev.ItemDone(b"x" * size, "message", 0))


def test_response_beyond_its_bytes_or_its_items_is_too_large() -> None:
    full, many = Response(max_bytes=1000), Response(max_bytes=1_000_000)
    full.take([done(500), done(500)])
    many.take([done(1)] * MAX_ITEMS)
    assert not full.is_too_large
    assert not many.is_too_large

    full.take([done(1)])
    many.take([done(1)])

    assert full.is_too_large
    assert many.is_too_large

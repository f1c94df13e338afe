"""What of a request its socket already holds."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from warmline_server.core.delta import Baseline, Plan, canonical, digest, plan
from warmline_server.core.events import FullReason, Mismatch
from warmline_server.core.items import of_provider
from warmline_server.core.lenient import NOT_JSON

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

SETTINGS = {"model": b'"m"', "tools": b"[]"}

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
LOOK_ALIKES: list[Json] = [None, False, True, 0, 1, 0.0, 1.0, 0.5, "", "0", "1", "null", [], [0], [[0]], [False], {}]
LOOK_ALIKES += [
    {"0": 0},
    {"0": "0"},
    {"a": None},
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    {"a": 2, "b": 1},
    {"a": {"b": 2}},
]
ITEMS = st.dictionaries(TEXTS, VALUES, max_size=3)
CONVERSATIONS = st.lists(ITEMS, max_size=5)
SEEDS = st.integers(0, 2**32)


def same(left: Json, right: Json) -> bool:
    """Whether two JSON values are one, told without the code under test: 1 is 1.0, but True is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def plain(value: Json) -> bytes:
    return json.dumps(value).encode()


def respelled(value: Json, seed: int) -> bytes:
    """The value in another spelling: order of keys, white space, escapes, and a fraction or exponent of nothing."""
    return _spell(value, random.Random(seed)).encode()


def _spell(value: Json, chance: random.Random) -> str:
    def gap() -> str:
        return "".join(chance.choices(" \t\r\n", k=chance.randrange(3)))

    if isinstance(value, Mapping):
        keys = chance.sample(list(value), k=len(value))
        parts = [f"{_spell(key, chance)}{gap()}:{gap()}{_spell(value[key], chance)}{gap()}" for key in keys]
        return "{" + gap() + ",".join(parts) + "}"
    if isinstance(value, list):
        return "[" + gap() + ",".join(_spell(each, chance) + gap() for each in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=chance.random() < 0.5)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return f"{value}{chance.choice(['', '.0', 'e0', '.00E+0'])}"
    return json.dumps(value)


def history_of(items: Sequence[Json]) -> bytes:
    return b"".join(digest(plain(item)) for item in items)


def applied(held: Sequence[Json], sent: Plan, request: Sequence[Json]) -> list[Json]:
    """What the upstream puts together: what it holds, if the request says so, and what it is sent."""
    before = list(held) if sent.previous_response_id else []
    return [*before, *request[sent.start :]]


# Spellings


@given(VALUES, SEEDS)
def test_digest_is_the_same_for_every_spelling(value: Json, seed: int) -> None:
    assert digest(respelled(value, seed)) == digest(plain(value))


@pytest.mark.parametrize("left", LOOK_ALIKES, ids=repr)
def test_digest_tells_look_alikes_apart(left: Json) -> None:
    alike = [right for right in LOOK_ALIKES if digest(plain(left)) == digest(plain(right))]

    assert repr(alike) == repr([right for right in LOOK_ALIKES if same(left, right)])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (b"1", b"1.0"),
        (b"1", b"10e-1"),
        (b"-0", b"0.0"),
        (b'"a/\\u0062"', b'"a\\/b"'),
        (b'{"a":1,"b":2}', b'{ "b" : 2, "a" : 1 }'),
        (b"0.1", b"1E-1"),
        (b'{"a":"\\ud83d","b":1}', b'{"b":1.0,"\\u0061": "\\uD83D"}'),
    ],
    ids=lambda each: each.decode(),
)
def test_canonical_of_one_value_is_one(left: bytes, right: bytes) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (b"1", b"true"),
        (b"0", b"false"),
        (b"1", b'"1"'),
        (b"null", b"{}"),
        (b"[1,2]", b"[2,1]"),
        (b"9007199254740993", b"9007199254740993.0"),
        (b"18446744073709551616", b"18446744073709551617"),
        (b'"e\xcc\x81"', b'"\xc3\xa9"'),
        (b'"\\ud83d\\ufffd"', b'"\\ufffd\\ud83d"'),
        (b'"\\ud83d"', b'"\\ud83e"'),
        (b'{"a":"\\ud83d","b":"\\ud83e"}', b'{"b":"\\ud83d","a":"\\ud83e"}'),
        (b'"\\ud83d"', b'"\\\\ud83d"'),
    ],
    ids=lambda each: each.decode(),
)
def test_canonical_of_two_values_is_two(left: bytes, right: bytes) -> None:
    assert canonical(left) != canonical(right)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{} {}", b"NaN", b'{"a":"\xff"}', b"[" * 5000, b"[1e400]", b"9" * 5000, b'["\\ud83d"'],
    ids=["empty", "cut", "two", "nan", "bytes", "deep", "beyond_a_float", "beyond_digits", "cut_after_half_a_pair"],
)
def test_digest_of_no_json_raises(text: bytes) -> None:
    with pytest.raises(NOT_JSON):
        digest(text)


# Plans


@given(CONVERSATIONS, CONVERSATIONS, CONVERSATIONS, st.booleans())
def test_plan_applied_to_what_the_socket_holds_is_the_request(
    former: list[Json], output: list[Json], fresh: list[Json], extends: bool
) -> None:
    held = [*former, *output]
    request = [*held, *fresh] if extends else fresh
    baseline = Baseline(SETTINGS, history_of(former) + of_provider(map(plain, output)).digests, "resp-1")

    sent = plan(baseline, SETTINGS, history_of(request))

    assert same(applied(held, sent, request), request)
    assert (sent.full_reason is None) == bool(sent.previous_response_id)
    if extends:
        assert sent == Plan(start=len(held), previous_response_id="resp-1")


@given(CONVERSATIONS, CONVERSATIONS, SEEDS)
def test_plan_extension_in_other_spellings_is_incremental(held: list[Json], fresh: list[Json], seed: int) -> None:
    spelled = b"".join(digest(respelled(item, seed + i)) for i, item in enumerate([*held, *fresh]))

    sent = plan(Baseline(SETTINGS, history_of(held), "resp-1"), SETTINGS, spelled)

    assert sent == Plan(start=len(held), previous_response_id="resp-1")


@pytest.mark.conformance("C-053")
@given(st.lists(ITEMS, min_size=1, max_size=5), CONVERSATIONS, ITEMS, st.data())
def test_plan_changed_item_is_full_and_names_the_first(
    held: list[Json], fresh: list[Json], other: Json, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(held) - 1))
    assume(not same(held[index], other))
    request = [*held[:index], other, *held[index + 1 :], *fresh]

    sent = plan(Baseline(SETTINGS, history_of(held), "resp-1"), SETTINGS, history_of(request))

    assert sent == Plan(full_reason=FullReason.NOT_A_PREFIX, mismatch=Mismatch(input_index=index))


@pytest.mark.conformance("C-053")
@given(st.lists(ITEMS, min_size=1, max_size=5), st.data())
def test_plan_shorter_input_is_full_and_names_its_end(held: list[Json], data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(held) - 1))

    sent = plan(Baseline(SETTINGS, history_of(held), "resp-1"), SETTINGS, history_of(held[:length]))

    assert sent == Plan(full_reason=FullReason.NOT_A_PREFIX, mismatch=Mismatch(input_index=length))


@pytest.mark.conformance("C-053")
@pytest.mark.parametrize(
    ("now", "field"),
    [
        ({"model": b'"n"', "tools": b"[]"}, "model"),
        ({"model": b'"m"', "tools": b"[1]"}, "tools"),
        ({"model": b'"n"', "tools": b"[1]"}, "model"),
        ({"model": b'"m"', "tools": b"[]", "service_tier": b'"flex"'}, "service_tier"),
        ({"model": b'"m"'}, "tools"),
    ],
    ids=["first", "second", "both", "added", "removed"],
)
def test_plan_changed_setting_is_full_and_names_the_first(now: dict[str, bytes], field: str) -> None:
    history = history_of([{"a": 1}])

    sent = plan(Baseline(SETTINGS, history, "resp-1"), now, history)

    assert sent == Plan(full_reason=FullReason.SETTINGS_CHANGED, mismatch=Mismatch(field=field))


def test_plan_order_of_settings_does_not_matter() -> None:
    history = history_of([{"a": 1}])

    sent = plan(Baseline(SETTINGS, history, "resp-1"), dict(reversed(SETTINGS.items())), history)

    assert sent.full_reason is None


@pytest.mark.conformance("C-092")
def test_plan_after_a_completed_response_builds_on_its_id_and_items() -> None:
    asked, answered, next_asked = {"role": "user"}, {"type": "message"}, {"role": "user", "content": "go on"}
    baseline = Baseline(SETTINGS, history_of([asked]) + of_provider([plain(answered)]).digests, "resp-1")

    sent = plan(baseline, SETTINGS, history_of([asked, answered, next_asked]))

    assert sent == Plan(start=2, previous_response_id="resp-1")


def test_plan_with_nothing_new_is_incremental() -> None:
    history = history_of([{"a": 1}])

    assert plan(Baseline(SETTINGS, history, "resp-1"), SETTINGS, history) == Plan(1, "resp-1")


@pytest.mark.conformance("C-093")
def test_plan_after_a_response_that_did_not_complete_is_full() -> None:
    sent = plan(None, SETTINGS, history_of([{"a": 1}]))

    assert sent == Plan(full_reason=FullReason.NO_BASELINE)


def test_plan_without_the_former_responses_id_is_full() -> None:
    history = history_of([{"a": 1}])

    assert plan(Baseline(SETTINGS, history, ""), SETTINGS, history) == Plan(full_reason=FullReason.NO_BASELINE)

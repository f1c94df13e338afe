"""Where the issuer's keys come from, and that no call waits for them without need."""

import asyncio
import contextlib
import logging
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callers.kit import FakeKeysHttp, Issuer, jwt_settings, replace
from manual_clock import ManualClock, settle
from warmline_server.callers.issuer_keys import MAX_KEYS, read_keys
from warmline_server.callers.key_source import MIN_FETCH_INTERVAL_S, KeyFile, KeyUrl
from warmline_server.callers.reloaded import BadFile, Unreadable

ALGORITHMS = ("RS256", "ES256")
ONE, TWO = Issuer(key_id="one"), Issuer(key_id="two")
BOTH = msgspec.json.encode({"keys": [ONE.jwk("one"), TWO.jwk("two")]})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def source(http: FakeKeysHttp, clock: ManualClock) -> KeyUrl:
    return KeyUrl(jwt_settings(keys_cache_s=300.0), http, clock)


async def test_keys_are_fetched_once_for_all_who_wait(clock: ManualClock) -> None:
    http = FakeKeysHttp([ONE.jwks()])
    http.gate.clear()
    keys = source(http, clock)

    waiting = [asyncio.create_task(keys.keys("one")) for _ in range(20)]
    await settle()
    http.gate.set()
    found = await asyncio.gather(*waiting)

    assert http.asked == 1
    assert len(set(map(id, found))) == 1
    assert found[0] is not None
    assert found[0].has("one")


async def test_old_keys_are_used_while_new_ones_are_fetched(clock: ManualClock) -> None:
    http = FakeKeysHttp([ONE.jwks(), BOTH])
    keys = source(http, clock)
    first = await keys.keys("one")
    http.gate.clear()
    await clock.advance(301)

    asking = asyncio.create_task(keys.keys("one"))
    await settle()
    has_waited = not asking.done()
    http.gate.set()
    during = await asking
    await settle()
    after = await keys.keys("one")

    assert not has_waited
    assert during is first
    assert after is not first
    assert http.asked == 2


async def test_issuer_that_is_down_stops_no_call_whose_key_is_here(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    http = FakeKeysHttp([ONE.jwks(), 503])
    keys = source(http, clock)
    first = await keys.keys("one")

    for _ in range(5):
        await clock.advance(400)
        assert await keys.keys("one") is first
        await settle()

    assert http.asked == 6
    assert [record.getMessage() for record in caplog.records] == ["the issuer's keys were not fetched"] * 5


async def test_unknown_key_asks_the_issuer_once_in_a_while(clock: ManualClock) -> None:
    http = FakeKeysHttp([ONE.jwks(), BOTH])
    keys = source(http, clock)
    await keys.keys("one")

    early = await keys.keys("two")
    asked_early = http.asked
    await clock.advance(MIN_FETCH_INTERVAL_S)
    late = await keys.keys("two")
    for number in range(100):
        await keys.keys(f"made up {number}")

    assert early is not None
    assert not early.has("two")
    assert asked_early == 1, "the keys had come just now"
    assert late is not None
    assert late.has("two")
    assert http.asked == 2


async def test_without_any_keys_there_are_none_and_the_next_try_comes_later(clock: ManualClock) -> None:
    http = FakeKeysHttp([503, b"no keys", ONE.jwks()])
    keys = source(http, clock)

    found = []
    for _ in range(3):
        found.append(await keys.keys("one"))
        assert await keys.keys("one") is found[-1]
        await clock.advance(MIN_FETCH_INTERVAL_S)

    assert found[:2] == [None, None]
    assert found[2] is not None
    assert http.asked == 3


async def test_caller_that_leaves_takes_nobody_elses_fetch_along(clock: ManualClock) -> None:
    http = FakeKeysHttp([ONE.jwks()])
    http.gate.clear()
    keys = source(http, clock)
    gone, stays = (asyncio.create_task(keys.keys("one")) for _ in range(2))
    await settle()

    gone.cancel()
    await settle()
    http.gate.set()

    assert await stays is not None


async def test_close_ends_a_fetch(clock: ManualClock) -> None:
    http = FakeKeysHttp([ONE.jwks()])
    http.gate.clear()
    keys = source(http, clock)
    waiting = asyncio.create_task(keys.keys("one"))
    await settle()

    await keys.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await keys.close()


async def test_file_is_read_again_when_it_changed_and_kept_when_it_is_bad(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(ONE.jwks())
    keys = KeyFile(jwt_settings(jwks_url="", jwks_file=str(path)))

    steps = []
    for content in (None, BOTH, b"{", None, ONE.jwks()):
        if content is not None:
            replace(path, content)
        found = await keys.keys("two")
        assert found is not None
        steps.append(found.has("two"))
    await keys.close()

    assert steps == [False, True, True, True, False]
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


def test_file_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"keys\.json: No such file"):
        KeyFile(jwt_settings(jwks_file=str(tmp_path / "keys.json")))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], "it has no key that can be used"),
        ([{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}], "it has no key that can be used"),
        ([{"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "ES256"}], "it has no key that can be used"),
        ([ONE.jwk("one") | {"use": "enc"}], "it has no key that can be used"),
        ([ONE.jwk("one") | {"alg": "HS256"}], "it has no key that can be used"),
        ([ONE.jwk("one") | {"alg": ["ES256"]}], "it has no key that can be used"),
        ([ONE.jwk("one") | {"crv": ["P-256"]}], "it has no key that can be used"),
        ([ONE.jwk("one") | {"crv": "P-384"}], "it has no key that can be used"),
        ([ONE.jwk("one") | {"x": "AAAA"}], "it has no key that can be used"),
        ([ONE.jwk("one") | {"kid": 1}], "it has no key that can be used"),
        ([{}] * (MAX_KEYS + 1), f"it has more than {MAX_KEYS} keys"),
        (None, "it is no JSON Web Key Set"),
        (["a"], "it is no JSON Web Key Set"),
        (b'{"keys":[{"a":' + b"[" * 100_000, "it is no JSON Web Key Set"),
    ],
    ids=range(14),
)
def test_set_without_a_key_for_signatures_is_refused(keys: object, why: str) -> None:
    content = keys if isinstance(keys, bytes) else msgspec.json.encode({"keys": keys})

    with pytest.raises(Unreadable) as caught:
        read_keys(content, ALGORITHMS)

    assert str(caught.value) == why


def test_key_that_cannot_be_used_takes_no_other_along() -> None:
    content = msgspec.json.encode({"keys": [{"kty": "none"}, ONE.jwk("one") | {"y": 1}, TWO.jwk("two")]})

    keys = read_keys(content, ALGORITHMS)

    assert (keys.has("one"), keys.has("two"), keys.has("")) == (False, True, True)


FOREIGN = st.binary(max_size=200) | st.lists(
    st.dictionaries(
        st.sampled_from(["kty", "kid", "alg", "use", "crv", "x", "y", "n", "e", "d", "k"]),
        st.none()
        | st.integers()
        | st.sampled_from(["EC", "RSA", "OKP", "oct", "P-256", "Ed25519", "ES256", "RS256", "AQAB", "sig"])
        | st.lists(st.text(max_size=2), max_size=2),
    ),
    max_size=3,
).map(lambda keys: msgspec.json.encode({"keys": keys}))


@given(FOREIGN)
def test_whatever_an_issuer_sends_is_keys_or_unreadable(content: bytes) -> None:
    with contextlib.suppress(Unreadable):
        read_keys(content, ALGORITHMS)

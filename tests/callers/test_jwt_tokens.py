"""JSON Web Tokens: what is believed, what is not, and that a token that was verified is not verified again."""

import base64
import hashlib
import hmac
import itertools
from typing import Any

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callers.kit import AUDIENCE, ISSUER, NO_EXPIRY, FakeKeysHttp, Issuer, jwt_settings, public_pem, unsigned
from manual_clock import ManualClock
from warmline_server.callers.caller import Caller, NamePattern, Refused
from warmline_server.callers.issuer_keys import read_keys
from warmline_server.callers.jwt_tokens import MAX_REMEMBERED, JwtTokens, Verified, verify
from warmline_server.callers.key_source import KeyUrl
from warmline_server.settings import Jwt

NOW = 1_700_000_000.0
ISSUER_1, ISSUER_2 = Issuer(), Issuer(key_id="other")


def verified(
    token: str, issuer: Issuer = ISSUER_1, *, now: float = NOW, jwks: bytes = b"", **settings: Any
) -> Verified:
    used = jwt_settings(**settings)
    keys = read_keys(jwks or issuer.jwks(), used.algorithms)
    return verify(token, keys, used, NamePattern(used.tenant_pattern), now)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_token_of_each_algorithm_names_its_tenant(algorithm: str) -> None:
    issuer = Issuer(algorithm)

    found = verified(issuer.token(sub="tenant-a", exp=NOW + 1), issuer, algorithms=(algorithm,))

    assert (found.caller, found.expires_unix_s) == (Caller("tenant-a", "tenant-a"), NOW + 1)


def forged_with_public_key(jwks_key: bytes) -> str:
    """Signed with the issuer's public key as if it were a shared secret."""
    token = ISSUER_1.token(headers={"alg": "ES256"})
    head = base64.urlsafe_b64encode(msgspec.json.encode({"alg": "HS256", "kid": "key-1"})).rstrip(b"=").decode()
    signed = f"{head}.{token.split('.')[1]}"
    signature = hmac.new(jwks_key, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


GOOD = ISSUER_1.token()
TURNED = GOOD[:-40] + GOOD[-40:-30][::-1] + GOOD[-30:]
RSA = Issuer("RS256", key_id="key-1")
BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no token": ("x", {}, "shows no token that is known"),
    "two parts": (GOOD.rpartition(".")[0], {}, "shows no token that is known"),
    "signature turned": (TURNED, {}, "the token's signature does not match"),
    "signature gone": (GOOD.rpartition(".")[0] + ".", {}, "the token's signature does not match"),
    "another's key": (ISSUER_2.token(headers={"kid": "key-1"}), {}, "the token's signature does not match"),
    "unknown key": (ISSUER_2.token(), {}, "the token's key is not the issuer's"),
    "none": (unsigned(GOOD, alg="none", kid="key-1"), {}, "the token's algorithm is not accepted"),
    "None": (unsigned(GOOD, alg="None", kid="key-1"), {}, "the token's algorithm is not accepted"),
    "no algorithm": (unsigned(GOOD, kid="key-1"), {}, "shows no token that is known"),
    "algorithm is a list": (unsigned(GOOD, alg=["ES256"], kid="key-1"), {}, "shows no token that is known"),
    "key id is a number": (unsigned(GOOD, alg="ES256", kid=1), {}, "shows no token that is known"),
    "shared secret": (forged_with_public_key(public_pem(ISSUER_1.key)), {}, "the token's algorithm is not accepted"),
    "not pinned": (RSA.token(algorithm="PS256"), {"jwks": RSA.jwks()}, "the token's algorithm is not accepted"),
    "unknown demand": (ISSUER_1.token(headers={"crit": ["future"], "future": 1}), {}, "shows no token that is known"),
    "another issuer": (ISSUER_1.token(iss="https://other.example"), {}, "the token is of another issuer"),
    "no issuer": (ISSUER_1.token(iss=None), {}, "the token lacks a claim"),
    "another audience": (ISSUER_1.token(aud="others"), {}, "the token is for another audience"),
    "no audience": (ISSUER_1.token(aud=None), {}, "the token lacks a claim"),
    "no end": (ISSUER_1.token(exp=None), {}, "the token lacks a claim"),
    "end is a text": (ISSUER_1.token(exp="99999999999"), {}, "the token has a time that is none"),
    "end is true": (ISSUER_1.token(exp=True), {}, "the token has a time that is none"),
    "end is no date": (ISSUER_1.token(exp=1e300), {}, "the token has a time that is none"),
    "ended": (ISSUER_1.token(exp=NOW - 30), {}, "the token has expired"),
    "not begun": (ISSUER_1.token(nbf=NOW + 31), {}, "the token is not valid yet"),
    "no tenant": (ISSUER_1.token(sub=None), {}, "names no tenant"),
    "tenant is a list": (ISSUER_1.token(team=["a"]), {"tenant_claim": "team"}, "names no tenant"),
    "tenant is blank": (ISSUER_1.token(team=""), {"tenant_claim": "team"}, "names no tenant"),
    "tenant has a line end": (ISSUER_1.token(team="a\nb"), {"tenant_claim": "team"}, "names no tenant"),
    "tenant is long": (ISSUER_1.token(team="a" * 257), {"tenant_claim": "team"}, "names no tenant"),
    "tenant does not match": (ISSUER_1.token(sub="xteam/a"), {"tenant_pattern": "team/(.+)"}, "names no tenant"),
}


@pytest.mark.parametrize("case", BAD)
def test_token_is_not_believed_and_the_log_knows_why(case: str) -> None:
    token, settings, why = BAD[case]

    with pytest.raises(Refused) as caught:
        verified(token, **settings)

    assert caught.value.why == why


@pytest.mark.parametrize(
    ("claims", "settings"),
    [
        ({"exp": NOW - 29}, {}),
        ({"nbf": NOW + 29}, {}),
        ({"exp": NOW - 99}, {"leeway_s": 100.0}),
        ({"aud": ["others", AUDIENCE]}, {}),
        ({"iat": NOW + 1000}, {}),
        ({"sub": "team/tenant-a"}, {"tenant_pattern": "team/(.+)"}),
        ({"sub": "me", "team": "tenant-a"}, {"tenant_claim": "team"}),
    ],
)
def test_token_is_believed_within_what_the_settings_allow(claims: dict[str, Any], settings: dict[str, Any]) -> None:
    assert verified(ISSUER_1.token(**claims), **settings).caller.tenant == "tenant-a"


def test_token_without_a_key_id_is_of_the_only_key() -> None:
    token = without_key_id(ISSUER_1)
    two = msgspec.json.encode({"keys": [ISSUER_1.jwk("key-1"), ISSUER_2.jwk("other")]})

    assert verified(token).caller.tenant == "tenant-a"
    with pytest.raises(Refused):
        verified(token, jwks=two)


def without_key_id(issuer: Issuer) -> str:
    """A good token that names no key."""
    return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "tenant-a", "exp": NO_EXPIRY}, issuer.key, "ES256")


async def remembering(issuer: Issuer, clock: ManualClock, **settings: Any) -> tuple[JwtTokens, FakeKeysHttp]:
    used: Jwt = jwt_settings(**settings)
    http = FakeKeysHttp([issuer.jwks()])
    return JwtTokens(used, KeyUrl(used, http, clock), clock), http


async def test_token_is_verified_once_and_forgotten_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, count = ManualClock(), itertools.count()
    monkeypatch.setattr("warmline_server.callers.jwt_tokens.verify", lambda *args: (next(count), verify(*args))[1])
    tokens, _ = await remembering(ISSUER_1, clock)
    token = ISSUER_1.token(exp=clock.unix_ns() / 1e9 + 60)

    found = [await tokens.find(token) for _ in range(3)]
    await clock.advance(60 + 29)
    found.append(await tokens.find(token))
    await clock.advance(1)

    assert {caller.tenant for caller in found} == {"tenant-a"}
    assert next(count) == 1, "verified once"
    for _ in range(2):
        with pytest.raises(Refused, match="expired"):
            await tokens.find(token)


async def test_token_whose_key_was_taken_back_is_not_believed_any_more() -> None:
    clock, issuer = ManualClock(), Issuer()
    tokens, http = await remembering(issuer, clock, keys_cache_s=100.0)
    token = issuer.token()
    await tokens.find(token)
    other = Issuer(key_id="key-2")
    http.answers.append(other.jwks())

    await clock.advance(101)
    await tokens.find(token)  # starts the fetch, and does not wait for it
    await clock.advance(0)

    with pytest.raises(Refused, match="key is not the issuer's"):
        await tokens.find(token)
    assert (await tokens.find(other.token())).tenant == "tenant-a"


async def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmline_server.callers.jwt_tokens.MAX_REMEMBERED", 3)
    tokens, _ = await remembering(ISSUER_1, ManualClock())

    for number in range(10):
        await tokens.find(ISSUER_1.token(sub=f"tenant-{number}"))

    assert MAX_REMEMBERED >= 1000
    assert len(tokens._known) == 3


@given(
    st.text(max_size=200)
    | st.lists(st.binary(max_size=60), min_size=2, max_size=4).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    )
)
def test_whatever_is_shown_is_refused_and_nothing_else_happens(token: str) -> None:
    with pytest.raises(Refused):
        verified(token)


HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "crit", "b64", "typ", "jwk", "jku", "x5c", "zip"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["ES256", "none", "HS256", "key-1"])
    | st.lists(st.text()),
)


@given(HEADERS)
def test_no_header_makes_a_token_of_nobody_good(header: dict[str, Any]) -> None:
    token = unsigned(ISSUER_2.token(), **header)

    with pytest.raises(Refused):
        verified(token)

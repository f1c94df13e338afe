"""An access token that is renewed: over real HTTP where the wire counts, in hand-moved time where that counts."""

import asyncio
import base64
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from credential_kit import FakeTokenHttp, TokenEndpoint, http, reply, write_tokens
from manual_clock import ManualClock, settle
from warmline_server.clock import SystemClock
from warmline_server.core.errors import Heal, Reason, UpstreamFailure
from warmline_server.credentials import (
    AuthFacts,
    CredentialSource,
    Outcome,
    Recovery,
    TokenHttp,
    open_credential,
    token,
)
from warmline_server.settings import Credential
from warmline_server.transport.http import HttpTransport


@pytest.fixture
async def wire() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(SystemClock(), proxy=None)
    yield transport
    await transport.close()


def oauth(
    path: Path,
    http: TokenHttp,
    *,
    url: str = "http://127.0.0.1:1/token",
    clock: ManualClock | None = None,
    write_back: bool = True,
    scope: str = "",
) -> CredentialSource:
    settings = Credential(
        source="oauth",
        file=str(path),
        token_url=url,
        client_id="me",
        client_secret_env="CLIENT_SECRET",
        scope=scope,
        write_back=write_back,
    )
    environ = {"CLIENT_SECRET": "my secret"}
    return open_credential(settings, http=http, clock=clock or ManualClock(), environ=environ)


def bearer(value: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {value}")]


def facts(step: str, outcome: Outcome) -> AuthFacts:
    return AuthFacts("oauth", "Authorization", step, outcome)


async def failed(recovery: Recovery) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await recovery.next_step()
    return caught.value


def answer(value: str, **fields: object) -> bytes:
    return msgspec.json.encode({"access_token": value, **fields})


# The wire


@pytest.mark.conformance("C-066")
async def test_refused_token_is_refreshed_and_the_new_one_sent(tmp_path: Path, wire: HttpTransport) -> None:
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1", account_id="acc")
    async with TokenEndpoint(reply(access_token="new", refresh_token="r2", expires_in=3600)) as endpoint:
        credential = oauth(path, wire, url=endpoint.url, scope="a b")
        assert await credential.headers() == [*bearer("old"), ("ChatGPT-Account-ID", "acc")]
        recovery = credential.start_recovery()

        assert await recovery.next_step() is True

        assert await credential.headers() == [*bearer("new"), ("ChatGPT-Account-ID", "acc")]
        assert recovery.facts == facts("refresh_token", Outcome.RECOVERED)
    assert endpoint.forms == [
        {
            "grant_type": "refresh_token",
            "refresh_token": "r1",
            "client_id": "me",
            "client_secret": "my secret",
            "scope": "a b",
        }
    ]
    assert "content-type: application/x-www-form-urlencoded" in endpoint.heads[0].lower()


async def test_renewed_tokens_are_written_back_and_nothing_else_is_touched(tmp_path: Path, wire: HttpTransport) -> None:
    path = tmp_path / "auth.json"
    tokens = {"id_token": "id", "access_token": "old", "refresh_token": "r1", "account_id": "acc"}
    write_tokens(path, OPENAI_API_KEY=None, tokens=tokens)
    path.chmod(0o640)
    async with TokenEndpoint(reply(access_token="new", refresh_token="r2", expires_in=3600)) as endpoint:
        clock = ManualClock()
        credential = oauth(path, wire, url=endpoint.url, clock=clock)
        await credential.headers()

        await credential.start_recovery().next_step()

    expires_at = clock.unix_ns() // 10**9 + 3600
    assert msgspec.json.decode(path.read_bytes()) == {
        "OPENAI_API_KEY": None,
        "tokens": {**tokens, "access_token": "new", "refresh_token": "r2", "expires_at": expires_at},
    }
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["auth.json"]
    assert await oauth(path, wire).headers() == await credential.headers()


@pytest.mark.conformance("C-067")
@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_refused_refresh_is_final_and_its_token_not_sent_again(
    tmp_path: Path, wire: HttpTransport, status: int
) -> None:
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    async with TokenEndpoint(http(status, b'{"error":"invalid_grant"}')) as endpoint:
        credential = oauth(path, wire, url=endpoint.url)
        await credential.headers()
        recovery = credential.start_recovery()

        failure = await failed(recovery)

        assert (failure.reason, failure.heal) == (Reason.UPSTREAM_AUTH, Heal.NEVER)
        assert failure.text == f"refresh the credential: the token endpoint answered {status}"
        assert recovery.facts == facts("refresh_token", Outcome.PERMANENT_ERROR)
        assert (await failed(credential.start_recovery())).heal is Heal.NEVER
        assert len(endpoint.forms) == 1


@pytest.mark.conformance("C-067")
@pytest.mark.parametrize("status", [0, 429, 500, 503])
async def test_refresh_that_fails_for_now_is_worth_a_resend(tmp_path: Path, wire: HttpTransport, status: int) -> None:
    path, clock = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1"), ManualClock()
    async with TokenEndpoint(http(status), reply(access_token="new")) as endpoint:
        credential = oauth(path, wire, url=endpoint.url, clock=clock)
        await credential.headers()
        recovery = credential.start_recovery()

        failure = await failed(recovery)

        assert (failure.reason, failure.heal, failure.delay_s) == (Reason.UPSTREAM_UNREACHABLE, Heal.RESEND, 1.0)
        assert recovery.facts == facts("refresh_token", Outcome.TRANSIENT_ERROR)
        await clock.advance(1.0)
        assert await recovery.next_step() is True
        assert await credential.headers() == bearer("new")


async def test_redirect_of_the_token_endpoint_is_not_followed(tmp_path: Path, wire: HttpTransport) -> None:
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    async with TokenEndpoint(reply(access_token="stolen")) as elsewhere:
        async with TokenEndpoint(http(307, b"", f"Location: {elsewhere.url}")) as endpoint:
            credential = oauth(path, wire, url=endpoint.url)
            await credential.headers()

            failure = await failed(credential.start_recovery())

        assert failure.text == "refresh the credential: the token endpoint answered 307"
        assert elsewhere.forms == []


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"access_token": 1}', b'{"access_token": "a b"}', b"\xff"])
async def test_answer_without_a_token_that_can_be_sent_is_a_failure_for_now(
    tmp_path: Path, wire: HttpTransport, body: bytes
) -> None:
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    async with TokenEndpoint(http(200, body)) as endpoint:
        credential = oauth(path, wire, url=endpoint.url)
        await credential.headers()

        failure = await failed(credential.start_recovery())

    assert failure.heal is Heal.RESEND
    assert failure.text.startswith("refresh the credential: of the token endpoint's answer, it ")


async def test_many_refusals_at_once_cost_one_refresh(tmp_path: Path, wire: HttpTransport) -> None:
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    async with TokenEndpoint(reply(access_token="new")) as endpoint:
        endpoint.gate.clear()
        credential = oauth(path, wire, url=endpoint.url)
        await credential.headers()
        recoveries = [credential.start_recovery() for _ in range(100)]
        early = [asyncio.create_task(recovery.next_step()) for recovery in recoveries[:50]]
        await endpoint.asked.wait()
        late = [asyncio.create_task(recovery.next_step()) for recovery in recoveries[50:]]
        await settle()
        endpoint.gate.set()

        assert await asyncio.gather(*early, *late) == [True] * 100

        assert await credential.start_recovery().next_step() is True
        assert len(endpoint.forms) == 1


# Steps


@pytest.mark.conformance("C-066")
async def test_token_that_somebody_else_renewed_is_taken_before_any_refresh(tmp_path: Path) -> None:
    path, token_http = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1"), FakeTokenHttp()
    credential = oauth(path, token_http)
    await credential.headers()
    recovery = credential.start_recovery()
    write_tokens(path, access_token="theirs", refresh_token="r2")

    assert await recovery.next_step() is True

    assert await credential.headers() == bearer("theirs")
    assert recovery.facts == facts("reload", Outcome.RECOVERED)
    assert token_http.requests == 0


@pytest.mark.conformance("C-067")
async def test_recovery_has_nothing_left_after_its_last_step(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    credential = oauth(path, FakeTokenHttp(answer("new")))
    await credential.headers()
    recovery = credential.start_recovery()
    assert await recovery.next_step() is True

    assert await recovery.next_step() is False

    assert recovery.facts == facts("refresh_token", Outcome.RECOVERED)


@pytest.mark.conformance("C-067")
async def test_refresh_without_a_refresh_token_is_a_final_failure(tmp_path: Path) -> None:
    credential = oauth(write_tokens(tmp_path / "t", access_token="old"), FakeTokenHttp())
    await credential.headers()

    failure = await failed(credential.start_recovery())

    assert (failure.heal, failure.text) == (Heal.NEVER, "refresh the credential: there is no refresh token")


async def test_new_refresh_token_is_tried_after_the_former_was_refused(tmp_path: Path) -> None:
    path, clock = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1"), ManualClock()
    token_http = FakeTokenHttp(400, answer("new"))
    credential = oauth(path, token_http, clock=clock)
    await credential.headers()
    await failed(credential.start_recovery())
    write_tokens(path, access_token="old", refresh_token="r2")
    await clock.advance(1.0)

    assert await credential.start_recovery().next_step() is True

    assert await credential.headers() == bearer("new")


async def test_file_that_is_behind_does_not_bring_the_refused_token_back(tmp_path: Path) -> None:
    path, clock = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1"), ManualClock()
    token_http = FakeTokenHttp(answer("new", refresh_token="r2"), answer("newer"))
    credential = oauth(path, token_http, clock=clock, write_back=False)
    await credential.headers()
    await credential.start_recovery().next_step()
    await clock.advance(60.0)

    assert await credential.start_recovery().next_step() is True

    assert await credential.headers() == bearer("newer")
    assert msgspec.json.decode(path.read_bytes()) == {"access_token": "old", "refresh_token": "r1"}


async def test_tokens_that_cannot_be_written_back_are_used_and_the_loss_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gone").mkdir()
    path = write_tokens(tmp_path / "gone" / "t", access_token="old", refresh_token="r1")
    credential = oauth(path, FakeTokenHttp(answer("new")))
    await credential.headers()
    path.unlink()

    assert await credential.start_recovery().next_step() is True

    assert await credential.headers() == bearer("new")
    assert "renewed tokens not written back" in [r.msg for r in caplog.records if r.levelno == logging.ERROR]


# Time


def now_unix_s(clock: ManualClock) -> int:
    return clock.unix_ns() // 10**9


def jwt(expires_unix_s: int) -> str:
    claims = base64.urlsafe_b64encode(msgspec.json.encode({"exp": expires_unix_s})).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


@pytest.mark.parametrize("as_jwt", [False, True], ids=["expires_at", "JSON Web Token"])
async def test_token_near_its_end_is_renewed_while_it_is_still_used(tmp_path: Path, as_jwt: bool) -> None:
    clock = ManualClock()
    expires = now_unix_s(clock) + 1000
    tokens = {"access_token": jwt(expires)} if as_jwt else {"access_token": "old", "expires_at": expires}
    path = write_tokens(tmp_path / "t", refresh_token="r1", **tokens)
    token_http = FakeTokenHttp(answer("new", expires_in=1000))
    credential = oauth(path, token_http, clock=clock, write_back=False)

    await clock.advance(699.0)
    assert await credential.headers() == bearer(str(tokens["access_token"]))
    await settle()
    assert token_http.requests == 0

    await clock.advance(1.0)
    assert await credential.headers() == bearer(str(tokens["access_token"]))
    await settle()
    assert await credential.headers() == bearer("new")
    assert token_http.requests == 1


async def test_expired_token_is_never_sent(tmp_path: Path) -> None:
    clock = ManualClock()
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1", expires_at=now_unix_s(clock))

    assert await oauth(path, FakeTokenHttp(answer("new")), clock=clock).headers() == bearer("new")


async def test_token_that_lives_shorter_than_the_margin_is_renewed_in_the_middle_of_its_life(tmp_path: Path) -> None:
    clock = ManualClock()
    token_http = FakeTokenHttp(answer("a", expires_in=60), answer("b", expires_in=60))
    credential = oauth(write_tokens(tmp_path / "t", refresh_token="r1"), token_http, clock=clock, write_back=False)

    for at_s, requests in ((0.0, 1), (29.0, 1), (1.0, 2), (29.0, 2)):
        await clock.advance(at_s)
        await credential.headers()
        await settle()
        assert token_http.requests == requests


@pytest.mark.parametrize("fields", [{"expires_in": 0}, {"access_token": "e30.eyJleHAiOjV9.c2ln"}], ids=["none", "past"])
async def test_new_token_that_seems_expired_is_used_until_it_is_refused(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    token_http = FakeTokenHttp(msgspec.json.encode({"access_token": "new"} | fields))
    credential = oauth(write_tokens(tmp_path / "t", refresh_token="r1"), token_http, write_back=False)

    assert len({str(await credential.headers()) for _ in range(3)}) == 1
    assert token_http.requests == 1


async def test_file_with_a_refresh_token_alone_is_enough(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "t", tokens={"refresh_token": "r1"})

    assert await oauth(path, FakeTokenHttp(answer("new"))).headers() == bearer("new")


async def test_failed_early_renewal_is_not_noticed_by_callers_and_tried_again_later(tmp_path: Path) -> None:
    clock = ManualClock()
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1", expires_at=now_unix_s(clock) + 200)
    token_http = FakeTokenHttp(503, answer("new"))
    credential = oauth(path, token_http, clock=clock, write_back=False)

    for _ in range(3):
        assert await credential.headers() == bearer("old")
        await settle()
    assert token_http.requests == 1

    await clock.advance(1.0)
    await credential.headers()
    await settle()
    assert await credential.headers() == bearer("new")


async def test_silent_token_endpoint_is_given_up_in_time(tmp_path: Path) -> None:
    clock, token_http = ManualClock(), FakeTokenHttp(None)
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    credential = oauth(path, token_http, clock=clock)
    await credential.headers()
    recovering = asyncio.create_task(failed(credential.start_recovery()))
    await clock.advance(9.9)
    assert not recovering.done()

    await clock.advance(0.1)

    failure = await recovering
    assert (failure.heal, failure.text) == (Heal.RESEND, "renew the credential: not done within 10.0 s")
    assert token_http.cancelled == 1


async def test_caller_that_leaves_does_not_end_the_refresh(tmp_path: Path) -> None:
    token_http = FakeTokenHttp(answer("new"))
    token_http.gate.clear()
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    credential = oauth(path, token_http, write_back=False)
    await credential.headers()
    recovery = credential.start_recovery()
    leaver = asyncio.create_task(recovery.next_step())
    await settle()

    leaver.cancel()
    await settle()
    token_http.gate.set()
    await settle()

    assert leaver.cancelled()
    assert await credential.headers() == bearer("new")
    assert (token_http.requests, token_http.cancelled) == (1, 0)


async def test_close_ends_a_refresh_under_way(tmp_path: Path) -> None:
    token_http = FakeTokenHttp(None)
    path = write_tokens(tmp_path / "t", access_token="old", refresh_token="r1")
    credential = oauth(path, token_http)
    await credential.headers()
    recovering = asyncio.create_task(credential.start_recovery().next_step())
    await settle()

    await credential.close()

    assert token_http.cancelled == 1
    await asyncio.wait([recovering])
    assert asyncio.all_tasks() == {asyncio.current_task()}


DEEP = b"[" * 5000


@pytest.mark.parametrize(
    "content",
    [
        b'{"access_token":"a","x":' + DEEP + b"}",
        b'{"access_token":"a","account_id":"a\\r\\nX-Evil: 1"}',
        b'{"access_token":"a","account_id":"caf\xc3\xa9"}',
    ],
    ids=["too deep", "line break in the account", "account beyond ASCII"],
)
def test_answer_that_no_token_endpoint_gives_is_malformed(content: bytes) -> None:
    with pytest.raises(token.Malformed):
        token.from_file(content)
    with pytest.raises(token.Malformed):
        token.from_reply(content, token.Token("former"), 0.0)


@pytest.mark.parametrize("odd", [b"9" * 5000, b"[" * 700 + b"]" * 700], ids=["number beyond reason", "deep"])
def test_file_with_a_part_that_cannot_be_kept_is_written_anew(odd: bytes) -> None:
    content = b'{"access_token":"a","x":' + odd + b"}"

    renewed = token.renewed_file(content, token.Token("b", "", 5.0, "r"))

    assert token.from_file(renewed) == token.Token("b", "", 5.0, "r")


def test_claims_that_are_too_deep_tell_no_expiry() -> None:
    claims = base64.urlsafe_b64encode(b'{"x":' + DEEP).decode().rstrip("=")

    assert token.expiry_of(f"a.{claims}.b") is None

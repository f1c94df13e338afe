"""A secret in every place that a credential passes through, and every way it could get out."""

import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credential_kit import CANARY, FakeTokenHttp, write_tokens
from manual_clock import ManualClock
from warmline_server.core.errors import UpstreamFailure
from warmline_server.credentials import open_credential, token
from warmline_server.credentials.token import Malformed
from warmline_server.settings import Credential

ILLEGAL = f"{CANARY} with a blank"
TEXTS = (CANARY, f"{CANARY}!", ILLEGAL, f'{{"access_token": "{CANARY}"', f'{{"tokens": ["{CANARY}"]}}')
ANSWERS: list[bytes | int] = [
    msgspec.json.encode({"access_token": CANARY, "refresh_token": CANARY}),
    msgspec.json.encode({"access_token": ILLEGAL}),
    msgspec.json.encode({"access_token": [CANARY]}),
    CANARY.encode(),
    400,
    503,
]


def cases(directory: Path) -> Iterator[tuple[Credential, FakeTokenHttp]]:
    """Every source, with a secret that can be used and with some that cannot."""
    for number, text in enumerate(TEXTS):
        path = directory / f"key{number}"
        path.write_text(text)
        yield Credential(source="env", env=f"KEY{number}"), FakeTokenHttp()
        yield Credential(source="file", file=str(path)), FakeTokenHttp()
        program = (sys.executable, "-S", "-c", "import sys; print(sys.argv[1]); sys.exit(len(sys.argv[1]) % 2)", text)
        yield Credential(source="command", command=program), FakeTokenHttp()
        yield _oauth(path), FakeTokenHttp()
    for number, answer in enumerate(ANSWERS):
        path = write_tokens(directory / f"tokens{number}", access_token=f"{CANARY}-1", refresh_token=CANARY)
        yield _oauth(path), FakeTokenHttp(answer, answer)


def _oauth(path: Path) -> Credential:
    url = "http://127.0.0.1:1/token"
    return Credential(source="oauth", file=str(path), token_url=url, client_id="me", client_secret_env="KEY0")


async def test_no_secret_is_in_any_repr_error_log_or_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    environ = {f"KEY{number}": text for number, text in enumerate(TEXTS)}
    shown: list[str] = []
    sent = failures = 0
    for settings, http in cases(tmp_path):
        credential = open_credential(settings, http=http, clock=ManualClock(), environ=environ)
        recovery = credential.start_recovery()
        for step in (credential.headers, recovery.next_step, recovery.next_step, credential.headers):
            try:
                sent += CANARY in str(await step())
            except UpstreamFailure as failure:
                failures += 1
                shown += [str(failure), repr(failure), repr(failure.words), *traceback.format_exception(failure)]
        shown += [repr(held) for held in (credential, vars(credential), recovery, vars(recovery))]
    shown += [repr(vars(record)) + record.getMessage() for record in caplog.records]

    assert min(sent, failures, len(caplog.records)) > 10
    assert [text for text in shown if CANARY in text] == []


FOREIGN = st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["access_token", "refresh_token", "tokens", "expires_at", "expires_in", "account_id"]),
            inner,
        )
    ),
).map(msgspec.json.encode)


@given(FOREIGN)
def test_whatever_others_write_is_a_token_or_malformed(content: bytes) -> None:
    former = token.Token("former")
    for read in (token.from_text, token.from_file, lambda body: token.from_reply(body, former, 0.0)):
        try:
            found = read(content)
        except Malformed:
            continue
        assert not found.value or found.value.isascii()
        assert token.from_file(token.renewed_file(content, token.Token("a", "", 5.0, "b"))).value == "a"
    token.expiry_of(content.decode("latin-1"))

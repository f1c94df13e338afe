"""What a call shows, whose static token it is, and what a certificate tells."""

from pathlib import Path

import pytest

from callers.kit import replace, sha256, tokens_toml
from warmline_server.callers import Caller, Refused
from warmline_server.callers.bearer import MAX_TOKEN_BYTES, shown_token
from warmline_server.callers.certificates import Certificates
from warmline_server.callers.reloaded import BadFile, Reloaded, Unreadable
from warmline_server.callers.static_tokens import find, read_tokens
from warmline_server.settings import Tls

DIGEST = sha256("token-1")


@pytest.mark.parametrize(
    ("values", "token"),
    [
        ([], None),
        (["Bearer abc"], "abc"),
        (["bearer abc"], "abc"),
        (["BEARER  abc "], "abc"),
    ],
)
def test_token_is_what_follows_bearer(values: list[str], token: str | None) -> None:
    assert shown_token([("x-other", "1"), *(("authorization", value) for value in values)]) == token


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ["abc"],
        ["Bearer"],
        ["Bearer "],
        ["Basic abc"],
        ["Bearer abc", "Bearer abc"],
        ["Bearer a\x7fb"],
        ["Bearer " + "a" * (MAX_TOKEN_BYTES + 1)],
    ],
)
def test_what_is_no_bearer_token_is_refused_and_not_passed_over(values: list[str]) -> None:
    with pytest.raises(Refused):
        shown_token([("authorization", value) for value in values])


def test_token_is_found_by_its_digest_alone() -> None:
    text = f'[[token]]\ntenant = "a"\nname = "agent"\nsha256 = "{DIGEST.upper()}"\n' + tokens_toml(b="token-2")
    callers = read_tokens(text.encode())

    assert find(callers, "token-1") == Caller("a", "agent")
    assert find(callers, "token-2") == Caller("b")
    for wrong in ("token-3", "", "token-1 ", DIGEST, "Token-1"):
        assert find(callers, wrong) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[token", "it is no TOML"),
        ("\udcff", "it is no TOML"),
        ("a = " + "[" * 100_000, "it is no TOML"),
        ('token = "CANARY"', "it is no list of"),
        (f'[[token]]\nsha256 = "{DIGEST}"', "it is no list of"),
        (f'[[token]]\ntenant = 1\nsha256 = "{DIGEST}"', "it is no list of"),
        (f'[[token]]\ntenant = "a"\nsha256 = "{DIGEST}"\nvalue = "CANARY"', "it is no list of"),
        (f'[[token]]\ntenant = ""\nsha256 = "{DIGEST}"', "token 1: tenant"),
        (f'[[token]]\ntenant = "a\\nb"\nsha256 = "{DIGEST}"', "token 1: tenant"),
        ('[[token]]\ntenant = "a"\nsha256 = "CANARY"', "token 1: sha256 is not 64"),
        (tokens_toml(a="1", b="1"), "token 2: its digest is there before"),
    ],
)
def test_file_of_tokens_says_what_is_wrong_and_quotes_nothing(text: str, why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_tokens(text.encode(errors="surrogateescape"))

    assert str(caught.value).startswith(why)
    assert "CANARY" not in str(caught.value)


def test_file_counts_as_it_is_now(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tokens.toml"
    replace(path, tokens_toml(a="one").encode())
    tokens = Reloaded(str(path), read_tokens)

    steps = []
    for content in (None, tokens_toml(a="two"), "broken =", "broken =", tokens_toml(a="one"), ""):
        if content is not None:
            replace(path, content.encode())
        steps.append([name for name in ("one", "two") if find(tokens.current(), name)])
    path.unlink()
    steps.append([name for name in ("one", "two") if find(tokens.current(), name)])

    assert steps == [["one"], ["two"], ["two"], ["two"], ["one"], [], []]
    errors = [str(vars(record)["why"]) for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"{path}: it is no TOML", f"{path}: No such file or directory"], "each cause once"


def test_file_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file or directory"):
        Reloaded(str(tmp_path / "tokens.toml"), read_tokens)


def test_file_of_another_size_than_any_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_bytes(b"#" * 300_000)

    with pytest.raises(BadFile, match="File too large"):
        Reloaded(str(path), read_tokens)


CERTIFICATE = {
    "x509_pem_cert": [b"-----BEGIN"],
    "peer_spiffe_id": [b"spiffe://example.org/ns/team-a/sa/agent"],
    "peer_dns": [b"agent.team-a.example", b"agent.internal"],
    "x509_common_name": [b"agent"],
}


@pytest.mark.parametrize(
    ("settings", "caller"),
    [
        (Tls(), Caller("spiffe://example.org/ns/team-a/sa/agent", "spiffe://example.org/ns/team-a/sa/agent")),
        (
            Tls(tenant_pattern="spiffe://example[.]org/ns/([^/]+)/sa/.*"),
            Caller("team-a", "spiffe://example.org/ns/team-a/sa/agent"),
        ),
        (Tls(tenant_from="common_name"), Caller("agent", "agent")),
        (
            Tls(tenant_from="dns", tenant_pattern="[^.]+[.](.+)[.]example"),
            Caller("team-a", "agent.team-a.example"),
        ),
    ],
)
def test_certificate_names_its_tenant(settings: Tls, caller: Caller) -> None:
    assert Certificates(settings).find(CERTIFICATE) == caller


@pytest.mark.parametrize(
    ("settings", "context"),
    [
        (Tls(), {}),
        (Tls(), {"peer_spiffe_id": CERTIFICATE["peer_spiffe_id"]}),
        (Tls(), {"x509_pem_cert": [b"-----BEGIN"]}),
        (Tls(tenant_from="none"), CERTIFICATE),
        (Tls(tenant_from="dns"), CERTIFICATE),
        (Tls(tenant_from="dns", tenant_pattern="(.*)"), CERTIFICATE),
        (Tls(tenant_pattern="spiffe://example[.]org/ns/([^/]+)"), CERTIFICATE),
        (Tls(tenant_pattern="spiffe://other[.]org/.*"), CERTIFICATE),
        (Tls(tenant_from="common_name"), CERTIFICATE | {"x509_common_name": [b""]}),
        (Tls(tenant_from="common_name"), CERTIFICATE | {"x509_common_name": [b"a\nb"]}),
        (Tls(tenant_from="common_name", tenant_pattern="(x)?.*"), CERTIFICATE),
    ],
)
def test_certificate_that_names_no_one_tenant_is_refused(settings: Tls, context: dict[str, list[bytes]]) -> None:
    with pytest.raises(Refused):
        Certificates(settings).find(context)

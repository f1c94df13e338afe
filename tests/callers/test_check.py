"""What `warmline config check` says of the files that callers are known by."""

from pathlib import Path

import pytest

from callers.kit import Authority, Issuer, replace, tokens_toml
from warmline_server.callers.check import check_callers
from warmline_server.settings import Auth, Jwt, Tls

AUTHORITY = Authority()


def whole(folder: Path) -> Auth:
    """Settings that name good files in `folder`."""
    replace(folder / "tokens.toml", tokens_toml(a="token").encode())
    replace(folder / "keys.json", Issuer().jwks())
    replace(folder / "ca.pem", AUTHORITY.pem)
    chain, key = AUTHORITY.server().write(folder, "server")
    return Auth(
        tokens_file=str(folder / "tokens.toml"),
        jwt=Jwt(jwks_file=str(folder / "keys.json")),
        tls=Tls(cert_file=chain, key_file=key, client_ca_file=str(folder / "ca.pem")),
    )


def test_good_files_are_no_finding(tmp_path: Path) -> None:
    assert list(check_callers(whole(tmp_path))) == []
    assert list(check_callers(Auth())) == []


@pytest.mark.parametrize(
    ("name", "content", "level", "key", "why"),
    [
        ("tokens.toml", b"x", "error", "auth.tokens_file", "tokens.toml: it is no TOML"),
        ("tokens.toml", b"", "warning", "auth.tokens_file", "tokens.toml holds no token"),
        ("keys.json", b"x", "error", "auth.jwt.jwks_file", "keys.json: it is no JSON Web Key Set"),
        ("server.pem", b"x", "error", "auth.tls", "server.pem: it holds no certificate in PEM"),
        ("server.key", AUTHORITY.server().key, "error", "auth.tls", "server.key: it is not the key of"),
        ("ca.pem", b"x", "error", "auth.tls", "ca.pem: it holds no certificate in PEM"),
    ],
)
def test_bad_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, level: str, key: str, why: str
) -> None:
    auth = whole(tmp_path)
    replace(tmp_path / name, content)

    (finding,) = check_callers(auth)

    assert (finding.level, finding.key) == (level, key)
    assert why in finding.text

"""The server's certificate as files that are replaced, together or one after the other."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from callers.kit import Authority, Pair, replace
from warmline_server.callers.reloaded import BadFile
from warmline_server.callers.server_certificate import ServerCertificate, read_material
from warmline_server.settings import Tls

AUTHORITY = Authority()
ONE, TWO = AUTHORITY.server(), AUTHORITY.server()


def files(folder: Path, pair: Pair = ONE, authorities: bytes = AUTHORITY.pem) -> Tls:
    chain, key = pair.write(folder, "server")
    replace(folder / "ca.pem", authorities)
    return Tls(cert_file=chain, key_file=key, client_ca_file=str(folder / "ca.pem"))


def test_files_that_stay_are_not_told_again(tmp_path: Path) -> None:
    certificate = ServerCertificate(files(tmp_path))

    assert certificate.material.chain == ONE.chain
    assert [certificate.renewed() for _ in range(3)] == [None] * 3


def test_replaced_files_are_told_once(tmp_path: Path) -> None:
    certificate = ServerCertificate(files(tmp_path))
    other = Authority("other")

    files(tmp_path, TWO)
    first = [certificate.renewed(), certificate.renewed()]
    files(tmp_path, TWO, other.pem)
    second = [certificate.renewed(), certificate.renewed()]

    assert first[0] is not None
    assert (first[0].chain, first[0].authorities, first[1]) == (TWO.chain, AUTHORITY.pem, None)
    assert second[0] is not None
    assert (second[0].authorities, second[1]) == (other.pem, None)


def test_between_certificate_and_key_the_former_ones_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = files(tmp_path)
    certificate = ServerCertificate(settings)

    replace(Path(settings.cert_file), TWO.chain)
    between = [certificate.renewed() for _ in range(3)]
    replace(Path(settings.key_file), TWO.key)
    after = certificate.renewed()

    assert between == [None] * 3
    assert after is not None
    assert after.key == TWO.key
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told == ["the former certificate is kept"], "once, however many callers come meanwhile"


def test_file_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    settings = files(tmp_path)
    certificate = ServerCertificate(settings)

    Path(settings.key_file).unlink()
    gone = certificate.renewed()
    replace(Path(settings.key_file), ONE.key)

    assert (gone, certificate.renewed()) == (None, None)


def with_passphrase() -> bytes:
    key = serialization.load_pem_private_key(ONE.key, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"CANARY"),
    )


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("server.pem", b"", "server.pem: it holds no certificate in PEM"),
        ("server.pem", b"CANARY", "server.pem: it holds no certificate in PEM"),
        ("server.pem", ONE.key, "server.pem: it holds no certificate in PEM"),
        ("server.key", b"CANARY", "server.key: it is no key in PEM without a passphrase"),
        ("server.key", with_passphrase(), "server.key: it is no key in PEM without a passphrase"),
        ("server.key", ONE.chain, "server.key: it is no key in PEM without a passphrase"),
        ("server.key", TWO.key, "server.key: it is not the key of the certificate in"),
        ("ca.pem", b"CANARY", "ca.pem: it holds no certificate in PEM"),
        ("ca.pem", None, "ca.pem: No such file or directory"),
    ],
)
def test_start_says_which_file_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    settings = files(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        replace(tmp_path / name, content)

    with pytest.raises(BadFile) as caught:
        ServerCertificate(settings)

    assert why in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_key_is_in_no_repr(tmp_path: Path) -> None:
    assert "PRIVATE KEY" not in repr(read_material(files(tmp_path)))

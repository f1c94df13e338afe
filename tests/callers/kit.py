"""Whoever vouches for callers in tests: an authority that signs certificates, an issuer that signs tokens."""

import asyncio
import base64
import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from warmline_server.core import failures
from warmline_server.settings import Jwt

ISSUER, AUDIENCE = "https://issuer.example", "warmline"
NO_EXPIRY = 10**11


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    chain: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Puts both into files, in the place of former ones. Returns: their paths."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in zip(paths, (self.chain, self.key), strict=True):
            replace(path, content)
        return str(paths[0]), str(paths[1])


def replace(path: Path, content: bytes) -> None:
    """Puts a new file into the place of another, as a Secret volume does."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


class Authority:
    """Signs certificates for a day."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key, [], is_authority=True)
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    def server(self) -> Pair:
        """A certificate for 127.0.0.1."""
        return self._pair("server", [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])

    def client(self, common_name: str = "", *, uris: Sequence[str] = (), dns: Sequence[str] = ()) -> Pair:
        """A caller's certificate with these names."""
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        return self._pair(common_name, names)

    def _pair(self, common_name: str, names: Sequence[x509.GeneralName]) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        certificate = self._sign(subject, key, names, is_authority=False)
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), private_pem(key))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        *,
        is_authority: bool,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def private_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: Key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Issuer:
    """Signs tokens with one key at a time; `rotate` takes another."""

    def __init__(self, algorithm: str = "ES256", key_id: str = "key-1") -> None:
        self.algorithm = algorithm
        self.keys: dict[str, Key] = {}
        self.key_id = key_id
        self.rotate(key_id)

    @property
    def key(self) -> Key:
        """What it signs with now."""
        return self.keys[self.key_id]

    def rotate(self, key_id: str) -> None:
        """Signs with a new key from now on; the set has the former ones too."""
        self.key_id = key_id
        if self.algorithm.startswith(("RS", "PS")):
            self.keys[key_id] = rsa.generate_private_key(65537, 2048)
        elif self.algorithm == "EdDSA":
            self.keys[key_id] = ed25519.Ed25519PrivateKey.generate()
        else:
            curves: dict[str, ec.EllipticCurve] = {
                "ES256": ec.SECP256R1(),
                "ES384": ec.SECP384R1(),
                "ES512": ec.SECP521R1(),
            }
            self.keys[key_id] = ec.generate_private_key(curves[self.algorithm])

    def jwks(self, **more: Any) -> bytes:
        """Its key set; `more` are fields of every key."""
        return msgspec.json.encode({"keys": [self.jwk(key_id) | more for key_id in self.keys]})

    def jwk(self, key_id: str) -> dict[str, Any]:
        """One public key."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        fields: dict[str, Any] = algorithm.to_jwk(self.keys[key_id].public_key(), as_dict=True)
        return {**fields, "kid": key_id, "use": "sig", "key_ops": ["verify"]}

    def token(
        self, *, headers: dict[str, Any] | None = None, key: Any = None, algorithm: str = "", **claims: Any
    ) -> str:
        """A token of tenant-a for an age; `claims` stand in for those made here, None takes one away."""
        made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "tenant-a", "exp": NO_EXPIRY, **claims}
        return jwt.encode(
            {name: value for name, value in made.items() if value is not None},
            self.key,
            algorithm=algorithm or self.algorithm,
            headers={"kid": self.key_id, **(headers or {})},
        )


def unsigned(token: str, **header: Any) -> str:
    """The same claims under a header of one's own, with the signature that was there."""
    encoded = base64.urlsafe_b64encode(msgspec.json.encode(header)).rstrip(b"=").decode()
    return ".".join([encoded, *token.split(".")[1:]])


def jwt_settings(**fields: Any) -> Jwt:
    """Settings that take the issuer's tokens; `fields` stand in for those made here."""
    made: dict[str, Any] = {"jwks_url": "https://issuer.example/keys", "issuer": ISSUER, "audience": AUDIENCE}
    return Jwt(**{**made, **fields})


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes


@dataclass
class FakeKeysHttp:
    """An issuer's endpoint. Each answer is a body, or a number for none; the last one is given again and again."""

    answers: list[bytes | int]
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def get(
        self, url: str, headers: Sequence[tuple[str, str]], *, connect_timeout_s: float, timeout_s: float
    ) -> Reply:
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        await self.gate.wait()
        if isinstance(answer, int):
            raise failures.connect_failed(f"status {answer}")
        return Reply(answer)


def tokens_toml(**tokens: str) -> str:
    """A file of tokens, by tenant."""
    return "".join(f'[[token]]\ntenant = "{tenant}"\nsha256 = "{sha256(token)}"\n' for tenant, token in tokens.items())


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

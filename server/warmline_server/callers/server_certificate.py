"""The server's certificate and the authorities of its callers, as files that somebody replaces while it runs."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from warmline_server.callers.reloaded import BadFile
from warmline_server.settings import Tls

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Material:
    """What a handshake needs, as PEM. `authorities` None: callers are asked for no certificate."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes | None = None


def read_material(settings: Tls) -> Material:
    """The files' content. Raises: BadFile when one cannot be used, or they do not belong together."""
    material = Material(
        _read(settings.cert_file),
        _read(settings.key_file),
        _read(settings.client_ca_file) if settings.client_ca_file else None,
    )
    certificate = _certificates(material.chain, settings.cert_file)[0]
    try:
        key = load_pem_private_key(material.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if key is None:
        raise BadFile(settings.key_file, "it is no key in PEM without a passphrase")
    if key.public_key() != certificate.public_key():
        raise BadFile(settings.key_file, f"it is not the key of the certificate in {settings.cert_file}")
    if material.authorities is not None:
        _certificates(material.authorities, settings.client_ca_file)
    return material


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise BadFile(name, error.strerror or type(error).__name__) from None


def _certificates(content: bytes, name: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        found = []
    if not found:
        raise BadFile(name, "it holds no certificate in PEM")
    return found


class ServerCertificate:
    """What the next handshake uses. `current` is called by gRPC's threads, before each handshake."""

    def __init__(self, settings: Tls, read: Callable[[Tls], Material] = read_material) -> None:
        """Raises: BadFile: a server starts with files that can be used."""
        self._settings = settings
        self._read = read
        self._lock = threading.Lock()
        self._seen = self._look()
        self._why_bad = ""
        self.material = read(settings)

    def renewed(self) -> Material | None:
        """What is new since the last call; None when nothing is, or what is new cannot be used."""
        with self._lock:
            seen = self._look()
            if seen == self._seen and not self._why_bad:
                return None
            # Files that are replaced one after the other do not fit in between, so what was bad is looked at again.
            self._seen = seen
            try:
                material = self._read(self._settings)
            except BadFile as error:
                if str(error) != self._why_bad:
                    _log.error("the former certificate is kept", extra={"why": str(error)})
                self._why_bad = str(error)
                return None
            self._why_bad = ""
            if material == self.material:
                return None
            self.material = material
        _log.info("certificate renewed")
        return material

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        """What tells that a file was replaced: a Secret volume does it by a new inode."""
        return tuple(
            _state(name)
            for name in (self._settings.cert_file, self._settings.key_file, self._settings.client_ca_file)
            if name
        )


def _state(name: str) -> tuple[int, int, int]:
    try:
        status = Path(name).stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)

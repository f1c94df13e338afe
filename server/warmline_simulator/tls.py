"""TLS for the simulator's port: from files, or a certificate made for the run."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

DAYS = "2"
"""A certificate made for a run needs no longer life."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context that serves this certificate. OSError or ssl.SSLError when the files cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def make_certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Make a self-signed certificate for localhost and `host`; returns certificate and key files in `folder`.

    Raises:
        FileNotFoundError: the `openssl` command is not installed.
        subprocess.CalledProcessError: it failed.
    """
    command = shutil.which("openssl")
    if command is None:
        raise FileNotFoundError("make a certificate: the openssl command was not found — install it or pass --tls-cert")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = f"subjectAltName=DNS:localhost,IP:127.0.0.1{'' if host == '127.0.0.1' else f',DNS:{host}'}"
    subprocess.run(  # noqa: S603 — a fixed command; the names in it are the operator's own arguments
        [
            command, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", DAYS, "-subj", "/CN=localhost", "-addext", names, "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key

"""Certificates for one run: an authority, a server for the name `warmline.test`, a client; another authority."""

import subprocess
from pathlib import Path

SERVER_NAME = "warmline.test"


def make(folder: Path) -> None:
    """Writes ca, other, server and client, each a `.pem` and a `.key`.

    Raises: OSError, CalledProcessError without openssl.
    """
    for name in ("ca", "other"):
        made = ("-subj", f"/CN=interop {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        _openssl(folder, "req", "-x509", *_KEY, "-days", "2", *made)
    (folder / "names").write_text(f"subjectAltName=DNS:{SERVER_NAME}")
    for name in ("server", "client"):
        _openssl(folder, "req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        _openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-extfile", "names", "-out", f"{name}.pem",
        )  # fmt: skip


# PKCS #8, which every language's TLS library reads.
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

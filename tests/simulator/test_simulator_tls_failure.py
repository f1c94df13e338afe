"""What a failed TLS handshake leaves behind: nothing."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from warmline_simulator import Simulator


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's context whose certificate nobody trusts."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command, *files, "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_simulator_ends_after_a_client_that_does_not_trust_it(tmp_path: Path) -> None:
    async with Simulator(tls=self_signed(tmp_path)) as sim:
        port = int(sim.base_url.rsplit(":", 1)[1].split("/")[0])

        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())

    assert sim.counters.sockets_total == 0

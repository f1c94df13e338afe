"""The built-in `openai` upstream with nothing but a key: the same line as everywhere, behind TLS."""

import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

import warmline
from e2e.kit import Refusal, config, refused, turn_request
from transport.http_kit import raw_server
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_server.app import App
from warmline_server.settings import load
from warmline_simulator import Simulator
from warmline_simulator.records import Headers, RequestRecord

KEY = "sk-the-key-of-this-test"

# What a client of the public API sends; everything else would be private to one provider's own client.
PUBLIC_HEADERS = {
    "host",
    "authorization",
    "user-agent",
    "x-client-request-id",
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
}
PRIVATE_FIELDS = {"client_metadata", "stream_id"}


def openssl(*arguments: str | Path, folder: Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path, name: str = "127.0.0.1") -> None:
    """Makes `ca.pem`, and `server.pem` with `server.key` that it signed for an address."""
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(
        "req", "-x509", *new_key, "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem", folder=folder
    )
    openssl("req", *new_key[:-2], "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr", folder=folder)
    (folder / "names").write_text(f"subjectAltName=IP:{name}\n")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "2", "-extfile", "names", "-out", "server.pem", folder=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    return folder


def server_context(authority: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    return context


@asynccontextmanager
async def server_of(
    base_url: str, monkeypatch: pytest.MonkeyPatch, *, trusted: Path | None, key: str = KEY
) -> AsyncIterator[warmline.Client]:
    """A server with the settings of a fresh machine, but for where `openai` is and whom to trust besides the system."""
    environ = {
        "OPENAI_API_KEY": key,
        "WARMLINE_LISTEN": "127.0.0.1:0",
        "WARMLINE_UPSTREAMS__OPENAI__BASE_URL": base_url,
    }
    if trusted is not None:
        environ["WARMLINE_UPSTREAMS__OPENAI__CA_BUNDLE"] = str(trusted)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    retry = warmline.CallRetry(max_tries=1)
    async with App(load(None, environ)) as app, warmline.Client(app.address, retry=retry) as client:
        yield client


@asynccontextmanager
async def openai_line(
    authority: Path, monkeypatch: pytest.MonkeyPatch, *, key: str = KEY
) -> AsyncIterator[tuple[Simulator, warmline.Client]]:
    """Such a server before a simulator that takes `KEY` alone."""
    async with (
        Simulator(tls=server_context(authority), tokens=[KEY]) as sim,
        server_of(sim.base_url, monkeypatch, trusted=authority / "ca.pem", key=key) as client,
    ):
        yield sim, client


async def run_turns(client: warmline.Client, *, http: bool) -> list[warmline.TurnResult]:
    """Two turns of a session that was warmed."""
    session_config = types.SessionConfig(
        request_defaults=types.RequestOptions(model="gpt-4.1-mini"),
        fallback_policy=types.FallbackPolicy(http_only=http),
    )
    results = []
    conversation: list[warmline.ItemLike] = ["hello"]
    async with client.session("one", session_config) as session:
        await session.preconnect(wait=True)
        for _ in range(2):
            async with session.turn(conversation) as turn:
                results.append(await turn.result())
            conversation += [*results[-1].items, "and again"]
    return results


def assert_public(headers: Headers) -> None:
    assert headers["authorization"] == f"Bearer {KEY}"
    assert {name for name in headers if name not in PUBLIC_HEADERS} == set()


async def test_key_alone_gives_a_warm_line_over_wss(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with openai_line(authority, monkeypatch) as (sim, client):
        first, second = await run_turns(client, http=False)
        requests: list[RequestRecord] = sim.requests

    assert (first.slot_outcome, first.transport) == ("ADOPTED", "WEBSOCKET")
    assert (second.slot_outcome, second.incremental) == ("REUSED", True)
    assert second.text.startswith("You said: and again")
    assert len(sim.handshakes) == 1
    assert_public(sim.handshakes[0].headers)
    assert requests[1].previous_response_id == first.response_id
    for request in requests:
        assert PRIVATE_FIELDS.isdisjoint(request.body)
        assert "stream" not in request.body, "the public API implies it"


async def test_key_alone_gives_a_line_over_https(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with openai_line(authority, monkeypatch) as (sim, client):
        first, second = await run_turns(client, http=True)

    assert (first.slot_outcome, first.transport, sim.handshakes) == ("NONE", "HTTP", [])
    assert first.upstream_request_id == sim.posts()[0].request_id
    assert second.text.startswith("You said: and again")
    for request in sim.posts():
        assert_public(request.headers)
        assert PRIVATE_FIELDS.isdisjoint(request.body)
        assert (request.body["stream"], request.body["store"]) == (True, False)


async def refused_once(client: warmline.Client, *, http: bool) -> Refusal:
    """A turn that is not sent again and must fail, also where an upstream that is not refused says nothing."""
    session_config = config(fallback_policy=types.FallbackPolicy(http_only=http))
    request = turn_request("one", session_config=session_config, retry=turns.RETRY_MODE_NEVER)
    return await refused(client.turns.StreamTurn(request, timeout=5))


@pytest.mark.parametrize("http", [False, True], ids=["wss", "https"])
@pytest.mark.parametrize("trusts", [False, True], ids=["unknown authority", "another name"])
async def test_upstream_that_is_not_whom_it_should_be_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusts: bool, http: bool
) -> None:
    make_authority(tmp_path, name="127.0.0.2" if trusts else "127.0.0.1")
    trusted = tmp_path / "ca.pem" if trusts else None
    async with raw_server(server_context(tmp_path)) as server:
        base_url = f"https://127.0.0.1:{server.port}/v1"
        async with server_of(base_url, monkeypatch, trusted=trusted) as client:
            told = await refused_once(client, http=http)
        assert server.peers == [], "no handshake succeeded, so no byte of a request was sent"

    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    assert "TLS certificate not accepted" in told.text


@pytest.mark.parametrize("http", [False, True], ids=["wss", "https"])
async def test_key_that_is_refused_is_the_operators_affair_and_stays_hidden(
    authority: Path, monkeypatch: pytest.MonkeyPatch, http: bool
) -> None:
    wrong = "sk-a-wrong-key"
    async with openai_line(authority, monkeypatch, key=wrong) as (_, client):
        told = await refused_once(client, http=http)

    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_AUTH")
    assert told.retry_after_s is None
    assert wrong not in repr(told)

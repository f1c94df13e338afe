"""The channel: TLS, tokens, limits, trace context, and what every call carries."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

import warmline
from client.fake_server import Call, FakeServer, Refusal, admitted, answer, completed, says, text
from interop.relay import open_relay
from warmline.v1 import session_service_pb2

GOT = session_service_pb2.GetSessionResponse()


async def get(client: warmline.Client, session_id: str = "session-1") -> None:
    await client.session(session_id, start="attach").get()


async def test_every_session_call_carries_the_sessions_key(server: FakeServer, session: warmline.Session) -> None:
    async def watched(call: Call) -> None:
        await call.write(session_service_pb2.WatchSessionResponse())

    server.on("GetSession", answer(GOT))
    server.on("StreamTurn", says("yes"))
    server.on("WatchSession", watched)

    await session.get()
    async with session.turn("Well?") as turn:
        await turn.result()
    async with session.watch() as states:
        await anext(states)

    assert [call.metadata["x-warmline-session"] for call in server.calls] == ["session-1"] * 3


async def test_session_id_that_no_header_can_carry_reaches_the_server_to_be_refused(
    server: FakeServer, client: warmline.Client
) -> None:
    server.on("GetSession", answer(GOT))

    await get(client, "nö\r\nx: y")

    assert server.calls[0].request.session_id == "nö\r\nx: y"
    assert "x-warmline-session" not in server.calls[0].metadata


async def test_token_is_sent_as_bearer_without_its_line_end(server: FakeServer) -> None:
    server.on("GetSession", answer(GOT))

    async with warmline.Client(server.target, token="secret\n") as client:
        await get(client)

    assert server.calls[0].metadata["authorization"] == "Bearer secret"


async def test_token_function_is_asked_before_each_call(server: FakeServer) -> None:
    tokens = iter(["first", "second"])

    async def current() -> str:
        return next(tokens)

    server.on("GetSession", answer(GOT), answer(GOT))

    async with warmline.Client(server.target, token=current) as client:
        await get(client)
        await get(client)

    assert [call.metadata["authorization"] for call in server.calls] == ["Bearer first", "Bearer second"]


async def test_token_that_no_header_can_carry_is_refused_without_showing_it(server: FakeServer) -> None:
    async with warmline.Client(server.target, token="sec\nret") as client:
        with pytest.raises(ValueError, match="send token") as caught:
            await get(client)

    assert "ret" not in str(caught.value)


@pytest.mark.parametrize("target", ["warmline.example:443", "dns:///127.0.0.1.example:1", "10.0.0.1:50051"])
def test_token_beyond_this_machine_needs_tls(target: str) -> None:
    with pytest.raises(ValueError, match="plain text"):
        warmline.Client(target, token="secret")

    warmline.Client(target, token="secret", tls=True)
    warmline.Client(target, token="secret", allow_plaintext_token=True)


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "localhost:1", "[::1]:1", "unix:/run/warmline.sock"])
def test_token_on_this_machine_needs_no_tls(target: str) -> None:
    warmline.Client(target, token="secret")


async def test_loopback_is_not_sent_through_a_proxy(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.on("GetSession", answer(GOT))

    async with warmline.Client(server.target) as client:
        await get(client)


async def test_message_longer_than_grpcs_own_limit_comes_through(server: FakeServer, session: warmline.Session) -> None:
    long = "x" * 6_000_000

    async def step(call: Call) -> None:
        await call.send(admitted(), text(long), completed())

    server.on("StreamTurn", step)

    async with session.turn(long) as turn:
        result = await turn.result()

    assert result.text == long
    assert server.calls[0].request.input[0].message.text == long


async def test_message_longer_than_the_clients_limit_is_a_typed_error(server: FakeServer) -> None:
    async with (
        warmline.Client(server.target, max_message_bytes=1000) as client,
        client.session("s", start="attach").turn("x" * 2000) as turn,
    ):
        with pytest.raises(warmline.LimitExceededError):
            await turn.result()

    assert server.calls == []


async def test_grpcs_own_resends_are_off(server: FakeServer) -> None:
    async with warmline.Client(
        server.target,
        retry=warmline.CallRetry(max_tries=1),
        channel_options=[("grpc.service_config", RETRYING_SERVICE_CONFIG)],
    ) as client:
        server.on("StreamTurn", unavailable)
        async with client.session("s", start="attach").turn("Go.") as turn:
            with pytest.raises(warmline.UnavailableError):
                await turn.result()

    assert len(server.calls) == 1


RETRYING_SERVICE_CONFIG = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4,
    "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""


async def unavailable(call: Call) -> None:
    raise Refusal(grpc.StatusCode.UNAVAILABLE)


async def test_trace_context_goes_along_when_a_span_is_current(server: FakeServer, session: warmline.Session) -> None:
    server.on("StreamTurn", says("a"), says("b"))
    tracer = TracerProvider().get_tracer("test")

    with tracer.start_as_current_span("agent") as span:
        async with session.turn("Well?") as turn:
            await turn.result()
    async with session.turn("Well?") as turn:
        await turn.result()

    trace_id = format(span.get_span_context().trace_id, "032x")
    assert server.calls[0].metadata["traceparent"].split("-")[1] == trace_id
    assert "traceparent" not in server.calls[1].metadata


def test_client_imports_with_grpc_and_protobuf_alone() -> None:
    script = """
import sys
class Only:
    allowed = {"warmline", "grpc", "google", "typing_extensions"}  # the last is grpcio's
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in self.allowed and root not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"blocked {name}", name=name)
sys.meta_path.insert(0, Only())
import warmline, warmline.sync
assert not [m for m in sys.modules if m.startswith(("opentelemetry", "msgspec", "httpx"))]
print(warmline.Client("127.0.0.1:1").__class__.__name__)
"""

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout) == (0, "Client\n"), run.stderr


async def test_raw_stubs_stay_reachable(server: FakeServer, client: warmline.Client) -> None:
    server.on("GetSession", answer(GOT))

    assert await client.sessions.GetSession(session_service_pb2.GetSessionRequest(session_id="s")) == GOT
    assert client.turns.StreamTurn is not None
    assert client.traces.ListInferences is not None


async def test_client_that_is_not_open_says_so() -> None:
    client = warmline.Client()

    with pytest.raises(RuntimeError, match="not open"):
        client.session("s")


async def test_client_opened_twice_is_refused(client: warmline.Client) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        await client.__aenter__()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away authority with a certificate for "warmline.test" and one for a client."""
    folder = tmp_path_factory.mktemp("pki")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
            "-keyout", "ca.key", "-out", "ca.pem", folder=folder)  # fmt: skip
    for name in ("warmline.test", "client"):
        (folder / "extensions").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr", folder=folder)  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "extensions", "-out", f"{name}.pem", folder=folder)  # fmt: skip
    return folder


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
async def mtls_server(pki: Path) -> AsyncIterator[FakeServer]:
    credentials = grpc.ssl_server_credentials(
        [((pki / "warmline.test.key").read_bytes(), (pki / "warmline.test.pem").read_bytes())],
        root_certificates=(pki / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    async with FakeServer(credentials=credentials) as fake:
        yield fake


async def test_mtls_server_serves_a_client_with_its_certificate(mtls_server: FakeServer, pki: Path) -> None:
    tls = warmline.Tls.from_files(
        root_certificates=pki / "ca.pem",
        certificate_chain=pki / "client.pem",
        private_key=pki / "client.key",
        server_name="warmline.test",
    )
    mtls_server.on("GetSession", answer(GOT))

    async with warmline.Client(mtls_server.target, tls=tls, token="secret") as client:
        await get(client)

    assert mtls_server.calls[0].metadata["authorization"] == "Bearer secret"


async def test_mtls_server_refuses_a_client_without_certificate(mtls_server: FakeServer, pki: Path) -> None:
    tls = warmline.Tls.from_files(root_certificates=pki / "ca.pem", server_name="warmline.test")

    async with warmline.Client(mtls_server.target, tls=tls, retry=warmline.CallRetry(max_tries=1)) as client:
        with pytest.raises(warmline.UnavailableError):
            await get(client)


async def test_server_of_another_name_is_not_trusted(mtls_server: FakeServer, pki: Path) -> None:
    tls = warmline.Tls.from_files(root_certificates=pki / "ca.pem", server_name="other.test")

    async with warmline.Client(mtls_server.target, tls=tls, retry=warmline.CallRetry(max_tries=1)) as client:
        with pytest.raises(warmline.UnavailableError):
            await get(client)


def test_private_key_is_not_shown() -> None:
    assert "hush" not in repr(warmline.Tls(private_key=b"hush"))


async def test_connection_that_fell_silent_is_noticed_within_the_keepalives_limits(server: FakeServer) -> None:
    async def think(call: Call) -> None:
        await call.send(admitted())
        await call.wait_cancelled()

    server.on("StreamTurn", think)
    async with (
        open_relay(server.target) as relay,
        warmline.Client(relay.address, keepalive_s=0.5, keepalive_timeout_s=0.5) as client,
        client.session("s", start="lazy").turn("Well?") as turn,
    ):
        await anext(turn)
        relay.mute()

        with pytest.raises(warmline.UnavailableError):
            await turn.result()

"""A secret in everything that callers and the operator authenticate with, and a search through everything that is told.

The logs are at debug; channelz tells of every connection; the secrets are proved to be in use.
"""

import io
import sys
import traceback
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from google.protobuf import text_format
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

import warmline
from callers.kit import AUDIENCE, ISSUER, Authority, Issuer, replace, sha256
from e2e.guarded import guarded
from e2e.kit import config, turn_request
from e2e.line import hear
from e2e.test_callers import Endpoint, endpoint
from observe.spans import EndedSpans
from warmline.v1 import session_service_pb2 as sessions
from warmline_server.app import App
from warmline_server.observe import log_pipe
from warmline_server.settings import Auth, Credential, Jwt, Telemetry, Tls
from warmline_simulator import Simulator

MARK = "CANARY"
STATIC = f"{MARK}-static-token"
AUTHORITY, ISSUER_1 = Authority(), Issuer()
GOOD = ISSUER_1.token(sub="tenant-a", note=f"{MARK}-claim")
EXPIRED = ISSUER_1.token(sub="tenant-a", exp=1)
FORGED = Issuer().token(sub=f"{MARK}-forged")


def secrets() -> dict[str, str]:
    """Each secret, and every part of one that could be told by itself."""
    found = {"static": STATIC, "digest": sha256(STATIC)}
    for name, token in (("good", GOOD), ("expired", EXPIRED), ("forged", FORGED)):
        for part, text in zip(("header", "claims", "signature"), token.split("."), strict=True):
            if part != "header":
                found[f"{name} {part}"] = text
    return found


async def _ask(client: warmline.Client, *metadata: tuple[str, str]) -> str:
    """A call of each shape, as its caller sees it."""
    shown = ""
    request = sessions.ListSessionsRequest()
    for call in (
        client.sessions.ListSessions(request, metadata=metadata),
        client.turns.StreamTurn(turn_request("made", session_config=config()), metadata=metadata),
    ):
        try:
            if isinstance(call, grpc.aio.UnaryStreamCall):
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            shown += repr(error) + str(error.trailing_metadata()) + "".join(traceback.format_exception(error))
    return shown


async def _channelz(address: str) -> str:
    """Everything that the admin port tells."""
    async with grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = channelz_pb2_grpc.ChannelzStub(channel)
        told: list[Any] = [await stub.GetServers(channelz_pb2.GetServersRequest())]
        told.append(await stub.GetTopChannels(channelz_pb2.GetTopChannelsRequest()))
        for server in told[0].server:
            found = await stub.GetServerSockets(channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id))
            told.append(found)
            for ref in found.socket_ref:
                told.append(await stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=ref.socket_id)))
        return "".join(text_format.MessageToString(message) for message in told)


async def _life(app: App, tls: warmline.Tls, shown: dict[str, str], folder: Path, keys: Endpoint) -> None:
    """Callers of every kind, good and bad, and files that go bad meanwhile."""
    retry = warmline.CallRetry(max_tries=1)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(warmline.Client(app.address, tls=tls, token=GOOD, retry=retry))
        session = await stack.enter_async_context(client.session("one", config()))
        heard = await hear(session.turn("hello"))
        assert heard.so_far.ending == "completed"
        told = ""
        for value in (STATIC, GOOD, EXPIRED, FORGED, f"{STATIC}-wrong", f"{MARK}.{MARK}.{MARK}"):
            told += await _ask(client, ("authorization", f"Bearer {value}"))
        told += await _ask(client, ("authorization", f"Basic {STATIC}"), ("x-api-key", STATIC))
        told += await _ask(client, *[("authorization", f"Bearer {STATIC}")] * 2)
        replace(folder / "tokens.toml", f'[[token]]\ntenant = "a"\nsha256 = "{STATIC}"\n'.encode())
        replace(folder / "server.key", f"{MARK}-broken-key".encode())
        keys.body = f'{{"keys": [{{"kty": "oct", "k": "{MARK}-key"}}]}}'.encode()
        for value in (STATIC, GOOD):
            told += await _ask(client, ("authorization", f"Bearer {value}"))
        async with warmline.Client(app.address, tls=tls, token=STATIC, retry=retry) as other:
            told += await _ask(other, ("authorization", f"Bearer {STATIC}"))
        shown["errors"] = told
        shown["channelz"] = await _channelz(app.admin_address)
        shown["ring"] = str([each async for each in session.list_inferences()])


async def _live(tmp_path: Path, credential: Credential, shown: dict[str, str]) -> Simulator:
    spans = EndedSpans()
    (tmp_path / "tokens.toml").write_text(f'[[token]]\ntenant = "tenant-s"\nsha256 = "{sha256(STATIC)}"\n')
    chain, key = AUTHORITY.server().write(tmp_path, "server")
    replace(tmp_path / "ca.pem", AUTHORITY.pem)
    pair = AUTHORITY.client(uris=["spiffe://example.org/agent"])
    keys_of_certificates = [pair.key.decode(), (tmp_path / "server.key").read_text()]
    trusted = warmline.Tls(root_certificates=AUTHORITY.pem, certificate_chain=pair.chain, private_key=pair.key)
    async with endpoint(ISSUER_1) as keys:
        auth = Auth(
            tokens_file=str(tmp_path / "tokens.toml"),
            jwt=Jwt(jwks_url=keys.url, issuer=ISSUER, audience=AUDIENCE, keys_cache_s=1e-9),
            tls=Tls(cert_file=chain, key_file=key, client_ca_file=str(tmp_path / "ca.pem")),
        )
        profile = {"credential": credential, "extra_headers": {"X-Extra": f"{MARK}-extra-header"}}
        telemetry = Telemetry(traces=("console",), metrics=("console",), genai_metrics="both", log_level="debug")
        async with guarded(
            auth, profile=profile, admin_listen="127.0.0.1:0", telemetry=telemetry, span_processors=[spans]
        ) as line:
            shown["repr"] = repr(line.app.settings) + repr(vars(line.app))
            await _life(line.app, trusted, shown, tmp_path, keys)
            sim = line.sim
    shown["spans"] = "\n".join(span.to_json() for span in spans.spans)
    for number, text in enumerate(keys_of_certificates):
        # A line of it is as good as a secret, and shorter than what would be wrapped.
        line_of_key = text.splitlines()[1]
        assert line_of_key not in "".join(shown.values()), number
    return sim


def sources(folder: Path) -> Mapping[str, Credential]:
    """Every way that an upstream's credential comes, with a secret of its own."""
    secret = folder / "secret"
    secret.write_text(f"{MARK}-file")
    tokens = folder / "oauth.json"
    tokens.write_bytes(msgspec.json.encode({"access_token": f"{MARK}-oauth", "refresh_token": f"{MARK}-refresh"}))
    program = (sys.executable, "-S", "-c", "import sys; print(sys.argv[1])", f"{MARK}-command")
    return {
        "env": Credential(source="env", env="MARKED_KEY"),
        "file": Credential(source="file", file=str(secret)),
        "command": Credential(source="command", command=program),
        "oauth": Credential(
            source="oauth",
            file=str(tokens),
            token_url="http://127.0.0.1:1/token",
            client_id="me",
            client_secret_env="MARKED_KEY",
        ),
    }


@pytest.mark.parametrize("source", ["env", "file", "command", "oauth"])
async def test_no_secret_of_anybody_is_told_anywhere(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MARKED_KEY", f"{MARK}-env")
    log, shown = io.StringIO(), dict[str, str]()
    pipe = log_pipe.configure("json", "debug", stream=log)
    try:
        sim = await _live(tmp_path, sources(tmp_path)[source], shown)
    finally:
        pipe.close()
    shown["logs"] = log.getvalue()
    shown["output"] = "".join(capfd.readouterr())

    headers = str([request.headers for request in sim.requests] + [each.headers for each in sim.handshakes])
    assert f"{MARK}-{source}" in headers, "the upstream's secret was in use"
    assert f"{MARK}-extra-header" in headers
    assert "caller refused" in shown["logs"], "bad callers were there"
    assert "tenant-a" in shown["spans"], "good callers were there"
    assert all(shown.values()), "every sink was in use"
    wanted = {"mark": MARK, **secrets()}
    found = {
        (sink, name): text[max(0, text.index(secret) - 200) :][:300]
        for sink, text in shown.items()
        for name, secret in wanted.items()
        if secret in text
    }
    assert found == {}

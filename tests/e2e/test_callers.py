"""Who may call the whole server: tokens, JSON Web Tokens, certificates, and what each of them must not do."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import warmline
from callers.kit import AUDIENCE, ISSUER, Authority, Issuer, Pair, replace, tokens_toml
from e2e.guarded import TOKENS, Guarded, guarded, with_tokens
from e2e.kit import config, refused, turn_request
from e2e.line import admitted, answer
from transport.http_kit import raw_server
from warmline.v1 import session_service_pb2 as sessions
from warmline_server.app import LIVENESS, READINESS, App
from warmline_server.settings import Auth, Jwt, Settings, SettingsError, Tls
from warmline_simulator import Gate, Reply, Script, ev

CODE = grpc.StatusCode
NOT_KNOWN = "it is not known who calls: a valid token or certificate is missing"
AUTHORITY = Authority()
LIST = sessions.ListSessionsRequest()


def tenants(line: Guarded) -> set[str]:
    """Of all sessions."""
    return {session.record.tenant for session in line.app.registry.sessions}


# Tokens


async def test_caller_without_a_good_token_gets_nothing_and_no_hint(tmp_path: Path) -> None:
    async with guarded(with_tokens(tmp_path)) as line:
        told = []
        for token in (None, "wrong", TOKENS["a"] + "x", TOKENS["a"][:-1], TOKENS["a"].upper()):
            async with line.client(token) as client:
                metadata = () if token is None else (("authorization", f"Bearer {token}"),)
                for call in (
                    client.sessions.ListSessions(LIST, metadata=metadata),
                    client.sessions.CreateSession(
                        sessions.CreateSessionRequest(session_id="one", config=config()), metadata=metadata
                    ),
                    client.turns.StreamTurn(turn_request("one", session_config=config()), metadata=metadata),
                ):
                    told.append(await refused(call))
        seen = line.sim.handshakes + line.sim.requests

    assert {(refusal.code, refusal.reason, refusal.text) for refusal in told} == {
        (CODE.UNAUTHENTICATED, "UNAUTHENTICATED", NOT_KNOWN)
    }
    assert all(told[0] == refusal for refusal in told)
    assert seen == []


async def test_clients_raise_their_own_error(tmp_path: Path) -> None:
    async with guarded(with_tokens(tmp_path)) as line, line.client("wrong") as client:
        with pytest.raises(warmline.UnauthenticatedError) as caught:
            async with client.session("one", config()):
                pass

    assert "wrong" not in str(caught.value)


async def test_token_that_is_taken_back_ends_at_the_next_call_and_no_running_one(tmp_path: Path) -> None:
    script = Script(
        creates=[Reply(events=[ev.created("r"), Gate("g"), *ev.text_response("done", response_id="r")[1:]])]
    )
    async with (
        guarded(with_tokens(tmp_path), script) as line,
        line.of("a") as a,
        line.of("b") as b,
        a.session("one", config()) as session,
        session.turn("hello") as turn,
    ):
        await admitted(turn)
        await line.sim.wait_for_gate("g")
        replace(tmp_path / "tokens.toml", tokens_toml(b=TOKENS["b"]).encode())
        told = await refused(a.sessions.ListSessions(LIST))
        await b.sessions.ListSessions(LIST)
        line.sim.release("g")
        result = await turn.result()

    assert told.code is CODE.UNAUTHENTICATED
    assert result.text == "done"


async def test_server_does_not_start_with_a_file_that_it_cannot_use(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path)
    (tmp_path / "tokens.toml").write_text('[[token]]\ntenant = "a"\nsha256 = "CANARY"')

    with pytest.raises(SettingsError) as caught:
        async with App(Settings(listen="127.0.0.1:0", auth=auth)):
            pass

    assert "token 1: sha256 is not 64 hexadecimal digits" in str(caught.value)
    assert "CANARY" not in str(caught.value)


# Health and reflection


async def names(channel: grpc.aio.Channel) -> list[int]:
    stub = health_pb2_grpc.HealthStub(channel)
    return [
        (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in ("", READINESS, LIVENESS)
    ]


def plain(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])


async def test_health_is_told_to_anybody(tmp_path: Path) -> None:
    async with guarded(with_tokens(tmp_path)) as line, plain(line.app.address) as channel:
        assert await names(channel) == [health_pb2.HealthCheckResponse.SERVING] * 3


async def test_health_has_a_port_without_tls_that_serves_nothing_else(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path, tls=server_tls(tmp_path, client_authorities=AUTHORITY.pem))
    async with guarded(auth, health_listen="127.0.0.1:0") as line, plain(line.app.health_address) as channel:
        before = await names(channel)
        list_sessions: Any = channel.unary_unary("/warmline.v1.SessionService/ListSessions")
        told = await refused(list_sessions(b"", metadata=(("authorization", f"Bearer {TOKENS['a']}"),)))
        await line.app.drain(0.0)
        after = await names(channel)

    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert (before, after) == ([serving] * 3, [not_serving, not_serving, serving])
    assert told.code is CODE.UNIMPLEMENTED


async def services(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    return [
        service.name
        async for answer in stub.ServerReflectionInfo(iter(asked), metadata=metadata)
        for service in answer.list_services_response.service
    ]


async def test_reflection_is_told_to_callers_alone(tmp_path: Path) -> None:
    async with guarded(with_tokens(tmp_path)) as line, plain(line.app.address) as channel:
        found = await services(channel, ("authorization", f"Bearer {TOKENS['a']}"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services(channel)

    assert "warmline.v1.TurnService" in found
    assert caught.value.code() is CODE.UNAUTHENTICATED


# TLS and certificates


def server_tls(folder: Path, *, client_authorities: bytes | None = None, **fields: Any) -> Tls:
    """The server's TLS, with files in `folder` that are made anew."""
    chain, key = AUTHORITY.server().write(folder, "server")
    if client_authorities is not None:
        replace(folder / "clients.pem", client_authorities)
        fields["client_ca_file"] = str(folder / "clients.pem")
    return Tls(cert_file=chain, key_file=key, **fields)


def trust(pair: Pair | None = None) -> warmline.Tls:
    """A client's side: whom it trusts, and what it shows."""
    shown: dict[str, Any] = {} if pair is None else {"certificate_chain": pair.chain, "private_key": pair.key}
    return warmline.Tls(root_certificates=AUTHORITY.pem, **shown)


async def test_token_over_tls(tmp_path: Path) -> None:
    async with (
        guarded(with_tokens(tmp_path, tls=server_tls(tmp_path))) as line,
        line.client(TOKENS["a"], tls=trust()) as client,
        client.session("one", config()) as session,
    ):
        result = await answer(session.turn("hello"))
        assert tenants(line) == {"a"}

    assert result.ending == "completed"


async def test_plain_text_is_refused_where_there_is_tls(tmp_path: Path) -> None:
    async with guarded(with_tokens(tmp_path, tls=server_tls(tmp_path))) as line, line.of("a") as client:
        told = await refused(client.sessions.ListSessions(LIST))

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "")


SPIFFE = "spiffe://example.org/ns/team-a/sa/agent"
TEAM = "spiffe://example[.]org/ns/([^/]+)/.*"


async def test_certificate_names_the_tenant(tmp_path: Path) -> None:
    tls = server_tls(tmp_path, client_authorities=AUTHORITY.pem, tenant_pattern=TEAM)
    pair = AUTHORITY.client(uris=[SPIFFE])
    async with (
        guarded(Auth(tls=tls)) as line,
        line.client(tls=trust(pair)) as client,
        client.session("one", config()) as session,
    ):
        result = await answer(session.turn("hello"))
        listed = await client.sessions.ListSessions(LIST)
        assert tenants(line) == {"team-a"}

    assert result.ending == "completed"
    assert len(listed.sessions) == 1


@pytest.mark.parametrize(
    "pair",
    [None, Authority("other").client(uris=[SPIFFE]), Authority().client(uris=[SPIFFE])],
    ids=["none", "another authority's", "an authority's of the same name"],
)
async def test_connection_without_a_good_certificate_is_not_made(tmp_path: Path, pair: Pair | None) -> None:
    tls = server_tls(tmp_path, client_authorities=AUTHORITY.pem)
    async with guarded(with_tokens(tmp_path, tls=tls)) as line, line.client(tls=trust(pair)) as client:
        metadata = (("authorization", f"Bearer {TOKENS['a']}"),)
        told = await refused(client.sessions.ListSessions(LIST, metadata=metadata))

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, ""), "a good token does not make up for it"


@pytest.mark.parametrize("pair", [AUTHORITY.client("agent"), AUTHORITY.client(uris=["spiffe://other.org/a"])])
async def test_certificate_that_names_no_tenant_is_refused(tmp_path: Path, pair: Pair) -> None:
    tls = server_tls(tmp_path, client_authorities=AUTHORITY.pem, tenant_pattern=TEAM)
    async with guarded(Auth(tls=tls)) as line, line.client(tls=trust(pair)) as client:
        told = [
            await refused(call)
            for call in (
                client.sessions.ListSessions(LIST),
                client.turns.StreamTurn(turn_request("one", session_config=config())),
            )
        ]

    assert {(each.code, each.reason, each.text) for each in told} == {
        (CODE.UNAUTHENTICATED, "UNAUTHENTICATED", NOT_KNOWN)
    }


async def test_token_goes_before_the_certificate_and_a_bad_one_is_not_made_up_for(tmp_path: Path) -> None:
    tls = server_tls(tmp_path, client_authorities=AUTHORITY.pem, tenant_from="common_name")
    async with (
        guarded(with_tokens(tmp_path, tls=tls)) as line,
        line.client(tls=trust(AUTHORITY.client("of-the-certificate"))) as client,
    ):
        create = client.sessions.CreateSession
        await create(sessions.CreateSessionRequest(session_id="one", config=config()))
        await create(
            sessions.CreateSessionRequest(session_id="one", config=config()),
            metadata=(("authorization", f"Bearer {TOKENS['b']}"),),
        )
        told = await refused(client.sessions.ListSessions(LIST, metadata=(("authorization", "Bearer wrong"),)))
        found = tenants(line)

    assert found == {"of-the-certificate", "b"}
    assert told.code is CODE.UNAUTHENTICATED


def shown_certificate(address: str) -> str:
    """What a new handshake is answered with."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


async def test_new_handshakes_use_replaced_files_and_standing_connections_stay(tmp_path: Path) -> None:
    auth = with_tokens(tmp_path, tls=server_tls(tmp_path))
    async with (
        guarded(auth) as line,
        line.client(TOKENS["a"], tls=trust()) as standing,
        standing.session("one", config()) as session,
    ):
        shown = [await asyncio.to_thread(shown_certificate, line.app.address)]
        renewed = AUTHORITY.server()
        renewed.write(tmp_path, "server")
        shown.append(await asyncio.to_thread(shown_certificate, line.app.address))
        replace(tmp_path / "server.pem", b"broken")
        shown.append(await asyncio.to_thread(shown_certificate, line.app.address))
        (tmp_path / "server.key").unlink()
        shown.append(await asyncio.to_thread(shown_certificate, line.app.address))
        result = await answer(session.turn("hello"))

    assert shown[0] != shown[1]
    assert [text.encode() for text in shown[1:]] == [renewed.chain] * 3
    assert result.ending == "completed"


async def test_authorities_of_callers_are_replaced_too(tmp_path: Path) -> None:
    other = Authority("other")
    pairs = {"old": AUTHORITY.client("agent"), "new": other.client("agent")}
    tls = server_tls(tmp_path, client_authorities=AUTHORITY.pem, tenant_from="common_name")

    async def can_call(line: Guarded, name: str) -> bool:
        async with line.client(tls=trust(pairs[name])) as client:
            return await client.sessions.ListSessions(LIST).code() is CODE.OK

    async with guarded(Auth(tls=tls)) as line:
        before = [await can_call(line, name) for name in pairs]
        replace(tmp_path / "clients.pem", other.pem)
        after = [await can_call(line, name) for name in pairs]

    assert (before, after) == ([True, False], [False, True])


async def test_server_does_not_start_with_a_key_of_another_certificate(tmp_path: Path) -> None:
    tls = server_tls(tmp_path)
    replace(tmp_path / "server.key", AUTHORITY.server().key)

    with pytest.raises(SettingsError, match="it is not the key of the certificate in"):
        async with App(Settings(listen="127.0.0.1:0", auth=Auth(tls=tls))):
            pass


# JSON Web Tokens


@dataclass
class Endpoint:
    """An issuer's real endpoint: what it answers next, and how often it was asked."""

    url: str
    status: str = "200 OK"
    body: bytes = b""
    asked: list[str] = field(default_factory=list)


@asynccontextmanager
async def endpoint(issuer: Issuer) -> AsyncIterator[Endpoint]:
    async with raw_server() as server:
        made = Endpoint(f"http://127.0.0.1:{server.port}/keys", body=issuer.jwks())

        async def serve() -> None:
            while True:
                peer = await server.accept()
                made.asked.append((await peer.read_request()).line)
                peer.send_head(made.status, f"Content-Length: {len(made.body)}", content_type="application/json")
                peer.send(made.body)

        serving = asyncio.create_task(serve())
        yield made
        serving.cancel()
        await asyncio.wait([serving])


def with_jwt(url: str, **fields: Any) -> Auth:
    return Auth(jwt=Jwt(jwks_url=url, issuer=ISSUER, audience=AUDIENCE, **fields))


async def test_token_of_the_issuer_names_the_tenant(tmp_path: Path) -> None:
    issuer = Issuer()
    async with (
        endpoint(issuer) as keys,
        guarded(with_jwt(keys.url)) as line,
        line.client(issuer.token(sub="tenant-a")) as client,
        client.session("one", config()) as session,
    ):
        results = [await answer(session.turn(f"hello {number}")) for number in range(5)]
        found, asked = tenants(line), list(keys.asked)

    assert {result.ending for result in results} == {"completed"}
    assert found == {"tenant-a"}
    assert asked == ["GET /keys HTTP/1.1"], "once, ahead of the first call"


async def test_bad_tokens_of_an_issuer_are_refused_like_any(tmp_path: Path) -> None:
    issuer, other = Issuer(), Issuer()
    bad = [issuer.token(exp=1), issuer.token(aud="others"), other.token(), "x.y.z", issuer.token(nbf=10**11)]
    async with endpoint(issuer) as keys, guarded(with_jwt(keys.url)) as line:
        told = []
        for token in bad:
            async with line.client() as client:
                metadata = (("authorization", f"Bearer {token}"),)
                told.append(await refused(client.sessions.ListSessions(LIST, metadata=metadata)))

    assert {(each.code, each.text) for each in told} == {(CODE.UNAUTHENTICATED, NOT_KNOWN)}


async def test_issuer_that_does_not_answer_stops_only_whose_key_is_not_here() -> None:
    issuer = Issuer()
    old = issuer.token()
    async with endpoint(issuer) as keys, guarded(with_jwt(keys.url)) as line:
        keys.status = "503 Busy"
        issuer.rotate("key-2")
        codes = []
        for token in (old, issuer.token(), issuer.token(), old):
            async with line.client() as client:
                call = client.sessions.ListSessions(LIST, metadata=(("authorization", f"Bearer {token}"),))
                codes.append(await call.code())

    assert codes == [CODE.OK, CODE.UNAUTHENTICATED, CODE.UNAUTHENTICATED, CODE.OK]


async def test_server_without_any_keys_says_when_to_come_back() -> None:
    issuer = Issuer()
    async with endpoint(issuer) as keys:
        keys.status = "302 Found"
        async with guarded(with_jwt(keys.url)) as line, line.client() as client:
            metadata = (("authorization", f"Bearer {issuer.token()}"),)
            told = await refused(client.sessions.ListSessions(LIST, metadata=metadata))
            health = await names_of(line)

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "CALLERS_UNVERIFIABLE")
    assert told.retry_after_s is not None
    assert health == [health_pb2.HealthCheckResponse.SERVING] * 3
    assert keys.asked == ["GET /keys HTTP/1.1"], "no redirect was followed, and the next try comes later"


async def names_of(line: Guarded) -> list[int]:
    async with plain(line.app.address) as channel:
        return await names(channel)


async def test_keys_come_from_a_file_where_there_is_no_way_to_the_issuer(tmp_path: Path) -> None:
    issuer, path = Issuer("RS256"), tmp_path / "keys.json"
    path.write_bytes(issuer.jwks())
    auth = Auth(jwt=Jwt(jwks_file=str(path), issuer=ISSUER, audience=AUDIENCE))
    async with guarded(auth) as line:
        codes = []
        for step in range(2):
            async with line.client() as client:
                call = client.sessions.ListSessions(LIST, metadata=(("authorization", f"Bearer {issuer.token()}"),))
                codes.append(await call.code())
            if step == 0:
                replace(path, Issuer("RS256").jwks())

    assert codes == [CODE.OK, CODE.UNAUTHENTICATED]

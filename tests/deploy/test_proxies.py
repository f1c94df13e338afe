"""What the proxies' configurations say of the server: checked against the server, and by HAProxy itself."""

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grpc_health.v1 import health_pb2

from deploy.health import until_unready
from deploy.programs import find_haproxy
from deploy.rendered import BASE, PROD, ROOT, render
from e2e.line import admitted, open_line
from warmline.connection import SESSION_KEY
from warmline_server.app import READINESS
from warmline_server.rpc import edge
from warmline_server.settings import Limits
from warmline_simulator import Gate, Reply, Script, ev

HAPROXY = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
ENVOY = yaml.safe_load((ROOT / "deploy/envoy/envoy.yaml").read_text())
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
HEADERS, DATA, SETTINGS = 1, 0, 4
END_STREAM, END_HEADERS = 1, 4


def duration_s(words: str) -> float:
    """The duration behind these words of the configuration."""
    found = re.search(rf"\b{words} (\d+)(ms|s|m|h)\b", HAPROXY)
    assert found is not None, words
    return int(found[1]) * UNIT_S[found[2]]


def number(words: str) -> int:
    found = re.search(rf"\b{words} (\d+)\b", HAPROXY)
    assert found is not None, words
    return int(found[1])


def sent_by_the_check() -> bytes:
    return b"".join(bytes.fromhex(text) for text in re.findall(r"^\s*tcp-check send-binary (\S+)$", HAPROXY, re.M))


def expected_by_the_check() -> list[bytes]:
    found = re.findall(r"^\s*tcp-check expect (?:min-recv \d+ )?binary (\S+)$", HAPROXY, re.M)
    return [bytes.fromhex(text) for text in found]


def frames(wire: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each. Source: RFC 9113 §4.1."""
    while wire:
        length = int.from_bytes(wire[:3], "big")
        yield wire[3], wire[4], int.from_bytes(wire[5:9], "big"), wire[9 : 9 + length]
        wire = wire[9 + length :]


def message(serialized: bytes) -> bytes:
    """As gRPC frames it."""
    return b"\0" + len(serialized).to_bytes(4, "big") + serialized


def answer(address: str) -> bytes:
    """What the server answers to the check's bytes, as far as the check reads."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as line:
        line.sendall(sent_by_the_check())
        heard = b""
        while expected_by_the_check()[0] not in heard and (more := line.recv(4096)):
            heard += more
        return heard


def envoy_manager() -> dict[str, Any]:
    """The configuration of Envoy's HTTP filter."""
    (listener,) = ENVOY["static_resources"]["listeners"]
    (manager,) = listener["filter_chains"][0]["filters"]
    return manager["typed_config"]  # type: ignore[no-any-return]


def test_the_check_asks_for_the_readiness() -> None:
    preface, wire = sent_by_the_check()[:24], sent_by_the_check()[24:]
    assert preface == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings, headers, data = frames(wire)
    assert settings == (SETTINGS, 0, 0, b"")
    assert headers[:3] == (HEADERS, END_HEADERS, 1)
    assert b"/grpc.health.v1.Health/Check" in headers[3]
    request = health_pb2.HealthCheckRequest(service=READINESS).SerializeToString()
    assert data == (DATA, END_STREAM, 1, message(request))


def test_the_check_waits_for_serving() -> None:
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
    assert expected_by_the_check() == [message(serving)[:5], message(serving)]


async def test_the_server_answers_the_check() -> None:
    """Over a raw socket, before and while it drains."""
    script = Script(creates=[Reply(events=[Gate("held"), *ev.text_response("done", response_id="resp-1")])])
    anything, serving = expected_by_the_check()
    async with open_line(script) as line, line.session() as session, session.turn("hello") as turn:
        await admitted(turn)
        await line.sim.wait_for_gate("held")
        assert serving in await asyncio.to_thread(answer, line.app.address)
        draining = asyncio.create_task(line.app.drain(5.0))
        await until_unready(line.app)
        heard = await asyncio.to_thread(answer, line.app.address)
        assert anything in heard
        assert serving not in heard
        line.sim.release("held")
        await turn.result()
        await draining


@pytest.mark.parametrize("name", [BASE, PROD])
def test_a_draining_server_is_down_before_it_refuses(name: str, tmp_path: Path) -> None:
    worst_s = duration_s("inter") + duration_s("fastinter") + number("fall") * duration_s("timeout check")
    assert render(name).settings(tmp_path).drain.propagation_s > worst_s


def test_the_proxies_wait_longer_than_the_longest_call() -> None:
    longest_s = Limits().max_turn_duration_s
    for name in ("client", "server", "http-keep-alive"):
        assert duration_s(f"timeout {name}") > longest_s
    assert duration_s("hard-stop-after") >= longest_s
    (route,) = envoy_manager()["route_config"]["virtual_hosts"][0]["routes"]
    assert route["route"]["timeout"] == envoy_manager()["stream_idle_timeout"] == "0s"


def test_the_proxies_route_by_the_key_that_clients_send() -> None:
    assert edge.SESSION_KEY == SESSION_KEY
    assert re.findall(r"^\s*balance hdr\((.+)\)$", HAPROXY, re.M) == [SESSION_KEY]
    (route,) = envoy_manager()["route_config"]["virtual_hosts"][0]["routes"]
    assert route["route"]["hash_policy"] == [{"header": {"header_name": SESSION_KEY}}]


def test_envoy_asks_for_the_readiness_where_the_pods_are(tmp_path: Path) -> None:
    (cluster,) = ENVOY["static_resources"]["clusters"]
    assert cluster["health_checks"][0]["grpc_health_check"]["service_name"] == READINESS
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    service = render(BASE).one("Service", address["address"])
    assert service["spec"]["ports"][0]["port"] == address["port_value"]


def test_haproxy_reads_its_configuration(tmp_path: Path) -> None:
    program = find_haproxy()
    done = subprocess.run(
        [program, "-c", "-f", str(ROOT / "deploy/haproxy/haproxy.cfg")],
        env={**os.environ, "WARMLINE_HAPROXY_SOCKET": str(tmp_path / "stats")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr

"""`warmline serve` and `warmline config check` as processes: exit statuses, and words that help."""

import signal
import socket
from pathlib import Path

import pytest

import warmline
from e2e.kit import config
from e2e.server_process import run, serving
from warmline_simulator import Simulator

SERVE = ("serve", "--listen", "127.0.0.1:0")
CHECK = ("config", "check")


@pytest.mark.parametrize("command", [SERVE, CHECK], ids=["serve", "config check"])
async def test_key_that_is_none_is_named_with_the_nearest_right_one(command: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "warmline.toml"
    file.write_text('[upstreams.mine]\nbase_urll = "https://api.example/v1"\n[limits]\nmax_sesions = 3\n')
    ended = await run(*command, "--config", file)

    assert (ended.status, ended.out) == (2, "")
    assert f"upstreams.mine.base_urll in {file}: found an unknown key" in ended.err
    assert "did you mean upstreams.mine.base_url?" in ended.err
    assert "did you mean limits.max_sessions?" in ended.err, "all of what is wrong, not the first alone"
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", [SERVE, CHECK], ids=["serve", "config check"])
async def test_variable_that_is_none_is_named(command: tuple[str, ...]) -> None:
    ended = await run(*command, environ={"WARMLINE_LIMITS__MAX_SESIONS": "3"})

    assert ended.status == 2
    assert "WARMLINE_LIMITS__MAX_SESIONS" in ended.err
    assert "did you mean limits.max_sessions?" in ended.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[telemetry\n", "no TOML"),
        ("listen = 50051\n", "listen"),
        ('warm_up = "handshakes"\n', "did you mean 'handshake'?"),
        ('default_upstream = "opena"\n', "did you mean 'openai'?"),
        ("[limits]\nmax_lanes = 0\n", "limits.max_lanes"),
        ('listen = "0.0.0.0:50051"\n', "where anybody may call"),
    ],
    ids=["no TOML", "wrong kind", "wrong word", "unknown upstream", "out of range", "open to anybody"],
)
async def test_value_that_cannot_be_is_refused_by_its_key(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "warmline.toml"
    file.write_text(text)
    for command in (SERVE[:1], CHECK):
        ended = await run(*command, "--config", file)
        assert (ended.status, says in ended.err, "Traceback" in ended.err) == (2, True, False), ended.err


async def test_secret_in_the_wrong_place_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "warmline.toml"
    file.write_text('[upstreams.openai]\napi_key = "sk-very-secret"\n')
    ended = await run(*CHECK, "--config", file)

    assert ended.status == 2
    assert "upstreams.openai.api_key" in ended.err
    assert "no secret stands in the configuration" in ended.err
    assert "sk-very-secret" not in ended.err + ended.out


@pytest.mark.parametrize("command", [SERVE, CHECK], ids=["serve", "config check"])
async def test_file_that_is_not_there_is_told(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = await run(*command, "--config", tmp_path / "none.toml")

    assert ended.status == 2
    assert f"{tmp_path / 'none.toml'}: found No such file or directory" in ended.err


@pytest.mark.parametrize("content", [None, "no certificate\n"], ids=["missing", "no certificates in it"])
async def test_authorities_that_cannot_be_read_are_told(content: str | None, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    environ = {"WARMLINE_UPSTREAMS__OPENAI__CA_BUNDLE": str(bundle), "OPENAI_API_KEY": "sk-x"}
    served = await run(*SERVE, environ=environ)
    checked = await run(*CHECK, environ=environ)

    assert (served.status, checked.status) == (2, 1)
    assert "upstreams.openai.ca_bundle" in served.err
    assert "upstreams.openai.ca_bundle" in checked.out
    assert "Traceback" not in served.err


async def test_check_tells_what_calls_will_miss() -> None:
    without = await run(*CHECK)
    with_key = await run(*CHECK, environ={"OPENAI_API_KEY": "sk-x"})

    assert without.status == 1
    assert "error: upstreams.openai.credential.env: the variable OPENAI_API_KEY is not set" in without.out
    assert (with_key.status, with_key.out) == (0, "configuration read; 0 errors, 0 warnings\n")


async def test_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await run("serve", "--listen", address)

    assert ended.status == 1
    assert f"warmline: cannot listen on {address}: the address is in use" in ended.err
    assert "Traceback" not in ended.err


async def test_port_of_another_server_is_not_shared() -> None:
    async with Simulator() as sim, serving(sim.base_url) as server:
        ended = await run("serve", "--listen", server.address)
        assert ended.status == 1
        assert f"cannot listen on {server.address}" in ended.err
        await turn_completes(server.address)


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("serve", "--port", "1"), ("config",)])
async def test_command_line_that_is_wrong_shows_how_it_is_used(arguments: tuple[str, ...]) -> None:
    ended = await run(*arguments)

    assert ended.status == 2
    assert ended.err.startswith("usage: warmline")


async def turn_completes(address: str) -> None:
    async with warmline.Client(address) as client, client.session("one", config()).turn("hello") as turn:
        assert (await turn.result()).text.startswith("You said: hello")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_idle_server_ends_at_once_and_well(number: signal.Signals) -> None:
    async with Simulator() as sim, serving(sim.base_url) as server:
        await turn_completes(server.address)
        server.signal(number)
        await server.logged("draining")
        await server.logged("stopped")
        assert await server.ended() == 0
        await sim.wait_for_connections_closed(1)


async def test_check_reads_the_files_that_callers_are_known_by(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text('[[token]]\ntenant = "a"\nsha256 = "CANARY"\n')
    config = tmp_path / "warmline.toml"
    config.write_text(f'default_upstream = "simulator"\nauth.tokens_file = "{tmp_path}/tokens.toml"\n')

    ended = await run(*CHECK, "--config", config)

    assert ended.status == 1
    assert "error: auth.tokens_file: " in ended.out
    assert "token 1: sha256 is not 64 hexadecimal digits" in ended.out
    assert "CANARY" not in ended.out + ended.err

"""Other gateways: how each is installed, started in front of the same upstream, and kept from telling anybody.

Each lives in `.cache/peers/NAME`, installed there on first use by its registry's ordinary client, at the version
named here. What cannot be installed or started is skipped with the reason in the results.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.children import ROOT, SERVER_CORE, Child, StartError, plain_words
from bench.paths import Path as Way
from bench.paths import Running, Served

PEERS = ROOT / ".cache" / "peers"
UV = ROOT / ".tools" / "bin" / "uv"
INSTALL_LIMIT_S = 900
START_LIMIT_S = 180.0
MODEL = "sim-small"
KEY = "sk-bench"
# Whatever would call home meets a proxy that is not there; loopback is exempt.
_QUIET = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "DO_NOT_TRACK": "1",
    "OTEL_SDK_DISABLED": "true",
    "VIRTUAL_ENV": "",
}
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def free_port() -> int:
    """A port that was free a moment ago, for programs that cannot take one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _install(name: str, version: str, steps: Callable[[Path], Sequence[Sequence[str]]]) -> Path:
    """Runs the steps once per version. Returns: the peer's folder. Raises: StartError with a step's last words."""
    folder = PEERS / name
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == version:
        return folder
    refused = folder / "refused"
    if refused.exists():
        raise StartError(f"{refused.read_text()} (not asked again; remove {refused.relative_to(ROOT)} to try)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for step in steps(folder):
        try:
            done = subprocess.run(
                step,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=INSTALL_LIMIT_S,
                env={**os.environ, "VIRTUAL_ENV": str(folder / "venv")},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StartError(f"installing {name} {version}: {Path(step[0]).name}: {type(error).__name__}") from error
        if done.returncode:
            refused.write_text(f"{name} {version} could not be installed: {plain_words(done.stderr or done.stdout)}")
            raise StartError(refused.read_text())
    stamp.write_text(version)
    return folder


def _venv(python: str, requirement: str) -> Callable[[Path], Sequence[Sequence[str]]]:
    def steps(folder: Path) -> Sequence[Sequence[str]]:
        make = [str(UV), "venv", "--quiet", "--no-python-downloads", "--python", python, str(folder / "venv")]
        return [make, [str(UV), "pip", "install", "--quiet", requirement]]

    return steps


def _until_it_answers(child: Child, plan: Mapping[str, object]) -> None:
    """Waits for the first good answer. Raises: StartError when it does not come in time."""
    end = time.monotonic() + START_LIMIT_S
    body = {"model": plan.get("model", MODEL), "stream": True, "store": False, "input": "hello"}
    headers = {"Content-Type": "application/json", **_texts(plan.get("headers"))}
    complaint = "answered nothing"
    while True:
        request = urllib.request.Request(str(plan["target"]), json.dumps(body).encode(), headers)
        try:
            with _open(request, timeout=10) as answer:
                if b"response.completed" in answer.read():
                    return
            complaint = "answered without response.completed"
        except urllib.error.HTTPError as error:
            complaint = f"answered {error.code}: {error.read(300)!r}"
        except OSError as error:
            complaint = f"refused: {error}"
        child.check(end, complaint)
        time.sleep(0.2)


def _texts(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, Mapping) else {}


def _ready(child: Child, plan: Mapping[str, object]) -> Running:
    try:
        _until_it_answers(child, plan)
    except StartError:
        child.stop()
        raise
    return Running({"mode": "http", **plan}, child, is_held_still=True)


def _smg(upstream: Served) -> Running:
    folder = _install("smg", "1.13.0", _venv(str(ROOT / ".venv/bin/python"), "smg==1.13.0"))
    port = free_port()
    command = [str(folder / "venv/bin/smg"), "launch", "--worker-urls", upstream.http_url.removesuffix("/v1")]
    command += ["--backend", "openai", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warn"]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    command += ["--max-concurrent-requests", "4096"]
    child = Child("smg", command, core=SERVER_CORE, environ=_QUIET, cwd=folder)
    return _ready(child, _bearer(port))


def _bearer(port: int, **headers: str) -> dict[str, object]:
    all_headers = {"Authorization": f"Bearer {KEY}", **headers}
    return {"target": f"http://127.0.0.1:{port}/v1/responses", "headers": all_headers}


def _litellm(upstream: Served) -> Running:
    folder = _install("litellm", "1.106.2", _venv(str(ROOT / ".venv/bin/python"), "litellm[proxy]==1.106.2"))
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {"model": f"openai/{MODEL}", "api_base": upstream.http_url, "api_key": KEY},
            }
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    command = [str(folder / "venv/bin/litellm"), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    environ = {**_QUIET, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    child = Child("litellm", command, core=SERVER_CORE, environ=environ, cwd=folder)
    return _ready(child, _bearer(port))


def _portkey(upstream: Served) -> Running:
    def steps(folder: Path) -> Sequence[Sequence[str]]:
        # With newer ones in range, streamed answers fail on Node 20.
        pinned = {"hono": "4.9.7", "@hono/node-server": "1.14.0", "@hono/node-ws": "1.2.0"}
        package = {"private": True, "dependencies": {"@portkey-ai/gateway": "1.15.2"}, "overrides": pinned}
        (folder / "package.json").write_text(json.dumps(package))
        return [["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]]

    folder = _install("portkey", "1.15.2", steps)
    port = free_port()
    command = ["node", "node_modules/@portkey-ai/gateway/build/start-server.js", f"--port={port}", "--headless"]
    environ = {**_QUIET, "NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    child = Child("portkey", command, core=SERVER_CORE, environ=environ, cwd=folder)
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream.http_url}
    return _ready(child, _bearer(port, **headers))


def _python_313() -> str:
    candidates = [shutil.which("python3.13"), *map(str, Path.home().glob(".pyenv/versions/3.13.*/bin/python3.13"))]
    for candidate in candidates:
        if candidate and not subprocess.run([candidate, "--version"], capture_output=True).returncode:
            return candidate
    raise StartError("codex-lb needs Python 3.13, and none is installed")


def _codex_lb(upstream: Served) -> Running:
    folder = _install("codex-lb", "1.24.0", _venv(_python_313(), "codex-lb==1.24.0"))
    port, data = free_port(), folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    raised = {
        "PROXY_ACCOUNT_RESPONSE_CREATE_LIMIT": "1024",
        "PROXY_ACCOUNT_STREAM_LIMIT": "1024",
        "PROXY_RESPONSE_CREATE_LIMIT": "1024",
        "PROXY_UPSTREAM_WEBSOCKET_CONNECT_LIMIT": "1024",
        "BULKHEAD_PROXY_LIMIT": "4096",
        "HTTP_RESPONSES_SESSION_BRIDGE_MAX_SESSIONS": "4096",
        "HTTP_CONNECTOR_LIMIT": "4096",
        "HTTP_CONNECTOR_LIMIT_PER_HOST": "4096",
        "TELEMETRY_ENABLED": "false",
        "TELEMETRY_ENDPOINT": "http://127.0.0.1:9",
        "USAGE_REFRESH_ENABLED": "false",
        "RATE_LIMIT_RESET_CREDITS_REFRESH_ENABLED": "false",
        "MODEL_REGISTRY_ENABLED": "false",
        "AUTH_GUARDIAN_ENABLED": "false",
        "UPSTREAM_BASE_URL": upstream.http_url.removesuffix("/v1") + "/backend-api",
        "DATA_DIR": str(data),
        "DATABASE_URL": f"sqlite+aiosqlite:///{data}/store.db",
        "ENCRYPTION_KEY_FILE": str(data / "encryption.key"),
    }
    environ = {**_QUIET, "HOME": str(data), **{f"CODEX_LB_{name}": value for name, value in raised.items()}}
    command = [str(folder / "venv/bin/codex-lb"), "--host", "127.0.0.1", "--port", str(port)]
    child = Child("codex-lb", command, core=SERVER_CORE, environ=environ, cwd=data)
    try:
        _import_account(child, port)
    except StartError:
        child.stop()
        raise
    # Each worker is a conversation of its own; without the header equal requests would share one upstream session.
    return _ready(child, {**_bearer(port), "session_header": "session_id"})


def _import_account(child: Child, port: int) -> None:
    """Gives it an account: a token file with made-up claims that no provider ever sees."""
    claims = {
        "email": "bench@example.com",
        "exp": int(time.time()) + 10**7,
        "sub": "user-bench",
        "https://api.openai.com/auth": {
            "chatgpt_account_id": "bench",
            "chatgpt_user_id": "user-bench",
            "chatgpt_plan_type": "pro",
        },
    }
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".x"
    tokens = {"id_token": token, "access_token": token, "refresh_token": "none", "account_id": "bench"}
    tokens |= {"idToken": token, "accessToken": token, "refreshToken": "none", "accountId": "bench"}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file = json.dumps({"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": now})
    boundary = uuid.uuid4().hex
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="auth_json"; filename="auth.json"\r\n'
        f"Content-Type: application/json\r\n\r\n{file}\r\n--{boundary}--\r\n"
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    end = time.monotonic() + START_LIMIT_S
    complaint = "took no account"
    while True:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/accounts/import", body.encode(), headers)
        try:
            with _open(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            complaint = f"took no account, {error.code}: {error.read(500)!r}"
            if error.code < 500:
                raise StartError(f"codex-lb {complaint}") from error
        except OSError:
            pass
        child.check(end, complaint)
        time.sleep(0.3)


def _bifrost(upstream: Served) -> Running:
    """Built from source through the Go module proxy, which is the only way without its vendor's download host."""

    def steps(folder: Path) -> Sequence[Sequence[str]]:
        package = "github.com/maximhq/bifrost/transports/bifrost-http@v1.3.0"
        return [["env", f"GOBIN={folder}/bin", "go", "install", package]]

    folder = _install("bifrost", "1.3.0", steps)
    port = free_port()
    provider = {
        "keys": [{"value": KEY, "models": [MODEL], "weight": 1}],
        "network_config": {"base_url": upstream.http_url.removesuffix("/v1")},
        "concurrency_and_buffer_size": {"concurrency": 1024, "buffer_size": 4096},
    }
    (folder / "config.json").write_text(json.dumps({"providers": {"openai": provider}}))
    command = [str(folder / "bin/bifrost-http"), "-host", "127.0.0.1", "-port", str(port), "-app-dir", str(folder)]
    child = Child("bifrost", command, core=SERVER_CORE, environ=_QUIET, cwd=folder)
    return _ready(child, {**_bearer(port), "model": f"openai/{MODEL}"})


PEER_PATHS = {
    way.name: way
    for way in (
        Way("smg", "SMG 1.13.0", "direct-http", _smg, is_peer=True),
        Way("litellm", "LiteLLM proxy 1.106.2", "direct-http", _litellm, is_peer=True),
        Way("portkey", "Portkey 1.15.2", "direct-http", _portkey, is_peer=True),
        Way("codex-lb", "codex-lb 1.24.0, WebSocket upstream", "direct-http", _codex_lb, is_peer=True),
        Way("bifrost", "Bifrost", "direct-http", _bifrost, is_peer=True),
    )
}

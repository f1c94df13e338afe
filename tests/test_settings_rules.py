"""Rules between settings, what `config check` looks for, and the manual that is made from the settings."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from warmline_server.settings import Finding, SettingsError, check, load, schema
from warmline_server.settings.annotations import LATER, Table, extra
from warmline_server.settings.convert import named_table_type, table_type
from warmline_server.settings.load import all_keys
from warmline_server.settings.manual import markdown
from warmline_server.settings.model import Settings
from warmline_server.settings.rules import broken_rules

ROOT = Path(__file__).parents[1]


JWT = """
auth.jwt.jwks_url = "https://id.example/keys"
auth.jwt.issuer = "https://id.example"
auth.jwt.audience = "warmline"
"""
TLS = 'auth.tls.cert_file = "a"\nauth.tls.key_file = "b"\nauth.tls.client_ca_file = "c"'


def loaded(directory: Path, toml: str, environ: dict[str, str] | None = None) -> Settings:
    path = directory / "warmline.toml"
    path.write_text(toml, encoding="utf-8")
    return load(path, environ or {})


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ('default_upstream = "opnai"', "default_upstream"),
        ('listen = "50051"', "listen"),
        ('listen = "127.0.0.1:70000"', "listen"),
        ('listen = "0.0.0.0:50051"', "listen"),
        ('listen = "[::]:50051"', "listen"),
        ('listen = "warmline.example:50051"', "listen"),
        ('turn_metadata.static_json = "[]"', "turn_metadata.static_json"),
        ("upstreams.new.zstd = true", "upstreams.new.base_url"),
        ('upstreams.new.base_url = "ftp://api.example/v1"', "upstreams.new.base_url"),
        ('upstreams.new.base_url = "https://"', "upstreams.new.base_url"),
        ('upstreams.new.base_url = "https://[::1/v1"', "upstreams.new.base_url"),
        ('upstreams.new.base_url = "https://a.example:99999/v1"', "upstreams.new.base_url"),
        ('upstreams.new.base_url = "http://api.example/v1"', "upstreams.new.base_url"),
        ('upstreams.new.base_url = "ws://10.0.0.1/v1"', "upstreams.new.base_url"),
        ('upstreams.new.base_url = "https://me@api.example/v1"', "upstreams.new.base_url"),
        ('upstreams.new.base_url = "https://api.example/v1?v=1"', "upstreams.new.base_url"),
        ('upstreams.new.kind = "fixture"', "upstreams.new.fixture_path"),
        ('upstreams.openai.proxy = "socks5://proxy:1080"', "upstreams.openai.proxy"),
        ('upstreams.openai.proxy = "http://proxy"', "upstreams.openai.proxy"),
        ('upstreams.openai.proxy = "http://proxy:99999"', "upstreams.openai.proxy"),
        ('upstreams.openai.extra_headers.Api-Key = "x"', "upstreams.openai.extra_headers.Api-Key"),
        ('upstreams.openai.extra_headers."a b" = "x"', "upstreams.openai.extra_headers.a b"),
        ('upstreams.openai.organization = "ä"', "upstreams.openai.organization"),
        ('upstreams.openai.credential = {source = "env", env = ""}', "upstreams.openai.credential.env"),
        ('upstreams.simulator.credential.source = "file"', "upstreams.simulator.credential.file"),
        ('upstreams.simulator.credential.source = "command"', "upstreams.simulator.credential.command"),
        (
            'upstreams.simulator.credential = {source = "oauth", file = "a", client_id = "b"}',
            "upstreams.simulator.credential.token_url",
        ),
        (
            "upstreams.simulator.credential = "
            '{source = "oauth", file = "a", client_id = "b", token_url = "http://id.example/token"}',
            "upstreams.simulator.credential.token_url",
        ),
        ('upstreams.openai.credential.header = "a b"', "upstreams.openai.credential.header"),
        ('upstreams.openai.credential.scheme = "a\\nb"', "upstreams.openai.credential.scheme"),
        ("upstreams.openai.supports_stream_id = true", "upstreams.openai.supports_stream_id"),
        ('listen = "0.0.0.0:1"\nauth.tokens_file = "a.toml"', "listen"),
        (f'listen = "0.0.0.0:1"\n{JWT}', "listen"),
        ('listen = "0.0.0.0:1"\nauth.tls = {cert_file = "a", key_file = "b"}', "listen"),
        ('auth = {tokens_file = "a.toml", allow_unauthenticated = true}', "auth.allow_unauthenticated"),
        ('auth.tokens_file = "a-token-itself"', "auth.tokens_file"),
        ("auth.known_tenants_only = true", "auth.known_tenants_only"),
        ('auth.tls.cert_file = "a"', "auth.tls.key_file"),
        ('auth.tls.key_file = "a"', "auth.tls.cert_file"),
        ('auth.tls.client_ca_file = "a"', "auth.tls.cert_file"),
        (f'{TLS}\nauth.tls.tenant_from = "none"', "auth.tls.tenant_from"),
        (f'{TLS}\nauth.tls.tenant_pattern = "("', "auth.tls.tenant_pattern"),
        (f'{TLS}\nauth.tls.tenant_pattern = "(a)(b)"', "auth.tls.tenant_pattern"),
        (f'{JWT}\nauth.jwt.jwks_file = "keys.json"', "auth.jwt.jwks_file"),
        (f"{JWT}\nauth.jwt.algorithms = []", "auth.jwt.algorithms"),
        (f'{JWT}\nauth.jwt.algorithms = ["HS256"]', "auth.jwt.algorithms"),
        (f'{JWT}\nauth.jwt.algorithms = ["none"]', "auth.jwt.algorithms"),
        (f'{JWT}\nauth.jwt.tenant_pattern = "["', "auth.jwt.tenant_pattern"),
        (JWT.replace('auth.jwt.issuer = "https://id.example"\n', ""), "auth.jwt.issuer"),
        (JWT.replace('auth.jwt.audience = "warmline"\n', ""), "auth.jwt.audience"),
        (JWT.replace("https://id.example/keys", "http://id.example/keys"), "auth.jwt.jwks_url"),
        (JWT.replace("https://id.example/keys", "ws://127.0.0.1/keys"), "auth.jwt.jwks_url"),
        (JWT.replace("https://id.example/keys", "https://me:secret@id.example/keys"), "auth.jwt.jwks_url"),
        ('auth.upstreams = ["opnai"]', "auth.upstreams"),
        ('auth.tenants.a.upstreams = ["opnai"]', "auth.tenants.a.upstreams"),
    ],
)
def test_broken_rule_is_refused_at_its_key(tmp_path: Path, toml: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, toml)

    assert [problem.key for problem in caught.value.problems] == [key]


@pytest.mark.parametrize(
    "toml",
    [
        'listen = "localhost:0"',
        'listen = "[::1]:50051"',
        'listen = "127.9.9.9:1"',
        'listen = "unix:/run/warmline.sock"',
        'listen = "0.0.0.0:50051"\nauth.allow_unauthenticated = true',
        f'listen = "0.0.0.0:50051"\n{TLS}',
        f'listen = "0.0.0.0:50051"\n{JWT}\nauth.tls = {{cert_file = "a", key_file = "b"}}',
        'listen = "0.0.0.0:50051"\nauth = {tokens_file = "a.toml", allow_plaintext_tokens = true}',
        'listen = "127.0.0.1:50051"\nauth.tokens_file = "a.toml"',
        'listen = "unix:/run/warmline.sock"\nauth.tokens_file = "a.toml"',
        JWT.replace("https://id.example/keys", "http://127.0.0.1:8080/keys"),
        'auth.tenants = {"team a/b" = {upstreams = ["openai"]}}',
        'upstreams.new.base_url = "http://[::1]:80/v1"',
        'upstreams.new.base_url = "wss://api.example/v1"',
        'upstreams.new = {base_url = "http://api.example/v1", allow_insecure = true}',
        'upstreams.new = {kind = "fixture", fixture_path = "answer.sse"}',
        'upstreams.simulator.extra_headers.X-Team = "a b"',
        'upstreams.simulator.proxy = "http://me:secret@proxy:3128"',
        'upstreams.simulator.proxy = "none"',
        "turn_metadata.static_json = '{\"a\": 1}'",
    ],
)
def test_what_the_rules_allow_is_read(tmp_path: Path, toml: str) -> None:
    assert broken_rules(loaded(tmp_path, toml)) == []


def test_listening_beyond_loopback_without_authentication_names_the_switch(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, 'listen = "0.0.0.0:50051"')

    assert str(caught.value) == (
        "configuration not accepted: listen: found '0.0.0.0:50051', where anybody may call, expected an address on "
        "loopback, or callers that authenticate; auth.allow_unauthenticated = true accepts that"
    )


@pytest.mark.parametrize(
    ("profile", "dialect", "provider", "stores"),
    [
        ('{base_url = "https://x.openai.azure.com/openai/v1"}', "azure", "azure.ai.openai", True),
        ('{base_url = "https://x.OpenAI.Azure.com/openai/v1"}', "azure", "azure.ai.openai", True),
        ('{base_url = "https://x.openai.azure.com/openai/v1", dialect = "openai"}', "openai", "azure.ai.openai", False),
        ('{base_url = "https://api.example/v1", dialect = "azure", provider = "mine"}', "azure", "mine", True),
        ('{base_url = "https://api.example/v1"}', "openai", "openai", False),
    ],
)
def test_azure_is_known_by_its_url_unless_the_dialect_is_given(
    tmp_path: Path, profile: str, dialect: str, provider: str, stores: bool
) -> None:
    found = loaded(tmp_path, f"upstreams.new = {profile}").upstreams["new"]

    assert (found.dialect, found.provider, found.stores_by_default) == (dialect, provider, stores)


def test_organization_and_project_come_from_variables_unless_given(tmp_path: Path) -> None:
    environ = {"OPENAI_ORGANIZATION": " org-1 ", "OPENAI_PROJECT": "proj-1"}

    openai = loaded(tmp_path, 'upstreams.openai = {project = "proj-2", version = "1.2"}', environ).upstreams["openai"]

    assert openai.provider_headers == {
        "version": "1.2",
        "OpenAI-Organization": "org-1",
        "OpenAI-Project": "proj-2",
    }


# What `config check` looks for


def test_check_finds_nothing_wrong_where_the_key_is_set() -> None:
    assert check(load(None, {}), {"OPENAI_API_KEY": "x"}) == []


@pytest.mark.parametrize(
    ("toml", "level", "key"),
    [
        ("", "error", "upstreams.openai.credential.env"),
        (
            'upstreams.openai.credential = {source = "file", file = "/nowhere/key"}',
            "error",
            "upstreams.openai.credential.file",
        ),
        (
            'upstreams.openai.credential = {source = "command", command = ["/nowhere/key"]}',
            "error",
            "upstreams.openai.credential.command",
        ),
        (
            'default_upstream = "simulator"\nupstreams.simulator.ca_bundle = "/nowhere/ca.pem"',
            "error",
            "upstreams.simulator.ca_bundle",
        ),
        (
            'default_upstream = "simulator"\nupstreams.f = {kind = "fixture", fixture_path = "/nowhere/a.sse"}',
            "error",
            "upstreams.f.fixture_path",
        ),
        ('default_upstream = "simulator"\ntelemetry.bundle_dir = "/nowhere"', "error", "telemetry.bundle_dir"),
        ('default_upstream = "simulator"\nturn_metadata.command = ["/nowhere"]', "error", "turn_metadata.command"),
        ('default_upstream = "simulator"\ntelemetry.capture_content = true', "warning", "telemetry.capture_content"),
        ('default_upstream = "simulator"\nadmin_listen = "0.0.0.0:9"', "warning", "admin_listen"),
        (
            'default_upstream = "simulator"\nlisten = "0.0.0.0:9"\nauth.allow_unauthenticated = true',
            "warning",
            "listen",
        ),
        (
            'default_upstream = "a"\nupstreams.a = {base_url = "http://a.example", allow_insecure = true}',
            "warning",
            "upstreams.a.base_url",
        ),
    ],
)
def test_check_finds_what_would_fail_or_should_be_meant(tmp_path: Path, toml: str, level: str, key: str) -> None:
    assert [(f.level, f.key) for f in check(loaded(tmp_path, toml), {})] == [(level, key)]


def test_check_warns_of_a_key_that_goes_to_another_host(tmp_path: Path) -> None:
    settings = loaded(tmp_path, 'upstreams.openai.base_url = "https://proxy.example/v1"')

    assert check(settings, {"OPENAI_API_KEY": "x"}) == [
        Finding("warning", "upstreams.openai.base_url", "the key in OPENAI_API_KEY goes to proxy.example")
    ]


def test_check_of_oauth_wants_its_file_writable_and_its_secret_set(tmp_path: Path) -> None:
    toml = """
    [upstreams.openai.credential]
    source = "oauth"
    file = "/proc/nowhere/tokens.json"
    token_url = "https://id.example/token"
    client_id = "me"
    client_secret_env = "NOT_SET"
    """

    found = check(loaded(tmp_path, toml), {})

    assert [(f.level, f.key.rpartition(".")[2]) for f in found] == [
        ("error", "client_secret_env"),
        ("error", "file"),
        ("error", "write_back"),
    ]


# The manual


def test_manual_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == markdown(), (
        "run scripts/configuration_docs.py"
    )


def test_manual_script_writes_the_manual() -> None:
    script = ROOT / "scripts" / "configuration_docs.py"

    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "wrote docs/configuration.md\n"


def test_manual_says_of_every_setting_what_it_means() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| `.+` .*\| (.+\S) \|$", markdown(), flags=re.MULTILINE)

    assert sorted(name for name, _ in rows) == sorted(key.rpartition(".")[2] for key in all_keys())


def test_schema_is_json_and_knows_every_setting() -> None:
    tables = msgspec.json.decode(msgspec.json.encode(schema()))["$defs"].values()

    described = {name for table in tables for name, value in table["properties"].items() if value["description"]}
    assert {key.rpartition(".")[2] for key in all_keys()} <= described
    assert all(table["additionalProperties"] is False for table in tables)


def test_every_setting_is_carried_out_or_refused() -> None:
    """A setting that no code reads would be a switch that does nothing."""
    by_the_settings_themselves = {"organization_env", "project_env", "allow_insecure", "allow_unauthenticated"}
    by_the_settings_themselves.add("allow_plaintext_tokens")
    packages = (ROOT / "server" / name for name in ("warmline_server", "warmline_cli"))
    sources = {path for package in packages for path in package.rglob("*.py") if path.parent.name != "settings"}
    # The properties of a profile stand for the settings that they are made from.
    sources.add(ROOT / "server" / "warmline_server" / "settings" / "upstream.py")
    read = {
        node.attr
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }

    unread = {key for key in all_keys() if key.rpartition(".")[2] not in read | by_the_settings_themselves}

    assert unread <= set(refused_keys(Settings, ""))


def refused_keys(table: type[Table], path: str) -> Iterator[str]:
    for field in msgspec.structs.fields(table):
        inner, named = table_type(field.type), named_table_type(field.type)
        if inner is not None:
            yield from refused_keys(inner, f"{path}{field.name}.")
        elif named is not None:
            yield from refused_keys(named, f"{path}{field.name}.NAME.")
        elif extra(field.type, LATER):
            yield f"{path}{field.name}"

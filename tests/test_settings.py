"""Settings: what is read from where, what is refused and in which words, and that no secret is ever shown."""

import contextlib
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.settings import Credential, Problem, Settings, SettingsError, TenantPolicy, UpstreamProfile, load
from warmline_server.settings.annotations import HIDDEN
from warmline_server.settings.convert import base_type
from warmline_server.settings.load import MAX_FILE_BYTES, all_keys, variable_name

CANARY = "sk-canary-0123456789abcdef"


def write(directory: Path, toml: str) -> Path:
    path = directory / "warmline.toml"
    path.write_text(toml, encoding="utf-8")
    return path


def refused(path: Path | None, environ: Mapping[str, str] | None = None) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {})
    return caught.value.problems


def value_of(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def test_without_any_configuration_openai_needs_its_key_alone() -> None:
    settings = load(None, {"OPENAI_API_KEY": CANARY})

    openai = settings.upstreams[settings.default_upstream]
    assert openai.base_url == "https://api.openai.com/v1"
    assert openai.credential == Credential(source="env", env="OPENAI_API_KEY")
    assert (openai.dialect, openai.supports_websockets, openai.provider_headers) == ("openai", True, {})
    assert (openai.address, openai.port, openai.sends_stream_field) == ("api.openai.com", 443, False)


def test_without_any_configuration_the_simulator_is_on_loopback_and_has_no_credential() -> None:
    simulator = load(None, {}).upstreams["simulator"]

    assert (simulator.base_url, simulator.credential.source) == ("http://127.0.0.1:8080/v1", "none")
    assert (simulator.dialect, simulator.port, simulator.sends_stream_field) == ("codex", 8080, True)


def test_variable_wins_over_file_and_file_over_built_in(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        warm_up = "none"
        [limits]
        max_sessions = 1
        max_lanes = 2
        [upstreams.openai]
        connect_timeout_s = 3
        fallback_after_s = 0
        """,
    )

    settings = load(path, {"WARMLINE_LIMITS__MAX_LANES": "7", "WARMLINE_UPSTREAMS__OPENAI__CONNECT_TIMEOUT_S": "4.5"})

    assert settings.warm_up == "none"
    assert (settings.limits.max_sessions, settings.limits.max_lanes) == (1, 7)
    openai = settings.upstreams["openai"]
    assert (openai.connect_timeout_s, openai.fallback_after_s) == (4.5, 0.0)
    assert openai.credential.env == "OPENAI_API_KEY"


def test_variable_finds_an_upstream_whose_name_no_variable_can_hold(tmp_path: Path) -> None:
    path = write(tmp_path, '[upstreams.EU-west]\nbase_url = "https://eu.example/v1"\n')

    settings = load(path, {"WARMLINE_UPSTREAMS__EU_WEST__ZSTD": "true"})

    assert sorted(settings.upstreams) == ["EU-west", "openai", "simulator"]
    assert settings.upstreams["EU-west"].zstd


def scalar_keys() -> list[str]:
    return [key for key in all_keys() if get_origin(base_type(annotation_of(key))) not in (tuple, dict)]


def annotation_of(key: str) -> Any:
    table: Any = Settings
    for name in key.split("."):
        if name != "NAME":
            annotation = next(f.type for f in msgspec.structs.fields(table) if f.name == name)
            table = base_type(annotation)
        table = {"upstreams": UpstreamProfile, "tenants": TenantPolicy}.get(name, table)
    return annotation


@pytest.mark.parametrize("key", scalar_keys())
def test_variable_reaches_every_single_value(key: str) -> None:
    actual = key.replace("NAME", "simulator")
    environ = {"WARMLINE_AUTH__TENANTS__SIMULATOR__UPSTREAMS": "simulator"}
    value = value_of(load(None, environ), actual)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()

    assert value_of(load(None, environ | {variable_name(actual): text}), actual) == value
    # The same name with one letter more is refused, so the variable was read and not overlooked.
    assert refused(None, environ | {f"{variable_name(actual)}X": text})[0].key == f"{actual}x"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("telemetry.traces", "otlp", ("otlp",)),
        ("telemetry.traces", "otlp, console", ("otlp", "console")),
        ("telemetry.traces", "none", ()),
        ("turn_metadata.command", '["/bin/meta", "a,b"]', ("/bin/meta", "a,b")),
        ("upstreams.openai.extra_headers", '{"X-Team": "a"}', {"X-Team": "a"}),
        ("reflection", "0", False),
        ("upstreams.openai.idle_timeout_s", "1e2", 100.0),
    ],
)
def test_variable_text_becomes_the_type_of_its_setting(key: str, text: str, value: object) -> None:
    assert value_of(load(None, {variable_name(key): text}), key) == value


def test_file_may_name_one_sink_without_a_list(tmp_path: Path) -> None:
    settings = load(write(tmp_path, '[telemetry]\ntraces = "console"\nmetrics = ["otlp"]\n'), {})

    assert (settings.telemetry.traces, settings.telemetry.metrics) == (("console",), ("otlp",))


def test_variables_that_kubernetes_makes_for_a_service_are_not_settings() -> None:
    links = {
        "WARMLINE_SERVICE_HOST": "10.0.0.1",
        "WARMLINE_SERVICE_PORT": "50051",
        "WARMLINE_SERVICE_PORT_GRPC": "50051",
        "WARMLINE_PORT": "tcp://10.0.0.1:50051",
        "WARMLINE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "WARMLINE_PORT_50051_TCP_PROTO": "tcp",
        "WARMLINE_EU_WEST_SERVICE_HOST": "10.0.0.2",
    }

    assert load(None, links) == load(None, {})


def test_no_setting_can_be_taken_for_a_variable_of_kubernetes() -> None:
    """A key at the top has no double underscore in its variable to tell it apart."""
    top = [field.name for field in msgspec.structs.fields(Settings)]

    assert [name for name in top if name.endswith(("port", "host", "tcp", "udp", "proto", "addr"))] == []


def test_typo_in_the_file_names_key_file_and_nearest_key(tmp_path: Path) -> None:
    path = write(tmp_path, "[limits]\nmax_sesions = 5\n")

    with pytest.raises(SettingsError) as caught:
        load(path, {})

    assert str(caught.value) == (
        f"configuration not accepted: limits.max_sesions in {path}: found an unknown key, expected a known one; "
        "did you mean limits.max_sessions?"
    )


@pytest.mark.parametrize(
    ("variable", "key", "meant"),
    [
        ("WARMLINE_LIMITS__MAX_SESION", "limits.max_sesion", "limits.max_sessions"),
        ("WARMLINE_MAX_SESSIONS", "max_sessions", "limits.max_sessions"),
        ("WARMLINE_LISTEN_", "listen_", "listen"),
        ("WARMLINE_UPSTREAMS__OPENAI__BASEURL", "upstreams.openai.baseurl", "upstreams.openai.base_url"),
    ],
)
def test_typo_in_a_variable_names_it_and_the_nearest_key(variable: str, key: str, meant: str) -> None:
    (problem,) = refused(None, {variable: "1"})

    assert (problem.key, problem.source, problem.hint) == (key, variable, f"did you mean {meant}?")


@pytest.mark.parametrize(
    ("toml", "key", "found", "expected", "hint"),
    [
        ("limits = 3", "limits", "a number", "a table", ""),
        ("upstreams = 3", "upstreams", "a number", "a table", ""),
        ("listen = 3", "listen", "3", "a text", ""),
        ('reflection = "yes"', "reflection", "'yes'", "true or false", ""),
        ("limits.max_lanes = 0", "limits.max_lanes", "0", "a whole number > 0", ""),
        ("limits.max_lanes = 1.5", "limits.max_lanes", "1.5", "a whole number > 0", ""),
        ("limits.max_lanes = true", "limits.max_lanes", "true", "a whole number > 0", ""),
        ("drain.grace_s = -1", "drain.grace_s", "-1", "a finite number of seconds >= 0", ""),
        ("drain.grace_s = inf", "drain.grace_s", "inf", "a finite number of seconds >= 0", ""),
        ("drain.grace_s = nan", "drain.grace_s", "nan", "a finite number of seconds >= 0", ""),
        ("drain.grace_s = 2026-01-01", "drain.grace_s", "a date", "a finite number of seconds >= 0", ""),
        ("limits.max_request_bytes = -1", "limits.max_request_bytes", "-1", "a whole number of bytes > 0", ""),
        (
            "upstreams.openai.stream_max_retries = 101",
            "upstreams.openai.stream_max_retries",
            "101",
            "a whole number >= 0 and <= 100",
            "",
        ),
        (
            'warm_up = "handshak"',
            "warm_up",
            "'handshak'",
            "one of none, handshake, generate_false",
            "did you mean 'handshake'?",
        ),
        (
            'telemetry.traces = ["otpl"]',
            "telemetry.traces",
            "'otpl'",
            "a list, each one of console, otlp",
            "did you mean 'otlp'?",
        ),
        ("turn_metadata.command = 'x'", "turn_metadata.command", "a text", "a list, each a text", ""),
        (
            "upstreams.openai.extra_headers = {a = 1}",
            "upstreams.openai.extra_headers",
            "a table",
            "a table of texts",
            "",
        ),
    ],
)
def test_wrong_value_names_what_was_found_and_expected(
    tmp_path: Path, toml: str, key: str, found: str, expected: str, hint: str
) -> None:
    path = write(tmp_path, toml)

    assert refused(path) == [Problem(key, found, expected, hint, str(path))]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "limts = 1\n[limits]\nmax_lanes = 0\n[upstreams.openai]\nzstd = 1\n")

    problems = refused(path, {"WARMLINE_DRAIN__GRACE_S": "soon"})

    assert [p.key for p in problems] == ["limts", "upstreams.openai.zstd", "limits.max_lanes", "drain.grace_s"]


def test_value_and_a_part_of_it_as_variables_are_refused() -> None:
    (problem,) = refused(None, {"WARMLINE_LIMITS": "1", "WARMLINE_LIMITS__MAX_LANES": "1"})

    assert (problem.key, problem.found) == ("WARMLINE_LIMITS__MAX_LANES", "a value and a part of it")


@pytest.mark.parametrize("content", [b"limits = [", b"\xff\xfe", None])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "warmline.toml"
    if content is not None:
        path.write_bytes(content)

    (problem,) = refused(path)

    assert (problem.key, problem.expected) == (str(path), "a TOML file that can be read")


@given(st.binary(max_size=200), st.dictionaries(st.from_regex(r"WARMLINE_[A-Z_]{0,30}", fullmatch=True), st.text()))
def test_whatever_is_configured_is_read_or_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, environ: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)

    with contextlib.suppress(SettingsError):
        load(path, environ)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.sampled_from(all_keys()), VALUES)
def test_any_value_at_any_key_is_read_or_refused(key: str, value: object) -> None:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()

    with contextlib.suppress(SettingsError):
        load(None, {variable_name(key.replace("NAME", "openai")): text})


# Secrets


@pytest.mark.parametrize(
    "toml",
    [
        f'upstreams.openai.api_key = "{CANARY}"',
        f'upstreams.openai.credential = "{CANARY}"',
        f'upstreams.openai.credential.value = "{CANARY}"',
        f'upstreams.openai.credential.source = "{CANARY}"',
        f'upstreams.openai.credential.command = "{CANARY}"',
        f'upstreams.openai.base_url = "https://user:{CANARY}@api.example/v1"',
        f'upstreams.openai.base_url = "https://api.example/v1?key={CANARY}"',
        f'upstreams.openai.base_url = "{CANARY}"',
        f'upstreams.openai.extra_headers.Authorization = "Bearer {CANARY}"',
        f'upstreams.openai.extra_headers.X-Bad = "{CANARY}\\n"',
        f'upstreams.openai.extra_headers = ["{CANARY}"]',
        f'upstreams.openai.connect_timeout_s = "{CANARY}"',
        f'auth = "{CANARY}"',
        f'auth.tokens_file = "{CANARY}"',
        f'turn_metadata.static_json = "{CANARY}"',
        f'listen = ["{CANARY}"]',
        f'broken = "{CANARY}',
    ],
)
def test_secret_in_any_wrong_place_is_refused_and_not_shown(tmp_path: Path, toml: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, toml), {})

    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value) + repr(caught.value.problems)
    assert CANARY not in shown


def test_key_as_a_value_is_refused_with_the_right_way() -> None:
    (problem,) = refused(None, {"WARMLINE_UPSTREAMS__OPENAI__CREDENTIAL__VALUE": CANARY})

    assert problem.key == "upstreams.openai.credential.value"
    assert problem.hint.startswith("no secret stands in the configuration: name the variable, file or command")


def test_repr_shows_settings_but_no_secret() -> None:
    profile = UpstreamProfile(
        base_url="https://api.example/v1",
        extra_headers={"X-Key": CANARY},
        query={"key": CANARY},
        proxy=f"http://user:{CANARY}@proxy",
        credential=Credential(source="command", command=("print", CANARY)),
    )

    shown = repr(Settings(upstreams={"a": profile})) + str(profile)

    assert CANARY not in shown
    assert f"extra_headers={HIDDEN}" in shown
    assert "base_url='https://api.example/v1'" in shown


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a = " + "[" * 5000, "values nested too deeply"),
        ("#" + "x" * MAX_FILE_BYTES, f"more than {MAX_FILE_BYTES} bytes"),
    ],
    ids=["deep", "large"],
)
def test_file_that_no_configuration_is_like_is_refused_by_name(tmp_path: Path, content: str, found: str) -> None:
    path = tmp_path / "warmline.toml"
    path.write_text(content)

    with pytest.raises(SettingsError) as caught:
        load(path, {})

    assert [(problem.key, problem.found) for problem in caught.value.problems] == [(str(path), found)]


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("WARMLINE_LISTEN", "127.0.0.1:" + "1" * 5000, "listen"),
        ("WARMLINE_TELEMETRY__TRACES", "[" * 5000, "telemetry.traces"),
        ("WARMLINE_TURN_METADATA__STATIC_JSON", '{"a":' + "[" * 5000, "turn_metadata.static_json"),
        ("WARMLINE_" + "X" * 100_000, "1", "x" * 100_000),
    ],
    ids=["port", "list", "json", "name"],
)
def test_variable_beyond_reason_is_refused_by_name(variable: str, value: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: value})

    assert [problem.key for problem in caught.value.problems] == [key]

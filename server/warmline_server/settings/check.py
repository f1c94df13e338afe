"""What `warmline config check` finds beyond the configuration itself: variables, files and programs that it names."""

import os
import shutil
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from warmline_server.settings.load import BUILT_IN
from warmline_server.settings.model import Settings
from warmline_server.settings.rules import listens_beyond_loopback
from warmline_server.settings.upstream import Credential, UpstreamProfile, is_loopback


@dataclass(frozen=True, slots=True)
class Finding:
    """`error`: calls will fail; `warning`: works, and should be meant. `text` holds no secret."""

    level: Literal["error", "warning"]
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.key}: {self.text}"


def check(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Looks at what the settings name, without connecting anywhere. Returns: errors first; empty when all is well."""
    findings = list(_server(settings))
    for name, profile in settings.upstreams.items():
        is_used = name == settings.default_upstream or not _is_built_in(name, profile)
        if is_used:
            findings += _upstream(name, profile, environ)
    return sorted(findings, key=lambda finding: finding.level != "error")


def _server(settings: Settings) -> Iterator[Finding]:
    if listens_beyond_loopback(settings.listen) and not settings.auth.is_required:
        yield Finding("warning", "listen", f"anybody who reaches {settings.listen} may call")
    if settings.admin_listen and listens_beyond_loopback(settings.admin_listen):
        yield Finding("warning", "admin_listen", f"channelz is open to anybody who reaches {settings.admin_listen}")
    if settings.auth.jwt.ca_bundle:
        yield from _authorities("auth.jwt.ca_bundle", settings.auth.jwt.ca_bundle)
    if settings.telemetry.capture_content:
        yield Finding("warning", "telemetry.capture_content", "prompts and answers leave with the spans")
    directory = settings.telemetry.bundle_dir
    if directory and not (Path(directory).is_dir() and os.access(directory, os.W_OK)):
        yield Finding("error", "telemetry.bundle_dir", f"{directory} is no directory that can be written")
    yield from _program("turn_metadata.command", settings.turn_metadata.command)


def _upstream(name: str, profile: UpstreamProfile, environ: Mapping[str, str]) -> Iterator[Finding]:
    path = f"upstreams.{name}."
    if profile.kind == "fixture":
        yield from _file(f"{path}fixture_path", profile.fixture_path)
        return
    if profile.allow_insecure and profile.base_url.startswith(("http:", "ws:")) and not is_loopback(profile.address):
        yield Finding("warning", f"{path}base_url", f"the line to {profile.address} has no TLS; keys and prompts show")
    if profile.ca_bundle:
        yield from _authorities(f"{path}ca_bundle", profile.ca_bundle)
    yield from _key_elsewhere(name, profile)
    yield from _credential(profile.credential, f"{path}credential.", environ)


def _key_elsewhere(name: str, profile: UpstreamProfile) -> Iterator[Finding]:
    """A built-in upstream that was pointed elsewhere still sends the key of the provider it is built for."""
    variable = BUILT_IN["upstreams"].get(name, {}).get("credential", {}).get("env")
    if variable and profile.credential.env == variable and not _is_built_in(name, profile):
        yield Finding("warning", f"upstreams.{name}.base_url", f"the key in {variable} goes to {profile.address}")


def _credential(credential: Credential, path: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    if credential.source == "env" and not environ.get(credential.env, "").strip():
        yield Finding("error", f"{path}env", f"the variable {credential.env} is not set")
    if credential.source == "oauth" and credential.client_secret_env and not environ.get(credential.client_secret_env):
        yield Finding("error", f"{path}client_secret_env", f"the variable {credential.client_secret_env} is not set")
    if credential.source in ("file", "oauth"):
        yield from _file(f"{path}file", credential.file)
    if credential.source == "oauth" and credential.write_back and not os.access(Path(credential.file).parent, os.W_OK):
        yield Finding("error", f"{path}write_back", f"renewed tokens cannot be written beside {credential.file}")
    if credential.source == "command":
        yield from _program(f"{path}command", credential.command)


def _file(key: str, name: str) -> Iterator[Finding]:
    if not (Path(name).is_file() and os.access(name, os.R_OK)):
        yield Finding("error", key, f"{name} is no file that can be read")


def _authorities(key: str, name: str) -> Iterator[Finding]:
    try:
        ssl.create_default_context(cafile=name)
    except OSError as error:
        yield Finding("error", key, f"{name} holds no certificates: {error.strerror or error}")


def _program(key: str, command: tuple[str, ...]) -> Iterator[Finding]:
    if command and shutil.which(command[0]) is None:
        yield Finding("error", key, f"{command[0]} is no program that can be run")


def _is_built_in(name: str, profile: UpstreamProfile) -> bool:
    """Whether nobody configured this upstream."""
    return bool(profile.base_url == BUILT_IN["upstreams"].get(name, {}).get("base_url"))

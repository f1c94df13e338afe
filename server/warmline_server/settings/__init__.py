"""The server's settings: read once at the start, checked as a whole, frozen. Anybody above `core` may import them."""

from warmline_server.settings.check import Finding, check
from warmline_server.settings.load import load
from warmline_server.settings.manual import schema
from warmline_server.settings.model import (
    Auth,
    Drain,
    Jwt,
    Limits,
    Settings,
    Telemetry,
    TenantPolicy,
    Tls,
    TurnMetadata,
)
from warmline_server.settings.problems import Problem, SettingsError
from warmline_server.settings.upstream import Credential, UpstreamProfile

__all__ = [
    "Auth",
    "Credential",
    "Drain",
    "Finding",
    "Jwt",
    "Limits",
    "Problem",
    "Settings",
    "SettingsError",
    "Telemetry",
    "TenantPolicy",
    "Tls",
    "TurnMetadata",
    "UpstreamProfile",
    "check",
    "load",
    "schema",
]

"""The settings of one upstream: where it is, what it speaks, who we are there, how patient we are with it."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from warmline_server.settings.annotations import (
    PositiveBytes,
    PositiveCount,
    PositiveSeconds,
    Retries,
    Seconds,
    Table,
    doc,
    later,
    secret,
)

CredentialKind = Literal["none", "env", "file", "command", "oauth"]
Dialect = Literal["openai", "codex", "azure"]

# Source: wire-behaviour §4.2.
AZURE_MARKS = (
    "openai.azure.",
    "cognitiveservices.azure.",
    "aoai.azure.",
    "azure-api.",
    "azurefd.",
    "windows.net/openai",
)
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class Credential(Table, frozen=True, kw_only=True):
    """Where an upstream's credential comes from. The secret itself never stands in the configuration."""

    source: Annotated[
        CredentialKind,
        doc(
            "`none`; `env`: an environment variable, read at start; `file`: a file, read again when it changes; "
            "`command`: the output of a program; `oauth`: an access token that is renewed with a refresh token."
        ),
    ] = "none"
    header: Annotated[str, doc("Header that carries the credential.")] = "Authorization"
    scheme: Annotated[str, doc("Word before the credential in the header; blank: none.")] = "Bearer"
    account_id: Annotated[
        str, doc("Sent as `ChatGPT-Account-ID`. Blank: what the token file of `oauth` says, if anything.")
    ] = ""
    env: Annotated[str, doc("`env`: name of the variable.")] = ""
    file: Annotated[
        str,
        doc(
            "`file`: path of the file; its whole content, trimmed, is the credential. `oauth`: path of a JSON object "
            "with `access_token`, `refresh_token` and optionally `expires_at` (Unix seconds) and `account_id`, at the "
            "top or under `tokens`."
        ),
    ] = ""
    command: Annotated[
        tuple[str, ...], secret("`command`: program and arguments, run without a shell; its output, trimmed.")
    ] = ()
    command_timeout_s: Annotated[PositiveSeconds, doc("`command`: how long it may run before it is killed.")] = 10.0
    command_ttl_s: Annotated[
        Seconds, doc("`command`: how long its output is used before it runs again; 0: until the upstream refuses it.")
    ] = 300.0
    token_url: Annotated[str, doc("`oauth`: the token endpoint, `https` beyond loopback.")] = ""
    client_id: Annotated[str, doc("`oauth`: this client's id at the token endpoint.")] = ""
    client_secret_env: Annotated[str, doc("`oauth`: variable that holds the client's secret; blank: it has none.")] = ""
    scope: Annotated[str, doc("`oauth`: scope asked for at a refresh; blank: the one granted before.")] = ""
    write_back: Annotated[
        bool,
        doc(
            "`oauth`: write renewed tokens to `file`, so that a restart finds them. Needed where a refresh token works "
            "once; the file must then be writable."
        ),
    ] = True
    refresh_before_s: Annotated[Seconds, doc("`oauth`: how long before it expires a token is renewed.")] = 300.0
    refresh_timeout_s: Annotated[PositiveSeconds, doc("`oauth`: how long the token endpoint may take.")] = 10.0


class UpstreamProfile(Table, frozen=True, kw_only=True):
    """One provider as the operator configured it. Callers name it; they never give a URL or a key."""

    # Where and what
    kind: Annotated[
        Literal["responses", "fixture"],
        doc("`responses`: a Responses API; `fixture`: plays the file `fixture_path` as the answer to every request."),
    ] = "responses"
    base_url: Annotated[
        str, doc("URL that `/responses` is appended to. `https` beyond loopback, unless `allow_insecure` is set.")
    ] = ""
    query: Annotated[dict[str, str], secret("Query parameters of every request, as `api-version`.")] = msgspec.field(
        default_factory=dict
    )
    dialect: Annotated[
        Dialect,
        doc(
            "Which private headers and fields are sent: `openai` the public API, `codex` with the lineage headers, "
            "`azure` the public API with `store`. Without it an Azure base URL means `azure`."
        ),
    ] = "openai"
    provider: Annotated[str, doc("The provider's name in telemetry (`gen_ai.provider.name`).")] = "openai"
    supports_websockets: Annotated[bool, doc("`false`: HTTP only; nothing is warmed up.")] = True
    supports_stream_id: Annotated[
        bool, later("Carry the lanes of a session on one socket, for a provider that knows `stream_id`.")
    ] = False
    fixture_path: Annotated[str, doc("`fixture`: file of server-sent events.")] = ""

    # Who we are there
    credential: Annotated[Credential, doc("Where the credential comes from.")] = Credential()
    organization: Annotated[str, doc("Sent as `OpenAI-Organization`. Blank: the variable `organization_env`.")] = ""
    organization_env: Annotated[str, doc("Variable that holds the organization, read at start.")] = ""
    project: Annotated[str, doc("Sent as `OpenAI-Project`. Blank: the variable `project_env`.")] = ""
    project_env: Annotated[str, doc("Variable that holds the project, read at start.")] = ""
    version: Annotated[str, doc("Sent as `version`; blank: not sent.")] = ""
    extra_headers: Annotated[
        dict[str, str], secret("Headers added to every request, over those of the same name but the credential's.")
    ] = msgspec.field(default_factory=dict)
    originator: Annotated[str, doc("Sent as `originator` where no header of that name is set; blank: not sent.")] = ""
    user_agent: Annotated[
        str, doc("Sent as `User-Agent` where no header of that name is set; blank: `warmline/VERSION`.")
    ] = ""
    installation_id: Annotated[str, doc("Installation id of sessions that bring none; blank: not sent.")] = ""
    beta_features: Annotated[
        tuple[str, ...], doc("Sent as `x-codex-beta-features` by the dialect `codex`, joined by commas.")
    ] = ()
    timing_metrics: Annotated[bool, doc("Ask for timing events on the WebSocket (dialect `codex`).")] = False
    turn_state_via: Annotated[
        Literal["handshake", "client_metadata"],
        doc(
            "How the routing token of a turn travels on a WebSocket: in the handshake, or in the metadata of each "
            "request, as newer providers expect."
        ),
    ] = "handshake"

    # The line
    ca_bundle: Annotated[str, doc("PEM file of authorities trusted besides the system's; blank: none.")] = ""
    proxy: Annotated[
        str, secret("`http` or `https` URL of the proxy; `none`: no proxy; blank: what `HTTPS_PROXY` and the like say.")
    ] = ""
    allow_insecure: Annotated[bool, doc("Allow a URL without TLS beyond loopback.")] = False
    compression: Annotated[bool, doc("Offer permessage-deflate on the WebSocket; the provider may decline.")] = True
    zstd: Annotated[
        bool,
        doc(
            "Send HTTP request bodies zstd-compressed. Only the Codex backend is known to read them, with a ChatGPT "
            "login; the public API is not."
        ),
    ] = False
    max_frame_bytes: Annotated[PositiveBytes, doc("Largest WebSocket message read.")] = 16 * 1024 * 1024
    max_event_bytes: Annotated[PositiveBytes, doc("Largest server-sent event read.")] = 16 * 1024 * 1024
    max_response_bytes: Annotated[
        PositiveBytes, doc("Largest response: what its finished output items have together.")
    ] = 64 * 1024 * 1024
    max_connects_in_flight: Annotated[PositiveCount, doc("Handshakes under way at once; turns go before warm-ups.")] = (
        32
    )
    max_connection_age_s: Annotated[
        Seconds, doc("Age at which an idle socket is replaced, below the provider's own 60 minutes; 0: never (D-8).")
    ] = 3300.0
    warm_socket_idle_ttl_s: Annotated[Seconds, doc("How long an unused socket is kept; 0: as long as it lives.")] = (
        600.0
    )
    idle_ping_interval_s: Annotated[Seconds, doc("Pings on an idle socket; 0: none (D-7).")] = 30.0
    idle_ping_timeout_s: Annotated[PositiveSeconds, doc("How long a pong may take before the socket is given up.")] = (
        10.0
    )
    rearm_jitter_s: Annotated[
        Seconds, doc("A lost warm socket is replaced after a random wait of up to this, so that many are not at once.")
    ] = 1.0

    # Patience
    connect_timeout_s: Annotated[PositiveSeconds, doc("Longest WebSocket handshake, and longest HTTP connect.")] = 15.0
    first_event_timeout_s: Annotated[
        Seconds, doc("Longest silence before the first event of a response; 0: `idle_timeout_s` (D-9).")
    ] = 0.0
    idle_timeout_s: Annotated[Seconds, doc("Longest silence between two events; 0: any.")] = 300.0
    ping_counts_as_activity: Annotated[bool, doc("Whether a ping of the provider ends such a silence (D-9).")] = False
    send_timeout_s: Annotated[PositiveSeconds, doc("How long the provider may take to read a request.")] = 60.0
    stream_max_retries: Annotated[Retries, doc("Resends of a call on each transport.")] = 5
    request_max_retries: Annotated[Retries, doc("Resends of one HTTP request that had no response yet.")] = 4
    retry_after_cap_s: Annotated[
        Seconds, doc("Longest wait that a provider may ask for; above it the call ends. 0: its wish is ignored (D-6).")
    ] = 60.0
    fallback_after_s: Annotated[
        Seconds, doc("How long a handshake may go unanswered before the attempt goes over HTTP; 0: to the end (D-14).")
    ] = 2.0
    latch_reprobe_s: Annotated[
        Seconds, doc("How often a session that fell back to HTTP tries the WebSocket again; 0: never (D-16).")
    ] = 600.0
    circuit_open_s: Annotated[
        Seconds,
        doc(
            "How long, after one session's handshakes failed for good, the others use HTTP at once; 0: each finds out "
            "by itself (D-13)."
        ),
    ] = 30.0
    models_cache_s: Annotated[
        Seconds, doc("How long a model list is used before it is revalidated; 0: not at all.")
    ] = 300.0

    @property
    def provider_headers(self) -> Mapping[str, str]:
        """`version`, `OpenAI-Organization` and `OpenAI-Project`, those that are set."""
        headers = {
            "version": self.version,
            "OpenAI-Organization": self.organization,
            "OpenAI-Project": self.project,
        }
        return {name: value for name, value in headers.items() if value}

    @property
    def address(self) -> str:
        """Host of the base URL; blank for a fixture."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the base URL, the scheme's own where it names none; 0 for a fixture."""
        url = urlsplit(self.base_url)
        return url.port or _DEFAULT_PORTS.get(url.scheme, 0)

    @property
    def stores_by_default(self) -> bool:
        """Whether `store` is true for requests that do not say. Source: wire-behaviour §4.2."""
        return self.dialect == "azure"

    @property
    def sends_stream_field(self) -> bool:
        """Whether `stream` is written in WebSocket requests; the public API implies it."""
        return self.dialect == "codex"


def is_azure(base_url: str) -> bool:
    """Whether the URL is one of Azure's."""
    return any(mark in base_url.lower() for mark in AZURE_MARKS)


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

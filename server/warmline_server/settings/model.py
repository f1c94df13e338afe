"""Every setting of the server. The texts here are the configuration's manual (docs/configuration.md)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from warmline_server.settings.annotations import (
    Bytes,
    Count,
    PositiveBytes,
    PositiveCount,
    PositiveSeconds,
    Rate,
    Seconds,
    Table,
    doc,
)
from warmline_server.settings.upstream import UpstreamProfile

Sink = Literal["console", "otlp"]
# A single name may stand without its brackets, and `none` for the empty list.
Sinks = Annotated[tuple[Sink, ...], Meta(extra_json_schema={"type": ["array", "string"]})]
MIB = 1024 * 1024


class Limits(Table, frozen=True, kw_only=True):
    """What the server holds at most. A call above a limit is refused with the limit's name."""

    max_sessions: Annotated[Count, doc("Sessions; 0: any number.")] = 10_000
    max_sessions_per_tenant: Annotated[Count, doc("Sessions of one tenant; 0: any number.")] = 0
    max_lanes: Annotated[PositiveCount, doc("Lanes of one session.")] = 32
    max_concurrent_turns: Annotated[Count, doc("Turns and compactions that run or wait; 0: any number.")] = 4_000
    max_concurrent_turns_per_tenant: Annotated[Count, doc("Those of one tenant; 0: any number.")] = 0
    max_turns_per_s_per_tenant: Annotated[
        Rate, doc("Calls that one tenant may begin per second, those of ten seconds at once; 0: any number.")
    ] = 0.0
    max_watches: Annotated[Count, doc("Streams of WatchSession and TailInferences; 0: any number.")] = 4_000
    max_watches_per_tenant: Annotated[Count, doc("Those of one tenant; 0: any number.")] = 0
    max_waiting_calls_per_lane: Annotated[Count, doc("Calls that wait for a busy lane (`on_busy` WAIT).")] = 16
    max_warm_sockets: Annotated[Count, doc("Idle sockets; above it the longest unused is closed.")] = 1_000
    max_warm_sockets_per_tenant: Annotated[
        Count, doc("Idle sockets of one tenant; above it its longest unused is closed. 0: any number.")
    ] = 0
    session_idle_ttl_s: Annotated[Seconds, doc("How long an unused session lives; 0: until it is closed.")] = 3600.0
    max_turn_duration_s: Annotated[PositiveSeconds, doc("Longest call, whatever its deadline.")] = 3600.0
    max_request_bytes: Annotated[PositiveBytes, doc("Largest gRPC request.")] = 64 * MIB
    max_metadata_bytes: Annotated[PositiveBytes, doc("Largest gRPC metadata of a request.")] = 32 * 1024
    max_transcript_bytes: Annotated[Bytes, doc("Conversation kept per lane for APPEND calls; 0: none.")] = 16 * MIB
    slow_reader_s: Annotated[
        Seconds,
        doc(
            "How long a reader may hold a call up before it is ended, and then its status (10 s at least) before it is "
            "cut off; 0: any time."
        ),
    ] = 30.0


class Drain(Table, frozen=True, kw_only=True):
    """What happens between SIGTERM and the end."""

    grace_s: Annotated[Seconds, doc("How long running calls may take to finish.")] = 30.0
    propagation_s: Annotated[
        Seconds, doc("How long the server keeps taking calls after it reports itself unready, for proxies to notice.")
    ] = 0.0


class Telemetry(Table, frozen=True, kw_only=True):
    """What leaves the process about calls. Endpoints, sampling and the resource come from the `OTEL_*` variables."""

    traces: Annotated[Sinks, doc("Where spans go: `none`, one name or a list.")] = ()
    metrics: Annotated[Sinks, doc("Where metrics go: `none`, one name or a list.")] = ()
    prometheus_listen: Annotated[
        str, doc("`HOST:PORT` that serves `/metrics`; blank: none. Needs the extra `prometheus`.")
    ] = ""
    log_format: Annotated[
        Literal["auto", "text", "json"], doc("`auto`: text on a terminal, else one JSON object per line.")
    ] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], doc("Least severity that is logged.")] = "info"
    capture_content: Annotated[bool, doc("Put prompts and answers on spans. They are other people's words.")] = False
    content_max_bytes: Annotated[PositiveBytes, doc("Most of one such text that a span carries.")] = 64 * 1024
    genai_metrics: Annotated[
        Literal["latest", "v1_3x", "both"],
        doc("Which names the `gen_ai.*` metrics have: the newest, those of most dashboards of 2026, or both."),
    ] = "latest"
    inference_ring: Annotated[Count, doc("Attempts kept per session for ListInferences; 0: none.")] = 256
    shutdown_s: Annotated[Seconds, doc("How long the last telemetry may take to leave at the end.")] = 2.0
    bundle_dir: Annotated[
        str, doc("Directory for trace bundles, payloads and all; blank: none. They hold whole conversations.")
    ] = ""


class TurnMetadata(Table, frozen=True, kw_only=True):
    """Metadata about a turn for the provider, of calls that bring none."""

    static_json: Annotated[str, doc("A JSON object sent as it is; blank: none.")] = ""
    command: Annotated[
        tuple[str, ...], doc("Program and arguments, run without a shell, that prints a JSON object. It goes first.")
    ] = ()
    timeout_s: Annotated[PositiveSeconds, doc("How long the command may take; late metadata is left out.")] = 0.25


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Jwt(Table, frozen=True, kw_only=True):
    """Callers that bring a JSON Web Token, as `authorization: Bearer TOKEN`."""

    jwks_url: Annotated[
        str, doc("Where the issuer's keys are, `https` beyond loopback; redirects are not followed. Blank: not there.")
    ] = ""
    jwks_file: Annotated[
        str, doc("File of the issuer's keys instead, read again when it changes. Both blank: no tokens of this kind.")
    ] = ""
    ca_bundle: Annotated[
        str, doc("PEM file of authorities trusted at `jwks_url` besides the system's; blank: none.")
    ] = ""
    issuer: Annotated[str, doc("The `iss` that a token must have.")] = ""
    audience: Annotated[str, doc("The `aud` that a token must have, perhaps among others.")] = ""
    algorithms: Annotated[tuple[Algorithm, ...], doc("Signatures that are accepted.")] = ("RS256", "ES256")
    tenant_claim: Annotated[str, doc("The claim that names the tenant.")] = "sub"
    tenant_pattern: Annotated[
        str,
        doc(
            "Regular expression that the whole claim must match; its first group, if it has one, is the tenant. Blank: "
            "the claim is."
        ),
    ] = ""
    leeway_s: Annotated[Seconds, doc("How far the clocks may differ.")] = 30.0
    keys_cache_s: Annotated[
        PositiveSeconds,
        doc(
            "How old the issuer's keys are when they are fetched again, beside the calls; while that fails the old "
            "ones are used."
        ),
    ] = 300.0
    keys_timeout_s: Annotated[PositiveSeconds, doc("How long the issuer may take to answer.")] = 5.0

    @property
    def is_on(self) -> bool:
        """Whether such tokens are accepted."""
        return bool(self.jwks_url or self.jwks_file)


class Tls(Table, frozen=True, kw_only=True):
    """The server's certificate, and callers with one.

    The files are read again when they change; connections that stand keep what they have. While new ones cannot be used
    the former ones are.
    """

    cert_file: Annotated[str, doc("PEM file of the server's certificate and its chain; blank: no TLS.")] = ""
    key_file: Annotated[str, doc("PEM file of its key, without a passphrase.")] = ""
    client_ca_file: Annotated[
        str,
        doc(
            "PEM file of the authorities of callers' certificates. Every caller then needs one, beside a token that it "
            "may bring. Blank: no caller is asked for one."
        ),
    ] = ""
    tenant_from: Annotated[
        Literal["spiffe", "dns", "common_name", "none"],
        doc(
            "What of a caller's certificate names the tenant, where the caller brings no token: its SPIFFE id, a DNS "
            "name, the common name; `none`: nothing, so that a token must."
        ),
    ] = "spiffe"
    tenant_pattern: Annotated[
        str,
        doc(
            "Regular expression that the whole name must match; its first group, if it has one, is the tenant. Blank: "
            "the name is. Exactly one of several names must match."
        ),
    ] = ""


class TenantPolicy(Table, frozen=True, kw_only=True):
    """What one tenant may do, where that differs from the others. `NAME` is the tenant."""

    upstreams: Annotated[tuple[str, ...], doc("Upstreams it may use; empty: those of `auth.upstreams`.")] = ()
    max_sessions: Annotated[Count, doc("0: `limits.max_sessions_per_tenant`.")] = 0
    max_concurrent_turns: Annotated[Count, doc("0: `limits.max_concurrent_turns_per_tenant`.")] = 0
    max_turns_per_s: Annotated[Rate, doc("0: `limits.max_turns_per_s_per_tenant`.")] = 0.0
    max_warm_sockets: Annotated[Count, doc("0: `limits.max_warm_sockets_per_tenant`.")] = 0


class Auth(Table, frozen=True, kw_only=True):
    """Who may call, and what they may use. Callers authenticate where any of the ways below is set, on loopback too."""

    allow_unauthenticated: Annotated[
        bool, doc("Listen beyond loopback although anybody may call. For a network that is closed by other means.")
    ] = False
    allow_plaintext_tokens: Annotated[
        bool, doc("Take tokens beyond loopback without TLS, where something else encrypts.")
    ] = False
    tokens_file: Annotated[
        str,
        doc(
            "TOML file of static tokens, read again when it changes: `[[token]]` with `tenant`, `sha256` (the token's "
            "digest in hexadecimal) and optionally `name`."
        ),
    ] = ""
    upstreams: Annotated[tuple[str, ...], doc("Upstreams of tenants that have no list of their own; empty: all.")] = ()
    known_tenants_only: Annotated[bool, doc("Refuse callers whose tenant has no table `auth.tenants.NAME`.")] = False
    jwt: Annotated[Jwt, doc("Callers with a JSON Web Token.")] = Jwt()
    tls: Annotated[Tls, doc("The server's certificate, and callers with one.")] = Tls()
    tenants: Annotated[dict[str, TenantPolicy], doc("What tenants may, by name.")] = msgspec.field(default_factory=dict)

    @property
    def takes_tokens(self) -> bool:
        """Whether callers may authenticate with a token."""
        return bool(self.tokens_file) or self.jwt.is_on

    @property
    def is_required(self) -> bool:
        """Whether callers must authenticate."""
        return self.takes_tokens or bool(self.tls.client_ca_file)


class Settings(Table, frozen=True, kw_only=True):
    """The whole configuration."""

    listen: Annotated[
        str,
        doc(
            "`HOST:PORT` or `unix:PATH` of the gRPC server; port 0 takes a free one. Beyond loopback callers must "
            "authenticate."
        ),
    ] = "127.0.0.1:50051"
    health_listen: Annotated[
        str,
        doc(
            "`HOST:PORT` that serves health alone, in plain text, for probes that speak no TLS; blank: none. The gRPC "
            "server answers for health too, to anybody who can connect."
        ),
    ] = ""
    admin_listen: Annotated[str, doc("`HOST:PORT` that serves channelz; blank: none. Keep it on loopback.")] = ""
    default_upstream: Annotated[str, doc("Upstream of sessions that name none.")] = "openai"
    warm_up: Annotated[
        Literal["none", "handshake", "generate_false"],
        doc(
            "What opens before the first turn of sessions that do not say: nothing, a socket, or a socket that has "
            "seen the request's defaults (costs input tokens)."
        ),
    ] = "handshake"
    reflection: Annotated[bool, doc("Serve gRPC reflection.")] = True
    upstreams: Annotated[
        dict[str, UpstreamProfile], doc("Providers by name. `openai` and `simulator` are built in and can be changed.")
    ] = msgspec.field(default_factory=dict)
    limits: Annotated[Limits, doc("Bounds.")] = Limits()
    drain: Annotated[Drain, doc("The end.")] = Drain()
    telemetry: Annotated[Telemetry, doc("Traces, metrics and logs.")] = Telemetry()
    turn_metadata: Annotated[TurnMetadata, doc("Metadata for the provider.")] = TurnMetadata()
    auth: Annotated[Auth, doc("Callers.")] = Auth()

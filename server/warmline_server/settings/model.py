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
    Seconds,
    Table,
    doc,
    later,
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
    max_concurrent_turns: Annotated[Count, doc("Calls that run or wait; 0: any number.")] = 4_000
    max_concurrent_turns_per_tenant: Annotated[Count, doc("Calls of one tenant that run or wait; 0: any number.")] = 0
    max_waiting_calls_per_lane: Annotated[Count, doc("Calls that wait for a busy lane (`on_busy` WAIT).")] = 16
    max_warm_sockets: Annotated[Count, doc("Idle sockets; above it the longest unused is closed.")] = 1_000
    session_idle_ttl_s: Annotated[Seconds, doc("How long an unused session lives; 0: until it is closed.")] = 3600.0
    max_turn_duration_s: Annotated[PositiveSeconds, doc("Longest call, whatever its deadline.")] = 3600.0
    max_request_bytes: Annotated[PositiveBytes, doc("Largest gRPC request.")] = 64 * MIB
    max_metadata_bytes: Annotated[PositiveBytes, doc("Largest gRPC metadata of a request.")] = 32 * 1024
    max_transcript_bytes: Annotated[Bytes, doc("Conversation kept per lane for APPEND calls; 0: none.")] = 16 * MIB
    slow_reader_s: Annotated[Seconds, doc("How long a reader may hold a call up before it is ended; 0: any time.")] = (
        30.0
    )


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


class Jwt(Table, frozen=True, kw_only=True):
    """Callers that bring a JSON Web Token."""

    jwks_url: Annotated[str, later("Where the issuer's keys are; blank: no tokens of this kind.")] = ""
    issuer: Annotated[str, later("The `iss` that a token must have.")] = ""
    audience: Annotated[str, later("The `aud` that a token must have.")] = ""
    algorithms: Annotated[tuple[str, ...], later("Signatures that are accepted.")] = ("RS256", "ES256")
    tenant_claim: Annotated[str, later("The claim that names the tenant.")] = "sub"
    leeway_s: Annotated[Seconds, later("How far the clocks may differ.")] = 30.0
    keys_cache_s: Annotated[Seconds, later("How long the issuer's keys are used before they are fetched again.")] = (
        300.0
    )


class Mtls(Table, frozen=True, kw_only=True):
    """Callers that bring a certificate. The files are read again when they change."""

    cert_file: Annotated[str, later("PEM file of the server's certificate chain; blank: no TLS.")] = ""
    key_file: Annotated[str, later("PEM file of its key.")] = ""
    client_ca_file: Annotated[
        str, later("PEM file of the authorities of callers' certificates; blank: callers need none.")
    ] = ""


class Auth(Table, frozen=True, kw_only=True):
    """Who may call."""

    allow_unauthenticated: Annotated[
        bool, doc("Listen beyond loopback although anybody may call. For a network that is closed by other means.")
    ] = False
    tokens_file: Annotated[str, later("TOML file of static tokens and their tenants, read again when it changes.")] = ""
    jwt: Annotated[Jwt, doc("Callers with a JSON Web Token.")] = Jwt()
    mtls: Annotated[Mtls, doc("The server's certificate, and callers with one.")] = Mtls()


class Settings(Table, frozen=True, kw_only=True):
    """The whole configuration."""

    listen: Annotated[
        str,
        doc(
            "`HOST:PORT` or `unix:PATH` of the gRPC server; port 0 takes a free one. Beyond loopback callers must "
            "authenticate."
        ),
    ] = "127.0.0.1:50051"
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

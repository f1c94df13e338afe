"""The channel to one server: how it is made, what every call carries, and the client's own resends."""

import asyncio
import inspect
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from warmline.errors import WarmlineError, from_rpc_error
from warmline.retry import CallRetry
from warmline.v1 import session_service_pb2_grpc, trace_service_pb2_grpc, turn_service_pb2_grpc

try:
    from opentelemetry import propagate
except ImportError:  # The client works without OpenTelemetry; then no trace context is sent.
    propagate = None  # type: ignore[assignment]

Token = str | Callable[[], str | Awaitable[str]]
"""A bearer token, or what gives the current one; asked before each call."""

CallMetadata = tuple[tuple[str, str], ...]

# The key that proxies route by. Source: protos/warmline/v1/session_service.proto.
SESSION_KEY = "x-warmline-session"

# Ids that the contract allows; another one is left out of the metadata and refused by the server with its reason.
_SESSION_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_LOOPBACK = re.compile(r"(?:(?:ipv4:)?127\.[\d.]+|localhost|(?:ipv6:)?\[::1\])(?::\d+)?|unix(?:-abstract)?:.*")

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the server is trusted, and with a certificate and key of its own, how it trusts the client (mTLS)."""

    root_certificates: bytes | None = None
    """PEM; None: the roots that gRPC brings along."""
    certificate_chain: bytes | None = None
    """PEM; None: the client shows no certificate."""
    private_key: bytes | None = field(default=None, repr=False)
    """PEM, of `certificate_chain`."""
    server_name: str | None = None
    """Name that the server's certificate must have; None: the host that is dialled."""

    @classmethod
    def from_files(
        cls,
        *,
        root_certificates: str | Path | None = None,
        certificate_chain: str | Path | None = None,
        private_key: str | Path | None = None,
        server_name: str | None = None,
    ) -> "Tls":
        """Reads PEM files, now: a client that shall use renewed files is made anew.

        Raises:
            OSError: a file cannot be read.
        """
        paths = (root_certificates, certificate_chain, private_key)
        roots, chain, key = (None if path is None else Path(path).read_bytes() for path in paths)
        return cls(root_certificates=roots, certificate_chain=chain, private_key=key, server_name=server_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """What a connection is; see `warmline.Client` for the fields."""

    target: str
    tls: bool | Tls
    token: Token | None
    allow_plaintext_token: bool
    max_message_bytes: int
    keepalive_s: float
    keepalive_timeout_s: float
    retry: CallRetry
    unary_timeout_s: float | None
    channel_options: Sequence[tuple[str, str | int]]

    def check(self) -> None:
        """Raises ValueError when a token would leave the machine readable."""
        if self.token is not None and not (self.tls or self.allow_plaintext_token or self.is_loopback()):
            raise ValueError(
                f"open client: a token would go to {self.target} in plain text; "
                "give tls, or allow_plaintext_token=True where something else encrypts"
            )

    def is_loopback(self) -> bool:
        """Whether the target is this machine, by its spelling."""
        return _LOOPBACK.fullmatch(self.target) is not None

    def options(self) -> list[tuple[str, str | int]]:
        """The channel's options; the caller's own come last and win."""
        options: list[tuple[str, str | int]] = [
            # gRPC's own resends would run a paid call twice without a word; `CallRetry` decides instead.
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            # gRPC waits for a ping's answer by this one alone, 60 s without it (grpc/grpc#39239). Measured with 1.85.1.
            ("grpc.http2.ping_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            # A model that thinks for minutes sends nothing: without this, gRPC stops pinging then.
            ("grpc.http2.max_pings_without_data", 0),
            # gRPC's 1 s and 120 s would keep a client away from a server that has long restarted.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.primary_user_agent", _user_agent()),
        ]
        if self.is_loopback():
            # gRPC sends even loopback traffic through `http_proxy`. Measured with grpcio 1.85.1.
            options.append(("grpc.enable_http_proxy", 0))
        if isinstance(self.tls, Tls) and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return [*options, *self.channel_options]


class Connection:
    """One open channel with its stubs."""

    def __init__(self, settings: ConnectionSettings) -> None:
        """Makes the channel; nothing is dialled before the first call. Must be called in a running event loop."""
        self._settings = settings
        self.retry = settings.retry
        self._channel = _channel(settings)
        self.sessions = session_service_pb2_grpc.SessionServiceStub(self._channel)
        self.turns = turn_service_pb2_grpc.TurnServiceStub(self._channel)
        self.traces = trace_service_pb2_grpc.TraceServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the channel; calls that run are cancelled."""
        await self._channel.close()

    async def metadata(self, session_id: str | None = None) -> CallMetadata:
        """What a call carries: the session's key, the token, the current trace context.

        Raises:
            ValueError: the token cannot be sent.
        """
        carrier: dict[str, str] = {}
        if session_id is not None and _SESSION_ID.fullmatch(session_id):
            carrier[SESSION_KEY] = session_id
        if propagate is not None:
            propagate.inject(carrier)
        if self._settings.token is not None:
            carrier["authorization"] = f"Bearer {await _current(self._settings.token)}"
        return tuple(carrier.items())

    async def unary(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        session_id: str | None = None,
        is_repeatable: bool = True,
    ) -> _Response:
        """Makes a unary call.

        Args:
            is_repeatable: False for a call that does more when it arrives twice; it is then sent once.

        Raises:
            WarmlineError: the call failed.

        Cancel: cancels the call.
        """
        retry = self.retry if is_repeatable else CallRetry(max_tries=1)
        tries = Tries(retry, self._settings.unary_timeout_s)
        while True:
            call_metadata = await self.metadata(session_id)
            try:
                return await method(request, metadata=call_metadata, timeout=tries.remaining_s())
            except grpc.aio.AioRpcError as error:
                await tries.wait_or_raise(from_rpc_error(error))


class Tries:
    """The sends of one call: counts them, keeps its deadline, waits between them."""

    def __init__(self, retry: CallRetry, timeout_s: float | None) -> None:
        """Starts the deadline; `timeout_s` None: there is none. Must be called in a running event loop."""
        self._retry = retry
        self._now_s = asyncio.get_running_loop().time
        self._deadline_at_s = None if timeout_s is None else self._now_s() + timeout_s
        self._tries = 1
        self._waited_s = 0.0

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None without one."""
        return None if self._deadline_at_s is None else max(0.0, self._deadline_at_s - self._now_s())

    async def wait_or_raise(self, error: WarmlineError) -> None:
        """Waits before the next send, or raises the error when there shall be none.

        Cancel: safe; the call is over.
        """
        wait_s = self._retry.wait_s(
            error,
            tries=self._tries,
            waited_s=self._waited_s,
            remaining_s=self.remaining_s(),
            jitter=random.random(),
        )
        if wait_s is None:
            raise error from error.__cause__
        await asyncio.sleep(wait_s)
        self._tries += 1
        self._waited_s += wait_s


def _channel(settings: ConnectionSettings) -> grpc.aio.Channel:
    options = settings.options()
    if not settings.tls:
        return grpc.aio.insecure_channel(settings.target, options=options)
    tls = settings.tls if isinstance(settings.tls, Tls) else Tls()
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    return grpc.aio.secure_channel(settings.target, credentials, options=options)


async def _current(token: Token) -> str:
    if not isinstance(token, str):
        given = token()
        token = await given if inspect.isawaitable(given) else given
    token = token.strip()
    # Said here, without the token: gRPC would put it into its error.
    if not (token.isascii() and token.isprintable()):
        raise ValueError("send token: it has characters that a header cannot carry")
    return token


def _user_agent() -> str:
    try:
        return f"warmline-python/{metadata.version('warmline-client')}"
    except metadata.PackageNotFoundError:
        return "warmline-python"

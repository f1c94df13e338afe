"""The composition root: builds everything in order, closes it in reverse, and knows every class.

Used as `async with App(settings) as app:`; `app.drain()` first where running calls shall end well.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from opentelemetry.sdk.trace import SpanProcessor

from warmline.v1 import (
    session_service_pb2,
    session_service_pb2_grpc,
    trace_service_pb2,
    trace_service_pb2_grpc,
    turn_service_pb2,
)
from warmline_server.callers.reloaded import BadFile
from warmline_server.clock import Clock, SystemClock
from warmline_server.core.config import WarmUp
from warmline_server.credentials import open_credential
from warmline_server.observe.setup import Telemetry, open_telemetry
from warmline_server.rpc.callers import CallerInterceptor
from warmline_server.rpc.server_credentials import server_credentials
from warmline_server.rpc.session_service import SessionService
from warmline_server.rpc.trace_service import TraceService
from warmline_server.rpc.tracing_interceptor import TracingInterceptor
from warmline_server.rpc.turn_service import TurnService, add_turn_service
from warmline_server.session.registry import Registry
from warmline_server.session.session import Surroundings
from warmline_server.session.tenants import Tenants
from warmline_server.session.turn_metadata import TurnMetadataSource
from warmline_server.session.upstream import Upstream, proxy_of
from warmline_server.session.warm_sockets import WarmSockets
from warmline_server.settings import Problem, Settings, SettingsError, UpstreamProfile
from warmline_server.transport.http import HttpTransport
from warmline_server.transport.http_exchange import HttpLimits
from warmline_server.transport.tls import tls_context

if TYPE_CHECKING:
    from warmline_server.callers.authenticator import Authenticator

_log = logging.getLogger(__name__)

READINESS = "readiness"
LIVENESS = "liveness"

# How long calls that were told to end may take to close their books, and the transport to send the last statuses.
CUT_S = 2.0
STOP_S = 0.5


class ListenError(Exception):
    """The server cannot listen where it was told to."""


class App:
    """One server process.

    `address` is where it listens once it is entered (the port of a `:0` is filled in), `health_address` where health
    alone does, `admin_address` where channelz does, blank where they do not.
    """

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, span_processors: Sequence[SpanProcessor] = ()
    ) -> None:
        self.settings = settings
        self.address = ""
        self.health_address = ""
        self.admin_address = ""
        self._clock = clock or SystemClock()
        self._span_processors = span_processors
        self._stack = AsyncExitStack()
        self._health = HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        """The sessions. Only while the app is open."""
        assert self._registry is not None, "the app is not open"
        return self._registry

    async def __aenter__(self) -> Self:
        """Builds and listens.

        Raises: ListenError; TelemetryError; SettingsError when a file that the settings name cannot be used. Nothing
            stays open then.
        """
        async with AsyncExitStack() as building:
            telemetry = open_telemetry(self.settings.telemetry, span_processors=self._span_processors)
            building.push_async_callback(telemetry.close)
            self._registry = await self._build_registry(telemetry, building)
            await self._build_server(telemetry, building)
            self._stack = building.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def drain(self, grace_s: float, *, hurry: asyncio.Event | None = None) -> None:
        """Ends the work: unready, no new calls; running calls finish within `grace_s`, the rest ends with TURN_DRAINED.

        `hurry`, when it gets set, ends the wait at once.
        """
        registry = self.registry
        # Not the liveness: a server that drains is well, and whoever restarts what is not must leave it alone.
        for service in ("", READINESS):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        # Whoever routes by health needs a moment to notice; until then calls still come, and are served.
        await _within(self.settings.drain.propagation_s, asyncio.Event().wait(), hurry)
        registry.drain()
        _log.info("draining", extra={"running_calls": registry.running_calls, "grace_s": grace_s})
        if not await _within(grace_s, registry.wait_idle(), hurry):
            _log.warning("cutting running calls", extra={"running_calls": registry.running_calls})
            registry.stop_calls()
            await _within(CUT_S, registry.wait_idle(), None)

    async def wait_for_termination(self) -> None:
        """Waits until the server was stopped. Cancel: safe."""
        assert self._server is not None, "the app is not open"
        await self._server.wait_for_termination()

    async def _build_registry(self, telemetry: Telemetry, stack: AsyncExitStack) -> Registry:
        settings, clock = self.settings, self._clock
        tenants = Tenants(settings.auth, settings.limits)
        upstreams: dict[str, Upstream] = {}
        around = Surroundings(
            clock=clock,
            observer=telemetry.observer,
            limits=settings.limits,
            warm_sockets=WarmSockets(
                clock, settings.limits.max_warm_sockets, lambda tenant: tenants.of(tenant).max_warm_sockets
            ),
            turn_metadata=TurnMetadataSource(settings.turn_metadata, clock),
            default_warm_up=WarmUp[settings.warm_up.upper()],
        )
        for name, profile in settings.upstreams.items():
            upstreams[name] = await self._build_upstream(name, profile, around, stack)
        registry = Registry(upstreams, settings.default_upstream, around, tenants)
        stack.callback(registry.close_all)
        return registry

    async def _build_upstream(
        self, name: str, profile: UpstreamProfile, around: Surroundings, stack: AsyncExitStack
    ) -> Upstream:
        tls = _tls_context(f"upstreams.{name}.ca_bundle", profile.ca_bundle)
        http = HttpTransport(
            self._clock,
            tls=tls,
            proxy=proxy_of(profile.proxy),
            limits=HttpLimits(max_event_bytes=profile.max_event_bytes),
        )
        stack.push_async_callback(http.close)
        await http.warm()
        credential = open_credential(profile.credential, http=http, clock=self._clock)
        stack.push_async_callback(credential.close)
        return Upstream(
            name,
            profile,
            credential=credential,
            http=http,
            tls=tls,
            clock=self._clock,
            observer=around.observer,
        )

    async def _build_server(self, telemetry: Telemetry, stack: AsyncExitStack) -> None:
        limits = self.settings.limits
        callers = CallerInterceptor(
            await self._build_authenticator(stack), clock=self._clock, refused=telemetry.observer.caller_refused
        )
        self._server = server = grpc.aio.server(
            interceptors=[TracingInterceptor(telemetry.tracer_provider, telemetry.meter_provider), callers],
            options=[
                # The defaults cancel part of a burst of new streams. Measured: 1441 of 4000, grpcio 1.85.1.
                ("grpc.server.max_pending_requests", 100_000),
                ("grpc.server.max_pending_requests_hard_limit", 200_000),
                # What is too large by less than that again is read, so that the refusal has our reason.
                ("grpc.max_receive_message_length", min(2 * limits.max_request_bytes, 2**31 - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.max_metadata_bytes),
                # Another server on the same port is a mistake to be told, not to be shared with.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                # Without it the core waits 60 s for the answer to a ping (grpc/grpc#39239).
                ("grpc.http2.ping_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        self._add_services(server, telemetry)
        self.address = _listen(server, self.settings.listen, self._build_credentials())
        await server.start()
        for service in ("", READINESS, LIVENESS):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        stack.push_async_callback(server.stop, STOP_S)
        if self.settings.health_listen:
            # For probes that speak no TLS, and behind a policy that lets nobody else near the API.
            health = partial(health_pb2_grpc.add_HealthServicer_to_server, self._health)
            self.health_address = await _serve_beside(self.settings.health_listen, health, stack)
        if self.settings.admin_listen:
            # Channelz tells addresses and counts of every connection, so it has a port of its own.
            self.admin_address = await _serve_beside(self.settings.admin_listen, channelz.add_channelz_servicer, stack)

    async def _build_authenticator(self, stack: AsyncExitStack) -> "Authenticator | None":
        """Who may call; None: anybody."""
        auth = self.settings.auth
        if not auth.is_required:
            return None
        from warmline_server.callers.authenticator import Authenticator

        http = None
        if auth.jwt.jwks_url:
            http = HttpTransport(self._clock, tls=_tls_context("auth.jwt.ca_bundle", auth.jwt.ca_bundle))
            stack.push_async_callback(http.close)
        try:
            authenticator = Authenticator(auth, http=http, clock=self._clock)
        except BadFile as error:
            raise _unusable("auth", error) from None
        stack.push_async_callback(authenticator.close)
        await authenticator.warm()
        return authenticator

    def _build_credentials(self) -> grpc.ServerCredentials | None:
        tls = self.settings.auth.tls
        if not tls.cert_file:
            return None
        from warmline_server.callers.server_certificate import ServerCertificate

        try:
            return server_credentials(ServerCertificate(tls))
        except BadFile as error:
            raise _unusable("auth.tls", error) from None

    def _add_services(self, server: grpc.aio.Server, telemetry: Telemetry) -> None:
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(SessionService(self.registry), server)
        add_turn_service(TurnService(self.registry), server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(
            TraceService(telemetry.ring, self.registry.watched), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self.settings.reflection:
            served = [
                module.DESCRIPTOR.services_by_name[name].full_name
                for module, name in (
                    (session_service_pb2, "SessionService"),
                    (turn_service_pb2, "TurnService"),
                    (trace_service_pb2, "TraceService"),
                    (health_pb2, "Health"),
                )
            ]
            reflection.enable_server_reflection([*served, reflection.SERVICE_NAME], server)


def _tls_context(key: str, ca_bundle: str) -> ssl.SSLContext:
    try:
        return tls_context(ca_bundle)
    except OSError as error:
        found = error.strerror or "a file that cannot be used"
        problem = Problem(key, found, "a PEM file of authorities")
        raise SettingsError([problem]) from error


def _unusable(key: str, error: BadFile) -> SettingsError:
    return SettingsError([Problem(key, str(error), "a file that can be used")])


async def _serve_beside(listen: str, add: Callable[[grpc.aio.Server], None], stack: AsyncExitStack) -> str:
    """Serves what `add` adds at an address of its own, without TLS. Returns: where."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add(server)
    address = _listen(server, listen)
    await server.start()
    stack.push_async_callback(server.stop, STOP_S)
    return address


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> str:
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address}: the address is in use, or not one of this machine") from error
    return address if address.startswith("unix") else f"{address.rpartition(':')[0]}:{port}"


async def _within(limit_s: float, wait: Coroutine[object, object, object], hurry: asyncio.Event | None) -> bool:
    """Whether `wait` ended within `limit_s` and before `hurry`."""
    waiting = asyncio.ensure_future(wait)
    tasks: set[asyncio.Future[object]] = {waiting}
    if hurry is not None:
        tasks.add(asyncio.ensure_future(hurry.wait()))
    try:
        await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        return waiting.done()
    finally:
        for task in tasks:
            task.cancel()

"""One configured upstream at work: what all its sessions share.

Sessions share the discipline (connects in flight, circuit, HTTP connection pool), never a socket.
"""

import random
import ssl
from collections.abc import Sequence

from warmline_server.clock import Clock
from warmline_server.core import outgoing
from warmline_server.core.circuit import Circuit
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.received_headers import request_id
from warmline_server.core.records import ConnectRecord
from warmline_server.credentials import CredentialSource
from warmline_server.session.gate import Gate
from warmline_server.session.observer import Observer
from warmline_server.session.warm_sockets import IdlePolicy
from warmline_server.settings import UpstreamProfile
from warmline_server.transport.http import HttpTransport
from warmline_server.transport.websocket import SocketOptions, WebSocket, open_websocket


class Upstream:
    """A provider profile with its connection discipline."""

    def __init__(
        self,
        name: str,
        profile: UpstreamProfile,
        *,
        credential: CredentialSource,
        http: HttpTransport,
        tls: ssl.SSLContext,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.name = name
        self.profile = profile
        self.credential = credential
        self.http = http
        self.circuit = Circuit(profile.circuit_open_s)
        self._circuit_seen = self.circuit.state
        self.http_url = outgoing.http_url(profile.base_url, "responses", profile.query)
        self._clock = clock
        self._observer = observer
        self._gate = Gate(profile.max_connects_in_flight)
        websocket_url = outgoing.websocket_url(profile.base_url, "responses", profile.query)
        self._socket_options = SocketOptions(
            url=websocket_url,
            tls=tls if websocket_url.startswith("wss:") else None,
            compression=profile.compression,
            max_frame_bytes=profile.max_frame_bytes,
            connect_timeout_s=profile.connect_timeout_s,
            proxy=proxy_of(profile.proxy),
        )
        self.idle_policy = IdlePolicy(
            ttl_s=profile.warm_socket_idle_ttl_s,
            max_age_s=profile.max_connection_age_s,
            ping_interval_s=profile.idle_ping_interval_s,
            ping_timeout_s=profile.idle_ping_timeout_s,
        )

    def rearm_delay_s(self) -> float:
        """A jittered wait before a lost socket is replaced, so that many lost at once do not return at once."""
        return random.uniform(0.0, self.profile.rearm_jitter_s)

    def trip_circuit(self) -> None:
        """A handshake was swallowed, or a session's handshakes exhausted its budget (D-13)."""
        self.circuit.trip(self._clock.now_s())
        self._note_circuit()

    def take_probe(self) -> bool:
        """Whether the caller shall try the upstream again, in the background, while the circuit is open."""
        taken = self.circuit.take_probe(self._clock.now_s())
        self._note_circuit()
        return taken

    def _note_circuit(self) -> None:
        if self._circuit_seen is not self.circuit.state:
            self._circuit_seen = self.circuit.state
            self._observer.circuit_changed(self.name, self.circuit.state.name)

    async def connect(self, record: ConnectRecord, headers: Sequence[tuple[str, str]]) -> WebSocket:
        """Opens a socket, within the upstream's cap; turns go before warm-ups. The one connect path.

        Raises: UpstreamFailure. Cancel: the connection is cut; the record says so.
        """
        async with self._gate.pass_through(urgent=record.call is not None):
            record.started_at_s, record.started_unix_ns = self._clock.now_s(), self._clock.unix_ns()
            record.began = True
            self._observer.connect_started(record)
            try:
                socket = await self._open(record, headers)
            except UpstreamFailure as failure:
                record.error = failure
                record.status = failure.words.status if failure.words is not None else None
                record.upstream_handshake_request_id = failure.upstream_request_id
                raise
            except BaseException:
                record.abandoned = True
                raise
            finally:
                record.ended_at_s, record.ended_unix_ns = self._clock.now_s(), self._clock.unix_ns()
                self._observer.connect_ended(record)
        self.circuit.reset()
        self._note_circuit()
        return socket

    async def _open(self, record: ConnectRecord, headers: Sequence[tuple[str, str]]) -> WebSocket:
        socket = await open_websocket(
            self._socket_options, headers, connection_id=record.connection_id, clock=self._clock
        )
        record.status = 101
        record.upstream_handshake_request_id = request_id(socket.headers)
        socket.on_closed = lambda cause, code: self._observer.socket_closed(record, cause, code)
        return socket


def proxy_of(setting: str) -> str | bool | None:
    """The proxy that a profile names: its URL, True for what the environment says, None for none at all."""
    return None if setting == "none" else setting or True

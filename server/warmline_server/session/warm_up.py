"""The warm-up request: a request that generates nothing, sent on a socket before the first turn needs it.

Its response id and settings become the socket's baseline, so that the first turn sends only its own items. It is an
attempt of its own kind: its tokens are told as a warm-up's, never as a turn's. Source: conformance C-020 to C-027.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from warmline_server.core import outgoing
from warmline_server.core import request as requests
from warmline_server.core.delta import Baseline
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.events import Completed, Emission, FullReason, RateLimits, SlotOutcome, Transport
from warmline_server.core.items import of_provider
from warmline_server.core.records import AttemptKind, AttemptRecord, AttemptStatus
from warmline_server.ids import new_id
from warmline_server.session.attempt import Attempt
from warmline_server.session.handshake import Handshake
from warmline_server.transport.websocket import WebSocket

if TYPE_CHECKING:
    from warmline_server.session.session import Session


class WarmUpRequest:
    """One warm-up request on a socket that was opened for it."""

    def __init__(self, session: "Session", handshake: Handshake, settings: Mapping[str, bytes]) -> None:
        self._session = session
        self._handshake = handshake
        self._request = requests.warm_up(settings)
        self._attempt: Attempt | None = None

    async def run(self, socket: WebSocket, turn_metadata: bytes) -> None:
        """Sends it and reads to its end; the handshake has the baseline then.

        Raises: UpstreamFailure; the socket is dropped. Cancel: the same.
        """
        session = self._session
        record = self._new_record(socket)
        facts = session.facts(turn_metadata, turn_state=None, request_id=record.attempt_id)
        record.request = requests.warm_up_frame(
            self._request, outgoing.client_metadata(facts), stream_field=session.upstream.profile.sends_stream_field
        )
        profile = session.upstream.profile
        self._attempt = attempt = Attempt(
            record,
            clock=session.clock,
            observer=session.observer,
            with_payload=False,
            max_response_bytes=profile.max_response_bytes,
        )
        attempt.begin()
        watch = session.idle_watch(Transport.WEBSOCKET)
        try:
            exchange = await socket.send(record.request, profile.send_timeout_s)
            await attempt.read(exchange, watch, self)
        except BaseException as error:
            socket.drop("abandoned")
            failed = isinstance(error, UpstreamFailure)
            attempt.end(
                AttemptStatus.FAILED if failed else AttemptStatus.CANCELLED,
                error if isinstance(error, UpstreamFailure) else None,
            )
            raise

    def _new_record(self, socket: WebSocket) -> AttemptRecord:
        session = self._session
        return AttemptRecord(
            attempt_id=new_id(),
            session=session.record,
            call=None,
            number=0,
            kind=AttemptKind.WARM_UP,
            model=self._request.model,
            transport=Transport.WEBSOCKET,
            started_unix_ns=session.clock.unix_ns(),
            started_at_s=session.clock.now_s(),
            slot_outcome=SlotOutcome.COLD,
            connection_id=socket.connection_id,
            connect=self._handshake.record,
            full_reason=FullReason.NEW_SOCKET,
        )

    # What an attempt asks (`attempt.Hooks`)

    async def send(self, emissions: Sequence[Emission]) -> None:
        """Nobody listens to a warm-up."""

    def settle(self, terminal: Emission) -> Emission:
        """The socket now holds the warm-up's request and whatever it answered."""
        attempt, request = self._attempt, self._request
        assert attempt is not None, "a terminal event belongs to an attempt"
        whole = isinstance(terminal.event, Completed)
        attempt.end(AttemptStatus.COMPLETED if whole else AttemptStatus.INCOMPLETE)
        if whole:
            history = request.history + of_provider(attempt.response.items).digests
            self._handshake.baseline = Baseline(request.canonical_settings, history, attempt.response.response_id)
        return terminal

    def note_turn_state(self, token: str | None) -> None:
        """A token told to a warm-up is told again by the handshake's answer."""

    def note_rate_limits(self, limits: RateLimits) -> None:
        """The provider told its limits."""
        self._session.note_rate_limits(limits)

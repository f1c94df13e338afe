"""A call's resends: its budgets, its recovery of the credential, and what follows a failure.

`core.retry` decides; this keeps the counts and does what it says.
"""

from typing import TYPE_CHECKING

from warmline_server.clock import sleep
from warmline_server.core import failures, retry
from warmline_server.core.errors import Heal, UpstreamFailure
from warmline_server.core.events import FellBack, Retrying, Transport
from warmline_server.core.records import CallRecord
from warmline_server.credentials import Recovery
from warmline_server.session.attempt import Attempt
from warmline_server.session.call_spec import CallSpec
from warmline_server.session.outbox import Outbox

if TYPE_CHECKING:
    from warmline_server.session.session import Session


class Resends:
    """Decides, with `core.retry`, whether a call goes on.

    `forgotten`: the upstream has forgotten a response once in this call; `client_call_finished`: a call that the caller
    executes was delivered, so nothing is sent again.
    """

    def __init__(self, session: "Session", spec: CallSpec, record: CallRecord, outbox: Outbox) -> None:
        self.forgotten = False
        self.client_call_finished = False
        self._session = session
        self._spec = spec
        self._record = record
        self._outbox = outbox
        self._retries = 0
        self._request_retries = 0
        self._recovery: Recovery | None = None

    @property
    def recovery_step(self) -> str:
        """The step of recovery that was taken last; blank: none was."""
        return self._recovery.facts.step if self._recovery is not None else ""

    async def after(self, failure: UpstreamFailure, attempt: Attempt | None) -> None:
        """Prepares the next attempt, or raises what ends the call.

        Args: `attempt` that failed, None when its handshake did.
        """
        response_started = attempt is not None and attempt.response_started
        if not response_started:
            self._show_limits(failure)
        if failure.heal is Heal.AUTH:
            try:
                if await self._recover_credential():
                    return
            except UpstreamFailure as why:
                failure = why
        on_websocket = attempt is None or attempt.record.transport is Transport.WEBSOCKET
        situation = self._situation(response_started=response_started, on_websocket=on_websocket)
        match retry.decide(failure, situation):
            case retry.GiveUp(error=error):
                if failure.handshake:  # no attempt came to be that would name it
                    self._record.upstream_request_id = failure.upstream_request_id
                await self._outbox.flush()
                raise error from failure
            case retry.FallBack(reason=reason):
                self._fall_back(failure, reason)
            case retry.Resend() as resend:
                await self._prepare(failure, attempt, resend)

    def _show_limits(self, failure: UpstreamFailure) -> None:
        """A refusal for usage tells the limits, which the caller sees before the error (C-083)."""
        for limits in failures.limits_before(failure):
            self._session.note_rate_limits(limits)
            self._outbox.add(limits, self._record.attempts)

    async def _recover_credential(self) -> bool:
        """Takes the next step of recovery, which costs no retry (C-066).

        Returns: whether the attempt may be repeated. Raises: UpstreamFailure when the step itself failed (C-067).
        """
        if self._recovery is None:
            self._recovery = self._session.upstream.credential.start_recovery()
        return await self._recovery.next_step()

    @property
    def _max_retries(self) -> int:
        wish = self._session.config.stream_max_retries
        return self._session.upstream.profile.stream_max_retries if wish is None else wish

    @property
    def _request_max_retries(self) -> int:
        wish = self._session.config.request_max_retries
        return self._session.upstream.profile.request_max_retries if wish is None else wish

    def _situation(self, *, response_started: bool, on_websocket: bool) -> retry.Situation:
        session, spec = self._session, self._spec
        ends = [self._record.started_at_s + spec.max_duration_s]
        if spec.deadline_at_s is not None:
            ends.append(spec.deadline_at_s)
        return retry.Situation(
            mode=spec.retry,
            transport=Transport.WEBSOCKET if on_websocket else Transport.HTTP,
            retries=self._retries,
            max_retries=self._max_retries,
            request_retries=self._request_retries,
            request_max_retries=self._request_max_retries,
            may_fall_back=on_websocket,
            fell_back=on_websocket and not session.wants_websocket,
            response_started=response_started,
            output_delivered=self._record.output_delivered,
            client_call_finished=self.client_call_finished,
            forgotten_before=self.forgotten,
            remaining_s=min(ends) - session.clock.now_s(),
            jitter=session.around.jitter(),
            retry_after_cap_s=session.upstream.profile.retry_after_cap_s,
        )

    def _fall_back(self, failure: UpstreamFailure, reason: str) -> None:
        session = self._session
        if session.fall_back(reason, self._record) and failure.handshake and failure.heal is not Heal.HTTP:
            session.upstream.trip_circuit()
        self._retries = self._request_retries = 0
        self._outbox.add(FellBack(latched=True, reason=session.latch.reason), self._record.attempts)

    async def _prepare(self, failure: UpstreamFailure, attempt: Attempt | None, resend: retry.Resend) -> None:
        session, record = self._session, self._record
        self.forgotten |= failure.heal is Heal.FULL_REQUEST
        count, most = self._take(resend.counts)
        retrying = Retrying(
            reason=failure.reason,
            retry=count,
            max_retries=most,
            delay_s=resend.delay_s,
            response_id=record.response_id,
            upstream_request_id=failure.upstream_request_id,
            upstream_status=failure.words.status if failure.words is not None else None,
        )
        self._outbox.add(retrying, record.attempts)
        failed = attempt.record if attempt is not None else None
        session.observer.retry_scheduled(record, failed, failure, resend.delay_s)
        if resend.delay_s > 0:
            await self._outbox.flush()
            await sleep(session.clock, resend.delay_s)

    def _take(self, counts: str) -> tuple[int, int]:
        """Takes a resend from its budget. Returns: how many that makes, and how many there may be."""
        if counts == "request":
            self._request_retries += 1
            return self._request_retries, self._request_max_retries
        if counts == "stream":
            self._retries += 1
            self._request_retries = 0
        return self._retries, self._max_retries

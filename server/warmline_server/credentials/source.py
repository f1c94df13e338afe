"""The credential of one upstream: the headers that carry it, and what can be done when they are refused."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from warmline_server.clock import Clock
from warmline_server.core.errors import Heal, UpstreamFailure
from warmline_server.credentials.renewal import Renewal
from warmline_server.credentials.token import Token
from warmline_server.settings import Credential

_log = logging.getLogger(__name__)

# A request that is refused so soon after a change was probably sent before it.
JUST_CHANGED_S = 30.0


class Outcome(StrEnum):
    """How a step of a recovery ended."""

    RECOVERED = "recovered"
    UNCHANGED = "unchanged"
    PERMANENT_ERROR = "permanent_error"
    TRANSIENT_ERROR = "transient_error"


@dataclass(frozen=True, slots=True)
class AuthFacts:
    """What telemetry may say about the credential of a request; never the value.

    `mode` is the source's name; `header` is blank when none is sent; `step` and `outcome` are of the last step of a
    recovery, blank and None before the first.
    """

    mode: str
    header: str
    step: str = ""
    outcome: Outcome | None = None


Step = tuple[str, Callable[[], Awaitable[bool]]]


class CredentialSource:
    """An upstream's credential, shared by all its sessions. This one is none; others override what they need."""

    def __init__(self, settings: Credential, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.facts = AuthFacts(settings.source, settings.header if settings.source != "none" else "")
        self._token: Token | None = None
        self._changed_at_s: float | None = None
        self._renewal = Renewal(self._renew, clock=clock, limit_s=self._renewal_limit_s())

    async def headers(self) -> list[tuple[str, str]]:
        """The headers to add last to a request; empty without a credential.

        Raises: UpstreamFailure: final when there is no credential to be had, else worth a resend. Cancel: safe.
        """
        token = await self._current()
        if token is None:
            return []
        value = f"{self.settings.scheme} {token.value}" if self.settings.scheme else token.value
        headers = [(self.settings.header, value)]
        account_id = self.settings.account_id or token.account_id
        if account_id:
            headers.append(("ChatGPT-Account-ID", account_id))
        return headers

    def start_recovery(self) -> "Recovery":
        """The steps that one call may take after its credential was refused."""
        return Recovery(self.facts, self._steps())

    async def close(self) -> None:
        """Ends a renewal that is under way. Idempotent."""
        await self._renewal.close()

    async def _current(self) -> Token | None:
        return self._token

    def _steps(self) -> Sequence[Step]:
        return ()

    async def _renew(self) -> None:
        """Gets a new token and passes it to `_hold`. Raises: UpstreamFailure."""

    def _renewal_limit_s(self) -> float:
        return self.settings.refresh_timeout_s

    def _reload(self, *, force: bool = False) -> bool:
        """Reads what is stored, if that seems changed (`force`: in any case).

        Returns: whether it holds a new token. Raises: UpstreamFailure when there is none, old or new.
        """
        return False

    def _hold(self, token: Token) -> bool:
        """Takes a token for the current one. Returns: whether its value is new."""
        former, self._token = self._token, token
        if former is None or former.value == token.value:
            return False
        self._changed_at_s = self.clock.now_s()
        return True

    async def _reload_step(self) -> bool:
        """Takes what others brought meanwhile, or what is stored now."""
        if self._renewal.is_running:
            return await self._renew_step()
        return self._reload(force=True) or self._has_just_changed()

    async def _renew_step(self) -> bool:
        former = self._token
        await self._renewal.run()
        return former is None or self._token is None or self._token.value != former.value

    def _has_just_changed(self) -> bool:
        return self._changed_at_s is not None and self.clock.now_s() - self._changed_at_s <= JUST_CHANGED_S


class Recovery:
    """One call's way through the steps, each of them taken once (C-066, C-067). `facts` has the last one."""

    def __init__(self, facts: AuthFacts, steps: Sequence[Step]) -> None:
        self.facts = facts
        self._left = list(steps)

    async def next_step(self) -> bool:
        """Takes steps until one brings another credential than the refused one.

        Returns: True when the request shall be repeated with it; False when no step is left, and the refusal is final.
        Raises: UpstreamFailure: final, or worth a resend; the step of the latter can be taken again. Cancel: safe.
        """
        while self._left:
            name, step = self._left[0]
            try:
                is_new = await step()
            except UpstreamFailure as failure:
                is_final = failure.heal is Heal.NEVER
                self._note(name, Outcome.PERMANENT_ERROR if is_final else Outcome.TRANSIENT_ERROR)
                raise
            del self._left[0]
            self._note(name, Outcome.RECOVERED if is_new else Outcome.UNCHANGED)
            if is_new:
                return True
        return False

    def _note(self, step: str, outcome: Outcome) -> None:
        self.facts = replace(self.facts, step=step, outcome=outcome)
        _log.info("credential recovery step", extra={"mode": self.facts.mode, "step": step, "outcome": outcome.value})

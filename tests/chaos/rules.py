"""What must follow when an exchange meets an effect: the endings, attempts and transports of DESIGN §2 and §3.

Written from the design, by phase and effect; nothing here looks at the server's code.
"""

from dataclasses import dataclass
from typing import Literal

from chaos.effects import Effect, Ended, Failure, Heal, Unanswered, Unnoticed
from chaos.phases import HAS_OUTPUT, Phase, TransportName

Mode = Literal["before_output", "reference", "never"]

# DESIGN §2, the table of endings, by reason. Those in AFTER_OUTPUT are ABORTED once output was delivered.
CODES = {
    "UPSTREAM_REJECTED": "INVALID_ARGUMENT",
    "UPSTREAM_AUTH": "FAILED_PRECONDITION",
    "UPSTREAM_PERMISSION": "FAILED_PRECONDITION",
    "UPSTREAM_NOT_FOUND": "FAILED_PRECONDITION",
    "CONTEXT_TOO_LONG": "FAILED_PRECONDITION",
    "UPSTREAM_RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "UPSTREAM_QUOTA": "RESOURCE_EXHAUSTED",
    "UPSTREAM_UNREACHABLE": "UNAVAILABLE",
    "UPSTREAM_FAILED": "UNAVAILABLE",
    "UPSTREAM_OVERLOADED": "UNAVAILABLE",
    "UPSTREAM_IDLE": "UNAVAILABLE",
    "UPSTREAM_STREAM_LOST": "UNAVAILABLE",
    "UPSTREAM_PROTOCOL": "UNAVAILABLE",
    "LOST_AFTER_TOOL_CALL": "ABORTED",
}
AFTER_OUTPUT = {reason for reason, code in CODES.items() if code == "UNAVAILABLE"}
# wire-behaviour §7, C-038: the first wait, and how far chance may move it.
BACKOFF_S, JITTER = 0.2, 0.1


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before a resend that nobody asked a time for; `retry` counts from 1 in its budget."""

    retry: int = 1

    def fits(self, wait_s: float) -> bool:
        """Whether that long is right."""
        middle_s = BACKOFF_S * (1 << self.retry - 1)
        return abs(wait_s - middle_s) <= middle_s * JITTER


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the trace says of one.

    `reached`: the upstream has a record of it; `created` and `head`: which ids are known; `told_id`: the request id
    that the failure itself told.
    """

    status: Literal["COMPLETED", "INCOMPLETE", "FAILED", "CANCELLED"]
    transport: TransportName
    reason: str = ""
    reached: bool = True
    created: bool = True
    head: bool = True
    told_id: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """How the turn must go.

    `ending`: the last event, or the reason of the failure; `code`: blank for OK. `retry_info`: the caller is told when
    to come back. `story`: the service's own events, in order. `waits`: those that are announced, in seconds where the
    upstream asked for them. `answered_by`: "script" when the answer that met the fault is delivered, "model" when
    another one is, "both" when one went on where the other was lost, "part" when it was cut. `handshakes`: upgrades
    that the turn opened itself, and how each ended: "101", another status, "failed" or "left". `next_transport`,
    `next_reuses`: how the session's next turn travels, and whether it goes on incrementally on the same socket.
    `outcome`: what the turn's span says; blank: as the ending does.
    """

    ending: str
    story: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    answered_by: Literal["script", "model", "both", "part"]
    code: str = ""
    retry_info: bool = False
    waits: tuple["float | Backoff", ...] = ()
    handshakes: tuple[str, ...] = ()
    next_transport: TransportName = "ws"
    next_reuses: bool = False
    fell_back: tuple[bool, str] | None = None
    outcome: str = ""

    @property
    def requests(self) -> int:
        """How many requests the upstream sees for the turn."""
        return sum(attempt.reached for attempt in self.attempts)


def expect(effect: Effect, phase: Phase, transport: TransportName, mode: Mode, *, tool_call: bool = False) -> Expected:
    """What must follow.

    Args: `tool_call`: the first item is a call that the caller executes.
    """
    match effect:
        case Unnoticed():
            return _unnoticed(effect, phase, transport)
        case Ended():
            return _ended(effect, phase, transport)
        case Unanswered():
            return _unanswered(effect)
        case Failure():
            return _failure(effect, phase, transport, mode, tool_call=tool_call)


def _own_handshakes(phase: Phase, transport: TransportName) -> tuple[str, ...]:
    """Upgrades before the fault: a turn that is to meet it at the connect or in the handshake opens its own socket."""
    return ("101",) if transport == "ws" and phase in (Phase.CONNECT, Phase.HANDSHAKE) else ()


def _unnoticed(effect: Unnoticed, phase: Phase, transport: TransportName) -> Expected:
    return Expected(
        ending="completed",
        story=("attempt_started",),
        attempts=(Attempt("COMPLETED", transport),),
        answered_by="script",
        handshakes=_own_handshakes(phase, transport),
        next_transport=transport,
        next_reuses=transport == "ws" and effect.socket_survives,
    )


def _ended(effect: Ended, phase: Phase, transport: TransportName) -> Expected:
    return Expected(
        ending="incomplete",
        story=("attempt_started",),
        attempts=(Attempt("INCOMPLETE", transport),),
        answered_by="part",
        next_transport=transport,
        next_reuses=False,  # nothing may be continued after an incomplete response
    )


def _unanswered(effect: Unanswered) -> Expected:
    """D-14: over HTTP, unlatched. Until the upstream has shown that it is well, the next turn does not wait (D-13)."""
    return Expected(
        ending="completed",
        story=("fell_back", "attempt_started"),
        attempts=(Attempt("COMPLETED", "http"),),
        answered_by="model",
        fell_back=(False, "handshake_unanswered"),
        handshakes=("101" if effect.comes_late else "left",),
        next_transport="ws" if effect.comes_late else "http",
    )


def _failure(effect: Failure, phase: Phase, transport: TransportName, mode: Mode, *, tool_call: bool) -> Expected:
    # Until its 101 a WebSocket's failure is the handshake's: no attempt came to be (C-097).
    handshake = transport == "ws" and phase in (Phase.CONNECT, Phase.HANDSHAKE) and effect.silence_s == 0
    output = phase in HAS_OUTPUT
    client_call = output and tool_call and phase is not Phase.MID_DELTA
    failed = Attempt(
        "FAILED",
        transport,
        effect.reason,
        reached=effect.reached,
        created=output or effect.names_response,
        head=effect.head,
        told_id=effect.tells_id,
    )
    before = () if handshake else (failed,)
    started = () if handshake else ("attempt_started",)
    opened = _own_handshakes(phase, transport)
    if handshake:
        opened = (str(effect.status) if effect.status else "failed",)

    if effect.heal is Heal.OVER_HTTP:
        return Expected(
            ending="completed",
            story=("fell_back", "attempt_started"),
            attempts=(Attempt("COMPLETED", "http"),),
            answered_by="model",
            fell_back=(True, "upgrade_required"),
            handshakes=opened,
            next_transport="http",
        )
    resent = effect.heal is not Heal.NEVER and mode != "never" and not client_call
    if output and mode == "before_output":
        resent = False
    if resent:
        restarted = ("restarted",) if output else ()
        wait = 0.0 if effect.heal is Heal.AT_ONCE else _wait(effect, 1)
        return Expected(
            ending="completed",
            story=(*started, "retrying", "attempt_started", *restarted),
            attempts=(*before, Attempt("COMPLETED", transport)),
            answered_by="both" if output else "model",
            waits=(wait,),
            handshakes=(*opened, "101") if transport == "ws" else (),
            next_transport=transport,
            next_reuses=transport == "ws",
        )
    reason = effect.reason
    if client_call and effect.heal is not Heal.NEVER:
        reason = "LOST_AFTER_TOOL_CALL"
    code = CODES[reason]
    if output and reason in AFTER_OUTPUT:
        code = "ABORTED"
    return Expected(
        ending=reason,
        code=code,
        # "Clients retry only where RetryInfo says so": never where a repetition would change what was seen.
        retry_info=_invites(code, reason, effect.heal),
        story=started,
        attempts=before,
        answered_by="part",
        handshakes=opened,
        next_transport=transport,
    )


def _wait(effect: Failure, retry: int) -> float | Backoff:
    return Backoff(retry) if effect.asked_s is None else effect.asked_s


# The budgets of the sessions that meet a fault for good.
STREAM_RETRIES, REQUEST_RETRIES = 2, 1
# Another transport meets the same limit, so it is not tried (D-15).
_NOT_THE_TRANSPORTS = ("UPSTREAM_RATE_LIMITED", "UPSTREAM_OVERLOADED")


def expect_lasting(websocket: Failure | None, http: Failure | None, phase: Phase) -> Expected:
    """What must follow when every attempt meets a failure that a resend could heal, before any output.

    The WebSocket's budget, then HTTP at once and for good with a budget of its own (C-031, C-035, C-039).
    Args: `http` None: over HTTP all is well. `websocket` None: the session is one of HTTP.
    """
    story: list[str] = []
    attempts: list[Attempt] = []
    waits: list[float | Backoff] = []
    handshakes: list[str] = []
    fell_back = None
    last = websocket or http
    if websocket is not None:
        handshake = phase is not Phase.BEFORE_CREATED
        for retry in range(1 + STREAM_RETRIES):
            if retry:
                story.append("retrying")
                waits.append(_wait(websocket, retry))
            if handshake:
                handshakes.append(str(websocket.status) if websocket.status else "failed")
                continue
            if retry:
                handshakes.append("101")
            story.append("attempt_started")
            attempts.append(_failed(websocket, "ws"))
        if websocket.reason in _NOT_THE_TRANSPORTS:
            return _gave_up(websocket, story, attempts, waits, handshakes, None, "ws")
        fell_back = (True, "retries_exhausted")
        story.append("fell_back")
        last = http
    if last is None:
        return Expected(
            ending="completed",
            story=(*story, "attempt_started"),
            attempts=(*attempts, Attempt("COMPLETED", "http")),
            answered_by="model",
            waits=tuple(waits),
            handshakes=tuple(handshakes),
            fell_back=fell_back,
            next_transport="http",
        )
    for wait in (None, *_waits_of_posts(last, phase)):
        if wait is not None:
            story.append("retrying")
            waits.append(wait)
        story.append("attempt_started")
        attempts.append(_failed(last, "http"))
    return _gave_up(last, story, attempts, waits, handshakes, fell_back, "http")


def _waits_of_posts(failure: Failure, phase: Phase) -> list[float | Backoff]:
    """A POST without a response has a budget of its own, for each of the stream's (C-039); a limit waits on that."""
    if failure.heal is Heal.NEVER:
        return []
    waits: list[float | Backoff] = []
    by_request = phase is not Phase.BEFORE_CREATED and failure.reason not in _NOT_THE_TRANSPORTS
    for retry in range(1 + STREAM_RETRIES):
        if retry:
            waits.append(_wait(failure, retry))
        if by_request:
            waits += [_wait(failure, again) for again in range(1, 1 + REQUEST_RETRIES)]
    return waits


def _failed(failure: Failure, transport: TransportName) -> Attempt:
    return Attempt(
        "FAILED",
        transport,
        failure.reason,
        reached=failure.reached,
        created=failure.names_response,
        head=failure.head,
        told_id=failure.tells_id,
    )


def _invites(code: str, reason: str, heal: Heal) -> bool:
    """Whether the caller is told when to come back: not where the next call would meet the same."""
    return (code == "UNAVAILABLE" and heal is not Heal.NEVER) or reason == "UPSTREAM_RATE_LIMITED"


def _gave_up(
    failure: Failure,
    story: list[str],
    attempts: list[Attempt],
    waits: list[float | Backoff],
    handshakes: list[str],
    fell_back: tuple[bool, str] | None,
    next_transport: TransportName,
) -> Expected:
    code = CODES[failure.reason]
    return Expected(
        ending=failure.reason,
        code=code,
        retry_info=_invites(code, failure.reason, failure.heal),
        story=tuple(story),
        attempts=tuple(attempts),
        answered_by="part",
        waits=tuple(waits),
        handshakes=tuple(handshakes),
        fell_back=fell_back,
        next_transport=next_transport,
    )

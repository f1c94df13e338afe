"""What a fault does to the exchange that it meets, in the terms in which the rules are written. Values only."""

from dataclasses import dataclass, replace
from enum import Enum, auto


class Heal(Enum):
    """What a resend can do about a failure: our own reading of DESIGN and wire-behaviour, not the server's."""

    RESEND = auto()
    """The same request may succeed later; costs a retry."""
    AT_ONCE = auto()
    """A full request on another socket, at once, once per call and without cost (D-5)."""
    OVER_HTTP = auto()
    """The upstream asks for HTTP: at once, for good and without cost (C-030)."""
    NEVER = auto()
    """The same request meets the same answer (D-15)."""


@dataclass(frozen=True, slots=True)
class Senseless:
    """The combination does not exist."""

    why: str


@dataclass(frozen=True, slots=True)
class Unnoticed:
    """The turn completes as if nothing had happened.

    `socket_survives`: the turn leaves the connection usable. `warmed_again`: an idle WebSocket's loss was noticed while
    it was idle, and it was replaced before the turn (D-7); False: the turn uses the old one.
    `waits_s`: how long the fault lasts on the server's clock, without being noticed.
    """

    socket_survives: bool = True
    warmed_again: bool = False
    waits_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """The response ends early and well: `response.incomplete` with its reason (D-11)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The exchange fails with `reason`.

    `status`: HTTP status of the refusal, None when there was none. `asked_s`: the wait that the upstream asked for,
    None: none. `silence_s`: how long the server waits, on its clock, until it calls it a failure; 0: not at all.
    `reached`: the request came to the upstream. `head`: the head of an HTTP answer came, and with it the request's id.
    `tells_id`: the request id that the failure itself tells, None: it tells none. `names_response`: it tells the
    response's id.
    """

    reason: str
    heal: Heal = Heal.RESEND
    status: int | None = None
    asked_s: float | None = None
    silence_s: float = 0.0
    reached: bool = True
    head: bool = True
    tells_id: str | None = None
    names_response: bool = False

    def unreached(self) -> "Failure":
        """The same, of a request that never came to the upstream."""
        return replace(self, reached=False, head=False)

    def headless(self) -> "Failure":
        """The same, before the head of the answer."""
        return replace(self, head=False)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A WebSocket's upgrade has no answer in time: this attempt goes over HTTP, nothing is latched (D-14).

    `comes_late`: the answer comes after that, and shows that the upstream is well.
    """

    after_s: float
    comes_late: bool = False


Effect = Unnoticed | Ended | Failure | Unanswered

"""Faults of the upstream itself: what the simulator says instead of, or between, what it should."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chaos.effects import Effect, Ended, Failure, Heal, Senseless, Unnoticed
from chaos.network import EffectOf, silence
from chaos.phases import RESPONSE_ID, STREAMING, Phase, TransportName
from warmline_simulator import Close, Frame, Hang, Nothing, Oversize, Stall, ev
from warmline_simulator.script import Step

MAX_EVENT_BYTES = 200_000
NO_ANSWER = "no answer is under way"
ONLY_HEAD = "a status comes with the head of an answer"
ONLY_TERMINAL = "it is about the terminal event"
NO_SOCKET = "HTTP has no such thing"
ASKED_S = 7.0


@dataclass(frozen=True)
class StatusFault:
    """An answer whose head is a refusal: to the upgrade, or to the POST."""

    name: str
    says: str
    status: int
    over_websocket: Failure
    over_http: Failure
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | Mapping[str, Any] | None = None

    def effect(self, phase: Phase, transport: TransportName) -> Effect | Senseless:
        """As `EffectOf`."""
        if phase is not Phase.HANDSHAKE:
            return Senseless(ONLY_HEAD)
        found = self.over_websocket if transport == "ws" else self.over_http
        return replace(found, status=self.status)


@dataclass(frozen=True)
class ScriptedFault:
    """Steps of the simulator at a place of an answer, or between two turns.

    `over_http`: the steps over HTTP, None: the same. `goes_on`: the rest of the answer follows. `instead`: the steps
    stand for the event that would come next. `after_terminal`: they follow the terminal event.
    """

    name: str
    says: str
    steps: Sequence[Step]
    effect: EffectOf
    over_http: Sequence[Step] | None = None
    goes_on: bool = False
    instead: bool = False
    after_terminal: bool = False

    def steps_over(self, transport: TransportName) -> Sequence[Step]:
        """What the simulator does."""
        return self.steps if transport == "ws" or self.over_http is None else self.over_http


@dataclass(frozen=True)
class _Streaming:
    """The effect of a fault inside an answer. `idle`: over an idle WebSocket, None: it makes no sense there."""

    websocket: Effect | Senseless
    http: Effect | Senseless
    idle: Unnoticed | None = None
    phases: Sequence[Phase] = STREAMING
    elsewhere: str = NO_ANSWER

    def __call__(self, phase: Phase, transport: TransportName) -> Effect | Senseless:
        if phase is Phase.IDLE and self.idle is not None:
            return self.idle if transport == "ws" else Senseless("over HTTP nothing is listened to between two turns")
        if phase not in STREAMING:
            return Senseless(NO_ANSWER)
        if phase not in self.phases:
            return Senseless(self.elsewhere)
        return self.websocket if transport == "ws" else self.http


def _both(effect: Effect, idle: Unnoticed | None = None) -> _Streaming:
    return _Streaming(effect, effect, idle)


# An idle socket's loss, or a word on it that belongs to a response, replaces it (D-7); a notice may trail a response.
REPLACED = Unnoticed(warmed_again=True)
KEPT = Unnoticed()

PROTOCOL = Failure("UPSTREAM_PROTOCOL")
LOST = Failure("UPSTREAM_STREAM_LOST")
FAILED = Failure("UPSTREAM_FAILED")


def _final(reason: str) -> Failure:
    return Failure(reason, Heal.NEVER)


def _error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "type": "x", "message": "WORDS OF THE PROVIDER"}}


STATUS_FAULTS: tuple[StatusFault, ...] = (
    StatusFault(
        "301",
        "A redirect; never followed.",
        301,
        PROTOCOL,
        replace(PROTOCOL, heal=Heal.NEVER),
        {"location": "http://127.0.0.1:9/"},
        "",
    ),
    StatusFault("200, a page", "A page of HTML that says 200.", 200, PROTOCOL, PROTOCOL, {}, "<html>hello</html>"),
    StatusFault("400", "The request is refused.", 400, FAILED, _final("UPSTREAM_REJECTED")),
    StatusFault("401", "The credential is refused.", 401, _final("UPSTREAM_AUTH"), _final("UPSTREAM_AUTH")),
    StatusFault("403", "The account may not.", 403, _final("UPSTREAM_PERMISSION"), _final("UPSTREAM_PERMISSION")),
    StatusFault("404", "There is no such thing.", 404, FAILED, _final("UPSTREAM_NOT_FOUND")),
    StatusFault("426", "Use HTTP.", 426, replace(FAILED, heal=Heal.OVER_HTTP), FAILED),
    StatusFault(
        "429",
        f"A rate limit that asks for {ASKED_S:g} s.",
        429,
        Failure("UPSTREAM_RATE_LIMITED", asked_s=ASKED_S),
        Failure("UPSTREAM_RATE_LIMITED", asked_s=ASKED_S),
        {"retry-after": f"{ASKED_S:g}"},
    ),
    StatusFault(
        "429, quota",
        "The account's quota is used up.",
        429,
        _final("UPSTREAM_QUOTA"),
        _final("UPSTREAM_QUOTA"),
        body=_error("insufficient_quota"),
    ),
    StatusFault("500", "The provider failed.", 500, FAILED, FAILED),
    StatusFault("502, a page", "A proxy between has lost its backend.", 502, FAILED, FAILED, {}, "<html>bad</html>"),
    StatusFault(
        "503",
        "The provider is overloaded, and names no time.",
        503,
        Failure("UPSTREAM_OVERLOADED", asked_s=10.0),
        Failure("UPSTREAM_OVERLOADED", asked_s=10.0),
        body=_error("server_is_overloaded"),
    ),
)


def _close(code: int | None) -> ScriptedFault:
    return ScriptedFault(
        f"close {code or 'bare'}",
        f"A close frame with the code {code}." if code else "A close frame without a code.",
        (Close(code),),
        _Streaming(LOST, Senseless("HTTP has no close frames; see `close`"), REPLACED),
    )


_SAID = "Please try again in 7s."
_WRONG: tuple[Step, ...] = (
    ev.text_delta("no") | {"delta": 7},
    ev.item_done(ev.message("no")) | {"item": "no"},
    ev.item_added(ev.message("no")) | {"item": ["no"]},
    {"type": "response.created", "response": []},
    {"type": "response.output_item.done"},
)
_AFTER: tuple[Step, ...] = (ev.text_delta("from the grave", item_id="msg-late"), ev.item_done(ev.message("late")))

SCRIPTED_FAULTS: tuple[ScriptedFault, ...] = (
    ScriptedFault(
        "error 500",
        "An error event: the provider failed. On a WebSocket it names the request.",
        (ev.error(500, "server_error", "WORDS", headers={"x-request-id": "req-told"}),),
        _Streaming(replace(FAILED, status=500, tells_id="req-told"), FAILED, REPLACED),
        over_http=(ev.sse_error("server_error", "WORDS"),),
    ),
    ScriptedFault(
        "error 400",
        "An error event: the request is refused for good.",
        (ev.error(400, "invalid_prompt", "WORDS"),),
        _Streaming(replace(_final("UPSTREAM_REJECTED"), status=400), _final("UPSTREAM_REJECTED"), REPLACED),
        over_http=(ev.sse_error("invalid_prompt", "WORDS"),),
    ),
    ScriptedFault(
        "error 429",
        f"An error event: a rate limit that asks for {ASKED_S:g} s, in a header or in words.",
        (ev.error(429, "rate_limit_exceeded", "WORDS", headers={"retry-after": f"{ASKED_S:g}"}),),
        _Streaming(
            Failure("UPSTREAM_RATE_LIMITED", status=429, asked_s=ASKED_S),
            Failure("UPSTREAM_RATE_LIMITED", asked_s=ASKED_S),
            REPLACED,
        ),
        over_http=(ev.sse_error("rate_limit_exceeded", _SAID),),
    ),
    ScriptedFault(
        "error bare",
        "An error event that names neither a status nor a code (D-2).",
        (ev.error(None, None, "WORDS", kind="mystery"),),
        _both(FAILED, REPLACED),
        over_http=(ev.sse_error(None, "WORDS"),),
    ),
    ScriptedFault(
        "error, too old",
        "The provider's 60 minutes of a socket are over.",
        (ev.error(400, "websocket_connection_limit_reached", "WORDS"),),
        _Streaming(replace(LOST, status=400), Senseless(NO_SOCKET), REPLACED),
    ),
    ScriptedFault(
        "error, forgotten",
        "The response that the request continues is not known any more (D-5).",
        (ev.error(400, "previous_response_not_found", "WORDS"),),
        _Streaming(replace(FAILED, status=400, heal=Heal.AT_ONCE), Senseless("a POST continues nothing"), REPLACED),
    ),
    ScriptedFault(
        "failed",
        "`response.failed`, a server's error.",
        (ev.failed("server_error", "WORDS", response_id=RESPONSE_ID),),
        _both(replace(FAILED, names_response=True), REPLACED),
    ),
    ScriptedFault(
        "failed, too long",
        "`response.failed`, the conversation is too long.",
        (ev.failed("context_length_exceeded", "WORDS", response_id=RESPONSE_ID),),
        _both(replace(_final("CONTEXT_TOO_LONG"), names_response=True), REPLACED),
    ),
    ScriptedFault(
        "failed, rate",
        f"`response.failed`, a rate limit that asks for {ASKED_S:g} s in words.",
        (ev.failed("rate_limit_exceeded", _SAID, response_id=RESPONSE_ID),),
        _both(Failure("UPSTREAM_RATE_LIMITED", asked_s=ASKED_S, names_response=True), REPLACED),
    ),
    ScriptedFault(
        "incomplete",
        "`response.incomplete` (D-11).",
        (ev.incomplete("max_output_tokens", response_id=RESPONSE_ID),),
        _both(Ended("max_output_tokens"), REPLACED),
    ),
    *(_close(code) for code in (1000, 1001, 1008, 1011, 1012, None)),
    ScriptedFault(
        "body cut",
        "The body breaks off with the connection.",
        (),
        _Streaming(Senseless("a WebSocket has no body; see `close`"), LOST),
        over_http=(Close(1000),),
    ),
    ScriptedFault(
        "no more",
        "The answer is over before its terminal event: over HTTP the body ends as it should, a socket stays open.",
        (Nothing(),),
        lambda phase, transport: (
            LOST
            if phase in STREAMING and transport == "http"
            else silence(phase, transport)
            if phase in STREAMING
            else Senseless(NO_ANSWER)
        ),
    ),
    ScriptedFault(
        "hang (upstream)",
        "The answer never goes on; pings are answered.",
        (Hang(),),
        lambda phase, transport: silence(phase, transport) if phase in STREAMING else Senseless(NO_ANSWER),
    ),
    ScriptedFault(
        "stall",
        "Half-open silence: nothing is read, answered or sent, and the connection stays.",
        (Stall(),),
        lambda phase, transport: (
            silence(phase, transport)
            if phase in STREAMING or (phase is Phase.IDLE and transport == "ws")
            else Senseless(NO_ANSWER if transport == "ws" or phase is not Phase.IDLE else "it is a blackhole")
        ),
    ),
    ScriptedFault(
        "broken JSON",
        "Text that is not JSON.",
        ('{"broken', "no JSON at all", ""),
        _both(Unnoticed(), KEPT),
        goes_on=True,
    ),
    ScriptedFault(
        "JSON, no event",
        "JSON that is no event.",
        ("[1,2]", '"text"', "{}", '{"type":7}', "null"),
        _both(Unnoticed(), KEPT),
        goes_on=True,
    ),
    ScriptedFault(
        "wrong types", "Known events with members of wrong types.", _WRONG, _both(Unnoticed(), REPLACED), goes_on=True
    ),
    ScriptedFault(
        "unknown event",
        "An event of a response that nobody knows.",
        ({"type": "response.made_up", "answer": 42},),
        _both(Unnoticed(), REPLACED),
        goes_on=True,
    ),
    ScriptedFault(
        "unknown notice",
        "An event that belongs to no response.",
        ({"type": "provider.notice", "text": "hello"},),
        _both(Unnoticed(), KEPT),
        goes_on=True,
    ),
    ScriptedFault(
        "binary",
        "A binary frame; over HTTP bytes in the body that are no event.",
        (b"\x00\xff\xfe",),
        _Streaming(PROTOCOL, Unnoticed(), REPLACED),
        over_http=(b"\x00\xff\xfe garbage\n\n",),
        goes_on=True,
    ),
    ScriptedFault(
        "bad frame",
        "A frame of an opcode that does not exist.",
        (Frame(b"x", opcode=3),),
        _Streaming(PROTOCOL, Senseless("HTTP has no frames; see `corrupt`"), REPLACED),
    ),
    ScriptedFault(
        "oversize",
        "An event that is larger than the limit.",
        (Oversize(MAX_EVENT_BYTES + 1),),
        _both(PROTOCOL, REPLACED),
    ),
    ScriptedFault(
        "created twice",
        "`response.created` comes again.",
        (ev.created(RESPONSE_ID),),
        _both(Unnoticed(), REPLACED),
        goes_on=True,
    ),
    ScriptedFault(
        "no created",
        "`response.created` is missing.",
        (),
        _Streaming(Unnoticed(), Unnoticed(), None, (Phase.BEFORE_CREATED,), "it is about the first event"),
        goes_on=True,
        instead=True,
    ),
    ScriptedFault(
        "bad terminal",
        "`response.completed` without a response that can be read.",
        ('{"type":"response.completed","response":[]}',),
        _both(PROTOCOL, REPLACED),
    ),
    ScriptedFault(
        "after terminal",
        "Events of the response after its terminal event.",
        _AFTER,
        _Streaming(Unnoticed(socket_survives=False), Unnoticed(), REPLACED, (Phase.AT_TERMINAL,), ONLY_TERMINAL),
        after_terminal=True,
    ),
    ScriptedFault(
        "two terminals",
        "`response.completed` comes twice.",
        (ev.completed(RESPONSE_ID),),
        _Streaming(Unnoticed(socket_survives=False), Unnoticed(), REPLACED, (Phase.AT_TERMINAL,), ONLY_TERMINAL),
        after_terminal=True,
    ),
    ScriptedFault(
        "failed, then done",
        "`response.failed`, and `response.completed` after it: the first counts.",
        (ev.failed("server_error", "WORDS", response_id=RESPONSE_ID), ev.completed(RESPONSE_ID)),
        _Streaming(FAILED, FAILED, None, (Phase.AT_TERMINAL,), ONLY_TERMINAL),
    ),
    ScriptedFault(
        "done, then failed",
        "`response.completed`, and `response.failed` after it: the first counts.",
        (ev.failed("server_error", "WORDS", response_id=RESPONSE_ID),),
        _Streaming(Unnoticed(socket_survives=False), Unnoticed(), None, (Phase.AT_TERMINAL,), ONLY_TERMINAL),
        after_terminal=True,
    ),
)

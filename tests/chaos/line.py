"""One session of one caller: its healthy turns, its conversation, and the way to the phase in which a fault waits."""

import json
from typing import Any

import warmline
from chaos import audit
from chaos.cell import ONE, THREE
from chaos.network import FALLBACK_AFTER_S
from chaos.phases import Phase, TransportName
from chaos.rules import Expected
from chaos.stage import MODEL, Listener, Stage, until
from e2e.line import session_config


class SessionLine:
    """`session` is to be entered; `conversation` is everything that belongs to it so far.

    Args: `is_warm`: a socket is kept ready; `config`: further
    fields of `session_config`.
    """

    def __init__(
        self,
        stage: Stage,
        transport: TransportName,
        *,
        is_warm: bool = False,
        fallback_after_s: float = FALLBACK_AFTER_S,
        **config: Any,
    ) -> None:
        self.conversation: list[warmline.ItemLike] = []
        self._stage = stage
        self._transport = transport
        made = session_config(
            warm_up="handshake" if is_warm else "none",
            fallback_policy={"http_only": transport == "http"},
            **config,
        )
        made.fallback_policy.fallback_after.FromNanoseconds(int(fallback_after_s * 1e9))
        self.session = stage.client.session("session-1", made, model=MODEL)

    def turn(self, session: warmline.Session, text: str, **options: Any) -> warmline.Turn:
        """A turn that goes on with the conversation."""
        self.conversation.append(text)
        return session.turn(self.conversation, events="both", **options)

    def take_over(self, result: warmline.TurnResult) -> None:
        """What was delivered belongs to the conversation, also when the turn failed."""
        self.conversation += result.items
        self.conversation += [call.answer("done") for call in result.function_calls]

    async def healthy_turn(self, text: str = ONE) -> Listener:
        """A turn that must go well. Raises: AssertionError when it does not."""
        listener = Listener(self.turn(self.session, text), self._stage.clock)
        try:
            await listener.ended()
        finally:
            await listener.give_up()
        if listener.error is not None:
            raise AssertionError(f"the healthy turn {text!r} failed: {listener.error}")
        self.take_over(listener.turn.snapshot())
        return listener

    async def prepare(self, phase: Phase) -> None:
        """The next turn shall open a connection of its own, where the phase asks for one."""
        proxy = self._stage.proxy
        if phase in (Phase.CONNECT, Phase.HANDSHAKE) and self._transport == "ws":
            await self.session.advance_window()
        elif phase is Phase.CONNECT:
            for link in proxy.open_links:
                link.close()
        else:
            return
        await until(lambda: not proxy.open_links, "the old connection's end")

    async def go_on(self, expected: Expected) -> list[str]:
        """The next turn. Returns: what is wrong with it: how it travels, and whether it carries the conversation."""
        problems = audit.Problems()
        listener = await self.healthy_turn(THREE)
        result = listener.turn.snapshot()
        # After an incomplete response the socket is in step, and there is nothing to continue.
        keeps_socket = expected.next_reuses or (expected.ending == "incomplete" and self._transport == "ws")
        problems.expect(
            "next turn: transport, socket reused, incremental, attempts",
            (result.transport, result.slot_outcome == "REUSED", result.incremental, result.attempts),
            (
                "HTTP" if expected.next_transport == "http" else "WEBSOCKET",
                keeps_socket and expected.next_transport == "ws",
                expected.next_reuses and expected.next_transport == "ws",
                1,
            ),
        )
        seen = [audit.mark(item) for item in self._stage.sim.requests[-1].visible_input or ()]
        sent = [audit.mark(_as_json(item)) for item in listener.turn.request.input]
        problems.expect("next turn: the conversation that the upstream saw", seen, sent)
        problems.expect("next turn: its first and last item", (seen[:1], seen[-1:]), ([ONE], [THREE]))
        return problems


def _as_json(item: Any) -> dict[str, Any]:
    match item.WhichOneof("content"):
        case "json":
            found: dict[str, Any] = json.loads(item.json)
            return found
        case "message":
            return {"role": "user", "content": item.message.text}
    return {"type": "function_call_output"}

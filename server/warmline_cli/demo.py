"""`warmline demo`: the simulator, the server and five real turns, with what happened on the wire.

Everything printed is compared with the simulator's own record; the demo fails where they differ.
"""

import argparse
import asyncio
import sys
import textwrap
from collections.abc import Sequence

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import warmline
from warmline_cli.serve import run_loop
from warmline_server.app import App
from warmline_server.observe import tree
from warmline_server.settings import Credential, Settings, UpstreamProfile
from warmline_simulator import Simulator
from warmline_simulator.records import RequestRecord

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class DemoError(Exception):
    """What the server told differs from what the simulator recorded."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--keep-serving", action="store_true", help="go on serving until Ctrl-C")
    parser.add_argument("--listen", default="127.0.0.1:50051", help="address of the server; port 0 takes a free one")


def run(args: argparse.Namespace) -> int:
    """Runs the demo. Returns: 0 when everything printed is what happened, else 1."""
    try:
        run_loop(_demo(args.listen, keep_serving=args.keep_serving))
    except DemoError as error:
        print(f"\nwarmline demo: {error}", file=sys.stderr)
        return 1
    return 0


async def _demo(listen: str, *, keep_serving: bool) -> None:
    spans = InMemorySpanExporter()
    async with (
        Simulator(seed=7, pace_s=0.02) as open_line,
        Simulator(seed=7, pace_s=0.02, refuse_upgrades=426) as http_only,
    ):
        settings = Settings(
            listen=listen,
            default_upstream="simulator",
            upstreams={
                "simulator": _profile(open_line.base_url),
                "refuses-upgrades": _profile(http_only.base_url),
            },
        )
        async with App(settings, span_processors=[SimpleSpanProcessor(spans)]) as app:
            print(f"server on {app.address}, simulators on {open_line.base_url} and {http_only.base_url}")
            async with warmline.Client(app.address) as client:
                story = Story(client, spans)
                await story.warm_session(open_line)
                await story.session_without_websocket(http_only)
            print("\nevery id above equals the simulator's own record")
            if keep_serving:
                print(f"serving on {app.address} until Ctrl-C; try:")
                print(f"  warmline turn --server {app.address} --model sim-small 'hello'")
                await asyncio.Event().wait()


def _profile(base_url: str) -> UpstreamProfile:
    return UpstreamProfile(base_url=base_url, dialect="codex", credential=Credential(source="none"))


class Story:
    """Runs the turns, prints them, and checks what is printed."""

    def __init__(self, client: warmline.Client, spans: InMemorySpanExporter) -> None:
        self._client = client
        self._spans = spans

    async def warm_session(self, simulator: Simulator) -> None:
        """Three turns on one socket: adopted, reused, and a tool call with its follow-up."""
        async with self._client.session("demo", model="sim-small", tools=[WEATHER]) as session:
            await simulator.wait_for_answered_handshakes(1)
            await session.preconnect(wait=True)
            conversation: list[warmline.ItemLike] = ["Say hello to the line."]
            first = await self._turn("turn 1: adopts the warmed socket", session, conversation, simulator)
            _expect("handshakes after turn 1", len(simulator.handshakes), 1)
            _expect("slot outcome", first.slot_outcome, "ADOPTED")
            conversation += [*first.items, "And once more."]
            second = await self._turn("turn 2: reuses it, sends only what is new", session, conversation, simulator)
            _expect("slot outcome", second.slot_outcome, "REUSED")
            _expect("items sent", len(simulator.requests[-1].body["input"]), 1)
            conversation += [*second.items, "What is the weather in Paris?"]
            await self._tool_turn(session, conversation, simulator)

    async def _tool_turn(
        self, session: warmline.Session, conversation: list[warmline.ItemLike], simulator: Simulator
    ) -> None:
        third = await self._turn("turn 3: calls a tool", session, conversation, simulator)
        _expect("tool calls", len(third.function_calls), 1)
        call = third.function_calls[0]
        answer = call.answer('{"sky": "clear", "celsius": 21}')
        print(f"  our tool {call.name}({call.arguments}) answers")
        conversation += [*third.items, answer]
        follow_up = await self._turn(
            "turn 3: its follow-up, same turn_id", session, conversation, simulator, turn_id=third.turn_id
        )
        _expect("turn_id of the follow-up", follow_up.turn_id, third.turn_id)
        _expect("handshakes in all", len(simulator.handshakes), 1)

    async def session_without_websocket(self, simulator: Simulator) -> None:
        """A turn whose upstream refuses upgrades: the same call goes on over HTTP."""
        async with self._client.session("demo-http", upstream="refuses-upgrades", model="sim-small") as session:
            result = await self._turn("turn 4: the upstream wants HTTP", session, ["Hello over SSE."], simulator)
            _expect("transport", result.transport, "HTTP")

    async def _turn(
        self,
        title: str,
        session: warmline.Session,
        conversation: Sequence[warmline.ItemLike],
        simulator: Simulator,
        *,
        turn_id: str = "",
    ) -> warmline.TurnResult:
        print(f"\n{title}\n  ", end="")
        self._spans.clear()
        async with session.turn(list(conversation), turn_id=turn_id) as turn:
            async for text in turn.text():
                print(text, end="", flush=True)
            result = await turn.result()
        print("" if result.text else f"(no text; calls {', '.join(c.name for c in result.function_calls)})")
        upstream_request_id = result.upstream_request_id or "unknown (WebSocket)"
        print(f"  slot {result.slot_outcome} · transport {result.transport} · turn_id {result.turn_id}")
        print(f"  response_id {result.response_id} · upstream_request_id {upstream_request_id}")
        self._compare(result, simulator.requests[-1])
        spans = tree.spans_of_turn(self._spans.get_finished_spans(), result.turn_id)
        print(textwrap.indent(tree.draw(spans), "    "))
        return result

    def _compare(self, result: warmline.TurnResult, recorded: RequestRecord) -> None:
        _expect("response_id", result.response_id, recorded.response_id)
        _expect("upstream_request_id", result.upstream_request_id, recorded.request_id)
        told = [dict(span.attributes or {}) for span in self._spans.get_finished_spans()]
        attempts = [attributes for attributes in told if attributes.get("response_id") == result.response_id]
        if not attempts:
            raise DemoError(f"no span carries the response_id {result.response_id}")
        for attributes in attempts:
            _expect("the span's upstream_request_id", attributes.get("upstream_request_id"), recorded.request_id)


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise DemoError(f"{what}: the server told {found!r}, the simulator recorded {expected!r}")


def main() -> int:
    """As a module of its own, for a debugger."""
    return run(argparse.Namespace(listen="127.0.0.1:0", keep_serving=False))


if __name__ == "__main__":
    sys.exit(main())

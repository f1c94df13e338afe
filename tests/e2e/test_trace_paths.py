"""The paths of the ids: however a call ends, its spans, the ring and the bundle name what is known of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

import warmline
from e2e.line import MODEL, Heard, hear, read_until, session_config, settings_for
from observe.bundle_kit import texts
from observe.spans import EndedSpans, attribute
from warmline.v1 import trace_service_pb2, turn_service_pb2, types_pb2
from warmline_server.app import App
from warmline_server.observe import names
from warmline_server.observe.bundle.format import Status
from warmline_server.observe.bundle.reduce import replay
from warmline_server.observe.bundle.state import InferenceCall, State
from warmline_server.settings import Credential, Telemetry
from warmline_simulator import Connection, Gate, Hang, Nothing, Reply, Script, Simulator, ev
from warmline_simulator.script import Step

Inference = trace_service_pb2.Inference
CHAT = f"chat {MODEL}"
STREAM_TURN = "warmline.v1.TurnService/StreamTurn"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@dataclass
class Traced:
    """A line with every sink on. `bundle` may be read once the server is closed."""

    sim: Simulator
    app: App
    client: warmline.Client
    spans: EndedSpans
    root: Path

    async def turn_ended(self, count: int = 1) -> None:
        """Waits for the end of the RPCs' spans, which outlive what the client hears by a moment."""
        await self.spans.until(lambda: len(self.spans.named(STREAM_TURN)) >= count)

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.spans.named(name)
        return span

    def of(self, name: str) -> list[object]:
        """An attribute's values on the attempt, the turn and the RPC of the only call."""
        return [attribute(self.one(span), name) for span in (CHAT, names.CALL_SPAN, STREAM_TURN)]

    @property
    def handshake_id(self) -> str:
        return self.sim.handshakes[0].response_headers["x-request-id"]

    def bundle(self) -> State:
        (path,) = self.root.iterdir()
        return replay(path)

    def inference(self) -> InferenceCall:
        (call,) = self.bundle().inference_calls.values()
        return call


@asynccontextmanager
async def traced_line(
    tmp_path: Path, script: Script | None = None, *, profile: dict[str, Any] | None = None, **simulator: Any
) -> AsyncIterator[Traced]:
    spans, root = EndedSpans(), tmp_path / "bundles"
    async with Simulator(script, **simulator) as sim:
        settings = msgspec.structs.replace(
            settings_for(sim.base_url, profile=profile), telemetry=Telemetry(bundle_dir=str(root))
        )
        async with (
            App(settings, span_processors=[spans]) as app,
            warmline.Client(app.address, retry=warmline.CallRetry(max_tries=1)) as client,
        ):
            yield Traced(sim, app, client, spans, root)


async def listed(session: warmline.Session) -> list[Inference]:
    return [inference async for inference in session.list_inferences()]


async def _over_websocket(line: Traced, **options: Any) -> tuple[Heard, list[Inference]]:
    """One call on a warmed socket."""
    config = session_config(retries=0)
    async with line.client.session("s-1", config, model=MODEL) as session:
        await session.preconnect(wait=True)
        heard = await hear(session.turn("hello", turn_id="turn-1", **options))
        found = await listed(session)
    await line.turn_ended()
    return heard, found


async def _over_http(line: Traced, **options: Any) -> tuple[Heard, list[Inference]]:
    """One call as a POST."""
    config = session_config(fallback_policy={"http_only": True}, retries=0, request_retries=0)
    async with line.client.session("s-1", config, model=MODEL) as session:
        heard = await hear(session.turn("hello", turn_id="turn-1", **options))
        found = await listed(session)
    await line.turn_ended()
    return heard, found


@pytest.mark.conformance("C-098")
async def test_completed_on_a_websocket_has_the_response_and_no_request_id(tmp_path: Path) -> None:
    script = Script(connections=[Connection(replies=[Reply(events=ev.text_response("hi", response_id="resp-1"))])])
    async with traced_line(tmp_path, script) as line:
        heard, (inference,) = await _over_websocket(line)
        await line.spans.until(lambda: bool(line.spans.named(names.PRECONNECT_SPAN)))

    assert heard.result.response_id == "resp-1"
    assert line.of("response_id") == ["resp-1"] * 3
    assert line.of("upstream_request_id") == [None] * 3
    assert line.of("turn_id") == ["turn-1"] * 3
    preconnect, chat = line.one(names.PRECONNECT_SPAN), line.one(CHAT)
    assert preconnect.parent is None
    assert attribute(preconnect, "upstream_handshake_request_id") == line.handshake_id
    assert attribute(chat, "upstream_handshake_request_id") == line.handshake_id
    assert preconnect.context is not None
    assert [link.context.span_id for link in chat.links] == [preconnect.context.span_id]
    assert inference.response_id == "resp-1"
    assert not inference.HasField("upstream_request_id")
    assert inference.upstream_handshake_request_id == line.handshake_id
    assert chat.context is not None
    assert (inference.trace_id, inference.span_id) == (
        f"{chat.context.trace_id:032x}",
        f"{chat.context.span_id:016x}",
    )
    call = line.inference()
    assert (call.response_id, call.upstream_request_id) == ("resp-1", None)


async def test_completed_over_http_has_both_ids(tmp_path: Path) -> None:
    script = Script(posts=[Reply(events=ev.text_response("hi", response_id="resp-1"))])
    async with traced_line(tmp_path, script) as line:
        _, (inference,) = await _over_http(line)
        request_id = line.sim.requests[0].request_id

    assert request_id
    assert line.of("response_id") == ["resp-1"] * 3
    assert line.of("upstream_request_id") == [request_id] * 3
    assert (inference.response_id, inference.upstream_request_id) == ("resp-1", request_id)
    call = line.inference()
    assert (call.response_id, call.upstream_request_id, call.execution.status) == (
        "resp-1",
        request_id,
        Status.COMPLETED,
    )


async def test_spans_hang_beneath_the_callers_own(tmp_path: Path) -> None:
    async with traced_line(tmp_path) as line:
        request = turn_service_pb2.StreamTurnRequest(
            session_id="s-1",
            session_config=types_pb2.SessionConfig(request_defaults=types_pb2.RequestOptions(model=MODEL)),
            input=[warmline.user("hi")],
        )
        metadata = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"),)
        async for _ in line.client.turns.StreamTurn(request, metadata=metadata):
            pass
        await line.turn_ended()

    spans = [line.one(STREAM_TURN), line.one(names.CALL_SPAN), line.one(CHAT)]
    assert {f"{s.context.trace_id:032x}" for s in spans if s.context is not None} == {TRACE_ID}
    parents = [s.parent.span_id for s in spans if s.parent is not None]
    assert parents == [0xB7AD6B7169203331, *(s.context.span_id for s in spans[:2] if s.context is not None)]


async def test_failed_after_output_keeps_both_ids_and_the_finished_items(tmp_path: Path) -> None:
    answer = ev.message("half", id="msg-1")
    events: list[Step] = [ev.created("resp-1"), ev.item_added(answer), ev.item_done(answer), Nothing()]
    async with traced_line(tmp_path, Script(posts=[Reply(events=events, response_id="resp-1")])) as line:
        heard, (inference,) = await _over_http(line)
        request_id = line.sim.requests[0].request_id

    assert heard.failure.code is grpc.StatusCode.ABORTED
    assert line.of("response_id") == ["resp-1"] * 3
    assert line.of("upstream_request_id") == [request_id] * 3
    chat = line.one(CHAT)
    assert (chat.status.status_code, chat.status.description) == (StatusCode.ERROR, "UPSTREAM_STREAM_LOST")
    assert (inference.error_reason, inference.output_items) == ("UPSTREAM_STREAM_LOST", 1)
    state = line.bundle()
    (call,) = state.inference_calls.values()
    assert (call.execution.status, call.response_id, call.upstream_request_id) == (
        Status.FAILED,
        "resp-1",
        request_id,
    )
    assert texts(state, call.response_item_ids) == ["half"]


@pytest.mark.conformance("C-097")
async def test_refused_post_is_a_failed_inference_with_its_request_id(tmp_path: Path) -> None:
    reply = Reply(status=400, body={"error": {"message": "MARKER", "code": "bad"}})
    async with traced_line(tmp_path, Script(posts=[reply])) as line:
        heard, (inference,) = await _over_http(line)
        request_id = line.sim.requests[0].request_id

    assert heard.failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert line.of("upstream_request_id") == [request_id] * 3
    assert line.of("response_id") == [None] * 3
    assert attribute(line.one(CHAT), "http.response.status_code") == 400
    assert (inference.upstream_request_id, inference.upstream_status) == (request_id, 400)
    call = line.inference()
    assert (call.execution.status, call.upstream_request_id) == (Status.FAILED, request_id)
    assert "MARKER" not in "".join(span.to_json() for span in line.spans.spans)


@pytest.mark.conformance("C-097")
async def test_refused_handshake_is_a_connect_span_with_its_id_and_no_inference(tmp_path: Path) -> None:
    script = Script(connections=[Connection(status=403)])
    config = session_config(warm_up="none", retries=0)
    async with traced_line(tmp_path, script) as line:
        async with line.client.session("s-1", config, model=MODEL) as session:
            heard = await hear(session.turn("hello", turn_id="turn-1"))
            found = await listed(session)
        await line.turn_ended()

    assert heard.error is not None
    assert found == []
    connect, turn = line.one(names.CONNECT_SPAN), line.one(names.CALL_SPAN)
    assert attribute(connect, "upstream_handshake_request_id") == line.handshake_id
    assert attribute(connect, "http.response.status_code") == 403
    assert attribute(connect, "turn_id") == "turn-1"
    assert connect.parent is not None
    assert turn.context is not None
    assert connect.parent.span_id == turn.context.span_id
    assert connect.status.status_code is turn.status.status_code is StatusCode.ERROR
    state = line.bundle()
    assert state.inference_calls == {}
    assert [c.upstream_handshake_request_id for c in state.connects.values()] == [line.handshake_id]


async def test_resend_after_a_refused_handshake_is_told_although_no_attempt_has_failed(tmp_path: Path) -> None:
    config = session_config(warm_up="none", retries=1)
    async with traced_line(tmp_path, Script(connections=[Connection(status=503)])) as line:
        async with line.client.session("s-1", config, model=MODEL) as session:
            heard = await hear(session.turn("hello", turn_id="turn-1"))
        await line.turn_ended()

    assert (heard.error, len(heard.of("retrying"))) == (None, 1)
    (told,) = line.one(names.CALL_SPAN).events
    assert told.name == names.RETRY_SCHEDULED
    assert told.attributes is not None
    assert told.attributes[names.REASON] == "UPSTREAM_OVERLOADED"
    assert names.ATTEMPT_NUMBER not in told.attributes
    (retry,) = line.bundle().retries
    assert (retry.inference_call_id, retry.reason) == ("", "UPSTREAM_OVERLOADED")


async def test_cancelled_by_its_caller_is_unset_and_keeps_ids_and_items(tmp_path: Path) -> None:
    answer = ev.message("half", id="msg-1")
    events = [ev.created("resp-1"), ev.item_added(answer), ev.item_done(answer)]
    script = Script(posts=[Reply(events=events, then=Hang(), response_id="resp-1")])
    config = session_config(fallback_policy={"http_only": True})
    async with traced_line(tmp_path, script) as line:
        async with line.client.session("s-1", config, model=MODEL) as session:
            async with session.turn("hello", turn_id="turn-1") as turn:
                async for event in turn:
                    if event.HasField("item_done"):
                        break
            await line.turn_ended()
            (inference,) = await listed(session)
        await line.sim.wait_for_aborts(1)
        request_id = line.sim.requests[0].request_id

    assert line.of("response_id") == ["resp-1"] * 3
    assert line.of("upstream_request_id") == [request_id] * 3
    assert [s.status.status_code for s in line.spans.spans if s.name in (CHAT, STREAM_TURN)] == [StatusCode.UNSET] * 2
    assert attribute(line.one(CHAT), names.OUTCOME) == "cancelled"
    assert attribute(line.one(STREAM_TURN), names.RPC_STATUS) == "CANCELLED"
    assert inference.status == trace_service_pb2.INFERENCE_STATUS_CANCELLED
    state = line.bundle()
    (call,) = state.inference_calls.values()
    assert (call.execution.status, call.response_id) == (Status.CANCELLED, "resp-1")
    assert texts(state, call.response_item_ids) == ["half"]


@pytest.mark.conformance("C-091")
async def test_caller_dropped_while_its_stream_is_full_is_cancelled_with_its_ids(tmp_path: Path) -> None:
    # 26 MB, of which gRPC, both sockets and the HTTP reader hold less than half for a caller that does not read.
    words = [ev.text_delta("x" * 16_384) for _ in range(1600)]
    events: list[Step] = [ev.created("resp-1"), *words[:200], Gate("flowing"), *words[200:]]
    script = Script(posts=[Reply(events=events, then=Hang(), response_id="resp-1")])
    config = session_config(fallback_policy={"http_only": True})
    async with traced_line(tmp_path, script) as line:
        async with warmline.Client(line.app.address) as dropped:
            session = dropped.session("s-1", config, model=MODEL, close_on_exit=False)
            async with session:
                turn = session.turn("hello", turn_id="turn-1")
                await turn.__aenter__()
                await read_until(turn, "created")
                await line.sim.wait_for_gate("flowing")
                line.sim.release("flowing")
        await line.turn_ended()

    assert line.of("response_id") == ["resp-1"] * 3
    assert attribute(line.one(CHAT), names.OUTCOME) == "cancelled"
    assert attribute(line.one(STREAM_TURN), names.RPC_STATUS) == "CANCELLED"


async def test_deadline_is_an_error_with_the_ids(tmp_path: Path) -> None:
    script = Script(posts=[Reply(events=[ev.created("resp-1")], then=Hang(), response_id="resp-1")])
    async with traced_line(tmp_path, script) as line:
        heard, (inference,) = await _over_http(line, timeout_s=0.5)
        request_id = line.sim.requests[0].request_id

    assert heard.failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert line.of("response_id") == ["resp-1"] * 3
    assert line.of("upstream_request_id") == [request_id] * 3
    assert attribute(line.one(STREAM_TURN), names.RPC_STATUS) == "DEADLINE_EXCEEDED"
    assert line.one(STREAM_TURN).status.status_code is StatusCode.ERROR
    assert inference.response_id == "resp-1"


async def test_drained_call_is_an_error_with_the_ids(tmp_path: Path) -> None:
    script = Script(posts=[Reply(events=[ev.created("resp-1")], then=Hang(), response_id="resp-1")])
    config = session_config(fallback_policy={"http_only": True})
    async with traced_line(tmp_path, script) as line:
        async with line.client.session("s-1", config, model=MODEL) as session:
            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(hear(session.turn("hello", turn_id="turn-1")))
                await line.sim.wait_for_requests(1)
                await line.app.drain(0.3)
            await line.turn_ended()
        request_id = line.sim.requests[0].request_id

    assert hearing.result().failure.reason == "TURN_DRAINED"
    assert line.of("response_id") == ["resp-1"] * 3
    assert line.of("upstream_request_id") == [request_id] * 3
    turn = line.one(names.CALL_SPAN)
    assert (turn.status.status_code, turn.status.description) == (StatusCode.ERROR, "TURN_DRAINED")
    assert attribute(line.one(STREAM_TURN), names.RPC_STATUS) == "UNAVAILABLE"


@pytest.mark.conformance("C-112")
async def test_late_evidence_reaches_every_sink_and_clears_nothing(tmp_path: Path) -> None:
    script = Script(posts=[Reply(events=[ev.created("resp-1")], then=Hang(), response_id="resp-1")])
    async with traced_line(tmp_path, script) as line:
        kept: list[Any] = []
        observer = line.app.registry.around.observer
        former = observer.attempt_ended

        def keep(attempt: Any) -> None:
            former(attempt)
            kept.append(attempt)

        observer.attempt_ended = keep  # type: ignore[method-assign]
        config = session_config(fallback_policy={"http_only": True})
        async with line.client.session("s-1", config, model=MODEL) as session:
            await hear(session.turn("hello", turn_id="turn-1", timeout_s=0.4))
            await line.turn_ended()
            (attempt,) = kept
            attempt.response_id, attempt.upstream_request_id = "resp-1", "req-late"
            observer.attempt_evidence(attempt)
            (inference,) = await listed(session)

    late, chat = line.one(names.EVIDENCE_SPAN), line.one(CHAT)
    assert (attribute(late, "response_id"), attribute(late, "upstream_request_id")) == ("resp-1", "req-late")
    assert late.parent is not None
    assert chat.context is not None
    assert late.parent.span_id == chat.context.span_id
    assert (inference.response_id, inference.upstream_request_id) == ("resp-1", "req-late")
    assert line.inference().response_id == "resp-1"


async def test_retry_after_401_is_two_attempts_the_second_linked_to_the_first(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key-1")
    script = Script(
        posts=[Reply(status=401, gate="refuse"), Reply(events=ev.text_response("hi", response_id="resp-1"))]
    )
    profile = {"credential": Credential(source="file", file=str(secret))}
    async with traced_line(tmp_path, script, profile=profile) as line:
        async with asyncio.TaskGroup() as group:
            calling = group.create_task(_over_http(line))
            await line.sim.wait_for_gate("refuse")
            secret.write_text("key-2-longer")
            line.sim.release("refuse")
        heard, inferences = calling.result()
        first, second = (request.request_id for request in line.sim.requests)

    assert heard.result.response_id == "resp-1"
    failed, done = line.spans.named(CHAT)
    assert [attribute(span, "upstream_request_id") for span in (failed, done)] == [first, second]
    assert attribute(failed, "http.response.status_code") == 401
    assert failed.context is not None
    assert [link.context.span_id for link in done.links] == [failed.context.span_id]
    assert attribute(line.one(names.CALL_SPAN), "upstream_request_id") == second
    assert [inference.upstream_request_id for inference in inferences] == [second, first]
    calls = list(line.bundle().inference_calls.values())
    assert [call.execution.status for call in calls] == [Status.FAILED, Status.COMPLETED]
    assert calls[1].facts is not None
    assert calls[1].facts.replaces == calls[0].inference_call_id


@pytest.mark.conformance("C-026")
@pytest.mark.conformance("C-103")
async def test_warm_up_request_is_tagged_everywhere_and_no_inference_of_the_bundle(tmp_path: Path) -> None:
    async with traced_line(tmp_path) as line:
        config = session_config(warm_up="generate_false")
        async with line.client.session("s-1", config, model=MODEL) as session:
            await session.preconnect(wait=True)
            heard = await hear(session.turn("hello", turn_id="turn-1"))
            inferences = await listed(session)
        await line.turn_ended()
        warm_up, turn = line.sim.requests

    assert heard.result.ending == "completed"
    assert warm_up.is_warm_up
    kinds = [attribute(span, names.ATTEMPT_KIND) for span in line.spans.named(CHAT)]
    assert sorted(map(str, kinds)) == ["turn", "warm_up"]
    warm_span = next(s for s in line.spans.named(CHAT) if attribute(s, names.ATTEMPT_KIND) == "warm_up")
    preconnect = line.one(names.PRECONNECT_SPAN)
    assert warm_span.parent is not None
    assert preconnect.context is not None
    assert warm_span.parent.span_id == preconnect.context.span_id
    assert [inference.kind for inference in inferences] == [
        trace_service_pb2.INFERENCE_KIND_TURN,
        trace_service_pb2.INFERENCE_KIND_WARM_UP,
    ]
    state = line.bundle()
    (call,) = state.inference_calls.values()
    assert turn.previous_response_id == warm_up.response_id
    assert texts(state, call.request_item_ids) == ["hello"]

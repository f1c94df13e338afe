"""Replays a bundle: events in, state out. The life of rollouts, threads, turns and inferences is here.

Source: reference/wire-behaviour.md §8.5. D-3: late evidence adds ids and never clears one.
"""

from pathlib import Path

from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle.conversation import Conversation
from warmline_server.observe.bundle.errors import Damage, ReplayError
from warmline_server.observe.bundle.format import Status
from warmline_server.observe.bundle.read import BundleReader
from warmline_server.observe.bundle.state import (
    Call,
    Execution,
    InferenceCall,
    RawPayload,
    State,
    Thread,
    Turn,
)

# What becomes of an inference that still runs when its turn ends.
_ENDED_WITH_TURN = {
    Status.COMPLETED: Status.CANCELLED,
    Status.CANCELLED: Status.CANCELLED,
    Status.FAILED: Status.FAILED,
    Status.ABORTED: Status.ABORTED,
    Status.RUNNING: Status.CANCELLED,
}


def replay(path: Path) -> State:
    """Replays the bundle in a directory.

    Raises: ReplayError, with the line that cannot be replayed.
    """
    reader = BundleReader(path)
    reducer = _Reducer(reader)
    for line, envelope in reader.events():
        try:
            reducer.take(envelope)
        except ReplayError as error:
            raise ReplayError(error.damage, error.text, line=line) from error
    return reducer.state


class _Reducer:
    def __init__(self, reader: BundleReader) -> None:
        manifest = reader.manifest
        self.state = State(
            manifest.trace_id, manifest.rollout_id, manifest.root_thread_id, Execution(manifest.started_at_unix_ms, 0)
        )
        self._conversation = Conversation(self.state, reader)
        self._at = (0, 0)

    def take(self, envelope: fmt.Envelope) -> None:
        self._at = unix_ms, seq = envelope.wall_time_unix_ms, envelope.seq
        event = envelope.payload
        self._register(event)
        match event:
            case fmt.RolloutStarted() | fmt.Breadcrumb():
                pass
            case fmt.RolloutEnded(status=status):
                self.state.execution.end(status, unix_ms, seq)
            case fmt.ThreadStarted():
                self._start_thread(event)
            case fmt.ThreadEnded(thread_id=thread_id, status=status):
                self._thread(thread_id).execution.end(status, unix_ms, seq)
            case fmt.TurnStarted():
                self._start_turn(event)
            case fmt.TurnEnded():
                self._end_turn(event)
            case fmt.InferenceStarted():
                self._start_inference(event)
            case fmt.InferenceCompleted() | fmt.InferenceFailed() | fmt.InferenceCancelled():
                self._end_inference(event)
            case fmt.CompactionInstalled(thread_id=thread_id):
                self._thread(thread_id)
                self._conversation.compact(event, unix_ms)
            case fmt.Other(fact=fact):
                self._take_fact(fact)

    def _register(self, event: fmt.Event) -> None:
        """Every payload that any event names is known by its id."""
        mode = getattr(event, "request_input_mode", None)
        for ref in (
            getattr(event, "request_payload", None),
            getattr(mode, "prefix_payload", None),
            getattr(event, "response_payload", None),
            getattr(event, "partial_response_payload", None),
            getattr(event, "checkpoint_payload", None),
        ):
            if ref is not None:
                raw = RawPayload(ref.raw_payload_id, ref.kind.type, ref.path)
                self.state.raw_payloads[ref.raw_payload_id] = raw

    def _start_thread(self, event: fmt.ThreadStarted) -> None:
        if event.thread_id in self.state.threads:
            raise ReplayError(Damage.DUPLICATE_START, f"thread {event.thread_id} was started before")
        self.state.threads[event.thread_id] = Thread(event.thread_id, Execution(*self._at), event.lane)

    def _start_turn(self, event: fmt.TurnStarted) -> None:
        self._thread(event.thread_id)
        if event.codex_turn_id in self.state.codex_turns:
            raise ReplayError(Damage.DUPLICATE_START, f"turn {event.codex_turn_id} was started before")
        turn = Turn(event.codex_turn_id, event.thread_id, Execution(*self._at))
        self.state.codex_turns[event.codex_turn_id] = turn

    def _end_turn(self, event: fmt.TurnEnded) -> None:
        turn = self._turn(event.codex_turn_id)
        turn.execution.end(event.status, *self._at)
        for call_id in turn.inference_call_ids:
            execution = self.state.inference_calls[call_id].execution
            if execution.is_running:
                execution.end(_ENDED_WITH_TURN[event.status], *self._at)

    def _start_inference(self, event: fmt.InferenceStarted) -> None:
        if event.inference_call_id in self.state.inference_calls:
            raise ReplayError(Damage.DUPLICATE_START, f"inference {event.inference_call_id} was started before")
        turn = self._turn(event.codex_turn_id)
        if turn.thread_id != event.thread_id:
            raise ReplayError(
                Damage.WRONG_THREAD,
                f"inference {event.inference_call_id} is on thread {event.thread_id}, "
                f"its turn {turn.codex_turn_id} on {turn.thread_id}",
            )
        call = InferenceCall(
            event.inference_call_id,
            event.thread_id,
            event.codex_turn_id,
            Execution(*self._at),
            event.model,
            event.provider_name,
            event.request_payload.raw_payload_id,
            facts=event.warmline,
        )
        self._conversation.add_request(call, event, self._at[0])
        self.state.inference_calls[call.inference_call_id] = call
        turn.inference_call_ids.append(call.inference_call_id)

    def _end_inference(self, event: fmt.Terminal) -> None:
        call = self._inference(event.inference_call_id)
        ref = event.response_payload if isinstance(event, fmt.InferenceCompleted) else event.partial_response_payload
        if call.execution.is_running:
            call.execution.end(_status_of(event), *self._at)
            call.reason = _reason_of(event)
        call.end_facts = call.end_facts or event.warmline
        _add_ids(call, event.response_id, event.upstream_request_id)
        if ref is not None:
            call.raw_response_payload_id = ref.raw_payload_id
            call.usage = self._conversation.add_response(call, ref, self._at[0]) or call.usage

    def _take_fact(self, fact: fmt.OwnFact | None) -> None:
        state = self.state
        match fact:
            case None:
                pass
            case fmt.Connect():
                state.connects[fact.connection_id] = fact
            case fmt.CallStarted():
                state.calls[fact.request_id] = Call(fact)
            case fmt.CallEnded():
                call = state.calls.get(fact.request_id)
                if call is None:
                    raise ReplayError(Damage.UNKNOWN_CALL, f"call {fact.request_id} was never started")
                call.ended = fact
            case fmt.Evidence():
                _add_ids(self._inference(fact.inference_call_id), fact.response_id, fact.upstream_request_id)
            case fmt.Retry():
                state.retries.append(fact)
            case fmt.FellBack():
                state.fallbacks.append(fact)
            case fmt.Truncated():
                state.truncated = fact.reason

    def _thread(self, thread_id: str) -> Thread:
        thread = self.state.threads.get(thread_id)
        if thread is None:
            raise ReplayError(Damage.UNKNOWN_THREAD, f"thread {thread_id} was never started")
        return thread

    def _turn(self, turn_id: str) -> Turn:
        turn = self.state.codex_turns.get(turn_id)
        if turn is None:
            raise ReplayError(Damage.UNKNOWN_TURN, f"turn {turn_id} was never started")
        return turn

    def _inference(self, call_id: str) -> InferenceCall:
        call = self.state.inference_calls.get(call_id)
        if call is None:
            raise ReplayError(Damage.UNKNOWN_CALL, f"inference {call_id} was never started")
        return call


def _add_ids(call: InferenceCall, response_id: str | None, upstream_request_id: str | None) -> None:
    """D-3: what is known stays, what was missing is added."""
    call.response_id = call.response_id or response_id
    if call.upstream_request_id is None:
        call.upstream_request_id = upstream_request_id


def _status_of(event: fmt.Terminal) -> Status:
    match event:
        case fmt.InferenceCompleted():
            return Status.COMPLETED
        case fmt.InferenceFailed():
            return Status.FAILED
        case fmt.InferenceCancelled():
            return Status.CANCELLED


def _reason_of(event: fmt.Terminal) -> str:
    match event:
        case fmt.InferenceCompleted():
            return ""
        case fmt.InferenceFailed(error=error):
            return error
        case fmt.InferenceCancelled(reason=reason):
            return reason

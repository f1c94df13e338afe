"""The reducer against a model of the client: for random lives of a thread, replay gives the model's own state."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from observe.bundle_kit import Json, Log, assistant, reasoning, tool_call, tool_output, user
from warmline_server.observe.bundle.state import State

THREADS = ("thread-1", "thread-2")


@dataclass
class Inference:
    """What the model of the client knows of one request."""

    call_id: str
    thread_id: str
    turn_id: str
    visible: list[int]
    answer: list[int] = field(default_factory=list)
    status: str = "running"
    response_id: str | None = None
    upstream_request_id: str | None = None


@dataclass
class Client:
    """A client that talks to the provider and writes its trace as it goes.

    It numbers the items that it ever saw; `history` is a thread's conversation by those numbers.
    """

    log: Log
    items: list[Json] = field(default_factory=list)
    history: dict[str, list[int]] = field(default_factory=lambda: {thread: [] for thread in THREADS})
    turns: dict[str, str] = field(default_factory=dict)
    turn_status: dict[str, str] = field(default_factory=dict)
    inferences: list[Inference] = field(default_factory=list)
    chained: dict[str, Inference | None] = field(default_factory=lambda: dict.fromkeys(THREADS))
    numbers: int = 0

    def fresh(self) -> int:
        self.numbers += 1
        return self.numbers

    def new_item(self, item: Json) -> int:
        self.items.append(item)
        return len(self.items) - 1

    def begin_turn(self, thread: str) -> str:
        turn_id = f"turn-{self.fresh()}"
        self.log.turn(turn_id, thread)
        self.turns[thread], self.turn_status[turn_id] = turn_id, "running"
        return turn_id

    def end_turn(self, thread: str, status: str) -> None:
        turn_id = self.turns.pop(thread)
        self.turn_status[turn_id] = status
        self.log.end_turn(turn_id, status)
        for inference in self.inferences:
            if inference.turn_id == turn_id and inference.status == "running":
                inference.status = {"failed": "failed", "aborted": "aborted"}.get(status, "cancelled")

    def ask(self, thread: str, new: list[Json], *, incremental: bool) -> Inference:
        """Sends the thread's conversation and what is new: whole, or as a continuation where that is possible."""
        turn_id = self.turns.get(thread) or self.begin_turn(thread)
        added = [self.new_item(item) for item in new]
        parent = self.chained[thread]
        self.history[thread] = [*self.history[thread], *added]
        inference = Inference(f"call-{self.fresh()}", thread, turn_id, list(self.history[thread]))
        goes_on = incremental and parent is not None and parent.visible + parent.answer + added == inference.visible
        previous = parent.response_id if goes_on and parent is not None else None
        sent = added if previous is not None else inference.visible
        self.log.start(
            inference.call_id,
            [self.items[i] for i in sent],
            previous=previous,
            turn_id=turn_id,
            thread_id=thread,
        )
        self.inferences.append(inference)
        return inference

    def finish(self, inference: Inference, ending: str, output: list[Json]) -> None:
        """The answer came, whole or in part; partial output is kept in the thread, as the reducer does at once."""
        added = [self.new_item(item) for item in output]
        inference.answer = added
        self.history[inference.thread_id] = inference.visible + added
        inference.upstream_request_id = f"req-{self.fresh()}"
        if ending == "completed":
            inference.response_id = f"resp-{self.fresh()}"
            self.chained[inference.thread_id] = inference
            self.log.complete(
                inference.call_id,
                output,
                response_id=inference.response_id,
                upstream_request_id=inference.upstream_request_id,
            )
        elif ending == "failed":
            self.log.fail(inference.call_id, output, upstream_request_id=inference.upstream_request_id)
        else:
            self.log.cancel(inference.call_id, output, upstream_request_id=inference.upstream_request_id)
        if inference.status == "running":
            inference.status = ending


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """Steps of one client, as words: what is asked, how it is sent, how it ends."""
    ends = st.sampled_from(["completed", "completed", "failed", "cancelled", "turn", "open"])
    step = st.tuples(
        st.sampled_from(THREADS),
        st.sampled_from(["whole", "incremental"]),
        st.sampled_from(["text", "same text", "nothing"]),
        ends,
        st.sampled_from(["text", "tool", "thinking", "nothing"]),
        st.sampled_from(["stay", "stay", "completed", "failed", "cancelled", "aborted"]),
    )
    return draw(st.lists(step, min_size=1, max_size=14))


def _live(client: Client, step: tuple[str, ...]) -> None:
    thread, form, words, ending, output, turn_end = step
    answered = [client.items[i].get("call_id") for i in client.history[thread] if "output" in client.items[i]]
    asked = [client.items[i]["call_id"] for i in client.history[thread] if client.items[i]["type"] == "function_call"]
    new = [tool_output(call_id) for call_id in asked if call_id not in answered]
    new += {"text": [user(f"text {client.fresh()}")], "same text": [user("again")], "nothing": []}[words]
    inference = client.ask(thread, new, incremental=form == "incremental")
    event(form)
    if ending == "turn":
        client.end_turn(thread, "failed")
    if ending != "open":
        number = client.fresh()
        made = {
            "text": [assistant(f"answer {number}")],
            "tool": [reasoning(f"secret {number}", summary="why"), tool_call(f"tool-{number}")],
            "thinking": [reasoning(f"secret {number}", text="hm")],
            "nothing": [],
        }[output]
        client.finish(inference, "cancelled" if ending == "turn" else ending, made)
        event(ending)
    if turn_end != "stay" and thread in client.turns:
        client.end_turn(thread, turn_end)


def _check(client: Client, state: State) -> None:
    assert {t.codex_turn_id: t.execution.status.value for t in state.codex_turns.values()} == client.turn_status
    identity: dict[int, str] = {}
    for inference in client.inferences:
        call = state.inference_calls[inference.call_id]
        assert call.execution.status == inference.status
        assert (call.response_id, call.upstream_request_id) == (inference.response_id, inference.upstream_request_id)
        assert len(call.request_item_ids) == len(inference.visible)
        assert len(call.response_item_ids) == len(inference.answer)
        pairs = zip(
            [*inference.visible, *inference.answer], [*call.request_item_ids, *call.response_item_ids], strict=True
        )
        for number, item_id in pairs:
            assert identity.setdefault(number, item_id) == item_id, "an item keeps its identity"
    assert len(set(identity.values())) == len(identity), "two items are never taken for one"
    for thread in THREADS:
        expected = [identity[number] for number in client.history[thread]]
        assert state.threads[thread].conversation_item_ids == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives())
def test_replay_of_a_random_life_gives_the_clients_own_state(steps: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Log(Path(directory) / "bundle", started=False)
        for thread in THREADS:
            log.event("thread_started", thread_id=thread)
        client = Client(log)
        for step in steps:
            _live(client, step)

        _check(client, log.replay())

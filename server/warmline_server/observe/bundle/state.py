"""What a replayed bundle says: the maps of `state.json`."""

import msgspec

from warmline_server.observe.bundle.format import (
    SCHEMA_VERSION,
    AttemptFacts,
    CallEnded,
    CallStarted,
    Connect,
    EndFacts,
    FellBack,
    Retry,
    Status,
    TokenUsage,
)


class Execution(msgspec.Struct, omit_defaults=True):
    """When something ran, by wall time and by the log's sequence; end None while it runs."""

    started_at_unix_ms: int
    started_seq: int
    ended_at_unix_ms: int | None = None
    ended_seq: int | None = None
    status: Status = Status.RUNNING

    @property
    def is_running(self) -> bool:
        return self.ended_seq is None

    def end(self, status: Status, unix_ms: int, seq: int) -> None:
        """The end, once."""
        self.status, self.ended_at_unix_ms, self.ended_seq = status, unix_ms, seq


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of an item's body: `kind` is text, summary, encoded or json. `text` of json is its canonical form."""

    kind: str
    text: str


class Producer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who made an item: `inference`, or `compaction`. An item that only ever came in from the caller has none."""

    kind: str
    id: str


class ConversationItem(msgspec.Struct, omit_defaults=True):
    item_id: str
    thread_id: str
    codex_turn_id: str
    first_seen_at_unix_ms: int
    kind: str
    role: str = ""
    call_id: str = ""
    body: list[Part] = msgspec.field(default_factory=list)
    produced_by: list[Producer] = msgspec.field(default_factory=list)


class InferenceCall(msgspec.Struct, omit_defaults=True):
    inference_call_id: str
    thread_id: str
    codex_turn_id: str
    execution: Execution
    model: str
    provider_name: str
    raw_request_payload_id: str
    response_id: str | None = None
    upstream_request_id: str | None = None
    request_item_ids: list[str] = msgspec.field(default_factory=list)
    response_item_ids: list[str] = msgspec.field(default_factory=list)
    tool_call_ids_started_by_response: list[str] = msgspec.field(default_factory=list)
    usage: TokenUsage | None = None
    raw_response_payload_id: str | None = None
    reason: str = ""
    facts: AttemptFacts | None = None
    end_facts: EndFacts | None = None


class Turn(msgspec.Struct, omit_defaults=True):
    codex_turn_id: str
    thread_id: str
    execution: Execution
    inference_call_ids: list[str] = msgspec.field(default_factory=list)


class Thread(msgspec.Struct, omit_defaults=True):
    """`conversation_item_ids`: what the model saw last, and what it answered."""

    thread_id: str
    execution: Execution
    lane: str = ""
    conversation_item_ids: list[str] = msgspec.field(default_factory=list)


class ToolCall(msgspec.Struct, omit_defaults=True):
    """A call that the model asked for, and the outputs that were sent back."""

    tool_call_id: str
    thread_id: str
    call_id: str
    started_by_inference_call_id: str | None = None
    call_item_id: str | None = None
    output_item_ids: list[str] = msgspec.field(default_factory=list)


class Compaction(msgspec.Struct, omit_defaults=True):
    compaction_id: str
    thread_id: str
    codex_turn_id: str
    installed_at_unix_ms: int
    marker_item_id: str
    replacement_item_ids: list[str]


class Call(msgspec.Struct, omit_defaults=True):
    """One StreamTurn call, in this server's own terms."""

    started: CallStarted
    ended: CallEnded | None = None


class RawPayload(msgspec.Struct, omit_defaults=True):
    raw_payload_id: str
    kind: str
    path: str


class State(msgspec.Struct):
    """`truncated` tells why the writer gave up; blank: it did not."""

    trace_id: str
    rollout_id: str
    root_thread_id: str
    execution: Execution
    schema_version: int = SCHEMA_VERSION
    threads: dict[str, Thread] = {}
    codex_turns: dict[str, Turn] = {}
    conversation_items: dict[str, ConversationItem] = {}
    inference_calls: dict[str, InferenceCall] = {}
    tool_calls: dict[str, ToolCall] = {}
    compactions: dict[str, Compaction] = {}
    raw_payloads: dict[str, RawPayload] = {}
    calls: dict[str, Call] = {}
    connects: dict[str, Connect] = {}
    retries: list[Retry] = []
    fallbacks: list[FellBack] = []
    truncated: str = ""


def encode(state: State) -> bytes:
    """`state.json`."""
    return msgspec.json.format(msgspec.json.encode(state), indent=2)

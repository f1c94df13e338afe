"""Every metric: name, instrument, unit, what it says, and the attributes it may carry.

The dashboard's queries and the metric table of `docs/tracing.md` are checked against this list.
Source of the GenAI names: open-telemetry/semantic-conventions-genai `gen-ai-dev/1.42.0-dev`; the older generation is
what conventions 1.3x and most dashboards use.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from warmline_server.observe import names


class Kind(Enum):
    COUNTER = auto()
    UP_DOWN = auto()
    HISTOGRAM = auto()
    GAUGE = auto()
    """Read when it is collected."""


# Source: the conventions' advice for durations of model calls, and on to ten minutes: calls that use tools are long.
CALL_BUCKETS_S: Final = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
    163.84,
    600,
)
# For what this server adds by itself, which should stay below a millisecond.
OWN_BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
# Source: the conventions' advice for token counts.
TOKEN_BUCKETS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Kind
    unit: str
    says: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] | None = None


def _seconds(name: str, says: str, *attributes: str, buckets: tuple[float, ...] = CALL_BUCKETS_S) -> Metric:
    return Metric(name, Kind.HISTOGRAM, "s", says, attributes, buckets)


STATE: Final = "warmline.state"
CAUSE: Final = "warmline.cause"
CODE: Final = "warmline.close_code"
CONNECT_KIND: Final = "warmline.connect.kind"
USAGE_SIDE: Final = "gen_ai.token.type"
USAGE_MODALITY: Final = "gen_ai.token.modality"

SESSIONS = Metric(
    "warmline.sessions",
    Kind.UP_DOWN,
    "{session}",
    "Open sessions: websocket, or latched to HTTP",
    (names.UPSTREAM, STATE),
)
SLOTS = Metric("warmline.slots", Kind.UP_DOWN, "{slot}", "Preconnect slots by state", (names.UPSTREAM, STATE))
SLOT_OUTCOMES = Metric(
    "warmline.slot.outcomes",
    Kind.COUNTER,
    "{attempt}",
    "Where the sockets of turns' attempts came from",
    (names.UPSTREAM, names.SLOT_OUTCOME),
)
CONNECTS = Metric(
    "warmline.connects",
    Kind.COUNTER,
    "{connect}",
    "Handshakes that ended: open, failed or abandoned",
    (names.UPSTREAM, CONNECT_KIND, names.OUTCOME, names.REASON),
)
CONNECT_DURATION = _seconds(
    "warmline.connect.duration", "Handshake from start to end", names.UPSTREAM, CONNECT_KIND, names.OUTCOME
)
SOCKETS = Metric("warmline.sockets", Kind.UP_DOWN, "{socket}", "Open upstream sockets", (names.UPSTREAM,))
SOCKET_CLOSES = Metric(
    "warmline.socket.closes", Kind.COUNTER, "{socket}", "Sockets that are gone", (names.UPSTREAM, CAUSE, CODE)
)
CALLS_ACTIVE = Metric("warmline.calls.active", Kind.UP_DOWN, "{call}", "Calls under way", (names.UPSTREAM,))
CALLS = Metric(
    "warmline.calls", Kind.COUNTER, "{call}", "Calls that ended", (names.UPSTREAM, names.OUTCOME, names.REASON)
)
CALL_DURATION = _seconds("warmline.call.duration", "Call from admission to end", names.UPSTREAM, names.OUTCOME)
CALL_TIME_TO_SEND = _seconds(
    "warmline.call.time_to_send",
    "From admission to the first attempt's request: lane, socket and planning",
    names.UPSTREAM,
    names.SLOT_OUTCOME,
    buckets=OWN_BUCKETS_S,
)
CALL_HELD = _seconds(
    "warmline.call.held",
    "Added latency: the longest that one event of a call waited in this server before its write",
    names.UPSTREAM,
    buckets=OWN_BUCKETS_S,
)
REFUSALS = Metric("warmline.refusals", Kind.COUNTER, "{call}", "Calls refused before admission", (names.REASON,))
ATTEMPTS = Metric(
    "warmline.attempts",
    Kind.COUNTER,
    "{attempt}",
    "Upstream requests that ended",
    (names.UPSTREAM, names.TRANSPORT, names.ATTEMPT_KIND, names.OUTCOME, names.REASON, names.INCREMENTAL),
)
EVENTS = Metric("warmline.events", Kind.COUNTER, "{event}", "Events received from upstream", (names.UPSTREAM,))
LONGEST_GAP = _seconds(
    "warmline.attempt.longest_gap", "Longest wait between two events of an attempt", names.UPSTREAM, names.TRANSPORT
)
RETRIES = Metric("warmline.retries", Kind.COUNTER, "{retry}", "Resends scheduled", (names.UPSTREAM, names.REASON))
FALLBACKS = Metric(
    "warmline.fallbacks", Kind.COUNTER, "{fallback}", "Falls to HTTP", (names.UPSTREAM, names.REASON, names.LATCHED)
)
CIRCUIT = Metric(
    "warmline.circuit.state",
    Kind.GAUGE,
    "{state}",
    "Circuit of an upstream: 0 closed, 1 probing, 2 open",
    (names.UPSTREAM,),
)
QUEUE_BYTES = Metric(
    "warmline.queue.bytes", Kind.GAUGE, "By", "Payload read from upstream and not yet written to callers"
)
LOOP_LAG = _seconds("warmline.event_loop.lag", "How late a timer of the event loop fired", buckets=OWN_BUCKETS_S)
LOOP_TASKS = Metric("warmline.event_loop.tasks", Kind.GAUGE, "{task}", "Tasks of the event loop that have not ended")
BUNDLE_DROPPED = Metric(
    "warmline.bundle.dropped", Kind.COUNTER, "{event}", "Bundle events lost to a full queue or a failing disk"
)
RPC_DURATION = _seconds(
    "rpc.server.call.duration",
    "RPC from its start to its end",
    names.RPC_SYSTEM,
    names.RPC_METHOD,
    names.RPC_STATUS,
    names.ERROR_TYPE,
)

INFERENCE: Final = (names.GEN_AI_OPERATION, names.GEN_AI_PROVIDER, names.GEN_AI_REQUEST_MODEL, names.ATTEMPT_KIND)

GENAI_DURATION = _seconds(
    "gen_ai.client.inference.duration", "Attempt from request to end", *INFERENCE, names.ERROR_TYPE
)
GENAI_FIRST_CHUNK = _seconds(
    "gen_ai.client.inference.time_to_first_chunk", "From an attempt's request to its first event", *INFERENCE
)
GENAI_PER_CHUNK = _seconds(
    "gen_ai.client.inference.time_per_output_chunk",
    "Mean time between two events, once per attempt",
    *INFERENCE,
    buckets=OWN_BUCKETS_S,
)


def _tokens(what: str) -> Metric:
    name = f"gen_ai.client.inference.usage.{what}_tokens"
    says = f"Tokens used: {what.replace('.', ' ').replace('_', ' ')}"
    return Metric(name, Kind.COUNTER, "{token}", says, (*INFERENCE, USAGE_MODALITY))


GENAI_INPUT = _tokens("input")
GENAI_CACHED = _tokens("cache_read.input")
GENAI_OUTPUT = _tokens("output")
GENAI_REASONING = _tokens("reasoning.output")

OLD_DURATION = _seconds(
    "gen_ai.client.operation.duration", "As gen_ai.client.inference.duration", *INFERENCE, names.ERROR_TYPE
)
OLD_FIRST_CHUNK = _seconds(
    "gen_ai.client.operation.time_to_first_chunk", "As gen_ai.client.inference.time_to_first_chunk", *INFERENCE
)
OLD_PER_CHUNK = _seconds(
    "gen_ai.client.operation.time_per_output_chunk",
    "As gen_ai.client.inference.time_per_output_chunk",
    *INFERENCE,
    buckets=OWN_BUCKETS_S,
)
OLD_TOKENS = Metric(
    "gen_ai.client.token.usage",
    Kind.HISTOGRAM,
    "{token}",
    "Tokens per attempt: input or output",
    (*INFERENCE, USAGE_SIDE),
    TOKEN_BUCKETS,
)

LATEST_GENAI = (
    GENAI_DURATION,
    GENAI_FIRST_CHUNK,
    GENAI_PER_CHUNK,
    GENAI_INPUT,
    GENAI_CACHED,
    GENAI_OUTPUT,
    GENAI_REASONING,
)
OLDER_GENAI = (OLD_DURATION, OLD_FIRST_CHUNK, OLD_PER_CHUNK, OLD_TOKENS)
OWN = tuple(
    metric
    for metric in list(globals().values())
    if isinstance(metric, Metric) and metric not in LATEST_GENAI and metric not in OLDER_GENAI
)
ALL = OWN + LATEST_GENAI + OLDER_GENAI

"""Every name that leaves the process in telemetry: spans, attributes, span events.

Names of metrics live in `metric_table.py`, with their units. The GenAI names are those of the development conventions;
the constants of `opentelemetry-semantic-conventions` are all marked deprecated, so they are kept here.
Source: open-telemetry/semantic-conventions-genai, `gen-ai-dev/1.42.0-dev`; RPC names: core conventions 1.44.0.
"""

from typing import Final

SCOPE: Final = "warmline"
"""Name of the tracer and of the meter."""
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"

# Spans. An RPC's span has the method's name, an attempt's is `chat {model}`.
CALL_SPAN: Final = "turn"
CONNECT_SPAN: Final = "connect"
PRECONNECT_SPAN: Final = "preconnect"
EVIDENCE_SPAN: Final = "late evidence"
CHAT: Final = "chat"

# Events on spans: few and bounded, never one per delta.
FIRST_EVENT: Final = "first_event"
RETRY_SCHEDULED: Final = "retry_scheduled"
FELL_BACK: Final = "fell_back"
SOCKET_CLOSED: Final = "socket_closed"

# The ids by which a person finds an inference.
RESPONSE_ID: Final = "response_id"
UPSTREAM_REQUEST_ID: Final = "upstream_request_id"
UPSTREAM_HANDSHAKE_REQUEST_ID: Final = "upstream_handshake_request_id"
SESSION_ID: Final = "session_id"
TURN_ID: Final = "turn_id"

# Our own facts.
TENANT: Final = "warmline.tenant"
CALLER: Final = "warmline.caller"
UPSTREAM: Final = "warmline.upstream"
LANE: Final = "warmline.lane"
REQUEST_ID: Final = "warmline.request_id"
OUTCOME: Final = "warmline.outcome"
REASON: Final = "warmline.reason"
ATTEMPTS: Final = "warmline.attempts"
EVENTS: Final = "warmline.events"
LONGEST_GAP: Final = "warmline.longest_gap_s"
HELD: Final = "warmline.held_s"
ATTEMPT_ID: Final = "warmline.attempt.id"
ATTEMPT_NUMBER: Final = "warmline.attempt.number"
ATTEMPT_KIND: Final = "warmline.attempt.kind"
TRANSPORT: Final = "warmline.transport"
SLOT_OUTCOME: Final = "warmline.slot.outcome"
CONNECTION_ID: Final = "warmline.connection.id"
INCREMENTAL: Final = "warmline.request.incremental"
FULL_REASON: Final = "warmline.request.full_reason"
MISMATCH_FIELD: Final = "warmline.request.mismatch.field"
MISMATCH_INDEX: Final = "warmline.request.mismatch.index"
REQUEST_BYTES: Final = "warmline.request.bytes"
OUTPUT_ITEMS: Final = "warmline.output_items"
ABANDONED: Final = "warmline.connect.abandoned"
DELAY: Final = "warmline.delay_s"
LATCHED: Final = "warmline.latched"
LINK: Final = "warmline.link"
LINK_CONNECTION: Final = "connection"
LINK_REPLACES: Final = "replaces"
CONTENT_REQUEST: Final = "warmline.content.request"
CONTENT_OUTPUT: Final = "warmline.content.output"

# Conventions.
ERROR_TYPE: Final = "error.type"
HTTP_STATUS: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
PEER_ADDRESS: Final = "network.peer.address"
PEER_PORT: Final = "network.peer.port"
RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.response.status_code"

GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_REASONING: Final = "gen_ai.request.reasoning.level"
GEN_AI_REQUEST_PREVIOUS: Final = "gen_ai.request.previous_response.id"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
OPENAI_API_TYPE: Final = "openai.api.type"
OPENAI_SERVICE_TIER: Final = "openai.request.service_tier"

"""What a call tells its caller: the provider's events as values, and the service's own.

`frames.py` makes the provider's events out of JSON; `rpc/translate.py` turns all of them into messages.
"""

from enum import Enum, auto

import msgspec


class _Value(msgspec.Struct, frozen=True, gc=False):
    """A value without cycles, so the garbage collector need not look at it."""


class Usage(_Value, frozen=True):
    """Tokens of one response, as the provider counted them."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0
    total_tokens: int = 0


class Created(_Value, frozen=True):
    response_id: str


class ItemAdded(_Value, frozen=True):
    """`item` is the item's JSON, byte for byte as it came."""

    item: bytes
    output_index: int | None


class ItemDone(_Value, frozen=True):
    """`item` is the item's JSON, byte for byte as it came; `item_type` its `type`, blank when it has none."""

    item: bytes
    item_type: str
    output_index: int | None


class TextDelta(_Value, frozen=True):
    delta: str
    item_id: str = ""
    content_index: int = 0


class ReasoningDelta(_Value, frozen=True):
    delta: str
    item_id: str = ""
    content_index: int = 0


class ReasoningSummaryDelta(_Value, frozen=True):
    delta: str
    item_id: str = ""
    summary_index: int = 0


class ReasoningSummaryPartAdded(_Value, frozen=True):
    item_id: str = ""
    summary_index: int = 0


class ToolInputDelta(_Value, frozen=True):
    delta: str
    item_id: str = ""
    call_id: str = ""


class RateLimitWindow(_Value, frozen=True):
    """`used_percent` 0 to 100 and beyond; `resets_at_unix_s` and `window_minutes` None when not told."""

    used_percent: float
    window_minutes: int | None = None
    resets_at_unix_s: int | None = None


class Credits(_Value, frozen=True):
    has_credits: bool
    unlimited: bool
    balance: str = ""


class RateLimits(_Value, frozen=True):
    """One family of limits. Windows and credits are None when not told."""

    limit_id: str
    limit_name: str = ""
    primary: RateLimitWindow | None = None
    secondary: RateLimitWindow | None = None
    credits: Credits | None = None
    plan_type: str = ""


class ServerModel(_Value, frozen=True):
    model: str


class ModelsEtag(_Value, frozen=True):
    etag: str


class ReasoningIncluded(_Value, frozen=True):
    pass


class TurnStateSeen(_Value, frozen=True):
    """A sticky-routing token told inside the stream; for the lane, never for the caller."""

    token: str


class Completed(_Value, frozen=True):
    """`usage` and `end_turn` are None when not told."""

    response_id: str
    usage: Usage | None = None
    end_turn: bool | None = None


class Incomplete(_Value, frozen=True):
    """`reason` is the provider's, "unknown" when not told; `response_id` is blank when not told."""

    reason: str
    response_id: str = ""
    usage: Usage | None = None


class Raw(_Value, frozen=True):
    """Any other event; its JSON travels beside it."""


ModelEvent = (
    Created
    | ItemAdded
    | ItemDone
    | TextDelta
    | ReasoningDelta
    | ReasoningSummaryDelta
    | ReasoningSummaryPartAdded
    | ToolInputDelta
    | RateLimits
    | ServerModel
    | ModelsEtag
    | ReasoningIncluded
    | TurnStateSeen
    | Completed
    | Incomplete
    | Raw
)


class Transport(Enum):
    """How an attempt travels."""

    WEBSOCKET = auto()
    HTTP = auto()
    FIXTURE = auto()


class SlotOutcome(Enum):
    """Where an attempt's socket came from."""

    ADOPTED = auto()
    AWAITED = auto()
    REUSED = auto()
    COLD = auto()
    NONE = auto()


class FullReason(Enum):
    """Why a request holds the whole conversation."""

    NEW_SOCKET = auto()
    NO_BASELINE = auto()
    SETTINGS_CHANGED = auto()
    NOT_A_PREFIX = auto()
    TRANSPORT = auto()
    PREVIOUS_RESPONSE_LOST = auto()


class Mismatch(_Value, frozen=True):
    """Where a request first differs from its baseline: a setting's name, or an input index; else blank and None."""

    field: str = ""
    input_index: int | None = None


class Admitted(_Value, frozen=True):
    turn_id: str
    request_id: str
    conversation_id: str
    session_created: bool


class AttemptStarted(_Value, frozen=True):
    """`full_reason` is None for an incremental request; `mismatch` None where nothing was compared or all was equal."""

    attempt_id: str
    transport: Transport
    slot_outcome: SlotOutcome
    connection_id: str
    full_reason: FullReason | None
    mismatch: Mismatch | None


class Retrying(_Value, frozen=True):
    reason: str
    retry: int
    max_retries: int
    delay_s: float
    response_id: str
    upstream_request_id: str | None
    upstream_status: int | None


class FellBack(_Value, frozen=True):
    latched: bool
    reason: str


class Restarted(_Value, frozen=True):
    attempt: int
    kept_item_sequences: tuple[int, ...]


ServiceEvent = Admitted | AttemptStarted | Retrying | FellBack | Restarted


class Emission(_Value, frozen=True):
    """One event on its way to the caller.

    `payload` is the provider's event verbatim, None for service events and for those made from a header; `attempt` is
    0 when the event belongs to none; `upstream_request_id` and `history_position` go with a terminal event.
    """

    event: ModelEvent | ServiceEvent
    attempt: int = 0
    upstream_type: str = ""
    payload: bytes | None = None
    upstream_request_id: str | None = None
    history_position: int = 0

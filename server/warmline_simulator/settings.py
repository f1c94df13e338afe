"""How a simulator behaves when no script says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, TypedDict

from warmline_simulator.records import Headers

TurnState = str | Callable[[Headers], str | None]
"""A fixed token, or one chosen by the request's headers; None sends none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every switch of a simulator. Times are on its clock."""

    seed: int = 0
    """The model's words, ids and arguments follow from it and the request."""
    pace_s: float = 0.0
    """Silence between the model's events; 0 sends them as fast as they can be written, several per packet."""
    first_delay_s: float = 0.0
    """Silence before the model's first output."""
    words: int = 24
    """Length of the model's answers, in words, unless the request's metadata says `sim_words`."""
    strict: bool = False
    """Refuse whatever no script expects, and fail the run: as `Script(rest="refuse")`."""
    serial: bool = False
    """The older behaviour: no lanes, no steering, one response at a time per socket, the others wait."""
    refuse_upgrades: int | None = None
    """Answer every unscripted upgrade with this status; 426 tells clients to use HTTP. None: accept."""
    lifetime_s: float = 3600.0
    """Age at which a socket is ended with `websocket_connection_limit_reached`."""
    compression: bool = True
    """Agree to permessage-deflate when a client offers it."""
    tokens: Collection[str] | None = None
    """Bearer tokens let in; None asks for none."""
    forbidden_tokens: Collection[str] = ()
    """Bearer tokens that are known but lack permission: 403."""
    only_listed_models: bool = False
    """Refuse models that GET models does not list."""
    turn_state: TurnState | None = None
    """`x-codex-turn-state` for the 101 and for answers to POST. None sends none."""
    request_ids: bool = True
    """Send `x-request-id`; False leaves it out, as some gateways do."""
    rate_limit_headers: bool = True
    steering: bool = True
    max_in_flight: int = 16
    """Responses in flight per socket over all lanes; further ones wait. Source: WebSocket guide."""
    max_lanes: int = 32
    """Distinct named lanes in a socket's life. Source: WebSocket guide."""
    max_pending_steers: int = 8
    """Steers waiting per response; the service names no figure."""
    hydration_delay_s: float = 0.0
    """Extra silence when the previous response comes from the store."""
    stored_responses: int = 10_000
    """Responses kept in the store; the oldest go first."""
    max_body_bytes: int = 32 * 1024 * 1024
    """Larger frames end the socket with 1009, larger bodies are answered 413."""
    max_head_bytes: int = 64 * 1024
    """Larger request heads are answered 431."""
    keep_records: int | None = None
    """How many handshakes and requests to keep; None keeps all. Counters are not affected."""
    keep_frames: bool = False
    """Keep what was sent in `RequestRecord.frames`."""


class SettingsArguments(TypedDict, total=False):
    """The fields of `Settings`, as keyword arguments of `Simulator`."""

    seed: int
    pace_s: float
    first_delay_s: float
    words: int
    strict: bool
    serial: bool
    refuse_upgrades: int | None
    lifetime_s: float
    compression: bool
    tokens: Collection[str] | None
    forbidden_tokens: Collection[str]
    only_listed_models: bool
    turn_state: TurnState | None
    request_ids: bool
    rate_limit_headers: bool
    steering: bool
    max_in_flight: int
    max_lanes: int
    max_pending_steers: int
    hydration_delay_s: float
    stored_responses: int
    max_body_bytes: int
    max_head_bytes: int
    keep_records: int | None
    keep_frames: bool


Transport = Literal["ws", "http"]

"""What can be wrong with a bundle: a name for each, and the line of the log."""

from enum import StrEnum


class Damage(StrEnum):
    NO_BUNDLE = "no_bundle"
    BAD_MANIFEST = "bad_manifest"
    TRUNCATED_LINE = "truncated_line"
    BAD_EVENT = "bad_event"
    MISSING_PAYLOAD = "missing_payload"
    BAD_PAYLOAD = "bad_payload"
    DUPLICATE_START = "duplicate_start"
    UNKNOWN_THREAD = "unknown_thread"
    UNKNOWN_TURN = "unknown_turn"
    WRONG_THREAD = "wrong_thread"
    UNKNOWN_CALL = "unknown_call"
    UNKNOWN_PARENT = "unknown_parent"
    MODE_MISMATCH = "mode_mismatch"
    UNKNOWN_ITEM_TYPE = "unknown_item_type"
    CALL_ID_CONFLICT = "call_id_conflict"
    APPEND_MISMATCH = "append_mismatch"


class ReplayError(Exception):
    """A bundle cannot be replayed. `line` counts from 1; 0: not a matter of one line."""

    def __init__(self, damage: Damage, text: str, *, line: int = 0) -> None:
        super().__init__(damage, text, line)
        self.damage = damage
        self.text = text
        self.line = line

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.damage}: {self.text}"

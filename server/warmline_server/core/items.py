"""What the server looks at in the items of a conversation: their value, and which call belongs to which output."""

from collections.abc import Iterable, Sequence

import msgspec

from warmline_server.core import delta
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.lenient import NOT_JSON, LenientDecoder, mend

# Calls that the caller executes: each needs its output, and no resend may follow one that is finished (D-12).
CLIENT_CALLS = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "computer_call",
        "tool_search_call",
    }
)
# Where the output's type is not the call's plus "_output".
_OUTPUT_SUFFIX = "_output"
_OTHER_OUTPUTS = {"tool_search_output": "tool_search_call"}


class _ItemHead(msgspec.Struct):
    """The fields of an item that the server looks at."""

    type: str = ""
    call_id: str | None = None
    execution: str = ""


_item_head = LenientDecoder(_ItemHead)


class Half(msgspec.Struct, frozen=True, gc=False):
    """A call that the caller executes, or the output of one: `kind` is the call's type, `type` the item's own."""

    kind: str
    type: str
    call_id: str | None

    @property
    def is_call(self) -> bool:
        return self.kind == self.type


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What is known of an item. `digest` is the same for all its spellings; `half` None: it is no half of a call."""

    digest: bytes
    half: Half | None


class Conversation(msgspec.Struct, frozen=True):
    """Items as JSON, oldest first, and what is known of each."""

    items: tuple[bytes, ...] = ()
    facts: tuple[Facts, ...] = ()

    def followed_by(self, other: "Conversation") -> "Conversation":
        """Both, one after the other."""
        return Conversation(self.items + other.items, self.facts + other.facts)

    @property
    def digests(self) -> bytes:
        """The digests of the items, one after the other."""
        return b"".join([fact.digest for fact in self.facts])


def facts_of(item: bytes) -> Facts:
    """What is known of an item. Raises: one of `lenient.NOT_JSON`."""
    return Facts(delta.digest(item), _half_of(item))


def of_provider(items: Iterable[bytes]) -> Conversation:
    """What the provider made. An item that is no JSON is not refused: it counts as it came."""
    found = tuple(items)
    return Conversation(found, tuple(map(_facts_of_output, found)))


def _facts_of_output(item: bytes) -> Facts:
    try:
        return facts_of(item)
    except NOT_JSON:
        return Facts(delta.raw_digest(item), None)


def _half_of(item: bytes) -> Half | None:
    head = item_head(item)
    if head.execution == "server":  # both halves are the provider's
        return None
    kind = _OTHER_OUTPUTS.get(head.type) or head.type.removesuffix(_OUTPUT_SUFFIX)
    return Half(kind, head.type, head.call_id) if kind in CLIENT_CALLS else None


def check_calls(facts: Sequence[Facts], *, first_index: int = 0) -> None:
    """Every tool output needs its call before it, and every call that the caller executes its output.

    Args: `first_index`: the index of the caller's own first item, for error texts.
    Raises: CallerError naming the first item without its other half.
    """
    calls: dict[tuple[str, str], int] = {}
    answered: set[tuple[str, str]] = set()
    for index, fact in enumerate(facts):
        half = fact.half
        if half is None:
            continue
        key = (half.kind, half.call_id or "")
        if half.is_call:
            if half.call_id is not None:
                calls[key] = index
            continue
        if not half.call_id:
            raise item_error(index - first_index, f"{half.type} has no call_id")
        if key not in calls:
            raise item_error(index - first_index, f"{half.type} for call_id {half.call_id!r} has no call before it")
        answered.add(key)
    for key, index in calls.items():
        if key not in answered:
            raise item_error(index - first_index, f"{key[0]} with call_id {key[1]!r} has no output")


def item_head(item: bytes) -> _ItemHead:
    """The routing fields of an item; blanks for those that are absent or of another kind."""
    return _item_head.decode(item) or _item_head.decode(mend(item)[0]) or _ItemHead()


def is_client_call(item: bytes) -> bool:
    """Whether a finished output item is a call that the caller executes."""
    half = _half_of(item)
    return half is not None and half.is_call


def item_error(index: int, text: str) -> CallerError:
    """What is wrong with the caller's item; below 0 with one that the server holds."""
    field = f"input[{index}]" if index >= 0 else "transcript"
    return CallerError(Reason.INVALID_REQUEST, f"{field}: {text}", field=field)

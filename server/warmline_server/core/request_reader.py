"""Reads the parts of a lane's requests, and knows again what came before.

An agent sends its whole conversation with each call, and most of it as it sent it the last time. What is known of an
item is kept under the digest of its bytes, which is found ten times faster than by reading it.
"""

from collections.abc import Mapping, Sequence

from warmline_server.core import delta
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.items import Conversation, Facts, facts_of, item_error
from warmline_server.core.lenient import NOT_JSON
from warmline_server.core.nesting import MAX_DEPTH, is_too_deep


class RequestReader:
    """Knows the items and settings of the last request that it read, and nothing of those before."""

    def __init__(self) -> None:
        self._facts: dict[bytes, Facts] = {}
        self._canonical: dict[str, tuple[bytes, bytes]] = {}

    def read_items(self, items: Sequence[bytes]) -> Conversation:
        """What the caller sent. Raises: CallerError naming the item that is not JSON, no object, or nested too deep."""
        now: dict[bytes, Facts] = {}
        found = []
        for index, item in enumerate(items):
            key = delta.raw_digest(item)
            facts = now[key] = self._facts.get(key) or _read(index, item)
            found.append(facts)
        self._facts = now
        return Conversation(tuple(items), tuple(found))

    def read_settings(self, settings: Mapping[str, bytes]) -> dict[str, bytes]:
        """Each setting in canonical form. Raises: CallerError naming the one that is not JSON."""
        now = {}
        for name, value in settings.items():
            former = self._canonical.get(name)
            now[name] = former if former is not None and former[0] == value else (value, _canonical(name, value))
        self._canonical = now
        return {name: canonical for name, (_, canonical) in now.items()}


def _read(index: int, item: bytes) -> Facts:
    if not item.lstrip().startswith(b"{"):
        raise item_error(index, "expected one JSON object")
    if is_too_deep(item):
        raise item_error(index, f"nested deeper than {MAX_DEPTH} levels")
    try:
        return facts_of(item)
    except NOT_JSON as error:
        raise item_error(index, f"is not JSON: {error}") from error


def _canonical(name: str, value: bytes) -> bytes:
    try:
        return delta.canonical(value)
    except NOT_JSON as error:
        raise CallerError(Reason.INVALID_REQUEST, f"{name} is not JSON: {error}", field=name) from error

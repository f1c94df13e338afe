"""The sticky-routing token: a write-once cell per lane and turn.

Kept apart from sockets and retries: it outlives a reconnect and the fall back to HTTP, and never a turn. Source:
wire-behaviour C-006, C-017, C-036, C-062, C-063.
"""


class TurnState:
    """A lane's cell. It belongs to one turn at a time and is empty again when another turn begins."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._turn_id: str | None = None
        self._token: str | None = None
        self._set_at_s = 0.0

    def begin(self, turn_id: str) -> None:
        """A call of `turn_id` starts: another turn's token is forgotten."""
        if turn_id != self._turn_id:
            self._turn_id, self._token = turn_id, None

    def offer(self, token: str | None, now_s: float) -> None:
        """Keeps the first token that is offered to the turn; later ones are ignored until it outlived its time."""
        if token is not None and self.token(now_s) is None:
            self._token, self._set_at_s = token, now_s

    def token(self, now_s: float) -> str | None:
        """The token to replay; None when there is none, or it outlived its time."""
        if self._token is not None and now_s - self._set_at_s > self._ttl_s:
            self._token = None
        return self._token

    def clear(self) -> None:
        """Forgets the turn and its token."""
        self._turn_id = self._token = None

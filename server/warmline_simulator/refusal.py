"""A refusal: why a request is not served, in the service's own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warmline_simulator import ev


@dataclass(frozen=True, slots=True)
class Refusal:
    """One error of E4: status, code, message and the field at fault."""

    status: int
    code: str | None
    message: str
    param: str | None = None
    kind: str | None = None
    """The error's `type`; None for the one that fits the status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers that go with it; inside the error on a WebSocket."""
    echoes_lane: bool = True
    """Whether its frame names the lane of the request."""

    def frame(self, stream_id: str | None) -> dict[str, Any]:
        """As a WebSocket error frame."""
        headers = dict(self.headers) or None
        event = ev.error(self.status, self.code, self.message, param=self.param, headers=headers, kind=self.kind)
        return {**event, "stream_id": stream_id} if stream_id is not None and self.echoes_lane else event

    def body(self) -> dict[str, Any]:
        """As the body of an HTTP error."""
        return ev.http_error(self.status, self.code, self.message, param=self.param, kind=self.kind)

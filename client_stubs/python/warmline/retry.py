"""When a call is sent again by the client: a pure decision. The server's own resends are not its concern."""

from dataclasses import dataclass

from warmline.errors import WarmlineError


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetry:
    """Limits of the client's own resends of one call.

    A call is sent again only before anything of it was delivered, and only where the server said so (RetryInfo) or
    was not reached at all (UNAVAILABLE without ErrorInfo). The defaults bridge a server's restart of some seconds.
    """

    max_tries: int = 8
    """Sends of one call, the first included; 1: never again."""
    first_wait_s: float = 0.1
    """Wait before the first resend to a server that was not reached; doubled each time."""
    longest_wait_s: float = 2.0
    """Longest of those waits."""
    total_wait_s: float = 30.0
    """Most waiting of one call; a wait that would pass it, or the call's deadline, is not begun."""

    def wait_s(
        self, error: WarmlineError, *, tries: int, waited_s: float, remaining_s: float | None, jitter: float
    ) -> float | None:
        """Decides about a call that failed.

        Args:
            tries: sends so far, at least 1. waited_s: waits so far. remaining_s: until the deadline, None without one.
            jitter: from 0 to below 1.

        Returns:
            Seconds to wait before the next send; None: the error is final.
        """
        if error.retry_after_s is not None:
            wait_s = error.retry_after_s + jitter * self.first_wait_s
        elif error.facts.is_transport_failure:
            wait_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (tries - 1)) * (0.5 + 0.5 * jitter)
        else:
            return None
        if tries >= self.max_tries or waited_s + wait_s > self.total_wait_s:
            return None
        if remaining_s is not None and wait_s >= remaining_s:
            return None
        return wait_s

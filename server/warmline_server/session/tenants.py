"""What each tenant may use and hold, and what it holds: admission is a few comparisons, however many there are."""

from dataclasses import dataclass

from warmline_server.core.errors import CallerError, Reason, ServiceError
from warmline_server.settings import Auth, Limits

# What a tenant may save up of its rate, and then begin at once.
BURST_S = 10.0
# When a caller may try again where nobody can say when there is room.
AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one tenant may. 0: any number; `upstreams` None: all."""

    upstreams: frozenset[str] | None
    max_sessions: int
    max_concurrent_turns: int
    max_turns_per_s: float
    max_warm_sockets: int


@dataclass(slots=True)
class _Use:
    """What one tenant holds. `free_at_s`: when its calls so far would be done at its rate, one after the other."""

    sessions: int = 0
    calls: int = 0
    watches: int = 0
    free_at_s: float = 0.0


class Tenants:
    """The allowances of all tenants, those included that the configuration does not name."""

    def __init__(self, auth: Auth, limits: Limits) -> None:
        self._default = Allowance(
            _names(auth.upstreams),
            limits.max_sessions_per_tenant,
            limits.max_concurrent_turns_per_tenant,
            limits.max_turns_per_s_per_tenant,
            limits.max_warm_sockets_per_tenant,
        )
        default = self._default
        self._named = {
            name: Allowance(
                _names(policy.upstreams) or default.upstreams,
                policy.max_sessions or default.max_sessions,
                policy.max_concurrent_turns or default.max_concurrent_turns,
                policy.max_turns_per_s or default.max_turns_per_s,
                policy.max_warm_sockets or default.max_warm_sockets,
            )
            for name, policy in auth.tenants.items()
        }

    def of(self, tenant: str) -> Allowance:
        """What a tenant may."""
        return self._named.get(tenant, self._default)

    def check_upstream(self, tenant: str, name: str, field: str) -> None:
        """Raises: CallerError PERMISSION_DENIED, the same for another tenant's upstream and for one not there."""
        allowed = self.of(tenant).upstreams
        if allowed is not None and name not in allowed:
            known = ", ".join(sorted(allowed))
            raise CallerError(
                Reason.PERMISSION_DENIED, f"the upstream {name[:80]!r} is not among the caller's: {known}", field=field
            )


class Admission:
    """Counts sessions and calls, of each tenant and of all, and refuses what is above a limit."""

    def __init__(self, tenants: Tenants, limits: Limits) -> None:
        self._tenants = tenants
        self._limits = limits
        self._uses: dict[str, _Use] = {}
        self._swept_to = 0
        self._now_s = 0.0
        self.sessions = 0
        self.calls = 0
        self.watches = 0

    def admit_session(self, tenant: str) -> None:
        """Counts a session in; pairs with `session_closed`. Raises: ServiceError LIMIT_EXCEEDED."""
        use, allowed = self._use(tenant), self._tenants.of(tenant)
        _check("sessions", "max_sessions", self.sessions, self._limits.max_sessions)
        _check("sessions of this tenant", "max_sessions_per_tenant", use.sessions, allowed.max_sessions)
        self.sessions += 1
        use.sessions += 1

    def session_closed(self, tenant: str) -> None:
        """Counts a session out."""
        self.sessions -= 1
        self._uses[tenant].sessions -= 1

    def admit_call(self, tenant: str, now_s: float) -> None:
        """Counts a call in; pairs with `call_ended`. Raises: ServiceError LIMIT_EXCEEDED; nothing is counted then."""
        self._now_s = now_s
        use, allowed = self._use(tenant), self._tenants.of(tenant)
        running = allowed.max_concurrent_turns
        _check("running calls", "max_concurrent_turns", self.calls, self._limits.max_concurrent_turns)
        _check("running calls of this tenant", "max_concurrent_turns_per_tenant", use.calls, running)
        if allowed.max_turns_per_s:
            use.free_at_s = _paced(use.free_at_s, now_s, allowed.max_turns_per_s)
        self.calls += 1
        use.calls += 1

    def call_ended(self, tenant: str) -> None:
        """Counts a call out."""
        self.calls -= 1
        self._uses[tenant].calls -= 1

    def admit_watch(self, tenant: str) -> None:
        """Counts a stream that only watches in; pairs with `watch_ended`. Raises: ServiceError LIMIT_EXCEEDED."""
        use, limits = self._use(tenant), self._limits
        _check("streams that watch", "max_watches", self.watches, limits.max_watches)
        _check("of them of this tenant", "max_watches_per_tenant", use.watches, limits.max_watches_per_tenant)
        self.watches += 1
        use.watches += 1

    def watch_ended(self, tenant: str) -> None:
        """Counts such a stream out."""
        self.watches -= 1
        self._uses[tenant].watches -= 1

    def _use(self, tenant: str) -> _Use:
        use = self._uses.get(tenant)
        if use is None:
            self._sweep()
            use = self._uses[tenant] = _Use()
        return use

    def _sweep(self) -> None:
        """Forgets tenants that hold nothing, whenever their number has doubled: tokens may name any number of them."""
        if len(self._uses) >= max(1000, 2 * self._swept_to):
            self._uses = {name: use for name, use in self._uses.items() if self._counts(use)}
            self._swept_to = len(self._uses)

    def _counts(self, use: _Use) -> bool:
        return bool(use.sessions or use.calls or use.watches) or use.free_at_s > self._now_s


def _names(names: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset(names) or None


def _check(what: str, name: str, count: int, limit: int) -> None:
    if limit and count >= limit:
        raise ServiceError(
            Reason.LIMIT_EXCEEDED, f"there are {count} {what}, the most allowed", limit=name, retry_after_s=AGAIN_S
        )


def _paced(free_at_s: float, now_s: float, per_s: float) -> float:
    """When a call more would be done at this rate. Raises: ServiceError LIMIT_EXCEEDED with the time to wait."""
    burst_s = max(BURST_S, 1.0 / per_s)
    done_at_s = max(free_at_s, now_s) + 1.0 / per_s
    wait_s = done_at_s - now_s - burst_s
    if wait_s > 1e-9:
        raise ServiceError(
            Reason.LIMIT_EXCEEDED,
            f"this tenant begins more than {per_s:g} calls per second",
            limit="max_turns_per_s_per_tenant",
            retry_after_s=wait_s,
        )
    return done_at_s

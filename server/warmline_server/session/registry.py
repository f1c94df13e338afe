"""All sessions of the server: found by tenant and id, made within limits, closed when nobody uses them."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from warmline_server.clock import Timer
from warmline_server.core import outgoing
from warmline_server.core.config import SessionConfig
from warmline_server.core.errors import CallerError, Reason, ServiceError
from warmline_server.ids import new_id
from warmline_server.session.session import USER_AGENT, VERSION, Session, Surroundings
from warmline_server.session.tenants import Admission, Tenants
from warmline_server.session.unary import Models, UnaryCalls
from warmline_server.session.upstream import Upstream


class Registry:
    """The sessions. A tenant sees its own alone; another's is as if it did not exist."""

    def __init__(
        self, upstreams: Mapping[str, Upstream], default_upstream: str, around: Surroundings, tenants: Tenants
    ) -> None:
        self.upstreams = upstreams
        self.default_upstream = default_upstream
        self.around = around
        self.draining = False
        self._sessions: dict[tuple[str, str], Session] = {}
        self._expiry: dict[Session, Timer] = {}
        self._unary: dict[str, UnaryCalls] = {}
        self._tenants = tenants
        self._admission = Admission(tenants, around.limits)
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    @property
    def sessions(self) -> Iterable[Session]:
        """All sessions, of all tenants."""
        return self._sessions.values()

    @property
    def running_calls(self) -> int:
        """Calls that run or wait."""
        return self._admission.calls

    def create(
        self, tenant: str, session_id: str, config: SessionConfig, *, config_field: str = "config"
    ) -> tuple[Session, bool]:
        """Makes a session, or finds the one that equals it.

        Args: `config_field`: the request's field that `config` came from.
        Returns: the session, and whether it is new.
        Raises: CallerError SESSION_CONFIG_CONFLICT, UNKNOWN_UPSTREAM, PERMISSION_DENIED; ServiceError LIMIT_EXCEEDED,
            SERVER_DRAINING.
        """
        session = self._sessions.get((tenant, session_id))
        if session is not None:
            if session.config.given != config.given:
                raise CallerError(
                    Reason.SESSION_CONFIG_CONFLICT,
                    f"session {session_id!r} exists with another config",
                    field="session_id",
                )
            return session, False
        self.refuse_when_draining()
        upstream = self.upstream(tenant, config.upstream, field=f"{config_field}.upstream")
        self._admission.admit_session(tenant)
        session = Session(session_id, tenant, config, upstream, self.around)
        self._sessions[tenant, session_id] = session
        self._watch_expiry(session)
        return session, True

    def known(self, tenant: str, session_id: str, given: bytes) -> Session | None:
        """The tenant's session that was made with this very config; None when there is none, or with another."""
        session = self._sessions.get((tenant, session_id))
        return session if session is not None and session.config.given == given else None

    def find(self, tenant: str, session_id: str) -> Session:
        """The tenant's session. Raises: CallerError SESSION_NOT_FOUND."""
        session = self._sessions.get((tenant, session_id))
        if session is None:
            raise CallerError(Reason.SESSION_NOT_FOUND, f"no session {session_id!r}", field="session_id")
        return session

    def of_tenant(self, tenant: str) -> list[Session]:
        """The tenant's sessions, by id."""
        return sorted((s for (t, _), s in self._sessions.items() if t == tenant), key=lambda s: s.session_id)

    def upstream(self, tenant: str, name: str, *, field: str = "upstream") -> Upstream:
        """The upstream of this name, blank: the default. Raises: CallerError UNKNOWN_UPSTREAM, PERMISSION_DENIED."""
        self._tenants.check_upstream(tenant, name or self.default_upstream, field)
        upstream = self.upstreams.get(name or self.default_upstream)
        if upstream is None:
            known = ", ".join(sorted(self.upstreams))
            raise CallerError(
                Reason.UNKNOWN_UPSTREAM, f"no upstream {name[:80]!r} is configured; there are: {known}", field=field
            )
        return upstream

    def close(self, session: Session, reason: str) -> None:
        """Closes a session and forgets it."""
        tenant = session.record.tenant
        if self._sessions.pop((tenant, session.session_id), None) is not None:
            self._admission.session_closed(tenant)
        timer = self._expiry.pop(session, None)
        if timer is not None:
            timer.cancel()
        session.close(reason)

    async def models(self, tenant: str, upstream_name: str, client_version: str) -> Models:
        """An upstream's models. Raises: WarmlineError. Cancel: the request is dropped."""
        upstream = self.upstream(tenant, upstream_name)
        unary = self._unary.get(upstream.name)
        if unary is None:
            unary = self._unary[upstream.name] = UnaryCalls(upstream, self.around.clock, self.around.jitter)
        profile = upstream.profile
        facts = outgoing.Facts(
            dialect=profile.dialect,
            conversation_id="",
            request_id=new_id(),
            originator=profile.originator,
            user_agent=profile.user_agent or USER_AGENT,
        )
        return await unary.models(client_version or VERSION, facts)

    # Expiry

    def _watch_expiry(self, session: Session) -> None:
        """One timer per session, set anew when it fires early."""
        if session.idle_ttl_s > 0:
            at_s = session.active_at_s + session.idle_ttl_s
            self._expiry[session] = self.around.clock.call_at(at_s, lambda: self._expire(session))

    def _expire(self, session: Session) -> None:
        clock = self.around.clock
        since_s = clock.now_s() if session.calls else session.active_at_s
        at_s = since_s + session.idle_ttl_s
        if at_s <= clock.now_s():
            self.close(session, "idle")
        else:
            self._expiry[session] = clock.call_at(at_s, lambda: self._expire(session))

    # Calls and draining

    def refuse_when_draining(self) -> None:
        """Raises: ServiceError SERVER_DRAINING while the server drains."""
        if self.draining:
            raise ServiceError(
                Reason.SERVER_DRAINING, "the server is draining and takes no new call", retry_after_s=1.0
            )

    def admit_call(self, tenant: str) -> None:
        """Counts a call in; pairs with `call_ended`. Raises: ServiceError SERVER_DRAINING, LIMIT_EXCEEDED."""
        self.refuse_when_draining()
        self._admission.admit_call(tenant, self.around.clock.now_s())
        self._idle.clear()

    @contextmanager
    def admitted(self, tenant: str) -> Iterator[None]:
        """Around a unary call to the upstream, which costs what a turn costs. Raises: as `admit_call`."""
        self.admit_call(tenant)
        try:
            yield
        finally:
            self.call_ended(tenant)

    @contextmanager
    def watched(self, tenant: str) -> Iterator[None]:
        """Around a stream that only watches. Raises: ServiceError LIMIT_EXCEEDED."""
        self._admission.admit_watch(tenant)
        try:
            yield
        finally:
            self._admission.watch_ended(tenant)

    def call_ended(self, tenant: str) -> None:
        """Counts a call out."""
        self._admission.call_ended(tenant)
        if self._admission.calls == 0:
            self._idle.set()

    def drain(self) -> None:
        """Takes no new calls from now on, and closes the slots that wait for them."""
        self.draining = True
        for session in self._sessions.values():
            session.drain()

    async def wait_idle(self) -> None:
        """Waits until no call runs. Cancel: safe."""
        await self._idle.wait()

    def stop_calls(self) -> None:
        """Ends the running calls with TURN_DRAINED."""
        error = ServiceError(Reason.TURN_DRAINED, "the server was drained while the call ran")
        for session in self._sessions.values():
            session.calls.stop(error)

    def close_all(self) -> None:
        """Closes every session."""
        for session in list(self._sessions.values()):
            self.close(session, "shutdown")

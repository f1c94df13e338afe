"""Calls that are answered whole: compaction, memories, models.

They share the POST's budget and the recovery of credentials with turns, and no state with them. Source: wire-behaviour
§4.7, conformance C-049.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from warmline_server.clock import Clock, sleep
from warmline_server.core import failures, outgoing, received_headers, retry
from warmline_server.core.errors import Heal, UpstreamFailure
from warmline_server.core.lenient import NOT_JSON
from warmline_server.core.nesting import MAX_DEPTH, is_too_deep
from warmline_server.session.upstream import Upstream
from warmline_server.transport.http import HttpReply

# Lists of models that are kept, one per version of callers.
MOST_LISTS = 64

# Of a turn's settings, those that a compaction takes.
_COMPACT_FIELDS = ("model", "instructions", "tools", "parallel_tool_calls", "reasoning", "text")


class _Compacted(msgspec.Struct):
    output: list[msgspec.Raw]


class _Summary(msgspec.Struct):
    trace_summary: str = ""
    memory_summary: str = ""


class _Summaries(msgspec.Struct):
    output: list[_Summary]


class _Models(msgspec.Struct):
    models: list[msgspec.Raw] = []
    data: list[msgspec.Raw] = []
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a memory is made of: an id of the caller's, where it came from, and items as JSON."""

    id: str
    source_path: str
    items: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Compacted:
    """A compacted conversation; `upstream_request_id` None when not told."""

    items: tuple[bytes, ...]
    upstream_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Summaries:
    """Pairs of trace and memory summaries, in the order of the traces."""

    pairs: tuple[tuple[str, str], ...]
    upstream_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Models:
    """A list of models, each as JSON; `fetched_at_s` is when it was last confirmed."""

    models: tuple[bytes, ...]
    etag: str
    fetched_at_s: float
    from_cache: bool = False


class UnaryCalls:
    """The unary endpoints of one upstream, with its cache of models."""

    def __init__(self, upstream: Upstream, clock: Clock, jitter: Callable[[], float]) -> None:
        self._upstream = upstream
        self._clock = clock
        self._jitter = jitter
        self._models: dict[str, Models] = {}

    async def compact(self, settings: Mapping[str, bytes], items: Sequence[bytes], facts: outgoing.Facts) -> Compacted:
        """Has the provider compact a conversation; an empty one is answered without asking.

        Raises: UpstreamFailure. Cancel: the request is dropped.
        """
        if not items:
            return Compacted(())
        fields = [b'"input":[' + b",".join(items) + b"]"]
        fields += [msgspec.json.encode(name) + b":" + settings[name] for name in _COMPACT_FIELDS if name in settings]
        headers = outgoing.compact_headers
        reply = await self._post("responses/compact", b"{" + b",".join(fields) + b"}", headers, facts)
        output = _read(reply, _Compacted).output
        return Compacted(tuple(map(bytes, output)), received_headers.request_id(reply.headers))

    async def summarize(
        self, model: str, effort: str | None, traces: Sequence[Trace], facts: outgoing.Facts
    ) -> Summaries:
        """Has the provider summarize traces; none are answered without asking.

        Raises: UpstreamFailure, also when the answer has not one summary per trace. Cancel: the request is dropped.
        """
        if not traces:
            return Summaries(())
        fields: dict[str, object] = {"model": model, "traces": [_trace(trace) for trace in traces]}
        if effort is not None:
            fields["reasoning"] = {"effort": effort}
        reply = await self._post(
            "memories/trace_summarize", msgspec.json.encode(fields), outgoing.memories_headers, facts
        )
        output = _read(reply, _Summaries).output
        if len(output) != len(traces):
            raise failures.broke_protocol(f"{len(output)} summaries for {len(traces)} traces")
        pairs = tuple((summary.trace_summary, summary.memory_summary) for summary in output)
        return Summaries(pairs, received_headers.request_id(reply.headers))

    async def models(self, client_version: str, facts: outgoing.Facts) -> Models:
        """The upstream's models: from the cache while it is fresh, else confirmed or fetched by ETag.

        Raises: UpstreamFailure. Cancel: the request is dropped.
        """
        cached, now_s = self._models.get(client_version), self._clock.now_s()
        if cached is not None and now_s - cached.fetched_at_s < self._upstream.profile.models_cache_s:
            return Models(cached.models, cached.etag, cached.fetched_at_s, from_cache=True)
        reply = await self._get_models(client_version, cached, facts)
        if reply.status == 304 and cached is not None:
            fresh = Models(cached.models, cached.etag, now_s, from_cache=True)
        else:
            told = _read(reply, _Models)
            # The header wins. What no header can carry back would make every later question fail.
            etag = received_headers.printable(reply.headers.get("etag") or told.etag) or ""
            fresh = Models(tuple(map(bytes, told.models or told.data)), etag, now_s)
        if len(self._models) >= MOST_LISTS:
            self._models.clear()  # callers choose the version, so their number has no other bound
        self._models[client_version] = fresh
        return fresh

    async def _get_models(self, client_version: str, cached: Models | None, facts: outgoing.Facts) -> HttpReply:
        profile = self._upstream.profile
        query = {**profile.query, "client_version": client_version}
        url = outgoing.http_url(profile.base_url, "models", query)
        conditional = [("If-None-Match", cached.etag)] if cached is not None and cached.etag else []

        async def send() -> HttpReply:
            headers = await self._headers(outgoing.memories_headers, facts)
            return await self._upstream.http.get(
                url,
                [*headers, *conditional],
                connect_timeout_s=profile.connect_timeout_s,
                timeout_s=profile.idle_timeout_s,
            )

        return await self._persist(send)

    async def _post(self, path: str, body: bytes, table: "_HeaderTable", facts: outgoing.Facts) -> HttpReply:
        profile = self._upstream.profile
        url = outgoing.http_url(profile.base_url, path, profile.query)

        async def send() -> HttpReply:
            headers = [("Content-Type", "application/json"), *await self._headers(table, facts)]
            return await self._upstream.http.post_json(
                url, headers, body, connect_timeout_s=profile.connect_timeout_s, timeout_s=profile.idle_timeout_s
            )

        return await self._persist(send)

    async def _headers(self, table: "_HeaderTable", facts: outgoing.Facts) -> list[tuple[str, str]]:
        profile = self._upstream.profile
        credential = dict(await self._upstream.credential.headers())
        return table(facts, profile.provider_headers, profile.extra_headers, credential)

    async def _persist(self, send: Callable[[], Awaitable[HttpReply]]) -> HttpReply:
        """Sends until it is answered, or the budget of a POST is used up."""
        retries, recovery = 0, None
        while True:
            try:
                return await send()
            except UpstreamFailure as failure:
                if failure.heal is Heal.AUTH:
                    recovery = recovery or self._upstream.credential.start_recovery()
                    if await recovery.next_step():
                        continue
                if failure.heal is not Heal.RESEND or retries >= self._upstream.profile.request_max_retries:
                    raise
                retries += 1
                delay_s = failure.delay_s
                if delay_s is not None and delay_s > self._upstream.profile.retry_after_cap_s:
                    raise
                await sleep(self._clock, retry.backoff_s(retries, self._jitter()) if delay_s is None else delay_s)


_HeaderTable = Callable[
    [outgoing.Facts, Mapping[str, str], Mapping[str, str], Mapping[str, str]], list[tuple[str, str]]
]


def _trace(trace: Trace) -> dict[str, object]:
    metadata = {"source_path": trace.source_path}
    return {"id": trace.id, "metadata": metadata, "items": [msgspec.Raw(item) for item in trace.items]}


T = TypeVar("T")


def _read(reply: HttpReply, kind: type[T]) -> T:
    """The reply's JSON. Raises: UpstreamFailure when it is not of the expected shape."""
    if is_too_deep(reply.body):
        raise failures.broke_protocol(f"reply nested deeper than {MAX_DEPTH} levels")
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except NOT_JSON as error:
        raise failures.broke_protocol(f"reply that is not {kind.__name__.strip('_').lower()} JSON: {error}") from error

"""SessionService: sessions as resources."""

from typing import Any

import grpc

from warmline.v1 import session_service_pb2 as pb
from warmline.v1 import session_service_pb2_grpc as pb_grpc
from warmline.v1 import types_pb2 as types
from warmline_server.rpc import translate
from warmline_server.rpc.callers import tenant_of
from warmline_server.rpc.edge import answered, session_key
from warmline_server.session.call_spec import CallerGone
from warmline_server.session.registry import Registry
from warmline_server.session.session import Session
from warmline_server.session.unary import Trace

# The generated servicer's context is of both kinds, sync and aio; ours is aio.
Context = Any


class SessionService(pb_grpc.SessionServiceServicer):
    """Translates, finds the session, acts."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:
        async def work() -> pb.CreateSessionResponse:
            session_key(context, request.session_id)
            session_id = translate.name(request.session_id, "session_id")
            config = translate.config(request.config, "config")
            session, created = self._registry.create(tenant_of(context), session_id, config)
            return pb.CreateSessionResponse(session=self._message(session), created=created)

        return await answered(context, work)

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        async def work() -> pb.GetSessionResponse:
            return pb.GetSessionResponse(session=self._message(self._find(request.session_id, context)))

        return await answered(context, work)

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        async def work() -> pb.ListSessionsResponse:
            wanted = request.labels.items()
            found = [s for s in self._registry.of_tenant(tenant_of(context)) if wanted <= s.config.labels.items()]
            shown, next_token = translate.page(found, request.page_size, request.page_token)
            return pb.ListSessionsResponse(sessions=map(self._message, shown), next_page_token=next_token)

        return await answered(context, work)

    async def WatchSession(self, request: pb.WatchSessionRequest, context: Context) -> None:  # type: ignore[override]
        async def work() -> None:
            session = self._find(request.session_id, context)
            with self._registry.watched(session.record.tenant):
                await watch(session)

        async def watch(session: Session) -> None:
            seen = 0
            while not (session.closed and seen == session.changes.revision):
                await session.changes.wait(seen)
                seen = session.changes.revision
                try:
                    await context.write(pb.WatchSessionResponse(session=self._message(session)))
                except grpc.aio.BaseError as error:
                    raise CallerGone from error

        await answered(context, work)

    async def CloseSession(self, request: pb.CloseSessionRequest, context: Context) -> pb.CloseSessionResponse:
        async def work() -> pb.CloseSessionResponse:
            session = self._find(request.session_id, context)
            self._registry.close(session, "caller")
            return pb.CloseSessionResponse(session=self._message(session))

        return await answered(context, work)

    async def Preconnect(self, request: pb.PreconnectRequest, context: Context) -> pb.PreconnectResponse:
        async def work() -> pb.PreconnectResponse:
            session = self._find(request.session_id, context)
            self._registry.refuse_when_draining()
            session.keeper.arm()
            if request.wait:
                await session.keeper.wait_settled()
            return pb.PreconnectResponse(slot=translate.slot(session))

        return await answered(context, work)

    async def AdvanceWindow(self, request: pb.AdvanceWindowRequest, context: Context) -> pb.AdvanceWindowResponse:
        async def work() -> pb.AdvanceWindowResponse:
            session = self._find(request.session_id, context)
            expected = request.expected_generation if request.HasField("expected_generation") else None
            return pb.AdvanceWindowResponse(window_generation=session.advance_window(expected))

        return await answered(context, work)

    async def CompactSession(self, request: pb.CompactSessionRequest, context: Context) -> pb.CompactSessionResponse:
        async def work() -> pb.CompactSessionResponse:
            session = self._find(request.session_id, context)
            asked = (
                translate.name(request.lane, "lane", blank_is=""),
                translate.checked_items(request.input, "input"),
                translate.options(request.options, "options"),
                translate.identifier(request.turn_id, "turn_id") if request.turn_id else "",
            )
            with self._registry.admitted(session.record.tenant):
                compacted = await session.compact(*asked)
            return pb.CompactSessionResponse(
                output=[types.Item(json=item) for item in compacted.items],
                window_generation=session.window_generation,
                upstream_request_id=compacted.upstream_request_id,
            )

        return await answered(context, work)

    async def SummarizeMemories(
        self, request: pb.SummarizeMemoriesRequest, context: Context
    ) -> pb.SummarizeMemoriesResponse:
        async def work() -> pb.SummarizeMemoriesResponse:
            session = self._find(request.session_id, context)
            traces = [_trace(trace, f"traces[{index}]") for index, trace in enumerate(request.traces)]
            effort = request.reasoning_effort if request.HasField("reasoning_effort") else None
            with self._registry.admitted(session.record.tenant):
                told = await session.summarize(request.model, effort, traces)
            return pb.SummarizeMemoriesResponse(
                summaries=[pb.MemorySummary(trace_summary=t, memory_summary=m) for t, m in told.pairs],
                upstream_request_id=told.upstream_request_id,
            )

        return await answered(context, work)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        async def work() -> pb.ListModelsResponse:
            version = translate.client_version(request.client_version)
            listed = await self._registry.models(tenant_of(context), request.upstream, version)
            return pb.ListModelsResponse(models_json=listed.models, etag=listed.etag, from_cache=listed.from_cache)

        return await answered(context, work)

    def _find(self, session_id: str, context: Context) -> Session:
        session_key(context, session_id)
        return self._registry.find(tenant_of(context), translate.name(session_id, "session_id"))

    def _message(self, session: Session) -> pb.Session:
        return translate.session(session, draining=self._registry.draining)


def _trace(message: pb.MemoryTrace, field: str) -> Trace:
    if not message.id:
        raise translate.invalid(f"{field}.id", "is blank")
    return Trace(message.id, message.source_path, translate.checked_items(message.items, f"{field}.items"))

"""Sessions and the unary calls: what is sent, what comes back, what is sent again."""

import asyncio

import grpc
import pytest

import warmline
from client.fake_server import Call, FakeServer, Refusal, answer, refuse, retry_info, says
from warmline.v1 import session_service_pb2, trace_service_pb2, turn_service_pb2, types_pb2

CREATED = session_service_pb2.CreateSessionResponse(created=True)
CLOSED = session_service_pb2.CloseSessionResponse(
    session=session_service_pb2.Session(state=session_service_pb2.SESSION_STATE_CLOSED)
)


def page(*ids: str, following: str = "") -> session_service_pb2.ListSessionsResponse:
    sessions = [session_service_pb2.Session(session_id=session_id) for session_id in ids]
    return session_service_pb2.ListSessionsResponse(sessions=sessions, next_page_token=following)


async def test_session_entered_is_created_with_the_config_that_its_turns_send(
    server: FakeServer, client: warmline.Client
) -> None:
    server.on("CreateSession", answer(CREATED))
    server.on("StreamTurn", says("yes"))
    base = types_pb2.SessionConfig(warm_up=types_pb2.WARM_UP_MODE_NONE, labels={"app": "test"})

    async with (
        client.session("s.1", base, upstream="main", model="small", tools=[b"{}"]) as session,
        session.turn("Well?") as turn,
    ):
        await turn.result()

    expected = types_pb2.SessionConfig(
        upstream="main",
        warm_up=types_pb2.WARM_UP_MODE_NONE,
        labels={"app": "test"},
        request_defaults=types_pb2.RequestOptions(model="small", tools=types_pb2.ToolList(tools_json=[b"{}"])),
    )
    created, turned = server.calls
    assert created.request == session_service_pb2.CreateSessionRequest(session_id="s.1", config=expected)
    assert turned.request.session_config == expected
    assert base.upstream == ""


async def test_session_lazy_makes_no_call_until_its_turn(server: FakeServer, client: warmline.Client) -> None:
    server.on("StreamTurn", says("yes"))

    async with client.session("s", start="lazy") as session:
        assert server.calls == []
        async with session.turn("Well?") as turn:
            await turn.result()

    assert server.calls[0].request.HasField("session_config")


async def test_session_attached_sends_no_config(server: FakeServer, client: warmline.Client) -> None:
    server.on("StreamTurn", says("yes"))

    async with client.session("s", start="attach") as session, session.turn("Well?") as turn:
        await turn.result()

    assert not server.calls[0].request.HasField("session_config")


async def test_session_attached_with_a_config_is_refused(client: warmline.Client) -> None:
    with pytest.raises(ValueError, match="attach session"):
        client.session("s", start="attach", model="small")


async def test_session_close_on_exit_closes_it(server: FakeServer, client: warmline.Client) -> None:
    server.on("CloseSession", answer(CLOSED))

    async with client.session("s", start="lazy", close_on_exit=True):
        pass

    assert server.calls[0].request.session_id == "s"


@pytest.mark.parametrize(
    "gone",
    [Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"), Refusal(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")],
    ids=["the session", "the server"],
)
async def test_session_close_on_exit_of_what_is_gone_is_no_fault(
    server: FakeServer, client: warmline.Client, gone: Refusal
) -> None:
    server.on("CloseSession", refuse(gone))

    async with client.session("s", start="lazy", close_on_exit=True):
        pass


async def test_session_close_that_fails_does_not_hide_what_ended_the_block(
    server: FakeServer, client: warmline.Client
) -> None:
    server.on("CloseSession", refuse(Refusal(grpc.StatusCode.INTERNAL, "INTERNAL")))

    async def run() -> None:
        async with client.session("s", start="lazy", close_on_exit=True):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run()


async def test_turn_request_carries_every_argument(server: FakeServer, session: warmline.Session) -> None:
    server.on("StreamTurn", says("yes"))

    async with session.turn(
        [b'{"verbatim" :1}', "Hi"],
        turn_id="t",
        lane="side",
        request_id="r",
        append_at=0,
        retry="reference",
        on_busy="wait",
        events="both",
        max_duration_s=1.5,
        request_json={"metadata": {"k": "v"}},
        turn_metadata=b'{"m" :1}',
        model="large",
    ) as turn:
        await turn.result()

    request = turn_service_pb2.StreamTurnRequest(
        session_id="session-1",
        lane="side",
        turn_id="t",
        request_id="r",
        session_config=types_pb2.SessionConfig(request_defaults=types_pb2.RequestOptions(model="small")),
        input_mode=turn_service_pb2.INPUT_MODE_APPEND,
        expected_history_position=0,
        input=[types_pb2.Item(json=b'{"verbatim" :1}'), warmline.user("Hi")],
        options=types_pb2.RequestOptions(model="large"),
        request_json=b'{"metadata":{"k":"v"}}',
        turn_metadata_json=b'{"m" :1}',
        retry=turn_service_pb2.RETRY_MODE_REFERENCE,
        on_busy=turn_service_pb2.BUSY_MODE_WAIT,
        events=turn_service_pb2.EVENT_MODE_BOTH,
    )
    request.max_duration.FromMilliseconds(1500)
    assert server.calls[0].request == request


async def test_turns_have_request_ids_of_their_own(server: FakeServer, session: warmline.Session) -> None:
    first, second = session.turn("a"), session.turn("a")

    assert first.request_id
    assert first.request_id != second.request_id


async def test_unary_calls_send_the_session_and_return_what_counts(
    server: FakeServer, session: warmline.Session
) -> None:
    state = session_service_pb2.Session(session_id="session-1", window_generation=4)
    slot = session_service_pb2.Slot(state=session_service_pb2.SLOT_STATE_READY)
    server.on("GetSession", answer(session_service_pb2.GetSessionResponse(session=state)))
    server.on("Preconnect", answer(session_service_pb2.PreconnectResponse(slot=slot)))
    server.on("AdvanceWindow", answer(session_service_pb2.AdvanceWindowResponse(window_generation=5)))
    server.on("CancelTurn", answer(turn_service_pb2.CancelTurnResponse(request_ids=["r"])))
    server.on("CloseSession", answer(CLOSED))

    assert await session.get() == state
    assert await session.preconnect(wait=True) == slot
    assert await session.advance_window(expected_generation=4) == 5
    assert await session.cancel_turn(turn_id="t") == ["r"]
    assert await session.close() == CLOSED.session

    requests = {call.method: call.request for call in server.calls}
    assert {request.session_id for request in requests.values()} == {"session-1"}
    assert requests["Preconnect"].wait
    assert requests["AdvanceWindow"].expected_generation == 4
    assert requests["CancelTurn"].turn_id == "t"


async def test_unary_refusal_is_typed(server: FakeServer, session: warmline.Session) -> None:
    server.on("GetSession", refuse(Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")))

    with pytest.raises(warmline.SessionNotFoundError):
        await session.get()


async def test_unary_call_is_sent_again_where_the_server_says_so(server: FakeServer, session: warmline.Session) -> None:
    draining = Refusal(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", details=[retry_info(0.01)])
    server.on("GetSession", refuse(draining), answer(session_service_pb2.GetSessionResponse()))

    await session.get()

    assert len(server.calls) == 2


async def test_advance_window_is_sent_again_only_where_twice_is_once(
    server: FakeServer, session: warmline.Session
) -> None:
    lost = refuse(Refusal(grpc.StatusCode.UNAVAILABLE))
    server.on("AdvanceWindow", lost, lost, answer(session_service_pb2.AdvanceWindowResponse(window_generation=2)))

    with pytest.raises(warmline.UnavailableError):
        await session.advance_window()
    assert await session.advance_window(expected_generation=1) == 2


async def test_unary_calls_have_a_deadline(server: FakeServer) -> None:
    async def hangs(call: Call) -> None:
        await call.wait_cancelled()

    server.on("GetSession", hangs)

    async with warmline.Client(server.target, unary_timeout_s=0.5) as client:
        with pytest.raises(warmline.DeadlineExceededError):
            await client.session("s", start="attach").get()


async def test_list_sessions_reads_all_pages(server: FakeServer, client: warmline.Client) -> None:
    server.on("ListSessions", answer(page("a", "b", following="token-2")), answer(page("c")))

    found = [session.session_id async for session in client.list_sessions(labels={"app": "x"}, page_size=2)]

    assert found == ["a", "b", "c"]
    assert [call.request.page_token for call in server.calls] == ["", "token-2"]
    assert server.calls[1].request == session_service_pb2.ListSessionsRequest(
        page_size=2, page_token="token-2", labels={"app": "x"}
    )
    assert "x-warmline-session" not in server.calls[0].metadata


async def test_list_inferences_reads_all_pages(server: FakeServer, session: warmline.Session) -> None:
    first = trace_service_pb2.ListInferencesResponse(
        inferences=[trace_service_pb2.Inference(attempt_id="new")], next_page_token="more"
    )
    last = trace_service_pb2.ListInferencesResponse(inferences=[trace_service_pb2.Inference(attempt_id="old")])
    server.on("ListInferences", answer(first), answer(last))

    found = [inference.attempt_id async for inference in session.list_inferences(turn_id="t", upstream_id="u")]

    assert found == ["new", "old"]
    assert [(c.request.turn_id, c.request.upstream_id, c.request.page_token) for c in server.calls] == [
        ("t", "u", ""),
        ("t", "u", "more"),
    ]


async def test_watch_gives_states_and_ends_with_the_stream(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        for revision in (1, 2):
            state = session_service_pb2.Session(revision=revision)
            await call.write(session_service_pb2.WatchSessionResponse(session=state))

    server.on("WatchSession", step)

    async with session.watch() as states:
        revisions = [state.revision async for state in states]

    assert revisions == [1, 2]


async def test_watch_left_early_is_cancelled_at_the_server(server: FakeServer, session: warmline.Session) -> None:
    async def step(call: Call) -> None:
        await call.write(session_service_pb2.WatchSessionResponse())
        await call.wait_cancelled()

    server.on("WatchSession", step)

    async with session.watch() as states:
        await anext(states)

    await server.calls[0].wait_ended()
    assert server.calls[0].was_cancelled


async def test_watch_failure_is_typed(server: FakeServer, session: warmline.Session) -> None:
    server.on("WatchSession", refuse(Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")))

    async with session.watch() as states:
        with pytest.raises(warmline.SessionNotFoundError):
            await anext(states)


async def test_two_sessions_stream_at_once(server: FakeServer, client: warmline.Client) -> None:
    both = asyncio.Barrier(2)

    async def meets(call: Call) -> None:
        await both.wait()
        await says(call.request.session_id)(call)

    async def run(session_id: str) -> str:
        async with client.session(session_id, start="lazy").turn("Who?") as turn:
            return (await turn.result()).text

    server.on("StreamTurn", meets, meets)

    left, right = await asyncio.gather(run("left"), run("right"))
    assert (left, right) == ("left", "right")

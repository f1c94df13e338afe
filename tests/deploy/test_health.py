"""What probes and proxies are told, while the server serves and while it drains."""

import asyncio

from deploy.health import NOT_SERVING, SERVING, health, until_unready
from e2e.line import admitted, open_line
from warmline_server.app import LIVENESS, READINESS
from warmline_simulator import Gate, Reply, Script, ev


async def test_a_server_that_drains_is_alive_and_not_ready() -> None:
    script = Script(creates=[Reply(events=[Gate("held"), *ev.text_response("done", response_id="resp-1")])])
    async with open_line(script) as line, line.session() as session:
        assert await health(line.app) == {"": SERVING, READINESS: SERVING, LIVENESS: SERVING}
        async with session.turn("hello") as turn:
            await admitted(turn)
            await line.sim.wait_for_gate("held")
            draining = asyncio.create_task(line.app.drain(5.0))
            await until_unready(line.app)
            assert await health(line.app) == {"": NOT_SERVING, READINESS: NOT_SERVING, LIVENESS: SERVING}
            line.sim.release("held")
            assert (await turn.result()).text == "done"
        await draining

"""A fault of the server itself: its caller learns that and no more, and the books say it."""

import pytest

import warmline
from e2e.line import open_line
from warmline_server.session.outbox import Outbox


async def test_fault_of_ours_ends_the_call_as_such_and_tells_nothing_of_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Outbox, emissions: object) -> None:
        raise ZeroDivisionError("what nobody outside shall read")

    async with open_line() as line, line.session() as session:
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "send", broken)
            with pytest.raises(warmline.ServerFaultError) as told:
                async with session.turn("hello") as turn:
                    await turn.result()
        async with session.turn("again") as turn:
            assert (await turn.result()).ending == "completed"
        calls = [s for s in line.spans.get_finished_spans() if s.name == "turn"]

    assert "nobody outside" not in str(told.value)
    assert "nobody outside" in caplog.text
    assert [(s.attributes or {}).get("warmline.outcome") for s in calls] == ["failed", "completed"]

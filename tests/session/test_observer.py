"""The one seam through which sessions are watched."""

import inspect
import logging

import pytest

from warmline_server.core.records import CallRecord, SessionRecord
from warmline_server.session.observer import Observer, Observers

SESSION = SessionRecord("s", "c", "t", "u", "openai", "localhost", 1)
CALL = CallRecord(SESSION, "", "turn-1", "request-1", 0, 0.0)
STEPS = [name for name, value in vars(Observer).items() if inspect.isfunction(value)]


class Recorder(Observer):
    """Keeps the calls that it was admitted and saw ended."""

    def __init__(self, name: str, seen: list[tuple[str, str, object]]) -> None:
        self._name, self._seen = name, seen

    def call_started(self, call: CallRecord) -> None:
        self._seen.append((self._name, "started", call))

    def fell_back(self, session: SessionRecord, call: CallRecord | None, reason: str, *, latched: bool) -> None:
        self._seen.append((self._name, reason, latched))


class Broken(Observer):
    def call_started(self, call: CallRecord) -> None:
        raise LookupError("observer bug")

    def call_ended(self, call: CallRecord) -> None:
        raise LookupError("observer bug")


def test_observers_pass_each_step_on_in_order_with_its_arguments() -> None:
    seen: list[tuple[str, str, object]] = []
    observers = Observers([Recorder("a", seen), Recorder("b", seen)])

    observers.call_started(CALL)
    observers.fell_back(SESSION, None, "upgrade_required", latched=True)

    assert seen == [
        ("a", "started", CALL),
        ("b", "started", CALL),
        ("a", "upgrade_required", True),
        ("b", "upgrade_required", True),
    ]


@pytest.mark.parametrize("step", STEPS)
def test_observers_pass_on_every_step_that_there_is(step: str) -> None:
    taken: list[object] = []
    arguments = [object() for _ in inspect.signature(getattr(Observer, step)).parameters][1:]
    taker = type("Taker", (Observer,), {step: lambda _self, *args: taken.append(args)})

    getattr(Observers([taker()]), step)(*arguments)

    assert taken == [tuple(arguments)]


@pytest.mark.parametrize("step", STEPS)
def test_observer_that_leaves_a_step_out_does_nothing_at_it(step: str) -> None:
    arguments = dict.fromkeys(inspect.signature(getattr(Observer(), step)).parameters)

    assert getattr(Observer(), step)(**arguments) is None
    assert getattr(Observers([Observer()]), step)(**arguments) is None


def test_observers_failure_of_one_reaches_neither_the_session_nor_the_others() -> None:
    seen: list[tuple[str, str, object]] = []
    observers = Observers([Broken(), Recorder("b", seen)])

    observers.call_started(CALL)

    assert seen == [("b", "started", CALL)]


def test_observers_failure_is_logged_once_for_each_step(caplog: pytest.LogCaptureFixture) -> None:
    observers = Observers([Broken()])

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            observers.call_started(CALL)
            observers.call_ended(CALL)

    texts = [str(record.exc_info[1]) for record in caplog.records if record.exc_info is not None]
    assert texts == ["observer bug", "observer bug"]


def test_observers_let_what_is_no_failure_through() -> None:
    class Stopped(Observer):
        def call_started(self, call: CallRecord) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Observers([Stopped()]).call_started(CALL)

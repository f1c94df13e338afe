"""Every language's client plays every scenario, and the harness notices when one does not."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop import certificates, harness, languages, scenario
from interop.languages import Language
from interop.python_runner import StepError, compare
from interop.toolchain import need_none

# A first build loads and compiles a language's dependencies.
pytestmark = pytest.mark.timeout(languages.BUILD_S + 2 * harness.RUN_S)

PRESENT = languages.present()
_BUILT: set[str] = set()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Room for files, with certificates."""
    with tempfile.TemporaryDirectory(prefix="warmline-interop-") as scratch:
        certificates.make(Path(scratch))
        yield Path(scratch)


async def built(name: str) -> Language:
    """The language with its runner built. Its missing toolchain skips the test, and fails it in CI."""
    language = PRESENT[name]
    need_none(language.missing)
    if name not in _BUILT:
        await languages.build(language)
        _BUILT.add(name)
    return language


@pytest.mark.parametrize("played", scenario.names())
@pytest.mark.parametrize("language", PRESENT)
async def test_client_behaves_as_every_client_does(language: str, played: str, folder: Path) -> None:
    outcome = await harness.play(scenario.load(played, folder), await built(language), folder)

    assert outcome.failures == (), outcome.stderr


def runner_that_prints(text: str) -> Language:
    """A runner that does nothing and says this."""
    return Language(name="liar", present=scenario.ROOT, run=("sh", "-c", f"printf '%s' '{text}'"))


async def failures_of(played: str, printed: str, folder: Path) -> tuple[str, ...]:
    return (await harness.play(scenario.load(played, folder), runner_that_prints(printed), folder)).failures


async def test_harness_finds_a_runner_that_did_nothing(folder: Path) -> None:
    failures = await failures_of("cancel", '{"ok": true, "turns": {}}', folder)

    assert failures[0] == "aborts: found 0, expected 5"
    assert any("never asked for" in failure for failure in failures)


async def test_harness_finds_a_response_id_that_was_never_given(folder: Path) -> None:
    invented = '{"ok": true, "turns": {"a": {"ending": "completed", "response_id": "resp_invented"}}}'

    failures = await failures_of("warm_turn", invented, folder)

    assert "turn a: response id 'resp_invented' was never given out" in failures


@pytest.mark.parametrize("printed", ["", "no JSON", "{}", '{"ok": 1}', '{"ok": true}\n{"ok": true}'])
async def test_harness_finds_a_runner_that_says_nothing_usable(printed: str, folder: Path) -> None:
    assert await failures_of("metadata", printed, folder) != ()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, {"$present": True}),
        ("", {"$present": True}),
        ("x", {"$present": False}),
        ("x", {"$any": ["y", None]}),
        ({"a": 1}, {"a": 2}),
        ({}, {"a": 1}),
        (None, {"a": 1}),
        ([1, 2], [1]),
        ([1], [2]),
        (1, "1"),
    ],
)
def test_runner_finds_what_is_not_as_expected(found: object, expected: object) -> None:
    with pytest.raises(StepError):
        compare(found, expected)

"""Credentials that others keep: read, read again, asked for once, and never shown."""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from credential_kit import FakeTokenHttp, Watched
from manual_clock import ManualClock, settle
from warmline_server.core.errors import Heal, Reason, UpstreamFailure
from warmline_server.credentials import AuthFacts, CredentialSource, Outcome, open_credential
from warmline_server.settings import Credential


def opened(
    settings: Credential, clock: ManualClock | None = None, environ: Mapping[str, str] | None = None
) -> CredentialSource:
    return open_credential(settings, http=FakeTokenHttp(), clock=clock or ManualClock(), environ=environ or {})


async def refused(credential: CredentialSource) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await credential.headers()
    return caught.value


def bearer(value: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {value}")]


async def test_no_credential_sends_no_header_and_has_no_step() -> None:
    credential = opened(Credential())

    assert await credential.headers() == []
    assert await credential.start_recovery().next_step() is False
    assert credential.facts == AuthFacts("none", "")


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        (Credential(source="env", env="KEY"), [("Authorization", "Bearer abc")]),
        (Credential(source="env", env="KEY", header="api-key", scheme=""), [("api-key", "abc")]),
        (
            Credential(source="env", env="KEY", account_id="acc"),
            [("Authorization", "Bearer abc"), ("ChatGPT-Account-ID", "acc")],
        ),
    ],
    ids=["bearer", "own header", "account"],
)
async def test_variable_goes_into_the_header_that_is_configured(
    settings: Credential, headers: list[tuple[str, str]]
) -> None:
    assert await opened(settings, environ={"KEY": " abc\n"}).headers() == headers


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, "it is empty"),
        ({"KEY": "  "}, "it is empty"),
        ({"KEY": "a b"}, "it holds a blank or another character that no header value with a credential has"),
        ({"KEY": "ä"}, "it holds a blank or another character that no header value with a credential has"),
        ({"KEY": "\udcff"}, "it holds a blank or another character that no header value with a credential has"),
        ({"KEY": "a" * 20_000}, "it has 20000 characters, more than 16384"),
    ],
)
async def test_variable_that_cannot_be_sent_is_a_final_failure(environ: dict[str, str], why: str) -> None:
    failure = await refused(opened(Credential(source="env", env="KEY"), environ=environ))

    assert (failure.reason, failure.heal) == (Reason.UPSTREAM_AUTH, Heal.NEVER)
    assert failure.text == f"read the credential from the variable KEY: {why}"


@pytest.mark.conformance("C-067")
async def test_recovery_of_a_variable_has_nothing_left() -> None:
    recovery = opened(Credential(source="env", env="KEY"), environ={"KEY": "abc"}).start_recovery()

    assert await recovery.next_step() is False
    assert recovery.facts == AuthFacts("env", "Authorization")


# Files


def file_credential(path: Path, clock: ManualClock | None = None) -> CredentialSource:
    return opened(Credential(source="file", file=str(path)), clock)


async def test_file_is_trimmed_and_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" first\n")
    credential = file_credential(path)
    assert await credential.headers() == bearer("first")

    path.write_text("second")

    assert await credential.headers() == bearer("second")


async def test_file_behind_a_replaced_link_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes updates a Secret volume: the link changes, the names stay."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(f"key-{name}")
        os.utime(tmp_path / name / "key", ns=(0, 0))
    link = tmp_path / "data"
    link.symlink_to("one")
    credential = file_credential(link / "key")
    assert await credential.headers() == bearer("key-one")

    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(link)

    assert await credential.headers() == bearer("key-two")


@pytest.mark.parametrize("damage", ["", "a b", "\xff" * 3, "x" * 300_000, None])
async def test_file_that_turns_bad_leaves_the_former_credential_and_is_logged_once(
    tmp_path: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("good")
    credential = file_credential(path)
    await credential.headers()

    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)

    assert [await credential.headers() for _ in range(3)] == [bearer("good")] * 3
    assert [(r.levelno, r.msg) for r in caplog.records] == [(logging.WARNING, "credential file cannot be used")]


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), ("", "it is empty")], ids=["absent", "empty"]
)
async def test_file_that_was_never_good_is_a_final_failure_until_it_is(
    tmp_path: Path, content: str | None, why: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    credential = file_credential(path)

    for _ in range(2):
        failure = await refused(credential)
        assert (failure.reason, failure.heal) == (Reason.UPSTREAM_AUTH, Heal.NEVER)
        assert failure.text == f"read the credential from its file: {why}"

    path.write_text("good")
    assert await credential.headers() == bearer("good")


@pytest.mark.conformance("C-066")
async def test_recovery_of_a_file_reads_it_again_even_where_it_seems_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first")
    os.utime(path, ns=(0, 0))
    credential = file_credential(path)
    await credential.headers()
    path.write_text("other")
    os.utime(path, ns=(0, 0))
    assert await credential.headers() == bearer("first")
    recovery = credential.start_recovery()

    assert await recovery.next_step() is True

    assert await credential.headers() == bearer("other")
    assert recovery.facts == AuthFacts("file", "Authorization", "reload", Outcome.RECOVERED)


@pytest.mark.conformance("C-067")
async def test_recovery_of_a_file_that_did_not_change_has_nothing_left(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first")
    credential = file_credential(path)
    await credential.headers()
    recovery = credential.start_recovery()

    assert await recovery.next_step() is False

    assert recovery.facts == AuthFacts("file", "Authorization", "reload", Outcome.UNCHANGED)


async def test_refusal_of_what_was_sent_before_the_file_changed_is_repeated(tmp_path: Path) -> None:
    """Another call has read the new content meanwhile; the credential that was refused is not the present one."""
    path, clock = tmp_path / "key", ManualClock()
    path.write_text("first")
    credential = file_credential(path, clock)
    await credential.headers()
    path.write_text("second")
    await credential.headers()

    assert await credential.start_recovery().next_step() is True

    await clock.advance(60.0)
    assert await credential.start_recovery().next_step() is False


# Programs


def command_credential(
    command: tuple[str, ...], clock: ManualClock | None = None, ttl_s: float = 300.0
) -> CredentialSource:
    return opened(Credential(source="command", command=command, command_ttl_s=ttl_s), clock)


async def test_program_is_run_once_for_all_who_ask() -> None:
    async with Watched() as watched:
        credential = command_credential(watched.command("print(' abc ')"))

        asked = await asyncio.gather(*(credential.headers() for _ in range(50)))
        asked.append(await credential.headers())

    assert asked == [bearer("abc")] * 51
    assert watched.runs == 1


async def test_program_is_run_again_after_its_time_to_live(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "out"
    path.write_text("first")
    credential = command_credential(("cat", str(path)), clock, ttl_s=60.0)
    await credential.headers()
    path.write_text("second")

    await clock.advance(59.0)
    assert await credential.headers() == bearer("first")

    await clock.advance(1.0)
    assert await credential.headers() == bearer("second")


async def test_program_without_a_time_to_live_is_run_when_its_output_was_refused(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "out"
    path.write_text("first")
    credential = command_credential(("cat", str(path)), clock, ttl_s=0.0)
    await credential.headers()
    path.write_text("second")
    await clock.advance(1e6)
    assert await credential.headers() == bearer("first")
    recovery = credential.start_recovery()

    assert await recovery.next_step() is True

    assert await credential.headers() == bearer("second")
    assert recovery.facts == AuthFacts("command", "Authorization", "command", Outcome.RECOVERED)


async def test_program_that_says_the_same_again_recovers_nothing() -> None:
    credential = command_credential(("echo", "abc"))
    await credential.headers()
    recovery = credential.start_recovery()

    assert await recovery.next_step() is False

    assert recovery.facts == AuthFacts("command", "Authorization", "command", Outcome.UNCHANGED)


async def test_program_that_fails_later_leaves_the_former_credential(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "out"
    path.write_text("first")
    credential = command_credential(("cat", str(path)), clock, ttl_s=60.0)
    await credential.headers()
    path.unlink()
    await clock.advance(60.0)

    assert await credential.headers() == bearer("first")


@pytest.mark.parametrize(
    ("command", "heal", "text"),
    [
        (("false",), Heal.RESEND, "run the credential's command: it ended with status 1"),
        (("true",), Heal.RESEND, "run the credential's command: of its output, it is empty"),
        (
            ("head", "-c", "300000", "/dev/zero"),
            Heal.RESEND,
            "run the credential's command: it printed 262144 bytes and more",
        ),
        (("/nowhere/program",), Heal.NEVER, "run the credential's command: No such file or directory"),
    ],
    ids=["status", "silent", "endless", "absent"],
)
async def test_program_that_gives_nothing_usable_fails(command: tuple[str, ...], heal: Heal, text: str) -> None:
    failure = await refused(command_credential(command))

    assert (failure.heal, failure.text) == (heal, text)
    assert failure.reason is (Reason.UPSTREAM_AUTH if heal is Heal.NEVER else Reason.UPSTREAM_UNREACHABLE)


async def test_program_that_is_too_slow_is_killed() -> None:
    clock = ManualClock()
    async with Watched() as watched:
        asking = asyncio.create_task(
            refused(command_credential(watched.command("sys.stdin = None; line.recv(1)"), clock))
        )
        await watched.started.wait()

        await clock.advance(10.0)

        failure = await asking
        await watched.ended.wait()
    assert (failure.heal, failure.text) == (Heal.RESEND, "renew the credential: not done within 10.0 s")


async def test_program_goes_on_for_the_others_when_one_caller_leaves() -> None:
    async with Watched() as watched:
        credential = command_credential(watched.command("print('abc')"))
        leaver = asyncio.create_task(credential.headers())
        stayer = asyncio.create_task(credential.headers())
        await settle()

        leaver.cancel()

        assert await stayer == bearer("abc")
    assert watched.runs == 1
    assert leaver.cancelled()


async def test_close_kills_a_program_that_runs() -> None:
    async with Watched() as watched:
        credential = command_credential(watched.command("line.recv(1)"))
        asking = asyncio.create_task(credential.headers())
        await watched.started.wait()

        await credential.close()

        await watched.ended.wait()
        await asyncio.wait([asking])
    assert asking.cancelled()


async def test_program_that_failed_is_not_run_again_at_once() -> None:
    clock = ManualClock()
    async with Watched() as watched:
        credential = command_credential(watched.command("sys.exit(3)"), clock)
        waits = []
        for _ in range(7):
            delay_s = (await refused(credential)).delay_s
            assert delay_s is not None
            runs = watched.runs
            await clock.advance(delay_s - 0.001)
            await refused(credential)
            assert watched.runs == runs
            await clock.advance(0.002)
            waits.append(delay_s)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert watched.runs == 7

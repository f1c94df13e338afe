"""Files and answers that others write: configuration, credentials, bundles, fixtures, conversations."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from fuzz.checks import Take
from warmline_cli.conversation import InputError, read_conversation, read_tools
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.nesting import BUNDLE_DEPTH
from warmline_server.credentials import token as tokens
from warmline_server.credentials.token import Malformed, Token
from warmline_server.observe import waterfall_html, waterfall_text
from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle.errors import ReplayError
from warmline_server.observe.bundle.reduce import replay
from warmline_server.observe.bundle.state import encode
from warmline_server.observe.waterfall import turns_of
from warmline_server.settings import SettingsError, load
from warmline_server.transport.fixture import open_fixture

NOW_UNIX_S = 1_700_000_000.0
MANIFEST = (
    b'{"schema_version":1,"trace_id":"t","rollout_id":"r","root_thread_id":"thread-1","started_at_unix_ms":1000,'
    b'"raw_event_log":"trace.jsonl","payloads_dir":"payloads"}'
)


def check_settings(data: bytes) -> None:
    """A TOML file, and after a zero byte variables one a line: settings, or every problem by name."""
    content, _, variables = data.partition(b"\0")
    environ = {}
    for line in variables.decode(errors="replace").split("\n"):
        name, _, value = line.partition("=")
        environ[f"WARMLINE_{name}"] = value
    path = _directory() / "warmline.toml"
    path.write_bytes(content)
    try:
        settings = load(path, environ if variables else {})
    except SettingsError as error:
        assert error.problems
        assert all(problem.key or problem.source for problem in error.problems)
        str(error)
        return
    assert settings.default_upstream in settings.upstreams
    repr(settings)


def check_tokens(data: bytes) -> None:
    """A credential in a text, a file, a token endpoint's answer: one that a header can carry, or Malformed."""
    readers: tuple[Callable[[], Token], ...] = (
        lambda: tokens.from_text(data),
        lambda: tokens.from_file(data),
        lambda: tokens.from_reply(data, Token("former", "account", None, "refresh"), NOW_UNIX_S),
    )
    for read in readers:
        try:
            token = read()
        except Malformed:
            continue
        for carried in (token.value, token.account_id):
            assert carried.isascii()
            assert carried.isprintable()
            assert " " not in carried
        assert "value=" not in repr(token)
        assert "refresh_token=" not in repr(token)
    renewed = tokens.from_file(tokens.renewed_file(data, Token("new", "", 5.0, "refresh")))
    assert (renewed.value, renewed.refresh_token, renewed.expires_unix_s) == ("new", "refresh", 5.0)
    expires = tokens.expiry_of(data.decode(errors="replace"))
    assert expires is None or expires >= 0


def check_bundle(data: bytes) -> None:
    """A log and payloads, parted by zero bytes: a state that can be written and drawn, or the named damage."""
    manifest = Take(data).byte() == ord("m")
    log, *payloads = (data[1:] if manifest else data).split(b"\0")
    root = _directory()
    (root / fmt.PAYLOADS).mkdir(exist_ok=True)
    for old in (root / fmt.PAYLOADS).iterdir():
        old.unlink()
    (root / fmt.MANIFEST).write_bytes(payloads.pop() if manifest and payloads else MANIFEST)
    (root / fmt.EVENT_LOG).write_bytes(log)
    for number, payload in enumerate(payloads[:8], start=1):
        (root / fmt.PAYLOADS / f"{number}.json").write_bytes(payload)
    try:
        state = replay(root)
    except ReplayError as error:
        str(error)
        return
    encode(state)
    turns = turns_of(state)
    text = waterfall_text.draw(turns, 80)
    assert all(line.isprintable() for line in text.split("\n")), "a terminal would obey"
    page = waterfall_html.page(turns, "bundle")
    assert page.count("<script") == 0
    page.encode()
    assert BUNDLE_DEPTH < 200


def check_fixture(data: bytes) -> None:
    """Any file is events and then the end of the stream."""
    path = _directory() / "fixture.sse"
    path.write_bytes(data)
    asyncio.run(_play(str(path)))


async def _play(path: str) -> None:
    exchange = await open_fixture(path)
    try:
        while True:
            assert all(isinstance(payload, bytes) for payload in await exchange.receive())
    except UpstreamFailure:
        pass


def check_conversation(data: bytes) -> None:
    """What `warmline turn` reads: items as they came, or what is wrong with them."""
    try:
        conversation = read_conversation(data)
    except InputError as error:
        str(error)
    else:
        assert all(item.startswith(b"{") for item in conversation.items)
    try:
        read_tools(data)
    except InputError as error:
        str(error)


_directories: list[tuple[int, tempfile.TemporaryDirectory[str]]] = []


def _directory() -> Path:
    """One directory per process, in memory where there is such a place."""
    if not _directories or _directories[-1][0] != os.getpid():
        place = "/dev/shm" if os.path.isdir("/dev/shm") else None
        _directories.append((os.getpid(), tempfile.TemporaryDirectory(prefix="warmline-fuzz-", dir=place)))
    return Path(_directories[-1][1].name)


CHECKS: tuple[Callable[[bytes], None], ...] = (
    check_settings,
    check_tokens,
    check_bundle,
    check_fixture,
    check_conversation,
)

"""Processes that the benchmark starts: pinned to a core, ended by their id."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import proc

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
PYTHON = sys.executable


def cores() -> tuple[int | None, int | None]:
    """The core of the server under test and the core of everything else; None both where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


SERVER_CORE, RIG_CORE = cores()


class StartError(Exception):
    """A process did not come up; the text says which, why and what it printed last."""


def plain_words(output: str) -> str:
    """The last words of a program, without addresses and paths of this machine, for results that are published."""
    words = re.sub(r"https?://[^\s:]+", "its registry", " ".join(output.split()))
    return re.sub(r"(?<![\w.])/(?:[\w.@+-]+/)+", ".../", words)[-300:]


_spawned: "list[subprocess.Popen[Any]]" = []


def spawn(command: Sequence[str], core: int | None, **options: Any) -> "subprocess.Popen[Any]":
    """Starts a process on a core, which `stop_all` knows of. `options` as Popen takes them.

    A signal that ends the run waits meanwhile: what was started and is not known would stay.
    """
    held = {signal.SIGINT, signal.SIGTERM}
    former = signal.pthread_sigmask(signal.SIG_BLOCK, held)

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        if core is not None:
            os.sched_setaffinity(0, {core})

    try:
        process = subprocess.Popen(list(command), preexec_fn=prepare, **options)
        _spawned.append(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    return process


def end(process: "subprocess.Popen[Any]", limit_s: float = 15.0) -> None:
    """Ends a process and whatever it started, by id. Idempotent."""
    if process.poll() is None:
        family = proc.descendants(process.pid)
        send(process.pid, signal.SIGCONT)
        process.terminate()
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in family[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if process in _spawned:
        _spawned.remove(process)


def stop_all() -> None:
    """Ends whatever still runs: what was starting when the run was broken off."""
    for process in [*_spawned]:
        end(process)


def send(root: int, number: signal.Signals) -> None:
    """Sends a signal to a process and all below it."""
    for pid in proc.descendants(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Child:
    """A running process of ours and its descendants. Its output goes to a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int | None,
        environ: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.name = name
        CACHE.mkdir(parents=True, exist_ok=True)
        self.log = CACHE / "logs" / f"{name}.log"
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("wb") as output:
            self._process = spawn(
                command,
                core,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_for(self, mark: str, limit_s: float = 120.0) -> str:
        """Waits until the output holds `mark`. Returns: the word after it. Raises: StartError."""
        end = time.monotonic() + limit_s
        while True:
            text = self.log.read_text(errors="replace")
            _, found, rest = text.partition(mark)
            if found and (word := rest.split('"')[0].split()) and "\n" in rest:
                return word[0]
            self.check(end, f"printed no {mark!r}")
            time.sleep(0.02)

    def check(self, end: float, complaint: str) -> None:
        """Ends a process whose time is up. Raises: StartError then, and when it has ended by itself."""
        ended = self._process.poll()
        if ended is None and time.monotonic() < end:
            return
        what = f"ended with {ended}" if ended is not None else complaint
        last = self.log.read_text(errors="replace")[-2000:]
        self.stop()
        raise StartError(f"{self.name} {what}; its last words:\n{last}")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, limit_s: float = 15.0) -> None:
        """As `end`."""
        end(self._process, limit_s)

    def sleep(self) -> None:
        """Holds the process still, so that it takes no CPU while another one is measured."""
        send(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Lets it go on."""
        send(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def stopping(child: Child) -> Iterator[Child]:
    """Stops the process at the end of the block."""
    try:
        yield child
    finally:
        child.stop()


def build_tools() -> None:
    """Builds the load client and the upstream; the Go tool knows what is up to date. Raises: StartError."""
    if shutil.which("go") is None:
        raise StartError("Go is not installed; the load client and the upstream are built with it")
    CACHE.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(
        ["go", "build", "-o", f"{CACHE}/", "./load", "./upstream"],
        cwd=ROOT / "bench",
        capture_output=True,
        text=True,
        env={**os.environ, "CGO_ENABLED": "0"},
    )
    if built.returncode:
        raise StartError(f"go build of the load client failed:\n{built.stderr[-3000:]}")

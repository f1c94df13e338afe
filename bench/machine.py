"""Where a run was made: machine, versions, commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from bench.children import ROOT, SERVER_CORE

_PACKAGES = ("grpcio", "protobuf", "websockets", "msgspec", "uvloop", "opentelemetry-sdk")


def describe() -> dict[str, str]:
    """Facts by name, in the order in which they are printed."""
    facts = {
        "date": _run("date", "-u", "+%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cores": f"{os.cpu_count()}",
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "memory": _memory(),
        "python": platform.python_version(),
        "go": _run("go", "version").removeprefix("go version "),
    }
    facts |= {name: _version(name) for name in _PACKAGES}
    facts["pinning"] = (
        "one core only: nothing is pinned"
        if SERVER_CORE is None
        else "server under test on one core; load client, upstream and OTLP sink on the other"
    )
    facts["load before"] = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return facts


def _commit() -> str:
    commit = _run("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _run("git", "-C", str(ROOT), "status", "--porcelain", "--", "server", "client_stubs", "bench")
    return commit + (" and uncommitted changes" if changed else "")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> str:
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{total_kib / 2**20:.0f} GiB"


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except OSError:
        return "unknown"

"""The scenarios say all that they are to say."""

import tempfile
from pathlib import Path

from interop import scenario
from warmline.v1 import errors_pb2

# Reasons that no client can meet by its own calls: what the server does not do yet, its own faults, a key that the
# wrappers never set wrong, and who calls, which this server does not ask.
NOT_PROVOKED = {
    "SESSION_KEY_MISMATCH",
    "NOT_IMPLEMENTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "INTERNAL",
    "DEADLINE_EXCEEDED",
    "CALLERS_UNVERIFIABLE",
}


def reasons_expected_of(names: list[str]) -> set[str]:
    """The reasons that errors of these scenarios have."""
    found = set()
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            for step in scenario.load(name, Path(scratch)).steps:
                ((_, fields),) = step.items()
                if isinstance(fields, dict):
                    found |= {str(fields.get("reason")), str((fields.get("error") or {}).get("reason"))}
    return found


def known_reasons() -> set[str]:
    names = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name}
    return names - {"UNSPECIFIED"}


def test_every_reason_becomes_an_error_of_its_kind() -> None:
    assert known_reasons() <= reasons_expected_of(["error_reasons"])


def test_every_reason_that_can_be_provoked_is() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        real = [name for name in scenario.names() if scenario.load(name, Path(scratch)).peer == "server"]

    assert known_reasons() - reasons_expected_of(real) == NOT_PROVOKED

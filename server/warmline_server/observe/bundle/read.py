"""A bundle's files as values, with a named error for each way in which they can be damaged."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle.errors import Damage, ReplayError

# What msgspec raises for bytes that are no JSON; measured, 0.22: text that is no UTF-8 is not its own error.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_envelopes = msgspec.json.Decoder(fmt.Envelope)


class BundleReader:
    """Reads the bundle in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.manifest = self._read_manifest()

    def events(self) -> Iterator[tuple[int, fmt.Envelope]]:
        """The log, oldest first, with line numbers; blank lines are passed over.

        Raises: ReplayError NO_BUNDLE, TRUNCATED_LINE, BAD_EVENT.
        """
        try:
            log = (self._path / self.manifest.raw_event_log).open("rb")
        except (OSError, ValueError) as error:
            raise ReplayError(Damage.NO_BUNDLE, f"{self._path} has no {self.manifest.raw_event_log!r}") from error
        with log:
            for number, line in enumerate(log, start=1):
                if line.strip():
                    yield number, _envelope(line, number)

    def payload(self, ref: fmt.PayloadRef) -> bytes:
        """A payload's JSON. Raises: ReplayError MISSING_PAYLOAD."""
        try:
            path = (self._path / ref.path).resolve()
        except ValueError as error:
            raise ReplayError(Damage.MISSING_PAYLOAD, f"{ref.raw_payload_id} has no path: {ref.path!r}") from error
        if not path.is_relative_to(self._path.resolve()):
            raise ReplayError(Damage.MISSING_PAYLOAD, f"{ref.raw_payload_id} is outside of the bundle: {ref.path}")
        try:
            return path.read_bytes()
        except OSError as error:
            raise ReplayError(Damage.MISSING_PAYLOAD, f"{ref.raw_payload_id} is not there: {ref.path}") from error

    def _read_manifest(self) -> fmt.Manifest:
        try:
            raw = (self._path / fmt.MANIFEST).read_bytes()
        except OSError as error:
            raise ReplayError(Damage.NO_BUNDLE, f"{self._path} has no {fmt.MANIFEST}") from error
        try:
            manifest = msgspec.json.decode(raw, type=fmt.Manifest)
        except UNREADABLE as error:
            raise ReplayError(Damage.BAD_MANIFEST, f"{fmt.MANIFEST}: {error}") from error
        if manifest.schema_version != fmt.SCHEMA_VERSION:
            found = manifest.schema_version
            raise ReplayError(Damage.BAD_MANIFEST, f"schema_version is {found}, expected {fmt.SCHEMA_VERSION}")
        return manifest


def _envelope(line: bytes, number: int) -> fmt.Envelope:
    try:
        return _envelopes.decode(line)
    except msgspec.ValidationError as error:
        raise ReplayError(Damage.BAD_EVENT, str(error), line=number) from error
    except msgspec.DecodeError as error:
        damage = Damage.TRUNCATED_LINE if not line.endswith(b"\n") or "truncated" in str(error) else Damage.BAD_EVENT
        raise ReplayError(damage, str(error), line=number) from error
    except UNREADABLE as error:
        raise ReplayError(Damage.BAD_EVENT, str(error), line=number) from error

"""A bundle's files as values, with a named error for each way in which they can be damaged."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from warmline_server.core.nesting import BUNDLE_DEPTH, is_too_deep
from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle.errors import Damage, ReplayError

# What msgspec raises for bytes that are no JSON; measured, 0.22: text that is no UTF-8 is not its own error.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# The largest request that a caller may send by default is a quarter of this.
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024
# A line has ids and references, never a payload.
MAX_LINE_BYTES = 1024 * 1024

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
            for number, line in enumerate(iter(lambda: log.readline(MAX_LINE_BYTES + 1), b""), start=1):
                if len(line) > MAX_LINE_BYTES:
                    raise ReplayError(Damage.BAD_EVENT, f"more than {MAX_LINE_BYTES} bytes", line=number)
                if line.strip():
                    yield number, _envelope(line, number)

    def payload(self, ref: fmt.PayloadRef) -> bytes:
        """A payload's JSON. Raises: ReplayError MISSING_PAYLOAD; BAD_PAYLOAD when it is too large or too deep."""
        try:
            path = (self._path / ref.path).resolve()
        except ValueError as error:
            raise ReplayError(Damage.MISSING_PAYLOAD, f"{ref.raw_payload_id} has no path: {ref.path!r}") from error
        if not path.is_relative_to(self._path.resolve()):
            raise ReplayError(Damage.MISSING_PAYLOAD, f"{ref.raw_payload_id} is outside of the bundle: {ref.path}")
        try:
            with path.open("rb") as file:
                payload = file.read(MAX_PAYLOAD_BYTES + 1)
        except OSError as error:
            raise ReplayError(Damage.MISSING_PAYLOAD, f"{ref.raw_payload_id} is not there: {ref.path}") from error
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ReplayError(Damage.BAD_PAYLOAD, f"{ref.path} has more than {MAX_PAYLOAD_BYTES} bytes")
        if is_too_deep(payload, BUNDLE_DEPTH):
            raise ReplayError(Damage.BAD_PAYLOAD, f"{ref.path} is nested deeper than {BUNDLE_DEPTH} levels")
        return payload

    def _read_manifest(self) -> fmt.Manifest:
        try:
            with (self._path / fmt.MANIFEST).open("rb") as file:
                raw = file.read(MAX_LINE_BYTES)
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

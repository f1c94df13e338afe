"""Where a turn's metadata for the provider comes from: the call, a setting, or an operator's command.

Best effort by design: metadata that is late or broken is left out, the call goes on without (C-015).
"""

import asyncio
import logging

import msgspec

from warmline_server.clock import Clock, TimeLimit
from warmline_server.core.nesting import MAX_DEPTH, is_too_deep
from warmline_server.settings import TurnMetadata

_log = logging.getLogger(__name__)


class TurnMetadataSource:
    """One helper for handshakes and calls alike."""

    def __init__(self, settings: TurnMetadata, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def get(self, given: bytes) -> bytes:
        """The metadata as JSON, empty when there is none: the call's own, else the setting, else the command's output.

        Cancel: a command under way is killed.
        """
        if given or not self._settings.command:
            return given or self._settings.static_json.encode()
        try:
            async with TimeLimit(self._clock, self._clock.now_s() + self._settings.timeout_s):
                return await self._run()
        except (TimeoutError, OSError, ValueError) as error:
            _log.warning("turn metadata command gave nothing usable; going on without", extra={"why": repr(error)})
            return b""

    async def _run(self) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self._settings.command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.returncode != 0:
            raise ValueError(f"exit status {process.returncode}")
        if is_too_deep(output):
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        msgspec.json.decode(output, type=dict[str, msgspec.Raw])
        return output.strip()

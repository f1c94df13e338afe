"""What a run has at hand: its options, the upstream, and the paths it has started."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.children import StartError, plain_words
from bench.paths import Path, Running
from bench.upstreams import Upstream


@dataclass(slots=True)
class Rig:
    """Shared by all cells of a run. Peers start once and are held still while they are not measured."""

    upstream: Upstream
    say: Callable[[str], None]
    repeats: int
    is_short: bool
    skipped: dict[str, str] = field(default_factory=dict)
    """Peers that could not be installed or started, and why."""
    _peers: dict[str, Running] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self, paths: Sequence[Path], start: Callable[[Path], Running]) -> Iterator[dict[str, Running]]:
        """Starts the paths, those that can be; stops our own at the end and holds peers still."""
        ways: dict[str, Running] = {}
        try:
            for path in paths:
                way = self._peer(path) if path.is_peer else start(path)
                if way is not None:
                    ways[path.name] = way
            yield ways
        finally:
            for name, way in ways.items():
                if name in self._peers:
                    self._hold_still(way)
                else:
                    way.stop()

    def _peer(self, path: Path) -> Running | None:
        if path.name in self.skipped:
            return None
        if path.name not in self._peers:
            self.say(f"starting {path.title}")
            self.upstream.set_shape(Upstream.FIRST_SHAPE)
            try:
                self._peers[path.name] = path.start(self.upstream)
            except (StartError, OSError) as error:
                self.skipped[path.name] = plain_words(str(error))
                self.say(f"SKIPPED {path.title}: {error}")
                return None
            self._hold_still(self._peers[path.name])
        return self._peers[path.name]

    @staticmethod
    def _hold_still(way: Running) -> None:
        if way.server is not None:
            way.server.sleep()

    def close(self) -> None:
        """Ends everything that was started."""
        for way in self._peers.values():
            way.stop()
        self.upstream.child.stop()

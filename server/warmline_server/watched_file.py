"""A small file that somebody replaces while the server runs."""

import errno
import os
from pathlib import Path

# Far more than any credential, list of tokens, or chain of certificates.
MAX_BYTES = 256 * 1024


class WatchedFile:
    """A file that is read again when it changed. Read on the loop: it is local, and a stat costs microseconds."""

    def __init__(self, name: str) -> None:
        self.path = Path(name)
        self._seen: tuple[int, int, int] | None = None

    def read_if_changed(self, *, force: bool = False) -> bytes | None:
        """The content, None when it is the one read last.

        Raises: OSError, also, and once, for a content that is larger than MAX_BYTES.
        """
        status = self.path.stat()
        # A Secret volume changes by a new inode, an editor by the time, a quick one by the size.
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen and not force:
            return None
        with self.path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        self._seen = seen
        if len(content) > MAX_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return content

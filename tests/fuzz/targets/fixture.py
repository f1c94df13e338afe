"""A file of server-sent events."""

from fuzz.checks.files import check_fixture
from fuzz.make import sse

CHECK = check_fixture


def seeds() -> list[bytes]:
    return [sse(b'{"type":"response.created"}', b"[DONE]"), b"", b"data: cut"]

"""A bundle: its log, then its payloads, parted by zero bytes; with an `m` before it the last part is its manifest."""

import tempfile
from pathlib import Path

from fuzz.checks.files import MANIFEST, check_bundle
from observe.bundle_kit import Log, assistant, reasoning, tool_call, tool_output, user
from warmline_server.observe.bundle import format as fmt

CHECK = check_bundle


def seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bundle"
        log = Log(path)
        log.event("other", fact={"kind": "warmline.call_started", "request_id": "q", "turn_id": "turn-1", "lane": "",
                                 "started_unix_ns": 5})  # fmt: skip
        log.start("1", [user("hi"), reasoning("enc", text="hm", summary="s")])
        log.complete("1", [tool_call("c1"), assistant("hello")], response_id="resp-1", upstream_request_id="req-1")
        log.start("2", [tool_output("c1")], previous="resp-1")
        log.cancel("2", [assistant("par")], upstream_request_id="req-2", warmline={"events": 3})
        log.event("other", fact={"kind": "warmline.call_ended", "request_id": "q", "ended_unix_ns": 9, "outcome": "ok"})
        log.end_turn()
        parts = [path / fmt.EVENT_LOG, *sorted(path.glob("payloads/*.json"))]
        case = b"\0".join(part.read_bytes() for part in parts)
        facts = b'"warmline":{"request_id":"q","attempt":1,"transport":"websocket","started_unix_ns":6},"model":"m-1"'
        return [case, b"m" + case + b"\0" + MANIFEST, case.replace(b'"model": "m-1"', facts, 1)]

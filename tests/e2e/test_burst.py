"""Many turns that begin in one moment."""

import asyncio
import re
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "burst.py"
# Fewer are not lost even where gRPC's own bounds on what waits are left as they are: of 2000 then about 200 are.
STREAMS = 2000


async def test_burst_of_streams_loses_none() -> None:
    arguments = ("--streams", str(STREAMS), "--connections", "4")
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()

    assert re.findall(r"^ *(\d+) (.+)$", out.decode(), re.MULTILINE)[1:] == [(str(STREAMS), "completed")], err.decode()
    assert process.returncode == 0

"""The Python pages' programs run as they stand, on the wheel, in an environment that has nothing else."""

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from interop.scenario import ROOT, Scenario
from interop.world import RealWorld
from warmline_simulator import Reply, Script, ev

# Where nothing is cached, the wheel's dependencies are loaded.
pytestmark = pytest.mark.timeout(300)

UV = ROOT / ".tools" / "bin" / "uv"
README = ROOT / "client_stubs" / "python" / "README.md"
PAGE = ROOT / "docs" / "clients" / "python.md"
ADDRESS = "127.0.0.1:50051"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel installed."""
    folder = tmp_path_factory.mktemp("wheel")
    for command in (
        (UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT),
        (UV, "venv", "--quiet", "--python", ROOT / ".venv" / "bin" / "python", folder / "venv"),
    ):
        subprocess.run(command, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    interpreter = folder / "venv" / "bin" / "python"
    subprocess.run([UV, "pip", "install", "--quiet", "--python", interpreter, wheel], check=True, cwd=folder)
    return interpreter


def program(page: Path) -> str:
    """The page's first program."""
    found = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert found is not None
    assert found[1].count(ADDRESS) == 1
    return found[1]


async def run(python: Path, page: Path, folder: Path) -> str:
    """Runs a page's program against the real server; returns what it prints."""
    script = Script(creates=[Reply(events=ev.text_response("Hello, world", response_id="resp_1"))])
    scenario = Scenario(name="quick_start", title="", peer="server", steps=(), script=script)
    async with RealWorld(scenario) as world:
        process = await asyncio.create_subprocess_exec(
            python, "-W", "error", "-c", program(page).replace(ADDRESS, world.address),
            cwd=folder, env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        printed, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert world.sim.problems() == []
    return printed.decode()


FIRST_LINES = "Hello, world\nresp_1, slot (ADOPTED|AWAITED), over WEBSOCKET\n"


async def test_readme_runs_on_the_wheel(python: Path, tmp_path: Path) -> None:
    assert re.fullmatch(FIRST_LINES, await run(python, README, tmp_path))


async def test_page_runs_on_the_wheel(python: Path, tmp_path: Path) -> None:
    printed = await run(python, PAGE, tmp_path)

    assert re.fullmatch(FIRST_LINES + r"INVALID_REQUEST \['input'\]\n", printed)


def test_wheel_has_types(python: Path, tmp_path: Path) -> None:
    code = "import warmline, pathlib; print((pathlib.Path(warmline.__file__).parent / 'py.typed').exists())"
    found = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)

    assert found.stdout == "True\n"

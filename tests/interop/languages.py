"""The languages and how their runners are built."""

import asyncio
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from interop.scenario import ROOT

TABLE = Path(__file__).with_name("languages.toml")
BUILD_S = 900.0


class BuildError(Exception):
    """A runner cannot be built. The text has the command and the end of what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One language's runner."""

    name: str
    present: Path
    """Exists when the repository has this language's client."""
    run: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Programs that must be on the path."""
    build: tuple[tuple[str, ...], ...] = ()
    cwd: Path = ROOT

    @property
    def cache(self) -> Path:
        """Folder of what was built; not committed."""
        return ROOT / ".cache" / "interop" / self.name

    @property
    def missing(self) -> list[str]:
        """Programs that it needs and this machine lacks."""
        return [program for program in self.needs if shutil.which(program) is None]


def present() -> dict[str, Language]:
    """The languages whose client is in the repository, in the table's order."""
    with TABLE.open("rb") as file:
        table = tomllib.load(file)
    made = (_language(name, fields) for name, fields in table.items())
    return {language.name: language for language in made if language.present.exists()}


async def build(language: Language) -> None:
    """Builds a language's runner; quick when nothing changed. Raises: BuildError. Cancel: the command is ended."""
    language.cache.mkdir(parents=True, exist_ok=True)
    for command in language.build:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=language.cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(BUILD_S):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            raise BuildError(f"build the {language.name} runner: {' '.join(command)}: {said.decode()[-4000:]}")


def _language(name: str, fields: dict[str, object]) -> Language:
    known = {"present", "needs", "build", "run", "cwd"}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"{TABLE.name}: [{name}]: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    places = {"{root}": str(ROOT), "{cache}": str(ROOT / ".cache" / "interop" / name), "{python}": sys.executable}

    def words(value: object) -> tuple[str, ...]:
        assert isinstance(value, list)
        filled = [str(word) for word in value]
        for place, path in places.items():
            filled = [word.replace(place, path) for word in filled]
        return tuple(filled)

    builds = fields.get("build", [])
    assert isinstance(builds, list)
    return Language(
        name=name,
        present=ROOT / str(fields["present"]),
        run=words(fields["run"]),
        needs=words(fields.get("needs", [])),
        build=tuple(words(command) for command in builds),
        cwd=ROOT / str(fields.get("cwd", ".")),
    )

"""Whether what is committed is what a generator makes."""

from pathlib import Path


def differing(committed: Path, made: Path) -> list[str]:
    """Files of either folder that the other lacks or has otherwise. Raises: AssertionError when nothing was made."""
    ours, theirs = _contents(committed), _contents(made)
    assert theirs, f"nothing was made in {made}"
    return sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}

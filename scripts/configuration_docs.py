"""Writes docs/configuration.md from the settings. A test fails while it is out of date."""

from pathlib import Path

from warmline_server.settings.manual import markdown

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"

if __name__ == "__main__":
    TARGET.write_text(markdown(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET}")

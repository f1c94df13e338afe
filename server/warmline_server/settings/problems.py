"""What is wrong with a configuration, as data. No text here ever holds a value that could be a secret."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one key.

    `key` is the dotted path, `found` and `expected` words about it, `hint` what to do (blank: nothing to add), `source`
    the file or variable that says it (blank: nobody does, and that is the problem).
    """

    key: str
    found: str
    expected: str
    hint: str = ""
    source: str = ""

    def __str__(self) -> str:
        where = f" in {self.source}" if self.source else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.key}{where}: found {self.found}, expected {self.expected}{hint}"


class SettingsError(Exception):
    """The configuration cannot be used. `problems` has every one that was found, at least one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"configuration not accepted: {self.problems[0]}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"configuration not accepted, {len(self.problems)} problems:{lines}"

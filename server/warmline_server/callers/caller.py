"""Who calls, as the rest of the server knows it, and why somebody is not believed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from warmline_server.core.errors import CallerError, Reason

# Longer names are no names, and every session holds its tenant's.
MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant` owns the sessions; `name` is for telemetry: which of the tenant's callers it is, blank when not told."""

    tenant: str
    name: str = ""


ANYBODY = Caller("")
"""All callers of a server without authentication."""


class Refused(Exception):
    """A caller is not believed. `why` is for the log, one of few fixed texts: it says nothing of what was shown.

    The caller itself is told only that it is not known: a nearer answer would help whoever is guessing.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def unauthenticated() -> CallerError:
    """What every refused caller is told, whatever was wrong."""
    return CallerError(Reason.UNAUTHENTICATED, "it is not known who calls: a valid token or certificate is missing")


class NamePattern:
    """How a tenant is read from a name: the whole name matches, and its first group, if there is one, is the tenant."""

    def __init__(self, pattern: str) -> None:
        """Args: `pattern` blank: the name is the tenant."""
        self._pattern = re.compile(pattern, re.DOTALL) if pattern else None

    def tenant(self, names: Iterable[str]) -> tuple[str, str]:
        """The tenant that exactly one of the names tells, and that name. Raises: Refused when none or several do."""
        found = [(tenant, name) for name in names if (tenant := self._read(name))]
        if len(found) != 1:
            raise Refused("names no tenant" if not found else "names several tenants")
        return found[0]

    def _read(self, name: str) -> str:
        if not (name.isprintable() and len(name) <= MAX_NAME):
            return ""
        if self._pattern is None:
            return name
        match = self._pattern.fullmatch(name)
        return "" if match is None else match[self._pattern.groups] or ""

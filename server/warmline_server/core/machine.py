"""A lifecycle as a table: what is not in the table cannot happen."""

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)


class IllegalTransition(Exception):
    """An event that its state does not allow; the machine is unchanged. A fault of ours, never of a peer."""

    def __init__(self, machine: str, state: Enum, event: str) -> None:
        super().__init__(machine, state, event)
        self.machine, self.state, self.event = machine, state, event

    def __str__(self) -> str:
        return f"{self.machine}: event {self.event!r} is not allowed in state {self.state.name}"


class Machine(Generic[S]):
    """Walks a table of (state, event) → state."""

    def __init__(self, name: str, start: S, transitions: Mapping[tuple[S, str], S]) -> None:
        self.name = name
        self.state = start
        self._transitions = transitions

    def step(self, event: str) -> S:
        """Goes where the table says.

        Returns: the new state.
        Raises: IllegalTransition, and stays where it was.
        """
        try:
            self.state = self._transitions[self.state, event]
        except KeyError:
            raise IllegalTransition(self.name, self.state, event) from None
        return self.state

    def can(self, event: str) -> bool:
        """Whether the table has the event in this state."""
        return (self.state, event) in self._transitions

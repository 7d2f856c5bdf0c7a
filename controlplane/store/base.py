"""The interface behind which the state is kept."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from controlplane.domain.state import State


class Store(Protocol):
    """One writer at a time; every save raises the generation by one.

    ``save`` must be durable when it returns, and a crash at any moment must leave the old or the new state,
    never a mixture and never nothing."""

    def load(self) -> State | None:
        """The newest state, or None where no array has been applied yet."""

    def save(self, state: State) -> State:
        """Keep ``state`` if its generation is the stored one; returns it with the next generation.

        Raises ``Conflict`` (STORE-002) when somebody else saved meanwhile."""

    def lock(self) -> AbstractContextManager[None]:
        """Hold the array for a change; raises ``Conflict`` (STORE-003) when another process does."""

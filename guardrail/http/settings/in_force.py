"""The guard of a process by the policies in force: made at first use, and anew with a reload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from guardrail.guard import AsyncGuard, Guard
from guardrail.http.settings.processes import PerProcess
from guardrail.http.settings.reloading import Reloading, Reloads
from guardrail.model.policy import PolicySet

G = TypeVar("G", Guard, AsyncGuard)


class InForce(Generic[G]):
    """Gives the guard, and replaces it by its successor when policies change.

    Safe between threads: of two reloads at once, the one that read the files later stands.
    """

    def __init__(self, make: Callable[[], G], reloading: Reloading | None) -> None:
        """Take what makes a guard of the policies of `reloading`, None for a host's own guard."""
        self._guard: PerProcess[G] = PerProcess(make)
        self._reloading = reloading

    def get(self) -> G:
        """Return this process's guard."""
        return self._guard.get()

    def taken(self) -> G | None:
        """Return the guard and forget it, None if this process has made none."""
        return self._guard.taken()

    @property
    def reloads(self) -> Reloads | None:
        """How reloads went so far; None where the guard is the host's own."""
        return None if self._reloading is None else self._reloading.reloads

    def due(self, now: float) -> bool:
        """Tell whether to `look` at `now`, and take it that the caller does."""
        return self._reloading is not None and self._reloading.due(now)

    def look(self) -> None:
        """Put policies in force whose files changed."""
        if self._reloading is not None:
            self._reloading.look(self._take)

    def load(self) -> None:
        """Put the policies in force as they stand in the files now."""
        if self._reloading is not None:
            self._reloading.load(self._take)

    def _take(self, policies: PolicySet) -> None:
        def successor(guard: G | None) -> G | None:
            after = None if guard is None else guard.with_policies(policies)
            # A guard made from here on is made of these.
            if self._reloading is not None:
                self._reloading.policies = policies
            return after

        self._guard.change(successor)

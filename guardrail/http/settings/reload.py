"""The guard of a process by the policies in force: made at first use, and anew with a reload.

Nothing of it is shared over a fork. Policies that change while they are served come in force whole,
or the old ones stay, and an alarm is given.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from guardrail.errors import GuardrailError, PolicyError
from guardrail.guard import AsyncGuard, Guard
from guardrail.loading import load_policies
from guardrail.model.policy import PolicySet
from guardrail.stores.forks import call_in_children

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value made when it is first asked for, anew in each process that asks."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._begin()
        call_in_children(self._begin)

    def _begin(self) -> None:
        # A lock that another thread held in the parent would never be free in its child.
        self._lock = threading.Lock()
        self.made: T | None = None
        """This process's value, None where it has made none."""

    def get(self) -> T:
        """Return this process's value."""
        made = self.made
        if made is not None:
            return made
        with self._lock:
            if self.made is None:
                self.made = self._make()
            return self.made

    def change(self, successor: Callable[[T | None], T | None]) -> None:
        """Replace this process's value, None where it has made none, by its successor."""
        with self._lock:
            after = successor(self.made)
            if after is not None:
                self.made = after

    def taken(self) -> T | None:
        """Return the value and forget it, None if this process has made none."""
        with self._lock:
            value, self.made = self.made, None
            return value


LOG = logging.getLogger("guardrail")

Stamps = tuple[tuple[str, int, int, int], ...]
REST, LONGEST_PAUSE = 0.05, 1.0
Take = Callable[[PolicySet], object]
"""Puts a policy set in force, or raises what stands against it."""


class Reloads(NamedTuple):
    """How often policies were loaded anew, how often that failed, and why it did at last.

    `problem` is None where the last attempt succeeded. `revision` is the one in force.
    """

    loaded: int
    failed: int
    problem: str | None
    revision: str


class Reloading:
    """Looks every so many seconds whether policy files changed, and loads them if they did.

    They are loaded once two looks, `REST` seconds apart, find them the same, so that files that
    are being copied are not taken half. A set that does not load whole, or that declares other
    facts than a directory was opened for, or that no guard can be made of, changes nothing: the
    revision in force stays, and is told.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        every: float,
        pause: Callable[[float], object] = time.sleep,
        *,
        beside: Sequence[Path] = (),
    ) -> None:
        """Load the policies that a door starts with.

        `every` is in seconds, 0 for never; `pause` waits between two looks at files that changed.
        `beside` are files that signals read: if one is replaced, policies are taken anew with it.

        Raises:
            PolicyError: they cannot be loaded.
        """
        self._paths = tuple(paths)
        self._beside = tuple(beside)
        self.every = every
        """How many seconds pass between two looks, 0 if none is made."""
        self._pause = pause
        self._lock = threading.Lock()
        self._next = 0.0
        # What changes while it is loaded is loaded again: stamps are taken before.
        self._taken = self._stamps()
        self.policies = load_policies(self._paths)
        self.keeps_facts = False
        self._loaded = self._failed = 0
        self._problem: str | None = None

    @property
    def reloads(self) -> Reloads:
        """How it went so far."""
        return Reloads(self._loaded, self._failed, self._problem, self.policies.revision)

    def due(self, now: float) -> bool:
        """Tell whether to look at `now`, and take it that the caller does."""
        if not self.every or 0 < self._next - now <= self.every:
            return False
        self._next = now + self.every
        return True

    def look(self, take: Take) -> None:
        """Have the new policies taken if the files changed, and they load.

        Returns once they are in force, or refused. Files that go on changing for `LONGEST_PAUSE`
        seconds are left for the next look.
        """
        with self._lock:
            stamps = self._stamps()
            if stamps == self._taken:
                return
            for _ in range(round(LONGEST_PAUSE / REST)):
                self._pause(REST)
                before, stamps = stamps, self._stamps()
                if stamps == before:
                    self._taken = stamps
                    self._load(take)
                    return

    def load(self, take: Take) -> None:
        """Have the policies taken as they stand in the files now, if they load."""
        with self._lock:
            self._taken = self._stamps()
            self._load(take)

    def _load(self, take: Take) -> None:
        before = self.policies
        try:
            found = load_policies(self._paths)
            if self.keeps_facts and found.facts != before.facts:
                self._refused("they declare other facts, and the directory gives those of before")
                return
            take(found)
        except GuardrailError as problem:
            self._refused(_first_line(problem))
        except Exception as problem:
            # Whatever stands in a file, requests go on by the policies in force.
            self._refused(repr(problem))
        else:
            self.policies = found
            self._loaded += 1
            self._problem = None
            LOG.info("policies %s are in force, after %s", found.revision, before.revision)

    def _refused(self, why: str) -> None:
        self._failed += 1
        self._problem = why
        LOG.error("policies were not reloaded, %s stays in force: %s", self.policies.revision, why)

    def _stamps(self) -> Stamps:
        return tuple(sorted(_stamped((*self._paths, *self._beside))))


def _stamped(paths: Sequence[Path]) -> Iterator[tuple[str, int, int, int]]:
    for path in paths:
        every = path.rglob("*") if path.is_dir() else (path,)
        for file in every:
            try:
                found = os.stat(file)
            except OSError:
                continue
            yield str(file), found.st_mtime_ns, found.st_size, found.st_ino


def _first_line(problem: GuardrailError) -> str:
    if isinstance(problem, PolicyError):
        return " ".join(str(problem).split("\n")[:2])
    return str(problem)


G = TypeVar("G", Guard, AsyncGuard)


class InForce(PerProcess[G]):
    """Gives the guard, and replaces it by its successor when policies change.

    Safe between threads: of two reloads at once, the one that read the files later stands.
    """

    def __init__(self, make: Callable[[], G], reloading: Reloading | None) -> None:
        """Take what makes a guard of the policies of `reloading`, None for a host's own guard."""
        super().__init__(cast(Callable[[], Any], make))
        self._reloading = reloading
        self.looks = reloading is not None and reloading.every > 0
        """Whether files are ever looked at by themselves."""

    def ready(self) -> G | None:
        """Return the guard, None where it is to be made, or to be seen whether policies changed."""
        return None if self.looks else self.made

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

        self.change(successor)

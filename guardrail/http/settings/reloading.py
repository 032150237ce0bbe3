"""Policies that change while they are served: the new set whole, or the old one and an alarm."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from guardrail.errors import GuardrailError, PolicyError
from guardrail.loading import load_policies
from guardrail.model.policy import PolicySet

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
        self._every = every
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
        if not self._every or 0 < self._next - now <= self._every:
            return False
        self._next = now + self._every
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

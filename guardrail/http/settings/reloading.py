"""Policies that change while they are served: the new set whole, or the old one and an alarm."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from guardrail.errors import GuardrailError, PolicyError
from guardrail.loading import load_policies
from guardrail.model.policy import PolicySet

LOG = logging.getLogger("guardrail")

Stamps = tuple[tuple[str, int, int, int], ...]


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

    They are loaded when two looks in a row find them the same, so that files that are being
    copied are not taken half. A set that does not load whole, or that declares other facts than
    a directory was opened for, changes nothing: the revision in force stays, and is told.
    """

    def __init__(self, paths: Sequence[Path], every: float, policies: PolicySet) -> None:
        self._paths = tuple(paths)
        self._every = every
        self._lock = threading.Lock()
        self._next = 0.0
        self._taken = self._seen = self._stamps()
        self.policies = policies
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

    def look(self) -> PolicySet | None:
        """Return the new policies if the files changed; None if not, or if they do not load."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            stamps, before = self._stamps(), self._seen
            self._seen = stamps
            if stamps == self._taken or stamps != before:
                return None
            self._taken = stamps
            return self._load()
        finally:
            self._lock.release()

    def load(self) -> PolicySet | None:
        """Return the policies as they stand in the files now, None if they do not load."""
        with self._lock:
            self._taken = self._seen = self._stamps()
            return self._load()

    def _load(self) -> PolicySet | None:
        try:
            found = load_policies(self._paths)
        except GuardrailError as problem:
            self._refused(_first_line(problem))
            return None
        if self.keeps_facts and found.facts != self.policies.facts:
            self._refused("they declare other facts, and the directory gives those of before")
            return None
        self._loaded += 1
        self._problem = None
        LOG.info("policies %s are in force, after %s", found.revision, self.policies.revision)
        self.policies = found
        return found

    def _refused(self, why: str) -> None:
        self._failed += 1
        self._problem = why
        LOG.error("policies were not reloaded, %s stays in force: %s", self.policies.revision, why)

    def _stamps(self) -> Stamps:
        return tuple(sorted(_stamped(self._paths)))


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

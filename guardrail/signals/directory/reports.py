"""What an operator is told of a source of identities: that it fails, at once, and since when."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Lock
from types import TracebackType
from typing import NamedTuple

from guardrail.model.facts import Fact

LOG = logging.getLogger("guardrail")

STATUS = "enforcement.status"
"""The fact in which a directory tells restrictions and bans."""

REPORT_EVERY = 60.0
"""Seconds between two lines about one and the same fault, while it lasts."""

_MOST_FAULTS = 16


class SourceHealth(NamedTuple):
    """How a source of identities is doing, for metrics.

    `failures` counts those since the start; `failing` tells that it has not recovered;
    `bans_waiting` is how many restrictions were written and are not in force.
    """

    failures: int = 0
    failing: bool = False
    bans_waiting: int = 0


class Reports:
    """Counts a source's failures, and logs each kind of them at once, then once a minute.

    Times are those of requests, in seconds since the epoch.
    """

    __slots__ = ("_advice", "_failing", "_failures", "_lock", "_said", "_what")

    def __init__(self, what: str, advice: str) -> None:
        """Take what the source is called, and what an operator can do about it."""
        self._what = what
        self._advice = advice
        self._lock = Lock()
        self._said: dict[str, float] = {}
        self._failures = 0
        self._failing = False

    @property
    def health(self) -> SourceHealth:
        """How the source is doing."""
        return SourceHealth(self._failures, self._failing)

    def record(self, failure: str | None, now: float) -> None:
        """Take what became of a call: None where it was answered."""
        with self._lock:
            if failure is None:
                recovered, self._failing = self._failing, False
                if not recovered or not self._is_due("", now):
                    return
            else:
                self._failures += 1
                self._failing = True
                if not self._is_due(failure, now):
                    return
        if failure is None:
            LOG.warning("%s answers again", self._what)
        else:
            LOG.error("%s failed: %s; %s", self._what, failure, self._advice)

    def unlisted(self, facts: Iterable[Fact], now: float) -> None:
        """Say, at once and then once a minute, of which facts a value was told that is unknown.

        The decision takes it as missing. Where it may have been a ban, that is an alarm.
        """
        for fact in facts:
            with self._lock:
                due = self._is_due(fact.name, now)
            if due:
                level = logging.CRITICAL if fact.name == STATUS else logging.ERROR
                lost = ", and a ban is perhaps not in force" if fact.name == STATUS else ""
                LOG.log(
                    level,
                    "%s tells a value of `%s` that is none of its values: it counts as missing%s; "
                    "the values are %s",
                    self._what,
                    fact.name,
                    lost,
                    ", ".join(f"`{value}`" for value in fact.values),
                )

    def _is_due(self, line: str, now: float) -> bool:
        at = self._said.get(line)
        if at is not None and abs(now - at) < REPORT_EVERY:
            return False
        if at is None and len(self._said) >= _MOST_FAULTS:
            self._said.pop(next(iter(self._said)))
        self._said[line] = now
        return True


def place_of(problem: BaseException) -> str:
    """Return an exception's type and where it was raised; its text may hold what is secret."""
    trace: TracebackType | None = problem.__traceback__
    name = type(problem).__name__
    if trace is None:
        return name
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{name} in {file}, line {trace.tb_lineno}"

"""Whether one process's memory is enough: what to say where counters have to outlive or span it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping

from guardrail.guard.shares import WORKERS, workers_from
from guardrail.model.amounts import HOUR
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule

_NAMED = 3


class MemoryNotice:
    """What an operator should know about counters that are kept in a process's memory.

    `chosen` tells that memory was asked for by name: that it forgets at restart is then known.
    """

    def __init__(self, policies: PolicySet, environ: Mapping[str, str], *, chosen: bool) -> None:
        self._environ = environ
        self._process = os.getpid()
        long = [rule.id for rule in policies.rules if rule.mode is not Mode.OFF and _long(rule)]
        self._forgets = None if chosen or not long else _forgets(long)

    def lines(self) -> tuple[str, ...]:
        """Return the warnings that hold now, in this process."""
        return tuple(self._lines())

    def _lines(self) -> Iterator[str]:
        if self._forgets is not None:
            yield self._forgets
        sign = self._sign()
        if sign is not None:
            yield (
                f"this looks like one of several processes ({sign}), and each counts for itself "
                "in its memory, so that limits hold once for each: give `store=` a store that "
                f"they share, or set `{WORKERS}=1` if it is the only one"
            )

    def _sign(self) -> str | None:
        workers = workers_from(self._environ)
        if workers is not None:
            return None if workers == 1 else f"`{WORKERS}` is `{workers}`"
        if os.getpid() != self._process:
            return "it was forked after the policies were loaded"
        if multiprocessing.parent_process() is not None:
            return "another process started it, as `uvicorn --workers` does"
        if self._environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/"):
            return "gunicorn started it"
        return None


def _long(rule: Rule) -> bool:
    """Tell whether what a rule has counted still matters after an hour."""
    if rule.escalate is not None and rule.escalate.block_for > HOUR:
        return True
    return rule.verb.lasts > HOUR


def _forgets(rules: list[str]) -> str:
    named = ", ".join(f"`{rule}`" for rule in rules[:_NAMED])
    more = f" and {len(rules) - _NAMED} more" if len(rules) > _NAMED else ""
    return (
        f"counters are kept in memory and forgotten at restart, and {named}{more} count for longer "
        'than an hour: give `store=` a store that lasts, or say `store="memory://"` if that is '
        "meant"
    )

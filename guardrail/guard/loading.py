"""Making a guard, from paths, a store and the environment; and whether memory is store enough."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Generic, Self, TypeVar, cast

from guardrail.engine import Decision
from guardrail.guard.context import Clock, Context, microseconds, standard_signals
from guardrail.guard.fallback import WORKERS, workers_from
from guardrail.guard.precheck import Precheck
from guardrail.guard.supervisor import Delivery, Health, Supervisor
from guardrail.model.amounts import HOUR
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule
from guardrail.signals import Ageing, Signal
from guardrail.stores import AsyncStore, Store
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore
from guardrail.stores.naming import hash_keys

Paths = str | Path | Sequence[str | Path]
HashKeys = bytes | Sequence[bytes]
S = TypeVar("S", Store, Store | AsyncStore)

MEMORY = "memory://"


class BaseGuard(Generic[S]):
    """What both guards are made from: a context and a store."""

    def __init__(self, context: Context, store: S, supervisor: Supervisor | None = None) -> None:
        self._context = context
        self._store: S = store
        in_process = isinstance(store, (MemoryStore, AsyncMemoryStore))
        self._supervisor = supervisor or Supervisor(
            context,
            in_process=in_process,
            undoes=in_process or hasattr(store, "lost"),
            logs=not getattr(store, "is_meant_to_fail", False),
        )
        context.link(self._counting, self._supervisor)
        self._notice: MemoryNotice | None = None

    @classmethod
    def load(
        cls,
        path: Paths,
        *,
        store: str | S | None = None,
        geo: str | Path | None = None,
        signals: Sequence[Signal] = (),
        namespace: str | None = None,
        hash_key: HashKeys | None = None,
        local_share: Fraction | None = None,
        clock: Clock = time.time,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a guard for the policy files under a path, or several.

        `store` is a URI or a store, else memory, with a warning logged if that is not enough.
        `geo` is a country database (MaxMind layout) instead of the embedded one; `signals` are
        further sources of facts; `namespace` sets counters apart. Stores outside the process see
        only hashes by `hash_key` (or several, the current one first; else the environment's).
        `local_share`, such as `Fraction(1, 4)`, is the part of each limit to fill alone while the
        store is away. `clock` gives seconds since the epoch, `environ` is the environment.

        Raises:
            PolicyError: the files cannot be loaded; it lists everything that is wrong.
            DataError: the geo database cannot be read.
            SettingError: an argument or an environment variable is not usable.
        """
        # The loader of YAML costs more than all else to import: a host that is handed policies, or
        # imports guardrail for its types, does without.
        from guardrail.loading import load_policies

        guard = cls.from_policies(
            load_policies([path] if isinstance(path, (str, Path)) else list(path)),
            store=MEMORY if store is None else store,
            geo=geo,
            signals=signals,
            namespace=namespace,
            hash_key=hash_key,
            local_share=local_share,
            clock=clock,
            environ=environ,
        )
        return guard._looked_after(os.environ if environ is None else environ, store is not None)

    @classmethod
    def from_policies(
        cls,
        policies: PolicySet,
        *,
        store: str | S = MEMORY,
        geo: str | Path | None = None,
        signals: Sequence[Signal] = (),
        namespace: str | None = None,
        hash_key: HashKeys | None = None,
        local_share: Fraction | None = None,
        clock: Clock = time.time,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a guard for a loaded policy set; the arguments are those of `load`."""
        environment: Mapping[str, str] = os.environ if environ is None else environ
        opened: S = cast(S, store)
        if isinstance(store, str):
            from guardrail.stores.opening import open_store

            opened = open_store(store, hash_keys(hash_key, environment))
        context = Context(
            policies,
            signals=(*signals, *standard_signals(geo, environment)),
            namespace=namespace,
            clock=skewed(clock, opened),
            environ=environment,
            local_share=local_share,
            host_clock=clock,
        )
        return cls(context, opened)

    @property
    def policies(self) -> PolicySet:
        """The policy set in force."""
        return self._context.policies

    @cached_property
    def precheck(self) -> Precheck:
        """What the head of a request settles alone, before its body is read: call it."""
        return Precheck(self._context)

    @property
    def used_facts(self) -> frozenset[str]:
        """The names of the facts that decisions depend on."""
        return self._context.engine.used_facts

    @property
    def signal_facts(self) -> frozenset[str]:
        """The names of the facts that signals establish others from."""
        return frozenset().union(*(signal.needs for signal in self._context.signals))

    def unasked_signals(self, names: frozenset[str]) -> tuple[Signal, ...]:
        """Return, in order, the signals for some of these facts that no rule needs."""
        return self._context.unasked(names)

    def established(self, facts: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the facts with those of the signals at `now` (seconds).

        Whom an account acts as is left out: that depends on the requests before.
        """
        return self._context.known(facts, now, self._context.actor_signals)[0]

    def begin_day(self, now: float) -> None:
        """Let go of all links that have expired by `now` (seconds), in this process's memory.

        A server does so little by little. A replay does it with the first request of each day, so
        that what becomes of one account does not depend on how many others ask.
        """
        self._context.begin_day(now)

    @property
    def local_share(self) -> Fraction:
        """The part of each limit that this process may fill while the store is away."""
        return Fraction(1, self._context.parts)

    @property
    def health(self) -> Health:
        """How the store is doing, and what was lost because of it."""
        lost = getattr(self._counting, "lost", 0)
        moment: float = self._context.moment(None)
        warnings = (*self._store_warnings(moment), *self._context.link_warnings(moment))
        return self._supervisor.health(warnings, lost)

    def warnings(self, *, now: float | None = None) -> tuple[str, ...]:
        """Return what an operator should know: a source of facts has grown old, say."""
        moment: float = self._context.moment(now)
        lines: tuple[str, ...] = () if self._notice is None else self._notice.lines()
        return (*self._context.warnings(moment), *self._store_warnings(moment), *lines)

    def _releasing(self, decision: Decision, now: float | None) -> Delivery | None:
        """Return what to send so that a decision has charged nothing; it is settled then."""
        moment = microseconds(self._context.moment(now))
        return self._supervisor.delivery(decision, self._context.release(decision), moment)

    def _renewing(self, decision: Decision, now: float | None) -> Delivery | None:
        """Return what to send so that the leases of a decision last on from now."""
        moment = microseconds(self._context.moment(now))
        renewals = self._context.renewal(decision, moment)
        return self._supervisor.delivery(decision, renewals, moment)

    @property
    def _counting(self) -> object:
        """The store that is asked, which counts what it has lost."""
        return self._store

    def _store_warnings(self, moment: float) -> tuple[str, ...]:
        store: object = self._store
        return store.warnings(moment) if isinstance(store, Ageing) else ()

    def _looked_after(self, environ: Mapping[str, str], chosen: bool) -> Self:
        if isinstance(self._store, (MemoryStore, AsyncMemoryStore)):
            self._notice = MemoryNotice(self.policies, environ, chosen=chosen)
            for line in self._notice.lines():
                logging.getLogger("guardrail").warning("%s", line)
        return self


def skewed(clock: Clock, store: object) -> Clock:
    """Return the clock to decide by: the host's, or what a store that has a clock makes of it."""
    set_right: Callable[[Clock], Clock] | None = getattr(store, "skewed", None)
    return clock if set_right is None else set_right(clock)


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
    counts = "counts" if len(rules) == 1 else "count"
    return (
        f"counters are kept in memory and forgotten at restart, and {named}{more} {counts} for "
        'longer than an hour: give `store=` a store that lasts, or say `store="memory://"` if that '
        "is meant"
    )

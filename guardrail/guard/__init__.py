"""The guard a host embeds: it reads the clock, asks the signals, calls the store, and decides."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from guardrail.engine import Decision
from guardrail.engine.fused import Decide, fuse
from guardrail.errors import StoreError
from guardrail.guard.frame import LATEST, Clock, Frame, microseconds
from guardrail.guard.sources import standard_signals
from guardrail.loading import load_policies
from guardrail.model.policy import PolicySet
from guardrail.signals import Signal
from guardrail.stores import AsyncStore, Store
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore
from guardrail.stores.opening import open_store

Paths = str | Path | Sequence[str | Path]


class Guard:
    """Decides on requests, with counters in a store.

    Safe to share between threads. Use `Guard.load`, or `Guard.from_policies` for a set that is
    loaded already.
    """

    def __init__(self, frame: Frame, store: Store) -> None:
        self._frame = frame
        self._store = store
        self._signals = frame.signals
        self._clock = frame.clock
        self._decide: Decide = self._steps
        if isinstance(store, MemoryStore) and not frame.overridden:
            self._decide = fuse(frame.engine, store, self._steps, LATEST)

    @classmethod
    def load(
        cls,
        path: Paths,
        *,
        store: str | Store = "memory://",
        geo: str | Path | None = None,
        signals: Sequence[Signal] = (),
        namespace: str | None = None,
        clock: Clock = time.time,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a guard for the policy files under a path, or several.

        `store` is a URI or a store; `geo` a country database (MaxMind layout) instead of the
        embedded one; `signals` further sources of facts; `namespace` sets counters apart from
        those of the same policy elsewhere; `clock` gives seconds since the epoch.

        Raises:
            PolicyError: the files cannot be loaded; it lists everything that is wrong.
            DataError: the geo database cannot be read.
            SettingError: an argument or an environment variable is not usable.
        """
        return cls.from_policies(
            load_policies([path] if isinstance(path, (str, Path)) else path),
            store=store,
            geo=geo,
            signals=signals,
            namespace=namespace,
            clock=clock,
            environ=environ,
        )

    @classmethod
    def from_policies(
        cls,
        policies: PolicySet,
        *,
        store: str | Store = "memory://",
        geo: str | Path | None = None,
        signals: Sequence[Signal] = (),
        namespace: str | None = None,
        clock: Clock = time.time,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a guard for a loaded policy set; see `load`."""
        environ = os.environ if environ is None else environ
        frame = Frame(
            policies,
            signals=(*signals, *standard_signals(policies, geo, environ)),
            namespace=namespace,
            clock=clock,
            environ=environ,
        )
        return cls(frame, open_store(store) if isinstance(store, str) else store)

    @property
    def policies(self) -> PolicySet:
        """The policy set in force."""
        return self._frame.policies

    def decide(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None = None,
        *,
        now: float | None = None,
    ) -> Decision:
        """Return the decision on a request, and charge its estimate if it is admitted.

        `facts` is a flat mapping of dotted names to plain values, `estimate` maps units to
        amounts, `now` is in seconds since the epoch (the guard's clock if not given). The
        mappings must not be changed until the decision is settled.

        Raises:
            SettingError: `now` is not a time.
        """
        moment = self._clock() if now is None else now
        if self._signals:
            facts, unavailable = self._frame.known(facts, moment)
            if unavailable:
                return self._steps(facts, estimate, moment, unavailable)
        return self._decide(facts, estimate, moment)

    def _steps(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
        unavailable: frozenset[str] = frozenset(),
    ) -> Decision:
        """Decide in three steps: plan, acquire, conclude."""
        frame = self._frame
        case, plan, serial = frame.plan(facts, estimate, moment, unavailable)
        if not frame.needs_store(plan):
            return frame.concluded(case, plan, None, serial)
        try:
            outcome = self._store.acquire(plan.charges, plan.cells, plan.now)
        except StoreError as problem:
            return frame.closed(case, plan, serial, problem)
        return frame.concluded(case, plan, outcome, serial)

    def settle(
        self,
        decision: Decision,
        usage: Mapping[str, object] | None = None,
        *,
        model: str | None = None,
        now: float | None = None,
    ) -> None:
        """Replace a decision's estimate by what was used; a second time does nothing.

        `usage` maps units to amounts; what it lacks stays as reserved. `model` is the one that
        was served, where money is counted. Unusable figures are named in `decision.errors`.
        """
        moment = microseconds(self._frame.moment(now))
        corrections, notes = decision.settlement(usage or {}, model)
        if decision.settle_once(notes) and corrections:
            self._store.settle(corrections, moment)

    def release(self, decision: Decision, *, now: float | None = None) -> None:
        """Give everything back: the request failed, before anything was served, by our fault."""
        moment = microseconds(self._frame.moment(now))
        corrections = decision.release()
        if decision.settle_once() and corrections:
            self._store.settle(corrections, moment)

    def renew(self, decision: Decision, *, now: float | None = None) -> None:
        """Extend the decision's leases from now on: the request is still being served."""
        moment = microseconds(self._frame.moment(now))
        if not decision.settled:
            self._store.settle(decision.renewal(moment), moment)

    def close(self) -> None:
        """Let go of files and connections."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

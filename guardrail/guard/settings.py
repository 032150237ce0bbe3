"""Making a guard: from paths, a store and the environment to its parts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Generic, Self, TypeVar, cast

from guardrail.guard.frame import Clock, Frame
from guardrail.guard.health import Health
from guardrail.guard.sources import standard_signals
from guardrail.guard.watch import Watch
from guardrail.guard.workers import MemoryNotice
from guardrail.model.policy import PolicySet
from guardrail.signals import Ageing, Signal
from guardrail.stores import AsyncStore, Store
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore
from guardrail.stores.naming import hash_keys

Paths = str | Path | Sequence[str | Path]
HashKeys = bytes | Sequence[bytes]
S = TypeVar("S", Store, Store | AsyncStore)

MEMORY = "memory://"


class Shell(Generic[S]):
    """What both guards are made from: a frame and a store."""

    def __init__(self, frame: Frame, store: S, watch: Watch | None = None) -> None:
        self._frame = frame
        self._store: S = store
        in_process = isinstance(store, (MemoryStore, AsyncMemoryStore))
        self._watch = watch or Watch(
            frame, in_process=in_process, undoes=in_process or hasattr(store, "lost")
        )
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
        frame = Frame(
            policies,
            signals=(*signals, *standard_signals(geo, environment)),
            namespace=namespace,
            clock=skewed(clock, opened),
            environ=environment,
            local_share=local_share,
            host_clock=clock,
        )
        return cls(frame, opened)

    @property
    def policies(self) -> PolicySet:
        """The policy set in force."""
        return self._frame.policies

    @property
    def local_share(self) -> Fraction:
        """The part of each limit that this process may fill while the store is away."""
        return Fraction(1, self._frame.parts)

    @property
    def health(self) -> Health:
        """How the store is doing, and what was lost because of it."""
        lost = getattr(self._counting, "lost", 0)
        return self._watch.health(self._store_warnings(self._frame.moment(None)), lost)

    def warnings(self, *, now: float | None = None) -> tuple[str, ...]:
        """Return what an operator should know: a source of facts has grown old, say."""
        moment: float = self._frame.moment(now)
        lines: tuple[str, ...] = () if self._notice is None else self._notice.lines()
        return (*self._frame.warnings(moment), *self._store_warnings(moment), *lines)

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
    """Return the clock that a store goes by: the host's, and the store's `skew`, if it has one."""
    if not hasattr(store, "skew"):
        return clock
    return lambda: clock() + store.skew

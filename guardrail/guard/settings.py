"""Making a guard: from paths, a store and the environment to its parts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, Self, TypeVar

from guardrail.guard.frame import Clock, Frame
from guardrail.guard.sources import standard_signals
from guardrail.loading import load_policies
from guardrail.model.policy import PolicySet
from guardrail.signals import Signal
from guardrail.stores import AsyncStore, Store
from guardrail.stores.naming import hash_keys
from guardrail.stores.opening import open_store

Paths = str | Path | Sequence[str | Path]
S = TypeVar("S", Store, Store | AsyncStore)


class Shell(Generic[S]):
    """What both guards are made from: a frame and a store."""

    def __init__(self, frame: Frame, store: S) -> None:
        self._frame = frame
        self._store: S = store

    @classmethod
    def load(
        cls,
        path: Paths,
        *,
        store: str | S = "memory://",
        geo: str | Path | None = None,
        signals: Sequence[Signal] = (),
        namespace: str | None = None,
        hash_key: bytes | None = None,
        clock: Clock = time.time,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a guard for the policy files under a path, or several.

        `store` is a URI or a store; `geo` a country database (MaxMind layout) instead of the
        embedded one; `signals` further sources of facts; `namespace` sets counters apart from
        those of the same policy elsewhere. `hash_key` is for stores that keep identifiers outside
        this process: they see only keyed hashes. `clock` gives seconds since the epoch, `environ`
        stands for the process's environment.

        Raises:
            PolicyError: the files cannot be loaded; it lists everything that is wrong.
            DataError: the geo database cannot be read.
            SettingError: an argument or an environment variable is not usable.
        """
        return cls.from_policies(
            load_policies([path] if isinstance(path, (str, Path)) else list(path)),
            store=store,
            geo=geo,
            signals=signals,
            namespace=namespace,
            hash_key=hash_key,
            clock=clock,
            environ=environ,
        )

    @classmethod
    def from_policies(
        cls,
        policies: PolicySet,
        *,
        store: str | S = "memory://",
        geo: str | Path | None = None,
        signals: Sequence[Signal] = (),
        namespace: str | None = None,
        hash_key: bytes | None = None,
        clock: Clock = time.time,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a guard for a loaded policy set; the arguments are those of `load`."""
        environment: Mapping[str, str] = os.environ if environ is None else environ
        frame = Frame(
            policies,
            signals=(*signals, *standard_signals(geo, environment)),
            namespace=namespace,
            clock=clock,
            environ=environment,
        )
        if isinstance(store, str):
            return cls(frame, open_store(store, hash_keys(hash_key, environment)))
        return cls(frame, store)

    @property
    def policies(self) -> PolicySet:
        """The policy set in force."""
        return self._frame.policies

    def warnings(self, *, now: float | None = None) -> tuple[str, ...]:
        """Return what an operator should know: a source of facts has grown old, say."""
        return self._frame.warnings(self._frame.moment(now))

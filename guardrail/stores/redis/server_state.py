"""What a process knows of its server: the time there, whose names are in force, how full it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import SECOND
from guardrail.stores.naming import SHORTEST_OVERLAP, Naming, Timetable, timetable_for
from guardrail.stores.redis.protocol import (
    CallContext,
    Commands,
    Names,
    Preconditions,
    load_link_scripts,
    load_scripts,
    slot_of,
)

REFRESH, AGAIN, STALE = 10.0, 1.0, 25.0
"""Seconds after which the server is asked anew once a decision is made, again if it did not answer,
and before a decision is made."""
GOOD_FOR = SHORTEST_OVERLAP // 2
"""How long names may be used after the server was asked for them, in microseconds of its clock.

A change is announced further ahead, so that no process, however long it was stopped, charges the
records of an epoch that is over.
"""
DRIFT = 0.001
"""How much slower than the server's this host's clock is reckoned to run, at the worst."""
SKEW_TOLD = 0.25
AHEAD = 2 * SECOND
"""How far a decision's time may be ahead of the server's clock, in microseconds."""
BYTES_A_KEY = 256
"""What a key is reckoned to take when the bound of unknown keys follows from `maxmemory`."""

_REPLACE = b"""
local old = redis.call('GET', KEYS[1]) or ''
if old ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a store on servers is opened with, besides their address.

    `keys` are the hash keys, current first; `overlap` (microseconds) is how long two epochs
    share counters; `bound` caps keys before unknown ones spill (None: half of `maxmemory`).
    `host_clock` leaves the server's clock out of it; `evicting` accepts a server that evicts.
    """

    keys: Sequence[bytes]
    layouts: Sequence[int]
    prefix: str
    overlap: int
    bound: int | None
    host_clock: bool
    evicting: bool


class ServerState:
    """What was last learnt of the server; `clock` is the host's, `steady` never steps.

    What it says without asking holds for `STALE` seconds; whoever uses it has it refreshed.
    """

    def __init__(
        self,
        options: StoreOptions,
        *,
        clock: Callable[[], float],
        steady: Callable[[], float],
        is_cluster: bool,
    ) -> None:
        self._options = options
        self._clock = clock
        self._steady = steady
        self._is_cluster = is_cluster
        self.shared: set[str] = set()
        """The idents of counters that accounts share."""
        self._names = {
            naming.epoch: Names(naming, options.prefix, self.shared)
            for layout in options.layouts
            for naming in (Naming(key, layout) for key in options.keys)
        }
        self._meta = f"{options.prefix}:{{meta}}".encode()
        self._table: Timetable | None = None
        self._server, self._sampled, self._tried = 0.0, -1e9, -1e9
        self._surely = self._ended = 0.0
        self._step = 0.0
        self._invalid = False
        self._bound = options.bound
        self._context: CallContext | None = None
        self._until = 0.0
        self._knows_flags = False
        self.scripts = load_scripts()
        self.link_scripts = load_link_scripts()

    @property
    def slot(self) -> int:
        """The slot of the server that keeps the store's own record."""
        return slot_of(self._meta) if self._is_cluster else 0

    @property
    def links_slot(self) -> int:
        """The slot of links, and of the counters that accounts share."""
        return slot_of(f"{self._options.prefix}:{{links}}".encode()) if self._is_cluster else 0

    @property
    def known(self) -> bool:
        """Whether the server was ever asked."""
        return self._table is not None

    @property
    def due(self) -> bool:
        """Whether the server should be asked anew, after the next decision."""
        now = self._steady()
        return self._invalid or now - max(self._sampled + REFRESH, self._tried + AGAIN) > 0

    @property
    def stale(self) -> bool:
        """Whether the server must be asked anew, before the next decision."""
        return self._invalid or self._steady() - self._sampled > STALE

    def invalidate(self) -> None:
        """Have the server asked before the next decision: what is known of its clock is wrong."""
        self._invalid = True

    @property
    def server_time(self) -> float:
        """The time on the server's clock, as far as is known, in seconds since the epoch."""
        return self._server + self._steady() - self._sampled

    def skewed(self, clock: Callable[[], float]) -> Callable[[], float]:
        """Return a clock, set right by as much as this host's is off the server's."""

        def moment() -> float:
            if self._options.host_clock or self._table is None:
                return clock()
            return clock() + self.server_time - self._clock()

        return moment

    def warnings(self) -> tuple[str, ...]:
        """Return what an operator should know."""
        if self._options.host_clock or abs(self._step) <= SKEW_TOLD:
            return ()
        side = "behind" if self._step > 0 else "ahead of"
        return (
            f"this host's clock is {abs(self._step):.3g} s {side} the store's: guardrail goes by "
            "the store's; set this host's clock",
        )

    def current(self) -> CallContext | None:
        """Return how calls are made now, None if the server must be asked first.

        Raises:
            StoreError: the server has gone over to names unknown here.
        """
        now, context = self._steady(), self._context
        if self._invalid or now - self._sampled > STALE:
            return None
        return context if context is not None and now < self._until else self.context()

    def context(self) -> CallContext:
        """Return how calls are made now.

        Raises:
            StoreError: the server was not asked yet, or has gone over to names unknown here.
        """
        now, context = self._steady(), self._context
        if context is None or now >= self._until:
            context = self._context = self._chosen(now)
        return context

    def _chosen(self, steady: float) -> CallContext:
        table = self._table
        if table is None:
            raise StoreError("the store was not reached yet")
        # Nobody takes an old record over before all others are kept from writing to it.
        now = int((self._surely + (steady - self._ended) * (1 - DRIFT)) * SECOND)
        upcoming = table.at if table.upcoming is not None else 0
        left = upcoming - now if upcoming > now else 60 * SECOND
        self._until = steady + left / SECOND / (1 - DRIFT)
        table = table.at_time(now)
        for epoch in table.needed(now):
            if epoch not in self._names:
                raise StoreError(
                    f"the store has gone over to hash key `{epoch.key}`, layout {epoch.layout}, "
                    "which this process does not have: restart it with the new settings"
                )
        names, *former = (self._names[epoch] for epoch in table.needed(now))
        ahead = before = -1
        if not self._options.host_clock:
            good = int(self._surely * SECOND) + GOOD_FOR
            ahead, before = AHEAD, good if table.upcoming is None else min(good, table.at)
        conditions = Preconditions(ahead, before, -1 if self._bound is None else self._bound)
        scripts = self.scripts
        settle = scripts.settle_full if self._knows_flags else scripts.settle
        return CallContext(
            names,
            former[0] if former else None,
            conditions,
            scripts.acquire,
            settle,
            self._is_cluster,
        )

    def refresh(self) -> Commands:
        """Ask the server for its time and the store's own record, and announce what is new here.

        Raises:
            SettingError: this process lacks what the records need.
        """
        began = self._tried = self._steady()
        clock = self._clock()
        if self._options.host_clock:
            moment = clock
        else:
            answer = yield ("TIME",)
            seconds, micros = (int(part) for part in _list(answer))
            moment = seconds + micros / SECOND
        ended = self._steady()
        server = moment - (0 if self._options.host_clock else (ended - began) / 2)
        for _ in range(3):
            recorded = yield ("GET", self._meta)
            text = recorded if isinstance(recorded, bytes) else b""
            table = timetable_for(
                Timetable.read(text) if text else None,
                list(self._names),
                int(server * SECOND),
                self._options.overlap,
            )
            new = table.text().encode()
            if new == text:
                break
            done = yield ("EVAL", _REPLACE, b"1", self._meta, text, new)
            if done == 1:
                break
        self._table, self._context = table, None
        self._server, self._sampled = server, began
        self._surely, self._ended = moment, ended
        self._step, self._invalid = server - clock, False

    def check(self) -> Commands:
        """Ask a server, just connected to, whether it can be trusted with counters.

        Raises:
            SettingError: it may evict them, or is another kind of server than the URI says.
        """
        answer = yield ("INFO", "server")
        about = _facts(answer)
        mode = about.get("redis_mode", about.get("server_mode", ""))
        if (mode == "cluster") != self._is_cluster and mode:
            said = "is part of a cluster" if mode == "cluster" else "is no part of a cluster"
            scheme = "redis+cluster" if mode == "cluster" else "redis"
            raise SettingError(f"the server {said}: write `{scheme}://` for it")
        # Redis and Valkey know the flags of scripts from version 7 on.
        version = about.get("valkey_version", about.get("redis_version", "0"))
        self._knows_flags = int(version.split(".")[0]) >= 7
        answer = yield ("INFO", "memory")
        memory = _facts(answer)
        policy, most = memory.get("maxmemory_policy", ""), int(memory.get("maxmemory", "0"))
        if policy not in ("", "noeviction") and not self._options.evicting:
            raise SettingError(
                f"the server's `maxmemory-policy` is `{policy}`: it would drop counters and let "
                "spent limits start anew; set it to `noeviction`, or accept that with "
                "`?evicting=yes`"
            )
        if self._options.bound is None:
            self._bound = most // 2 // BYTES_A_KEY if most else None
        self._context = None


def _list(reply: object) -> Sequence[bytes]:
    if isinstance(reply, list):
        return reply
    raise StoreError(f"the server answered `{reply!r}` when asked for its time")


def _facts(reply: object) -> Mapping[str, str]:
    if not isinstance(reply, bytes):
        raise StoreError(f"the server answered `{reply!r}` when asked about itself")
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, sign, value in lines if sign}

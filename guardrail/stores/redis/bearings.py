"""What a process knows of its server: the time there, whose names are in force, how full it is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import SECOND
from guardrail.stores.epochs import SHORTEST_OVERLAP, Timetable, timetable_for
from guardrail.stores.naming import Naming
from guardrail.stores.redis.dialogue import Speech, slot_of
from guardrail.stores.redis.wire import Names, Terms

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

Command = tuple[bytes | str | int, ...]
Sampling = Generator[Command, object, None]

_REPLACE = b"""
local old = redis.call('GET', KEYS[1]) or ''
if old ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a store is told about its surroundings when it is opened.

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


class Bearings:
    """Keeps what was last learnt of the server; `clock` is the host's, `steady` never steps."""

    def __init__(
        self,
        outlook: Outlook,
        *,
        clock: Callable[[], float],
        steady: Callable[[], float],
        spread: bool,
    ) -> None:
        self._outlook = outlook
        self._clock = clock
        self._steady = steady
        self._spread = spread
        self._known = {
            naming.epoch: Names(naming, outlook.prefix)
            for layout in outlook.layouts
            for naming in (Naming(key, layout) for key in outlook.keys)
        }
        self._meta = f"{outlook.prefix}:{{meta}}".encode()
        self._table: Timetable | None = None
        self._server, self._sampled, self._tried = 0.0, -1e9, -1e9
        self._surely = self._ended = 0.0
        self._step = 0.0
        self._doubted = False
        self._bound = outlook.bound
        self._speech: Speech | None = None
        self._until = 0
        self.version = (0, 0)

    @property
    def slot(self) -> int:
        """The slot of the server that keeps the store's own record."""
        return slot_of(self._meta) if self._spread else 0

    @property
    def known(self) -> bool:
        """Whether the server was ever asked."""
        return self._table is not None

    @property
    def due(self) -> bool:
        """Whether the server should be asked anew, after the next decision."""
        now = self._steady()
        return self._doubted or now - max(self._sampled + REFRESH, self._tried + AGAIN) > 0

    @property
    def stale(self) -> bool:
        """Whether the server must be asked anew, before the next decision."""
        return self._doubted or self._steady() - self._sampled > STALE

    def doubt(self) -> None:
        """Have the server asked before the next decision: what is known of its clock is wrong."""
        self._doubted = True

    @property
    def server_time(self) -> float:
        """The time on the server's clock, as far as is known, in seconds since the epoch."""
        return self._server + self._steady() - self._sampled

    @property
    def skew(self) -> float:
        """Seconds to add to the host's clock to have the server's."""
        if self._outlook.host_clock or self._table is None:
            return 0.0
        return self.server_time - self._clock()

    def warnings(self) -> tuple[str, ...]:
        """Return what an operator should know."""
        if self._outlook.host_clock or abs(self._step) <= SKEW_TOLD:
            return ()
        side = "behind" if self._step > 0 else "ahead of"
        return (
            f"this host's clock is {abs(self._step):.3g} s {side} the store's: guardrail goes by "
            "the store's; set this host's clock",
        )

    def speech(self) -> Speech:
        """Return how calls are made now.

        Raises:
            StoreError: the server was not asked yet, or has gone over to names unknown here.
        """
        if self._table is None:
            raise StoreError("the store was not reached yet")
        # Nobody takes an old record over before all others are kept from writing to it.
        passed = (self._steady() - self._ended) * (1 - DRIFT)
        now = int((self._surely + passed) * SECOND)
        if self._speech is None or now >= self._until:
            self._speech = self._chosen(self._table.at_time(now), now)
            upcoming = self._table.at if self._table.upcoming is not None else 0
            self._until = upcoming if upcoming > now else now + 60 * SECOND
        return self._speech

    def _chosen(self, table: Timetable, now: int) -> Speech:
        for epoch in table.needed(now):
            if epoch not in self._known:
                raise StoreError(
                    f"the store has gone over to hash key `{epoch.key}`, layout {epoch.layout}, "
                    "which this process does not have: restart it with the new settings"
                )
        names, *former = (self._known[epoch] for epoch in table.needed(now))
        ahead = before = -1
        if not self._outlook.host_clock:
            good = int(self._surely * SECOND) + GOOD_FOR
            ahead, before = AHEAD, good if table.upcoming is None else min(good, table.at)
        terms = Terms(ahead, before, -1 if self._bound is None else self._bound)
        return Speech(names, former[0] if former else None, terms, self._spread)

    def sampling(self) -> Sampling:
        """Ask the server for its time and the store's own record, and announce what is new here.

        Raises:
            SettingError: this process lacks what the records need.
        """
        began = self._tried = self._steady()
        clock = self._clock()
        if self._outlook.host_clock:
            moment = clock
        else:
            answer = yield ("TIME",)
            seconds, micros = (int(part) for part in _list(answer))
            moment = seconds + micros / SECOND
        ended = self._steady()
        server = moment - (0 if self._outlook.host_clock else (ended - began) / 2)
        for _ in range(3):
            recorded = yield ("GET", self._meta)
            text = recorded if isinstance(recorded, bytes) else b""
            table = timetable_for(
                Timetable.read(text) if text else None,
                list(self._known),
                int(server * SECOND),
                self._outlook.overlap,
            )
            new = table.text().encode()
            if new == text:
                break
            done = yield ("EVAL", _REPLACE, 1, self._meta, text, new)
            if done == 1:
                break
        self._table, self._speech = table, None
        self._server, self._sampled = server, began
        self._surely, self._ended = moment, ended
        self._step, self._doubted = server - clock, False

    def greeting(self) -> Sampling:
        """Ask a server, just connected to, whether it can be trusted with counters.

        Raises:
            SettingError: it may evict them, or is another kind of server than the URI says.
        """
        answer = yield ("INFO", "server")
        about = _facts(answer)
        mode = about.get("redis_mode", about.get("server_mode", ""))
        if (mode == "cluster") != self._spread and mode:
            said = "is part of a cluster" if mode == "cluster" else "is no part of a cluster"
            scheme = "redis+cluster" if mode == "cluster" else "redis"
            raise SettingError(f"the server {said}: write `{scheme}://` for it")
        version = about.get("valkey_version", about.get("redis_version", "0.0"))
        major, minor = (int(part) for part in version.split(".")[:2])
        # A Valkey says which Redis it behaves like; all of them know the flags of scripts.
        self.version = (max(major, 7), minor) if "valkey_version" in about else (major, minor)
        answer = yield ("INFO", "memory")
        memory = _facts(answer)
        policy, most = memory.get("maxmemory_policy", ""), int(memory.get("maxmemory", "0"))
        if policy not in ("", "noeviction") and not self._outlook.evicting:
            raise SettingError(
                f"the server's `maxmemory-policy` is `{policy}`: it would drop counters and let "
                "spent limits start anew; set it to `noeviction`, or accept that with "
                "`?evicting=yes`"
            )
        if self._outlook.bound is None:
            self._bound = most // 2 // BYTES_A_KEY if most else None
            self._speech = None


def _list(reply: object) -> Sequence[bytes]:
    if isinstance(reply, list):
        return reply
    raise StoreError(f"the server answered `{reply!r}` when asked for its time")


def _facts(reply: object) -> Mapping[str, str]:
    if not isinstance(reply, bytes):
        raise StoreError(f"the server answered `{reply!r}` when asked about itself")
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, sign, value in lines if sign}

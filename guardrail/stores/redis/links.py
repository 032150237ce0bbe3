"""Links on a server: one script reads, the caller decides, one script writes if nothing changed.

All of it, and the counters that accounts share, stand in one slot of a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.model.amounts import DAY
from guardrail.model.cells import MILLISECOND, Pool
from guardrail.stores.cells import GarbledError
from guardrail.stores.links import (
    DUE,
    LONGEST_PATH,
    MOVED,
    MOVED_FOR,
    NODE,
    NOTE,
    Changes,
    Decide,
    Found,
    HandOn,
    Move,
    Party,
    Query,
    Unite,
)
from guardrail.stores.redis.protocol import (
    COUNTED,
    Ask,
    Call,
    CallContext,
    Command,
    LinkScripts,
    encode,
    number,
    taken_over,
)
from guardrail.stores.steps import Steps

_DAYS_KEPT = 400 * DAY
_UNITE, _HAND_ON, _KEEP = 1, 2, 3
_BATCH = 500
"""How many names one call looks through where all rows are read."""


def linked(
    context: CallContext,
    scripts: LinkScripts,
    slot: int,
    query: Query,
    decide: Decide,
    ask: Ask,
) -> Steps[bool | None]:
    """Read what a call needs, decide, and write what changes; tell whether it was done.

    It was not where what was read has changed meanwhile. None where a path is too long to read.

    Raises:
        GarbledError: a reply is none of the scripts'.
    """
    prefix = context.names.links
    nodes = [prefix + NODE + name for name in query.nodes]
    notes = [prefix + NOTE + name for name in query.notes]
    keys = [prefix + DUE + query.space, *nodes, *notes]
    limits = map(number, (query.before, query.most, len(nodes), LONGEST_PATH))
    parts: Command = (number(len(keys)), *keys, prefix, *limits)
    reply = yield from ask(Call(slot, parts, scripts.read))
    if reply == []:
        return None
    found = _found(context, query, reply)
    changes = decide(found)
    if not changes:
        return True
    write = _Writing(context, query, found, changes)
    taken = yield from write.taken_over(ask)
    reply = yield from ask(Call(slot, (*write.parts, *taken), scripts.write))
    return bool(reply)


def every(context: CallContext, slot: int, ask: Ask) -> Steps[Mapping[bytes, bytes]]:
    """Return all rows and notes, read some at a time."""
    prefix = context.names.links
    found: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        scan = ("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", number(_BATCH))
        cursor, names = yield from ask(Call(slot, scan))
        names = [name for name in names if name[len(prefix) :][:1] in (NODE, NOTE)]
        if names:
            values = yield from ask(Call(slot, ("MGET", *names)))
            for name, data in zip(names, values, strict=True):
                if data is not None:
                    found[name[len(prefix) :]] = data
        if cursor == b"0":
            return found


def _found(context: CallContext, query: Query, reply: Any) -> Found:
    try:
        rows, notes, due = reply
        found = dict(zip(query.notes, notes, strict=True))
        namings = [names.naming for names in (context.names, context.former) if names is not None]
        return Found(
            dict(zip(rows[::2], rows[1::2], strict=True)),
            {name: data for name, data in found.items() if data},
            {name: int(day) for name, day in zip(due[::2], due[1::2], strict=True)},
            namings[0].party,
            [(naming.epoch.key, naming.link_secret) for naming in namings],
        )
    except (TypeError, ValueError) as problem:
        raise GarbledError("the server's reply about links is none of ours") from problem


class _Writing:
    """One call of the script that writes: its keys, each once, and its arguments."""

    def __init__(self, context: CallContext, query: Query, found: Found, changes: Changes) -> None:
        self._context = context
        self._names = context.names
        prefix = self._names.links
        self._places: dict[bytes, int] = {prefix + DUE + query.space: 1}
        self._texts: dict[str, bytes] = {}
        nodes = list(dict.fromkeys((*query.nodes, *found.rows, *found.due)))
        read = [found.rows.get(name, b"") for name in nodes]
        read += [found.notes.get(name, b"") for name in query.notes]
        for name in nodes:
            self._place(prefix + NODE + name)
        for name in query.notes:
            self._place(prefix + NOTE + name)
        written: list[tuple[bytes, bytes, int]] = [
            (NODE + name, data, changes.ttls.get(name, 0))
            for name, data in {**found.rows, **changes.rows}.items()
        ]
        written += [(NOTE + name, data, ttl) for name, (data, ttl) in changes.notes.items()]
        self._argument: list[Any] = [
            context.preconditions.before,
            MOVED_FOR // MILLISECOND,
            _DAYS_KEPT // MILLISECOND,
            len(read),
            len(written),
            len(changes.days),
            len(changes.moves) * len(changes.pools),
        ]
        for name, _, ttl in written:
            self._argument += (self._place(prefix + name), max(1, ttl // MILLISECOND))
        self._argument += [day for _, day in changes.days.values()]
        for move in changes.moves:
            for pool in changes.pools:
                self._argument += self._moving(move, pool)
        texts = [data for _, data, _ in written]
        self._more = (*read, *texts, *changes.days, prefix + COUNTED)

    @property
    def parts(self) -> Command:
        """The keys and the arguments, but for what is taken over."""
        return (number(len(self._places)), *self._places, encode(self._argument), *self._more)

    def taken_over(self, ask: Ask) -> Steps[tuple[bytes, ...]]:
        """Look up counters under their former names; note which are found, and return them."""
        places = {key: self._places[name] for key, name in self._texts.items()}
        taken = yield from taken_over(self._context, places, ask)
        self._argument += taken
        return tuple(taken.values())

    def _place(self, name: bytes) -> int:
        return self._places.setdefault(name, len(self._places) + 1)

    def _moving(self, move: Move, pool: Pool) -> list[int]:
        """Return the numbers of one counter's move; the script tells what they are."""
        if isinstance(move, Unite):
            others = [each for party in move.others for each in self._counter(pool, party)]
            head, target = _UNITE, move.into
        elif isinstance(move, HandOn):
            others = list(self._counter(pool, move.whole))
            head, target = _HAND_ON, move.part
        else:
            others, head, target = [], _KEEP, move.party
        return [head, pool.kind, *self._counter(pool, target), len(others) // 2, *others]

    def _counter(self, pool: Pool, party: Party) -> tuple[int, int]:
        """Return the place of a counter, and of the record of where it was moved to."""
        whose = self._names.naming.party(party) if isinstance(party, str) else party
        name = self._names.shared(whose, pool.ident)
        if isinstance(party, str):
            self._texts[pool.ident + party] = name
        moved = self._names.links + MOVED + whose + pool.ident.encode()
        return self._place(name), self._place(moved)

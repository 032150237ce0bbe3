"""Links in a store that processes share: read in part, decided on here, written in one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, TypeVar

from guardrail.engine import whose_key
from guardrail.links.evidence import Evidence, Sighting
from guardrail.links.excerpt import SLACK, Excerpt, name_of
from guardrail.links.forest import NOBODY, Alone, Change, Edge, Join, Own, Part
from guardrail.links.linking import AT_ONCE, Bearer, Bearers, Book, Linking, Standing
from guardrail.links.signal import actor_id
from guardrail.links.tally import Tallies
from guardrail.model.amounts import DAY
from guardrail.model.cells import Pool
from guardrail.model.links import Links
from guardrail.stores.links import (
    NAME,
    NODE,
    NOTE,
    TRIES,
    Changes,
    Found,
    HandOn,
    Keep,
    Move,
    Party,
    Query,
    Unite,
)
from guardrail.stores.steps import Steps

T = TypeVar("T")

ABOUT_KEPT = 400 * DAY
"""How long is kept which kinds of evidence there are, after a process last started."""

MOST_CHANGED = 100_000

_BEARER = Struct(">QQQH")
_UNTIL = Struct(">H")
_SECRET = 32


class StoredLinks:
    """Who acts as one, in a store that others use too; every call is steps for one who waits."""

    def __init__(
        self, links: Links, store: Any, namespace: str, former: StoredLinks | None = None
    ) -> None:
        """Take what links, the store (see `stores.links`) and the namespace of the policies.

        `former` is gone on with.
        """
        self.links = links
        self.store = store
        self._namespace = namespace.encode("utf-8", "surrogatepass")
        self._space = blake2b(self._namespace, digest_size=NAME, person=b"link space").digest()
        self._about = b"k" + self._space
        self._evidence: Evidence | None = None
        self._changed: dict[int, int] = {}
        self.version = 0
        """Rises with every change of actors by this process."""
        self.tallies: Tallies = Tallies() if former is None else former.tallies
        """What tells against actors, by what this process served."""

    def changed(self, actor: int) -> int:
        """Return the version at which an actor, or an account that acted alone, became another."""
        return self._changed.get(actor, 0)

    def evidence(self, now: int) -> Steps[Evidence | None]:
        """Return what reads the evidence of requests; the store is asked once for its secret.

        None where others were faster each time.
        """
        if self._evidence is None:
            made: list[Evidence] = []

            def decide(found: Found) -> Changes:
                about = _About(found.notes.get(self._about))
                secret = about.secret(found.secrets)
                numbers = blake2b(self._namespace, key=secret, digest_size=_SECRET).digest()
                made[:] = [Evidence(self.links, numbers, about.kinds)]
                return Changes({}, {self._about: (about.data, ABOUT_KEPT)}, {}, (), (), {})

            query = Query(self._space, notes=(self._about,))
            done = yield self.store.linked, (query, decide, now)
            if not done:
                return None
            self._evidence = made[0]
        return self._evidence

    def see(self, sighting: Sighting, pools: Sequence[Pool], now: int) -> Steps[Standing | None]:
        """Return whom an account acts as after a sighting at `now` (microseconds).

        None where others were faster each time, and nothing is known. Where an account, or what it
        shows, is too far from its root to be read, it acts with the crowd of those that show the
        same.
        """
        read = False

        def see(linking: Linking) -> Standing:
            nonlocal read
            read = True
            return linking.see(sighting, now)

        standing = yield from self._applied(sighting, pools, now, (), see)
        if standing is not None or read:
            return standing
        if sighting.is_trusted or sighting.is_exempt:
            return Standing.alone(is_trusted=sighting.is_trusted)
        sighting = self._crowded(sighting)
        return (yield from self._applied(sighting, pools, now, (), see))

    @staticmethod
    def _crowded(sighting: Sighting) -> Sighting:
        """Return what a sighting shows as the crowds of it, by an account that is told apart."""
        crowd = Evidence.crowd
        return sighting._replace(
            account=crowd(sighting.account),
            strong=tuple(value._replace(name=crowd(value.name)) for value in sighting.strong),
            weak=tuple(pair._replace(name=crowd(pair.name)) for pair in sighting.weak),
        )

    def unlink(self, account: str, pools: Sequence[Pool], now: int) -> Steps[bool | None]:
        """Take an account out of its actor and keep it apart; see `Linking.unlink`.

        None where others were faster each time. All rows are searched.
        """

        def unlink(linking: Linking, number: int) -> bool:
            return linking.unlink(number, now)

        return (yield from self._isolated(account, pools, now, unlink))

    def erase(self, account: str, pools: Sequence[Pool], now: int) -> Steps[bool | None]:
        """Forget all that is kept of an account; see `Linking.erase`.

        None where others were faster each time. All rows are searched.
        """
        return (yield from self._isolated(account, pools, now, Linking.erase))

    def part(self, account: str, other: str, pools: Sequence[Pool], now: int) -> Steps[Edge | None]:
        """Cut the link whose end parts two accounts; see `Linking.part`."""
        evidence = yield from self.evidence(now)
        if evidence is None:
            return None
        numbers = evidence.account(account), evidence.account(other)

        def part(linking: Linking) -> Edge | None:
            return linking.part(*numbers)

        more = [NODE + name_of(numbers[1])]
        return (yield from self._applied(_named(numbers[0], account), pools, now, more, part))

    def whole(self, now: int) -> Steps[Linking | None]:
        """Return all links as they stand, to look at: nothing done to them is written.

        None where the store's secret could not be read.
        """
        evidence = yield from self.evidence(now)
        if evidence is None:
            return None
        records: Mapping[bytes, bytes] = yield self.store.every, ()
        rows = {name[1:]: data for name, data in records.items() if name[:1] == NODE}
        book = Book()
        for name, data in records.items():
            if name.startswith(NOTE + b"a"):
                (book.apart[int.from_bytes(name[2:], "big")],) = _UNTIL.unpack(data)
        return Linking(self.links, evidence, Excerpt(rows, {}).forest, book)

    def _isolated(
        self,
        account: str,
        pools: Sequence[Pool],
        now: int,
        apply: Callable[[Linking, int], bool],
    ) -> Steps[bool | None]:
        """Apply a change that takes all links from an account, also as one of a crowd."""
        evidence = yield from self.evidence(now)
        if evidence is None:
            return None
        number = evidence.account(account)
        crowd = Evidence.crowd(number)
        done, records = yield from self._taken_out(account, number, pools, now, apply)
        if done is not None and NODE + name_of(crowd) in records:
            also, _ = yield from self._taken_out(account, crowd, pools, now, apply)
            done = None if also is None else done or also
        return done

    def _taken_out(
        self,
        account: str,
        number: int,
        pools: Sequence[Pool],
        now: int,
        apply: Callable[[Linking, int], bool],
    ) -> Steps[tuple[bool | None, Mapping[bytes, bytes]]]:
        """Apply a change to an account under a number; return what came of it, and all rows."""
        records: Mapping[bytes, bytes] = {}

        def checked(linking: Linking) -> bool | None:
            forest = linking.forest
            row = forest.index.get(number, NOBODY)
            if row != NOBODY:
                edges = sum(above == row for above in forest.parent)
                edges += forest.parent[row] != NOBODY
                if edges < forest.degree[row]:
                    return None  # others have linked it since all rows were read
            return apply(linking, number)

        for _ in range(TRIES):
            records = yield self.store.every, ()
            more = [name for name, data in records.items() if _is_about(name, data, number)]
            own = _named(number, account)
            done = yield from self._applied(own, pools, now, more, checked)
            if done is not None:
                return done, records
        return None, records

    def _applied(
        self,
        sighting: Sighting,
        pools: Sequence[Pool],
        now: int,
        more: Sequence[bytes],
        apply: Callable[[Linking], T],
    ) -> Steps[T | None]:
        """Read what a sighting touches, and `more` records; apply a change and write it back."""
        results: list[T] = []
        changes: list[Change] = []
        evidence = self._evidence
        assert evidence is not None

        def decide(found: Found) -> Changes:
            excerpt = Excerpt(found.rows, found.due)
            if sighting.handle:
                excerpt.handles[sighting.account] = found.whose(whose_key(sighting.handle))
            book, bearers = Book(), _bearers(found)
            book.bearers = Bearers(dict(bearers), now // DAY)
            apart = found.notes.get(_apart(sighting.account))
            if apart is not None:
                (book.apart[sighting.account],) = _UNTIL.unpack(apart)
            linking = Linking(self.links, evidence, excerpt.forest, book)
            results[:] = [apply(linking)]
            changes[:] = linking.changes()
            moves = _moves(changes, excerpt, sighting)
            notes = _notes(book, bearers, apart, sighting.account, self.links, now // DAY)
            return _changes(excerpt, found, notes, moves, pools, now // DAY)

        done = yield self.store.linked, (self._query(sighting, more, now), decide, now)
        if not done:
            return None
        self._follow(changes)
        return results[0]

    def _follow(self, changes: Sequence[Change]) -> None:
        """Note which actors have become others, for what this process remembers of them."""
        if not changes:
            return
        self.version += 1
        if len(self._changed) > MOST_CHANGED:
            self._changed.clear()
        for change in changes:
            if isinstance(change, Join):
                self.tallies.join(change.into, change.others)
                self._changed.update(dict.fromkeys(change.others, self.version))
            elif isinstance(change, Own):
                self._changed[change.account] = self.version
            else:
                self._changed[change.whole] = self.version
                if isinstance(change, Part):
                    self.tallies.part(change.whole, change.part)

    def _query(self, sighting: Sighting, more: Sequence[bytes], now: int) -> Query:
        values = [value.name for group in (sighting.strong, sighting.weak) for value in group]
        crowds = [Evidence.crowd(value) for value in values]
        parts = dict.fromkeys(part for pair in sighting.weak for part in pair.parts)
        nodes = dict.fromkeys(map(name_of, (sighting.account, *values, *crowds)))
        notes = dict.fromkeys((_apart(sighting.account), *map(_of_bearers, parts)))
        for record in more:
            (nodes if record[:1] == NODE else notes)[record[1:]] = None
        return Query(self._space, tuple(nodes), tuple(notes), now // DAY, AT_ONCE)


class _About:
    """What a store's note says of evidence: its kinds, and the secret of its numbers.

    The secret follows from the hash key that was there first. For a later key it is kept sealed
    under that one, so that what is known of accounts outlives a key.
    """

    def __init__(self, data: bytes | None) -> None:
        stated = {"kinds": [], "secrets": {}} if data is None else json.loads(data)
        self.kinds: list[tuple[str, ...]] = [tuple(kind) for kind in stated["kinds"]]
        self._secrets: dict[str, str] = stated["secrets"]

    @property
    def data(self) -> bytes:
        """The note."""
        stated = {"kinds": self.kinds, "secrets": self._secrets}
        return json.dumps(stated, separators=(",", ":")).encode()

    def secret(self, keys: Sequence[tuple[str, bytes]]) -> bytes:
        """Return the secret; `keys` has each hash key's id and secret, the current one first."""
        secret = b""
        for key, own in reversed(keys):
            kept = self._secrets.get(key)
            secret = _sealed(own, bytes.fromhex(kept)) if kept else secret or own
            if secret != own:
                self._secrets[key] = _sealed(own, secret).hex()
        return secret


def _sealed(key: bytes, secret: bytes) -> bytes:
    """Return a secret hidden under a key, or a hidden one as it was."""
    pad = blake2b(b"link secret", key=key, digest_size=_SECRET).digest()
    return bytes(one ^ other for one, other in zip(pad, secret, strict=True))


def _named(number: int, account: str) -> Sighting:
    """Return the sighting of an account that shows nothing."""
    return Sighting(number, account, False, False, (), (), 0, 0)


def _is_about(name: bytes, data: bytes, account: int) -> bool:
    """Tell whether a record is a row below an account's, or a note in which it vouches."""
    if name[:1] == NODE:
        return data[:NAME] == name_of(account)
    return name[1:2] == b"b" and any(bearer[0] == account for bearer in _BEARER.iter_unpack(data))


def _apart(account: int) -> bytes:
    return b"a" + name_of(account)


def _of_bearers(value: int) -> bytes:
    return b"b" + name_of(value)


def _bearers(found: Found) -> dict[int, tuple[Bearer, ...]]:
    return {
        int.from_bytes(name[1:], "big"): tuple(map(Bearer._make, _BEARER.iter_unpack(data)))
        for name, data in found.notes.items()
        if name[:1] == b"b"
    }


def _notes(
    book: Book,
    bearers: dict[int, tuple[Bearer, ...]],
    apart: bytes | None,
    account: int,
    links: Links,
    today: int,
) -> dict[bytes, tuple[bytes, int]]:
    """Return the notes that are to be written, each with how long it is kept."""
    notes = {
        _of_bearers(value): (
            b"".join(_BEARER.pack(*bearer) for bearer in now),
            (links.weak_days + SLACK) * DAY,
        )
        for value, now in book.bearers.known.items()
        if now != bearers.get(value, ())
    }
    until = book.apart.get(account)
    if until is None:
        if apart is not None:
            notes[_apart(account)] = (b"", 0)
    elif _UNTIL.pack(until) != apart:
        notes[_apart(account)] = (_UNTIL.pack(until), (until - today + SLACK) * DAY)
    return notes


def _moves(changes: Sequence[Change], excerpt: Excerpt, sighting: Sighting) -> list[Move]:
    """Return what has become of counters.

    Those of the account that was seen are named by its id: they are found under a former hash key.
    """

    def party(number: int) -> Party:
        if number == sighting.account and sighting.handle:
            return whose_key(sighting.handle)
        return excerpt.handles.get(number) or whose_key(actor_id(number))

    moves: list[Move] = []
    for change in changes:
        if isinstance(change, Join):
            moves.append(Unite(party(change.into), tuple(map(party, change.others))))
        elif isinstance(change, Own):
            moves.append(Keep(party(change.account)))
        elif isinstance(change, Alone):
            moves.append(HandOn(party(change.whole), party(change.account)))
        else:
            moves.append(HandOn(party(change.whole), party(change.part)))
    return moves


def _changes(
    excerpt: Excerpt,
    found: Found,
    notes: dict[bytes, tuple[bytes, int]],
    moves: Sequence[Move],
    pools: Sequence[Pool],
    today: int,
) -> Changes:
    rows: dict[bytes, bytes] = {}
    days: dict[bytes, tuple[int, int]] = {}
    before, after = excerpt.before, dict(excerpt.rows())
    for number in before.keys() | after.keys():
        old, new = before.get(number), after.get(number)
        was, due = (0 if row is None else row.entered for row in (old, new))
        name = name_of(number)
        was = found.due.get(name, was)
        if was != due:
            days[name] = (was, due)
        if old != new:
            rows[name] = b"" if new is None else new.data
    for name, day in found.due.items():
        if name not in found.rows:
            days[name] = (day, 0)
    if not (rows or notes or days or moves):
        return Changes({}, {}, {}, (), (), {})
    last = excerpt.last_days()
    ttls = {name_of(n): (max(last.get(n, 0), today) - today + SLACK) * DAY for n in after}
    return Changes(rows, notes, days, moves, pools, ttls)

"""What a sighting changes: which links form, which values are public, whose budget is used."""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt
from typing import NamedTuple, Self

from guardrail.links.evidence import Evidence, Sighting, Weak
from guardrail.links.forest import (
    EXEMPT,
    LAST_DAY,
    NOBODY,
    STRANGER,
    Change,
    Edge,
    Forest,
    Own,
    account_kind,
    is_account,
)
from guardrail.model.amounts import DAY
from guardrail.model.links import Links

MOST_LINKS = 256
"""How many links an account may have before no new weak value ties it: it could make up any number.
"""
MOST_VOUCHING = 16
"""The most trusted accounts that making a value public ever takes, however many strangers it ties.
"""
AT_ONCE = 64
"""How many links that may have expired one sighting looks at, so that none takes long."""


class Standing(NamedTuple):
    """Whom an account acts as: `actor` is 0 where it acts alone."""

    actor: int
    accounts: int
    trusted: int

    @classmethod
    def alone(cls, *, is_trusted: bool) -> Self:
        """Return how an account stands that acts alone."""
        return cls(0, 1, int(is_trusted))


class Bearer(NamedTuple):
    """A trusted account that shows a value, with a card and an identity of its own, until a day."""

    account: int
    card: int
    identity: int
    until: int


class Bearers:
    """For each weak value the trusted accounts that show it, no more than make it public.

    What nobody has vouched for within two turns of `turn` days is forgotten whole.
    """

    def __init__(self, known: dict[int, tuple[Bearer, ...]] | None = None, turned: int = 0) -> None:
        """Start with what is known on a day."""
        self.known: dict[int, tuple[Bearer, ...]] = {} if known is None else known
        self._former: dict[int, tuple[Bearer, ...]] = {}
        self._turned = turned

    def of(self, value: int) -> tuple[Bearer, ...]:
        """Return those of a value, those whose time is over included."""
        return self.known.get(value) or self._former.get(value, ())

    def of_any(self, values: Iterable[int]) -> list[tuple[int, tuple[Bearer, ...]]]:
        """Return those of some values, of each that has any."""
        known, former = self.known.get, self._former.get
        return [(v, found) for v in values if (found := known(v) or former(v))]

    def forget(self, account: int) -> None:
        """Take an account out of those of every value."""
        for kept in (self.known, self._former):
            for value, bearers in list(kept.items()):
                left = tuple(bearer for bearer in bearers if bearer.account != account)
                if left != bearers:
                    kept[value] = left

    def put(self, value: int, bearers: tuple[Bearer, ...], today: int, turn: int) -> None:
        """Set those of a value."""
        if today - self._turned > turn:
            self._former = self.known if today - self._turned <= 2 * turn + 1 else {}
            self.known, self._turned = {}, today
        self.known[value] = bearers


class Book:
    """What is kept of evidence beside the forest: who vouches for values, who stays apart."""

    def __init__(self) -> None:
        self.bearers = Bearers()
        self.apart: dict[int, int] = {}
        """The accounts that are not linked until a day, as somebody decided."""
        self.kinds: list[tuple[str, ...]] = []
        """The facts of each kind of evidence."""
        self.revision = 0
        """Rises with whatever may tie or part accounts by what they showed earlier in the day.

        That is a link that was cut, an account that is trusted or is so no more, a value that more
        or fewer vouch for, where it may be public.
        """


class Linking:
    """Applies sightings to a forest; the caller holds what makes a call atomic."""

    def __init__(self, links: Links, evidence: Evidence, forest: Forest, book: Book) -> None:
        self.links = links
        self.evidence = evidence
        self.forest = forest
        self.book = book
        self.settled = True
        """Whether seeing the same again that day changes nothing unless the book is revised.

        Else what ties the account last seen hangs on how many others there are.
        """

    def see(self, sighting: Sighting, now: int) -> Standing:
        """Return whom an account acts as after a sighting at `now` (microseconds).

        A trusted account always acts alone: what others share with it takes nothing from it.
        """
        today = min(now // DAY, LAST_DAY)
        self.forest.expire(today, AT_ONCE)
        self.settled = not sighting.is_exempt
        apart = self.book.apart.get(sighting.account, 0) >= today
        if sighting.is_exempt or apart:
            self._leave(sighting)
            return Standing.alone(is_trusted=sighting.is_trusted)
        self._link(sighting, now, today)
        return self.stands(sighting.account, sighting.is_trusted, today)

    def agrees(self, account: int, kind: int) -> bool:
        """Tell whether an account was last seen to be of a kind, if it is linked."""
        row = self.forest.index.get(account, NOBODY)
        return row == NOBODY or self.forest.kind[row] == kind

    def stands(self, account: int, is_trusted: bool, today: int) -> Standing:
        """Return whom an account acts as that is not exempt."""
        row = self.forest.index.get(account, NOBODY)
        if is_trusted or row == NOBODY:
            return Standing.alone(is_trusted=is_trusted)
        return Standing(*self.forest.standing(row, today))

    def expire(self, now: int) -> None:
        """Cut every link that has expired by `now` (microseconds)."""
        today = min(now // DAY, LAST_DAY)
        while self.forest.expire(today, AT_ONCE):
            pass

    def changes(self) -> list[Change]:
        """Return what has become of actors since this was asked last."""
        forest = self.forest
        forest.tidy()
        changes, forest.changes = forest.changes, []
        return changes

    def unlink(self, account: int, now: int) -> bool:
        """Take an account out of its actor, and keep it apart; tell whether it was in one.

        It goes on with the counters it had as an account alone. It is not linked again for as long
        as strong evidence lasts.
        """
        today = now // DAY
        row = self.forest.index.get(account, NOBODY)
        self.book.apart[account] = today + self.links.strong_days
        self.book.revision += 1
        if row == NOBODY:
            return False
        before = self.forest.changes
        self.forest.changes = []
        self._isolate(row)
        # An appeal gives the account its own counters back, not those of the whole.
        self.forest.changes = [
            *before,
            *(c for c in self.forest.changes if getattr(c, "account", 0) != account),
            Own(account),
        ]
        return True

    def erase(self, account: int) -> bool:
        """Forget all that is kept of an account; tell whether it was linked.

        What its actor had used it has used: only time ends that.
        """
        self.book.revision += 1
        self.book.apart.pop(account, None)
        self.book.bearers.forget(account)
        row = self.forest.index.get(account, NOBODY)
        if row == NOBODY:
            return False
        self._isolate(row)
        return True

    def part(self, one: int, other: int) -> Edge | None:
        """Cut the link whose end parts two accounts and return it, None where none ties them.

        Where both go on showing what ties them, they are linked again.
        """
        weakest = self.weakest(one, other)
        if weakest is not None:
            rows = self.forest.index[weakest.account], self.forest.index[weakest.value]
            self.forest.cut(self.forest.edge(*rows))
            self.book.revision += 1
        return weakest

    def members(self, account: int, today: int) -> list[int]:
        """Return the accounts of an account's actor; the whole forest is searched."""
        forest = self.forest
        row = forest.index.get(account, NOBODY)
        if row == NOBODY:
            return [account]
        top = forest.root(row, today)
        return [
            forest.name[other]
            for other in list(forest.index.values())
            if is_account(forest.kind[other]) and forest.root(other, today) == top
        ]

    def weakest(self, one: int, other: int) -> Edge | None:
        """Return the link whose end parts two accounts, None where none ties them."""
        rows = self.forest.index.get(one, NOBODY), self.forest.index.get(other, NOBODY)
        if NOBODY in rows:
            return None
        child = self.forest.weakest_between(*rows)
        return None if child == NOBODY else self.forest.edge_at(child)

    def _link(self, sighting: Sighting, now: int, today: int) -> None:
        links, forest = self.links, self.forest
        kind = account_kind(is_trusted=sighting.is_trusted, is_exempt=False)
        row = forest.node(sighting.account, kind)
        forest.loose.append(row)
        if forest.kind[row] != kind:
            forest.regard(row, kind)
            self.book.revision += 1
        strong, weak = (
            min(today + days, LAST_DAY) for days in (links.strong_days, links.weak_days)
        )
        for value in sighting.strong:
            self._tie(row, value.name, value.kind, strong, today, now)
        if sighting.is_trusted:
            self._vouch(sighting, today)
        vouched = self._vouched(sighting, today)
        tying = []
        for pair in sighting.weak:
            if sighting.is_trusted or (vouched and self._is_public(pair, vouched, today)):
                self._untie(row, pair.name)
            else:
                tying.append(pair)
        left = forest.renewed(row, [pair.name for pair in tying], weak, today)
        if NOBODY in left.values() and forest.degree[row] + len(left) <= MOST_LINKS:
            new = {pair.name: pair.kind for pair in tying if left.get(pair.name) == NOBODY}
            if forest.hang(row, new, weak, today):
                left = {name: value for name, value in left.items() if value != NOBODY}
        if left:
            held = forest.held(row, left.values(), weak)
            left = {name: value for name, value in left.items() if value not in held}
        for name, kind, _ in tying if left else ():
            if name not in left:
                continue
            if forest.degree[row] < MOST_LINKS or name in forest.index:
                self._tie(row, name, kind, weak, today, now)
            else:
                self.settled = False

    def _tie(self, row: int, name: int, kind: int, expiry: int, today: int, now: int) -> None:
        forest, fresh = self.forest, 0
        value = forest.index.get(name, NOBODY)
        if value == NOBODY:
            if forest.hang(row, {name: kind}, expiry, today):
                return
            value = forest.node(name, kind)
        elif forest.renew(row, value, expiry, today):
            return
        if forest.degree[value]:
            fresh = self.evidence.fresh(forest.name[row], now)  # two accounts may meet here
        if forest.link(row, value, expiry, today, fresh, self.links.max_accounts):
            return
        forest.loose.append(value)
        crowd = forest.node(self.evidence.crowd(name), kind)
        forest.loose.append(crowd)
        top = forest.root(row, today)
        named = top in forest.actor and forest.accounts[top] > 1
        if forest.kind[row] == STRANGER and (not named or forest.edge(row, crowd) != NOBODY):
            # Kept out, it shares the budget of all whom this value would have tied to the actor.
            # Who acts with others already has a budget that it shares: crowds join no two actors.
            forest.link(row, crowd, expiry, today, fresh, 2**31)

    def _untie(self, row: int, name: int) -> None:
        for number in (name, self.evidence.crowd(name)):
            value = self.forest.index.get(number, NOBODY)
            child = NOBODY if value == NOBODY else self.forest.edge(row, value)
            if child != NOBODY:
                self.forest.cut(child)
                self.book.revision += 1

    def _leave(self, sighting: Sighting) -> None:
        row = self.forest.index.get(sighting.account, NOBODY)
        if row == NOBODY:
            return
        # What it does not show now ties it until that expires; it acts alone in spite of it.
        self.forest.regard(row, EXEMPT)
        for name in (v.name for group in (sighting.strong, sighting.weak) for v in group):
            self._untie(row, name)

    def _isolate(self, row: int) -> None:
        forest = self.forest
        below = [child for child, above in enumerate(forest.parent) if above == row]
        if forest.parent[row] != NOBODY:
            below.append(row)
        for child in below:
            forest.cut(child)

    def _vouched(self, sighting: Sighting, today: int) -> dict[int, int]:
        """Return for each weak value that may be public how many trusted accounts show it."""
        fewest, vouched = self.links.public_after, dict[int, int]()
        for part, bearers in self.book.bearers.of_any(sighting.parts):
            live = sum(bearer.until >= today for bearer in bearers)
            if live >= fewest:
                vouched[part] = live
        return vouched

    def _is_public(self, pair: Weak, vouched: dict[int, int], today: int) -> bool:
        """Tell whether a part of a pair is shared by so many that it links nobody.

        Where strangers are tied by the pair already, as many trusted accounts as half the root of
        their number have to show a part of it: to set a large farm free takes many identities.
        """
        one, other = pair.parts
        live = max(vouched.get(one, 0), vouched.get(other, 0))
        if not live:
            return False
        row = self.forest.index.get(pair.name, NOBODY)
        if row == NOBODY:
            return True
        top = self.forest.root(row, today)
        strangers = max(0, self.forest.accounts[top] - self.forest.trusted[top])
        is_public = live >= min(isqrt(strangers) // 2, MOST_VOUCHING)
        if is_public:
            self.settled = False  # more strangers, and it is not
        return is_public

    def _vouch(self, sighting: Sighting, today: int) -> None:
        """Note a trusted account at the values it shows, if its card and its identity are its own.

        Of each value twice as many accounts are kept as ever make it public: one may stay away.
        """
        if not (sighting.card and sighting.identity):
            return
        until = today + self.links.weak_days
        own = Bearer(sighting.account, sighting.card, sighting.identity, until)
        for value in sighting.parts:
            before = self.book.bearers.of(value)
            if own in before:
                continue
            live = [bearer for bearer in before if bearer.until >= today]
            others = [bearer for bearer in live if bearer.account != own.account]
            shared = any(
                bearer.card == own.card or bearer.identity == own.identity for bearer in others
            )
            if not shared and len(others) < 2 * max(self.links.public_after, MOST_VOUCHING):
                others.append(own)
            fewest, most = sorted((len(others), len(live)))
            if fewest < most >= self.links.public_after:
                self.book.revision += 1
            self.book.bearers.put(value, tuple(others), today, self.links.weak_days)

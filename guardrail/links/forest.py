"""Which accounts hang together, kept as a maximum spanning forest by expiry.

The nodes are accounts and evidence values; an edge (account, value) says that the account showed
the value, and lasts until a day. Of all edges only those of a spanning forest are kept, so that
each cycle lacks the edge that expires first: an edge that expires then needs no replacement, as
every edge that was dropped for it has expired no later. (Spanning trees by newest edge:
arXiv 2410.00884.) Trees are parent pointers; the side of fewer accounts is turned round. An account
that stands alone is the root of its values.

A node is a row of arrays, some 30 bytes. Days are whole days since the epoch, in UTC.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import NamedTuple

NOBODY = -1
"""In place of a parent: a root."""

STRANGER, TRUSTED, EXEMPT = 0, 1, 255
"""The kinds of accounts: those that are exempt act alone, whatever still ties them."""
FIRST_EVIDENCE, LAST_EVIDENCE = 2, 254
"""Values have the kind of their evidence."""
LAST_DAY = 65_535
"""The last day that there is room for, in the year 2149."""

LONGEST_WALK = 128
"""The most steps to a root; past it nothing merges. Paths are short, as values are hubs."""


class Join(NamedTuple):
    """Two actors turned out to be one: what `others` have used is added to `into`."""

    into: int
    others: tuple[int, ...]


class Part(NamedTuple):
    """A part of an actor goes on by itself as `part`: it keeps what the whole had used."""

    whole: int
    part: int


class Alone(NamedTuple):
    """An account is all that is left of an actor: it keeps what the actor had used."""

    whole: int
    account: int


class Own(NamedTuple):
    """An account acts alone from now on, with the counters it had before it acted with others."""

    account: int


Change = Join | Part | Alone | Own


class Edge(NamedTuple):
    """A link that stands: a value, its kind, and the days of its first use and its expiry."""

    account: int
    value: int
    kind: int
    since: int
    expiry: int


class Forest:
    """The forest of one process, or the part of one that a call looks at.

    `index` finds the row of a node's name, a number of 64 bits. What becomes of actors is told by
    `changes`, in order, for whoever keeps their counters: an actor is named by a number, an account
    that acts alone by its own name.
    """

    def __init__(self, index: MutableMapping[int, int], names: array[int]) -> None:
        """Take an empty index, and the array for the names of its rows."""
        self.index = index
        self.name = names
        self.parent = array("i")
        self.expiry = array("H")
        self.since = array("H")
        self.accounts = array("i")
        self.trusted = array("i")
        self.kind = array("B")
        self.degree = array("i")
        self.entered = array("H")
        """For each node the day under which it is due, 0 for none."""
        self.actor: dict[int, int] = {}
        """For each root of an actor that has a name of its own, that name."""
        self.due: dict[int, array[int]] = {}
        """The nodes to look at after a day: their edges may have expired."""
        self._soonest = LAST_DAY
        """No node is due sooner."""
        self.changes: list[Change] = []
        self.loose: list[int] = []
        """The nodes that may have no edge any more."""
        self.gone: list[int] = []
        """The names of accounts that were let go of, for whoever keeps more of them."""
        self._free = array("i")

    def node(self, name: int, kind: int) -> int:
        """Return the row of a node, made if it is new."""
        row = self.index.get(name, NOBODY)
        if row != NOBODY:
            return row
        return self._row(name, kind, NOBODY, 0, 0)

    def _row(self, name: int, kind: int, above: int, expiry: int, since: int) -> int:
        """Return the row of a new node; the node above it does not know of it yet."""
        accounts, trusted = int(is_account(kind)), int(kind == TRUSTED)
        degree = int(above != NOBODY)
        if self._free:
            row = self._free.pop()
            self.name[row], self.kind[row], self.parent[row] = name, kind, above
            self.accounts[row], self.trusted[row], self.degree[row] = accounts, trusted, degree
            self.expiry[row], self.since[row] = expiry, since
        else:
            row = len(self.name)
            self.name.append(name)
            self.kind.append(kind)
            self.parent.append(above)
            self.accounts.append(accounts)
            self.trusted.append(trusted)
            self.expiry.append(expiry)
            self.since.append(since)
            self.degree.append(degree)
            self.entered.append(0)
        self.index[name] = row
        return row

    def root(self, row: int, today: int) -> int:
        """Return the root of a node's tree, edges on the way cut that have expired."""
        parent, expiry = self.parent, self.expiry
        at = row
        while parent[at] != NOBODY:
            if expiry[at] < today:
                self.cut(at)
                at = row
            else:
                at = parent[at]
        return at

    def path(self, row: int) -> list[int]:
        """Return the nodes from one to its root."""
        found = [row]
        while (row := self.parent[row]) != NOBODY:
            found.append(row)
        return found

    def link(
        self, account: int, value: int, expiry: int, today: int, fresh: int, most: int
    ) -> bool:
        """Add an edge, or renew it; tell whether it stands.

        It does not where it would make an actor of more than `most` accounts, or too deep a tree.
        `fresh` names an actor that comes to be by it.
        """
        if self.renew(account, value, expiry, today):
            return True
        tops = self.root(account, today), self.root(value, today)
        if tops[0] == tops[1]:
            return self._close(account, value, expiry, today)
        sizes = self.accounts[tops[0]], self.accounts[tops[1]]
        if sizes[0] and sizes[1] and sizes[0] + sizes[1] > most:
            return False
        if len(self.path(account)) + len(self.path(value)) > LONGEST_WALK:
            return False
        self._graft(account, value, expiry, today, tops, fresh)
        return True

    def hang(self, account: int, values: Mapping[int, int], expiry: int, today: int) -> bool:
        """Hang new values, names with their kinds, below an account; tell whether they stand.

        They do not where the tree would be too deep, see `link`.
        """
        parent, at, steps = self.parent, account, 1
        while (at := parent[at]) != NOBODY:
            steps += 1
        if steps >= LONGEST_WALK:
            return False
        first, count = len(parent), len(values)
        self.degree[account] += count
        if self._free:
            for name, kind in values.items():
                self._enter(self._row(name, kind, account, expiry, today))
            return True
        # As `_row` and `_enter` would, one after the other.
        self.name.extend(values)
        self.kind.extend(values.values())
        parent.extend((account,) * count)
        self.accounts.extend(nobody := (0,) * count)
        self.trusted.extend(nobody)
        self.expiry.extend((expiry,) * count)
        self.since.extend((today,) * count)
        self.degree.extend((1,) * count)
        self.entered.extend((expiry,) * count)
        self.index.update(zip(values, range(first, first + count), strict=True))
        self._due_after(expiry).extend(range(first, first + count))
        return True

    def renewed(
        self, account: int, names: Sequence[int], expiry: int, today: int
    ) -> dict[int, int]:
        """Let edges of an account last longer; return the values that it has none to.

        Each is a name with its row, `NOBODY` where it is new.
        """
        find, parent, expiries = self.index.get, self.parent, self.expiry
        above, left = parent[account], dict[int, int]()
        for name in names:
            value = find(name, NOBODY)
            child = account if value == above else value
            if (
                value != NOBODY
                and (value == above or parent[value] == account)
                and expiries[child] >= today
            ):
                if expiries[child] < expiry:
                    expiries[child] = expiry
            else:
                left[name] = value
        return left

    def held(self, account: int, values: Iterable[int], expiry: int) -> set[int]:
        """Return those of some values that hang together with an account until a day as it is.

        An edge to one of them, lasting that long, would change nothing: each edge on the way lasts
        as long. `expiry` is today or later.
        """
        parent, expiries, lasting = self.parent, self.expiry, {account}
        at = account
        while expiries[at] >= expiry and (at := parent[at]) != NOBODY:
            lasting.add(at)
        found = set()
        for value in values:
            at = value
            while at not in lasting and parent[at] != NOBODY and expiries[at] >= expiry:
                at = parent[at]
            if at in lasting:
                found.add(value)
        return found

    def renew(self, account: int, value: int, expiry: int, today: int) -> bool:
        """Let an edge last longer, if it is there; tell whether it is."""
        child = self.edge(account, value)
        if child == NOBODY:
            return False
        if self.expiry[child] < today:
            self.cut(child)
            return False
        if self.expiry[child] < expiry:
            self.expiry[child] = expiry
        return True

    def _close(self, account: int, value: int, expiry: int, today: int) -> bool:
        """Put an edge in place of that of its cycle that expires first, if that is sooner.

        Nobody leaves the tree or joins it: its name stays.
        """
        ups, others = self.path(account), self.path(value)
        at = {row: step for step, row in enumerate(ups)}
        met = next(step for step, row in enumerate(others) if row in at)
        cycle = ups[: at[others[met]]] + others[:met]
        first = min(cycle, key=self.expiry.__getitem__)
        if self.expiry[first] >= expiry:
            return True
        if len(ups) + len(others) > LONGEST_WALK:
            return True  # it hangs together for as long as the edges that are there last
        top = ups[-1]
        named = self.actor.pop(top, 0)
        self._unhook(first)
        lower, upper = (account, value) if first in ups else (value, account)
        self._turn(lower)
        self._hook(lower, upper, expiry, today)
        if named:
            self.actor[top] = named
        return True

    def _graft(
        self, account: int, value: int, expiry: int, today: int, tops: tuple[int, int], fresh: int
    ) -> None:
        """Join two trees by an edge."""
        small, large = account, value
        least, most = tops
        if self.accounts[least] > self.accounts[most]:
            small, large, least, most = value, account, most, least
        name = self._named_together(least, most, fresh)
        for top in tops:
            self.actor.pop(top, None)
        self._turn(small)
        self._hook(small, large, expiry, today)
        if name:
            self.actor[most] = name

    def _named_together(self, least: int, most: int, fresh: int) -> int:
        """Return the name of the actor that two trees become, 0 for none, and note the change."""
        names = [self.actor.get(top, 0) for top in (most, least)]
        if not self.accounts[least]:
            return names[0]
        whole = names[0] or names[1] or fresh
        # What a trusted or exempt account has used it has used alone: it is nobody else's.
        others = tuple(
            name or self.name[top]
            for name, top in zip(names, (most, least), strict=True)
            if name != whole and (name or self.kind[top] == STRANGER)
        )
        self.changes.append(Join(whole, others))
        return whole

    def cut(self, child: int, fresh: int = 0) -> None:
        """Take away the edge above a node; each part keeps what the whole had used.

        The part of more accounts keeps the name. `fresh` names the other, else a number is made.
        """
        top = self.path(child)[-1]
        named = self.actor.pop(top, 0)
        above = self.parent[child]
        self._unhook(child)
        if named:
            keeps, goes = top, child
            if self.accounts[top] < self.accounts[child]:
                keeps, goes = child, top
            self._go_on(keeps, named, named)
            if self.accounts[goes]:
                self._go_on(goes, named, fresh or _another(named, self.name[child]))
        self.loose += (child, above)

    def _go_on(self, top: int, whole: int, name: int) -> None:
        """Let a part of an actor go on under a name, or as the account that it is."""
        kind = self.kind[top]
        if self.accounts[top] == 1 and is_account(kind):
            alone = self.name[top]
            self.changes.append(Alone(whole, alone) if kind == STRANGER else Own(alone))
            return
        self.actor[top] = name
        if name != whole:
            self.changes.append(Part(whole, name))

    def standing(self, account: int, today: int) -> tuple[int, int, int]:
        """Return an account's actor (0: it acts alone), its accounts, and how many are trusted."""
        top = self.root(account, today)
        named = self.actor.get(top, 0)
        if named and self.accounts[top] == 1:
            # Its root is a value: until now nobody knew whose it is.
            del self.actor[top]
            self._turn(account)
            self._go_on(account, named, named)
            named, top = 0, account
        return named, self.accounts[top], self.trusted[top]

    def regard(self, account: int, kind: int) -> None:
        """Say of which kind an account is from now on."""
        if kind == self.kind[account]:
            return
        delta = (kind == TRUSTED) - (self.kind[account] == TRUSTED)
        self.kind[account] = kind
        if delta:
            for row in self.path(account):
                self.trusted[row] += delta
        if kind != STRANGER and self.degree[account]:
            self.changes.append(Own(self.name[account]))

    def edge(self, account: int, value: int) -> int:
        """Return the lower end of the edge between two nodes, `NOBODY` where none is kept."""
        if self.parent[account] == value:
            return account
        return value if self.parent[value] == account else NOBODY

    def expire(self, today: int, most: int) -> int:
        """Cut edges that have expired, of at most so many nodes; return how many were looked at."""
        seen = 0
        if self._soonest >= today:
            return seen
        for day in sorted(day for day in self.due if day < today):
            nodes = self.due[day]
            while nodes and seen < most:
                row = nodes.pop()
                seen += 1
                if self.entered[row] != day:
                    continue
                self.entered[row] = 0
                if self.parent[row] != NOBODY:
                    if self.expiry[row] < today:
                        self.cut(row)
                    else:
                        self._enter(row)
            if nodes:
                break
            del self.due[day]
        self._soonest = min(self.due, default=LAST_DAY)
        return seen

    def edges(self) -> Iterator[Edge]:
        """Yield every edge that is kept."""
        for row, above in enumerate(self.parent):
            if above != NOBODY:
                yield self.edge_at(row)

    def edge_at(self, child: int) -> Edge:
        """Return the edge above a node."""
        above = self.parent[child]
        account, value = (child, above) if is_account(self.kind[child]) else (above, child)
        return Edge(
            self.name[account],
            self.name[value],
            self.kind[value],
            self.since[child],
            self.expiry[child],
        )

    def weakest_between(self, one: int, other: int) -> int:
        """Return the node under the edge that expires first between two, `NOBODY` if none does."""
        ups, others = self.path(one), self.path(other)
        if ups[-1] != others[-1] or one == other:
            return NOBODY
        at = {row: step for step, row in enumerate(ups)}
        met = next(step for step, row in enumerate(others) if row in at)
        way = ups[: at[others[met]]] + others[:met]
        return min(way, key=self.expiry.__getitem__)

    def _turn(self, row: int) -> None:
        """Make a node the root of its tree; counts below follow, the actor's name does not."""
        path = self.path(row)
        top = path[-1]
        if top == row:
            return
        accounts, trusted = self.accounts, self.trusted
        totals = accounts[top], trusted[top]
        edges = [(self.expiry[n], self.since[n]) for n in path[:-1]]
        for lower, upper in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
            accounts[upper] -= accounts[lower]
            trusted[upper] -= trusted[lower]
        above = 0, 0
        for step in range(len(path) - 1, -1, -1):
            node = path[step]
            accounts[node] += above[0]
            trusted[node] += above[1]
            above = accounts[node], trusted[node]
        assert (accounts[row], trusted[row]) == totals
        self.parent[row] = NOBODY
        for (expiry, since), lower, upper in zip(edges, path[:-1], path[1:], strict=True):
            self.parent[upper] = lower
            self.expiry[upper], self.since[upper] = expiry, since
            self._enter(upper)

    def _hook(self, child: int, above: int, expiry: int, today: int) -> None:
        """Hang a root below a node of another tree."""
        self.parent[child] = above
        self.expiry[child], self.since[child] = expiry, today
        self.degree[child] += 1
        self.degree[above] += 1
        accounts, trusted = self.accounts[child], self.trusted[child]
        while above != NOBODY:
            self.accounts[above] += accounts
            self.trusted[above] += trusted
            above = self.parent[above]
        self._enter(child)

    def _unhook(self, child: int) -> None:
        above = self.parent[child]
        self.parent[child] = NOBODY
        self.degree[child] -= 1
        self.degree[above] -= 1
        accounts, trusted = self.accounts[child], self.trusted[child]
        while above != NOBODY:
            self.accounts[above] -= accounts
            self.trusted[above] -= trusted
            above = self.parent[above]

    def _enter(self, row: int) -> None:
        """Have a node looked at when its edge may have expired."""
        day = self.expiry[row]
        if not 0 < self.entered[row] <= day:
            self.entered[row] = day
            self.enter(row, day)

    def enter(self, row: int, day: int) -> None:
        """Have a node looked at after a day."""
        self._due_after(day).append(row)

    def _due_after(self, day: int) -> array[int]:
        """Return the nodes to look at after a day, to which more can be added."""
        nodes = self.due.get(day)
        if nodes is None:
            nodes = self.due[day] = array("i")
            self._soonest = min(self._soonest, day)
        return nodes

    def tidy(self) -> None:
        """Let go of nodes that no edge holds any more; no row may be in use."""
        for row in self.loose:
            if not self.degree[row] and self.index.get(self.name[row]) == row:
                del self.index[self.name[row]]
                self.entered[row] = 0
                if is_account(self.kind[row]):
                    self.gone.append(self.name[row])
                self._free.append(row)
        self.loose.clear()


def is_account(kind: int) -> bool:
    """Tell whether a node of this kind is an account."""
    return kind < FIRST_EVIDENCE or kind == EXEMPT


def account_kind(*, is_trusted: bool, is_exempt: bool) -> int:
    """Return the kind of an account."""
    if is_exempt:
        return EXEMPT
    return TRUSTED if is_trusted else STRANGER


def _another(named: int, other: int) -> int:
    """Return the name of a part that leaves an actor: no two parts of one share it."""
    return (named * 6364136223846793005 + other * 2862933555777941757 + 3037000493) % 2**64 or 1

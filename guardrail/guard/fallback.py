"""Deciding while the store is away: what each rule answers, this process's share, its counters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast
from weakref import WeakKeyDictionary

from guardrail.engine import Ban, Decision, Engine, Finding, Limit, Plan, Receipt, Row, receipt_of
from guardrail.errors import SettingError
from guardrail.model.amounts import MINUTE, SECOND
from guardrail.model.cells import (
    CELL,
    COUNTER,
    IDENT_LENGTH,
    LINE,
    MEMBERS,
    MILLISECOND,
    REPLY,
    TOP,
    WINDOW,
    Correction,
    Drain,
    Form,
)
from guardrail.model.effects import Effect, StoreMode
from guardrail.model.facts import FactType, typed_value
from guardrail.model.rules import Rule, Verdict
from guardrail.stores import asking
from guardrail.stores.cells import (
    SLOT_BITS,
    SLOT_MASK,
    Record,
    charged_window,
    drained_pair,
    draining,
    entered,
)
from guardrail.stores.memory import MASK, MemoryStore

TIER, ACCOUNT = "account.tier", "account.id"


class Fallback(Enum):
    """How a rule is decided without the store."""

    ALLOW = "let through"
    LOCAL = "counted by this process alone"
    DENY = "not let through"


ANSWERS: Mapping[Literal["allow", "deny", "local"], Fallback] = {
    "allow": Fallback.ALLOW,
    "deny": Fallback.DENY,
    "local": Fallback.LOCAL,
}


def fixed_answer(limit: Limit) -> Fallback | None:
    """Return what a rule answers, None where it depends on whose request it is."""
    answer = limit.rule.on_store_error or limit.without_store
    return None if answer is None else ANSWERS[answer]


def is_known(plan: Plan) -> bool:
    """Tell whether the directory knows the account: id and tier are stated, not filled in."""
    engine = plan.engine
    for name in (ACCOUNT, TIER):
        stated = plan.facts.get(name)
        if name in engine.reader.facts and name not in plan.read.facts:
            return False
        fact = engine.policies.facts[name]
        undeclared = fact.type is FactType.LEVEL and not fact.values
        if not (isinstance(stated, str) if undeclared else typed_value(fact, stated) is not None):
            return False
    return True


class Fallbacks(NamedTuple):
    """The answers of all rules that one plan consults, by the numbers of their charges in order."""

    by_charge: Mapping[int, tuple[Limit, Fallback]]

    @classmethod
    def of(cls, plan: Plan) -> Fallbacks:
        """Return what the rules of a plan answer."""
        by_charge: dict[int, tuple[Limit, Fallback]] = {}
        known: bool | None = None
        for at, number, *_ in plan.rows:
            charge, limit = plan.form.cells[2 * at + 1], plan.counters[number][0]
            if charge in by_charge:
                continue
            answer = fixed_answer(limit)
            if answer is None:
                known = is_known(plan) if known is None else known
                answer = Fallback.LOCAL if known else Fallback.DENY
            by_charge[charge] = (limit, answer)
        return cls(by_charge)

    def refusals(self) -> Iterable[Finding]:
        """Yield what the rules that deny ask for.

        A rule that never refuses serves less instead, unless it was told to deny.
        """
        for limit, answer in self.by_charge.values():
            if answer is not Fallback.DENY:
                continue
            rule = limit.rule
            refuses = limit.over.effect.refuses or rule.on_store_error is not None
            verdict = UNAVAILABLE if refuses else limit.over
            yield limit.finding(verdict, SHORT_WAIT)

    @property
    def refuse(self) -> bool:
        """Whether a rule in force refuses."""
        return any(f.effect.refuses and not f.shadow for f in self.refusals())

    @property
    def mode(self) -> StoreMode:
        """What became of the counters: closed where a rule refuses for the store, local, or open.

        The first of these that holds. Rules in shadow have a say only where no other was consulted.
        """
        if self.refuse:
            return StoreMode.CLOSED
        every = list(self.by_charge.values())
        enforced = [(limit, answer) for limit, answer in every if not limit.shadow]
        counted = any(answer is Fallback.LOCAL for _, answer in enforced or every)
        return StoreMode.LOCAL if counted else StoreMode.OPEN

    def told(self) -> str:
        """Return in words which rules did what."""
        rules: dict[Fallback, list[str]] = {}
        for limit, answer in self.by_charge.values():
            rules.setdefault(answer, []).append(f"`{limit.rule.id}`")
        return "; ".join(f"{', '.join(rules[a])} {a.value}" for a in Fallback if a in rules)


SHARE, WORKERS = "GUARDRAIL_LOCAL_SHARE", "WEB_CONCURRENCY"
WITHOUT_WORKERS = 4
"""A share is a quarter where nothing says how many processes there are."""

STORE_UNAVAILABLE = "store-unavailable"
SHORT_WAIT = SECOND
LONGEST_WAIT = MINUTE
"""Waits told while the store is away, in microseconds: it may well be back before the window."""

UNAVAILABLE = Verdict(
    effect=Effect.THROTTLE,
    reason=STORE_UNAVAILABLE,
    message="limits cannot be checked right now",
    status=503,
)


def share_from(given: Fraction | None, environ: Mapping[str, str]) -> int:
    """Return k, where this process's share of every limit is 1/k.

    Raises:
        SettingError: the share is not one part of a whole.
    """
    if given is not None:
        return _parts(given, f"`local_share` is `{given}`")
    written = environ.get(SHARE)
    if written:
        wrong = f"`{SHARE}` is `{written}`"
        try:
            return _parts(Fraction(written), wrong)
        except (ValueError, ZeroDivisionError):
            raise SettingError(f"{wrong}: write it as `1/4`") from None
    return workers_from(environ) or WITHOUT_WORKERS


def workers_from(environ: Mapping[str, str]) -> int | None:
    """Return how many processes the environment speaks of, None if of none."""
    written = environ.get(WORKERS, "").strip()
    if written.isascii() and written.isdigit() and 0 < int(written) < 1 << 20:
        return int(written)
    return None


def _parts(share: Fraction, wrong: str) -> int:
    if share.numerator != 1:
        raise SettingError(f"{wrong}: it has to be one part of a whole, such as `1/4`")
    return share.denominator


class Share:
    """A limit as this process may fill it alone: 1/k of it.

    A window's amount and a set's size are divided, rounded down, but a set holds one member at
    least. A rate charges k times the amount on the time line that the store last told, so that
    what was left of the burst, and the pace, are divided; one request is let through at least.
    It stands in plans where its limit would.
    """

    def __init__(self, limit: Limit, parts: int) -> None:
        self.limit = limit
        self.parts = parts

    @property
    def rule(self) -> Rule:
        """The limit's rule."""
        return self.limit.rule

    @property
    def first(self) -> int:
        """The number of the limit's first counter."""
        return self.limit.first

    def shared(self, cell: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], tuple[Any, ...]]:
        """Return the five last numbers of a cell as charged here, and what its row then says."""
        place, span, floor, amount, ceiling = cell[5:]
        at, number, key, kind, capacity, increment, units, allowance, alert = row
        if kind == MEMBERS:
            allowance = ceiling = max(1, allowance // self.parts)
        elif kind == LINE:
            amount = increment = amount * self.parts
            ceiling = max(ceiling, floor + amount)
            capacity, allowance = ceiling - floor, max(1, allowance // self.parts)
        else:
            allowance //= self.parts
            most = self.limit.ceiling(allowance)
            ceiling = -1 if most is None else most
        told = (at, number, key, kind, capacity, increment, units, allowance, alert)
        return [place, span, floor, amount, ceiling], told

    def judge(self, receipt: Receipt, frees: int | None, now: int) -> Finding | None:
        """Return what a reply asks for: to be over a share does not prove to be over the limit.

        So it never blocks, and waits are short.
        """
        return self._softened(self.limit.judge(receipt, frees, now))

    def sentenced(self) -> Finding:
        """Return what one refusal too many asks for, which a share does not prove either."""
        found = self._softened(self.limit.sentenced())
        assert found is not None
        return found

    def banned(self, left: int) -> Finding:
        """Return what a ban asks for that the store told of: it stands as it is."""
        return self.limit.banned(left)

    def _softened(self, found: Finding | None) -> Finding | None:
        if found is None or not found.effect.refuses:
            return found
        if found.effect is Effect.BLOCK and self.parts > 1:
            return found._replace(effect=Effect.THROTTLE, verdict=UNAVAILABLE, wait=SHORT_WAIT)
        return found._replace(wait=None if found.wait is None else min(found.wait, LONGEST_WAIT))


MOST_KEYS = 1_000_000
"""How many records are kept; strangers share them beyond that, as in any memory store."""

LATE = 16
"""How many decisions and settlements may wait to be counted."""

_FOLLOWED = (None, Fallback.LOCAL)
"""What a rule says of a store that is away, None where it depends, if its counters are kept."""


class Admitted(NamedTuple):
    """What the store admitted of a plan, and the bans that it told of.

    A receipt is None where the counter was not charged. A ban is the place of its cell in the
    form, and until when it lasts.
    """

    plan: Plan
    receipts: Sequence[Sequence[Any] | None]
    bans: Sequence[tuple[int, int]] = ()


class Settled(NamedTuple):
    """Corrections made at `now`."""

    corrections: Sequence[Correction]
    now: int


class LocalCounters:
    """The counters of the rules that may have to be decided without the store, at a share of 1/k.

    What the store admitted is counted here as it is, whatever the ceiling; what is decided here
    is charged against the share. Nothing of it is ever sent to the store.

    What came of the store is noted, and counted in its order, `LATE` at a time or when the counters
    are asked: one alone would wait for memory longer than it works.
    """

    def __init__(self, engines: Sequence[Engine], parts: int, most: int = MOST_KEYS) -> None:
        self._store = MemoryStore(max_keys=most)
        self._late: deque[Admitted | Settled] = deque()
        self.parts = parts
        self._ask = asking(self._store)
        self.leases: dict[str, int] = {}
        self._idents: set[str] = set()
        # Which counters of an engine are kept; an engine may decide long after its successor.
        self._kept: WeakKeyDictionary[Engine, list[bool]] = WeakKeyDictionary()
        self.serve(engines)

    def serve(self, engines: Sequence[Engine]) -> None:
        """Count for the rules of these engines too."""
        for engine in engines:
            for limit in engine.limits:
                if limit is not None and limit.lease:
                    self.leases[limit.idents[0]] = limit.lease
                if limit is not None and _is_followed(limit):
                    self._idents.update(limit.idents)

    @property
    def store(self) -> MemoryStore:
        """The counters, with all in them that was noted."""
        self._count()
        return self._store

    def note(self, entry: Admitted | Settled) -> None:
        """Note what came of the store, to be counted soon."""
        self._late.append(entry)
        if len(self._late) >= LATE:
            self._count(waits=False)

    def _count(self, *, waits: bool = True) -> None:
        """Count what was noted, the oldest first, or, where it must not wait, leave it to others.

        Who settles may be the collector of garbage, within a call of the same thread.
        """
        late, store = self._late, self._store
        for held in store.takes if waits else store.tries:
            if not held:
                return
            try:
                while late:
                    entry = late.popleft()
                    if isinstance(entry, Admitted):
                        self._charge(*entry)
                    else:
                        for correction in entry.corrections:
                            store.correct(correction, entry.now)
            finally:
                store.lock.release()
            return

    def _charge(
        self,
        plan: Plan,
        receipts: Sequence[Sequence[Any] | None],
        bans: Sequence[tuple[int, int]],
    ) -> None:
        """Count what the store admitted; whoever calls holds the lock."""
        store, now, engine = self._store, plan.now, plan.engine
        kept = self._kept.get(engine)
        if kept is None:
            kept = self._kept[engine] = [_is_followed(limit) for limit, _ in engine.counters]
        keys, _, cells, _ = plan.form
        homes, home = store.homes, store.home
        for at, until in bans:
            _, _, place, ttl = cells[at : at + 4]
            self._ban(keys[place - 1], ttl * MILLISECOND, until, now)
        for receipt, row in zip(receipts, plan.rows, strict=True):
            if receipt is None:
                continue
            number, key, slot, used, increment, amount, _, _ = receipt
            if not kept[number]:
                continue
            at, kind = 2 * row[0], row[3]
            ttl = cells[at + 3] * MILLISECOND
            table = homes.get(key[:IDENT_LENGTH])
            if table is None or table.lifetime < ttl:
                table = home(key[:IDENT_LENGTH], ttl)
            # Written in place where it can be: this runs once a counter of every decision.
            shard = table.current[hash(key) & MASK]
            record = shard.get(key)
            known = record is not None
            if not known:
                record, spill = table.find_older(key), cells[at + 4]
                if record is None and spill and store.is_full():
                    key = keys[spill - 1]
                    record = table.find(key)
            if kind == WINDOW:
                if record.__class__ is int and record & SLOT_MASK == slot:
                    record = min((record >> SLOT_BITS) + amount, TOP) << SLOT_BITS | slot
                else:
                    record = charged_window(record, slot, cells[at + 6], amount)
            elif kind == LINE:
                record = _line(record, used + increment)
            else:
                record = entered(record, cells[at + 5], cells[at + 6], now)
            if known:
                shard[key] = record
            else:
                table.put(key, record, now)

    def decision(self, plan: Plan, answers: Fallbacks, why: str) -> Decision:
        """Return the decision on a plan, each rule as it answers; `why` is noted in it.

        What is asked here is bans, and the limits of the rules that answer `local`; no strikes.
        Where a rule refuses for the store, nothing is charged.
        """
        self._count()
        asked, rows = self._asked(plan, answers)
        asked.found = [*plan.found, *answers.refusals()]
        reading = plan.read
        asked.reading = reading._replace(notes=(*reading.notes, why))
        reply = self._reply(asked, refuse=answers.refuse)
        read = asked.verdicts(reply)
        decision = asked.concluded(read.found, read.looked)
        # What was charged here is told in whole units, not k times as many.
        first = 1 + len(asked.form.charges) // 2
        debits = [
            Receipt._make(receipt_of(row, receipt.key, reply[first + at : first + at + REPLY]))
            for (at, *_), row, (receipt, charged) in zip(asked.rows, rows, read.looked, strict=True)
            if charged
        ]
        return Decision.of(
            decision.ruling._replace(mode=answers.mode),
            decision.case._replace(debits=tuple(debits), looked=tuple(read.looked)),
        )

    def _asked(self, plan: Plan, answers: Fallbacks) -> tuple[Plan, list[Sequence[Any]]]:
        """Return what of a plan is asked here, and the rows of the plan that its rows stand for."""
        shares = {limit.first: Share(limit, self.parts) for limit, _ in answers.by_charge.values()}
        asked = Plan(plan.engine, plan.facts, plan.estimate, plan.now, plan.serial)
        asked.counters = [
            (cast(Limit, shares.get(limit.first, limit)), part) for limit, part in plan.counters
        ]
        keys, flags, cells, _ = plan.form
        form = asked.form
        form.keys.extend(keys)
        numbers: dict[int, int] = {}

        def copy(at: int, charge: int, rest: Sequence[Any]) -> int:
            """Copy a cell with other numbers into its charge here; return where its reply is."""
            if charge not in numbers:
                form.charges.extend((flags[2 * charge - 2], 0))
                numbers[charge] = len(form.charges) // 2
            kind, _, key, ttl, spill = cells[2 * at : 2 * at + 5]
            form.cells.extend((kind, numbers[charge], key, ttl, spill, *rest))
            return len(form.cells) // 2 - REPLY

        for at, number in plan.bans:
            place = copy(at, cells[2 * at + 1], cells[2 * at + 5 : 2 * at + CELL])
            asked.bans.append(Ban(place, number))
        rows: list[Sequence[Any]] = []
        for row in plan.rows:
            cell = cells[2 * row[0] : 2 * row[0] + CELL]
            limit, answer = answers.by_charge[cell[1]]
            if answer is Fallback.LOCAL:
                numbers_here, told = shares[limit.first].shared(cell, row)
                place = copy(row[0], cell[1], numbers_here)
                asked.rows.append(Row(place, *told[1:]))
                rows.append(row)
        return asked, rows

    def _reply(self, asked: Plan, *, refuse: bool) -> list[int]:
        """Return the answer of these counters; where the request is refused, charge nothing."""
        form = asked.form
        if not refuse:
            return self._ask(form, asked.now)
        # One more charge that refuses whatever comes with it.
        never = len(form.charges) // 2 + 1
        keys = [*form.keys, "\0" * IDENT_LENGTH]
        cell = (COUNTER, never, len(keys), MINUTE // MILLISECOND, 0, 0, 1, 0, 1, 0)
        whole = Form(keys, [*form.charges, 1, 0], [*form.cells, *cell], form.members)
        reply = self._ask(whole, asked.now)
        return [*reply[:never], *reply[never + 1 : -REPLY]]

    def settle(self, corrections: Sequence[Correction], now: int, *, own: bool) -> None:
        """Correct what was charged here; `own` tells that it was decided here, at the share.

        A rate charged at the share gets nothing back, which errs on the safe side.
        """
        idents = self._idents
        known = [found for found in corrections if found.key[:IDENT_LENGTH] in idents]
        if own:
            known = [
                found._replace(delta=found.delta * self.parts)
                if isinstance(found, Drain)
                else found
                for found in known
                if not isinstance(found, Drain) or found.delta > 0
            ]
        if known:
            self.note(Settled(known, now))

    def _ban(self, key: str, ttl: int, until: int, now: int) -> None:
        table = self._store.home(key[:IDENT_LENGTH], ttl)
        table.put(key, _line(table.find(key), until), now)


def _is_followed(limit: Limit) -> bool:
    return fixed_answer(limit) in _FOLLOWED


def _line(record: Record | None, until: int) -> Record:
    # The shared time line itself: what is left on it is what this process has a share of.
    if record.__class__ is not tuple:
        return record if record is not None and record > until else until
    value, refunded = drained_pair(record)
    return draining(max(value, until), refunded)

"""Generated decisions over a memory store: its records are read and written in place.

One pass decides every outcome. A counter that refuses, or whose step has something to say, adds to
`judged` and goes on; once all are read, a refusal writes nothing but a strike. Otherwise what is
not `left` out (a refused charge of a shadow rule, or of one that only degrades) is written. All of
it happens under the store's lock.

Beside each such function stands another that settles its decisions: it knows which counters they
were charged to, and puts them right where their records are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, cast

from guardrail.engine.conclude import ALLOWED
from guardrail.engine.core import ActingSource, Afterwards, Decision, Engine
from guardrail.engine.emit import PLAIN_UNITS, Emitter, by_value, plain_place
from guardrail.engine.emit_facts import conditional, either, indented
from guardrail.engine.expressions import spill_text
from guardrail.engine.index import AT_ONCE
from guardrail.engine.verbs import CellSpec, Finding, Limit, Receipt
from guardrail.model.amounts import DAY, SECOND
from guardrail.model.cells import LINE, MEMBERS, TOP, WINDOW, Cell, Correction, Reply
from guardrail.model.facts import LATEST

Decide = Callable[[Mapping[str, object], Mapping[str, object] | None, float], Decision]


class FusableTable(Protocol):
    """What generated source reads and writes of a store's table, under the store's lock."""

    current: list[dict[str, Any]]
    previous: list[dict[str, Any]]
    former: dict[str, Any]

    def find_older(self, key: str) -> Any:
        """Return a record that the current generation lacks."""
        ...

    def put(self, key: str, record: Any, now: int) -> bool:
        """Write a record, and tell whether other records may have moved."""
        ...

    def leave(self, key: str, member: str) -> None:
        """End a member's stay in a set."""
        ...


class FusableStore(Protocol):
    """A store that generated source may look into: its lock, its tables, how it writes records."""

    lock: Any
    takes: Any
    """Steps that each take the lock."""
    tries: Any
    """Steps that each take it if nobody holds it, and tell whether they did."""
    late: Any
    """What is to be put right by whoever takes the lock next."""
    homes: dict[str, Any]
    """The table of each counter that was ever looked for."""
    moves: Any
    """The table of keys that were moved; its `size` is 0 where none was."""

    def home(self, ident: str, ttl: int) -> FusableTable:
        """Return the table where the records of a counter are kept."""
        ...

    def is_full(self) -> bool:
        """Tell whether unknown keys are counted under their spill."""
        ...

    def read(self, cell: Cell, now: int) -> Reply:
        """Return what a cell's record says to it; the lock is held."""
        ...

    def refuses(self, cell: Cell, reply: Reply) -> bool:
        """Tell whether what a record said refuses the cell."""
        ...

    def apply(self, cell: Cell, reply: Reply, now: int) -> None:
        """Charge a cell; the lock is held."""
        ...

    def correct(self, correction: Correction, now: int) -> None:
        """Apply a correction; the lock is held."""
        ...

    def catch_up(self) -> None:
        """Apply what came late; the lock is held."""
        ...

    @property
    def codec(self) -> Any:
        """The module that reads and writes records."""
        ...

    def moved(self, key: str) -> str:
        """Return the key under which is counted what was charged under another."""
        ...

    @property
    def shard_mask(self) -> int:
        """What a key's hash is masked with to find its shard."""
        ...


class InlineEmitter(Emitter):
    """Writes lines that read a store's records, judge them, and write them.

    `writes` run once nothing refuses; what has `moved` is not written in place. `receipts` are the
    sources of those of all counters, None for one that was not reached, and `kept` the variables
    that they name: a decision keeps these, and makes receipts of them when it is asked. `settles`
    are lines over the same variables, and the amounts that were used.
    A function that is called hands its writes to its caller, which makes them later. `source` says
    whom accounts act as; `acting` holds what it said of this one.
    """

    def __init__(
        self,
        engine: Engine,
        store: FusableStore,
        bail: str,
        leave: str,
        fixed: Mapping[str, object] | None = None,
        *,
        source: ActingSource | None,
        called: bool = False,
    ) -> None:
        """Start a function that leaves by `bail`, and under the lock by `leave`."""
        self.source = source
        shown = () if source is None or called else source.shown
        super().__init__(engine, bail, fixed, called=called, more=shown)
        if source is not None:
            self.beside = {name: f"beside{place}" for place, name in enumerate(source.names)}
        self.shown = [self.variable(name) for name in shown]
        self.store = store
        self.leave = leave
        self.writes: list[str] = []
        self.settles: list[str] = []
        self.receipts: list[str] = []
        self.kept: dict[str, None] = {}
        codec = store.codec
        self.constants.update(
            read_window=codec.read_window, charged_window=codec.charged_window,
            newest_slot=codec.newest_slot,
            read_members=codec.read_members, entered=codec.entered,
            copied=codec.copied, slot_frees=codec.slot_frees, expiry_frees=codec.expiry_frees,
            ban_of=codec.ban_of, receipt=Receipt._make, full=store.is_full,
        )  # fmt: skip

    def beside_lines(self) -> list[str]:
        """Return the lines that find out whom the account acts as; who calls this one knows it."""
        lines = []
        if self.source is not None and not self.called:
            self.constants["recall"] = self.source.recall
            read = self.variables.keys() - self.reader.derivations.keys()
            values = (
                self.variables[name] if name in read else f"get({name!r})"
                for name in self.source.looks_at
            )
            lines.append(f"acting = recall(({', '.join(values)},), facts, moment)")
        if not self.beside.keys().isdisjoint(self.variables):
            lines.append(f"{', '.join(self.beside.values())}, = acting.values")
        return lines

    def told(self) -> list[str]:
        """Return the lines that tell the source what came of a request, once that is decided."""
        if self.source is None or not self.shown:
            return []
        self.constants.update(count=self.source.count, note=self.source.note)
        return [
            "if acting.actor:",
            f"    if not found: count(acting.actor, ({', '.join(self.shown)},), moment)",
            "    else: note(acting, decision, moment)",
        ]

    def look(self, limit: Limit, specs: Sequence[CellSpec], key: str) -> list[str]:
        """Return the lines that read the counters of a rule, and judge them."""
        lines = self._ban(limit, specs, key)
        for spec in specs:
            j = self.local(limit, spec.number)
            read, record = {LINE: self._line, WINDOW: self._window, MEMBERS: self._set}[spec.kind](
                limit, spec, key
            )
            read = [*self._find(limit, spec, key), *read]
            receipt, names = self._receipt(limit, spec)
            reached = ""
            if self._on or spec.gate:
                reached = f"y{j} is not None"
                self.then.append(f"y{j} = None")
                read.append(f"y{j} = {receipt}")
                receipt, names = f"y{j}", [f"y{j}"]
            lines += conditional(spec.gate, read)
            self.receipts.append(receipt)
            self.kept.update(dict.fromkeys(name for name in names if name.isidentifier()))
            kept = "" if limit.binding else f"{self._number(limit)} not in left"
            charged = " and ".join(test for test in (reached, kept) if test)
            self.settles += conditional(charged, self._settled_lines(limit, spec, receipt))
            self.constants[f"put{j}"] = self._table(limit, spec).put
            # An amount of 0 is counted, but writes nothing.
            some = "" if spec.kind == MEMBERS or spec.amount.isdigit() else spec.amount
            tests = " and ".join(test for test in (reached, kept, some) if test)
            if self.called:
                later = f"looked.writes.append((put{j}, k{j}, {record}))"
                self.writes += conditional(tests, [later])
                continue
            write = [
                f"if moved or d{j} is None: moved |= put{j}(k{j}, {record}, t)",
                f"else: d{j}[k{j}] = {record}",
            ]
            if spec.kind == MEMBERS:
                write = [
                    f"if o{j} and d{j} is not None: r{j}[{spec.place}] = {spec.until}",
                    f"el{write[0]}",
                    f"else: d{j}[k{j}] = {record} if r{j} else {{{spec.place}: {spec.until}}}",
                ]
            self.writes += conditional(tests, write)
        return lines

    def _receipt(self, limit: Limit, spec: CellSpec) -> tuple[str, list[str]]:
        """Return the source of a counter's receipt, and the variables in it."""
        j, codec = self.local(limit, spec.number), self.store.codec
        asked = [spec.amount, spec.units, spec.allowance]
        if spec.kind == LINE:
            names = [spec.place, f"u{j}", *asked, f"x{j}"]
            rest = ", ".join(names)
        elif spec.kind == MEMBERS:
            names = [f"u{j}", f"g{j}", spec.allowance]
            rest = f"0, u{j}, 0 if g{j} else 1, 1, {spec.allowance}, 0"
        elif spec.span > 1:
            names = [f"s{j}", f"u{j}", *asked]
            rest = f"{', '.join(names)}, 0"
        else:
            names = [f"r{j}", *asked]
            packed = f"r{j} & {codec.SLOT_MASK}, r{j} >> {codec.SLOT_BITS}"
            rest = f"{packed}, {', '.join(asked)}, 0"
        return f"({self._number(limit, spec.number)}, k{j}, {rest})", [f"k{j}", *names]

    def _settled_lines(self, limit: Limit, spec: CellSpec, receipt: str) -> list[str]:
        """Return the lines that put a counter right that was charged."""
        j, codec = self.local(limit, spec.number), self.store.codec
        used = (*_USED, "")[plain_place(limit, spec.number)]
        if not (used or limit.lease):
            return []
        lines, key, slot, reserved = [], f"k{j}", f"s{j}", spec.amount
        if spec.span == 1:
            slot = f"r{j} & {codec.SLOT_MASK}"
        if receipt == f"y{j}":
            lines, key, slot, reserved = [f"_, k, s, _, _, n, _, _ = y{j}"], "k", "s", "n"
        table = f"homes[{self.constant('U', limit.idents[spec.number])}]"
        moved = []
        if limit.key_facts == ("actor.id",):  # only what accounts share is ever moved
            moved, key = [f"k = moved({key}) if moves.size else {key}"], "k"
        if limit.lease:
            self.kept[spec.place] = None
            return [*lines, *moved, f"{table}.leave({key}, {spec.place})"]
        correct = f"correct({receipt}, {used}, moment, '')"
        put_right = [correct]
        if spec.kind == WINDOW:
            bits, mask = codec.SLOT_BITS, codec.SLOT_MASK
            found = f"r.__class__ is int and r & {mask} == {slot}"
            put_right = [
                *moved,
                f"d = {table}.current[hash({key}) & {self.store.shard_mask}]; r = d.get({key})",
                # A record is its amount above its slot: the difference is added where it stands.
                f"v = {used} - {reserved} << {bits}",
                f"if {found} and 0 <= (v := r + v) < {TOP << bits}: d[{key}] = v",
                f"else: {correct}",
            ]
        return [*lines, *conditional(f"{used} != {reserved}", put_right)]

    def _number(self, limit: Limit, part: int = 0) -> str:
        """Return the constant that is the number of a rule's counter."""
        name = f"N{self.local(limit, part)}"
        self.constants[name] = limit.first + part
        return name

    @property
    def receipt_tuple(self) -> str:
        """The source of all receipts."""
        return "(" + "".join(f"{receipt}, " for receipt in self.receipts) + ")"

    def _table(self, limit: Limit, spec: CellSpec) -> FusableTable:
        return self.store.home(limit.idents[spec.number], spec.kept)

    def _find(self, limit: Limit, spec: CellSpec, key: str) -> list[str]:
        """Return lines that read a counter's record into `r…`, and its shard into `d…`.

        The shard is None where the record is unknown to it.
        """
        j, table = self.local(limit, spec.number), self._table(limit, spec)
        current = self.constant("D", table.current)
        lines = [
            f"k{j} = {self._named(limit.idents[spec.number], key)}",
            f"h = hash(k{j}) & {self.store.shard_mask}",
            f"d{j} = {current}[h]",
            f"r{j} = d{j}.get(k{j})",
            f"if r{j} is None:",
            f"    d{j} = None",
            *indented(self._older(f"r{j}", f"k{j}", table)),
        ]
        if limit.key_facts:
            # A key that a full store does not know may have to be counted with strangers.
            account = self.variable("account.id")
            lines.append(f"    if r{j} is None and {account} is None and full(): {self.leave}")
        return lines

    def _older(self, record: str, key: str, table: FusableTable) -> list[str]:
        """Return lines that read a record which the current generation lacks."""
        previous, former = self.constant("G", table.previous), self.constant("H", table.former)
        older = self.constant("B", table.find_older)
        return [
            f"{record} = {previous}[h].get({key})",
            f"if {record} is None and {former}: {record} = {older}({key})",
        ]

    def _named(self, ident: str, key: str) -> str:
        if key == '"="':
            return self.constant("U", f"{ident}=")
        return f"{self.constant('U', ident)} + {key}"

    def _ban(self, limit: Limit, specs: Sequence[CellSpec], key: str) -> list[str]:
        """Return lines that judge a ban; it is looked at if one of the counters is."""
        escalate, j = limit.rule.escalate, self.local(limit)
        if escalate is None:
            return []
        gates = [spec.gate for spec in specs]
        table = self.store.home(limit.ban_idents[1], escalate.block_for)
        current, banned = self.constant("D", table.current), self.constant("J", limit.banned)
        lines = [
            f"k = {self._named(limit.ban_idents[1], key)}",
            f"h = hash(k) & {self.store.shard_mask}",
            f"b{j} = {current}[h].get(k)",
            f"if b{j} is None:",
            *indented(self._older(f"b{j}", "k", table)),
            f"b{j} = 0 if b{j} is None else ban_of(b{j}, t, {escalate.block_for})",
            f"if b{j} > t:",
            f"    judged += ({banned}(b{j} - t),)",
            *indented(self._refuse(limit, key, struck=False)),
        ]
        return conditional("" if "" in gates else " or ".join(gates), lines)

    def _over(
        self, limit: Limit, spec: CellSpec, key: str, frees: str, refuses: str = ""
    ) -> list[str]:
        """Return lines for a counter that has something to say.

        It refuses where a condition holds; empty: always.
        """
        judge = self.constant("J", limit.judge)
        lines = [f"judged += ({judge}(receipt({self._receipt(limit, spec)[0]}), {frees}, t),)"]
        if not spec.ceiling:
            return lines
        return [*lines, *conditional(refuses, self._refuse(limit, key, struck=True))]

    def _refuse(self, limit: Limit, key: str, *, struck: bool) -> list[str]:
        j = self.local(limit)
        lines = ["refused = True"] if limit.binding else [f"left += ({self._number(limit)},)"]
        if struck and limit.rule.escalate is not None:
            named = self.constant("L", limit)
            lines.append(f"if b{j} <= t and ({named}, {key}) not in struck:")
            lines.append(f"    struck += (({named}, {key}),)")
        return lines

    def _alert(self, spec: CellSpec) -> str:
        """Return the ceiling that stands for the first of a window's steps, if one can."""
        return spec.allowance if spec.alerts_at == 100 else ""

    def _line(self, limit: Limit, spec: CellSpec, key: str) -> tuple[list[str], str]:
        j = self.local(limit)
        # No debt reaches as far as that: it was written by a clock that was ahead.
        beyond = f"t + 4 * ({spec.ttl}) + {DAY}"
        lines = [
            f"x{j} = 0",
            f"if r{j} is None: u{j} = t",
            f"elif r{j}.__class__ is int: u{j} = r{j} if r{j} > t else t",
            "else:",
            f"    u{j}, x{j} = r{j}",
            f"    if u{j} < t: u{j} = t",
            f"v{j} = u{j} + {spec.amount}",
            f"if v{j} > {spec.ceiling}:",
            f"    if u{j} > {beyond}: {self.leave}",
            *indented(self._over(limit, spec, key, "None")),
        ]
        return lines, f"((v{j}, x{j}) if x{j} else v{j})"

    def _window(self, limit: Limit, spec: CellSpec, key: str) -> tuple[list[str], str]:
        """Return lines that read a window; one of a single slot is counted as it is packed."""
        j, n, codec = self.local(limit, spec.number), spec.amount, self.store.codec
        bits, mask, frees = codec.SLOT_BITS, codec.SLOT_MASK, "None"
        more, value = self._packed(n), f"v{j}"
        if spec.span > 1:
            frees = f"slot_frees(r{j}, s{j}, {spec.span}, v{j} - ({spec.ceiling or f'v{j}'}))"
            held, record = self._held(j), f"r{j} + {more}"
            if not spec.ceiling:  # what refuses never gets so far
                record = f"min(v{j}, {TOP}) << {bits} | r{j} & {mask}"
            in_one = f"r{j}.__class__ is int and r{j} & {mask} == s{j}"
            record = f"({record}) if {in_one} else charged_window({held}, s{j}, {spec.span}, {n})"
            lines = [
                f"s{j} = {spec.place}",
                f"if r{j} is None: r{j} = s{j}",
                f"if {in_one}: u{j} = r{j} >> {bits}",
                "else:",
                f"    u{j}, s{j} = read_window(r{j}, s{j}, {spec.span})",
                # Slots so far ahead only a clock that was ahead can have written.
                f"    if s{j} > {spec.place} + {spec.span + 1}: {self.leave}",
                f"v{j} = u{j} + {n}",
            ]
        else:
            value, record = f"(v{j} >> {bits})", f"v{j}"
            if not spec.ceiling:
                record = f"min(v{j} >> {bits}, {TOP}) << {bits} | v{j} & {mask}"
            lines = [f"if r{j} is None: r{j} = {spec.place}"]
            if spec.place != "0":
                lines += [
                    "else:",
                    f"    if r{j}.__class__ is not int: r{j} = newest_slot(r{j})",
                    f"    if (s{j} := r{j} & {mask}) != {spec.place}:",
                    f"        if s{j} < {spec.place}: r{j} = {spec.place}",
                    f"        elif s{j} > {spec.place} + {spec.kept // SECOND}: {self.leave}",
                ]
            lines.append(f"v{j} = r{j} + {more}")
        most = self._alert(spec)
        alert = (
            f"{value} > {most}" if most else f"{value} * 100 > {spec.allowance} * {spec.alerts_at}"
        )
        refuses = "" if spec.ceiling == most else f"{value} > {spec.ceiling}"
        return [*lines, *conditional(alert, self._over(limit, spec, key, frees, refuses))], record

    def _packed(self, amount: str) -> str:
        """Return the variable of an amount as it stands in a packed record, above the slot."""
        name = f"m{amount[1:]}"
        line = f"{name} = {amount} << {self.store.codec.SLOT_BITS}"
        if line not in self.opening:
            self.opening.append(line)
        return name

    def _set(self, limit: Limit, spec: CellSpec, key: str) -> tuple[list[str], str]:
        j, most = self.local(limit), spec.allowance
        lines = [
            # Where all members stay, and none for longer than this one, it is entered in place.
            f"if not r{j}: u{j} = 0; g{j} = o{j} = False",
            "else:",
            f"    u{j} = len(r{j}); g{j} = {spec.place} in r{j}",
            f"    if g{j} and u{j} == 1: o{j} = t < r{j}[{spec.place}] <= {spec.until}",
            f"    else: e = r{j}.values(); o{j} = t < min(e) and max(e) <= {spec.until}",
            f"    if not o{j}: u{j}, g{j} = read_members(r{j}, {spec.place}, t)",
            f"if u{j} >= {most} and not g{j}:",
            f"    if max(r{j}.values()) > t + {4 * spec.length + DAY}: {self.leave}",
            *indented(self._over(limit, spec, key, f"expiry_frees(r{j}, u{j} - {most}, t)")),
        ]
        return lines, f"entered({self._held(j)}, {spec.place}, {spec.until}, t)"

    def _held(self, j: int) -> str:
        """Return the source of a record to be changed in place, once it is sure to be written.

        What a function that is called would write is not: its record is a copy.
        """
        return f"copied(r{j})" if self.called else f"r{j}"


class Looked:
    """What the rules of index buckets found, and would write, in one decision."""

    __slots__ = ("ended", "found", "judged", "left", "receipts", "refused", "struck", "writes")

    def __init__(self, ended: bool) -> None:
        """Start with whether the request is refused already, so that no counter need be read."""
        self.ended = ended
        self.found: tuple[Finding, ...] = ()
        self.judged: tuple[Finding, ...] = ()
        self.struck: tuple[tuple[Limit, str], ...] = ()
        self.left: tuple[int, ...] = ()
        self.refused = False
        self.receipts: tuple[Any, ...] = ()
        self.writes: list[tuple[Callable[..., None], str, Any]] = []

    def add(
        self,
        judged: tuple[Finding, ...],
        struck: tuple[tuple[Limit, str], ...],
        left: tuple[int, ...],
        refused: bool,
        receipts: tuple[Any, ...],
    ) -> None:
        """Add what the counters of one bucket's rules said."""
        self.judged += judged
        self.struck += struck
        self.left += left
        self.refused = self.refused or refused
        self.receipts += receipts


def decide_inline(
    engine: Engine, store: FusableStore, steps: Decide, source: ActingSource | None = None
) -> Decide:
    """Return a function that decides as `steps` does, in one pass over a memory store.

    What is no time, and odd requests, are left to `steps`. The facts of whom an account acts as
    need not be put together with those that a request states, where they have a `source`.
    """
    return _Inline(engine, store, steps, source).decide()


def _unread(*case: object) -> tuple[()]:
    """Return the receipts of a decision that looked at no counter."""
    return ()


def _unsettled(*case: object) -> None:
    """Put nothing right: no counter was looked at."""


def _keep() -> None:
    """Keep the lock."""


_UNTOUCHED = Afterwards(_unread, _unsettled)
_USED = tuple(f"u_{unit}" for unit in PLAIN_UNITS)
"""The variables of what was used of each, where a decision is settled."""


class _Inline:
    def __init__(
        self, engine: Engine, store: FusableStore, steps: Decide, source: ActingSource | None
    ) -> None:
        self.engine = engine
        self.store = store
        self.steps = steps
        self.source = source
        # Which facts a decision keeps, and how functions of buckets are handed whom the account
        # acts as.
        self.facts, self.acting = "facts", ""
        if source is not None:
            self.facts, self.acting = "(facts, acting)", ", acting"
            self.steps = partial(self._together, steps, source)
        index = engine.index
        self.buckets: dict[str, dict[object, Any]] = {
            name: dict(bucket) for name, bucket in index.buckets.items() if name != index.main
        }

    def decide(self) -> Decide:
        """Return the function that decides."""
        if sum(map(len, self.buckets.values())) <= AT_ONCE:
            for name, bucket in self.buckets.items():
                for value in bucket:
                    self._bucket(name, value)
        return by_value(self.engine, self._function, "facts, estimate, moment")

    @staticmethod
    def _together(
        steps: Decide,
        source: ActingSource,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
    ) -> Decision:
        """Decide in steps by all facts together, and tell the source what came of it."""
        if not 0 <= moment < LATEST:
            return steps(facts, estimate, moment)
        acting = source.recall(tuple(map(facts.get, source.looks_at)), facts, moment)
        decision = steps(acting.added_to(facts), estimate, moment)
        if source.shown and acting.actor:
            source.note(acting, decision, moment)
        return decision

    def _function(self, places: Iterable[int], fixed: Mapping[str, object]) -> Decide:
        """Return the function for the rules at some places; it calls those of further buckets."""
        emitter = InlineEmitter(
            self.engine, self.store, self.bail, "break", fixed, source=self.source
        )
        emitter.add(places)
        prelude = emitter.prelude()
        # No counter is read where a rule without any refuses.
        refused = [
            "decision = new(Decision)",
            "decision._ruling = ruled(found, facts, t)",
            "decision._settled = False",
            f"decision._case = (engine, {self.facts}, estimate, t, next_serial(), untouched, "
            "found, None)",
            *emitter.told(),
            "return decision",
        ]
        before, within = self._bucket_calls(emitter, refused) if self.buckets else ([], [])
        serial, naming = "next_serial()", []
        if within or emitter.naming:
            serial, naming = "serial", ["serial = next_serial()", *emitter.naming]
        receipts, kept = emitter.receipt_tuple, ["afterwards", "found", "left", *emitter.kept]
        looks, put, joined = "", [], []
        if within:
            joined = [
                "if looks:",
                "    judged += looked.judged; struck += looked.struck; left += looked.left",
                "    refused = refused or looked.refused",
            ]
            looks, receipts = " and not looks", receipts + " + more"
            kept.append("more")
            put = ["if looks:", "    for put, key, record in looked.writes: put(key, record, t)"]
        rest = ", ".join(kept)
        lines = [
            f"if not 0 <= moment < {LATEST!r}: {self.bail}",
            "t = int(moment * 1000000 + 0.5)",
            *prelude,
            *before,
            *conditional(f"ended{looks}", refused),
            *naming,
            # No interrupt comes between a step of an iterator and what follows it, as one may after
            # a call: the lock is never left behind. A with statement would cost twice as much.
            "for held in takes:",
            "    try:",
            "        if late: catch_up()",
            "        while True:",
            *indented(
                [
                    "judged = left = struck = (); refused = moved = False",
                    *within,
                    *emitter.opening,
                    *emitter.then,
                    *joined,
                    *either("refused", ["left = None"], [*emitter.writes, *put]),
                    "if judged: found += judged",
                    "if struck: found = strike(facts, struck, t) + found",
                    "decision = new(Decision)",
                    "decision._ruling = ruled(found, facts, t) if found else ALLOWED",
                    "decision._settled = False",
                    f"decision._case = (engine, {self.facts}, estimate, t, {serial}, {rest})",
                    *emitter.told(),
                    "return decision",
                ],
                3,
            ),
            "    finally:",
            "        release()",
            f"    {self.bail}",
        ]
        emitter.constants["afterwards"] = self._afterwards(emitter, receipts, rest)
        source = ["def decide(facts, estimate, moment):", *indented(lines)]
        emitter.constants.update(self._constants())
        return cast(Decide, emitter.defined(source, "decide", "inline"))

    bail = "return steps(facts, estimate, moment)"

    def _afterwards(self, emitter: InlineEmitter, receipts: str, rest: str) -> Afterwards:
        """Return what is done with a decision that keeps some variables, named in `rest`."""
        case = f"engine, facts, estimate, t, serial, {rest}"
        read = [f"def receipts({case}):", f"    return {receipts}"]
        settles = list(emitter.settles)
        if self.buckets:
            settles.append("for receipt in more: correct_any(receipt, used, moment, serial, left)")
        receipts_of = emitter.defined(read, "receipts", "receipts")
        if not settles:
            return Afterwards(receipts_of, _unsettled)
        # The collector of garbage may settle within a call of the same thread: it never waits.
        put_right = [
            "for held in tries:",
            "    if not held:",
            f"        late.append(partial(settle, used, moment, {case}, held_already, keep))",
            "        return",
            "    try:",
            "        if late and tries is not held_already: catch_up()",
            *indented(settles, 2),
            "    finally: give()",
            "    return",
        ]
        settle = [
            f"def settle(used, moment, {case}, tries=tries, give=release):",
            "    if left is not None:",
            *indented([f"{', '.join(_USED)}, _ = used", *put_right], 2),
        ]
        emitter.constants.update(
            tries=self.store.tries, release=self.store.lock.release,
            homes=self.store.homes, moves=self.store.moves, moved=self.store.moved,
            correct=self._correct, correct_any=self._correct_any,
            late=self.store.late, catch_up=self.store.catch_up, partial=partial,
            held_already=(True,), keep=_keep,
        )  # fmt: skip
        return Afterwards(receipts_of, emitter.defined(settle, "settle", "settle"))

    def _correct(
        self, receipt: tuple[Any, ...], amount: int | None, moment: float, lease: str
    ) -> None:
        """Correct what was charged as its verb says; the lock is held."""
        debit = Receipt._make(receipt)
        correction = self.engine.counters[debit.number][0].correction(debit, amount, lease)
        if correction is not None:
            self.store.correct(correction, int(moment * SECOND + 0.5))

    def _correct_any(
        self,
        receipt: tuple[Any, ...] | None,
        used: tuple[int | None, ...],
        moment: float,
        serial: int,
        left: tuple[int, ...],
    ) -> None:
        """Correct what the rules of an index bucket charged, if they did."""
        if receipt is None:
            return
        limit, part = self.engine.counters[receipt[0]]
        if limit.first not in left:
            lease = self.engine.lease(serial) if limit.lease else ""
            self._correct(receipt, used[plain_place(limit, part)], moment, lease)

    def _strike(
        self, facts: Mapping[str, object], struck: Sequence[tuple[Limit, str]], now: int
    ) -> tuple[Finding, ...]:
        """Count a refusal against each key, and begin the bans of those that had one too many."""
        found: list[Finding] = []
        store, stranger = self.store, spill_text(facts)
        for limit, key in struck:
            _, strike, _, ban = limit.escalation(0, key, stranger, now)
            reply = store.read(strike, now)
            if reply.spilled:
                continue  # a full store leaves the strikes of strangers out
            if not store.refuses(strike, reply):
                store.apply(strike, reply, now)
                continue
            store.apply(ban, store.read(ban, now), now)
            found.append(limit.sentenced())
        return tuple(found)

    def _constants(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "takes": self.store.takes,
            "release": self.store.lock.release,
            "late": self.store.late,
            "catch_up": self.store.catch_up,
            "engine": self.engine,
            "next_serial": self.engine.ids.next,
            "new": object.__new__,
            "Decision": Decision,
            "ALLOWED": ALLOWED,
            "Looked": Looked,
            "untouched": _UNTOUCHED,
            "ruled": self.engine.ruled,
            "strike": self._strike,
        }

    def _bucket_calls(
        self, emitter: InlineEmitter, refused: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """Return the lines that find the functions of buckets, and those that call them.

        They run under the lock, before any counter of the rules here is read; what they asked for
        and would write is `looked`; `refused` are the lines that refuse before that.
        """
        before = ["looks = ()"]
        emitter.constants["bucket_of"] = self._bucket
        for name, bucket in self.buckets.items():
            held, value = emitter.constant("I", bucket), emitter.variable(name)
            before += [
                f"b = {held}.get({value})",
                f"if b.__class__ is tuple: b = bucket_of({name!r}, {value})",
                "if b is not None: looks += (b,)",
            ]
        within = [
            "more = ()",
            "if looks:",
            "    looked = Looked(ended)",
            "    for b in looks:",
            f"        if not b(facts, estimate, t, serial, looked{self.acting}): break",
            "    else: b = None",
            "    if b is not None: break",
            "    found += looked.found; more = looked.receipts",
            *indented(conditional("looked.ended", refused)),
        ]
        return before, within

    def _bucket(self, name: str, value: object) -> Any:
        leave = "return False"
        emitter = InlineEmitter(
            self.engine, self.store, leave, leave, source=self.source, called=True
        )
        emitter.add(self.buckets[name][value])
        lines = [
            *emitter.prelude(),
            "looked.found += found",
            "if ended: looked.ended = True",
            "if looked.ended: return True",
            *emitter.naming,
            "judged = left = struck = (); refused = False",
            *emitter.opening,
            *emitter.then,
            f"looked.add(judged, struck, left, refused, {emitter.receipt_tuple})",
            # What is refused already will not be written.
            *conditional("not looked.refused", emitter.writes),
            "return True",
        ]
        head = f"def look(facts, estimate, t, serial, looked{self.acting}):"
        source = [head, *indented(lines)]
        self.buckets[name][value] = made = emitter.defined(source, "look", f"inline {name}")
        return made

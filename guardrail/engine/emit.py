"""Generated decisions: what all of them do before a counter is looked at, written as source.

A generated function reads the facts and amounts it needs, then goes through the rules twice. First
come conditions, keys and amounts, and what needs no counter (`first`): a block, a degrade, a
request that can never fit. Then the counters (`then`), which are written by a back end: looked up
in a memory store in place (`emit_inline`), or told as numbers to a store elsewhere (`emit_rows`).
What asks for something goes into `found`, a tuple of findings. Only a request that is odd (a fact
of another type, an amount that is none) is left, by `bail`, to the interpreter; nothing has been
written by then. Whatever the function decides, the interpreter would have decided too: property
tests hold the two equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from guardrail.engine.core import Engine
from guardrail.engine.emit_facts import FactEmitter, conditional, either, indented
from guardrail.engine.expressions import (
    LONGEST,
    SEPARATOR,
    STAND_INS,
    TEXTUAL,
    define,
    key_text,
)
from guardrail.engine.index import AT_ONCE
from guardrail.engine.program import absent, member_text, static_finding
from guardrail.engine.sizes import unusable
from guardrail.engine.verbs import CellSpec, Finding, Limit, pace_increment, refuses
from guardrail.engine.windows import Bounds
from guardrail.model.amounts import MICRO, Amount, Fixed, FromFact, possible_amounts
from guardrail.model.cells import TOP
from guardrail.model.rules import Rule

DEEPEST = 30
"""A rule with more places to stop at, one within the other, is left to the interpreter."""
SMALL = TOP // MICRO
"""A whole number of up to this many is an amount in any unit, money too."""
TOKEN_PARTS = {"input_tokens": "tokens_in", "output_tokens": "tokens_out"}
MONEY = "cost_usd"
TOKENS = ("tokens", "input_tokens", "output_tokens")
PLAIN_UNITS = (*TOKENS, MONEY)
"""What a usage of plain token counts tells an amount of."""


def plain_place(limit: Limit, part: int) -> int:
    """Return where the unit of a counter stands among `PLAIN_UNITS`, after them if it does not."""
    unit = "".join(limit.units[part : part + 1])
    return PLAIN_UNITS.index(unit) if unit in PLAIN_UNITS else len(PLAIN_UNITS)


class Emitter(FactEmitter, ABC):
    """Writes one generated function for some of an engine's rules.

    `shared` are the lines of keys that several rules have, `first` the others before any counter is
    looked at, `then` those that look at counters.
    `opening` are lines that the latter share. `head` takes the lines of the rule that is being
    written; what a verb adds to it runs where the rule applies. A request that a
    rule refuses here looks at no counter.
    """

    longest_line: float = float("inf")
    """The longest time line, in microseconds, that the store can count."""

    def __init__(
        self,
        engine: Engine,
        bail: str,
        fixed: Mapping[str, object] | None,
        *,
        called: bool,
        more: Sequence[str] = (),
    ) -> None:
        """Start a function that leaves by `bail`, for requests with the facts that are `fixed`.

        One that is `called` by another has rules of an index bucket, and no others. It may read
        `more` facts than rules do.
        """
        super().__init__(engine.reader_with(more), engine.policies.facts, bail, fixed)
        self.engine = engine
        self.called = called
        self.shared: list[str] = []
        self.first: list[str] = []
        self.then: list[str] = []
        self.opening: list[str] = []
        self.head: list[str] = []
        self.naming: list[str] = []
        self._units: dict[str, str] = {}
        self._locals: dict[int, int] = {}
        self._windows: dict[str, str] = {}
        self._keys: dict[tuple[tuple[str, ...], str | None], str] = {}
        self._sharing: Counter[tuple[tuple[str, ...], str | None]] = Counter()
        self._outer: list[tuple[list[str], bool]] = []
        self._on = ""
        self.constants.update(pace_increment=pace_increment)
        if not called:
            self._require()

    def add(self, places: Iterable[int]) -> None:
        """Add the lines of the rules at these places in the set."""
        found = []
        for place in places:
            rule, limit = self.engine.rules[place], self.engine.limits[place]
            applies = self.applies(rule, self.engine.policies.exemptions)
            if applies != "False":
                found.append((rule, limit, applies))
        self._sharing = Counter(
            (limit.key_facts, rule.unknown) for rule, limit, _ in found if limit is not None
        )
        for rule, limit, applies in found:
            if limit is None:
                finding = static_finding(rule)
                named = self.constant("F", (finding,))
                self.first += conditional(applies, [_finds(named, finding)])
            else:
                self._add_limit(rule, limit, applies)

    @abstractmethod
    def look(self, limit: Limit, specs: Sequence[CellSpec], key: str) -> list[str]:
        """Return the lines that look at the counters of a rule that applies.

        `key` is the source of its key's text.
        """

    def _add_limit(self, rule: Rule, limit: Limit, applies: str) -> None:
        self.head, self._outer = [], []
        self._on = f"a{self.local(limit)}" if applies else ""
        key = self._key(rule, limit, shared=not applies)
        specs = limit.specs(self)
        if specs is None or len(self._outer) > DEEPEST:
            self.first.append(f"if {applies or True}: {self.bail}")
            return
        if self._on:
            self.head.append(f"{self._on} = True")
            self.first.append(f"{self._on} = False")
        self.first += conditional(applies, self._nested())
        if specs:
            self.then += conditional(self._on, self.look(limit, specs, key))

    def _nested(self) -> list[str]:
        """Return the rule's lines: what comes after a place where it may stop stands in an else."""
        lines = self.head
        for outer, goes_on in reversed(self._outer):
            rest = ["else:", *indented(lines)] if goes_on and lines else []
            lines = [*outer, *rest]
        return lines

    # What verbs ask for.

    def local(self, limit: Limit, part: int = 0) -> int:
        """Return the number that a rule's counter has among those of this function."""
        return self._locals.setdefault(limit.first + part, len(self._locals))

    def amount(self, unit: str) -> str:
        """Return the variable that holds the request's amount of a unit."""
        # A declared unit may be called what no variable can.
        name = f"n_{unit if unit.isidentifier() else unit.encode().hex()}"
        return self._units.setdefault(unit, name)

    def looked_up(self, limit: Limit, amount: Amount, j: int) -> tuple[str, str]:
        """Return the source of a rule's amount, and when it is limited; empty: always.

        Where it allows nothing the rule refuses, and looks at no counter.
        """
        if isinstance(amount, Fixed):
            if amount.value == 0:
                self.refuse_all(limit, "")
            return self.constant("Z", amount.value), ""
        self.head.append(f"l{j} = {self.allowance(amount)}")
        values = possible_amounts(amount)
        if values is None:
            values = (0, amount.missing if isinstance(amount, FromFact) else None)
        if 0 in values:
            self.refuse_all(limit, f"l{j} == 0")
        return f"l{j}", f"l{j} is not None" if None in values else ""

    def refuse_all(self, limit: Limit, where: str) -> None:
        """Refuse, where a condition holds (empty: always), as the limit allows nothing."""
        finding = limit.nothing_allowed()
        nothing = self.constant("F", (finding,))
        self._stop(limit, where, [_finds(nothing, finding)], finding)

    def refuse_too_much(
        self, limit: Limit, number: int, amount: str, by: str, most: str, fits: str, where: str
    ) -> None:
        """Refuse a request whose amount, worked out as `by`, is above what can ever fit.

        `where` is the condition for the limit to count (empty: always), `fits` the units told.
        """
        refuse = self.constant("X", limit.too_much)
        told, finding = self.amount(limit.units[number]), limit.too_much(number, 0, 0)
        too_much = _finds(f"({refuse}({number}, {told}, {fits}),)", finding)
        if by:
            self.head += conditional(where, [f"{amount} = {by}"])
        beyond = f"{where} and {amount} > {most}" if where else f"{amount} > {most}"
        self._stop(limit, beyond, [too_much], finding)

    def calendar_slot(self, kind: str, bounds_at: Callable[[int], Bounds]) -> str:
        """Return the variable of the calendar window's slot; its bounds are remembered."""
        slot = self._windows.get(kind)
        if slot is None:
            slot = self._windows[kind] = f"s_{kind}"
            held = self.constant("W", [(0, 0, 0)])
            roll = self.constant("R", _roller(bounds_at, self.constants[held]))
            # Read in one piece, as another thread may move it on.
            self.opening += [
                f"w_{kind}, e_{kind}, {slot} = {held}[0]",
                f"if not w_{kind} <= t < e_{kind}: {slot} = {roll}(t)",
            ]
        return slot

    def lease(self) -> str:
        """Return the variable of what the decision's places in flight are known by."""
        self.constants["ids"] = self.engine.ids
        self.naming = ["lease = f'{ids.mark}{serial}'"]
        return "lease"

    def member(self, limit: Limit) -> str:
        """Return the variable of the value that a request shows to a set."""
        verb, j = limit.rule.verb, self.local(limit)
        fact = verb.facts[-1]
        value = self.variable(fact)
        if limit.rule.unknown == "skip":
            self._stop(limit, f"{value} is None", ["pass"])
        write, stated = self.constant("M", member_text), f"{{{fact!r}: {value}}}"
        written = f"{write}({self.constant('V', verb)}, {stated})"
        if self.facts[fact].type not in TEXTUAL:
            self.head.append(f"m{j} = {written}")
        else:
            plain = f"{value} is None or len({value}) > {LONGEST}"
            self.head.append(f'm{j} = {written} if {plain} else "=" + {value}')
        return f"m{j}"

    # Parts of a function.

    def defined(self, lines: Sequence[str], name: str, title: str) -> Any:
        """Return the function `name` that lines define over the constants of this one."""
        shared = self.engine.index.is_wide
        return define(lines, self.constants, name, title, shared=shared)

    def prelude(self) -> list[str]:
        """Return the lines that read facts and amounts, then `shared` and `first`.

        They leave what was `found`, and whether a request is refused by it and so has `ended`.
        """
        sized = self._amount_lines()
        reads = [*self.fact_lines(), *sized]
        lines = ["now = t / 1000000"] if self.timed else []
        # A value that cannot be looked up in a set is not of its fact's type.
        lines += ["try:", *indented(reads), "except TypeError:", f"    {self.bail}"]
        return ["found = (); ended = False", *lines, *self.shared, *self.first]

    def _stop(
        self, limit: Limit, where: str, lines: list[str], finding: Finding | None = None
    ) -> None:
        """Leave the rule out from here on, after some lines, where a condition holds.

        An empty condition always holds. What was found may refuse the request.
        """
        if finding is None or not refuses((finding,)):
            self._on = f"a{self.local(limit)}"
        self.head += conditional(where, lines)
        self._outer.append((self.head, bool(where)))
        self.head = []

    def _key(self, rule: Rule, limit: Limit, *, shared: bool) -> str:
        """Return the source of a rule's key text, which rules share that have the same.

        `shared` tells whether the rule always runs.
        """
        names = limit.key_facts
        if not names:
            return '"="'
        known = self._keys.get((names, rule.unknown))
        skips = rule.unknown == "skip"
        if known is None:
            known, lines = f"q{self.local(limit)}", self.head
            if shared or self._sharing[names, rule.unknown] > 1:
                self._keys[names, rule.unknown] = known
                lines = self.shared
            lines += self._key_lines(known, names, rule.unknown)
        if skips:
            self._stop(limit, f"{known} is None", ["pass"])
        return known

    def _key_lines(self, key: str, names: tuple[str, ...], unknown: str | None) -> list[str]:
        write = self.constant("K", key_text(names, unknown))
        read = dict.fromkeys((*names, *(STAND_INS if unknown is None else ())))
        stated = ", ".join(f"{name!r}: {self.variable(name)}" for name in read)
        written = f"{key} = {write}({{{stated}}})"
        if any(self.facts[name].type not in TEXTUAL for name in names):
            return [written]
        variables = [self.variable(name) for name in names]
        if len(names) == 1 and unknown is None and names != STAND_INS[:1]:
            (value,), account = variables, self.variable(STAND_INS[0])
            return [
                f"if {value} is None and {account} is not None and len({account}) <= {LONGEST}:",
                f'    {key} = "a" + {account}',
                f"elif {self.unplain(names[0], joined=False)}: {written}",
                f'else: {key} = "=" + {value}',
            ]
        odd = " or ".join(self.unplain(name, len(names) > 1) for name in names)
        plain = f'"=" + {variables[0]}'
        if len(names) > 1:
            plain = 'f"' + repr(SEPARATOR)[1:-1].join(f"={{{v}}}" for v in variables) + '"'
        return [f"if {odd}: {written}", f"else: {key} = {plain}"]

    def _require(self) -> None:
        for name in self.engine.required:
            missing = _finds(self.constant("F", (absent(name),)), absent(name))
            self.first += conditional(f"{self.variable(name)} is None", [missing])
        # A wrong value for an identity is refused also where no rule asks for it this time.
        # So is a value that an index does not know, or that equals one of another type.
        for name in (*sorted(self.reader.identities), *self.engine.index.buckets):
            self.variable(name)

    def _amount_lines(self) -> list[str]:
        units = self._units
        if self.called and not units:
            return []
        lines, read, known = ["if estimate is None: estimate = {}"], [], "0"
        if "requests" in units:
            read, known = ["n_requests"], "given"
            lines += [
                'n_requests = estimate.get("requests")',
                "if n_requests is None: n_requests = 1; given = 0",
                "else: given = 1",
            ]
        if units.keys() & {*TOKENS, MONEY}:
            read, known = [*read, *TOKEN_PARTS.values()], f"{known} + {len(TOKEN_PARTS)}"
            lines += [f'{part} = estimate.get("{unit}")' for unit, part in TOKEN_PARTS.items()]
        checks, sized = [] if self.called else self._checks(), self._reserved(units)
        if not units.keys() <= {"requests", *TOKENS, MONEY} or not read:
            return [*lines, *checks, *sized]
        plain = " and ".join(f"{name}.__class__ is int" for name in read)
        summed = [f"n_{unit} = {part}" for unit, part in TOKEN_PARTS.items() if unit in units]
        if "tokens" in units:
            summed.append(f"n_tokens = {' + '.join(TOKEN_PARTS.values())}")
        if MONEY in units:
            self.constants["priced"] = self.engine.sizer.priced
            model = "request.model"
            named = self.variable(model) if model in self.reader.facts else "None"
            summed.append(f"n_{MONEY} = priced({', '.join(TOKEN_PARTS.values())}, 0, {named})")
        else:
            top = [f"if n_tokens > {TOP}: n_tokens = {TOP}"] if "tokens" in units else []
            sized = either(plain, [*summed, *top], sized)
        # Where an estimate states nothing but what was read here, the rest needs no look: no amount
        # is negative, or has more bits than any that is small.
        small = f"not ({' | '.join(read)}) >> {SMALL.bit_length() - 1}"
        alone = f"{plain} and len(estimate) == {known} and {small}"
        return [*lines, *either(alone, summed, [*checks, *sized])]

    def _checks(self) -> list[str]:
        """Return lines that bail out where an estimate states an amount that is none."""
        self.constants["unusable"] = unusable
        return [
            "for stated in estimate.values():",
            f"    if stated.__class__ is not int or not 0 <= stated <= {SMALL}:",
            f"        if unusable(estimate): {self.bail}",
            "        break",
        ]

    def _reserved(self, units: Mapping[str, str]) -> list[str]:
        """Return lines that size a request whose estimate does not state all of its parts."""
        self.constants["reserve"] = self.engine.sizer.reserve
        self.constants["value"] = self.reader.value
        if not units:
            return []
        return [
            'amounts, _ = reserve(estimate, value("request.model", facts))',
            *(f"{name} = amounts[{unit!r}]" for unit, name in units.items()),
        ]


def _finds(source: str, finding: Finding) -> str:
    """Return the line that adds to what was found; `source` is a tuple of one like `finding`."""
    return f"found += {source}" + ("; ended = True" if refuses((finding,)) else "")


def _roller(
    bounds_at: Callable[[int], Bounds], held: list[tuple[int, int, int]]
) -> Callable[[int], int]:
    def roll(now: int) -> int:
        bounds = bounds_at(now)
        held[0] = (bounds.start, bounds.end, bounds.slot)
        return bounds.slot

    return roll


def by_value(
    engine: Engine,
    make: Callable[[Iterable[int], Mapping[str, object]], Callable[..., Any]],
    arguments: str,
) -> Callable[..., Any]:
    """Return a function that calls the one made for the rules that may concern a request.

    Rules are found by the value of the fact that most of them are indexed by; `make` takes their
    places, and that value. Where the index has many values, each has its function made when it is
    first asked for.
    """
    index, name = engine.index, engine.index.main
    if name is None:
        return make(index.always, {})
    bucket = index.buckets[name]
    functions: dict[object, Callable[..., Any] | None] = dict.fromkeys(bucket)
    otherwise = make(index.always, {})

    def made(value: object) -> Callable[..., Any]:
        # What equals a value may be of another type: the function is for the one that is listed.
        (listed,) = (each for each in bucket if each == value)
        function = make((*index.always, *bucket[listed]), {name: listed})
        functions[listed] = function
        return function

    if len(bucket) <= AT_ONCE:
        for value in bucket:
            made(value)
    lines = [
        f"def find({arguments}):",
        f"    value = facts.get({name!r})",
        f"    if value is None: value = {engine.reader.facts[name].default!r}",
        "    try: function = functions.get(value, otherwise)",
        "    except TypeError: function = otherwise  # no value of the fact's type",
        f"    if function is None: return made(value)({arguments})",
        f"    return function({arguments})",
    ]
    constants = {"functions": functions, "otherwise": otherwise, "made": made}
    found: Callable[..., Any] = define(lines, constants, "find", f"rules by {name}")
    return found

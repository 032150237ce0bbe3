"""Compiles rules and exemptions, each on its own, so that an error in one hides none in another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast

from guardrail.loading.amounts import Amounts
from guardrail.loading.conditions import Conditions, Sightings
from guardrail.loading.findings import Path, Place, Scope
from guardrail.loading.foreign import CONDITION_WORDS, VERB_WORDS, rule_under_its_name
from guardrail.loading.foreign_values import duration
from guardrail.loading.nodes import (
    Entry,
    ListNode,
    MapNode,
    Node,
    Scalar,
    all_or_none,
    kind_of,
    text_in,
)
from guardrail.loading.notation import (
    LONGEST,
    MONEY,
    NotationError,
    read_at,
    read_duration,
    read_instant,
    read_share,
)
from guardrail.loading.shapes import (
    VERBS,
    BudgetShape,
    ConcurrencyShape,
    DistinctShape,
    EscalateShape,
    ExemptionShape,
    RateShape,
    RuleShape,
)
from guardrail.loading.shaping import keys_of, shaped
from guardrail.loading.suggest import did_you_mean, nearest
from guardrail.loading.text import listed, quoted
from guardrail.loading.verdicts import Verdicts
from guardrail.model.amounts import MINUTE, Amount
from guardrail.model.conditions import WHOLE, Comparison, Condition, Every, Rollout
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source
from guardrail.model.rules import (
    About,
    Block,
    Budget,
    Concurrency,
    Degrade,
    Distinct,
    Escalate,
    Exemption,
    Key,
    Rate,
    Rule,
    Verb,
    Window,
)

_LONGEST_TEXT = 1_000
_RULE_KEYS = frozenset(keys_of(RuleShape))


@dataclass(frozen=True, slots=True)
class Rules:
    """Compiles rules and exemptions over one scope."""

    scope: Scope
    conditions: Conditions
    amounts: Amounts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "amounts", Amounts(self.scope))

    def rule(self, node: MapNode, index: int) -> Rule | None:
        """Compile one rule; what is wrong is reported, and None returned."""
        place = Place(node, self.scope.findings, node.get("id"))
        if len(node.entries) == 1 and self._under_its_name(place, node.entries[0]):
            return None
        when = self._when(place, [])
        one_verb = self._one_verb(place)
        shape = shaped(RuleShape, place, self.scope.units)
        if shape is None:
            return None
        verdicts = Verdicts(shape.id, place, self.scope)
        verbs = Verbs(shape, place, self.scope, verdicts, self.amounts)
        verb = verbs.verb() if one_verb else None
        escalate = None if shape.escalate is None else verbs.escalate(shape.escalate, verb)
        start, end = self._bounds(shape, place)
        if when is not None and shape.rollout is not None:
            when = self._rolled_out(when, shape)
        if when is None or verb is None:
            return None
        return Rule(
            id=shape.id,
            index=index,
            when=when,
            verb=verb,
            span=node.span,
            unknown=shape.unknown,
            mode=self.scope.mode if shape.mode is None else Mode(shape.mode),
            exemptible=shape.exemptible,
            start=start,
            end=end,
            escalate=escalate,
            on_store_error=shape.on_store_error,
            was=shape.was,
            about=self._about(shape, place),
        )

    def _about(self, shape: RuleShape, place: Place) -> About:
        """Return what people say of a rule; report what is no text of a line."""
        said = {name: getattr(shape, name) for name in ("description", "owner", "ticket")}
        paths: dict[Path, str | None] = {(name,): text for name, text in said.items()}
        labels = shape.labels or {}
        paths.update({("labels", name): text for name, text in labels.items()})
        for path, text in paths.items():
            if text is not None and not (text.strip() and len(text) <= _LONGEST_TEXT):
                message = f"{quoted(str(path[-1]))} must be text"
                help = f"1 to {_LONGEST_TEXT:,} characters; leave it out if there is nothing to say"
                place.report("GR102", path, message, help=help)
        return About(**said, labels=labels)

    def _rolled_out(self, when: Condition, shape: RuleShape) -> Condition | None:
        """Return a condition that holds for a share of the accounts alone."""
        parts = read_at(self.scope, shape.rollout, read_share)
        if parts is None or parts == WHOLE:
            return None if parts is None else when
        text = f"{shape.rollout.text} of accounts"
        salt = Rollout(shape.was or shape.id, parts)
        before = when.parts if isinstance(when, Every) else (when,)
        return Every((*before, Comparison("account.id", "rollout", salt, text)))

    def exemption(self, node: MapNode) -> Exemption | None:
        """Compile one exemption; what is wrong is reported, and None returned."""
        place = Place(node, self.scope.findings, node.get("id"))
        seen: Sightings = []
        when = self._when(place, seen)
        server_facts_only(self.scope, seen, "an exemption")
        shape = shaped(ExemptionShape, place)
        if shape is None:
            return None
        if not shape.rules:
            help = "name the rules it lifts, or raises the amounts of"
            place.report("GR108", ("rules",), "`rules` is empty", help=help)
        for position, rule in enumerate(shape.rules):
            self._exemptible(rule, ("rules", position), place)
        expires = self._instant(place.at("expires"), last=True)
        if when is None or expires is None:
            return None
        named = tuple(dict.fromkeys(shape.rules))
        return Exemption(
            id=shape.id,
            rules=named if shape.raised is None else (),
            raises=() if shape.raised is None else named,
            when=when,
            reason=shape.reason,
            expires=expires,
            unknown_holds=shape.unknown == "match",
            span=node.span,
        )

    def _under_its_name(self, place: Place, entry: Entry) -> bool:
        name = entry.key.text
        help = None if name in _RULE_KEYS else rule_under_its_name(name, entry.value)
        if help is not None:
            place.report_key("GR101", (name,), f"unknown key {quoted(name)}", help=help)
        return help is not None

    def _when(self, place: Place, seen: Sightings) -> Condition | None:
        node = cast(MapNode, place.node).get("when")
        if node is not None:
            return self.conditions.compile(node, seen)
        present = _keys(place.node)
        meant = present - _RULE_KEYS
        if not meant.isdisjoint(STANDARD_FACTS):
            return None
        if not any(
            name in CONDITION_WORDS or name in STANDARD_FACTS or nearest(name, ("when",))
            for name in meant
        ):
            help = "add `when: always` if it is meant for every request"
            place.report_key("GR102", (), "missing `when`", help=help)
        return None

    def _one_verb(self, place: Place) -> bool:
        present = _keys(place.node)
        verbs = [verb for verb in VERBS if verb in present]
        if len(verbs) == 1:
            return True
        if verbs:
            message = f"a rule has one verb, this one has {listed(verbs)}"
            help = "make a rule of each"
            in_order = [
                e.key.text for e in cast(MapNode, place.node).entries if e.key.text in verbs
            ]
            place.report_key("GR112", (in_order[1],), message, help=help)
        elif not any(name in VERB_WORDS or nearest(name, VERBS) for name in present - _RULE_KEYS):
            help = f"add one of {listed(VERBS, 'or')}"
            place.report_key("GR112", (), "this rule has no verb", help=help)
        return False

    def _bounds(self, shape: RuleShape, place: Place) -> tuple[int | None, int | None]:
        start = None if shape.start is None else self._instant(place.at("from"), last=False)
        end = None if shape.until is None else self._instant(place.at("until"), last=True)
        if start is not None and end is not None and start >= end:
            message = f"`until` {quoted(shape.until or '')} is not after `from`"
            label = f"`from` is {quoted(shape.start or '')}"
            place.report(
                "GR110", ("until",), message, label=label, help="the rule would never apply"
            )
        return start, end

    def _instant(self, node: Node, *, last: bool) -> int | None:
        return read_at(self.scope, node, lambda it: read_instant(it, self.scope.zone, last=last))

    def _exemptible(self, rule: str, path: Path, place: Place) -> None:
        known = self.scope.rules
        if known.get(rule, self.scope.partial):
            return
        if rule in known:
            message = f"rule {quoted(rule)} cannot be exempted"
            help = "leave it out of the exemption"
            place.report("GR118", path, message, label="it says `exemptible: false`", help=help)
            return
        help = did_you_mean(rule, known, "rules")
        if rule in ("*", "all", "any", "every"):
            help = "name each rule: an exemption lifts none that it does not name"
        place.report("GR118", path, f"unknown rule {quoted(rule)}", help=help)


def server_facts_only(scope: Scope, seen: Sightings, what: str) -> bool:
    """Report the facts tested that a caller chooses, where `what` must not rest on them."""
    reported = set()
    for name, node in seen:
        fact = scope.facts.get(name)
        if fact is None or fact.source is Source.SERVER or (name, node.span) in reported:
            continue
        reported.add((name, node.span))
        message = f"{what} cannot rest on {quoted(name)}"
        label = "the caller chooses its value"
        help = "test facts that the server establishes, such as `account.id`"
        scope.report("GR119", node, message, label=label, help=help)
    return not reported


def _keys(node: Node) -> set[str]:
    return {entry.key.text for entry in node.entries} if isinstance(node, MapNode) else set()


_CALENDAR = ("hour", "day", "week", "month", "lifetime")
_BANNED_KEYS = (("account.id",), ("credential.id",), ("actor.id",))
_IN_FACT_WORDS = {
    "minute": "1m",
    "hourly": "hour",
    "daily": "day",
    "weekly": "week",
    **dict.fromkeys(("year", "1y", "1 year", "yearly", "annual", "annually"), "365d"),
    **dict.fromkeys(("forever", "ever", "always", "total", "all-time", "never"), "lifetime"),
}


@dataclass(frozen=True, slots=True)
class Verbs:
    """Compiles the verb of one rule; what is wrong is reported, and None returned."""

    rule: RuleShape
    place: Place
    scope: Scope
    verdicts: Verdicts
    amounts: Amounts

    def verb(self) -> Verb | None:
        """Compile the one verb of the rule."""
        rule = self.rule
        static = rule.block or rule.degrade
        if static is not None:
            self._only_for_limits("block" if rule.block else "degrade")
        if rule.block is not None:
            verdict = self.verdicts.refusal(Effect.BLOCK, rule.block, ("block",))
            return None if verdict is None else Block(verdict)
        if rule.degrade is not None:
            verdict = self.verdicts.degrade(rule.degrade, ("degrade",))
            return None if verdict is None else Degrade(verdict)
        if rule.budget is not None:
            return self._budget(rule.budget)
        self._no_steps()
        if rule.rate is not None:
            return self._rate(rule.rate)
        if rule.concurrency is not None:
            return self._concurrency(rule.concurrency)
        return None if rule.distinct is None else self._distinct(rule.distinct)

    def escalate(self, shape: EscalateShape, verb: Verb | None) -> Escalate | None:
        """Compile an `escalate`: it needs a limit that refuses, and a key that is one account's."""
        path = ("escalate",)
        within = read_at(self.scope, shape.within, read_duration)
        block_for = read_at(self.scope, shape.block_for, read_duration)
        if isinstance(verb, (Block, Degrade)):
            message = "`escalate` needs a limit that can be run into"
            label = "this rule counts nothing"
            self.place.report_key("GR120", path, message, label=label, help="move it to a limit")
            return None
        if verb is not None and verb.key.facts not in _BANNED_KEYS:
            message = "`escalate` would block a key that many share"
            label = f"the key is {listed(verb.key.facts) or '`global`'}"
            help = "key the limit by one of `account.id`, `credential.id` and `actor.id`"
            self.place.report_key("GR120", path, message, label=label, help=help)
            return None
        if verb is not None and verb.over.effect is Effect.DEGRADE:
            message = "`escalate` never comes to act: this rule never refuses"
            help = "let `over` throttle or block, or leave `escalate` out"
            self.place.report_key("GR120", path, message, label="its `over` degrades", help=help)
            return None
        if within is None or block_for is None:
            return None
        return Escalate(after=shape.after, within=within, block_for=block_for)

    def _only_for_limits(self, verb: str) -> None:
        rule = self.rule
        written = {"over": rule.over, "steps": rule.steps, "on_store_error": rule.on_store_error}
        for name, part in written.items():
            if part is not None:
                message = f"`{name}` does not apply to `{verb}`"
                help = f"leave it out: `{verb}` counts nothing"
                self.place.report_key("GR101", (name,), message, help=help)

    def _no_steps(self) -> None:
        if self.rule.steps is not None:
            message = "`steps` apply to a `budget` only"
            help = "say with `over` what happens at the limit"
            self.place.report_key("GR115", ("steps",), message, help=help)

    def _rate(self, shape: RateShape) -> Rate | None:
        key = self._key(shape.key)
        over = self.verdicts.at_limit(self.rule, Effect.THROTTLE)
        burst: Amount | None = None
        fine = key is not None and over is not None and self._has_units("rate", shape.entries, 1)
        for unit, node in shape.entries.items():
            money = unit == MONEY
            if shape.burst is not None:
                burst = self.amounts.amount(shape.burst, money=money)
                fine = fine and burst is not None
            rate = self.amounts.rate(node, money=money)
            self._priced("rate", unit)
            if fine and rate is not None and key is not None and over is not None:
                amount, period = rate
                return Rate(
                    unit=unit, amount=amount, period=period, burst=burst, key=key, over=over
                )
        return None

    def _budget(self, shape: BudgetShape) -> Budget | None:
        key = self._key(shape.key)
        window = read_at(self.scope, shape.per, read_window)
        lifetime = window is not None and window.kind == "lifetime"
        steps = self.verdicts.steps(self.rule, Effect.BLOCK if lifetime else Effect.THROTTLE)
        amounts: list[tuple[str, Amount]] = []
        self._has_units("budget", shape.entries, None)
        for unit, node in shape.entries.items():
            amount = self.amounts.amount(node, money=unit == MONEY)
            self._priced("budget", unit)
            if amount is not None:
                amounts.append((unit, amount))
        whole = bool(amounts) and len(amounts) == len(shape.entries)
        if not whole or key is None or window is None or steps is None:
            return None
        return Budget(amounts=tuple(amounts), window=window, key=key, steps=steps)

    def _concurrency(self, shape: ConcurrencyShape) -> Concurrency | None:
        key = self._key(shape.key)
        over = self.verdicts.at_limit(self.rule, Effect.THROTTLE)
        most = self.amounts.amount(shape.max)
        lease = read_at(self.scope, shape.lease, partial(read_duration, most=LONGEST))
        if key is None or over is None or most is None or lease is None:
            return None
        return Concurrency(most=most, lease=lease, key=key, over=over)

    def _distinct(self, shape: DistinctShape) -> Distinct | None:
        key = self._key(shape.key)
        over = self.verdicts.at_limit(self.rule, Effect.BLOCK)
        most = self.amounts.amount(shape.max)
        period = read_at(self.scope, shape.per, partial(read_duration, least=MINUTE, most=LONGEST))
        count = self._key_fact(self.place.at("distinct", "count"))
        if key is None or over is None or most is None or period is None or count is None:
            return None
        return Distinct(count=count, most=most, period=period, key=key, over=over)

    def _has_units(self, verb: str, units: dict[str, object], most: int | None) -> bool:
        if units and (most is None or len(units) <= most):
            return True
        if units:
            message = f"`{verb}` limits {listed(units)}"
            help = "one unit a rate; write a rule for each"
        else:
            message = f"`{verb}` does not say how much"
            help = "add an amount, such as `requests: 60/minute`"
            if verb == "budget":
                help = "add an amount, such as `tokens: 50k`"
        self.place.report_key("GR110", (verb,), message, help=help)
        return False

    def _priced(self, verb: str, unit: str) -> None:
        models = self.scope.models.values()
        unpriced = [model.name for model in models if model.price is None]
        doubtful = self.scope.partial or self.scope.models_doubtful
        if unit != MONEY or doubtful or (models and not unpriced):
            return
        message, help = "no model has a price", "add `models:` with a `price` each"
        if unpriced:
            message = f"no price for {listed(unpriced)}"
            help = "add `price: {input: …, output: …}`, in USD per million tokens"
        label = "a limit in `cost_usd` needs the price of every model"
        self.place.report_key("GR117", (verb, unit), message, label=label, help=help)

    def _key(self, node: Node) -> Key | None:
        if isinstance(node, Scalar) and node.value == "global":
            return Key(())
        if not isinstance(node, ListNode):
            fact = self._key_fact(node)
            return None if fact is None or not self._tells_apart(node, (fact,)) else Key((fact,))
        if not node.parts:
            help = "write `global` if all requests share the limit"
            self.scope.report("GR108", node, "`key` is empty", help=help)
            return None
        facts = [self._key_fact(part) for part in node.parts]
        for index, name in enumerate(facts):
            if name is not None and name in facts[:index]:
                message = f"{quoted(name)} is in the key twice"
                self.scope.report("GR102", node, message, help="leave one out")
                return None
        whole = all_or_none(facts)
        if whole is None or not self._tells_apart(node, whole):
            return None
        return Key(whole)

    def _tells_apart(self, node: Node, names: tuple[str, ...]) -> bool:
        """Report what a client chooses in a key: each value it makes up is a counter of its own."""
        findings = self.scope.findings
        known = [self.scope.facts[name] for name in names]
        chosen = [fact for fact in known if fact.source is Source.CLIENT]
        if not chosen:
            return True
        named = listed(fact.name for fact in chosen)
        if len(chosen) == len(known):
            message = f"a limit cannot be kept by {named} alone"
            label = "whoever says something else has a fresh counter"
            help = "add a fact that the server establishes, such as `account.id`, or use `global`"
            findings.report("GR119", node, message, label=label, help=help)
            return False
        times = math.prod(_values_of(fact) for fact in chosen)
        often = "with every value it makes up" if times == math.inf else f"up to {times:,} times"
        message = f"{named} in a key multiplies the limit: a client has it anew {often}"
        help = f"leave {'it' if len(chosen) == 1 else 'them'} out, or say why it is meant: "
        help += "`# guardrail: ignore GR203 why`"
        findings.report("GR203", node, message, label="the caller chooses it", help=help)
        return True

    def _key_fact(self, node: Node) -> str | None:
        findings = self.scope.findings
        name = text_in(node)
        if name is None:
            message = f"a key is a fact, not {kind_of(node)}"
            findings.report("GR102", node, message, help="such as `account.id`, or `global`")
            return None
        advice = "`global` stands alone: it is one limit for all requests"
        help = advice if name == "global" else None
        fact = self.scope.fact(name, node.span, help=help, also=("global",))
        if fact is not None and fact.type is FactType.LIST:
            message = f"{quoted(fact.name)} cannot tell counters apart"
            findings.report("GR114", node, message, label="a fact of type list")
            return None
        return None if fact is None else fact.name


def _values_of(fact: Fact) -> float:
    return 2 if fact.type is FactType.BOOL else len(fact.values) or math.inf


def read_window(written: object) -> Window:
    """Return a window, such as `day` or `30d`.

    Raises:
        NotationError: it is none.
    """
    if isinstance(written, str) and written in _CALENDAR:
        kind = cast(Literal["hour", "day", "week", "month", "lifetime"], written)
        return Window(kind, written)
    try:
        length = read_duration(written, least=MINUTE, most=LONGEST)
    except NotationError as error:
        if "not a duration" not in error.message:
            raise
        help = "write `hour`, `day`, `week`, `month`, `lifetime`, or a length such as `30d`"
        near = None
        if isinstance(written, str):
            near = (
                _IN_FACT_WORDS.get(written.lower())
                or duration(written)
                or nearest(written, _CALENDAR)
            )
        help = help if near is None else f"did you mean {quoted(near)}?"
        raise NotationError("is not a window", help) from None
    return Window("rolling", str(written), length)

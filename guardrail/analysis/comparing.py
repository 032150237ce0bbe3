"""What becomes looser and what stricter from one policy set to another, for all requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from guardrail.analysis.demands import (
    Demand,
    Index,
    covered,
    demands,
    least_effect,
    may_cover,
    told,
)
from guardrail.analysis.differences import NOWHERE, bare, changed_names, differences
from guardrail.analysis.formulas import EffortError, Formula, holds
from guardrail.analysis.space import Space
from guardrail.analysis.witnesses import More, Witness, smallest, some_point
from guardrail.engine import bind, rule_facts
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block, Rule, Verdict

_CLOCK_FACTS = frozenset({"time.hour", "time.weekday"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One class of requests of which less, or more, is asked for than before.

    `rule` is the rule that asked for it, or asks for it now; `before` and `after` are what was
    asked for and what is, in words. `witness` is the smallest such request, and `effects` what it
    gets from the old and from the new set when nothing was counted yet.
    """

    rule: str
    before: str
    after: str
    witness: Witness
    effects: tuple[Effect, Effect]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """How one rule differs; `kind` is added, removed, renamed or changed.

    `lines` say what differs. `gained` is a request that it applies to now and did not before,
    `lost` one that it applied to before.
    """

    rule: str
    kind: str
    lines: tuple[str, ...] = ()
    gained: Witness | None = None
    lost: Witness | None = None
    was: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A rule whose counters start afresh: what they held is lost."""

    rule: str
    why: str
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Two policy sets compared; `unjudged` says what could not be."""

    looser: tuple[Change, ...]
    stricter: tuple[Change, ...]
    rules: tuple[RuleChange, ...]
    restarts: tuple[Restart, ...]
    notes: tuple[str, ...]
    unjudged: tuple[str, ...]


def compared(old: PolicySet, new: PolicySet, now: int) -> Changes:
    """Return what changes from one policy set to another, at a time (microseconds) and later."""
    space = Space((old, new), now)
    pairs = paired(old, new)
    unchanged = {
        (a.id, b.id) for a, b in pairs if _same_rule(a, b) and _same_around(old, new, a, b)
    }
    unjudged: list[str] = [
        f"`{name}` is tested by `prefix` and by `cidr`, or in too many lists: what rests on it is "
        "judged by examples"
        for name in sorted(space.outside)
    ]
    unjudged += _by_the_clock(old, new)
    asked = demands(space, 0), demands(space, 1)
    looser = Standing(space, *asked, dict(unchanged), unjudged).changes(False)
    stricter = Standing(space, asked[1], asked[0], {b: a for a, b in unchanged}, unjudged).changes(
        True
    )
    rules = tuple(_rule_changes(space, old, new, pairs, unchanged, unjudged))
    return Changes(
        looser=looser,
        stricter=stricter,
        rules=rules,
        restarts=tuple(_restarts(old, new, pairs)),
        notes=tuple(_notes(old, new)),
        unjudged=tuple(dict.fromkeys(unjudged)),
    )


class Standing:
    """What of the demands of one side, `a`, the other side, `b`, stands in for."""

    def __init__(
        self,
        space: Space,
        a: Sequence[Demand],
        b: Sequence[Demand],
        unchanged: Mapping[str, str],
        unjudged: list[str],
    ) -> None:
        """Take both sides; the rules of `a` in `unchanged` are not asked about.

        What cannot be judged is added to `unjudged`.
        """
        self.space, self.a, self.b = space, a, b
        self.unchanged, self.unjudged = unchanged, unjudged
        self._acting = Index(b)
        self._own = Index(a)

    def changes(self, swapped: bool) -> tuple[Change, ...]:
        """Return a change for each thing that is asked for no longer; `swapped`: not before."""
        found: list[Change] = []
        for one in self.a:
            if one.rule is not None and one.name in self.unchanged:
                continue
            try:
                witness = self.uncovered(one)
            except EffortError:
                self.unjudged.append(_entangled(one.name))
                continue
            if witness is not None:
                found.append(self._change(one, witness, swapped))
        return tuple(found)

    def uncovered(self, one: Demand) -> Witness | None:
        """Return the smallest request of which `one` is asked and nothing as strict, if any."""
        if self.covering(one) is not None:
            return None
        # Best shown by a request that no limit bounds either: what is refused at once needs none.
        witness = smallest(self.space, [one.when], self._free_of(one, counting=one.counts))
        if witness is None:
            rivals = [b for b in self.b if b.counts and may_cover(b, one, self.space.sets)]
            rival = min(rivals, key=lambda b: b.name != one.name)
            left = self.space.opposite(covered(self.space, rival, one))
            witness = smallest(self.space, [one.when, left], self._free_of(one))
        return witness

    def covering(
        self, one: Demand, allowed: Callable[[Demand], bool] | None = None
    ) -> tuple[str, ...] | None:
        """Return the rules that ask for at least as much wherever `one` is asked, None if none do.

        A limit has to be one rule's: of two that share its requests each would allow all of it.
        `allowed` tells which may stand in.
        """
        used: dict[str, None] = {}
        free = self._free_of(one, used, allowed)
        first = some_point(self.space, [one.when], free)
        if first is None or not one.counts:
            return tuple(used) if first is None else None
        alone = tuple(used)
        points = [first]
        rivals = [
            b
            for b in self._acting.at(first)
            if b.counts and may_cover(b, one, self.space.sets) and (allowed is None or allowed(b))
        ]
        rivals.sort(key=lambda b: b.name != one.name)
        if len(rivals) > 1:
            # Most often one request shows of all of them that they do not.
            apart = [self.space.opposite(covered(self.space, b, one)) for b in rivals]
            with suppress(EffortError):
                point = some_point(self.space, [one.when, *apart], free)
                if point is not None:
                    return None
        for b in rivals:
            formula = covered(self.space, b, one)
            if all(holds(formula, point) for point in points):
                point = some_point(self.space, [one.when, self.space.opposite(formula)], free)
                if point is None:
                    return tuple(dict.fromkeys((b.name, *alone)))
                points.append(point)
        return None

    def _free_of(
        self,
        one: Demand,
        used: dict[str, None] | None = None,
        allowed: Callable[[Demand], bool] | None = None,
        *,
        counting: bool = False,
    ) -> More:
        """Return what adds that nothing static stands in for `one`, and that it matters at all.

        It does not where the request is refused anyway. `counting`: no limit stands in, either.
        `used` gathers which rules were met.
        """
        sets = self.space.sets

        def more(chosen: Mapping[str, int]) -> list[Formula]:
            for b in self._acting.at(chosen):
                fits = (counting or not b.counts) and may_cover(b, one, sets)
                if fits and (allowed is None or allowed(b)):
                    formula = covered(self.space, b, one)
                    if holds(formula, chosen):
                        if used is not None:
                            used[b.name] = None
                        return [self.space.opposite(formula)]
                if b.refuses and not one.refuses and b.effect >= one.effect:
                    return [self.space.opposite(b.when)]
            if not one.refuses:
                for a in self._own.at(chosen):
                    if a.refuses and a.effect >= one.effect:
                        return [self.space.opposite(a.when)]
            return []

        return more

    def _change(self, one: Demand, witness: Witness, swapped: bool) -> Change:
        chosen = witness.chosen
        acting = list(self._acting.at(chosen))
        before, after = least_effect(self._own.at(chosen)), least_effect(acting)
        instead = [
            told(b, chosen)
            for b in sorted(acting, key=partial(_distance, one))
            if (b.name == one.name and b.counts == one.counts)
            or (
                (b.verb, b.counted) == (one.verb, one.counted)
                and (b.obligation is None) == (one.obligation is None)
                and (b.escalate is None) == (one.escalate is None)
            )
        ]
        effects = tuple(Effect.ALLOW if d is None else d.effect for d in (before, after))
        first, second = reversed(effects) if swapped else effects
        said = told(one, chosen)
        others = [text for text in instead if text != said]
        texts = (said, others[0] if others else "nothing")
        was, becomes = reversed(texts) if swapped else texts
        return Change(
            rule=one.name,
            before=was,
            after=becomes,
            witness=witness,
            effects=(first, second),
        )


def _distance(one: Demand, b: Demand) -> tuple[bool, ...]:
    """Return what sorts the demand first that is most like another one."""
    return (
        b.name != one.name,
        (b.escalate is None) != (one.escalate is None),
        b.effect is not one.effect,
        (b.obligation or ("",))[0] != (one.obligation or ("",))[0],
        b.percent != one.percent,
    )


def _entangled(name: str) -> str:
    return f"the condition of `{name}` is too entangled to be judged"


# Rules one by one.


def paired(old: PolicySet, new: PolicySet) -> list[tuple[Rule, Rule]]:
    """Return the rules that are the same ones in both sets: by their ids, or by `was`."""
    by_id = {rule.id: rule for rule in new.rules}
    formerly = {rule.was: rule for rule in new.rules if rule.was is not None}
    found = []
    for rule in old.rules:
        other = by_id.get(rule.id) or formerly.get(rule.id)
        if other is None and rule.was is not None:
            other = formerly.get(rule.was)
        if other is not None:
            found.append((rule, other))
    return found


def _plain(rule: Rule) -> Rule:
    """Return a rule without its name and its place, to be compared with another."""
    return replace(rule, id="", index=0, span=NOWHERE, was=None)


def _same_rule(a: Rule, b: Rule) -> bool:
    return _plain(a) == _plain(b)


def _same_around(old: PolicySet, new: PolicySet, a: Rule, b: Rule) -> bool:
    """Tell whether all that a rule depends on besides itself is the same in both sets."""
    lifting = [
        [
            replace(ex, span=NOWHERE, rules=(), raises=(), reason="", id="")
            for ex in p.exemptions
            if r.id in ex.rules
        ]
        for p, r in ((old, a), (new, b))
    ]
    if lifting[0] != lifting[1]:
        return False
    moved = any(v.obligations is not None and v.obligations.model for v in a.verb.verdicts)
    if moved and (old.models, old.unlisted_model) != (new.models, new.unlisted_model):
        return False
    names = rule_facts(a, old.exemptions)
    return all(_declared(old, name) == _declared(new, name) for name in names)


def _declared(policies: PolicySet, name: str) -> object:
    fact = policies.facts.get(name)
    return None if fact is None else replace(fact, declared=False)


def _rule_changes(
    space: Space,
    old: PolicySet,
    new: PolicySet,
    pairs: Sequence[tuple[Rule, Rule]],
    unchanged: set[tuple[str, str]],
    unjudged: list[str],
) -> Iterator[RuleChange]:
    kept = {a.id for a, _ in pairs}
    found = {b.id for _, b in pairs}
    added = [rule for rule in new.rules if rule.id not in found]
    for rule in old.rules:
        if rule.id in kept:
            continue
        again = next((b for b in added if _same_but_for_reasons(rule, b)), None)
        if again is not None:
            added.remove(again)
            yield RuleChange(rule=again.id, kind="renamed", was=rule.id)
        else:
            yield RuleChange(rule=rule.id, kind="removed", lines=(_shown(rule),))
    for rule in added:
        yield RuleChange(rule=rule.id, kind="added", lines=(_shown(rule),))
    for a, b in pairs:
        if (a.id, b.id) in unchanged and a.id == b.id:
            continue
        lines = list(differences(a, b))
        gained = lost = None
        if Mode.OFF in (a.mode, b.mode):
            yield RuleChange(rule=b.id, kind="changed", lines=tuple(lines))
            continue
        before, after = space.applies(0, a), space.applies(1, b)
        try:
            if before != after:
                gained = smallest(space, [after, space.opposite(before)])
                lost = smallest(space, [before, space.opposite(after)])
        except EffortError:
            unjudged.append(_entangled(b.id))
        if lines or gained or lost or a.id != b.id:
            yield RuleChange(
                rule=b.id,
                kind="changed" if a.id == b.id else "renamed",
                lines=tuple(lines),
                gained=gained,
                lost=lost,
                was=None if a.id == b.id else a.id,
            )


def _same_but_for_reasons(a: Rule, b: Rule) -> bool:
    return _unexplained(a) == _unexplained(b)


def _unexplained(rule: Rule) -> object:
    plain = _plain(rule)
    verdicts = tuple(bare(v, rule.id) for v in rule.verb.verdicts)
    verb = rule.verb
    rest: tuple[object, ...] = (verb.name, verb.facts, verb.units, verb.allowances, verb.covers)
    steps = tuple(step.percent for step in verb.on_the_way)
    return (replace(plain, verb=Block(_NO_VERDICT)), verdicts, rest, steps, verb.lasts)


_NO_VERDICT = Verdict(effect=Effect.BLOCK, reason="")


def _shown(rule: Rule) -> str:
    mode = "" if rule.mode is Mode.ENFORCE else f", {rule.mode.value}"
    return f"{rule.verb.name}{mode}"


def _restarts(
    old: PolicySet, new: PolicySet, pairs: Sequence[tuple[Rule, Rule]]
) -> Iterator[Restart]:
    """Yield the rules whose counters get another name, so that what they held is lost."""
    kept = {a.id for a, _ in pairs}
    for a, b in pairs:
        if Mode.OFF in (a.mode, b.mode):
            continue
        before, after = bind(a, old.name, old.timezone), bind(b, new.name, new.timezone)
        if before is None or after is None:
            continue
        lost = [
            i
            for i in (*before.idents, *before.ban_idents)
            if i and i not in (*after.idents, *after.ban_idents)
        ]
        if not lost or not set(before.idents).difference(after.idents):
            continue
        why = ", ".join(_renamed(old, new, a, b))
        yield Restart(rule=b.id, why=why, help="what was counted so far is forgotten")
    for rule in old.rules:
        if rule.id in kept or bind(rule, old.name, old.timezone) is None:
            continue
        again = next((b for b in new.rules if _same_but_for_reasons(rule, b)), None)
        if again is not None and again.was is None:
            help = f"add `was: {rule.id}` to keep what was counted"
            yield Restart(rule=again.id, why=f"`{rule.id}` has another id", help=help)


def _renamed(old: PolicySet, new: PolicySet, a: Rule, b: Rule) -> Iterator[str]:
    if old.name != new.name:
        yield f"the policy is called `{new.name}`, not `{old.name}`"
    if a.counter_id != b.counter_id:
        yield f"its counters were kept as `{a.counter_id}`"
    if a.verb.name != b.verb.name:
        yield f"{a.verb.name} → {b.verb.name}"
        return
    if a.mode is not b.mode:
        yield f"mode {a.mode.value} → {b.mode.value}"
    if a.verb.units != b.verb.units:
        yield "another unit"
    if a.verb.covers != b.verb.covers or a.verb.lasts != b.verb.lasts:
        yield "another window"
    if a.verb.facts != b.verb.facts:
        yield "another key"
    if old.timezone != new.timezone:
        yield f"time zone {old.timezone} → {new.timezone}"


def _by_the_clock(old: PolicySet, new: PolicySet) -> Iterator[str]:
    """Yield which rules go by a clock that the sets set differently."""
    if old.timezone == new.timezone:
        return
    rules = {
        rule.id: None
        for policies in (old, new)
        for rule in policies.rules
        if rule.mode is not Mode.OFF
        and not _CLOCK_FACTS.isdisjoint(rule_facts(rule, policies.exemptions, stand_ins=False))
    }
    if rules:
        names = ", ".join(f"`{name}`" for name in rules)
        yield (
            f"what hour and what day it is changes with the time zone: when {names} "
            f"{'applies' if len(rules) == 1 else 'apply'} is not judged"
        )


def _notes(old: PolicySet, new: PolicySet) -> Iterator[str]:
    """Yield what else differs, and is judged by nobody here."""
    if old.models != new.models or old.unlisted_model != new.unlisted_model:
        yield "`models` differ: what requests cost, reserve and are moved to may change"
    if old.links != new.links or old.score != new.score:
        yield "`links` or `score` differ: which accounts act as one may change"
    if old.timezone != new.timezone:
        yield f"the time zone differs: {old.timezone} → {new.timezone}"
    for kind, before, after in (
        ("test", old.scenarios, new.scenarios),
        ("claim of `prove`", old.claims, new.claims),
        ("expectation", old.thresholds, new.thresholds),
    ):
        told = changed_names(kind, before, after)
        if told is not None:
            yield told

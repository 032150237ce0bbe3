"""What a replay adds up to: decisions, by effect, by rule and by account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from guardrail.engine import Decision, Sizer, unlisted
from guardrail.guard.fallback import STORE_UNAVAILABLE
from guardrail.model.amounts import UNITS
from guardrail.model.effects import Effect, Mode, StoreMode
from guardrail.model.policy import PolicySet
from guardrail.replay.ceilings import Ceilings
from guardrail.replay.few import FewNames
from guardrail.replay.harm import Harm, Place
from guardrail.replay.matching import Kind, Matching
from guardrail.replay.seen import Seen
from guardrail.replay.thresholds import Expected
from guardrail.traffic.requests import Request

MOST_KINDS = 65_536
"""How many kinds of requests are kept apart before they are evaluated and forgotten."""
MOST_NAMES = 1_000
"""How many facts that no policy knows are told apart."""

_BOUND = frozenset(("_policies", "_has_rules", "_has_models", "_sizer", "_kinds"))
"""What a tally counts by, and has counted in no figure yet; not among its figures."""
_BITS = tuple(1 << effect for effect in Effect)


@dataclass(slots=True)
class ShadowTally:
    """What enforcing the shadow rules would have changed.

    `stricter` counts requests by the effect they would have had instead of a milder one;
    `accounts` counts them by account.
    """

    by_rule: Counter[tuple[str, Effect]] = field(default_factory=Counter)
    stricter: Counter[Effect] = field(default_factory=Counter)
    accounts: Counter[str] = field(default_factory=Counter)

    def merge(self, other: ShadowTally) -> None:
        """Add what was counted of other requests."""
        self.by_rule.update(other.by_rule)
        self.stricter.update(other.stricter)
        self.accounts.update(other.accounts)


class Tally:
    """Adds up the decisions of a replay; figures are complete after `finish`.

    `decided` counts requests by deciding rule (None for none) and effect, `accounts` holds the
    effects each account met, as bits, `strange` counts facts that no policy knows, `unlisted` the
    models that the policies do not list, and `notes` what estimates lacked; what was wrong with
    facts is in `matching.notes`. `idle` counts by rule the degrades that could not take effect.
    `modes` counts the decisions made without the store,
    `unavailable` those refused for want of it, by rule.
    """

    def __init__(
        self,
        policies: PolicySet,
        divisions: Iterable[tuple[str, ...]] = (),
        *,
        rules: bool = True,
    ) -> None:
        """Count by segments of `divisions`; `rules` tells whether what rules matched is wanted.

        Without it `matching` and `seen` stay empty.
        """
        self.requests = 0
        self.decided: Counter[tuple[str | None, Effect]] = Counter()
        self.accounts: dict[str, int] = {}
        self.shadow = ShadowTally()
        self.strange: FewNames[str] = FewNames(MOST_NAMES)
        self.uncounted: FewNames[str] = FewNames(MOST_NAMES)
        """What amounts stood under that is no unit, and so counts nothing."""
        self.notes: Counter[str] = Counter()
        self.unlisted: FewNames[str] = FewNames(MOST_NAMES)
        self.timed = 0
        """How many requests said how long they took."""
        self.idle: Counter[str] = Counter()
        self.modes: Counter[StoreMode] = Counter()
        self.unavailable: Counter[str | None] = Counter()
        self.matching = Matching(policies)
        self.seen = Seen(policies, self.matching.merged)
        """Which values rules met."""
        self.ceilings = Ceilings(policies)
        """What was asked of budgets that all accounts share."""
        self.harm = Harm(policies, divisions)
        """Whom refusals hit, of the requests whose place is known."""
        self.expected = Expected(policies)
        self._policies = policies
        self._has_rules = rules
        self._has_models = bool(policies.models)
        verbs = [rule.verb for rule in policies.rules if rule.mode is not Mode.OFF]
        self._sizer = Sizer(policies, [unit for verb in verbs for unit in verb.units])
        # How many requests there were of a kind, and one of them.
        self._kinds: dict[tuple[object, ...], list[Any]] = {}

    def add(
        self, ts: float, request: Request, decision: Decision, place: Place | None = None
    ) -> None:
        """Count one decided request; `place` is where it stands in the traffic."""
        if place is not None:
            self.harm.add(place, decision)
        if self.expected.any:
            self.expected.add(ts, decision)
        ruling, facts = decision.ruling, decision.facts
        effect, rule = ruling.effect, ruling.rule
        account = facts.get("account.id")
        if account.__class__ is str:
            seen = self.accounts.get(account, 0)
            if not seen & _BITS[effect]:
                self.accounts[account] = seen | _BITS[effect]
        kind: Kind = ()
        if self._has_rules:
            kind = self.matching.kind(ts, facts)
            if self.seen.stated:
                self.seen.state(facts.get)
        estimate = request.reserved
        if request.duration:
            self.timed += 1
        if ruling.idle:
            self.idle.update(ruling.idle)
        key = (
            rule,
            effect,
            *facts,
            None,
            *(estimate or ()),
            facts.get("request.model") if self._has_models else None,
            *kind,
        )
        try:
            self._kinds[key][0] += 1
        except KeyError:
            self._add_kind(key, rule, effect, ts, facts, estimate)
        except TypeError:
            # A list has no hash: its text tells it as well.
            self._add_kind((str(key),), rule, effect, ts, facts, estimate)
        if self.ceilings.any:
            self.ceilings.add(ts, decision)
        if ruling.shadow:
            self._add_shadow(account, decision)
        if ruling.mode is not StoreMode.NORMAL:
            self.modes[ruling.mode] += 1
            if ruling.reason == STORE_UNAVAILABLE:
                self.unavailable[rule] += 1

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {name: value for name, value in vars(self).items() if name not in _BOUND}

    def finish(self) -> None:
        """Complete the figures."""
        self._evaluate()
        self.seen.settle()
        self.harm.finished()

    def merge(self, other: Tally) -> None:
        """Add what was counted of other requests by the same policies; both are finished."""
        self.requests += other.requests
        self.timed += other.timed
        for account, met in other.accounts.items():
            self.accounts[account] = self.accounts.get(account, 0) | met
        self.shadow.merge(other.shadow)
        self.strange.merge(other.strange)
        self.uncounted.merge(other.uncounted)
        self.unlisted.merge(other.unlisted)
        self.decided.update(other.decided)
        self.notes.update(other.notes)
        self.idle.update(other.idle)
        self.modes.update(other.modes)
        self.unavailable.update(other.unavailable)
        self.matching.merge(other.matching)
        self.ceilings.merge(other.ceilings)
        self.harm.merge(other.harm)
        self.harm.finished()
        self.seen.merge(other.seen)
        self.expected.merge(other.expected)

    def effect_requests(self, effect: Effect) -> int:
        """Return how many requests met an effect."""
        return sum(count for (_, met), count in self.decided.items() if met is effect)

    def effect_accounts(self, effect: Effect) -> int:
        """Return how many accounts met an effect at least once."""
        return sum(bool(met & _BITS[effect]) for met in self.accounts.values())

    def _add_kind(self, key: tuple[object, ...], *sample: Any) -> None:
        kind = self._kinds.get(key)
        if kind is not None:
            kind[0] += 1
            return
        if len(self._kinds) >= MOST_KINDS:
            self._evaluate()
        self._kinds[key] = [1, *sample]

    def _evaluate(self) -> None:
        known = self._policies.facts
        for count, rule, effect, ts, facts, estimate in self._kinds.values():
            self.requests += count
            self.decided[rule, effect] += count
            if self._has_rules:
                self.matching.add(count, ts, facts, rule)
                self.seen.add(count, ts, facts)
            for name in facts:
                if name not in known:
                    self.strange.add(name, count)
            for unit in estimate or ():
                if unit not in UNITS and unit not in self._policies.units:
                    self.uncounted.add(unit, count)
            model = facts.get("request.model")
            for note in self._sizer.reserve(estimate, model)[1]:
                self.notes[note] += count
            if unlisted(self._policies, model):
                self.unlisted.add(str(model), count)
        self._kinds.clear()

    def _add_shadow(self, account: object, decision: Decision) -> None:
        shadow, strongest = self.shadow, decision.effect
        for report in decision.shadow:
            shadow.by_rule[report.rule, report.effect] += 1
            strongest = max(strongest, report.effect)
        if strongest > decision.effect:
            shadow.stricter[strongest] += 1
            if isinstance(account, str):
                shadow.accounts[account] += 1

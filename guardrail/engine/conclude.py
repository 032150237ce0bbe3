"""Combining: from what every rule asks for to the one answer, the most restrictive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from guardrail.engine.verbs import Finding
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Effect, StoreMode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Obligations, Rule

_DEGRADE = Effect.DEGRADE
_ALLOW = Effect.ALLOW
MILLISECOND = SECOND // 1000
NO_OBLIGATIONS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """What one shadow rule would have done, had it been enforced."""

    rule: str
    effect: Effect
    reason: str
    retry_after: float | None = None


class Ruling(NamedTuple):
    """The combined answer: what a decision says, apart from the evidence for it.

    `idle` names the rules that asked for a weaker model which the request's does not lead to.
    """

    effect: Effect = _ALLOW
    rule: str | None = None
    reason: str | None = None
    message: str | None = None
    status: int | None = None
    remedy: str | None = None
    retry_after: float | None = None
    obligations: Mapping[str, object] = NO_OBLIGATIONS
    shadow: tuple[ShadowReport, ...] = ()
    notes: tuple[str, ...] = ()
    mode: StoreMode = StoreMode.NORMAL
    idle: tuple[str, ...] = ()


ALLOWED = Ruling()


def conclude(
    policies: PolicySet,
    found: Sequence[Finding],
    model: object,
    now: int,
    notes: tuple[str, ...] = (),
) -> Ruling:
    """Return the ruling on all that was found at `now` (microseconds) of a request for a model."""
    if not found:
        return Ruling(notes=notes) if notes else ALLOWED
    ruling = _combined(policies, found, model, now, notes)
    if ruling.effect.refuses:
        return ruling
    idle = {f.order: note for f in found if (note := idle_note(policies, model, f)) is not None}
    if not idle:
        return ruling
    rules = policies.rules
    names = tuple(rules[order].id for order in sorted(idle))
    said = tuple(f"rule `{rules[order].id}` {note}" for order, note in sorted(idle.items()))
    return ruling._replace(idle=names, notes=notes + said)


def refused_by(policies: PolicySet, finding: Finding, now: int) -> Ruling:
    """Return the ruling where a rule in force refuses and nothing else was found."""
    wait = _told(finding.wait, now)
    return _ruling(policies.rules, finding, wait, NO_OBLIGATIONS, (), ())


def idle_note(policies: PolicySet, model: object, finding: Finding) -> str | None:
    """Return what keeps a finding's weaker model from being served, None if nothing does.

    A request for that model, or for a weaker one, has what the finding asks for.
    """
    obligations = finding.verdict.obligations
    target = None if obligations is None else obligations.model
    if target is None or finding.effect is not _DEGRADE:
        return None
    known = policies.model_for(model)
    if known is None:
        why = "the request names no model" if model is None else f"`{model}` is not in `models`"
        return f"asks for the model `{target}`, without effect: {why}"
    if known.name == target or known.name in policies.weaker_than(target):
        return None
    if target in policies.weaker_than(known.name):
        return None
    return f"asks for the model `{target}`, without effect: `{known.name}` does not lead to it"


def _combined(
    policies: PolicySet,
    found: Sequence[Finding],
    model: object,
    now: int,
    notes: tuple[str, ...],
) -> Ruling:
    rules, chain = policies.rules, tuple[str, ...]()
    if any(f.effect is _DEGRADE for f in found):
        chain = policies.weaker_than(model) if model is not None else ()
        found = [f for f in found if f.effect is not _DEGRADE or _obliges(f, chain)]
    enforced = [f for f in found if not f.shadow]
    shadow = tuple[ShadowReport, ...]()
    if len(enforced) < len(found):
        shadow = _shadow_reports(rules, [f for f in found if f.shadow])
    refusals = [f for f in enforced if f.effect.refuses]
    if refusals:
        strongest = min(refusals, key=_precedence)
        return _refused(rules, strongest, refusals, now, shadow, notes)
    obligations = merge_obligations(
        [f.verdict.obligations for f in sorted(enforced, key=_precedence) if f.verdict.obligations],
        chain,
    )
    degrades = [f for f in enforced if f.effect is _DEGRADE]
    if degrades:
        strongest = min(degrades, key=_precedence)
        return _ruling(rules, strongest, None, obligations, shadow, notes)
    return Ruling(obligations=obligations, shadow=shadow, notes=notes)


def _refused(
    rules: Sequence[Rule],
    strongest: Finding,
    refusals: Sequence[Finding],
    now: int,
    shadow: tuple[ShadowReport, ...],
    notes: tuple[str, ...],
) -> Ruling:
    wait: int | None = 0
    for finding in refusals:
        if finding.wait is None:
            wait = None
            break
        wait = max(wait or 0, finding.wait)
    return _ruling(rules, strongest, _told(wait, now), NO_OBLIGATIONS, shadow, notes)


def _told(wait: int | None, now: int) -> int | None:
    """Return the wait that is told, in microseconds.

    A time of sub-microsecond digits was rounded: a client that adds the wait to its own reading of
    the clock may come out a microsecond short.
    """
    return wait + 1 if wait is not None and now % MILLISECOND else wait


def merge_obligations(every: Iterable[Obligations], chain: tuple[str, ...]) -> Mapping[str, object]:
    """Return the strictest of several obligations, as a mapping for the host.

    The weakest reachable model wins, the lowest cap, everything disabled; of two values for one
    `x-…` entry the first rule's stands. `chain` lists the models the request may move to.
    """
    merged: dict[str, object] = {}
    disabled: set[str] = set()
    cap: int | None = None
    reach = -1
    for obligations in every:
        if obligations.model in chain:
            reach = max(reach, chain.index(obligations.model))
        if obligations.max_output_tokens is not None:
            cap = min(obligations.max_output_tokens, cap or obligations.max_output_tokens)
        disabled.update(obligations.disable)
        for name, value in obligations.extra.items():
            merged.setdefault(name, value)
    if reach >= 0:
        merged["model"] = chain[reach]
    if cap is not None:
        merged["max_output_tokens"] = cap
    if disabled:
        merged["disable"] = sorted(disabled)
    return MappingProxyType(merged) if merged else NO_OBLIGATIONS


def _obliges(finding: Finding, chain: tuple[str, ...]) -> bool:
    obligations = finding.verdict.obligations
    return obligations is not None and bool(merge_obligations([obligations], chain))


def _precedence(finding: Finding) -> tuple[int, float, int]:
    """Sort the finding that is reported first: strongest, then longest wait, then order."""
    wait = float("inf") if finding.wait is None else finding.wait
    return (-finding.effect, -wait, finding.order)


def _ruling(
    rules: Sequence[Rule],
    finding: Finding,
    wait: int | None,
    obligations: Mapping[str, object],
    shadow: tuple[ShadowReport, ...],
    notes: tuple[str, ...],
) -> Ruling:
    verdict = finding.verdict
    return Ruling(
        finding.effect,
        rules[finding.order].id if finding.order >= 0 else None,
        verdict.reason,
        verdict.message,
        verdict.status,
        verdict.remedy,
        None if wait is None else wait / SECOND,
        obligations,
        shadow,
        notes,
    )


def _shadow_reports(rules: Sequence[Rule], found: list[Finding]) -> tuple[ShadowReport, ...]:
    """Report each shadow rule once, by the strongest thing it asks for."""
    strongest: dict[int, Finding] = {}
    for finding in sorted(found, key=_precedence):
        if finding.effect is not _ALLOW:
            strongest.setdefault(finding.order, finding)
    return tuple(
        ShadowReport(
            rule=rules[index].id,
            effect=finding.effect,
            reason=finding.verdict.reason,
            retry_after=None if finding.wait is None else finding.wait / SECOND,
        )
        for index, finding in sorted(strongest.items())
    )

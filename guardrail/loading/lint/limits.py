"""Limits that no request fits, or that do not hold what they seem to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from guardrail.errors import Diagnostic, finding
from guardrail.loading.findings import Path
from guardrail.loading.lint.written import Written, allowances
from guardrail.loading.lists import list_name
from guardrail.loading.nodes import MapNode, Node, Scalar
from guardrail.loading.notation import MONEY
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import (
    HOUR,
    SECOND,
    Amount,
    Banded,
    possible_amounts,
    without_raises,
)
from guardrail.model.conditions import ALWAYS, facts_of
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import BURST, Budget, Concurrency, Distinct, Limiting, Rate, Rule

TYPICAL_TOKENS = 1000
"""What a request is taken to need where no model says how long its answers may get."""

_METERED = ("tokens", "output_tokens", MONEY)
_FLEETING = ("/tmp/", "/dev/shm/", "/run/", "/var/run/")
"""Folders that are empty after their host has started."""
_OF_ALL = ("requests", "tokens", "in flight")
"""The units of which every request needs some: it may cost nothing, or have no output."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One amount of a rule that counts, and where it is written."""

    rule: Rule
    verb: Limiting
    unit: str
    amount: Amount
    path: Path


def lint_limits(written: Written) -> None:
    """Report limits that are there in vain, or leave a gap beside them."""
    limits = [limit for limit in _limits(written.policies) if limit.rule.mode is Mode.ENFORCE]
    _too_small(written, limits)
    _without_room(written, limits)
    _of_no_value(written, limits)
    _unfelt_bans(written)
    _late_bands(written)
    _without_concurrency(written, limits)


def forgetful(policies: PolicySet, store: str) -> list[Diagnostic]:
    """Return a note if a store that forgets at a restart is to keep what counts for long."""
    scheme, _, path = store.partition("://")
    if scheme != "memory" and not (scheme == "lmdb" and path.startswith(_FLEETING)):
        return []
    when = "at every restart" if scheme == "memory" else "when its host starts anew"
    long = [
        rule
        for rule in policies.rules
        if rule.mode is not Mode.OFF and (rule.verb.lasts > HOUR or _bans_long(rule))
    ]
    if not long:
        return []
    message = f"`{store}` forgets {when} what {listed(rule.id for rule in long)} "
    message += "counts" if len(long) == 1 else "count"
    help = "keep counters in `lmdb://…` or `redis://…`; a window of an hour forgives a restart"
    return [finding("GR211", message, long[0].span, help)]


def _bans_long(rule: Rule) -> bool:
    return rule.escalate is not None and rule.escalate.block_for > HOUR


def _limits(policies: PolicySet) -> Iterator[_Limit]:
    for rule in policies.rules:
        verb = rule.verb
        if isinstance(verb, Limiting):
            for path, amount in allowances(rule):
                if path[-1] != BURST:
                    yield _Limit(rule, verb, verb.counted or str(path[-1]), amount, path)


def _refuses(limit: _Limit) -> bool:
    verb = limit.verb
    over = verb.verdicts[-1]
    bounded = limit.rule.start is None and limit.rule.end is None
    return bounded and limit.rule.mode is Mode.ENFORCE and over.effect.refuses


# GR210: a limit that one request can be too large for.


def _too_small(written: Written, limits: list[_Limit]) -> None:
    caps = [model.max_output for model in written.policies.models.values() if model.max_output]
    typical = {"tokens": TYPICAL_TOKENS, "output_tokens": TYPICAL_TOKENS, "input_tokens": 0}
    told = f"a request of {TYPICAL_TOKENS:,} tokens does not fit"
    if caps:
        typical = dict.fromkeys(("tokens", "output_tokens"), min(caps))
        told = f"a request that states no output reserves {min(caps):,} tokens at least"
    prices = [
        Fraction(model.price.output * model.max_output, 1_000_000)
        for model in written.policies.models.values()
        if model.price is not None and model.max_output
    ]
    for limit in limits:
        amounts = possible_amounts(_at_once(limit)) or ()
        stated = [amount for amount in amounts if amount]
        needed: Fraction | int = typical.get(limit.unit, 0)
        label = told
        if limit.unit == MONEY:
            needed = min(prices, default=Fraction(0))
            label = "a request that states no output reserves more, whatever its model"
        if stated and min(stated) < needed:
            message = f"a typical request does not fit into the limit of {quoted(limit.rule.id)}"
            help = "give it room for a few requests, or `0` if nobody is to be served"
            at = written.place(limit.rule).key_span(limit.path)
            findings = written.scope.findings
            report = findings.report if caps else findings.note
            report("GR210", at, message, label=label, help=help)


def _at_once(limit: _Limit) -> Amount:
    return (limit.verb.burst or limit.amount) if isinstance(limit.verb, Rate) else limit.amount


def _without_room(written: Written, limits: list[_Limit]) -> None:
    """Report limits of 0 that all requests meet, and paces of 0, that no exemption lifts or raises.

    Other software takes a pace of 0 for none.
    """
    lifted = {name for exemption in written.policies.exemptions for name in exemption.rules}
    for limit in limits:
        is_meant = limit.rule.when != ALWAYS and not isinstance(limit.verb, Rate)
        if is_meant or limit.rule.id in lifted or not _refuses(limit):
            continue
        if limit.unit in _OF_ALL and set(possible_amounts(_at_once(limit)) or ()) == {0}:
            message = f"no request fits into the limit of {quoted(limit.rule.id)}"
            label = "it refuses whatever it applies to"
            help = "give it room, or write `block: {}` if nobody is to be served"
            if isinstance(limit.verb, Rate):
                help += "; what has no limit is `unlimited`"
            at = written.place(limit.rule).key_span(limit.path)
            written.scope.findings.report("GR210", at, message, label=label, help=help)


def _of_no_value(written: Written, limits: list[_Limit]) -> None:
    """Report limits of no different value at all: the first one is refused."""
    for limit in limits:
        verb = limit.verb
        if isinstance(verb, Distinct) and set(possible_amounts(limit.amount) or ()) == {0}:
            message = f"no request fits into the limit of {quoted(limit.rule.id)}"
            label = f"it refuses whoever has {quoted(verb.count)}"
            help = "write how many there may be, at least 1, or `block: {}` if none may be"
            at = written.place(limit.rule).key_span(limit.path)
            written.scope.findings.report("GR210", at, message, label=label, help=help)


# GR234: a ban that is over before it is felt, or never comes.


def _unfelt_bans(written: Written) -> None:
    for rule in written.policies.rules:
        ban = rule.escalate
        if ban is None or rule.mode is not Mode.ENFORCE:
            continue
        # Whoever is refused is told to come again in a second at the least.
        if ban.block_for <= SECOND:
            message = f"the ban of rule {quoted(rule.id)} is over when it may be felt"
            label = "nobody is told to wait for less than a second"
            help = "let `block_for` be minutes or hours, or leave `escalate` out"
            at = written.place(rule).key_span(("escalate", "block_for"))
            written.scope.findings.report("GR234", at, message, label=label, help=help)
        # Strikes are seconds. The first may have been struck again at its end, and so count still
        # in the last second of the time, which is then one more than there are in it.
        most = -(-ban.within // SECOND) + 1
        if ban.after > most:
            message = f"the ban of rule {quoted(rule.id)} never comes"
            label = f"at most one refusal a second counts: {most:,} in this time"
            help = f"let `after` be at most {ban.within // SECOND:,}, or `within` longer"
            at = written.place(rule).key_span(("escalate", "after"))
            written.scope.findings.report("GR234", at, message, label=label, help=help)


# GR235: bands whose first one is no other than what lies below it.


def _late_bands(written: Written) -> None:
    told: set[int] = set()
    for rule in written.policies.rules:
        for path, amount in allowances(rule):
            banded = without_raises(amount)
            # Whoever asks what a customer paid may leave out who paid less than the first band.
            if not isinstance(banded, Banded) or banded.fact in facts_of(rule.when):
                continue
            node = _written_amount(written, rule, path)
            bands = node.get("bands") if isinstance(node, MapNode) else None
            if not isinstance(node, MapNode) or not isinstance(bands, MapNode):
                continue
            if not bands.entries or node.get("else") is not None:
                continue
            first = bands.entries[0].key
            if banded.starts[0] > 0 and id(first) not in told:
                told.add(id(first))
                message = f"the first band starts at {quoted(first.text)}"
                label = "whoever is below gets the smallest amount of the bands all the same"
                help = "let it start at 0, or say with `else` what holds below it"
                written.scope.findings.report("GR235", first, message, label=label, help=help)


def _written_amount(written: Written, rule: Rule, path: Path) -> Node:
    """Return where an amount of a rule is written, in a table if it names one."""
    node = written.place(rule).at(*path)
    name = list_name(node) if isinstance(node, Scalar) else None
    if name is not None:
        for _, section in written.sections("tables"):
            table = section.get(name) if isinstance(section, MapNode) else None
            if table is not None:
                return table
    return node


# GR214: what has to stand beside a limit.


def _without_concurrency(written: Written, limits: list[_Limit]) -> None:
    metered = [
        limit for limit in limits if isinstance(limit.verb, Budget) and limit.unit in _METERED
    ]
    if metered and not any(isinstance(limit.verb, Concurrency) for limit in limits):
        limit = metered[0]
        message = f"nothing bounds how many requests can run over {quoted(limit.rule.id)} at once"
        label = "each in flight may use more than it reserved"
        help = "add a `concurrency` by account: it bounds what is used above a limit"
        at = written.place(limit.rule).key_span(limit.path)
        written.scope.findings.report("GR214", at, message, label=label, help=help)

"""What is written otherwise in two versions of a rule, or of tests and claims, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace

from guardrail.engine import in_unit
from guardrail.errors import Span
from guardrail.model.amounts import Amount, Banded, Fixed, FromFact, Lookup, Raised
from guardrail.model.claims import Claim
from guardrail.model.policy import Scenario, Threshold
from guardrail.model.rules import Block, Degrade, Rule, Verdict

NOWHERE = Span("", 1, 1, 1, 1)
"""The place of what is compared without its place."""

_NAMED = 3
"""How many names are told of those that differ."""

_ROWS = 6
"""How many rows of a table are told of those that differ."""


def differences(a: Rule, b: Rule) -> Iterator[str]:
    """Yield what is written otherwise in a rule, the condition left out."""
    if a.verb.name != b.verb.name:
        yield f"verb {a.verb.name} → {b.verb.name}"
    elif not isinstance(a.verb, Block | Degrade):
        yield from _limits(a, b)
    words: list[tuple[str, object, object]] = [
        ("mode", a.mode.value, b.mode.value),
        ("unknown", a.unknown or "match", b.unknown or "match"),
        ("on_store_error", a.on_store_error or "default", b.on_store_error or "default"),
        ("exemptible", str(a.exemptible).lower(), str(b.exemptible).lower()),
    ]
    for name, before, after in words:
        if before != after:
            yield f"{name} {before} → {after}"
    for name, x, y in (("from", a.start, b.start), ("until", a.end, b.end)):
        if x != y:
            yield f"`{name}` {'none' if x is None else 'set'} → {_moved_to(x, y)}"
    if a.escalate != b.escalate:
        yield "escalate " + (
            "added" if a.escalate is None else "removed" if b.escalate is None else "changed"
        )
    verdicts = [_said(rule) for rule in (a, b)]
    if verdicts[0] != verdicts[1]:
        effects = [", ".join(str(v.effect) for v in rule.verb.verdicts) for rule in (a, b)]
        if effects[0] == effects[1]:
            yield "what it says or obliges to"
        else:
            yield f"effect {effects[0]} → {effects[1]}"


def _said(rule: Rule) -> list[tuple[int, Verdict]]:
    steps = [(step.percent, step.verdict) for step in rule.verb.on_the_way]
    found = steps or [(100, verdict) for verdict in rule.verb.verdicts]
    return [(percent, bare(verdict, rule.id)) for percent, verdict in found]


def _moved_to(x: int | None, y: int | None) -> str:
    if y is None:
        return "none"
    return "set" if x is None else ("later" if y > x else "earlier")


def _limits(a: Rule, b: Rule) -> Iterator[str]:
    if a.verb.units != b.verb.units:
        yield f"unit {', '.join(a.verb.units)} → {', '.join(b.verb.units)}"
    elif a.verb.allowances != b.verb.allowances:
        units = a.verb.units or ("",)
        units += (units[0],) * (len(a.verb.allowances) - len(units))
        rows = zip(units, a.verb.allowances, b.verb.allowances, strict=True)
        shown = dict.fromkeys(_amounts(*row) for row in rows if row[1] != row[2])
        yield "; ".join(shown)
    if a.verb.covers != b.verb.covers:
        x, y = a.verb.covers, b.verb.covers
        yield f"window {x.text if x else 'none'} → {y.text if y else 'none'}"
    elif a.verb.lasts != b.verb.lasts:
        yield "period"
    if a.verb.facts != b.verb.facts:
        before, after = (", ".join(r.verb.facts) or "global" for r in (a, b))
        yield f"key {before} → {after}"


def _amounts(unit: str, a: Amount, b: Amount) -> str:
    if isinstance(a, Fixed) and isinstance(b, Fixed):
        return f"amount {_figure(unit, a.value)} → {_figure(unit, b.value)}"
    if isinstance(a, Raised) or isinstance(b, Raised):
        return _raised(unit, a, b)
    told = [
        f"{name}: {_figure(unit, x)} → {_figure(unit, y)}" for name, x, y in _rows(a, b) if x != y
    ]
    if not told:
        return f"amount {_told(unit, a)} → {_told(unit, b)}"
    more = f" and {len(told) - _ROWS} more" if len(told) > _ROWS else ""
    return f"amount by {_fact(a)} ({', '.join(told[:_ROWS])}{more})"


def _raised(unit: str, a: Amount, b: Amount) -> str:
    """Return how amounts differ that exemptions raise: their own, or what they are raised to."""
    raised = [{}, {}]  # type: list[dict[str, int | None]]
    own = []
    for amount, found in zip((a, b), raised, strict=True):
        while isinstance(amount, Raised):
            found[amount.exemption] = amount.least
            amount = amount.own
        own.append(amount)
    parts = [] if own[0] == own[1] else [_amounts(unit, *own)]
    for name in dict.fromkeys((*raised[0], *raised[1])):
        before, after = (
            _figure(unit, found[name]) if name in found else "as it is" for found in raised
        )
        if before != after:
            parts.append(f"raised by {name}: {before} → {after}")
    return "; ".join(parts) or "whom its amount is raised for"


def _fact(amount: Amount) -> str | None:
    return None if isinstance(amount, Fixed | Raised) else amount.fact


def _rows(a: Amount, b: Amount) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield what two tables by the same fact have in each row that one of them has."""
    if isinstance(a, Lookup) and isinstance(b, Lookup) and a.fact == b.fact:
        for value in dict.fromkeys((*a.table, *b.table)):
            yield str(value), a.table.get(value, a.otherwise), b.table.get(value, b.otherwise)
        yield "else", a.otherwise, b.otherwise
    elif isinstance(a, Banded) and isinstance(b, Banded) and a.fact == b.fact:
        yield "below", a.otherwise, b.otherwise
        texts = {band.start: band.text for band in (*a.bands, *b.bands)}
        for start, text in sorted(texts.items()):
            yield f"from {text}", a.rows[a.row(start)], b.rows[b.row(start)]
    else:
        return
    if (a.missing, b.missing) != (a.otherwise, b.otherwise):
        yield "missing", a.missing, b.missing


def _told(unit: str, amount: Amount) -> str:
    if isinstance(amount, Fixed):
        return _figure(unit, amount.value)
    if isinstance(amount, FromFact):
        return f"as `{amount.fact}` says"
    return f"by {_fact(amount)}"


def _figure(unit: str, amount: int | None) -> str:
    return "unlimited" if amount is None else f"{in_unit(amount, unit):,.10g}"


def bare(verdict: Verdict, name: str) -> Verdict:
    """Return a verdict without a reason that is the rule's name."""
    return replace(verdict, reason="") if verdict.reason == name else verdict


# Tests, claims and expectations.


def changed_names(
    kind: str,
    old: Iterable[Scenario | Claim | Threshold],
    new: Iterable[Scenario | Claim | Threshold],
) -> str | None:
    """Return which of some named things are added, gone or changed, None if none is."""
    before = {_name(one): _plain(one) for one in old}
    after = {_name(one): _plain(one) for one in new}
    groups = {
        "no longer there": [name for name in before if name not in after],
        "new": [name for name in after if name not in before],
        "changed": [name for name in before if name in after and before[name] != after[name]],
    }
    told = [f"{_listed(kind, names)} {word}" for word, names in groups.items() if names]
    return ", ".join(told) or None


def _name(one: Scenario | Claim | Threshold) -> str:
    if isinstance(one, Scenario):
        return one.name
    return one.id if isinstance(one, Claim) else one.text


def _listed(kind: str, names: list[str]) -> str:
    shown = "`, `".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{kind} `{shown}`{more}"


def _plain(value: object) -> object:
    """Return a value without the places in it."""
    if isinstance(value, Span):
        return None
    if is_dataclass(value):
        return tuple(_plain(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return tuple((name, _plain(part)) for name, part in value.items())
    return value

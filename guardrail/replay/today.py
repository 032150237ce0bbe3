"""Policies as they stand on one day, for traffic that is from other days."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from guardrail.model.amounts import SECOND, Raised
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule
from guardrail.traffic.requests import LATEST

_FOR_EVER = round(LATEST * SECOND)
_NEVER = 0


def standing_on(policies: PolicySet, today: float) -> PolicySet:
    """Return policies in which all that has dates stands at any time as it does `today`.

    `today` is in seconds since the epoch. Rules that apply then have neither `from` nor `until`,
    others never apply; exemptions that hold then have no end, others hold no more.
    """
    now = round(today * SECOND)
    return replace(
        policies,
        rules=tuple(_standing_rule(rule, now) for rule in policies.rules),
        exemptions=tuple(
            replace(found, expires=_until(found.expires, now)) for found in policies.exemptions
        ),
    )


def _standing_rule(rule: Rule, now: int) -> Rule:
    applies = (rule.start is None or rule.start <= now) and (rule.end is None or now < rule.end)
    amounts = {
        each.name: _without_ends(getattr(rule.verb, each.name), now) for each in fields(rule.verb)
    }
    return replace(
        rule, start=None, end=None if applies else _NEVER, verb=replace(rule.verb, **amounts)
    )


def _without_ends(part: Any, now: int) -> Any:
    """Return a part of a verb in which exemptions raise amounts for ever, or no more."""
    if isinstance(part, Raised):
        own = _without_ends(part.own, now)
        return replace(part, own=own, expires=_until(part.expires, now))
    if type(part) is tuple:
        return tuple(_without_ends(each, now) for each in part)
    return part


def _until(expires: int, now: int) -> int:
    return _FOR_EVER if now < expires else _NEVER

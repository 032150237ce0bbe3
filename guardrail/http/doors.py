"""What each door can know of a request, and which rules it can therefore never enforce.

A proxy that asks shows the head of a request and never tells how it ended. A rule that rests on
what a door cannot know is decided by its absence for ever: it refuses everybody, or nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from guardrail.engine import rule_facts
from guardrail.http.metering import unfed_units
from guardrail.http.parsing.endpoints import endpoint_of
from guardrail.model.conditions import comparisons
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule

_BODY = frozenset(
    f"request.{name}"
    for name in ("capability", "model", "reasoning", "stream", "template", "tools", "toolset")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What a door cannot know: the facts it is `blind` to, and how much a request uses.

    `units` are those it learns, None for all; `holds` tells whether it learns when a request ends.
    One that `reads` has its facts and usage from requests and responses, and not from its caller.
    """

    blind: frozenset[str] = frozenset()
    units: frozenset[str] | None = None
    holds: bool = True
    reads: bool = True


DOORS: Mapping[str, Door] = MappingProxyType(
    {
        "asgi": Door(),
        "wsgi": Door(),
        "authorizer": Door(blind=_BODY, units=frozenset(("requests",)), holds=False),
        "authzen": Door(holds=False, reads=False),
        "litellm": Door(),
    }
)
"""The doors by name; `authorizer` is one for proxies, which show the head of a request alone."""


class Unfed(NamedTuple):
    """A rule that a door cannot enforce, and why."""

    rule: Rule
    why: str


def unfed(policies: PolicySet, door: str) -> Iterator[Unfed]:
    """Yield the rules in force that a door cannot enforce."""
    known = DOORS[door]
    for rule in policies.rules:
        if rule.mode is Mode.OFF:
            continue
        missed = sorted(rule_facts(rule, (), stand_ins=False) & known.blind)
        units = [unit for unit in rule.verb.units if known.units and unit not in known.units]
        if missed:
            yield Unfed(rule, f"it rests on {_listed(missed)}, which is never seen there")
        elif units:
            yield Unfed(rule, f"it counts {_listed(units)}, which is never told there")
        elif rule.verb.in_flight and not known.holds:
            yield Unfed(rule, "it counts requests in flight, whose end is never told there")
        elif known.reads:
            yield from _unread(policies, rule)


def _unread(policies: PolicySet, rule: Rule) -> Iterator[Unfed]:
    """Yield a rule about what no request or response says in its words."""
    units = unfed_units(unit for unit in rule.verb.units if unit in policies.units)
    named = {path: endpoint_of(path).name for path in _endpoints(rule)}
    others = [path for path, name in sorted(named.items()) if name != path]
    if units:
        said = "each request counts 1, unless a classifier or `guardrail.http.fastapi` states more"
        yield Unfed(rule, f"it counts {_listed([*units])}, which no response tells: {said}")
    elif others:
        path = others[0]
        yield Unfed(rule, f"it tests for the endpoint `{path}`, which is called `{named[path]}`")


def _endpoints(rule: Rule) -> Iterator[str]:
    """Yield the endpoints that a rule tests for by name."""
    for test in comparisons(rule.when):
        if test.fact == "request.endpoint" and isinstance(test.operand, frozenset):
            yield from test.operand


def unfed_by_all(policies: PolicySet, doors: Collection[str]) -> Iterator[Unfed]:
    """Yield the rules that none of some doors can enforce, with what keeps each door from it."""
    by_door = {door: {found.rule.id: found for found in unfed(policies, door)} for door in doors}
    for rule in policies.rules:
        if by_door and all(rule.id in found for found in by_door.values()):
            doors_by_why: dict[str, list[str]] = {}
            for door, found in by_door.items():
                doors_by_why.setdefault(found[rule.id].why, []).append(door)
            whys = (
                f"by the door{'s' if len(those) > 1 else ''} {_listed(those)}: {why}"
                for why, those in doors_by_why.items()
            )
            yield Unfed(rule, "; nor ".join(whys))


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)

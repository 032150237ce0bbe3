"""`guardrail bound`: the most that some accounts can take under a policy, without any traffic."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from guardrail.analysis import PERIODS, Bound, Fleet, Trust, all_together, bounds, trust
from guardrail.cli import options
from guardrail.cli.bound_text import ACCOUNTS, bound_fields, print_bounds
from guardrail.cli.failures import OK, ended
from guardrail.cli.loading import load, policy_line
from guardrail.cli.output import Color, Format, Output
from guardrail.errors import SettingError
from guardrail.model.amounts import SECOND
from guardrail.model.facts import Fact, FactType, Source, typed_value
from guardrail.model.policy import PolicySet

_OWN_OPTIONS: Mapping[str, str] = {
    "account.id": "--accounts",
    "actor.id": "--accounts",
    "account.tier": "--tier",
    "kyc.subject": "--identities",
    "payment.fingerprint": "--cards",
}


@dataclass(slots=True, kw_only=True)
class BoundRequest:
    """What was asked for on the command line; `as_of` is in seconds since the epoch."""

    paths: list[str]
    accounts: int = ACCOUNTS
    trusted: int | None = None
    identities: int | None = None
    cards: int | None = None
    identity_from: str | None = None
    tiers: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    as_of: float | None = None


def bound(
    paths: options.Paths,
    accounts: Annotated[
        int, typer.Option("--accounts", metavar="N", min=1, help="How many accounts there are.")
    ] = ACCOUNTS,
    trusted: Annotated[
        int | None,
        typer.Option(
            "--trusted",
            metavar="N",
            min=0,
            help="How many of them have a verified identity; all may, if left out.",
        ),
    ] = None,
    identities: Annotated[
        int | None,
        typer.Option(
            "--identities",
            metavar="N",
            min=0,
            help="How many identities they share; one each, if left out; of 0 nobody has one.",
        ),
    ] = None,
    cards: Annotated[
        int | None,
        typer.Option(
            "--cards",
            metavar="N",
            min=0,
            help="How many cards they share; one each, if left out; of 0 nobody has one.",
        ),
    ] = None,
    identity_from: Annotated[
        str | None,
        typer.Option(
            "--identity-from",
            metavar="LEVEL",
            help="Accounts of this tier and above have a verified identity, and no others.",
        ),
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option("--tier", metavar="LEVEL", help="Only accounts of this tier; repeatable."),
    ] = None,
    window: Annotated[
        list[str] | None,
        typer.Option("--window", metavar="|".join(PERIODS), help="Only in this time; repeatable."),
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume",
            metavar="FACT=VALUE",
            help="What a server's fact is for all of them; nothing after `=`: missing; repeatable.",
        ),
    ] = None,
    as_of: options.AsOf = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Tell the most that some accounts can take: in a day, in 30 days and for ever."""
    asked = BoundRequest(
        paths=paths,
        accounts=accounts,
        trusted=trusted,
        identities=identities,
        cards=cards,
        identity_from=identity_from,
        tiers=tier or [],
        windows=window or [],
        assumed=assume or [],
        as_of=as_of,
    )
    output = Output(color)
    raise typer.Exit(ended(lambda: run_bound(asked, output, form), output, form))


def run_bound(asked: BoundRequest, output: Output, form: Format) -> int:
    """Work the bounds out, print them, and return the exit code."""
    for name in asked.windows:
        if name not in PERIODS:
            raise SettingError(f"`--window {name}` is not known: write {', '.join(PERIODS)}")
    if asked.trusted is not None and asked.trusted > asked.accounts:
        raise SettingError(
            f"`--trusted {asked.trusted}` are more than the accounts: they are {asked.accounts}"
        )
    policies = load(asked.paths)
    tiers = _tiers(asked, policies)
    fleet = Fleet(
        accounts=asked.accounts,
        trusted=asked.trusted,
        identities=asked.identities,
        cards=asked.cards,
        identity_from=asked.identity_from,
        assumed=dict(_assumption(written, policies) for written in asked.assumed),
    )
    now = round((time.time() if asked.as_of is None else asked.as_of) * SECOND)
    periods = [name for name in PERIODS if not asked.windows or name in asked.windows]
    found = bounds(policies, fleet, now, periods=periods, tiers=tiers)
    who = trust(policies, fleet, now)
    if form is Format.JSON:
        output.json(_fields(policies, fleet, found, who))
        return OK
    output.told("policy", policy_line(policies))
    print_bounds(output, fleet, found, form, who)
    return OK


def _tiers(asked: BoundRequest, policies: PolicySet) -> Sequence[str] | None:
    levels = policies.facts["account.tier"].values
    for name in (*asked.tiers, *((asked.identity_from,) if asked.identity_from else ())):
        if name not in levels:
            raise SettingError(
                f"`account.tier` has no level `{name}`: "
                + (f"its levels are {', '.join(levels)}" if levels else "the policies list none")
            )
    return asked.tiers or None


def _assumption(written: str, policies: PolicySet) -> tuple[str, Any]:
    name, equals, text = written.partition("=")
    fact = policies.facts.get(name)
    if not equals or fact is None:
        known = "is not `FACT=VALUE`" if not equals else f"names no fact of the policies: `{name}`"
        raise SettingError(f"`--assume {written}` {known}")
    if name in _OWN_OPTIONS:
        raise SettingError(f"`--assume {written}`: say that with `{_OWN_OPTIONS[name]}`")
    if fact.source is Source.CLIENT:
        raise SettingError(
            f"`--assume {written}`: `{name}` is what the caller says it is, and "
            "bounds hold whatever that is: leave it out"
        )
    value = _value(fact, text) if text else None
    if text and value is None:
        raise SettingError(f"`--assume {written}`: `{text}` is no value of `{name}`")
    return name, value


def _value(fact: Fact, text: str) -> object | None:
    stated: object = text
    try:
        if fact.type is FactType.BOOL:
            stated = {"true": True, "false": False}.get(text)
        elif fact.type in (FactType.INTEGER, FactType.NUMBER):
            stated = float(text) if fact.type is FactType.NUMBER else int(text)
        elif fact.type is FactType.LIST:
            stated = text.split(",")
    except ValueError:
        return None
    return typed_value(fact, stated)


def _fields(
    policies: PolicySet, fleet: Fleet, found: Sequence[Bound], who: Trust | None
) -> dict[str, object]:
    asked = dict.fromkeys((one.capability, one.unit, one.period) for one in found)
    return {
        "policy": policies.name,
        "revision": policies.revision,
        "fleet": asdict(fleet),
        "trusted": None if who is None else asdict(who),
        "bounds": bound_fields(found),
        "together": [
            {"capability": c, "unit": u, "period": p, "most": all_together(found, c, u, p)}
            for c, u, p in asked
        ],
    }

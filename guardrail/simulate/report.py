"""The figures of a simulation, as plain values: what attackers got, what it cost, whom it harmed.

Three figures belong together: the share of an attacker's demand that was served, what each
exchange cost him as a multiple of what it costs unopposed, and the harm to honest customers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guardrail.analysis import Fleet, all_together, bounds
from guardrail.model.amounts import SECOND
from guardrail.simulate.operators import Operator, Take
from guardrail.simulate.population import START, Account
from guardrail.simulate.running import Result, fleet_of
from guardrail.simulate.skills import Attack

MARKS = (1, 7, 45)
"""The days of an attack after which its take is told."""
CONTAINED = 0.05
"""The share of demand served in 24 hours below which an attack counts as contained."""
STAYS = 7 * 24
"""For how many hours it has to stay below."""

Fields = dict[str, Any]


def share(part: float, whole: float) -> float | None:
    """Return a share, None of nothing."""
    return part / whole if whole else None


def percent(value: float | None) -> str:
    """Return a share in percent: two decimals, three below a tenth of a percent."""
    if value is None:
        return "–"
    return f"{100 * value:.3f}%" if 0 < value < 0.001 else f"{100 * value:.2f}%"


def times(value: float | None) -> str:
    """Return a multiple, such as `42×`; of nothing served it is without end."""
    if value is None:
        return "∞"
    return f"{value:,.1f}×" if value < 100 else f"{value:,.0f}×"


def worst_of(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the seed that served attackers most of what they came for, else harmed most."""
    return max(
        found,
        key=lambda told: (
            (told["attacker"] or {}).get("sought_share") or 0.0,
            told["honest"]["pooled"]["established"]["refused_share"] or 0.0,
        ),
    )


def figures(result: Result) -> Fields:
    """Return all figures of one seed, ready for JSON."""
    options = result.options
    return {
        "seed": result.seed,
        "attack": str(options.attack),
        "days": options.days,
        "quiet_days": options.quiet,
        "accounts": len(result.population.accounts),
        "fleet": fleet_of(options),
        "supply": None if math.isinf(options.supply) else options.supply,
        "decisions": result.decisions,
        "seconds": round(result.seconds, 3),
        "decisions_per_second": round(result.decisions / max(result.seconds, 1e-9)),
        "attacker": attacker_figures(result) if result.operators else None,
        "honest": honest_figures(result),
        "shocks": shock_figures(result),
        "by_day": day_figures(result),
    }


def attacker_figures(result: Result) -> Fields:
    """Return what operators wanted, got, and paid."""
    take, options, operators = result.take, result.options, result.operators
    begin = options.quiet * 24
    marks = [mark for mark in MARKS if mark < options.days] + [options.days]
    wanted, served = sum(take.wanted), sum(take.served)
    cost = sum(operator.ledger.cost for operator in operators)
    unopposed = sum(operator.unopposed for operator in operators)
    per_exchange = share(cost, served)
    baseline = share(unopposed, wanted)
    contained = containment(take, begin, options.days * 24)
    return {
        "operators": len(operators),
        "wanted": wanted,
        "served": served,
        "degraded": take.degraded,
        "share": share(served, wanted),
        "sought": sum(take.sought),
        "taken": sum(take.taken),
        "sought_share": share(sum(take.taken), sum(take.sought)),
        "at_day": {
            str(mark): {
                "share": until(take.served, take.wanted, begin, mark),
                "sought_share": until(take.taken, take.sought, begin, mark),
            }
            for mark in marks
        },
        "cost_usd": round(cost, 2),
        "unopposed_cost_usd": round(unopposed, 2),
        "cost_per_thousand_usd": None if per_exchange is None else round(1000 * per_exchange, 4),
        "cost_multiple": None
        if per_exchange is None or not baseline
        else round(per_exchange / baseline, 2),
        "accounts_bought": sum(operator.ledger.accounts for operator in operators),
        "aged_accounts_bought": sum(operator.ledger.aged for operator in operators),
        "accounts_used": sum(operator.used for operator in operators),
        "cards_bought": sum(operator.ledger.cards for operator in operators),
        "identities_bought": sum(operator.ledger.identities for operator in operators),
        "exits_rented": sum(operator.ledger.exits for operator in operators),
        "unused_top_ups_usd": round(sum(operator.ledger.unused for operator in operators), 2),
        "top_ups_usd": round(sum(operator.ledger.top_ups for operator in operators), 2),
        "served_with_identity": sum(
            puppet.served - puppet.before
            for operator in operators
            for puppet in operator.accounts
            if puppet.before is not None
        ),
        "taken_through": list(take.through.rows()),
        "bound": bound_of(result),
        "hours_to_first_action": first_action(operators),
        "hours_to_containment": contained,
        "served_before_containment": None
        if contained is None
        else sum(take.served[begin : begin + contained]),
    }


def bound_of(result: Result) -> float | None:
    """Return the most requests that accounts as operators had can get in the days of an attack.

    Worked out from the policies alone: for so many accounts, cards and verified identities, the
    tiers they had, and what they had paid at most. None where nothing bounds it, and for stolen
    keys, which are no accounts of an operator's own.
    """
    options, operators, names = result.options, result.operators, result.population.names
    if options.attack is Attack.STOLEN_KEYS:
        return None
    puppets = [puppet for operator in operators for puppet in operator.accounts]
    paid = max((puppet.paid for puppet in puppets), default=0.0)
    fleet = Fleet(
        accounts=len(puppets),
        trusted=sum("kyc.subject" in puppet.facts for puppet in puppets),
        identities=sum(operator.ledger.identities for operator in operators),
        cards=sum(operator.ledger.cards for operator in operators),
        identity_from=names.verified,
    )
    tiers = [tier for tier in (names.unverified, names.verified) if tier is not None]
    found = [
        one
        for one in bounds(result.policies, fleet, round(START * SECOND), tiers=tiers or None)
        if one.profile.paid is None or one.profile.paid <= paid
    ]
    # Windows of a rolling day may begin before the first and end after the last.
    spans = {"day": options.days + 1, "month": math.ceil(options.days / 30) + 1, "ever": 1}
    most = [
        times * one
        for period, times in spans.items()
        if (one := all_together(found, "any", "requests", period)) is not None
    ]
    return min(most, default=None)


def until(part: Sequence[int], whole: Sequence[int], begin: int, days: int) -> float | None:
    """Return the share of demand served in the first days of an attack."""
    end = begin + 24 * days
    return share(sum(part[begin:end]), sum(whole[begin:end]))


def containment(take: Take, begin: int, hours: int) -> int | None:
    """Return after how many hours the last 24 served under 5 %, and did for a week or to the end.

    None: never. The hours are counted from the beginning of the attack; the first is 24.
    """
    below = 0
    end = begin + hours
    for hour in range(begin + 24, end + 1):
        wanted = sum(take.wanted[hour - 24 : hour])
        if wanted and sum(take.served[hour - 24 : hour]) >= CONTAINED * wanted:
            below = 0
            continue
        below += 1
        if below >= STAYS or (hour == end and below >= 24):
            return hour - below + 1 - begin
    return None


def first_action(operators: Iterable[Operator]) -> float | None:
    """Return the hours from an operator's 50th account to the first refusal, the longest of all.

    None: an operator was never refused. A fleet under 100 is asked for half of its accounts.
    """
    longest = 0.0
    for operator in operators:
        if operator.first_action is None:
            return None
        if operator.fiftieth is not None:
            longest = max(longest, operator.first_action - operator.fiftieth)
    return round(longest / 3600, 2)


def harm(accounts: Sequence[Account]) -> Fields:
    """Return how honest accounts fared: requests asked and refused, accounts stepped up or gone."""
    asked = sum(account.asked for account in accounts)
    refused = sum(account.refused for account in accounts)
    active = sum(account.asked > 0 for account in accounts)
    stepped = sum(account.stepped for account in accounts)
    asked_to_pay = sum(account.asked_to_pay for account in accounts)
    asked_for_either = sum(account.stepped or account.asked_to_pay for account in accounts)
    blocked = sum(account.blocked > 0 for account in accounts)
    gone = sum(account.gone for account in accounts)
    return {
        "accounts": len(accounts),
        "active": active,
        "asked": asked,
        "served": sum(account.served for account in accounts),
        "refused": refused,
        "held": sum(account.held for account in accounts),
        "degraded": sum(account.degraded for account in accounts),
        "stepped_up_requests": sum(account.stepped_requests for account in accounts),
        "refused_share": share(refused, asked),
        "degraded_share": share(sum(account.degraded for account in accounts), asked),
        "accounts_refused": sum(account.refused > 0 for account in accounts),
        "accounts_stepped_up": stepped,
        "accounts_asked_to_pay": asked_to_pay,
        "accounts_blocked": blocked,
        "accounts_gone": gone,
        "stepped_up_share": share(stepped, active),
        "asked_to_pay_share": share(asked_to_pay, active),
        "asked_for_either_share": share(asked_for_either, active),
        "blocked_share": share(blocked, active),
        "gone_share": share(gone, active),
        "hours_waited": round(sum(account.waited for account in accounts) / 3600, 1),
    }


def honest_figures(result: Result) -> Fields:
    """Return the harm to honest accounts: pooled, by segment, and the worst segment."""
    population = result.population
    every = population.accounts
    groups = {
        "established": [account for account in every if account.established],
        "new": [account for account in every if not account.established],
    }
    segments: Fields = {}
    worst: Fields = {}
    for age, accounts in groups.items():
        for number, segment in enumerate(population.segments):
            found = harm([account for account in accounts if account.segment == number])
            if found["accounts"]:
                segments.setdefault(segment.name, {})[age] = found
        ranked = [
            (segments[name][age]["refused_share"] or 0.0, name)
            for name in segments
            if age in segments[name]
        ]
        worst[age] = max(ranked, default=(0.0, None))[1]
    pooled = {age: harm(accounts) for age, accounts in groups.items()}
    return {"pooled": pooled, "segments": segments, "worst": worst}


def shock_figures(result: Result) -> Fields:
    """Return how the customers in each shock fared."""
    return {
        name: {
            "accounts": len(tally.accounts),
            "asked": tally.asked,
            "served": tally.served,
            "refused": tally.refused,
            "held": tally.held,
            "refused_share": share(tally.refused, tally.asked),
            "accounts_refused": len(tally.hit),
            "accounts_stepped_up": len(tally.stepped),
            "accounts_blocked": len(tally.blocked),
        }
        for name, tally in result.shocks.items()
    }


def day_figures(result: Result) -> list[Fields]:
    """Return a line for each day: honest requests, and what operators wanted and got."""
    take = result.take
    lines = []
    for day, (asked, served, refused, held) in enumerate(result.by_day):
        hours = slice(24 * day, 24 * day + 24)
        lines.append(
            {
                "day": day - result.options.quiet + 1,
                "asked": asked,
                "served": served,
                "refused": refused,
                "held": held,
                "wanted": sum(take.wanted[hours]),
                "attacker_served": sum(take.served[hours]),
                "sought": sum(take.sought[hours]),
                "taken": sum(take.taken[hours]),
            }
        )
    return lines

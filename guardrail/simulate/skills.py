"""How skilled operators are: what they share, how fast they go, what they can buy, at which price.

Every parameter is drawn by seed from a range for its level, so that nothing can be tuned to one
attacker.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

PACE = 28_800_000 / 25_000 / 45
"""Exchanges a day from one account of the campaign that was alleged in 2026."""
FULL_FLEET = 25_000
TOKENS_IN, TOKENS_OUT = 1700, 350
"""What an exchange uses, in tokens, before an operator's own size of it."""
LABELS = ("", "chat", "other", "batch")
"""What an operator may call its requests, the truth (empty) first."""


class Attack(enum.StrEnum):
    """How skilled the operators are.

    Two are no farms and tell what policies do to their like: keys stolen from honest customers, and
    a reseller without a contract who sells to ordinary people.
    """

    NONE = "none"
    NAIVE = "naive"
    CAREFUL = "careful"
    EXPERT = "expert"
    WHITEBOX = "whitebox"
    STOLEN_KEYS = "stolen-keys"
    RESELLER = "reseller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What an operator pays, in USD, for one of each.

    `account` is a sign-up with a confirmed address, `aged` what an old account costs on top,
    `stolen` a key of somebody else's. `exits` are months of one address, by its network's kind.
    """

    account: float = 0.20
    card: float = 4.0
    identity: float = 150.0
    aged: float = 15.0
    stolen: float = 20.0
    exits: Mapping[str, float] = field(
        default_factory=lambda: {"hosting": 2.0, "vpn": 1.0, "residential": 3.0, "business": 6.0}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """What one operator can do, drawn for a seed.

    `per_card`, `per_device` and `per_exit` are accounts that share one; `exits` is a number of
    addresses shared by all, where that is how they connect. `templates` None stands for those of
    public frameworks. `registration`, `ramp` are in days, `churn` in hours. `rate` and `ceiling`
    are requests a day of one account, as planned and at most; `cover` is the share of requests that
    only hide the others; `passes` the share of accounts that can buy an identity; `spare` the share
    of accounts in reserve; `notches` how often an operator can widen what its accounts differ in.
    `top_up` is paid for each account beforehand, and up to `pays` where a refusal asks for it, in
    USD; `tokens` scales the size of an exchange.
    `pace` is what is wanted of each account a day; accounts are `cardless` or have a card, and are
    registered in `batches` or one by one; prompts are `salted` anew each day; who `provokes` has
    some accounts refused on purpose, to have limits lifted that are lifted when too many customers
    are hit. `labels` are what requests are called, in the order they are tried in.
    """

    per_card: int
    per_device: int
    per_exit: int
    exits: int
    kinds: tuple[str, ...]
    templates: int | None
    reuse: float
    registration: float
    aged: float
    ramp: float
    rate: float
    sigma: float
    cover: float
    hours: int
    aligned: bool
    passes: float
    churn: float
    spare: float
    top_up: float
    ceiling: float
    notches: int
    tokens: float
    per_identity: int = 1
    pace: float = PACE
    cardless: bool = False
    pays: float = 0.0
    batches: bool = False
    salted: bool = False
    provokes: bool = False
    labels: tuple[str, ...] = LABELS


def skill_of(attack: Attack, random: Random, fleet: int) -> Skill:
    """Return an operator's skill, drawn from the ranges of a level."""
    whole = random.randint
    # Pools shared by all accounts shrink with the square root of the fleet.
    pools = math.sqrt(min(1.0, fleet / FULL_FLEET))
    tokens = random.uniform(0.6, 1.6)
    if attack is Attack.NAIVE:
        return Skill(
            per_card=whole(20, 100),
            per_device=50,
            per_exit=0,
            exits=max(2, round(whole(20, 500) * pools)),
            kinds=("hosting", "hosting", "vpn"),
            templates=max(2, round(whole(5, 50) * pools)),
            reuse=1.0,
            registration=random.uniform(3, 10),
            aged=0.0,
            ramp=0.0,
            rate=26.0,
            sigma=0.2,
            cover=random.uniform(0, 0.05),
            hours=24,
            aligned=False,
            passes=0.0,
            churn=12.0,
            spare=0.0,
            top_up=0.0,
            ceiling=60.0,
            notches=1,
            tokens=tokens,
            batches=True,
        )
    if attack is Attack.CAREFUL:
        return Skill(
            per_card=whole(2, 6),
            per_device=1,
            per_exit=whole(1, 3),
            exits=0,
            kinds=("residential",),
            templates=max(5, round(whole(200, 2000) * pools)),
            reuse=0.3,
            registration=random.uniform(15, 30),
            aged=0.0,
            ramp=random.uniform(7, 14),
            rate=25.0,
            sigma=0.6,
            cover=random.uniform(0.2, 0.4),
            hours=16,
            aligned=True,
            passes=random.uniform(0, 0.05),
            churn=24.0,
            spare=0.0,
            top_up=random.uniform(5, 20),
            pays=100.0,
            ceiling=400.0,
            notches=3,
            tokens=tokens,
        )
    if attack in (Attack.STOLEN_KEYS, Attack.RESELLER):
        return _foil(attack, random, tokens)
    expert = attack is Attack.EXPERT
    return Skill(
        per_card=1,
        per_device=1,
        per_exit=1,
        exits=0,
        kinds=("residential", "residential", "business"),
        templates=None,
        reuse=0.03,
        registration=random.uniform(60, 180),
        aged=random.uniform(0.1, 0.4) if expert else 0.2,
        ramp=21.0,
        rate=20.0 if expert else 26.0,
        sigma=1.0 if expert else 0.3,
        cover=random.uniform(0.5, 0.8) if expert else 0.6,
        hours=0,
        aligned=True,
        passes=random.uniform(0.05, 0.30) if expert else 0.10,
        churn=72.0 if expert else 24.0,
        spare=0.2 if expert else 0.5,
        top_up=random.uniform(20, 60),
        pays=1000.0,
        ceiling=2000.0 if expert else 5000.0,
        notches=1,
        tokens=tokens,
        provokes=not expert,
    )


def _foil(attack: Attack, random: Random, tokens: float) -> Skill:
    resells = attack is Attack.RESELLER
    return Skill(
        per_card=1,
        per_device=1,
        per_exit=100,
        exits=0,
        kinds=("hosting",),
        templates=None,
        reuse=0.0,
        registration=30.0,
        aged=0.0,
        ramp=0.0,
        rate=5000.0 if resells else 200.0,
        sigma=0.0,
        cover=0.5 if resells else 0.0,
        hours=0,
        aligned=True,
        passes=0.0,
        churn=24.0,
        spare=0.0,
        top_up=100.0 if resells else 0.0,
        ceiling=50_000.0 if resells else 2000.0,
        notches=0,
        tokens=tokens,
        pace=random.uniform(1500, 6000) if resells else random.uniform(50, 300),
        labels=("",),
    )


def wider(skill: Skill) -> Skill:
    """Return a skill that shares less, and sends shorter requests."""
    return replace(
        skill,
        per_card=max(1, skill.per_card // 2),
        per_device=max(1, skill.per_device // 2),
        per_exit=max(1, skill.per_exit // 2) if skill.per_exit else 0,
        exits=skill.exits * 2,
        reuse=skill.reuse / 2,
        tokens=max(0.3, skill.tokens * 0.7),
        salted=True,
        batches=False,
        # Where nothing is paid for, a card that is refused is left out.
        cardless=not skill.top_up,
    )


def shares_of(random: Random, fleet: int, attack: Attack) -> Sequence[int]:
    """Return the fleets of one to five operators; those who read the policies work alone."""
    if attack in (Attack.WHITEBOX, Attack.STOLEN_KEYS, Attack.RESELLER) or fleet < 20:
        return (fleet,)
    weights = [random.uniform(0.5, 1.5) for _ in range(random.randint(1, 5))]
    sizes = [int(fleet * weight / sum(weights)) for weight in weights]
    sizes[0] += fleet - sum(sizes)
    return sizes

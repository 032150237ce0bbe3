"""The reference decision R5, written by hand: the yardstick that decisions are measured with.

It must stay as it is: figures of different versions compare only while the yardstick is the same.
It knows one policy (that of `r5.yaml`), tells one limit, checks nothing and holds no lock.
"""

from __future__ import annotations

MINUTE, DAY = 60.0, 86400.0
DENIED = frozenset({"CU", "IR", "KP", "SY", "RU", "BY", "SD", "VE"})
TIERS: dict[str, tuple[int, int, int]] = {
    "anon": (0, 10, 20_000),
    "basic": (1, 60, 200_000),
    "verified": (2, 600, 2_000_000),
    "enterprise": (3, 6000, 50_000_000),
}
VERIFIED = 2
SHARES: dict[str, int] = {"chat": 500_000_000, "code": 200_000_000, "agentic": 50_000_000}

Answer = tuple[str, str, float, float]
"""Effect, rule, what remains of the tightest limit, seconds until it is whole again."""


class Reference:
    """One record an account, one an organisation and capability."""

    def __init__(self) -> None:
        # Minute's start, last minute's requests, this minute's, day's start, the day's tokens.
        self.accounts: dict[str, list[float]] = {}
        # Day's start, the day's tokens.
        self.shares: dict[tuple[str, str], list[float]] = {}


def decide(
    accounts: dict[str, list[float]],
    shares: dict[tuple[str, str], list[float]],
    account: str,
    org: str,
    tier: str,
    country: str,
    capability: str,
    tokens: int,
    now: float,
) -> Answer:
    """Return the answer to one request, and charge it if it is allowed."""
    if country in DENIED:
        return ("block", "geo", 0.0, 0.0)
    rank, per_minute, per_day = TIERS[tier]
    if capability == "agentic" and rank < VERIFIED:
        return ("block", "kyc", 0.0, 0.0)
    own = accounts.get(account)
    if own is None:
        own = accounts[account] = [now - now % MINUTE, 0.0, 0.0, now - now % DAY, 0.0]
    age = now - own[0]
    if age >= MINUTE:
        age = _next_minute(own, age, now)
    requests_left = per_minute - 1.0 - own[2] - own[1] * (1.0 - age / MINUTE)
    if requests_left < 0.0:
        return ("throttle", "rpm", 0.0, MINUTE - age)
    if now - own[3] >= DAY:
        own[3] = now - now % DAY
        own[4] = 0.0
    tokens_left = per_day - tokens - own[4]
    if tokens_left < 0.0:
        return ("throttle", "tpd", per_day - own[4], own[3] + DAY - now)
    pair = (org, capability)
    share = shares.get(pair)
    if share is None:
        share = shares[pair] = [now - now % DAY, 0.0]
    elif now - share[0] >= DAY:
        share[0] = now - now % DAY
        share[1] = 0.0
    most = SHARES[capability]
    share_left = most - tokens - share[1]
    if share_left < 0.0:
        return ("throttle", "org", most - share[1], share[0] + DAY - now)
    own[2] += 1.0
    own[4] += tokens
    share[1] += tokens
    if requests_left / per_minute <= tokens_left / per_day:
        if requests_left / per_minute <= share_left / most:
            return ("allow", "rpm", requests_left, MINUTE - age)
    elif tokens_left / per_day <= share_left / most:
        return ("allow", "tpd", tokens_left, own[3] + DAY - now)
    return ("allow", "org", share_left, share[0] + DAY - now)


def _next_minute(own: list[float], age: float, now: float) -> float:
    if age < 2 * MINUTE:
        own[1] = own[2]
        own[0] += MINUTE
        age -= MINUTE
    else:
        own[1] = 0.0
        own[0] = now - now % MINUTE
        age = now - own[0]
    own[2] = 0.0
    return age

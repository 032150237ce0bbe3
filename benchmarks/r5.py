"""The reference decision R5, written by hand: the yardstick that decisions are measured with.

It must stay as it is: figures of different versions compare only while the yardstick is the same.
It knows one policy (that of `r5.yaml`), tells one limit, checks nothing and holds no lock.
"""

from __future__ import annotations

DENIED = frozenset({"CU", "IR", "KP", "SY", "RU", "BY", "SD", "VE"})
TIERS: dict[str, tuple[int, int, int]] = {
    "anon": (0, 10, 20_000),
    "basic": (1, 60, 200_000),
    "verified": (2, 600, 2_000_000),
    "enterprise": (3, 6000, 50_000_000),
}
SHARES: dict[str, int] = {"chat": 500_000_000, "code": 200_000_000, "agentic": 50_000_000}

Answer = tuple[str, str, float, float]
"""Effect, rule, what remains of the tightest limit, seconds until it is whole again."""


ACCOUNTS: dict[str, list[float]] = {}
"""Minute's start, last minute's requests, this minute's, day's start, the day's tokens."""
SHARES_USED: dict[tuple[str, str], list[float]] = {}
"""Day's start, the day's tokens."""


def restart() -> None:
    """Forget everything that was counted."""
    ACCOUNTS.clear()
    SHARES_USED.clear()


def decide(
    account: str, org: str, tier: str, country: str, capability: str, tokens: int, now: float
) -> Answer:
    """Return the answer to one request, and charge it if it is allowed."""
    if country in DENIED:
        return ("block", "geo", 0.0, 0.0)
    rank, per_minute, per_day = TIERS[tier]
    if rank < 2 and capability == "agentic":
        return ("block", "kyc", 0.0, 0.0)
    if (own := ACCOUNTS.get(account)) is None:
        own = ACCOUNTS[account] = [now - now % 60.0, 0.0, 0.0, now - now % 86400.0, 0.0]
    if (age := now - own[0]) >= 60.0:
        if age < 120.0:
            own[1], own[0], age = own[2], own[0] + 60.0, age - 60.0
        else:
            own[1], own[0], age = 0.0, now - now % 60.0, now % 60.0
        own[2] = 0.0
    if (requests := per_minute - 1.0 - own[2] - own[1] * (1.0 - age / 60.0)) < 0.0:
        return ("throttle", "rpm", 0.0, 60.0 - age)
    if now - own[3] >= 86400.0:
        own[3], own[4] = now - now % 86400.0, 0.0
    if (left := per_day - tokens - own[4]) < 0.0:
        return ("throttle", "tpd", per_day - own[4], own[3] + 86400.0 - now)
    if (share := SHARES_USED.get((org, capability))) is None:
        share = SHARES_USED[org, capability] = [now - now % 86400.0, 0.0]
    elif now - share[0] >= 86400.0:
        share[0], share[1] = now - now % 86400.0, 0.0
    most = SHARES[capability]
    if (rest := most - tokens - share[1]) < 0.0:
        return ("throttle", "org", most - share[1], share[0] + 86400.0 - now)
    own[2] += 1.0
    own[4] += tokens
    share[1] += tokens
    by_rate, by_day, by_share = requests / per_minute, left / per_day, rest / most
    if by_rate <= by_day and by_rate <= by_share:
        return ("allow", "rpm", requests, 60.0 - age)
    if by_day <= by_share:
        return ("allow", "tpd", left, own[3] + 86400.0 - now)
    return ("allow", "org", rest, share[0] + 86400.0 - now)

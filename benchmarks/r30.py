"""R30, written by hand: twenty static rules and ten counters, for decisions to be measured with.

It must stay as it is, like R5 by hand. It knows one policy (that of `r30.yaml`), tells one limit,
checks nothing and holds no lock. Its rates are GCRA's one time a key, in whole microseconds, as
the policy's are, so that both answer every request alike.
"""

from __future__ import annotations

DENIED = frozenset({"CU", "IR", "KP", "SY", "RU", "BY", "SD", "VE"})
HOSTILE = frozenset({"tor", "proxy"})
RETIRED = frozenset({"large-1", "large-2", "small-1"})
ABUSED = frozenset({64496, 64497, 64498, 64499})
STOLEN = frozenset({"key_0000001", "key_0000002", "key_0000003"})
CLOSED = frozenset({"/v1/files", "/v1/assistants", "/v1/threads"})

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
TIERS: dict[str, tuple[int, int, int, int]] = {
    "anon": (0, 10, 20_000, 1_000),
    "basic": (1, 60, 200_000, 10_000),
    "verified": (2, 600, 2_000_000, 100_000),
    "enterprise": (3, 6_000, 50_000_000, 1_000_000),
}
"""Rank, requests a minute, tokens a day, requests a day."""
SHARES: dict[str, int] = {"chat": 500_000_000, "code": 200_000_000, "agentic": 50_000_000}
OUTPUT_AN_HOUR = 100_000
ORG_TOKENS, ORG_REQUESTS = 200_000_000, 500_000
NETWORK_REQUESTS = 5_000_000
ORG_PACE, NETWORK_PACE = 3_000, 1_000
"""Microseconds a request: 20,000 and 60,000 a minute."""

Answer = tuple[str, str, float, float]
"""Effect, rule, what remains of the tightest limit, seconds until it is whole again."""

ACCOUNTS: dict[str, list[int]] = {}
"""The rate's time, the day's start, its tokens and requests, the hour's start, its output."""
ORGS: dict[str, list[int]] = {}
"""The rate's time, the day's start, its tokens, the hour's start, its requests."""
SHARES_USED: dict[tuple[str, str], list[int]] = {}
"""The day's start, its tokens."""
NETWORKS: dict[str, list[int]] = {}
"""The rate's time, the day's start, its requests."""


def restart() -> None:
    """Forget everything that was counted."""
    for counted in (ACCOUNTS, ORGS, SHARES_USED, NETWORKS):
        counted.clear()


def decide(
    account: str,
    org: str,
    tier: str,
    country: str,
    capability: str,
    model: str,
    endpoint: str,
    tools: int,
    reasoning: bool,
    stream: bool,
    agent: str,
    credential: str,
    status: str,
    credit: int,
    card: str,
    network: str,
    kind: str,
    asn: int,
    tokens: int,
    output: int,
    now: float,
) -> Answer:
    """Return the answer to one request, and charge it if it is allowed."""
    rank, per_minute, per_day, requests_per_day = TIERS[tier]
    if country in DENIED:
        return ("block", "geo", 0.0, 0.0)
    if card in DENIED:
        return ("block", "card", 0.0, 0.0)
    if rank < 2 and capability == "agentic":
        return ("block", "kyc", 0.0, 0.0)
    if rank < 1 and capability == "image":
        return ("block", "image", 0.0, 0.0)
    if stream and capability == "batch":
        return ("block", "batch", 0.0, 0.0)
    if status == "banned":
        return ("block", "banned", 0.0, 0.0)
    if status == "restricted" and capability in ("agentic", "code"):
        return ("block", "restricted", 0.0, 0.0)
    if kind in HOSTILE:
        return ("block", "network", 0.0, 0.0)
    if asn in ABUSED:
        return ("block", "asn", 0.0, 0.0)
    if model in RETIRED:
        return ("block", "retired", 0.0, 0.0)
    if rank < 1 and model == "large":
        return ("block", "large", 0.0, 0.0)
    if tools > 64:
        return ("block", "tools", 0.0, 0.0)
    if rank < 2 and tools > 4:
        return ("block", "guest-tools", 0.0, 0.0)
    if rank < 1 and reasoning:
        return ("block", "reasoning", 0.0, 0.0)
    if agent.startswith("scraper/"):
        return ("block", "agent", 0.0, 0.0)
    if agent.startswith("sdk/0."):
        return ("block", "old-agent", 0.0, 0.0)
    if endpoint in CLOSED:
        return ("block", "endpoint", 0.0, 0.0)
    if credential in STOLEN:
        return ("block", "stolen", 0.0, 0.0)
    if credit < 5 and model == "large":
        return ("block", "unpaid", 0.0, 0.0)
    if credit < 1 and capability == "agentic":
        return ("block", "broke", 0.0, 0.0)

    t = int(now * 1_000_000 + 0.5)
    day, hour = t - t % DAY, t - t % HOUR
    if (own := ACCOUNTS.get(account)) is None:
        own = ACCOUNTS[account] = [0, day, 0, 0, hour, 0]
    if own[1] != day:
        own[1:4] = day, 0, 0
    if own[4] != hour:
        own[4:6] = hour, 0
    if (theirs := ORGS.get(org)) is None:
        theirs = ORGS[org] = [0, day, 0, hour, 0]
    if theirs[1] != day:
        theirs[1:3] = day, 0
    if theirs[3] != hour:
        theirs[3:5] = hour, 0
    if (share := SHARES_USED.get((org, capability))) is None:
        share = SHARES_USED[org, capability] = [day, 0]
    if share[0] != day:
        share[:] = day, 0
    if (around := NETWORKS.get(network)) is None:
        around = NETWORKS[network] = [0, day, 0]
    if around[1] != day:
        around[1:3] = day, 0

    own_pace = MINUTE // per_minute
    own_time = max(own[0], t) + own_pace
    if (own_room := t + MINUTE - own_time) < 0:
        return ("throttle", "account-rate", 0.0, -own_room / 1e6)
    if (tokens_left := per_day - own[2] - tokens) < 0:
        return ("throttle", "account-tokens-day", per_day - own[2], (day + DAY - t) / 1e6)
    if (requests_left := requests_per_day - own[3] - 1) < 0:
        return ("throttle", "account-requests-day", 0.0, (day + DAY - t) / 1e6)
    if (output_left := OUTPUT_AN_HOUR - own[5] - output) < 0:
        left = OUTPUT_AN_HOUR - own[5]
        return ("throttle", "account-output-hour", left, (hour + HOUR - t) / 1e6)
    org_time = max(theirs[0], t) + ORG_PACE
    if (org_room := t + MINUTE - org_time) < 0:
        return ("throttle", "org-rate", 0.0, -org_room / 1e6)
    if (org_tokens_left := ORG_TOKENS - theirs[2] - tokens) < 0:
        return ("throttle", "org-tokens-day", ORG_TOKENS - theirs[2], (day + DAY - t) / 1e6)
    if (org_requests_left := ORG_REQUESTS - theirs[4] - 1) < 0:
        return ("throttle", "org-requests-hour", 0.0, (hour + HOUR - t) / 1e6)
    most = SHARES.get(capability, SHARES["chat"])
    if (share_left := most - share[1] - tokens) < 0:
        return ("throttle", "share-tokens-day", most - share[1], (day + DAY - t) / 1e6)
    network_time = max(around[0], t) + NETWORK_PACE
    if (network_room := t + MINUTE - network_time) < 0:
        return ("throttle", "network-rate", 0.0, -network_room / 1e6)
    if (network_left := NETWORK_REQUESTS - around[2] - 1) < 0:
        return ("throttle", "network-requests-day", 0.0, (day + DAY - t) / 1e6)

    own[0] = own_time
    own[2] += tokens
    own[3] += 1
    own[5] += output
    theirs[0] = org_time
    theirs[2] += tokens
    theirs[4] += 1
    share[1] += tokens
    around[0] = network_time
    around[2] += 1
    _, rule, rest, whole = min(
        (own_room / MINUTE, "account-rate", own_room // own_pace, own_time - t),
        (tokens_left / per_day, "account-tokens-day", tokens_left, day + DAY - t),
        (requests_left / requests_per_day, "account-requests-day", requests_left, day + DAY - t),
        (output_left / OUTPUT_AN_HOUR, "account-output-hour", output_left, hour + HOUR - t),
        (org_room / MINUTE, "org-rate", org_room // ORG_PACE, org_time - t),
        (org_tokens_left / ORG_TOKENS, "org-tokens-day", org_tokens_left, day + DAY - t),
        (org_requests_left / ORG_REQUESTS, "org-requests-hour", org_requests_left, hour + HOUR - t),
        (share_left / most, "share-tokens-day", share_left, day + DAY - t),
        (network_room / MINUTE, "network-rate", network_room // NETWORK_PACE, network_time - t),
        (network_left / NETWORK_REQUESTS, "network-requests-day", network_left, day + DAY - t),
    )
    return ("allow", rule, rest, whole / 1e6)

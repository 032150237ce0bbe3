"""The pages of what traffic shows of policies, and of what was expected of it."""

from __future__ import annotations

from guardrail.loading.explanation import Explanation

_TRAFFIC = (
    '# file: traffic.jsonl\n{"ts": 1772409600, "facts": {"account.id": "a1", "geo.country": "%s"}}'
)
_TIERS = "facts: {account.tier: {type: level, values: [email, verified]}}\n"
_EMBARGO = "rules:\n  - {id: embargo, when: {geo.country: CU}, unknown: skip, block: {}}\n"
_VERIFIED = (
    "# file: traffic.jsonl\n"
    '{"ts": 1772409600, "facts": {"account.id": "a1", "account.tier": "verified", '
    '"geo.country": "%s"}}'
)


_DEAR = (
    "rules:\n  - {id: dear, when: {request.model: {in: [%s, gpt-5]}}, unknown: skip, block: {}}\n"
    "# file: traffic.jsonl\n"
    '{"ts": 1772409600, "facts": {"account.id": "a1", "request.model": "gpt-5"}}\n'
    '{"ts": 1772409601, "facts": {"account.id": "a1", "request.model": "gpt-5.large"}}'
)
_PACE = "rules:\n  - {id: pace, when: always, budget: {requests: 900, per: day, key: account.id}}\n"

TRAFFIC_ENTRIES = (
    Explanation(
        "GR301",
        "rule that matched nothing",
        _EMBARGO + _TRAFFIC % "DE",
        _EMBARGO + _TRAFFIC % "CU",
        "A rule that no request of the traffic matched may wait for what has not come yet, or may "
        "never come to anything: what was there instead stands beside it.",
    ),
    Explanation(
        "GR302",
        "value that never came",
        _DEAR % "gpt-5-large",
        _DEAR % "gpt-5.large",
        "A rule that names what nobody ever sends protects nothing. Where a value that came is "
        "spelt nearly like it, it is a fault; otherwise a note.",
    ),
    Explanation(
        "GR303",
        "fact that is often missing",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, unknown: match, block: {}}\n"
        + _TRAFFIC % "CU"
        + '\n{"ts": 1772409601, "facts": {"account.id": "a2"}}',
        "rules:\n  - {id: embargo, when: {geo.country: CU}, unknown: match, block: {}}\n"
        + _TRAFFIC % "CU",
        "A rule decides by `unknown` for each request that lacks a fact it tests. Where many do, "
        "the figures are about the fact's source more than about the rule. `--missing` sets the "
        "share from which on that is told, 5% if it is left out; it is a fault where that many "
        "requests were decided by it. The same holds of a fact that a rule counts by: where it is "
        "missing the account stands in, without one the network, else one counter for all.",
    ),
    Explanation(
        "GR304",
        "sample drawn request by request",
        _PACE + "# file: traffic.jsonl\n# 1 request in 100, of all accounts",
        _PACE + "# file: traffic.jsonl\n# 1 account in 100, with all that it sent",
        "One request in a hundred of every account fills no daily budget: a replay of it refuses "
        "nobody, whatever the limits. Draw accounts, and keep all that they sent.",
    ),
    Explanation(
        "GR502",
        "expectation that traffic does not meet",
        _TIERS
        + _EMBARGO
        + "expect:\n  - {when: {account.tier: verified}, refused: {lte: 0.1%}}\n"
        + _VERIFIED % "CU",
        _TIERS
        + "rules:\n  - {id: embargo, when: {account.tier: email}, block: {}}\n"
        + "expect:\n  - {when: {account.tier: verified}, refused: {lte: 0.1%}}\n"
        + _VERIFIED % "CU"
        + '\n{"ts": 1772409601, "facts": {"account.id": "a2", "account.tier": "email"}}',
        "`expect` says what a replay has to come to, so that a change which refuses customers does "
        "not pass unseen. The segment's figures stand beside what was expected.",
    ),
    Explanation(
        "GR503",
        "expectation that nothing was in",
        _TIERS
        + _EMBARGO
        + "expect:\n  - {when: {account.tier: email}, refused: {lte: 0.1%}}\n"
        + _VERIFIED % "CU",
        _TIERS
        + _EMBARGO
        + "expect:\n  - {when: {account.tier: verified}, refused: {lte: 100%}}\n"
        + _VERIFIED % "CU",
        "None of no requests were refused: that is no success. The condition is wrong, or the "
        "traffic holds nobody of whom it speaks.",
    ),
)

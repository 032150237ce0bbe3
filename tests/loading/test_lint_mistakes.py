"""Known mistakes, each put beside the shipped policies: found once, with its code and its line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from guardrail.analysis import analyse
from guardrail.errors import Diagnostic, PolicyError
from guardrail.guard import Guard
from guardrail.loading import CATALOGUE, accepted, idle_comments, lint, load_policies, load_text

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
RULES = [path for path in sorted(POLICIES.glob("*.yaml")) if not path.match("*_test.yaml")]
"""What of the shipped policies can have to do with a mistake beside it: all but their tests."""
NOW = 1_780_000_000_000_000  # 2026-05-28
START = "guardrail: 1\n"


class Mistake(NamedTuple):
    """A mistake: its code, the file that makes it, and a part of the line it is told at."""

    code: str
    text: str
    at: str


def rule(id: str, *lines: str) -> str:
    """Return a rule in block style, one key a line."""
    return "".join([f"  - id: {id}\n", *(f"    {line}\n" for line in lines)])


def rules(*written: str) -> str:
    """Return a policy file of some rules."""
    return f"{START}rules:\n{''.join(written)}"


SKIP = "unknown: skip"
BLOCK = "block: {}"


def block(condition: str, *more: str) -> str:
    """Return a file with one rule that blocks what a condition holds for."""
    return rules(rule("m", f"when: {condition}", *(more or (SKIP,)), BLOCK))


def budget(*budgets: str, when: str = "{account.tier: verified}") -> str:
    """Return a file with a rule for each budget."""
    made = [
        rule(f"m{n}", f"when: {when}", SKIP, f"budget: {written}")
        for n, written in enumerate(budgets)
    ]
    return rules(*made)


def exemption(when: str, expires: str = "2198-12-31", *more: str) -> str:
    """Return a file with one exemption."""
    lines = [f"when: {when}", f"expires: {expires}", "rules: [tokens-per-day]", *more]
    if not more:
        lines.append("reason: signed pilot")
    return f"{START}exemptions:\n{rule('pilot', *lines)}"


OWN = "key: account.id"
PACE = "rate: {requests: 60/minute, key: account.id}"
MISTAKES = {
    # What blocks whoever lacks a fact.
    "an embargo of whoever has no country": Mistake(
        "GR204", block("{geo.country: CU}", "exemptible: false"), "when:"
    ),
    "a country that is not one of some": Mistake(
        "GR204", block("{geo.country: {not_in: [DE, FR]}}", "mode: enforce"), "when:"
    ),
    "an age below a bound": Mistake(
        "GR204", block("{account.age: {lt: 1d}}", "exemptible: true"), "when:"
    ),
    "one of two facts may be missing": Mistake(
        "GR204",
        block("{any: [{geo.country: CU}, {account.tier: anonymous}]}", "exemptible: true"),
        "when:",
    ),
    "a fact compared with one that may be missing": Mistake(
        "GR204",
        block("{payment.country: {exists: true, not: {same_as: geo.country}}}", "exemptible: true"),
        "when:",
    ),
    # What ends.
    "an exemption that has ended": Mistake(
        "GR206", exemption("{account.id: a1}", "2026-01-31"), "- id: pilot"
    ),
    "an exemption that ends in a week": Mistake(
        "GR206", exemption("{account.id: a1}", "2026-06-04"), "- id: pilot"
    ),
    "a rule that has ended": Mistake(
        "GR206", block("{account.id: a1}", SKIP, "until: 2026-04-01"), "- id: m"
    ),
    "a rule that ends tomorrow": Mistake(
        "GR206", block("{account.id: a1}", SKIP, "until: 2026-05-29"), "- id: m"
    ),
    # What another limit keeps from being reached.
    "a month above its days": Mistake(
        "GR207",
        budget(f"{{requests: 5, per: day, {OWN}}}", f"{{requests: 1k, per: month, {OWN}}}"),
        "requests: 1k",
    ),
    "a week above its hours": Mistake(
        "GR207",
        budget(f"{{requests: 5, per: hour, {OWN}}}", f"{{requests: 1k, per: week, {OWN}}}"),
        "requests: 1k",
    ),
    "thirty days above ten": Mistake(
        "GR207",
        budget(f"{{requests: 5, per: 10d, {OWN}}}", f"{{requests: 25, per: 30d, {OWN}}}"),
        "requests: 25",
    ),
    "a day that the pace never fills": Mistake(
        "GR207",
        rules(
            rule(
                "m0",
                "when: {account.tier: verified}",
                SKIP,
                "rate: {requests: 1/minute, key: account.id}",
            ),
            rule(
                "m1",
                "when: {account.tier: verified}",
                SKIP,
                f"budget: {{requests: 2k, per: day, {OWN}}}",
            ),
        ),
        "requests: 2k",
    ),
    "a lifetime below a day": Mistake(
        "GR207",
        rules(
            rule("m0", "when: {account.tier: verified}", "over: throttle",
                 f"budget: {{requests: 5, per: lifetime, {OWN}}}"),
            rule("m1", "when: {account.tier: verified}", "over: block",
                 f"budget: {{requests: 50, per: day, {OWN}}}"),
        ),
        "requests: 50",
    ),
    "tiers that a day keeps from their month": Mistake(
        "GR207",
        budget(
            "{requests: {by: account.tier, verified: 5, else: 3}, per: day, key: account.id}",
            "{requests: {by: account.tier, verified: 500, else: 300}, per: month, key: account.id}",
        ),
        "verified: 500",
    ),
    "tokens of a month far above their days": Mistake(
        "GR207",
        budget(f"{{tokens: 50k, per: day, {OWN}}}", f"{{tokens: 10M, per: month, {OWN}}}"),
        "tokens: 10M",
    ),
    "a month above its days, in other words": Mistake(
        "GR207",
        rules(
            rule("m0", "when: {account.tier: {at_least: verified}}", SKIP,
                 f"budget: {{requests: 5, per: day, {OWN}}}"),
            rule("m1", "when: {not: {account.tier: {below: enterprise}}, geo.country: DE}", SKIP,
                 f"budget: {{requests: 1k, per: month, {OWN}}}"),
        ),
        "requests: 1k",
    ),
    "a month of an account above the days of all": Mistake(
        "GR207",
        rules(
            rule("m0", "when: {account.tier: enterprise}", SKIP,
                 f"budget: {{input_tokens: 5k, per: day, {OWN}}}"),
            rule("m1", "when: {account.tier: enterprise}", SKIP,
                 "budget: {input_tokens: 1M, per: month, key: [account.id, geo.country]}"),
        ),
        "input_tokens: 1M",
    ),
    "a block above a limit that slows down before": Mistake(
        "GR207",
        rules(
            rule("m0", "when: {account.tier: enterprise}", SKIP,
                 f"budget: {{requests: 50, per: day, {OWN}}}"),
            rule("m1", "when: {account.tier: enterprise}", SKIP,
                 f"budget: {{requests: 80, per: day, {OWN}}}", "over: block"),
        ),
        "requests: 80",
    ),
    "more for a tier that the limit of everyone takes back": Mistake(
        "GR207",
        rules(
            rule("m0", "when: always", f"budget: {{input_tokens: 1M, per: day, {OWN}}}"),
            rule("m1", "when: {request.reasoning: true}", SKIP,
                 "budget: {input_tokens: {by: account.tier, enterprise: 5M, else: 50k}, per: day, "
                 f"{OWN}}}"),
        ),
        "enterprise: 5M",
    ),
    "more tokens a day beside the day of everyone": Mistake(
        "GR207",
        rules(
            rule("m0", "when: always", f"budget: {{input_tokens: 1M, per: day, {OWN}}}"),
            rule("m1", "when: {account.tier: enterprise}", "over: block",
                 f"budget: {{input_tokens: 1500k, per: day, {OWN}}}"),
        ),
        "1500k",
    ),
    "a day beside any 24 hours": Mistake(
        "GR207",
        rules(
            rule("m0", "when: always", f"budget: {{input_tokens: 1M, per: 1d, {OWN}}}"),
            rule("m1", "when: always", "over: block",
                 f"budget: {{input_tokens: 2M, per: day, {OWN}}}"),
        ),
        "per: day",
    ),
    "a limit without an end": Mistake(
        "GR207",
        rules(rule("m", "when: always", f"budget: {{requests: unlimited, per: day, {OWN}}}")),
        "unlimited",
    ),
    # What a client can call otherwise.
    "a ceiling on agents alone": Mistake(
        "GR212",
        rules(rule("m", "when: {account.tier: enterprise, request.capability: agentic}", SKIP,
                   f"budget: {{reasoning_tokens: 9M, per: 30d, {OWN}}}")),
        "reasoning_tokens: 9M",
    ),
    # What nothing uses.
    "a list that no rule reads": Mistake(
        "GR208", f"{START}lists:\n  partners: [a1, a2]\n", "partners"
    ),
    "a condition that no rule uses": Mistake(
        "GR208", f"{START}conditions:\n  free: {{account.tier: email}}\n", "free"
    ),
    "a fact that no rule reads": Mistake(
        "GR208",
        f"{START}facts:\n  account.plan: {{type: string, source: server}}\n",
        "account.plan",
    ),
    "a condition that only an unused one uses": Mistake(
        "GR208",
        f"{START}conditions:\n  inner: {{account.tier: email}}\nrules:\n"
        + rule("m", "when: {account.tier: email}", PACE),
        "inner",
    ),
    # What does not fit.
    "none in flight for all": Mistake(
        "GR210",
        rules(rule("m", "when: always", f"concurrency: {{max: 0, {OWN}}}")),
        "max: 0",
    ),
    "a day of tokens below one answer": Mistake(
        "GR210", budget(f"{{tokens: 5k, per: day, {OWN}}}"), "tokens: 5k"
    ),
    "output for half an answer": Mistake(
        "GR210", budget(f"{{output_tokens: 4000, per: day, {OWN}}}"), "output_tokens: 4000"
    ),
    "a tier whose tokens lack a zero": Mistake(
        "GR210",
        budget("{tokens: {by: account.tier, anonymous: 1k, else: 1M}, per: day, key: account.id}"),
        "anonymous: 1k",
    ),
    "a cent a day": Mistake(
        "GR210", budget(f"{{cost_usd: 0.01, per: day, {OWN}}}"), "cost_usd: 0.01"
    ),
    "tokens a minute below one answer": Mistake(
        "GR210",
        rules(rule("m", "when: {account.tier: verified}", f"rate: {{tokens: 2k/minute, {OWN}}}")),
        "tokens: 2k",
    ),
    "a burst below one answer": Mistake(
        "GR210",
        rules(
            rule(
                "m",
                "when: {account.tier: verified}",
                f"rate: {{tokens: 60k/minute, burst: 1k, {OWN}}}",
            )
        ),
        "tokens: 60k",
    ),
    # What one can fill for all.
    "a ceiling for all without one for each": Mistake(
        "GR215", budget("{output_tokens: 1G, per: day, key: global}"), "key: global"
    ),
    "a country's share that one account can take": Mistake(
        "GR215", budget("{output_tokens: 1G, per: day, key: geo.country}"), "key: geo.country"
    ),
    "a pace for all without one for each": Mistake(
        "GR215",
        rules(
            rule("m", "when: {account.tier: verified}", "rate: {tokens: 1M/minute, key: global}")
        ),
        "tokens: 1M",
    ),
    "an own limit as large as all share": Mistake(
        "GR215",
        budget(
            "{output_tokens: 100k, per: day, key: global}",
            f"{{output_tokens: 200k, per: day, {OWN}}}",
        ),
        "key: global",
    ),
    "an own limit that leaves out who has no organisation": Mistake(
        "GR215",
        budget(
            "{output_tokens: 1M, per: day, key: global}",
            "{output_tokens: 100k, per: day, key: [account.org, account.id]}",
        ),
        "key: global",
    ),
    "an own limit for a part in other words": Mistake(
        "GR215",
        rules(
            rule("m0", "when: {account.tier: {at_least: email}}", SKIP,
                 "budget: {output_tokens: 1G, per: day, key: global}"),
            rule("m1", "when: {not: {account.tier: {in: [anonymous, enterprise]}}}", SKIP,
                 f"budget: {{output_tokens: 100k, per: day, {OWN}}}"),
        ),
        "key: global",
    ),
    "own limits by what a client says, too large together": Mistake(
        "GR215",
        rules(
            rule("m0", "when: {account.tier: verified}", SKIP,
                 "budget: {output_tokens: 1M, per: day, key: global}"),
            rule("m1", "when: {account.tier: verified, request.stream: true}", SKIP,
                 f"budget: {{output_tokens: 600k, per: day, {OWN}}}"),
            rule("m2", "when: {account.tier: verified, not: {request.stream: true}}",
                 f"budget: {{output_tokens: 600k, per: day, {OWN}}}"),
        ),
        "key: global",
    ),
    "an own limit that each address has anew": Mistake(
        "GR215",
        budget(
            "{output_tokens: 1M, per: day, key: global}",
            "{output_tokens: 100k, per: day, key: [account.id, client.ip]}",
        ),
        "key: global",
    ),
    # Tiers.
    "the paying tier has a zero less": Mistake(
        "GR220",
        budget(
            "{requests: {by: account.tier, anonymous: 10, email: 100, verified: 1000, "
            "enterprise: 500}, per: day, key: account.id}"
        ),
        "enterprise: 500",
    ),
    "two rows that are swapped": Mistake(
        "GR220",
        budget(
            "{requests: {by: account.tier, anonymous: 5, email: 100, verified: 50, "
            "enterprise: 1k}, per: day, key: account.id}"
        ),
        "verified: 50",
    ),
    "unlimited below a number": Mistake(
        "GR220",
        budget(
            "{requests: {by: account.tier, anonymous: 5, email: 5, verified: unlimited, "
            "enterprise: 1k}, per: day, key: account.id}"
        ),
        "verified: unlimited",
    ),
    "who paid more has less": Mistake(
        "GR220",
        budget(
            "{requests: {by: account.paid_usd, bands: {0: 100, 20: 50}}, per: day, key: account.id}"
        ),
        "20: 50",
    ),
    "the older account has less": Mistake(
        "GR220",
        budget(
            "{requests: {by: account.age, bands: {0d: 100, 60d: 10}}, per: day, key: account.id}"
        ),
        "60d: 10",
    ),
    "a pace that falls": Mistake(
        "GR220",
        rules(
            rule(
                "m",
                "when: always",
                "rate: {requests: {by: account.tier, anonymous: 9/minute, email: 9/minute, "
                "verified: 99/minute, enterprise: 9/minute}, key: account.id}",
            )
        ),
        "enterprise: 9",
    ),
    "fewer at once for who is known": Mistake(
        "GR220",
        rules(
            rule(
                "m",
                "when: always",
                "concurrency: {max: {by: account.tier, anonymous: 1, email: 9, verified: 2, "
                "enterprise: 20}, key: account.id}",
            )
        ),
        "verified: 2",
    ),
    "amounts that fall where the levels' names rise": Mistake(
        "GR220",
        f"{START}facts:\n  account.plan: {{type: level, source: server, values: "
        f"[basic, pro, enterprise]}}\nrules:\n"
        + rule(
            "m",
            "when: always",
            "rate:",
            "  requests: {by: account.plan, basic: 9/minute, pro: 9/minute, enterprise: 1/minute}",
            "  key: account.id",
        ),
        "enterprise: 1",
    ),
    "amounts that fall from the default on": Mistake(
        "GR220",
        f"{START}facts:\n  account.plan: {{type: level, source: server, values: [c, b, a], "
        f"default: c}}\nrules:\n"
        + rule(
            "m",
            "when: always",
            "rate:",
            "  requests: {by: account.plan, c: 9/minute, b: 9/minute, a: 1/minute}",
            "  key: client.ip",
        ),
        "a: 1/minute",
    ),
    "levels listed from the highest": Mistake(
        "GR221",
        f"{START}facts:\n  account.plan:\n    {{type: level, source: server, values: "
        f"[enterprise, pro, free], default: free}}\nrules:\n"
        + rule("m", "when: {account.plan: {below: pro}}", PACE),
        "values:",
    ),
    "tables that all fall": Mistake(
        "GR221",
        f"{START}facts:\n  account.plan: {{type: level, source: server, values: [c, b, a]}}\n"
        f"rules:\n"
        + rule(
            "m",
            "when: always",
            "rate: {requests: {by: account.plan, a: 1/minute, b: 2/minute, c: 3/minute}, key: "
            "account.id}",
        ),
        "values:",
    ),
    "whoever is unknown is at the top": Mistake(
        "GR221",
        f"{START}facts:\n  account.plan: {{type: level, source: server, values: [a, b, c], "
        f"default: c}}\nrules:\n" + rule("m", "when: {account.plan: a}", PACE),
        "default: c",
    ),
    # Models.
    "a model that is misspelt": Mistake(
        "GR222", block("{request.model: larg}"), "request.model: larg"
    ),
    "a model of another provider": Mistake(
        "GR222", block("{request.model: {in: [large, gpt-5]}}"), "gpt-5"
    ),
    "a table by a model that is not there": Mistake(
        "GR222",
        budget("{requests: {by: request.model, huge: 5, else: 50}, per: day, key: account.id}"),
        "huge: 5",
    ),
    "a test of a model that is not there": Mistake(
        "GR222",
        f"{START}tests:\n  - name: large\n    facts: {{request.model: large-2, account.tier: "
        f"verified, geo.country: DE}}\n    expect: allow\n",
        "large-2",
    ),
    # Patterns.
    "a star at the end": Mistake(
        "GR223", block('{client.agent: "python-requests/*"}'), "python-requests"
    ),
    "a star in a list": Mistake("GR223", block('{account.org: {in: ["org_*", org_2]}}'), "org_*"),
    "a regular expression": Mistake("GR223", block('{client.agent: "^curl/.*"}'), "curl"),
    "a sign that negates": Mistake("GR223", block('{client.agent: "!curl"}'), "curl"),
    "a sign that negates, in a list": Mistake(
        "GR223", block('{account.org: {in: ["!org_1", org_2]}}'), "!org_1"
    ),
    "a sign that equals": Mistake("GR223", block('{account.id: "== a1"}'), "a1"),
    "alternatives without brackets": Mistake("GR223", block("{account.id: a1|a2}"), "a1|a2"),
    "an expression between strokes": Mistake("GR223", block("{client.agent: /curl/i}"), "/curl/i"),
    "alternatives in brackets": Mistake("GR223", block('{client.agent: "(curl|wget)"}'), "curl"),
    "a star after a prefix": Mistake("GR223", block('{client.agent: {prefix: "curl*"}}'), "curl"),
    "a class of characters": Mistake(
        "GR223", block('{account.org: {not: "org_[0-9]+"}}', SKIP), "org_"
    ),
    "a network of many customers": Mistake(
        "GR223", block("{client.network: {in: [10.20.0.0/16]}}"), "10.20.0.0"
    ),
    "a network of IPv6 that is spared": Mistake(
        "GR223", block('{client.network: {not: "2001:db8::/32"}}', SKIP), "2001:db8"
    ),
    # Quotes and comments.
    "typographic quotes around an account": Mistake(
        "GR224", block("{account.id: \u201cacct_42\u201d}"), "acct_42"
    ),
    "German quotes": Mistake("GR224", block("{account.id: \u201eacct_42\u201c}"), "acct_42"),
    "single typographic quotes in a list": Mistake(
        "GR224", block("{account.id: {in: [\u2018a1\u2019, a2]}}"), "a1"
    ),
    "a message in typographic quotes": Mistake(
        "GR224",
        rules(
            rule("m", "when: {account.id: a1}", SKIP, "block: {message: \u201cWrite to us\u201d}")
        ),
        "message",
    ),
    "a ticket's number in a message": Mistake(
        "GR225",
        rules(
            rule(
                "m",
                "when: {account.id: a1}",
                SKIP,
                "block:",
                "  message: Write to us about ticket #42",
            )
        ),
        "message",
    ),
    "a message cut in its middle": Mistake(
        "GR225",
        rules(
            rule(
                "m",
                "when: {account.id: a1}",
                SKIP,
                "block:",
                "  message: Write to the channel # support for help",
            )
        ),
        "message",
    ),
    "a reason of an exemption": Mistake(
        "GR225",
        exemption("{account.id: a1}", "2198-12-31", "reason: contract #17 of May"),
        "reason",
    ),
    "an obligation's text": Mistake(
        "GR225",
        rules(
            rule(
                "m", "when: {account.id: a1}", SKIP, "degrade:", "  x-notice: see #limits for more"
            )
        ),
        "x-notice",
    ),
    # Entries of lists.
    "two accounts in one pair of quotes": Mistake(
        "GR226", block('{account.id: {in: ["a1, a2"]}}'), "a1, a2"
    ),
    "two accounts without a comma": Mistake("GR226", block("{account.id: {in: [a1 a2]}}"), "a1 a2"),
    "organisations in one line": Mistake(
        "GR226",
        f"{START}lists:\n  partners:\n    - org_1, org_2\nrules:\n"
        + rule("m", "when: {account.org: {in: $partners}}", SKIP, BLOCK),
        "org_1, org_2",
    ),
    "a country twice": Mistake(
        "GR231",
        f"{START}lists:\n  sanctioned: [CU, SD,\n               SD]\nrules:\n"
        + rule("m", "when: {geo.country: {in: $sanctioned}}", SKIP, BLOCK),
        "               SD]",
    ),
    "a limit by a fact that its requests lack": Mistake(
        "GR233",
        rules(
            rule(
                "m", "when: {account.tier: email, kyc.subject: {exists: false}}",
                "concurrency: {max: 2, key: kyc.subject}",
            )
        ),
        "- id: m",
    ),
    "an endpoint with its host": Mistake(
        "GR223", block("{request.endpoint: https://api.example.com/v1/batches?x=1}"), "api.example"
    ),
    "an endpoint with its method": Mistake(
        "GR223", block("{request.endpoint: POST /v1/batches}"), "POST"
    ),
    "an endpoint without its slash": Mistake(
        "GR223", block("{request.endpoint: {not: v1/batches}}"), "v1/batches"
    ),
    "an endpoint with a slash behind": Mistake(
        "GR223", block("{request.endpoint: /v1/batches/}"), "v1/batches"
    ),
    "endpoints that start without a slash": Mistake(
        "GR223", block("{request.endpoint: {prefix: v1/}}"), "v1/"
    ),
    "a client's address with its length": Mistake(
        "GR223", block("{client.network: 192.0.2.7/32}"), "192.0.2.7"
    ),
    "a network by one of its addresses": Mistake(
        "GR223", block("{client.network: 192.0.2.7/24}"), "192.0.2.7"
    ),
    "an address of a network of IPv6": Mistake(
        "GR223", block("{client.network: '2001:db8::1'}"), "2001:db8::1"
    ),
    "a network of IPv6 with its zeros": Mistake(
        "GR223", block("{client.network: '2001:DB8:0::/64'}"), "2001:DB8"
    ),
    "a range within one client's network": Mistake(
        "GR223", block("{client.network: {cidr: ['2001:db8::/96']}}"), "2001:db8"
    ),
    "a ban of a second": Mistake(
        "GR234",
        rules(
            rule(
                "m", "when: {account.tier: email, request.capability: chat}", SKIP,
                "rate: {requests: 5/minute, burst: 2, key: account.id}",
                "escalate: {after: 20, within: 10m, block_for: 1s}",
            )
        ),
        "block_for",
    ),
    "a ban after more refusals than there are seconds": Mistake(
        "GR234",
        rules(
            rule(
                "m", "when: {account.tier: email, request.capability: chat}", SKIP,
                "rate: {requests: 5/minute, burst: 2, key: account.id}",
                "escalate: {after: 62, within: 1m, block_for: 1h}",
            )
        ),
        "after",
    ),
    "bands that begin above nothing": Mistake(
        "GR235",
        budget(
            "{requests: {by: account.paid_usd, bands: {5: 50, 20: 500}}, per: hour, "
            "key: account.org}"
        ),
        "bands",
    ),
    "a score that nobody has": Mistake(
        "GR237", block("{actor.score: {gte: 96}}"), "when: {actor.score"
    ),
    "a score above the highest": Mistake(
        "GR237", block("{actor.score: {gt: 95}}"), "when: {actor.score"
    ),
    "no device at all": Mistake(
        "GR210",
        rules(
            rule(
                "m", "when: {account.tier: verified}", SKIP,
                "distinct: {count: device.fingerprint, max: 0, per: 7d, key: account.org}",
            )
        ),
        "max: 0",
    ),
    "a space after an account": Mistake("GR232", block('{account.id: "acct_42 "}'), "acct_42 "),
    "a character without width in an organisation": Mistake(
        "GR232", block('{account.org: {in: ["org\\u200b1", org2]}}'), "org"
    ),
    "a pace of 0 for some": Mistake(
        "GR210",
        rules(rule("m", "when: {account.id: a1}", SKIP, "rate: {requests: 0/minute, key: global}")),
        "0/minute",
    ),
    "nothing at once": Mistake(
        "GR210",
        rules(rule("m", "when: {account.id: a1}", SKIP,
                   "rate: {requests: 5/minute, burst: 0, key: global}")),
        "5/minute",
    ),
    "the accounts of each account": Mistake(
        "GR207",
        rules(rule("m", "when: {account.tier: email}",
                   "distinct: {count: account.id, max: 5, per: 30d, key: account.id}")),
        "max: 5",
    ),
    "an account twice": Mistake("GR231", block("{account.id: {in: [a1, a2, a1]}}"), "a1, a2"),
    # Exemptions for all.
    "an exemption for everyone": Mistake("GR227", exemption("always"), "when: always"),
    # Comments.
    "a comment that accepts nothing": Mistake(
        "GR230",
        rules(rule("m", "when: {account.id: a1} # guardrail: ignore GR203 few", PACE)),
        "ignore",
    ),
    "a comment whose day has passed": Mistake(
        "GR230",
        rules(
            rule("m", "when: {account.id: a1} # guardrail: ignore GR203 until 2026-01-01 few", PACE)
        ),
        "ignore",
    ),
}  # fmt: skip
"""The mistakes by what they are."""


OF_LIMITS = ("GR233", "GR207", "GR212", "GR215", "GR229")
"""What is found of limits by asking about all requests."""


def found(*paths: Path) -> list[Diagnostic]:
    """Return what is found without running tests, as of `NOW`, rules and conditions aside."""
    try:
        policies = load_policies(list(paths), linted=True)
    except PolicyError as error:
        return list(error.diagnostics)
    asked = [
        one
        for one in analyse(policies, NOW)
        # A small limit keeps those of the shipped policies from being reached, and rightly so.
        if one.code in OF_LIMITS and (len(paths) == 1 or one.span.file == str(paths[-1]))
    ]
    return sorted([*lint(policies, NOW), *asked], key=lambda one: one.sort_key)


@pytest.mark.parametrize("name", [name for name, one in MISTAKES.items() if one.code != "GR230"])
def test_a_mistake_beside_the_shipped_policies_is_found_at_its_place(name, tmp_path):
    mistake = MISTAKES[name]
    path = tmp_path / ("seeded_test.yaml" if "tests:" in mistake.text else "seeded.yaml")
    path.write_text(mistake.text, "utf-8")
    lines = [n for n, line in enumerate(mistake.text.split("\n"), 1) if mistake.at in line]
    told = [(one.code, one.span.file, one.span.line) for one in found(*RULES, path)]

    assert len(lines) == 1, "the table names one line"
    assert told == [(mistake.code, str(path), lines[0])]


@pytest.mark.parametrize("name", [name for name, one in MISTAKES.items() if one.code == "GR230"])
def test_a_comment_without_use_is_found_at_its_place(name, tmp_path):
    mistake = MISTAKES[name]
    path = tmp_path / "seeded.yaml"
    path.write_text(mistake.text, "utf-8")
    policies = load_policies([*RULES, path], linted=True)
    left, ignored = accepted(policies, lint(policies, NOW), NOW)
    every = idle_comments(policies, ignored, NOW, CATALOGUE)
    idle = [one for one in every if one.span.file == str(path)]
    line = next(n for n, line in enumerate(mistake.text.split("\n"), 1) if mistake.at in line)

    assert left == []
    assert [(one.code, one.span.line) for one in idle] == [("GR230", line)]


@pytest.mark.parametrize(
    "name",
    ["a.YAML", "a.Yml", "a.yaml.bak", "a.yml~", "a.yaml.orig", "a.yaml.disabled", "a.ymal",
     "a.yaml.txt", "a.json", "a.yaml_old"],
)  # fmt: skip
def test_a_file_that_its_ending_keeps_out_is_found(name, tmp_path):
    shutil.copytree(POLICIES, tmp_path / "set")
    path = tmp_path / "set" / name
    path.write_text('{"guardrail": 1, "rules": []}')

    assert [(one.code, one.span.file) for one in found(tmp_path / "set")] == [("GR228", str(path))]


@pytest.mark.parametrize(
    "name", [".a.yaml.swp", "#a.yaml#", "a.txt", "README.md", "traffic.json", "a.jsonl", "yaml"]
)
def test_what_nobody_takes_for_policy_may_lie_beside_it(name, tmp_path):
    shutil.copytree(POLICIES, tmp_path / "set")
    (tmp_path / "set" / name).write_text('{"ts": 1, "facts": {}}')

    assert found(tmp_path / "set") == []


@pytest.mark.parametrize(
    ("file", "old", "new", "code"),
    [
        ("api.yaml", "cached_input: 0.3", "cached_input: 30", "GR238"),
        ("api.yaml", "price: {input: 3, output: 15,", "price: {input: 30, output: 150,", "GR238"),
        ("api.yaml", "price: {input: 3, output: 15,", "price: {input: 30, output: 15,", None),
        ("coordination.yaml", "{strong: 180d, weak: 14d}", "{strong: 14d, weak: 180d}", "GR239"),
    ],
)
def test_what_stands_the_wrong_way_round_is_found(tmp_path, file, old, new, code):
    shutil.copytree(POLICIES, tmp_path / "set")
    path = tmp_path / "set" / file
    text = path.read_text("utf-8")
    path.write_text(text.replace(old, new, 1), "utf-8")

    assert text.count(old) == 1
    assert {one.code for one in found(tmp_path / "set")} == ({code} if code else set())


@pytest.mark.parametrize(("after", "comes"), [(11, True), (12, False)])
def test_a_ban_is_found_never_to_come_where_no_pace_of_refusals_brings_it(tmp_path, after, comes):
    text = f"{START}policy: bans\n" + rules(
        rule(
            "m",
            "when: always",
            f"budget: {{requests: 1, per: day, {OWN}}}",
            f"escalate: {{after: {after}, within: 10s, block_for: 1h}}",
        )
    ).removeprefix(START)
    (tmp_path / "bans.yaml").write_text(text, "utf-8")
    with Guard.load(tmp_path / "bans.yaml", store="memory://") as guard:
        every = [guard.decide({"account.id": "a1"}, now=1.8e9 + n / 10) for n in range(400)]

    assert ("repeated-refusals" in {one.reason for one in every}) is comes
    assert ("GR234" in {one.code for one in found(tmp_path)}) is not comes


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("- acct_2", "write `acct_2`"),
        ('"acct_2"', "write `acct_2`"),
        ("'acct_2',", "write `acct_2`"),
        ("acct_2, # the second", "write `acct_2`"),
        ("acct_2,acct_3", "write each in a line of its own"),
        ("acct_2 acct_3", "write each in a line of its own"),
        ("acct-2", None),
        ('acct"2', None),
        ("acct_2 # the second", None),
    ],
)
def test_a_line_of_a_list_that_is_written_as_elsewhere_is_found(tmp_path, line, advice):
    text = f"{START}policy: listing\nlists: {{own: {{file: own.txt}}}}\n" + rules(
        rule("m", "when: {account.id: {in: $own}}", SKIP, BLOCK)
    ).removeprefix(START)
    (tmp_path / "listing.yaml").write_text(text, "utf-8")
    (tmp_path / "own.txt").write_text(f"acct_1\n{line}\n", "utf-8")
    told = [(one.code, one.span.line, (one.help or "")) for one in found(tmp_path)]

    assert [(code, at) for code, at, _ in told] == ([] if advice is None else [("GR226", 2)])
    assert all(help.endswith(str(advice)) for _, _, help in told)


FINE = {
    "a ban after a refusal in every second": rules(
        rule("m", "when: {account.tier: email, request.capability: chat}", SKIP,
             "rate: {requests: 5/minute, burst: 2, key: account.id}",
             "escalate: {after: 61, within: 1m, block_for: 1h}"),
    ),
    "the highest score there is": block("{actor.score: {gte: 95}}"),
    "a month that its days can fill": budget(
        f"{{requests: 5, per: day, {OWN}}}", f"{{requests: 100, per: month, {OWN}}}"
    ),
    "tokens of a month that may run over": budget(
        f"{{tokens: 50k, per: day, {OWN}}}", f"{{tokens: 2M, per: month, {OWN}}}"
    ),
    "a month for more than its days are for": rules(
        rule("m0", "when: {account.tier: verified}", f"budget: {{requests: 5, per: day, {OWN}}}"),
        rule("m1", "when: always", f"budget: {{requests: 1k, per: month, {OWN}}}"),
    ),
    "a month beside days that only degrade": rules(
        rule("m0", "when: always", f"budget: {{requests: 5, per: day, {OWN}}}",
             "over: {degrade: {disable: [tools]}}"),
        rule("m1", "when: always", f"budget: {{requests: 1k, per: month, {OWN}}}"),
    ),
    "a month beside days in shadow": rules(
        rule("m0", "when: always", f"budget: {{requests: 5, per: day, {OWN}}}", "mode: shadow"),
        rule("m1", "when: always", f"budget: {{requests: 1k, per: month, {OWN}}}"),
    ),
    "two keys": budget(
        f"{{requests: 5, per: day, {OWN}}}", "{requests: 1k, per: month, key: account.org}"
    ),
    "two units": budget(
        f"{{requests: 5, per: day, {OWN}}}", f"{{input_tokens: 100k, per: month, {OWN}}}"
    ),
    "a notice on the way to a month": rules(
        rule("m0", "when: {account.org: o1}", SKIP, f"budget: {{requests: 5, per: day, {OWN}}}"),
        rule("m1", "when: {account.org: o1}", f"budget: {{requests: 200, per: month, {OWN}}}", SKIP,
             "steps: [{at: 50%, notify: {x-half: half of it}}]"),
    ),
    "a rate and a bound on its burst": rules(
        rule("m0", "when: always", "rate: {requests: 100/minute, key: account.id}"),
        rule("m1", "when: always", f"budget: {{requests: 120, per: 1m, {OWN}}}"),
    ),
    "nobody but the exempt is to be served": (
        rules(rule("m", "when: always", f"budget: {{requests: 0, per: day, {OWN}}}"))
        + exemption("{account.org: o1}").removeprefix(START).replace("tokens-per-day", "m")
    ),
    "nobody but who is raised is to be served": (
        rules(rule("m", "when: always", f"concurrency: {{max: 0, {OWN}}}"))
        + exemption("{account.org: o1}", "2198-12-31", "reason: pilot", "raise: {max: 9}")
        .removeprefix(START)
        .replace("tokens-per-day", "m")
    ),
    "an endpoint's name has stars": block(
        "{request.endpoint: {in: [/model/*/converse, /v1/files/*, other]}}"
    ),
    "an address of IPv4 and a network of IPv6": block(
        "{client.network: {in: [192.0.2.7, '2001:db8:1:2::/64'], "
        "cidr: [192.0.2.0/24, '2001:db8:1:2::/64']}}"
    ),
    "only what costs nothing is to be served": rules(
        rule("m", "when: always", f"budget: {{cost_usd: 0, per: day, {OWN}}}")
    ),
    "nobody is to be served": budget(f"{{tokens: 0, per: day, {OWN}}}"),
    "a block that says what unknown is": block("{geo.country: CU}"),
    "a block of what is there": block("{geo.country: {exists: true, in: [CU]}}", "mode: enforce"),
    "a block of what is not there": block("{geo.country: {exists: false}}", "mode: enforce"),
    "a block by a default": block("{enforcement.status: pending}", "mode: enforce"),
    "a block in shadow": block("{geo.country: CU}", "mode: shadow"),
    "a block by the hour": block("{time.hour: {lt: 6}, account.tier: email}", "mode: enforce"),
    "a shared limit that nobody fills alone": budget(
        "{output_tokens: 1G, per: day, key: global}", f"{{output_tokens: 100k, per: day, {OWN}}}"
    ),
    "an own limit that is smaller for those a ceiling is of": budget(
        "{output_tokens: 1M, per: day, key: global}",
        "{output_tokens: {by: account.age, bands: {0d: 100k, 60d: 9M}}, per: day, key: account.id}",
        when="{account.tier: verified, account.age: {lt: 60d}}",
    ),
    "an own limit by an account and what it has one of": budget(
        "{output_tokens: 1M, per: day, key: global}",
        "{output_tokens: 100k, per: day, key: [account.org, account.id]}",
        when="{account.tier: verified, account.org: {exists: true}}",
    ),
    "own limits by what a client says, small together": rules(
        rule("m0", "when: {account.tier: verified}", SKIP,
             "budget: {output_tokens: 1M, per: day, key: global}"),
        rule("m1", "when: {account.tier: verified, request.stream: true}", SKIP,
             f"budget: {{output_tokens: 400k, per: day, {OWN}}}"),
        rule("m2", "when: {account.tier: verified, not: {request.stream: true}}",
             f"budget: {{output_tokens: 400k, per: day, {OWN}}}"),
    ),
    "own limits by a tier, of which an account has one": rules(
        rule("m0", "when: {account.tier: {at_least: email}}", SKIP,
             "budget: {output_tokens: 1M, per: day, key: global}"),
        rule("m1", "when: {account.tier: email}", SKIP,
             f"budget: {{output_tokens: 600k, per: day, {OWN}}}"),
        rule("m2", "when: {account.tier: {at_least: verified}}", SKIP,
             f"budget: {{output_tokens: 600k, per: day, {OWN}}}"),
    ),
    "as much for a tier as everyone has": rules(
        rule("m0", "when: always", f"budget: {{input_tokens: 5M, per: day, {OWN}}}"),
        rule("m1", "when: {request.reasoning: true}", SKIP,
             "budget: {input_tokens: {by: account.tier, enterprise: 5M, else: 50k}, per: day, "
             f"{OWN}}}"),
    ),
    "a ceiling on images": rules(
        rule("m", "when: {account.tier: enterprise, request.capability: image}", SKIP,
             f"budget: {{reasoning_tokens: 9M, per: 30d, {OWN}}}")
    ),
    "a ceiling on agents below one on all": rules(
        rule("m0", "when: {account.tier: enterprise, request.capability: agentic}", SKIP,
             f"budget: {{reasoning_tokens: 9M, per: 30d, {OWN}}}"),
        rule("m1", "when: {not: {account.tier: {below: enterprise}}}",
             f"budget: {{tokens: 90M, per: 30d, {OWN}}}"),
    ),
    "an organisation's own limit": budget("{tokens: 1G, per: day, key: account.org}"),
    "equal amounts": budget(
        "{requests: {by: account.tier, email: 5, verified: 5, else: 5}, per: day, key: account.id}"
    ),
    "visitors share their network's": budget(
        "{requests: {by: account.tier, anonymous: 500, email: 5, else: 50}, per: day, "
        "key: account.id}"
    ),
    "more accounts, less each": budget(
        "{requests: {by: actor.accounts, bands: {0: 100, 9: 10}}, per: day, key: account.id}"
    ),
    "another name of a model": block("{request.model: {in: [large-latest, small]}}"),
    "a prefix of models": block("{request.model: {prefix: gpt-}}"),
    "a browser's name": block(
        '{client.agent: {in: ["Mozilla/5.0 (X11; Linux x86_64) (KHTML, like Gecko)", other]}}'
    ),
    "an agent with a question in it": block('{client.agent: "agent?limit=5"}'),
    "an apostrophe": rules(
        rule("m", "when: {account.id: a1}", SKIP, "block: {message: You don\u2019t have access.}")
    ),
    "quotes in the middle": rules(
        rule("m", "when: {account.id: a1}", SKIP,
             "block: {message: The \u201cfair use\u201d limit is reached.}")
    ),
    "a comment after a sentence": rules(
        rule("m", "when: {account.id: a1}", SKIP, "block:",
             "  message: Write to us. # the app shows this")
    ),
    "a number sign in quotes": rules(
        rule("m", "when: {account.id: a1}", SKIP, "block:", '  message: "Ticket #42 has it."')
    ),
    "the same value in two lists": block("{account.id: {in: [a1, a2]}, account.org: {in: [a1]}}"),
    "organisations with spaces": block("{account.org: {in: [Acme Inc, Example Ltd]}}"),
    "a tag of a text": block("{account.signup: {in: [spring 2026]}}"),
    "a list that one condition uses for another": (
        f"{START}lists:\n  partners: [o1, o2]\n"
        "conditions:\n  partner: {account.org: {in: $partners}}\n  known: {use: partner}\nrules:\n"
        + rule("m", "when: {use: known}", SKIP, BLOCK)
    ),
}  # fmt: skip
"""What is near a mistake, and none."""


@pytest.mark.parametrize("name", FINE)
def test_what_is_near_a_mistake_is_not_found(name, tmp_path):
    (tmp_path / "fine.yaml").write_text(FINE[name], "utf-8")

    assert found(*RULES, tmp_path / "fine.yaml") == []


def test_there_are_sixty_of_them_at_least():
    assert len(MISTAKES) >= 60


def test_nothing_is_found_in_the_shipped_policies():
    assert found(POLICIES) == []


def test_stars_in_the_names_of_models_are_found():
    written = (
        "guardrail: 1\npolicy: p\nmodels:\n  gpt-*: {max_output: 5}\n"
        "  large: {max_output: 5, aliases: [openai/*, large-2]}\nrules:\n"
    )
    found = load_text(written + rule("m", "when: always", PACE), linted=True).warnings

    assert [(one.code, one.span.line) for one in found] == [("GR223", 4), ("GR223", 5)]

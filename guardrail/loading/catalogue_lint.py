"""The pages of what `lint` finds in policies that load."""

from __future__ import annotations

from guardrail.loading.explanation import Explanation

_PACE = "  - {id: pace, when: always, rate: {requests: 60/minute, key: account.id}}\n"
_ONE = "rules:\n  - {id: embargo, when: {geo.country: CU}, unknown: skip, block: {}}\n"

LINT_ENTRIES = (
    Explanation(
        "GR204",
        "rule that blocks whoever lacks a fact",
        "rules:\n  - id: embargo\n    when: {geo.country: CU}\n    block: {}",
        "rules:\n  - id: embargo\n    when: {geo.country: CU}\n    unknown: skip\n    block: {}",
        "A test of a missing fact is unknown, and a rule without `unknown` then matches: a request "
        "whose country nobody knows is refused. That is the safe side, and it is often not what "
        "was thought of. Say which is meant: `unknown: match`, `unknown: skip`, or "
        "`{exists: true, …}` in the test.",
    ),
    Explanation(
        "GR207",
        "limit that another keeps from ever being reached",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {requests: 100, per: day, key: account.id}\n"
        "  - id: month\n    when: always\n"
        "    budget: {requests: 5000, per: month, key: account.id}",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {requests: 100, per: day, key: account.id}\n"
        "  - id: month\n    when: always\n"
        "    budget: {requests: 2000, per: month, key: account.id}",
        "Every rule counts what it applies to, so both charge each request. A hundred a day are "
        "3,100 a month at most: the limit of 5,000 reads as though it held something, and never "
        "does. It is told, too, of one amount of a table: paid accounts that have 5,000 a day for "
        "agents have no more than the 1,000 a day of everyone. Of tokens and money, which can be "
        "used above their estimate, it is told from twice as much on.",
    ),
    Explanation(
        "GR208",
        "name that nothing uses",
        "lists: {embargoed: [CU, IR]}\n" + _ONE,
        "lists: {embargoed: [CU, IR]}\n" + _ONE.replace("CU", "{in: $embargoed}"),
        "A list that no rule reads embargoes nobody. Conditions, tables and fixtures are the same; "
        "a declared fact that no rule reads is a note, since figures may be split by it.",
    ),
    Explanation(
        "GR210",
        "limit too small for one typical request",
        "models: {large: {max_output: 8192}}\nrules:\n"
        "  - {id: day, when: always, budget: {tokens: 5k, per: day, key: account.id}}\n"
        "  - {id: flight, when: always, concurrency: {max: 4, key: account.id}}",
        "models: {large: {max_output: 8192}}\nrules:\n"
        "  - {id: day, when: always, budget: {tokens: 50k, per: day, key: account.id}}\n"
        "  - {id: flight, when: always, concurrency: {max: 4, key: account.id}}",
        "A request that does not say how long its answer may get reserves the longest that its "
        "model gives. Where that alone is more than the limit, it is blocked, and waiting does not "
        "help. Without `max_output` of any model, 1,000 tokens are taken as typical. "
        "Into a limit of 0 for `when: always` nothing fits.",
    ),
    Explanation(
        "GR211",
        "long window in a store that forgets",
        "rules:\n  - id: ever\n    when: always\n"
        "    budget: {requests: 100, per: lifetime, key: account.id}",
        "rules:\n  - id: hour\n    when: always\n"
        "    budget: {requests: 100, per: 1h, key: account.id}",
        "`memory://` starts empty after every restart, so a limit for life is one until the next "
        "deployment; `lmdb://` in `/tmp`, `/run` or `/dev/shm` until its host starts anew. Whether "
        "a Redis keeps what it holds is its own setting. It is looked for where the store is "
        "named: `guardrail lint --store URI`.",
    ),
    Explanation(
        "GR212",
        "ceiling on a capability alone",
        "rules:\n  - id: code\n    when: {request.capability: code}\n"
        "    budget: {requests: 100, per: lifetime, key: account.id}",
        "rules:\n  - id: code\n    when: {request.capability: code}\n"
        "    budget: {requests: 100, per: lifetime, key: account.id}\n"
        "  - {id: all, when: always, budget: {tokens: 2M, per: 30d, key: account.id}}\n"
        "  - {id: flight, when: always, concurrency: {max: 4, key: account.id}}",
        "A capability is what the request says it is: who is refused `code` asks the same as "
        "`chat`. A ceiling on all tokens bounds that too.",
    ),
    Explanation(
        "GR214",
        "token budget without concurrency",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 100k, per: day, key: account.id}",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 100k, per: day, key: account.id}\n"
        "  - {id: flight, when: always, concurrency: {max: 4, key: account.id}}",
        "Requests in flight may use more than they reserved, and that is counted as debt. How much "
        "it can be depends on how many are in flight at once.",
    ),
    Explanation(
        "GR215",
        "shared limit that one account can fill",
        "rules:\n  - id: together\n    when: always\n"
        "    budget: {requests: 1000, per: day, key: global}",
        "rules:\n  - id: together\n    when: always\n"
        "    budget: {requests: 1000, per: day, key: global}\n"
        "  - {id: own, when: always, budget: {requests: 50, per: day, key: account.id}}",
        "What all share, one can use up, and keep all others out by it. A smaller limit on each "
        "account, in the same unit, leaves room for others. Limits are compared by what they let "
        "through in the long run.",
    ),
    Explanation(
        "GR220",
        "amount that falls where its tier rises",
        "facts: {account.tier: {type: level, values: [free, paid]}}\n"
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: {by: account.tier, free: 60/minute, paid: 30/minute}, "
        "key: account.id}",
        "facts: {account.tier: {type: level, values: [free, paid]}}\n"
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: {by: account.tier, free: 30/minute, paid: 60/minute}, "
        "key: account.id}",
        "Who pays more, or is better known, has less: two rows were swapped, or a zero is missing. "
        "Bands by age and payments are looked at as well, and separate rules for separate tiers. "
        "The lowest level is left out where its amount is a network's, as that of visitors without "
        "an account is.",
    ),
    Explanation(
        "GR221",
        "levels that seem upside down",
        "facts: {account.tier: {type: level, values: [verified, email, anonymous]}}\n"
        "rules:\n  - id: agents\n    when: {account.tier: {below: email}}\n"
        "    unknown: match\n    block: {}",
        "facts: {account.tier: {type: level, values: [anonymous, email, verified]}}\n"
        "rules:\n  - id: agents\n    when: {account.tier: {below: email}}\n"
        "    unknown: match\n    block: {}",
        "A level lists its values lowest first. The other way round `below: email` means the "
        "verified. It is told by names that are usually first or last, by tables that all fall, "
        "and by a default that is the highest level.",
    ),
    Explanation(
        "GR222",
        "model that no entry knows",
        "models: {large: {weaker: small}, small: {}}\n"
        "rules:\n  - {id: large-only, when: {request.model: largo}, unknown: skip, block: {}}",
        "models: {large: {weaker: small}, small: {}}\n"
        "rules:\n  - {id: large-only, when: {request.model: large}, unknown: skip, block: {}}",
        "A model that is in no entry of `models`, by name or alias, costs the dearest and is moved "
        "by no degrade; misspelt, it is asked for by nobody. `unlisted_model` says what such "
        "models count as.",
    ),
    Explanation(
        "GR223",
        "pattern in a comparison",
        'rules:\n  - {id: gpt, when: {request.model: "gpt-4*"}, unknown: skip, block: {}}',
        "rules:\n  - {id: gpt, when: {request.model: {prefix: gpt-4}}, unknown: skip, block: {}}",
        "A value is compared as it stands, so that a star matches a star, and a URL no endpoint, "
        "which is a path alone. `prefix` is for what starts alike, `in` for a list, `cidr` for "
        "networks.",
    ),
    Explanation(
        "GR224",
        "typographic quotes",
        "rules:\n  - {id: partner, when: {account.id: “acct_42”}, unknown: skip, block: {}}",
        'rules:\n  - {id: partner, when: {account.id: "acct_42"}, unknown: skip, block: {}}',
        "YAML knows straight quotes alone. Others, which word processors write, are part of the "
        "text, and no account has them in its name.",
    ),
    Explanation(
        "GR225",
        "text that a comment cuts short",
        "rules:\n  - id: embargo\n    when: {geo.country: CU}\n    unknown: skip\n"
        "    block:\n      message: Write to us about ticket #42",
        "rules:\n  - id: embargo\n    when: {geo.country: CU}\n    unknown: skip\n"
        '    block:\n      message: "Write to us about ticket #42"',
        "In unquoted text, a `#` after a space starts a comment, and what follows is never sent.",
    ),
    Explanation(
        "GR226",
        "list's entry that holds more than a value",
        'rules:\n  - {id: own, when: {account.id: {in: ["a1, a2"]}}, unknown: skip, block: {}}',
        "rules:\n  - {id: own, when: {account.id: {in: [a1, a2]}}, unknown: skip, block: {}}",
        "Two values in one pair of quotes, or with a space between them, are one value that no "
        "request has. In a list's file a line is a value as it is: quotes around it, a hyphen "
        "before it and a comma behind it are parts of it.",
    ),
    Explanation(
        "GR227",
        "exemption for everyone",
        _ONE + "exemptions:\n  - {id: pilot, rules: [embargo], when: always, reason: pilot, "
        "expires: 2198-12-31}",
        _ONE + "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, "
        "reason: pilot, expires: 2198-12-31}",
        "It switches its rules off, in a place where nobody looks for that. `mode: off` says so in "
        "the rule. A condition that every request meets is the same as `always`, and so is, but "
        "for a few, one that holds for all whom it does not name: `not_in` where `in` was meant.",
    ),
    Explanation(
        "GR228",
        "file that its ending keeps out",
        "# file: embargo.YAML\nguardrail: 1\nrules:\n"
        "  - {id: embargo, when: {geo.country: CU}, unknown: skip, block: {}}",
        "# file: embargo.yaml\nguardrail: 1\nrules:\n"
        "  - {id: embargo, when: {geo.country: CU}, unknown: skip, block: {}}",
        "A set is what ends in `.yaml` or `.yml`, in small letters. Beside them a copy, a file of "
        "another spelling, or JSON reads like policy and is none.",
    ),
    Explanation(
        "GR229",
        "question about all requests that was given up",
        "rules:\n  - id: own\n"
        '    when:\n      client.network: {prefix: "10."}\n'
        "      not: {client.network: {cidr: [10.9.0.0/16]}}\n"
        "    unknown: skip\n    block: {}",
        "rules:\n  - id: own\n"
        "    when:\n      client.network: {cidr: [10.0.0.0/8]}\n"
        "      not: {client.network: {cidr: [10.9.0.0/16]}}\n"
        "    unknown: skip\n    block: {}",
        "What is proved is proved of all requests, by telling apart the cases that conditions "
        "name. Where choices stand within choices over many facts, there can be too many of them, "
        "and the search ends without an answer: nothing is known of such a rule then. So it is "
        "where hundreds of wide rules overlap each other. What was given up in one file is told "
        "once, at the first; JSON and SARIF name all of it, under `about`. A text that "
        "is tested by `prefix` and by `cidr`, and lists that fall into thousands of cases, are "
        "judged by examples.",
    ),
    Explanation(
        "GR230",
        "comment that accepts nothing",
        "rules:\n" + _PACE.replace("\n", "  # guardrail: ignore GR203 few agents\n"),
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: 60/minute, key: [account.id, client.agent]} "
        "# guardrail: ignore GR203 few agents",
        "What it accepted is gone, has moved to another line, or the day of its `until` has "
        "passed. Left where it is, it accepts the next mistake there.",
    ),
    Explanation(
        "GR231",
        "value that is in a list twice",
        "lists: {embargoed: [CU, IR, CU]}\n" + _ONE.replace("CU", "{in: $embargoed}"),
        "lists: {embargoed: [CU, IR, KP]}\n" + _ONE.replace("CU", "{in: $embargoed}"),
        "Once is enough, so one of the two may have been meant to be another.",
    ),
    Explanation(
        "GR232",
        "value with what nobody sees",
        'rules:\n  - {id: partner, when: {account.id: "acct_42 "}, unknown: skip, block: {}}',
        'rules:\n  - {id: partner, when: {account.id: "acct_42"}, unknown: skip, block: {}}',
        "A value is compared as it stands. A space at its end, or a character without width that "
        "came with it from a web page or a table, makes it another value, which no request has.",
    ),
    Explanation(
        "GR233",
        "limit by a fact that its requests lack",
        "rules:\n  - id: cardless\n    when: {payment.fingerprint: {exists: false}}\n"
        "    budget: {requests: 50, per: day, key: payment.fingerprint}",
        "rules:\n  - id: cardless\n    when: {payment.fingerprint: {exists: false}}\n"
        "    budget: {requests: 50, per: day, key: account.id}",
        "A counter is kept for each value of its key. Where the condition holds for nobody who "
        "has one, what stands in for it is counted, or the rule never applies (`unknown: skip`).",
    ),
    Explanation(
        "GR234",
        "ban that is never felt",
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: 10/minute, key: account.id}\n"
        "    escalate: {after: 20, within: 10m, block_for: 1s}",
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: 10/minute, key: account.id}\n"
        "    escalate: {after: 20, within: 10m, block_for: 1h}",
        "Whoever is refused is told to come again in a second at the least, so that a ban which "
        "takes no longer keeps nobody away: an hour, or a day, may have been meant. At most one "
        "refusal a second counts, so that `after: 100` within a minute bans nobody ever.",
    ),
    Explanation(
        "GR235",
        "bands that begin above 0",
        "rules:\n  - id: earned\n    when: always\n    budget:\n"
        "      requests: {by: account.paid_usd, bands: {5: 50, 20: 500}}\n"
        "      per: day\n      key: account.id",
        "rules:\n  - id: earned\n    when: always\n    budget:\n"
        "      requests: {by: account.paid_usd, bands: {5: 50, 20: 500}, else: 10}\n"
        "      per: day\n      key: account.id",
        "Below the first band it is the smallest of the bands, if no `else` says another amount: "
        "who paid nothing has what was meant for those who paid something.",
    ),
    Explanation(
        "GR236",
        "points beyond what any rule asks for",
        "links: {trusted: {account.verified_age: {gte: 30d}}, strong: [payment.fingerprint]}\n"
        "score:\n  window: 7d\n  evidence:\n"
        "    - {id: cards, family: payment, count: payment.fingerprint, above: 8, points: 300}\n"
        "    - {id: networks, family: network, count: client.network, above: 60, points: 20}\n"
        "rules:\n  - id: suspected\n    when: {actor.score: {gte: 50}}\n    unknown: skip\n"
        "    block: {remedy: verify}",
        "links: {trusted: {account.verified_age: {gte: 30d}}, strong: [payment.fingerprint]}\n"
        "score:\n  window: 7d\n  evidence:\n"
        "    - {id: cards, family: payment, count: payment.fingerprint, above: 8, points: 30}\n"
        "    - {id: networks, family: network, count: client.network, above: 60, points: 20}\n"
        "rules:\n  - id: suspected\n    when: {actor.score: {gte: 50}}\n    unknown: skip\n"
        "    block: {remedy: verify}",
        "A score acts from the bound of a rule on; what is above the highest bound does nothing. "
        "So many points of one sign let any sign of another family suffice, which may be a slip: "
        "300 for 30.",
    ),
    Explanation(
        "GR237",
        "score that no evidence comes to",
        "links: {trusted: {account.verified_age: {gte: 30d}}, strong: [payment.fingerprint]}\n"
        "score:\n  window: 7d\n  evidence:\n"
        "    - {id: cards, family: payment, count: payment.fingerprint, above: 8, points: 30}\n"
        "    - {id: networks, family: network, count: client.network, above: 60, points: 20}\n"
        "rules:\n  - id: suspected\n    when: {actor.score: {gte: 60}}\n    unknown: skip\n"
        "    block: {remedy: verify}",
        "links: {trusted: {account.verified_age: {gte: 30d}}, strong: [payment.fingerprint]}\n"
        "score:\n  window: 7d\n  evidence:\n"
        "    - {id: cards, family: payment, count: payment.fingerprint, above: 8, points: 30}\n"
        "    - {id: networks, family: network, count: client.network, above: 60, points: 20}\n"
        "rules:\n  - id: suspected\n    when: {actor.score: {gte: 50}}\n    unknown: skip\n"
        "    block: {remedy: verify}",
        "A score is the most points of each family, added up, and 0 where only one family tells "
        "against an actor. A rule that asks for more than all of them together never acts.",
    ),
    Explanation(
        "GR238",
        "price that stands the wrong way round",
        "models:\n  large: {price: {input: 3, output: 15, cached_input: 30}, weaker: small}\n"
        "  small: {price: {input: 1, output: 5}}\n" + _ONE,
        "models:\n  large: {price: {input: 3, output: 15, cached_input: 0.3}, weaker: small}\n"
        "  small: {price: {input: 1, output: 5}}\n" + _ONE,
        "Input that is read from a cache costs less than other input, and a weaker model less than "
        "a stronger one. Where it is not so, a decimal point or a name has slipped, and limits in "
        "money count what nobody is billed.",
    ),
    Explanation(
        "GR239",
        "weak evidence kept for longer than strong",
        "links:\n  trusted: {account.verified_age: {gte: 30d}}\n  strong: [payment.fingerprint]\n"
        "  weak: [client.network, device.fingerprint]\n  window: {strong: 14d, weak: 180d}\n"
        + _ONE,
        "links:\n  trusted: {account.verified_age: {gte: 30d}}\n  strong: [payment.fingerprint]\n"
        "  weak: [client.network, device.fingerprint]\n  window: {strong: 180d, weak: 14d}\n"
        + _ONE,
        "A card stays with its owner; a network or a device that somebody used half a year ago is "
        "another's by now. The two times may have been swapped.",
    ),
    Explanation(
        "GR401",
        "test that expects what does not happen",
        _ONE + "tests:\n  - {name: t, facts: {geo.country: CU}, expect: {throttle: embargo}}",
        _ONE + "tests:\n  - {name: t, facts: {geo.country: CU}, expect: {block: embargo}}",
        "The rule it names decided otherwise, or another one did. `guardrail test` shows what "
        "every rule made of the request.",
    ),
    Explanation(
        "GR402",
        "rule that no test decides",
        _ONE + _PACE + "tests:\n  - {name: t, facts: {geo.country: CU}, expect: block}",
        _ONE + _PACE + "tests:\n  - {name: t, facts: {geo.country: CU}, expect: block}\n"
        "  - name: pace\n    facts: {geo.country: DE, account.id: a1}\n"
        "    steps: [{repeat: 60, expect: allow}, {expect: {throttle: pace}}]",
        "It could be anything: a test that it decides says what it is meant to do.",
    ),
)

"""What each finding means: what to avoid, what to write instead, and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from guardrail.loading.catalogue_lint import LINT_ENTRIES
from guardrail.loading.catalogue_traffic import TRAFFIC_ENTRIES
from guardrail.loading.explanation import Explanation

_ENTRIES = (
    Explanation(
        "GR100",
        "not YAML",
        "rules: [{id: embargo, when: always, block: {}}",
        "rules: [{id: embargo, when: always, block: {}}]",
        "A policy file is YAML 1.2 in UTF-8, one document, at most 1 MiB and 64 levels deep. What "
        "cannot be read to its end might hold anything, so nothing of the set is loaded.",
    ),
    Explanation(
        "GR101",
        "unknown key",
        "rules:\n  - id: embargo\n    when: {geo.country: {in: [CU]}}\n    blokc: {}",
        "rules:\n  - id: embargo\n    when: {geo.country: {in: [CU]}}\n    block: {}",
        "A key that is passed over is a limit that does not exist: a misspelt one must never load.",
    ),
    Explanation(
        "GR102",
        "wrong type",
        "rules:\n  - id: partner\n    when: {account.id: 42}\n    block: {}",
        'rules:\n  - id: partner\n    when: {account.id: "42"}\n    block: {}',
        "Numbers, texts, lists and maps are not turned into each other: `42` and `010` would be "
        'other accounts than `"42"` and `"010"`. What is required must be there, and nothing '
        "is not a value.",
    ),
    Explanation(
        "GR103",
        "duplicate key",
        "rules:\n  - id: embargo\n    when: {geo.country: CU, geo.country: IR}\n    block: {}",
        "rules:\n  - id: embargo\n    when: {geo.country: {in: [CU, IR]}}\n    block: {}",
        "YAML readers keep the last of two equal keys and drop the first in silence.",
    ),
    Explanation(
        "GR104",
        "duplicate id",
        "rules:\n  - {id: stop, when: {geo.country: CU}, block: {}}\n"
        "  - {id: stop, when: {geo.country: IR}, block: {}}",
        "rules:\n  - {id: stop-cu, when: {geo.country: CU}, block: {}}\n"
        "  - {id: stop-ir, when: {geo.country: IR}, block: {}}",
        "Decisions, exemptions, tests and counters know a rule by its id. All files of a set share "
        "one namespace.",
    ),
    Explanation(
        "GR105",
        "unknown fact",
        "rules:\n  - id: embargo\n    when: {geo.contry: CU}\n    block: {}",
        "rules:\n  - id: embargo\n    when: {geo.country: CU}\n    block: {}",
        "A fact that no one establishes is always missing, and a rule that tests it decides by "
        "`unknown` alone. Declare your own facts under `facts:`.",
    ),
    Explanation(
        "GR106",
        "value not in enum",
        "rules:\n  - id: embargo\n    when: {geo.country: UK}\n    block: {}",
        "rules:\n  - id: embargo\n    when: {geo.country: GB}\n    block: {}",
        "A value that the fact can never have makes a test that is never true.",
    ),
    Explanation(
        "GR107",
        "undefined list, condition or rule",
        "rules:\n  - id: embargo\n    when: {geo.country: {in: $embargoed}}\n    block: {}",
        "lists: {embargoed: [CU, IR]}\n"
        "rules:\n  - id: embargo\n    when: {geo.country: {in: $embargoed}}\n    block: {}",
        "Every name leads to something that is declared in some file of the set, and no condition "
        "leads back to itself.",
    ),
    Explanation(
        "GR108",
        "empty list",
        "rules:\n  - id: embargo\n    when: {geo.country: {in: []}}\n    block: {}",
        "rules:\n  - id: embargo\n    when: {geo.country: {in: [CU]}}\n    block: {}",
        "Nothing is in an empty list: the test is always false, which is rarely what an embargo "
        "is for. Leave the part out, or set the rule's `mode: off`.",
    ),
    Explanation(
        "GR109",
        "merge key or tag",
        "rules:\n  - {id: embargo, when: {<<: {geo.country: CU}}, block: {}}",
        "conditions: {embargoed: {geo.country: CU}}\n"
        "rules:\n  - {id: embargo, when: {use: embargoed}, block: {}}",
        "Merge keys and tags are not of YAML 1.2's core, and hide from a reader what a map holds. "
        "Named conditions and lists say the same in the open.",
    ),
    Explanation(
        "GR110",
        "bad amount or window",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 50K, per: daily, key: account.id}",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 50k, per: day, key: account.id}",
        "Amounts are `50k`, `1.5M`, `2G`, whole numbers or `unlimited`; case counts, since `m` is "
        "a minute and `M` a million. A number that is not understood must not become no limit.",
    ),
    Explanation(
        "GR111",
        "missing key",
        "rules:\n  - id: day\n    when: always\n    budget: {tokens: 50k, per: day}",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 50k, per: day, key: account.id}",
        "A limit without a key could mean each account or all together; the difference is the "
        "whole limit, so it is always written.",
    ),
    Explanation(
        "GR112",
        "no verb, or several",
        "rules:\n  - id: tools\n    when: {request.tools: {gt: 0}}",
        "rules:\n  - id: tools\n    when: {request.tools: {gt: 0}}\n    block: {}",
        "A rule does one thing, so that a decision can name the rule and be understood.",
    ),
    Explanation(
        "GR113",
        "table that is not exhaustive",
        "facts: {account.tier: {type: level, values: [free, paid]}}\n"
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: {by: account.tier, free: 10k}, per: day, key: account.id}",
        "facts: {account.tier: {type: level, values: [free, paid]}}\n"
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: {by: account.tier, free: 10k, paid: 5M}, per: day, key: account.id}",
        "A value that a table forgets would have no limit, or none of its own choosing. List every "
        "value, or say what all others get with `else`.",
    ),
    Explanation(
        "GR114",
        "operator not of the fact's type",
        "rules:\n  - id: embargo\n    when: {geo.country: {gt: CU}}\n    block: {}",
        "rules:\n  - id: embargo\n    when: {geo.country: {in: [CU]}}\n    block: {}",
        "Countries have no order and levels no prefix: a comparison that means nothing would "
        "decide by accident.",
    ),
    Explanation(
        "GR115",
        "step or band out of order or out of reach",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 50k, per: day, key: account.id}\n"
        "    steps: [{at: 120%, block: {}}]",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 50k, per: day, key: account.id}\n"
        "    steps: [{at: 90%, notify: {x-budget: low}}, {at: 100%, block: {}}]",
        "Steps rise from 1% to 100%, and the last is the limit itself; nothing is counted past "
        "it. `escalate` is for those who keep coming. Bands rise as well, each start once.",
    ),
    Explanation(
        "GR116",
        "degrade to no weaker model",
        "models: {large: {}, small: {}}\n"
        "rules:\n  - id: save\n    when: always\n    degrade: {model: small}",
        "models: {large: {weaker: small}, small: {}}\n"
        "rules:\n  - id: save\n    when: always\n    degrade: {model: small}",
        "A request is only moved along `weaker`, so that no rule serves someone more than they "
        "asked for. The chain leads through listed models and ends.",
    ),
    Explanation(
        "GR117",
        "unpriced model under cost_usd",
        "models: {large: {}}\n"
        "rules:\n  - id: money\n    when: always\n"
        "    budget: {cost_usd: 10, per: day, key: account.id}",
        "models: {large: {price: {input: 15, output: 75}}}\n"
        "rules:\n  - id: money\n    when: always\n"
        "    budget: {cost_usd: 10, per: day, key: account.id}",
        "A model without a price would be free, and a limit in money would not limit it.",
    ),
    Explanation(
        "GR118",
        "exemption of an unknown or non-exemptible rule",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}, exemptible: false}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, reason: pilot, "
        "expires: 2026-12-31}",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, reason: pilot, "
        "expires: 2026-12-31}",
        "`exemptible: false` is a promise, kept by whoever writes the exemptions too.",
    ),
    Explanation(
        "GR119",
        "loosening on client facts",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {client.agent: acme}, reason: pilot, "
        "expires: 2026-12-31}",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, reason: pilot, "
        "expires: 2026-12-31}",
        "Anyone can send any header: an exemption that rests on what the caller says exempts "
        "everyone who has heard of it, an amount that the caller chooses limits nobody, and under "
        "a key of such facts alone every new value starts a fresh counter.",
    ),
    Explanation(
        "GR120",
        "escalate on a shared key",
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: 60/minute, key: client.network}\n"
        "    escalate: {after: 100, within: 10m, block_for: 1h}",
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: 60/minute, key: account.id}\n"
        "    escalate: {after: 100, within: 10m, block_for: 1h}",
        "A ban on a key that many share lets one of them lock out the others.",
    ),
    Explanation(
        "GR121",
        "two files setting what one may",
        "# file: a.yaml\ndefaults: {mode: enforce}\n# file: b.yaml\ndefaults: {mode: shadow}",
        "# file: a.yaml\ndefaults: {mode: enforce}\n# file: b.yaml\nunits: [images]",
        "`policy`, `models`, `defaults`, `links` and `score` hold for all files of a set. With two "
        "of one, which counts would depend on the order of the files.",
    ),
    Explanation(
        "GR122",
        "links that cannot hold",
        "links: {trusted: {account.age: {gte: 30d}}, weak: [client.network]}\n"
        "rules: [{id: pool, when: always, budget: {requests: 9, per: day, key: actor.id}}]",
        "links: {trusted: {account.age: {gte: 30d}}, strong: [payment.fingerprint]}\n"
        "rules: [{id: pool, when: always, budget: {requests: 9, per: day, key: actor.id}}]",
        "A strong fact links alone and is the server's own; weak facts link two at a time; neither "
        "follows from links itself. When two actors turn out to be one, what each has used is "
        "added up under the name of one: only a counter kept by `actor.id` alone can follow.",
    ),
    Explanation(
        "GR201",
        "condition that can never be true",
        "facts: {account.tier: {type: level, values: [free, paid]}}\n"
        "rules:\n  - {id: trial, when: {account.tier: {below: paid, at_least: paid}}, block: {}}",
        "facts: {account.tier: {type: level, values: [free, paid]}}\n"
        "rules:\n  - {id: trial, when: {account.tier: {below: paid}}, block: {}}",
        "No request has all that it asks for, so the rule never applies, or only where a fact is "
        "missing. The same is told of a branch of `any` and of a single test.",
    ),
    Explanation(
        "GR202",
        "rule that never decides",
        "rules:\n  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, block: {}}\n"
        "  - {id: cuba, when: {geo.country: CU}, block: {}}",
        "rules:\n  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, block: {}}",
        "Another rule, or several, ask for at least as much of every request that it applies to. "
        "Mostly one of the two is not what was meant.",
    ),
    Explanation(
        "GR203",
        "a client's fact in a key",
        "rules:\n  - id: pace\n    when: always\n"
        "    rate: {requests: 60/minute, key: [account.id, client.agent]}",
        "rules:\n  - id: pace\n    when: always\n    rate: {requests: 60/minute, key: account.id}",
        "Each value of a key has a counter of its own. Where the caller chooses the value, it "
        "chooses how many limits it has. If that is meant, say so where it stands: "
        "`# guardrail: ignore GR203 why`.",
    ),
    Explanation(
        "GR205",
        "rule that no declared door can feed",
        "rules:\n  - id: large-models\n    when: {request.model: large}\n    block: {}",
        "rules:\n  - id: large-models\n    when: {request.endpoint: /v1/batches}\n    block: {}",
        "A proxy that asks an authorizer shows the head of a request: no model, no tools, no "
        "tokens. What a door never learns is missing in every request: the rule then refuses "
        "everybody, or nobody. The same is true of an endpoint by a name that no API has, and of a "
        "unit of your own that no response tells. `--door` says where the policies are enforced.",
    ),
    Explanation(
        "GR206",
        "exemption or `until` that has ended",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, reason: pilot, "
        "expires: 2026-01-31}",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, reason: pilot, "
        "expires: 2198-12-31}",
        "What has ended does nothing, and reads as though it did. Two weeks before its end it is "
        "a note.",
    ),
    Explanation(
        "GR216",
        "test that is always true",
        "rules:\n  - id: day\n    when: {time.hour: {gte: 0}}\n"
        "    budget: {requests: 100, per: day, key: account.id}",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {requests: 100, per: day, key: account.id}",
        "It tells no request from another. Either the value is a slip, or `always` says it better.",
    ),
    Explanation(
        "GR217",
        "step that never takes effect",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 50k, per: day, key: account.id}\n"
        "    steps: [{at: 80%, block: {}}, {at: 90%, throttle: {}}]",
        "rules:\n  - id: day\n    when: always\n"
        "    budget: {tokens: 50k, per: day, key: account.id}\n"
        "    steps: [{at: 80%, notify: {x-budget: low}}, {at: 90%, throttle: {}}]",
        "A step that refuses lets nothing through that could reach a later one, and another rule "
        "may refuse before.",
    ),
    Explanation(
        "GR218",
        "exemption that lifts nothing",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1, geo.country: DE}, "
        "reason: pilot, expires: 2198-12-31}",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, "
        "reason: pilot, expires: 2198-12-31}",
        "No request that it is for meets the rule: who was promised something does not get it. Nor "
        "does who is promised an amount by `raise` that is not above the rule's own.",
    ),
    Explanation(
        "GR305",
        "traffic lines that cannot be read",
        '# file: traffic.jsonl\n{"ts": 1772409600, "facts": {"account.id": "a1"}}\n'
        '{"time": 1772409601, "account": "a1"}',
        '# file: traffic.jsonl\n{"ts": 1772409600, "facts": {"account.id": "a1"}}\n'
        '{"ts": 1772409601, "facts": {"account.id": "a1"}}',
        "What is not read is not decided: a replay of half the traffic says nothing of the other "
        "half. `--bad-lines` sets the share that may be lost, 1% if it is left out.",
    ),
    Explanation(
        "GR306",
        "model that is not listed",
        "models: {large: {weaker: small}, small: {}}\n# file: traffic.jsonl\n"
        '{"ts": 1772409600, "facts": {"account.id": "a1", "request.model": "large-2026-03"}}',
        "models: {large: {weaker: small, aliases: [large-2026-03]}, small: {}}\n"
        '# file: traffic.jsonl\n{"ts": 1772409600, "facts": {"account.id": "a1", '
        '"request.model": "large-2026-03"}}',
        "A model that is not listed costs the dearest, reserves the longest answer, and is moved "
        "by no degrade. List it, as an alias if it is another's name, or say what all others count "
        "as: `defaults: {unlisted_model: large}`.",
    ),
    Explanation(
        "GR307",
        "degrade without effect",
        "models: {large: {weaker: small}, small: {}, other: {}}\n"
        "rules:\n  - {id: save, when: always, degrade: {model: small}}\n# file: traffic.jsonl\n"
        '{"ts": 1772409600, "facts": {"account.id": "a1", "request.model": "other"}}',
        "models: {large: {weaker: small}, small: {}, other: {weaker: small}}\n"
        "rules:\n  - {id: save, when: always, degrade: {model: small}}\n# file: traffic.jsonl\n"
        '{"ts": 1772409600, "facts": {"account.id": "a1", "request.model": "other"}}',
        "A request is moved along `weaker` alone. Where no chain leads from its model, it is "
        "served as it is, whatever the rule says.",
    ),
    Explanation(
        "GR308",
        "column that is always empty",
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t}\n"
        "facts: {account.id: {column: user}, account.org: {column: organisation}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "a1", "org": "o1"}',
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t}\n"
        "facts: {account.id: {column: user}, account.org: {column: org}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "a1", "org": "o1"}',
        "A misspelt column is a fact that no request has, and every rule that reads it decides "
        "by its absence. It is a note where the map says what holds then: the fact is `optional`, "
        "there is a `default`, or another column of the same list or sum had values.",
    ),
    Explanation(
        "GR309",
        "fact that no policy knows",
        '# file: traffic.jsonl\n{"ts": 1772409600, "facts": {"acount.id": "a1"}}',
        '# file: traffic.jsonl\n{"ts": 1772409600, "facts": {"account.id": "a1"}}',
        "A misspelt fact is a missing one: rules decide by its absence, and the figures are of "
        "nobody's traffic.",
    ),
    Explanation(
        "GR310",
        "value that a map does not know",
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t}\n"
        "facts: {account.id: {column: user}, network.kind: {column: net, values: {dc: hosting}}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "a1", "net": "DC"}',
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t}\n"
        "facts: {account.id: {column: user}, network.kind: {column: net, values: {DC: hosting}}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "a1", "net": "DC"}',
        "A value that `values` does not list leaves the fact out: paying customers become "
        "nobody in particular. A `default` says what all others are.",
    ),
    Explanation(
        "GR311",
        "value that is not of its fact's type",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n# file: traffic.jsonl\n"
        '{"ts": 1772409600, "facts": {"account.id": "a1", "geo.country": "Cuba"}}',
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n# file: traffic.jsonl\n"
        '{"ts": 1772409600, "facts": {"account.id": "a1", "geo.country": "CU"}}',
        "It is taken as missing, and no default fills it in.",
    ),
    Explanation(
        "GR312",
        "fact of a map that many requests lack",
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t}\n"
        "facts: {account.id: {column: user}, geo.country: {column: country}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "a1"}\n'
        '{"t": 1772409601, "user": "a1", "country": "DE"}',
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t}\nfacts:\n"
        "  account.id: {column: user}\n  geo.country: {column: country, optional: true}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "a1"}\n'
        '{"t": 1772409601, "user": "a1", "country": "DE"}',
        "Rules then decide on what is unknown, and figures tell of a log instead of customers. "
        "More than a fifth is a finding. A `default` says what such requests are; `optional: true` "
        "says that a fact may be missing.",
    ),
    Explanation(
        "GR313",
        "local time that a clock showed twice, or never",
        "# file: map.yaml\nguardrail_map: 1\n"
        'ts: {column: t, format: "%Y-%m-%d %H:%M", timezone: Europe/Berlin}\n'
        "facts: {account.id: {column: user}}\n"
        '# file: traffic.jsonl\n{"t": "2026-10-25 02:30", "user": "a1"}',
        "# file: map.yaml\nguardrail_map: 1\n"
        'ts: {column: t, format: "%Y-%m-%d %H:%M %z"}\n'
        "facts: {account.id: {column: user}}\n"
        '# file: traffic.jsonl\n{"t": "2026-10-25 02:30 +0100", "user": "a1"}',
        "When summer time ends an hour is there twice, and when it begins an hour is missing. Of "
        "the two the first is taken, or the second with `doubled: second`; what is sure is a log "
        "with offsets, or in UTC.",
    ),
    Explanation(
        "GR314",
        "times that count from the first line",
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t}\n"
        "facts: {account.id: {column: user}}\n"
        '# file: traffic.jsonl\n{"t": 12.5, "user": "a1"}',
        "# file: map.yaml\nguardrail_map: 1\nts: {column: t, offset: 2026-03-02T09:00:00Z}\n"
        "facts: {account.id: {column: user}}\n"
        '# file: traffic.jsonl\n{"t": 12.5, "user": "a1"}',
        "Read as they are they lie in 1970: every account is younger than its requests, and days "
        "and hours are not those of the traffic. `offset` says when the first line was.",
    ),
    Explanation(
        "GR315",
        "characters that are not of the file's encoding",
        "# file: map.yaml\nguardrail_map: 1\nencoding: ascii\nts: {column: t}\n"
        "facts: {account.id: {column: user}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "Zoë"}',
        "# file: map.yaml\nguardrail_map: 1\nencoding: utf-8\nts: {column: t}\n"
        "facts: {account.id: {column: user}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "user": "Zoë"}',
        "They are replaced by one sign, so that two accounts may become one.",
    ),
    Explanation(
        "GR316",
        "limit in tokens over traffic that states none",
        "rules:\n  - {id: day, when: always, budget: {tokens: 900k, per: day, key: account.id}}\n"
        "# file: traffic.jsonl\n"
        '{"ts": 1772409600, "facts": {"account.id": "a1"}}',
        "rules:\n  - {id: day, when: always, budget: {tokens: 900k, per: day, key: account.id}}\n"
        "# file: traffic.jsonl\n"
        '{"ts": 1772409600, "facts": {"account.id": "a1"}, "usage": {"input_tokens": 2000}}',
        "A request that does not say how many tokens it took counts as one: no limit in tokens or "
        "money ever fills, and a replay that refuses nobody shows nothing. It is told where most "
        "requests are like that.",
    ),
    Explanation(
        "GR317",
        "limit on a pace over totals of a time",
        "rules:\n  - {id: pace, when: always, rate: {requests: 60/minute, key: account.id}}\n"
        "# file: map.yaml\nguardrail_map: 1\ntotals: true\nts: {column: t}\n"
        "facts: {account.id: {column: key}}\nusage: {input_tokens: {column: tokens}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "key": "k1", "tokens": 200000}',
        "rules:\n  - {id: day, when: always, budget: {tokens: 900k, per: day, key: account.id}}\n"
        "# file: map.yaml\nguardrail_map: 1\ntotals: true\nts: {column: t}\n"
        "facts: {account.id: {column: key}}\nusage: {input_tokens: {column: tokens}}\n"
        '# file: traffic.jsonl\n{"t": 1772409600, "key": "k1", "tokens": 200000}',
        "A usage report has a line for all requests of a key in an hour or a day. A replay takes "
        "it for requests of one moment, so that a pace is never met, or always. It is a note where "
        "all such rules are in shadow.",
    ),
    Explanation(
        "GR403",
        "test that expects nothing",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "tests:\n  - {name: embargo, facts: {geo.country: CU}, steps: [{repeat: 2}]}",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "tests:\n  - {name: embargo, facts: {geo.country: CU}, "
        "steps: [{repeat: 2, expect: block}]}",
        "It passes whatever the policy does, and what it runs through counts as tested by nobody.",
    ),
    Explanation(
        "GR404",
        "test that rests on an exemption or a rule that has ended",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, reason: pilot, "
        "expires: 2026-01-31}\n"
        "tests: [{name: pilot, facts: {account.id: a1, geo.country: CU}, expect: allow}]",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "exemptions:\n  - {id: pilot, rules: [embargo], when: {account.id: a1}, reason: pilot, "
        "expires: 2198-12-31}\n"
        "tests: [{name: pilot, facts: {account.id: a1, geo.country: CU}, expect: allow}]",
        "A test stands at a time of its own, 2026-01-05 if it says none, and would pass for ever "
        "by what the server has long ceased to grant.",
    ),
    Explanation(
        "GR501",
        "claim that does not hold",
        "rules:\n  - {id: embargo, when: {geo.country: CU}, block: {}}\n"
        "prove:\n  - {id: embargo-holds, when: {geo.country: {in: [CU, IR]}}, always: block}",
        "rules:\n  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, block: {}}\n"
        "prove:\n  - {id: embargo-holds, when: {geo.country: {in: [CU, IR]}}, always: block}",
        "A claim is proved of all requests or not at all; the finding shows the smallest request "
        "of which it is not true.",
    ),
)


def _by_code(entries: tuple[Explanation, ...]) -> Mapping[str, Explanation]:
    return MappingProxyType({entry.code: entry for entry in sorted(entries, key=_code)})


def _code(entry: Explanation) -> str:
    return entry.code


CATALOGUE = _by_code((*_ENTRIES, *LINT_ENTRIES, *TRAFFIC_ENTRIES))
"""The findings by code: errors of loading (GR1…), and what `check` and `lint` find besides."""

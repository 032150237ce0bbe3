"""What is said never to matter, against every request of a small domain, and by example."""

from __future__ import annotations

import pytest

from guardrail.analysis import analyse
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND
from tests.analysis.enumerated import pair, wrong_findings
from tests.analysis.enumerated_limits import limited
from tests.analysis.enumerated_parts import MOST_REQUESTS, wrong_parts
from tests.analysis.small_sets import how_many

HEAD = """\
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [low, mid, top], default: low}}
"""
NOW = 1_780_000_000 * SECOND


def found(text: str) -> list[str]:
    """Return the findings on a policy as `LINE CODE`."""
    return [f"{one.span.line} {one.code}" for one in analyse(load_text(HEAD + text), NOW)]


@pytest.mark.parametrize("first", range(5000, 5006, 3))
def test_what_never_matters_is_found_and_nothing_else(first):
    wrongly = {seed: wrong_findings(pair(seed)[0]) for seed in range(first, first + 3)}

    assert {seed: problems for seed, problems in wrongly.items() if problems} == {}


@pytest.mark.parametrize(
    ("when", "code"),
    [
        ("{account.tier: {below: mid, at_least: top}}", "GR201"),
        ("{geo.country: {in: [CU], not_in: [CU, IR]}}", "GR201"),
        ("{all: [{geo.country: CU}, {geo.country: IR}]}", "GR201"),
        ("{any: [{geo.country: CU}, {account.tier: {below: low}}]}", "GR201"),
        ("{request.tools: {gt: 3, lt: 4}}", "GR201"),
        ("{account.age: {lt: 1d, gte: 2d}}", "GR201"),
        ("{client.ip: {cidr: [10.0.0.0/8], not: {cidr: [10.0.0.0/7]}}}", "GR201"),
        ("{account.org: {prefix: ab, not: {prefix: a}}}", "GR201"),
        ("{account.created: {before: 2026-01-01, after: 2026-02-01}}", "GR201"),
        ("{time.hour: {gt: 23}}", "GR201"),
        ("{account.tier: {at_least: low}}", "GR216"),
        ("{account.tier: {exists: true}}", "GR216"),
        ("{any: [{account.tier: low}, {account.tier: {at_least: mid}}]}", "GR216"),
        ("{geo.country: {not_in: [CU]}}", None),
        ("{geo.country: {exists: true, in: [CU]}}", None),
        ("{account.created: {before: now, after: 2026-06-20}}", None),
        ("{payment.country: {not: {same_as: geo.country}}, geo.country: DE}", None),
        ("{payment.country: {same_as: geo.country}, geo.country: DE}", None),
    ],
)
def test_a_condition_that_is_never_or_always_true_is_found_where_it_stands(when, code):
    codes = found(f"rules:\n  - id: r\n    when: {when}\n    unknown: skip\n    block: {{}}\n")

    assert codes == ([] if code is None else [f"6 {code}"])


RULES = """\
rules:
  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, unknown: skip, block: {}}
"""


@pytest.mark.parametrize(
    ("when", "line", "help"),
    [
        ("{use: low, account.tier: mid}", 7,
         "`account.tier = low` and `account.tier = mid` exclude each other"),
        ("{account.id: a, not: {any: [{request.tools: {gt: 1}}, {request.tools: {lte: 1}}]}}", 7,
         "`not (request.tools gt 1 or request.tools lte 1)` can never be true"),
        ("{use: low, geo.country: CU, account.org: {prefix: a, not: {prefix: a}}}", 7,
         "`account.org prefix a` and `not account.org prefix a` exclude each other"),
        ("{time.hour: 24}", 7, "`time.hour` goes from 0 to 23"),
        ("{actor.accounts: {lt: 1}}", 7, "`actor.accounts` is 1 at least"),
        ("{time.hour: 24, account.id: a}", 7,
         "`time.hour = 24` can never be true: `time.hour` goes from 0 to 23"),
    ],
)  # fmt: skip
def test_what_of_a_condition_never_holds_is_told_where_the_rule_stands(when, line, help):
    text = (
        "conditions: {low: {account.tier: low}}\n"
        f"rules:\n  - id: r\n    when: {when}\n    unknown: skip\n    block: {{}}\n"
    )
    (told,) = [one for one in analyse(load_text(HEAD + text), NOW) if one.code == "GR201"]

    assert told.span.line == line
    assert told.help == f"correct it: {help}"


def test_of_a_part_that_is_out_of_its_fact_s_range_the_range_is_told():
    when = "{any: [{account.id: a}, {time.hour: {gte: 24}}]}"
    text = f"rules:\n  - {{id: r, when: {when}, unknown: skip, block: {{}}}}\n"
    (told,) = [one for one in analyse(load_text(HEAD + text), NOW) if one.code == "GR201"]

    assert told.help == "correct it, or leave it out: `time.hour` goes from 0 to 23"


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("{id: r, when: {geo.country: CU}, unknown: skip, block: {}}", "GR202"),
        ("{id: r, when: {geo.country: CU}, unknown: skip, degrade: {disable: [tools]}}", "GR202"),
        ("{id: r, when: {geo.country: CU}, block: {}}", None),  # matches the unknown, too
        ("{id: r, when: {geo.country: SY}, unknown: skip, block: {}}", None),
        ("{id: r, when: {geo.country: CU}, unknown: skip, block: {}, mode: shadow}", None),
        ("{id: r, when: {geo.country: CU}, unknown: skip, block: {}, exemptible: false}", None),
    ],
)
def test_a_rule_behind_a_stricter_one_is_found(rule, code):
    assert found(f"{RULES}  - {rule}\n") == ([] if code is None else [f"6 {code}"])


LIMIT = "{requests: %s, per: %s, key: %s}"


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (("10", "day", "account.id"), ("20", "day", "account.id"), "GR202"),
        (("10", "lifetime", "account.id"), ("20", "day", "account.id"), "GR202"),
        (("10", "day", "global"), ("20", "day", "account.id"), "GR202"),
        (("10", "day", "account.id"), ("20", "day", "global"), None),
        (("10", "day", "account.id"), ("20", "lifetime", "account.id"), None),
        (("10", "day", "account.id"), ("5", "day", "account.id"), "GR202"),
    ],
)
def test_a_limit_behind_a_stricter_one_is_found(first, second, code):
    text = "rules:\n"
    for name, parts in (("a", first), ("b", second)):
        over = "over: {throttle: {}}"
        text += f"  - {{id: {name}, when: always, budget: {LIMIT % parts}, {over}}}\n"
    line = 5 if second[0] == "5" else 6

    told = [one for one in found(text) if "GR215" not in one]

    assert told == ([] if code is None else [f"{line} {code}"])


def test_two_limits_that_share_the_requests_of_a_third_do_not_stand_in_for_it():
    parts = [
        "{id: a, when: {account.tier: low}, budget: {requests: 10, per: day, key: account.id}}",
        "{id: b, when: {account.tier: {at_least: mid}}, "
        "budget: {requests: 10, per: day, key: account.id}}",
        "{id: c, when: always, budget: {requests: 10, per: day, key: account.id}}",
    ]
    # The last one is stricter than both, and they are found instead.
    assert found("rules:\n" + "".join(f"  - {part}\n" for part in parts)) == [
        "5 GR202",
        "6 GR202",
    ]
    looser = [*parts[:2], parts[2].replace("10", "15")]

    assert found("rules:\n" + "".join(f"  - {part}\n" for part in looser)) == []


STEPS = """\
rules:
  - id: day
    when: always
    budget: {tokens: 100, per: day, key: account.id}
    steps: [%s]
"""


@pytest.mark.parametrize(
    ("steps", "codes"),
    [
        ("{at: 50%, throttle: {}}, {at: 80%, degrade: {disable: [tools]}}", ["5 GR217"]),
        ("{at: 50%, throttle: {}}, {at: 80%, throttle: {message: no}}", ["5 GR217"]),
        ("{at: 50%, degrade: {disable: [tools]}}, {at: 80%, throttle: {}}", []),
        ("{at: 50%, throttle: {}}, {at: 80%, block: {}}", []),
    ],
)
def test_a_step_behind_one_that_refuses_is_found(steps, codes):
    assert found(STEPS % steps) == codes


def test_of_two_rules_alike_one_is_found_and_no_step_of_the_other():
    day = "when: always\n    budget: {requests: 9, per: day, key: account.id}\n"
    steps = "    steps: [{at: 80%%, throttle: {}}, {at: 100%%, %s: {}}]\n"
    text = f"rules:\n  - id: a\n    {day}{steps % 'throttle'}  - id: b\n    {day}{steps % 'block'}"

    assert found(text) == ["5 GR202"]


def test_a_step_of_what_is_refused_anyway_is_found():
    text = STEPS.replace("tokens: 100", "tokens: 100, requests: 0")

    assert found(text % "{at: 50%, degrade: {disable: [tools]}}, {at: 100%, block: {}}") == [
        "5 GR217"
    ]


@pytest.mark.parametrize(
    ("when", "codes"),
    [
        ("{account.id: a1}", []),
        ("{geo.country: DE}", ["7 GR218"]),
        ("{account.tier: {below: mid, at_least: top}}", ["7 GR218"]),
        ("{account.tier: mid}", []),
    ],
)
def test_an_exemption_that_lifts_nothing_is_found(when, codes):
    text = f"{RULES}exemptions:\n  - {{id: e, rules: [embargo], when: {when}, "

    assert found(f"{text}reason: r, expires: 2198-12-31}}\n") == codes


@pytest.mark.parametrize(
    ("when", "codes"),
    [
        ("{account.tier: {at_least: low}}", ["7 GR227"]),
        ("{any: [{account.id: {exists: true}}, {account.id: {exists: false}}]}", ["7 GR227"]),
        ("{account.tier: {at_least: mid}}", []),
        ("{account.id: {exists: true}}", []),
        ("{account.id: {not_in: [a1, a2]}}", ["7 GR227"]),
        ("{not: {account.org: {prefix: test-}}}", ["7 GR227"]),
        ("{account.id: {not_in: [a1, a2]}, account.tier: top}", []),
        ("{account.org: o1, account.id: {not_in: [a1]}}", []),
    ],
)
def test_an_exemption_for_every_request_is_found(when, codes):
    text = (
        "rules:\n  - {id: pace, when: always, budget: {requests: 9, per: day, key: account.id}}\n"
    )
    text += f"exemptions:\n  - {{id: e, rules: [pace], when: {when}, "

    assert found(f"{text}reason: r, expires: 2198-12-31}}\n") == codes


TABLE = "{by: account.tier, low: 10, mid: 20, top: unlimited}"


@pytest.mark.parametrize(
    ("own", "least", "codes"),
    [
        ("10", "9", ["7 GR218"]),
        ("10", "10", ["7 GR218"]),
        ("10", "11", []),
        ("10", "unlimited", []),
        ("unlimited", "unlimited", ["5 GR207", "7 GR218"]),
        (TABLE, "10", ["7 GR218"]),
        (TABLE, "15", []),
        ("{fact: account.limit}", "1", []),
    ],
)
def test_an_amount_that_is_raised_to_no_more_is_found(own, least, codes):
    text = f"""\
rules:
  - {{id: pace, when: always, budget: {{requests: {own}, per: day, key: account.id}}}}
exemptions:
  - {{id: e, rules: [pace], when: {{account.id: a1}}, raise: {{requests: {least}}}, reason: r,
     expires: 2198-12-31}}
"""
    declared = HEAD.replace(
        "default: low}}", "default: low}, account.limit: {type: integer, source: server}}"
    )

    told = analyse(load_text(declared + text), NOW)

    assert [f"{one.span.line} {one.code}" for one in told] == codes


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_what_of_a_rule_never_matters_is_found_and_nothing_else(first):
    sets = {seed: limited(seed) for seed in range(first, first + 10)}
    small = [seed for seed, one in sets.items() if how_many(one) <= MOST_REQUESTS // 10]
    wrongly = {seed: wrong_parts(sets[seed]) for seed in small}

    assert small
    assert {seed: problems for seed, problems in wrongly.items() if problems} == {}

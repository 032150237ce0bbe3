"""Conditions compile to tests on typed values, as their author meant them."""

from __future__ import annotations

import ipaddress

import pytest

from guardrail.loading import load_policies, load_text
from guardrail.model.conditions import ALWAYS, Comparison, Condition, Every, Negation, Some
from tests.loading.error_cases import findings

START = """\
guardrail: 1
policy: demo
facts:
  account.tier: {type: level, values: [free, email, paid]}
  account.labels: {type: list, source: server}
  account.score: {type: number, source: server}
  account.home: {type: country, source: server}
lists:
  embargoed: [CU, NO]
  networks: [10.0.0.0/8, "2001:db8::/32"]
  asns: [13335, 15169]
  agents: [curl/, python-]
conditions:
  abroad: {geo.country: {not: DE}}
  both: {use: [abroad, tooled]}
  tooled: {request.tools: {gt: 0}}
"""


def compiled(condition: str) -> Condition:
    """Return what the condition of one rule compiles to."""
    text = f"{START}rules: [{{id: r, when: {condition}, block: {{}}}}]\n"
    return load_text(text).rules[0].when


def comparison(condition: str) -> Comparison:
    """Return the one test that a condition compiles to."""
    test = compiled(condition)
    assert isinstance(test, Comparison)
    return test


def test_always_has_no_parts():
    assert compiled("always") is ALWAYS


@pytest.mark.parametrize(
    ("written", "operator", "operand", "text"),
    [
        ("account.id: acct_42", "in", {"acct_42"}, "account.id = acct_42"),
        ('account.id: "007"', "in", {"007"}, "account.id = 007"),
        ("account.id: NO", "in", {"NO"}, "account.id = NO"),
        ("request.tools: 3", "in", {3}, "request.tools = 3"),
        ("request.stream: true", "in", {True}, "request.stream = true"),
        ("account.score: 0.5", "in", {0.5}, "account.score = 0.5"),
        ("account.age: 30d", "in", {2_592_000}, "account.age = 30d"),
        ("client.ip: '::FFFF:10.0.0.1'", "in", {"10.0.0.1"}, "client.ip = ::FFFF:10.0.0.1"),
        ("client.ip: 2001:DB8::0", "in", {"2001:db8::"}, "client.ip = 2001:DB8::0"),
        ("account.labels: beta", "in", {"beta"}, "account.labels = beta"),
        ("geo.country: {in: [CU, NO]}", "in", {"CU", "NO"}, "geo.country in [CU, NO]"),
        ("geo.country: {in: $embargoed}", "in", {"CU", "NO"}, "geo.country in $embargoed"),
        ("geo.asn: {in: $asns}", "in", {13335, 15169}, "geo.asn in $asns"),
        ("geo.country: {not_in: [XK]}", "not_in", {"XK"}, "geo.country not_in [XK]"),
        ("account.tier: {below: paid}", "in", {"free", "email"}, "account.tier below paid"),
        ("account.tier: {below: free}", "in", set(), "account.tier below free"),
        ("account.tier: {at_least: email}", "in", {"email", "paid"}, "account.tier at_least email"),
    ],
)
def test_membership_is_in_a_set_of_typed_values(written, operator, operand, text):
    fact = written.partition(":")[0]

    assert compiled(f"{{{written}}}") == Comparison(fact, operator, frozenset(operand), text)


@pytest.mark.parametrize(
    ("written", "operator", "operand"),
    [
        ("request.tools: {gt: 0}", "gt", 0),
        ("request.tools: {lte: -1}", "lte", -1),
        ("account.score: {gte: 0.25}", "gte", 0.25),
        ("account.age: {lt: 90m}", "lt", 5400),
        ("account.created: {before: now}", "before", None),
        ("account.created: {before: 2026-01-01}", "before", 1767225600.0),
        ("account.created: {after: 2026-01-01}", "after", 1767311999.999999),
        ("account.created: {after: 2026-01-01T00:00:00Z}", "after", 1767225600.0),
        ("account.created: {after: '2026-01-01T02:00:00.5+02:00'}", "after", 1767225600.5),
        ("account.created: {after: 2026-01-01 00:00}", "after", 1767225600.0),
        ("client.agent: {prefix: curl/}", "prefix", ("curl/",)),
        ("client.agent: {prefix: [curl/, wget]}", "prefix", ("curl/", "wget")),
        ("client.agent: {prefix: $agents}", "prefix", ("curl/", "python-")),
        ("kyc.subject: {exists: true}", "exists", True),
        ("geo.country: {same_as: payment.country}", "same_as", "payment.country"),
        ("request.tools: {same_as: account.score}", "same_as", "account.score"),
    ],
)
def test_comparisons_have_an_operand_of_their_fact(written, operator, operand):
    fact, _, rest = written.partition(": ")
    value = rest.partition(": ")[2].strip("}'")

    test = comparison(f"{{{written}}}")

    assert test == Comparison(fact, operator, operand, f"{fact} {operator} {value}")
    assert type(test.operand) is type(operand)


@pytest.mark.parametrize("fact", ["client.ip", "client.network"])
def test_networks_are_parsed(fact):
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))
    inline = f"{{{fact}: {{cidr: [10.0.0.0/8, '2001:db8::/32']}}}}"

    named = comparison(f"{{{fact}: {{cidr: $networks}}}}")

    assert named == Comparison(fact, "cidr", networks, f"{fact} cidr $networks")
    assert comparison(inline).operand == networks
    assert comparison(f"{{{fact}: {{cidr: 10.0.0.0/8}}}}").operand == networks[:1]


def test_entries_and_operators_are_joined_by_and():
    low, high = compiled("{request.tools: {gt: 0}}"), compiled("{request.tools: {lt: 9}}")
    home = compiled("{geo.country: DE}")

    assert compiled("{request.tools: {gt: 0, lt: 9}, geo.country: DE}") == Every((low, high, home))
    assert compiled("{all: [{request.tools: {gt: 0}}, {geo.country: DE}]}") == Every((low, home))
    assert compiled("{any: [{request.tools: {gt: 0}}, {geo.country: DE}]}") == Some((low, home))
    assert compiled("{any: [{geo.country: DE}]}") == home


def test_not_negates_a_value_operators_or_a_condition():
    home = compiled("{geo.country: DE}")
    range_ = compiled("{request.tools: {gt: 0, lt: 9}}")

    assert compiled("{geo.country: {not: DE}}") == Negation(home)
    assert compiled("{not: {geo.country: DE}}") == Negation(home)
    assert compiled("{request.tools: {not: {gt: 0, lt: 9}}}") == Negation(range_)
    assert compiled("{not: {request.tools: {gt: 0, lt: 9}}}") == Negation(range_)


def test_named_conditions_stand_for_what_they_say():
    abroad, tooled = Negation(compiled("{geo.country: DE}")), compiled("{request.tools: {gt: 0}}")

    assert compiled("{use: abroad}") == abroad
    assert compiled("{use: both}") == Every((abroad, tooled))
    assert compiled("{use: [abroad], not: {use: tooled}}") == Every((abroad, Negation(tooled)))


def test_a_text_that_looks_like_a_list_name_can_be_quoted():
    test = comparison('{account.id: {in: ["$embargoed"]}}')

    assert test.operand == frozenset({"$embargoed"})


def test_a_condition_cannot_grow_without_bounds():
    text = "guardrail: 1\npolicy: demo\nconditions:\n  c0: {geo.country: DE}\n"
    for number in range(1, 40):
        text += f"  c{number}: {{any: [{{use: c{number - 1}}}, {{use: c{number - 1}}}]}}\n"
    text += "rules: [{id: r, when: {use: c39}, block: {}}]\n"

    found = findings(text)

    assert found.count("GR102 the condition comes to more than 10,000 tests") == 1


@pytest.mark.parametrize("numbers", [range(2000), range(1999, -1, -1)])
def test_a_chain_of_conditions_cannot_be_endless(numbers):
    text = "guardrail: 1\npolicy: demo\nconditions:\n"
    for number in numbers:
        text += f"  c{number}: {{not: {{use: c{number + 1}}}}}\n"
    text += "  c2000: {geo.country: DE}\nrules: [{id: r, when: {use: c0}, block: {}}]\n"

    assert "GR102 conditions stand more than 32 deep in each other" in findings(text)


def test_conditions_may_stand_deep_in_each_other():
    condition = "{geo.country: DE}"
    for _ in range(30):
        condition = f"{{not: {condition}}}"

    assert isinstance(compiled(condition), Negation)


def test_a_list_file_has_one_value_a_line(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/asns.txt").write_text("\ufeff# two\n13335\r\n\n  15169 # G\n", "utf-8")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.yaml").write_text(
        "guardrail: 1\npolicy: demo\nlists: {asns: {file: ../lists/asns.txt}}\n"
        "rules:\n"
        "  - {id: r, when: {geo.asn: {in: $asns}}, block: {}}\n"
        "  - {id: s, when: {account.org: {in: $asns}}, block: {}}\n"
    )

    numbers, texts = load_policies([tmp_path / "policies"]).rules

    assert isinstance(numbers.when, Comparison)
    assert isinstance(texts.when, Comparison)
    assert numbers.when.operand == frozenset({13335, 15169})
    assert texts.when.operand == frozenset({"13335", "15169"})


@pytest.mark.parametrize(
    ("many", "ending"), [(8, "6, 7, 8]"), (9, "6, 7, 8, …]"), (12, "6, 7, 8, …]")]
)
def test_a_test_on_a_long_list_is_told_of_by_its_first_eight(many, ending):
    listed = ", ".join(str(number) for number in range(1, many + 1))

    text = comparison(f"{{geo.asn: {{in: [{listed}]}}}}").text
    assert text == f"geo.asn in [1, 2, 3, 4, 5, {ending}"

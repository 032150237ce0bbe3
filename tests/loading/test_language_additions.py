"""Tables, fixtures, matrices, a stated day, rollouts, what is said of a rule, and empty lists."""

from __future__ import annotations

import pytest

from guardrail.analysis import Fleet, bounds
from guardrail.errors import PolicyError
from guardrail.loading import load_text
from guardrail.model.amounts import Lookup
from guardrail.model.effects import Effect
from guardrail.scenarios import run_suite
from guardrail.testing import guard_of

START = """\
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [email, verified], default: email}}
"""


def found(text: str) -> list[str]:
    """Return what loading finds wrong, each with its code."""
    try:
        load_text(START + text)
    except PolicyError as error:
        return [f"{one.code} {one.message}" for one in error.diagnostics]
    return []


def passed(text: str) -> list[str]:
    """Return the names of the tests in a set, all of which pass."""
    suite = run_suite(load_text(START + text))

    assert [result.mismatch for result in suite.results if result.mismatch] == []
    return [result.scenario.name for result in suite.results]


TABLES = """\
tables:
  daily: {by: account.tier, email: 10k, verified: 50k}
  pace: {by: account.tier, email: 1/minute, verified: 5/minute}
"""


def test_a_table_stands_for_itself_wherever_an_amount_can():
    rules = "rules:\n  - {id: a, when: always, budget: {tokens: %s, per: day, key: account.id}}\n"
    rules += "  - {id: b, when: always, rate: {requests: %s, key: account.id}}\n"
    rules += "  - {id: c, when: always, concurrency: {max: %s, key: account.id}}\n"
    daily = "{by: account.tier, email: 10k, verified: 50k}"
    pace = "{by: account.tier, email: 1/minute, verified: 5/minute}"
    named = load_text(START + TABLES + rules % ("$daily", "$pace", "$daily"))
    inline = load_text(START + rules % (daily, pace, daily))

    assert [r.verb.allowances for r in named.rules] == [r.verb.allowances for r in inline.rules]
    assert isinstance(named.rules[0].verb.allowances[0], Lookup)


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        ("$dayly", "GR107 unknown table `dayly`"),
        ("$pace", "GR110 `1/minute` is not an amount"),
    ],
)
def test_what_is_no_table_of_amounts_is_told_of(amount, told):
    rule = "rules: [{id: a, when: always, budget: {tokens: %s, per: day, key: account.id}}]\n"

    assert told in found(TABLES + rule % amount)


RULES = """\
rules:
  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, unknown: skip, block: {}}
  - {id: new, when: {account.created: {after: now}}, unknown: skip, block: {}}
  - {id: tier, when: {account.tier: verified, client.agent: x}, unknown: skip, block: {}}
fixtures:
  someone: {account.id: a1, account.tier: verified}
  cuban: {geo.country: CU, account.tier: email}
"""


def test_a_test_has_the_facts_of_its_fixtures_and_its_own_before_them():
    assert passed(
        RULES
        + """\
tests:
  - {name: one, use: someone, expect: allow}
  - {name: both, use: [someone, cuban], expect: {block: embargo}}
  - {name: later ones win, use: [cuban, someone], facts: {geo.country: DE, client.agent: x},
     expect: {block: tier}}
  - {name: own facts win, use: [someone, cuban], facts: {geo.country: DE}, expect: allow}
"""
    ) == ["one", "both", "later ones win", "own facts win"]


def test_a_matrix_is_a_test_for_every_combination():
    names = passed(
        RULES
        + """\
tests:
  - name: embargo
    use: someone
    matrix: {geo.country: [CU, IR], account.tier: [email, verified]}
    expect: {block: embargo}
"""
    )

    assert names == [
        "embargo (geo.country CU, account.tier email)",
        "embargo (geo.country CU, account.tier verified)",
        "embargo (geo.country IR, account.tier email)",
        "embargo (geo.country IR, account.tier verified)",
    ]


def test_each_case_of_a_matrix_fails_on_its_own():
    text = "tests: [{name: t, matrix: {geo.country: [CU, DE]}, expect: {block: embargo}}]\n"
    suite = run_suite(load_text(START + RULES + text))

    assert [result.mismatch is None for result in suite.results] == [True, False]
    assert suite.results[1].scenario.name == "t (geo.country DE)"


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("use: sumone", "GR107 unknown fixture `sumone`"),
        ("use: [someone, 7]", "GR102 `use` takes the name of a fixture, not a number"),
        ("matrix: {geo.country: CU}", "GR102 the matrix needs a list of values for `geo.country`"),
        ("matrix: {geo.country: []}", "GR102 the matrix needs a list of values for `geo.country`"),
        ("matrix: {geo.contry: [CU]}", "GR105 unknown fact `geo.contry`"),
        ("matrix: {geo.country: [CU, Cuba]}", "GR106 `Cuba` is not a country"),
        ("matrix: {}", "GR108 `matrix` is empty"),
        (f"matrix: {{account.id: {[f'a{n}' for n in range(1001)]}}}",
         "GR102 the matrix has more than 1,000 combinations"),
    ],
)  # fmt: skip
def test_a_fixture_or_a_matrix_that_is_none_is_told_of(test, told):
    assert told in found(f"{RULES}tests: [{{name: t, {test}, expect: allow}}]\n")


def test_a_fixture_is_checked_as_facts_are():
    text = RULES.replace("cuban: {", "cuban: {geo.contry: CU, ")

    assert found(f"{text}tests: [{{name: t, use: cuban, expect: allow}}]\n") == [
        "GR105 unknown fact `geo.contry`"
    ]
    assert found(RULES.replace("{geo.country: CU, account.tier: email}", "[CU]")) == [
        "GR102 fixture `cuban` must be a map of facts, not a list"
    ]


def test_a_stated_day_is_when_tests_start_that_do_not_say():
    text = RULES + """\
defaults: {today: 2026-06-01}
tests:
  - {name: before, facts: {account.created: 2026-06-02T00:00:00Z}, expect: {block: new}}
  - {name: after, facts: {account.created: 2026-05-31T23:59:59Z}, expect: allow}
  - {name: own, now: 2026-07-01T00:00:00Z, facts: {account.created: 2026-06-02T00:00:00Z},
     expect: allow}
"""  # fmt: skip

    assert passed(text) == ["before", "after", "own"]
    assert found(text.replace("2026-06-01}", "tomorrow}")) == [
        "GR110 `tomorrow` is not a date or a time"
    ]


ROLLED = """\
rules: [{id: %s, when: {account.tier: email}, rollout: %s, block: {}}]
"""
ACCOUNTS = [f"acct-{n}" for n in range(3000)]


def struck(share: str, name: str = "r") -> set[str]:
    """Return the accounts that a rule applies to."""
    guard = guard_of(START + ROLLED % (name, share))
    return {
        a
        for a in ACCOUNTS
        if guard.decide({"account.id": a, "account.tier": "email"}).effect is Effect.BLOCK
    }


@pytest.mark.parametrize("name", ["r", "a-rule-that-starts-late", "x7"])
def test_a_rollout_takes_the_same_accounts_and_more_as_it_grows(name):
    before: set[str] = set()
    for share in ("0.5%", "5%", "10%", "50%", "90%", "100%"):
        taken = struck(share, name)

        assert taken >= before
        assert abs(len(taken) / len(ACCOUNTS) - float(share[:-1]) / 100) < 0.03
        before = taken
    assert before == set(ACCOUNTS)


def test_rules_roll_out_to_different_accounts():
    one, other = struck("10%", "r"), struck("10%", "another")

    assert one != other
    assert struck("10%") == one


def test_a_request_without_an_account_is_in_no_rollout_but_the_whole_one():
    facts = {"account.tier": "email"}

    assert guard_of(START + ROLLED % ("r", "99%")).decide(facts).allowed
    assert not guard_of(START + ROLLED % ("r", "100%")).decide(facts).allowed


def test_a_bound_of_a_rule_that_rolls_out_holds_for_those_it_leaves_out():
    limit = "rules: [{id: r, when: always, %sbudget: {requests: 10, per: day, key: account.id}}]\n"
    whole = bounds(load_text(START + limit % ""), Fleet(accounts=100), 0)
    part = bounds(load_text(START + limit % "rollout: 99%, "), Fleet(accounts=100), 0)
    day = [(one.unit, one.period) for one in whole].index(("requests", "day"))

    assert (whole[day].most, part[day].most) == (1000, None)


@pytest.mark.parametrize("share", ["5", "0%", "101%", "five", "-1%", "0.00001%", "[5%]", "0.05"])
def test_a_rollout_is_a_share(share):
    assert found(ROLLED % ("r", share))[0].startswith("GR110 ")


def test_what_people_say_of_a_rule_decides_nothing():
    said = "description: Why., owner: abuse, ticket: POL-17, labels: {risk: low}"
    policies = load_text(f"{START}rules: [{{id: r, when: always, {said}, block: {{}}}}]\n")
    plain = load_text(START + "rules: [{id: r, when: always, block: {}}]\n")

    assert policies.rules[0].about.lines() == {
        "about": "Why.",
        "owner": "abuse",
        "ticket": "POL-17",
        "labels": "risk: low",
    }
    assert policies.rules[0].verb == plain.rules[0].verb
    assert found('rules: [{id: r, when: always, owner: "", block: {}}]\n') == [
        "GR102 `owner` must be text"
    ]


def test_a_list_may_be_empty_on_purpose_and_only_so():
    rules = "rules: [{id: r, when: {account.id: {%s: $few}}, unknown: skip, block: {}}]\n"
    empty = "lists: {few: {empty: intended}}\n"

    assert guard_of(START + empty + rules % "in").decide({"account.id": "a"}).allowed
    assert not guard_of(START + empty + rules % "not_in").decide({"account.id": "a"}).allowed
    for written in ("[]", "{empty: true}", "{empty: intended, file: a.txt}", "{empty: [a]}"):
        assert found(f"lists: {{few: {written}}}\n" + rules % "in") != []


def test_an_empty_list_of_networks_or_prefixes_holds_nobody():
    for fact, operator, value in [
        ("client.ip", "cidr", "192.0.2.1"),
        ("client.agent", "prefix", "x"),
    ]:
        when = f"{{{fact}: {{{operator}: $few}}}}"
        rule = f"rules: [{{id: r, when: {when}, unknown: skip, block: {{}}}}]\n"
        guard = guard_of(START + "lists: {few: {empty: intended}}\n" + rule)

        assert guard.decide({"account.id": "a", fact: value}).allowed


def test_regions_are_codes_of_iso_3166_2():
    rule = "rules: [{id: r, when: {geo.region: {in: [%s]}}, unknown: skip, block: {}}]\n"

    assert found(rule % "US-CA, DE-BY, FR-75, GB-ENG") == []
    for wrong in ("CA", "us-ca", "US-CALI", "California"):
        assert found(rule % wrong) == [f"GR106 `{wrong}` is not a region"]

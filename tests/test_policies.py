"""The shipped policy set does what its comments promise, to whom they promise it."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from guardrail.guard import Guard
from guardrail.loading import load_policies
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block, Budget, Concurrency, Degrade, Distinct, Rate
from guardrail.replay.running import Replay
from guardrail.scenarios import run_suite
from guardrail.traffic.lines import LineSource
from guardrail.traffic.reading import recorded_requests
from guardrail.traffic.requests import BadLines

ROOT = Path(__file__).resolve().parent.parent
TRAFFIC = ROOT / "examples" / "traffic"
SAMPLE = TRAFFIC / "sample-week.jsonl.gz"
MONDAY = 1772409600.0
DAY = 86400

# What the campaign was alleged to be.
ACCOUNTS, EXCHANGES, DAYS = 25_000, 28_800_000, 45
LIFETIME = EXCHANGES // ACCOUNTS

# What an account of two months at most that has paid nothing may take before it has shown an ID:
# agents and code for life, all of it in a week; and all such accounts together in a week, and those
# of them that share a card or the like.
TRIAL, WEEK, TOGETHER, LINKED = 100, 50, 5700, 450
# When an identity is trusted, in seconds after it was shown.
TRUSTED = 60 * DAY


class Row(NamedTuple):
    """Some requests of the sample week alike, and what the shipped set made of them."""

    made_as: str
    shock: str
    account: str
    identity: str | None
    sensitive: bool
    requests: int
    effect: Effect
    rule: str | None
    remedy: str | None
    acting: object

    @property
    def honest(self) -> bool:
        return not self.made_as.endswith("operator")

    @property
    def known(self) -> bool:
        return self.identity is not None


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_policies([ROOT / "policies"])


def identity_of(facts: Mapping[str, object], moment: float) -> str | None:
    """Return how an account's identity stands, by the age that the shipped set trusts it from."""
    if facts["account.tier"] not in ("verified", "enterprise"):
        return None
    shown = float(str(facts["account.verified_at"]))
    return "long known" if moment - shown >= TRUSTED else "fresh"


@pytest.fixture(scope="module")
def rows(policies: PolicySet) -> list[Row]:
    with (TRAFFIC / "sample-week.accounts.csv").open(encoding="ascii") as table:
        made_as = {row["account.id"]: row for row in csv.DictReader(table)}
    with Guard.from_policies(policies, environ={}) as guard, LineSource(str(SAMPLE)) as source:
        return [
            Row(
                made_as=made_as[account]["made_as"],
                shock=made_as[account]["shock"],
                account=account,
                identity=identity_of(request.facts, at),
                sensitive=request.facts["request.capability"] in ("agentic", "code"),
                requests=int((request.estimate or {}).get("requests", 1)),
                effect=decision.effect,
                rule=decision.rule,
                remedy=decision.remedy,
                acting=decision.case.facts["actor.accounts"],
            )
            for _, at, request, decision in Replay(guard).run(recorded_requests(source, BadLines()))
            if (account := str(request.facts["account.id"]))
        ]


def requests_of(rows: Iterable[Row]) -> int:
    """Return how many requests rows stand for."""
    return sum(row.requests for row in rows)


def served_by_account(rows: Iterable[Row]) -> Counter[str]:
    """Return how many requests of each account are served."""
    served: Counter[str] = Counter()
    for row in rows:
        served[row.account] += 0 if row.effect.refuses else row.requests
    return served


def test_every_shipped_test_passes(policies: PolicySet) -> None:
    suite = run_suite(policies)

    failed = [result.scenario.name for result in suite.results if result.mismatch is not None]
    assert failed == []
    assert len(suite.results) >= 40


def test_every_rule_is_named_by_a_test_that_it_decides(policies: PolicySet) -> None:
    named = {
        name
        for scenario in policies.scenarios
        for step in scenario.steps
        if step.expect is not None
        for name in (step.expect.by, *(step.expect.shadow or ()))
    }

    assert {rule.id for rule in policies.rules} - named == set()


def test_every_file_of_tests_holds_customers_it_must_not_harm(policies: PolicySet) -> None:
    unharmed = {
        Path(scenario.span.file).name
        for scenario in policies.scenarios
        if all(step.expect and step.expect.effect is Effect.ALLOW for step in scenario.steps)
    }

    assert {path.name for path in (ROOT / "policies").glob("*_test.yaml")} == unharmed


def test_the_set_shows_every_verb(policies: PolicySet) -> None:
    verbs = {type(rule.verb) for rule in policies.rules}

    assert verbs == {Block, Degrade, Rate, Budget, Concurrency, Distinct}


def test_what_the_law_asks_for_cannot_be_exempted(policies: PolicySet) -> None:
    firm = {rule.id for rule in policies.rules if not rule.exemptible}

    assert firm == {"embargo", "banned"}


def test_customers_whose_identity_is_long_known_are_served_all_they_ask_for(
    rows: list[Row],
) -> None:
    """Fewer than one in a thousand may be refused; in this week nobody is."""
    known = [row for row in rows if row.honest and row.identity == "long known"]

    assert requests_of(known) > 50_000
    assert [row for row in known if row.effect is not Effect.ALLOW] == []


def test_others_are_at_worst_asked_for_an_id_or_for_money_or_wait_for_next_week(
    rows: list[Row],
) -> None:
    refused = [row for row in rows if row.honest and row.effect.refuses]
    paying = [row for row in refused if not row.known and row.remedy != "verify"]

    assert {(row.rule, row.remedy) for row in paying} == {
        ("months-that-are-paid-for", "pay"),
        ("tries-that-are-paid-for", "pay"),
        ("newcomer-week", None),
    }
    assert {row.remedy for row in refused if row.known} <= {"pay"}


def test_a_course_on_one_card_is_asked_for_ids_and_not_before_it_has_tried(
    rows: list[Row],
) -> None:
    """It shares a ceiling with a farm of accounts that are linked, too, and still gets some."""
    course = [row for row in rows if row.shock == "bootcamp card"]
    refused = [row for row in course if row.effect.refuses]

    assert len({row.account for row in course}) == 20
    assert requests_of(course) - requests_of(refused) >= 9 * 20
    assert {row.remedy for row in refused} <= {"verify", None}
    assert len({row.account for row in refused if row.remedy == "verify"}) >= 10


IDENTITIES = {None: "no ID shown", "fresh": "ID shown lately", "long known": "ID long known"}


def table_of(rows: Iterable[Row]) -> str:
    """Return what the README tells of the sample week, by what accounts were made as."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.made_as].append(row)
        if row.honest:
            groups["**all honest**"].append(row)
            groups[f"all honest, {IDENTITIES[row.identity]}"].append(row)
    order = sorted(groups, key=lambda name: (name.endswith("operator"), "all" in name, name))
    return "\n".join(_cells(name, groups[name]) for name in order)


def _cells(name: str, rows: Sequence[Row]) -> str:
    refused = [row for row in rows if row.effect.refuses]
    amounts = (
        len({row.account for row in rows}),
        len({row.account for row in refused}),
        requests_of(rows),
        requests_of(refused),
        *(requests_of(row for row in refused if row.remedy == cure) for cure in ("verify", "pay")),
    )
    return f"| {name} | " + " | ".join(f"{amount:,}" for amount in amounts) + " |"


def test_the_readme_tells_whom_the_shipped_policies_refuse_in_the_sample_week(
    rows: list[Row],
) -> None:
    told = (ROOT / "README.md").read_text("utf-8")
    table = table_of(rows)

    assert f"|\n{table}\n\n" in told, table


def test_customers_who_are_known_are_never_shut_out_for_coming_too_often(
    policies: PolicySet,
) -> None:
    banning = {rule.id for rule in policies.rules if rule.escalate is not None}
    usage = {"input_tokens": 1, "output_tokens": 1}
    for tier in ("verified", "enterprise"):
        facts = {
            "account.id": tier,
            "account.tier": tier,
            "account.verified_at": MONDAY - 60 * DAY,
            "account.paid_usd": 2000,
            "geo.country": "DE",
        }
        with Guard.from_policies(policies) as guard:
            for second in range(3600):
                guard.decide(facts, {**usage, "requests": 60}, now=MONDAY + second)
            decision = guard.decide(facts, usage, now=MONDAY + 3602)

        assert decision.allowed, tier
    assert banning == {"requests-per-minute"}


def test_no_account_of_the_campaign_takes_more_than_its_trial(rows: list[Row]) -> None:
    farmed = [row for row in rows if not row.honest]

    assert max(served_by_account(farmed).values()) <= WEEK
    assert max(served_by_account(row for row in farmed if row.sensitive).values()) <= TRIAL


def test_the_naive_operator_is_served_nothing(rows: list[Row]) -> None:
    farm = [row for row in rows if row.made_as == "naive operator"]

    assert len({row.account for row in farm}) == 50
    assert {row.effect for row in farm} == {Effect.BLOCK}


def test_the_careful_operator_is_seen_to_be_fewer_actors_than_accounts(rows: list[Row]) -> None:
    farm = [row for row in rows if row.made_as == "careful operator"]
    last = {row.account: row.acting for row in farm}

    assert len(last) == 100
    assert sum(acting != 1 for acting in last.values()) > 90


def test_the_careful_operator_is_held_by_what_newcomers_may_take_together(
    rows: list[Row],
) -> None:
    farm = [row for row in rows if row.made_as == "careful operator"]
    refused = [row for row in farm if row.effect.refuses]

    assert {row.rule for row in refused} == {"linked-newcomers-together"}
    assert 0.9 < requests_of(refused) / requests_of(farm) < 1
    assert requests_of(farm) - requests_of(refused) <= LINKED


def campaign(capability: str, tools: int) -> Iterator[tuple[float, dict[str, object]]]:
    """Yield all that one account of the campaign asked for, evenly over its days."""
    for turn in range(LIFETIME):
        yield (
            MONDAY + turn * DAYS * DAY / LIFETIME,
            {
                "account.id": "a1",
                "account.tier": "email",
                "geo.country": "SG",
                "network.kind": "residential",
                "request.capability": capability,
                "request.model": "large",
                "request.tools": tools,
            },
        )


@pytest.mark.parametrize(
    ("capability", "tools", "most"),
    [("agentic", 8, TRIAL), ("chat", 8, TRIAL), ("chat", 0, 7 * WEEK)],
    ids=["openly", "called chat, with tools", "called chat, without tools"],
)
def test_an_account_is_bounded_over_the_whole_campaign(
    policies: PolicySet, capability: str, tools: int, most: int
) -> None:
    usage = {"input_tokens": 1700, "output_tokens": 300}
    served = 0
    with Guard.from_policies(policies) as guard:
        for now, facts in campaign(capability, tools):
            decision = guard.decide(facts, usage, now=now)
            if decision.allowed:
                served += 1
                guard.settle(decision, usage, now=now)

    assert 0.99 * most < served <= most
    assert served / LIFETIME < 0.37


def test_what_the_campaign_takes_in_a_week_does_not_grow_with_its_accounts(
    policies: PolicySet,
) -> None:
    """Whatever it is called; every account shows a card, a device and an address of its own."""
    usage = {"input_tokens": 1700, "output_tokens": 300}
    served = []
    for accounts in (400, 800):
        served.append(0)
        with Guard.from_policies(policies) as guard:
            for turn, (at, facts) in enumerate(campaign("chat", 0)):
                if at >= MONDAY + 7 * DAY:
                    break
                own = {"client.network": f"203.0.{turn % 200}.0/32", "account.created": MONDAY - 3}
                for number in range(turn % 10, accounts, 10):
                    known = {**facts, **own, "account.id": f"a{number}"}
                    decision = guard.decide(known, {**usage, "requests": 10}, now=at)
                    if decision.allowed:
                        served[-1] += 10
                        guard.settle(decision, usage, now=at)

    assert served == [TOGETHER, TOGETHER]

"""The shipped policy set does what its comments promise, to whom they promise it."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
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

# What an account of two months at most may take before it has shown an ID: agents and code for
# life, all of it in a month; and accounts without an ID that act as one, together in a month.
TRIAL, MONTH, ACTOR = 100, 150, 200


class Row(NamedTuple):
    """Some requests of the sample week alike, and what the shipped set made of them."""

    made_as: str
    shock: str
    account: str
    known: bool
    sensitive: bool
    requests: int
    effect: Effect
    rule: str | None
    remedy: str | None

    @property
    def honest(self) -> bool:
        return not self.made_as.endswith("operator")


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_policies([ROOT / "policies"])


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
                known=request.facts["account.tier"] in ("verified", "enterprise"),
                sensitive=request.facts["request.capability"] in ("agentic", "code"),
                requests=int((request.estimate or {}).get("requests", 1)),
                effect=decision.effect,
                rule=decision.rule,
                remedy=decision.remedy,
            )
            for _, _, request, decision in Replay(guard).run(recorded_requests(source, BadLines()))
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


def test_verified_customers_are_served_all_they_ask_for(rows: list[Row]) -> None:
    """Fewer than one in a thousand may be refused; in this week nobody is."""
    known = [row for row in rows if row.honest and row.known]

    assert requests_of(known) > 60_000
    assert [row for row in known if row.effect is not Effect.ALLOW] == []


def test_customers_without_an_id_are_at_worst_asked_for_one(rows: list[Row]) -> None:
    refused = [row for row in rows if row.honest and row.effect.refuses]

    assert refused
    assert {row.remedy for row in refused} == {"verify"}
    assert not any(row.known for row in refused)


def test_a_course_on_one_card_is_asked_for_ids_and_not_before_it_has_tried(
    rows: list[Row],
) -> None:
    course = [row for row in rows if row.shock == "bootcamp card"]
    refused = [row for row in course if row.effect.refuses]

    assert len({row.account for row in course}) == 20
    assert requests_of(course) - requests_of(refused) >= ACTOR
    assert {(row.rule, row.remedy) for row in refused} <= {
        ("actor-month", "verify"),
        ("unverified-month", "verify"),
    }


def table_of(rows: Iterable[Row]) -> list[str]:
    """Return what the README tells of honest customers by segment, as lines of its table."""
    segments: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        segments[row.made_as].append(row)
        if row.honest:
            segments["all honest"].append(row)
            segments["all honest, ID shown" if row.known else "all honest, no ID shown"].append(row)

    def cells(name: str) -> str:
        of = segments[name]
        refused = [row for row in of if row.effect.refuses]
        hit = {row.account for row in refused}
        asked = requests_of(row for row in refused if row.remedy == "verify")
        return (
            f"| {name} | {len({row.account for row in of})} | {requests_of(of):,} "
            f"| {requests_of(refused):,} | {asked:,} | {len(hit)} |"
        )

    return [cells(name) for name in sorted(segments, key=_in_order)]


def _in_order(name: str) -> tuple[bool, bool, str]:
    return name.endswith("operator"), name.startswith("all"), name


def test_the_readme_tells_whom_the_shipped_policies_refuse_in_the_sample_week(
    rows: list[Row],
) -> None:
    told = (ROOT / "README.md").read_text("utf-8").splitlines()
    first = table_of(rows)[0]

    assert first in told
    start = told.index(first)
    assert told[start : start + len(table_of(rows)) + 1] == [*table_of(rows), ""]


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

    assert max(served_by_account(farmed).values()) <= MONTH
    assert max(served_by_account(row for row in farmed if row.sensitive).values()) <= TRIAL


def test_the_naive_operator_is_served_nothing(rows: list[Row]) -> None:
    farm = [row for row in rows if row.made_as == "naive operator"]

    assert len({row.account for row in farm}) == 50
    assert {row.effect for row in farm} == {Effect.BLOCK}


def test_the_careful_operator_is_seen_to_be_fewer_actors_than_accounts(rows: list[Row]) -> None:
    farm = [row for row in rows if row.made_as == "careful operator"]
    refused = [row for row in farm if row.effect.refuses]
    by_actor = requests_of(row for row in refused if row.rule == "actor-month")

    assert len({row.account for row in farm}) == 100
    assert {row.rule for row in refused} == {"actor-month", "trial-of-agents-and-code"}
    assert by_actor > 0.9 * requests_of(refused)
    assert 0.5 < requests_of(refused) / requests_of(farm) < 1


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
    [("agentic", 8, TRIAL), ("chat", 8, TRIAL), ("chat", 0, 2 * MONTH)],
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

    assert served == most
    assert served / LIFETIME < 0.27

"""The shipped policy set does what its comments promise, to whom they promise it."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
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
SAMPLE = ROOT / "examples" / "traffic" / "sample-week.jsonl.gz"
MONDAY = 1772409600.0
DAY = 86400

# What the campaign was alleged to be.
ACCOUNTS, EXCHANGES, DAYS = 25_000, 28_800_000, 45
LIFETIME = EXCHANGES // ACCOUNTS

TRIAL = 50
TOKENS = 500_000


class Row(NamedTuple):
    """One request of the sample, and what the shipped set made of it."""

    label: str
    segment: str
    account: str
    tier: str
    sensitive: bool
    tokens: int
    effect: Effect
    rule: str | None

    @property
    def known(self) -> bool:
        return self.tier in ("verified", "enterprise")


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_policies([ROOT / "policies"])


@pytest.fixture(scope="module")
def rows(policies: PolicySet) -> list[Row]:
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        made_as = [json.loads(line) for line in lines]
    with Guard.from_policies(policies) as guard, LineSource(str(SAMPLE)) as source:
        return [
            Row(
                label=made_as[line - 1]["label"],
                segment=made_as[line - 1]["segment"],
                account=str(request.facts.get("account.id", request.facts.get("client.network"))),
                tier=str(request.facts.get("account.tier", "anonymous")),
                sensitive=request.facts["request.capability"] in ("agentic", "code"),
                tokens=sum((request.usage or {}).values()),  # type: ignore[arg-type]
                effect=decision.effect,
                rule=decision.rule,
            )
            for line, _, request, decision in Replay(guard).run(
                recorded_requests(source, BadLines())
            )
        ]


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
    """Fewer than one in a thousand may be refused; with these figures nobody is."""
    known = [row for row in rows if row.label == "ordinary" and row.known]

    assert len(known) > 8_000
    assert [row for row in known if row.effect is not Effect.ALLOW] == []


@pytest.mark.parametrize(
    "segment",
    ["whale", "traveller", "expat", "by-address", "production", "seat", "family", "visitor"],
)
def test_customers_who_look_odd_are_served(rows: list[Row], segment: str) -> None:
    effects = {row.effect for row in rows if row.segment == segment}

    assert effects == {Effect.ALLOW}


def test_a_hackathon_behind_one_address_works(rows: list[Row]) -> None:
    hall = [row for row in rows if row.segment == "hackathon"]
    refused = {row.account for row in hall if row.effect.refuses}

    assert len({row.account for row in hall}) > 40
    assert len(refused) <= 2
    assert {row.rule for row in hall if row.effect.refuses} <= {"sensitive-per-day"}


def test_unverified_customers_are_at_worst_asked_to_verify(rows: list[Row]) -> None:
    unknown = [row for row in rows if row.label == "ordinary" and not row.known]
    refused = Counter(row.segment for row in unknown if row.effect.refuses)
    rules = {row.rule for row in unknown if row.effect.refuses}

    assert rules <= {"sensitive-per-day", "trial-of-agents-and-code", "agents-from-rented-networks"}
    assert sum(refused[segment] for segment in refused if segment != "newcomer") <= 10


def test_the_readme_tells_how_many_requests_of_honest_customers_are_refused(
    rows: list[Row],
) -> None:
    ordinary = [row for row in rows if row.label == "ordinary"]
    unknown = [row for row in ordinary if not row.known]
    sent = Counter(row.segment for row in unknown)
    refused = Counter(row.segment for row in ordinary if row.effect.refuses)
    told = (ROOT / "README.md").read_text("utf-8").split("Of the 8,690 requests")[1]
    paragraph = " ".join(told.split("\n\n")[0].split())

    assert len(ordinary) - len(unknown) == 8_690
    assert paragraph.startswith(
        f"of ordinary verified customers in that week, none is refused; of all {len(ordinary):,} "
        f"requests of honest customers, {refused.total()} are: {refused['newcomer']} of the "
        f"{sent['newcomer']} that newcomers send before they verify, {refused['hackathon']} of "
        f"{sent['hackathon']} at a hackathon and {refused['hobby']} of {sent['hobby']} by hobbyists"
    )
    assert refused.keys() == {"newcomer", "hackathon", "hobby"}


def test_customers_who_are_known_are_never_shut_out_for_coming_too_often(
    policies: PolicySet,
) -> None:
    banning = {rule.id for rule in policies.rules if rule.escalate is not None}
    usage = {"input_tokens": 1, "output_tokens": 1}
    for tier in ("verified", "enterprise"):
        facts = {"account.id": tier, "account.tier": tier, "geo.country": "DE"}
        with Guard.from_policies(policies) as guard:
            for second in range(3600):
                guard.decide(facts, {**usage, "requests": 60}, now=MONDAY + second)
            decision = guard.decide(facts, usage, now=MONDAY + 3602)

        assert decision.allowed, tier
    assert banning == {"requests-per-minute"}


def test_newcomers_work_on_once_they_have_verified(rows: list[Row]) -> None:
    newcomers = [row for row in rows if row.segment == "newcomer" and row.known]

    assert len(newcomers) > 300
    assert {row.effect for row in newcomers} == {Effect.ALLOW}


def test_no_account_of_the_campaign_takes_more_than_its_trial(rows: list[Row]) -> None:
    served = [row for row in rows if row.label == "campaign" and not row.effect.refuses]
    taken = Counter(row.account for row in served if row.sensitive)
    tokens: Counter[str] = Counter()
    for row in served:
        tokens[row.account] += row.tokens

    assert max(taken.values()) == TRIAL
    assert max(tokens.values()) <= TOKENS


def test_the_naive_farm_is_cut_down_to_what_few_cards_allow(rows: list[Row]) -> None:
    farm = [row for row in rows if row.segment == "naive-farm"]
    served = {row.account for row in farm if not row.effect.refuses}
    cards = 4

    assert len({row.account for row in farm}) == 160
    assert len(served) <= 3 * cards


def test_the_careful_farm_is_held_by_the_trial_alone(rows: list[Row]) -> None:
    farm = [row for row in rows if row.segment == "careful-farm"]
    blocked = {row.rule for row in farm if row.effect is Effect.BLOCK}
    taken = sum(row.sensitive and not row.effect.refuses for row in farm)

    assert blocked == {"trial-of-agents-and-code"}
    assert taken == TRIAL * len({row.account for row in farm})


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
    [("agentic", 8, TRIAL), ("chat", 8, TRIAL), ("chat", 0, TOKENS // 2000)],
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
    assert served / LIFETIME < 0.22

"""Claims about all requests: proved where they are true, and else shown not to be."""

from __future__ import annotations

import pytest

from guardrail.analysis import proved
from guardrail.errors import PolicyError
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND
from tests.analysis.claimed import wrong

NOW = 1_780_000_000 * SECOND
POLICY = """\
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [free, paid], default: free}}
rules:
  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, block: {}}
  - id: trial
    when: {account.tier: free, request.capability: {in: [code, agentic]}}
    budget: {requests: 100, per: lifetime, key: account.id}
  - id: day
    when: {account.tier: paid}
    budget: {requests: 1000, per: day, key: account.id}
  - id: chat
    when: {account.tier: free, request.capability: {not_in: [code, agentic]}}
    unknown: skip
    budget: {requests: 50, per: lifetime, key: account.id}
prove:
  - {id: c, %s}
"""


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_a_claim_is_proved_if_and_only_if_it_is_true_of_all_requests(first):
    found = {seed: wrong(seed) for seed in range(first, first + 20)}

    assert {seed: problems for seed, problems in found.items() if problems} == {}


def test_many_kinds_of_claims_are_proved_or_shown_not_to_hold():
    def told(claim: str) -> object:
        (proof,) = proved(load_text(POLICY % claim), NOW)
        assert (proof.failure is None) is (proof.witness is None)
        return None if proof.witness is None else proof.witness.facts

    free = "when: {account.tier: free}, at_most: {requests: %s}, per: account.id, over: ever"
    assert told("when: {geo.country: CU}, always: block") is None
    assert told("when: {geo.country: CU}, always: block, by: embargo") is None
    assert told("when: {geo.country: CU}, never: [allow, degrade]") is None
    assert told("when: {geo.country: SY}, always: block") == {"geo.country": "SY"}
    assert told("when: {geo.country: CU}, always: block, by: trial") is not None
    assert told("when: {account.tier: paid}, never: block, unknown: match") == {
        "account.tier": "paid",
    }
    assert told(free % 150) is None
    assert told(free % 149) is not None
    paid = "when: {account.tier: paid}, at_most: {requests: %s}, per: account.id, over: %s"
    assert told(paid % (1000, "day")) is None
    assert told(paid % (2000, "1d")) is None  # a day that is not the calendar's has parts of two
    assert told(paid % (1999, "1d")) is not None
    assert told(paid % (1000, "ever")) == {
        "account.id": "other",
        "account.tier": "paid",
        "geo.country": "DE",
    }
    assert told("client_facts: [client.agent]") is None
    assert told("client_facts: never_admit") is not None


def test_a_claim_about_no_request_does_not_hold():
    claim = "when: {account.tier: {below: paid, at_least: paid}}, never: allow"
    (proof,) = proved(load_text(POLICY % claim), NOW)

    assert proof.failure == "is about no request: its `when` can never be true"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("when: always", "this claim says nothing"),
        ("when: always, never: block, always: allow", "this claim says `never` and `always`"),
        ("never: block", "missing `when`"),
        ("when: always, never: blok", "`blok` is not an effect"),
        ("when: always, never: []", "`never` is empty"),
        ("when: always, never: block, by: trail", "unknown rule `trail`"),
        ("when: always, never: block, per: account.id", "`per` does not apply to `never`"),
        ("when: always, at_most: {requests: 3}", "missing `per` and `over`"),
        ("when: always, at_most: {requsts: 3}, per: global, over: day", "unknown unit `requsts`"),
        ("when: always, at_most: {requests: x}, per: global, over: day", "`x` is not an amount"),
        ("client_facts: maybe", "`client_facts` is `never_admit` or a list of facts, not text"),
        ("client_facts: [geo.country]", "`geo.country` is the server's: a client says nothing of"),
        ("when: always, neve: block", "unknown key `neve`"),
    ],
)
def test_a_claim_that_is_written_wrongly_is_an_error_with_its_place(claim, message):
    with pytest.raises(PolicyError) as caught:
        load_text(POLICY % claim)

    found = [one for one in caught.value.diagnostics if message in one.message]
    assert found
    assert found[0].span.line == 17

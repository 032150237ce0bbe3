"""Questions about all requests that take too long: said to be unanswered, and never held proved."""

from __future__ import annotations

from itertools import combinations

from guardrail.analysis import analyse, compared, folded, proved
from guardrail.cli.claims_text import open_line, proofs_line
from guardrail.cli.machine import finding_fields, sarif
from guardrail.loading import load_text

NOW = 1_780_000_000_000_000
PIGEONS, HOLES = 6, 5


def tangled(verb: str = "block: {}", more: str = "") -> str:
    """Return a set with a rule for requests that put each of six into another one of five."""
    names = [f"x.p{number}" for number in range(PIGEONS)]
    holes = ", ".join(f"h{number}" for number in range(HOLES))
    facts = "".join(f"  {name}: {{type: enum, values: [{holes}]}}\n" for name in names)
    apart = "".join(
        f"        - any: [{{not: {{{a}: h{hole}}}}}, {{not: {{{b}: h{hole}}}}}]\n"
        for a, b in combinations(names, 2)
        for hole in range(HOLES)
    )
    there = "".join(f"        - {name}: {{exists: true}}\n" for name in names)
    rule = f"  - id: tangled\n    when:\n      all:\n{there}{apart}    unknown: skip\n    {verb}\n"
    plain = "  - {id: plain, when: {account.id: a1}, unknown: skip, block: {}}\n"
    return f"guardrail: 1\npolicy: p\nfacts:\n{facts}rules:\n{rule}{plain}{more}"


EXEMPTION = (
    "exemptions:\n  - {id: pilot, rules: [tangled], when: {account.id: a2}, reason: agreed, "
    "expires: 2198-12-31}\n"
)
CLAIMS = (
    "prove:\n  - {id: bound, when: always, never: block, by: tangled}\n"
    "  - {id: stopped, when: {account.id: a1}, always: block}\n"
)


def test_a_rule_that_is_too_entangled_is_told_and_the_others_are_still_looked_at():
    text = tangled(more="  - {id: idle, when: {account.id: a1}, unknown: skip, block: {}}\n")
    policies = load_text(text + EXEMPTION)
    told = {one.message.split(":")[0]: one.code for one in analyse(policies, NOW, effort=20)}

    assert told["rule `tangled` was not looked at to the end"] == "GR229"
    assert told["exemption `pilot` was not looked at to the end"] == "GR229"
    assert told["rule `idle` never decides"] == "GR202"
    assert "GR201" in {one.code for one in analyse(policies, NOW)}


def test_a_limit_that_is_too_entangled_is_told():
    shared = tangled("budget: {requests: 5, per: day, key: global}")
    codes = [one.code for one in analyse(load_text(shared), NOW, effort=20)]

    assert codes == ["GR229"]


def test_a_claim_that_is_left_open_does_not_hold_and_is_counted():
    policies = load_text(tangled() + CLAIMS)
    claims = proved(policies, NOW, effort=0)

    assert [(proof.claim.id, proof.is_open) for proof in claims if proof.failure] == [
        ("bound", True)
    ]
    assert proofs_line(claims) == "1 of 2 claims proved of all requests, 1 left unanswered"
    assert [proof.is_open for proof in proved(policies, NOW)] == [False, False]


def test_what_was_given_up_is_counted():
    found = analyse(load_text(tangled() + EXEMPTION), NOW, effort=20)

    assert open_line(found) == "2 questions about all requests left unanswered (GR229)"
    assert open_line([]) is None


def test_what_was_given_up_in_a_file_is_one_finding_that_names_all_of_it():
    found = analyse(load_text(tangled() + EXEMPTION), NOW, effort=20)
    one = folded(found)
    names = ("rule `tangled`", "exemption `pilot`")

    assert [each.about for each in found] == [names[:1], names[1:]]
    assert [each.about for each in one] == [names]
    assert one[0].message.startswith("rule `tangled`, exemption `pilot` were not looked at")
    assert one[0].span == found[0].span
    assert open_line(one) == open_line(found)
    assert finding_fields(one[0])["about"] == list(names)
    assert sarif(one)["runs"][0]["results"][0]["properties"] == {"about": list(names)}


def test_what_is_judged_by_examples_is_told():
    text = (
        "guardrail: 1\npolicy: p\nrules:\n  - id: own\n"
        '    when: {client.network: {prefix: "9."}, not: {client.network: {cidr: [9.0.0.0/9]}}}\n'
        "    unknown: skip\n    block: {}\n"
    )

    assert [one.code for one in analyse(load_text(text), NOW)] == ["GR229"]
    assert compared(load_text(text), load_text(text), NOW).unjudged


def test_what_is_asked_after_the_steps_of_a_set_is_told(monkeypatch):
    monkeypatch.setattr("guardrail.analysis.space.STEPS", 5)
    policies = load_text(tangled() + EXEMPTION + CLAIMS)
    told = {one.message.split(":")[0]: one.code for one in analyse(policies, NOW)}

    assert told["rule `tangled` was not looked at to the end"] == "GR229"
    assert any(proof.is_open for proof in proved(policies, NOW))

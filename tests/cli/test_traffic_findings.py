"""What traffic shows of rules: found where it is so, and nowhere else."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import MONDAY, write_traffic

RULES = """\
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [email, verified]}}
rules:
  - {id: embargo, when: {geo.country: {in: [CU, IR]}}, unknown: %s, block: {}}
  - {id: dear, when: {request.model: {in: [%s, small]}}, unknown: skip, block: {}}
  - {id: both, when: {account.tier: email, geo.country: US}, unknown: skip, block: {}}
  - {id: later, when: {geo.country: FR}, unknown: skip, block: {}, from: 2030-01-01}
  - {id: idle, when: {geo.country: FR}, unknown: skip, block: {}, mode: "off"}
  - {id: day, when: always, budget: {requests: 900k, per: day, key: account.id}}
tests:
  - {name: t, facts: {account.id: a, geo.country: CU, request.model: other}, expect: block}
"""


def found(run: Any, folder: Path, rows: list[dict[str, Any]], *options: str, **parts: str) -> Any:
    """Return what `check` finds of some requests: code, severity and message."""
    text = RULES % (parts.get("unknown", "skip"), parts.get("model", "other"))
    (folder / "p.yaml").write_text(text)
    lines = [{"ts": MONDAY + turn, "facts": facts} for turn, facts in enumerate(rows)]
    write_traffic(folder / "t.jsonl", *lines)
    command = ("check", "p.yaml", "--traffic", "t.jsonl", "--format", "json", *options)
    told = json.loads(run(*command).out)
    every = [*told["warnings"], *told["unplaced"]]
    return [
        (one["code"], one["severity"], one["message"])
        for one in every
        if one["code"].startswith("GR30") and one["code"] < "GR305"
    ]


def plain(**facts: object) -> dict[str, Any]:
    return {"account.id": "a", "geo.country": "DE", "request.model": "small", **facts}


def test_a_rule_that_matched_nothing_says_what_was_there_instead(run, folder):
    rows = [plain(), plain(**{"geo.country": "US"}), plain(**{"request.model": "x"})]
    told = {message for code, _, message in found(run, folder, rows) if code == "GR301"}

    assert told == {
        "rule `embargo` matched none of 3 requests: `geo.country in [CU, IR]` never held: "
        "`geo.country` was DE 66.67%, US 33.33%",
        "rule `both` matched none of 3 requests: `account.tier = email` never held: "
        "`account.tier` was missing in all of them",
    }


def test_a_rule_whose_parts_held_but_never_together_says_so(run, folder):
    rows = [plain(**{"account.tier": "email"}), plain(**{"geo.country": "US"})]
    told = [message for code, _, message in found(run, folder, rows) if code == "GR301"]
    told = [message for message in told if "`both`" in message]

    assert told == [
        "rule `both` matched none of 2 requests: each part of its condition held for some, but "
        "never all of them at once"
    ]


def test_rules_that_matched_and_those_not_in_force_are_not_told(run, folder):
    rows = [
        plain(**{"geo.country": "CU"}),
        plain(**{"geo.country": "US", "account.tier": "email"}),
    ]
    told = found(run, folder, rows)

    assert [one for one in told if one[0] == "GR301"] == []


@pytest.mark.parametrize("spelt", ["Gpt-5", "gpt.5", "GPT_5"])
def test_a_value_spelt_nearly_as_one_that_came_is_a_fault(run, folder, spelt):
    rows = [plain(), plain(**{"request.model": "gpt-5"})]
    told = [one for one in found(run, folder, rows, model=spelt) if one[0] == "GR302"]

    assert [(code, severity) for code, severity, _ in told] == [("GR302", "warning")]
    assert f"names `{spelt}`, which no request's `request.model` was; `gpt-5`" in told[0][2]


@pytest.mark.parametrize("other", ["gpt-4", "gpt-50", "gpt", "acct_42"])
def test_a_value_that_is_another_is_no_fault(run, folder, other):
    rows = [plain(), plain(**{"request.model": "gpt-5"})]

    told = found(run, folder, rows, model=other)
    assert [one for one in told if one[1] == "warning"] == []


def test_values_that_nobody_had_are_one_note_a_fact(run, folder):
    rows = [plain(**{"geo.country": "CU"})] * 100
    told = [one for one in found(run, folder, rows) if one[0] == "GR302"]

    assert {one[1] for one in told} == {"note"}
    message = "rule `dear` names 1 value of `request.model` that no request had: other"
    assert message in {one[2] for one in told}


@pytest.mark.parametrize(
    ("lacking", "unknown", "severity"),
    [(4, "skip", None), (6, "skip", "note"), (6, "match", "warning"), (4, "match", None)],
)
def test_a_fact_that_is_often_missing_is_told(run, folder, lacking, unknown, severity):
    rows = [plain(**{"geo.country": "CU", "account.tier": "email"}) for _ in range(100)]
    for row in rows[:lacking]:
        del row["geo.country"]
    told = [one for one in found(run, folder, rows, unknown=unknown) if one[0] == "GR303"]

    assert [one[1] for one in told] == ([severity] if severity else [])
    if severity == "warning":
        assert told[0][2].endswith("that decided 6 requests")
    assert found(run, folder, rows, "--missing", "50%", unknown=unknown) == [
        one for one in found(run, folder, rows, unknown=unknown) if one[0] != "GR303"
    ]


def week(seed: int, keep: float, by_account: bool) -> list[dict[str, Any]]:
    """Return a sample of a week of sessions of 800 accounts."""
    chance = random.Random(seed)
    rows = []
    for account in range(800):
        if by_account and chance.random() > keep:
            continue
        for _ in range(chance.randrange(1, 8)):
            start = MONDAY + chance.random() * 6 * 86400
            for turn in range(chance.randrange(1, 12)):
                if by_account or chance.random() < keep:
                    facts = {"account.id": f"a{account}", "geo.country": "CU"}
                    rows.append({"ts": start + turn * 50, "facts": facts})
    return sorted(rows, key=lambda row: row["ts"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("keep", "by_account", "thin"), [(0.03, False, True), (0.03, True, False), (0.3, True, False)]
)
def test_a_sample_drawn_by_request_is_told_and_one_drawn_by_account_is_not(
    run, folder, seed, keep, by_account, thin
):
    (folder / "p.yaml").write_text(RULES % ("skip", "other"))
    rows = week(seed, keep, by_account)
    write_traffic(folder / "t.jsonl", *rows)
    outcome = run("check", "p.yaml", "--traffic", "t.jsonl", "--format", "concise")

    assert ("GR304 the sample looks drawn request by request" in outcome.out) is thin
    assert outcome.code == thin


@pytest.mark.parametrize("first", ["small", "gpt-5"])
def test_what_came_is_counted_whatever_came_first(run, folder, first):
    second = {"small": "gpt-5", "gpt-5": "small"}[first]
    names = [first, second, "third", second, first] * 3
    rows = [plain(**{"request.model": name}) for name in names]
    (folder / "p.yaml").write_text(
        "guardrail: 1\npolicy: p\n"
        "rules: [{id: bot, when: {request.model: Gpt-5}, unknown: skip, block: {}}]\n"
    )
    lines = [{"ts": MONDAY + turn, "facts": facts} for turn, facts in enumerate(rows)]
    write_traffic(folder / "t.jsonl", *lines)

    told = run("check", "p.yaml", "--traffic", "t.jsonl").out
    told = " ".join(told.replace("│", " ").split())
    assert "was gpt-5 40.00%, small 40.00%, third 20.00%" in told
    assert "`gpt-5` was that of 6" in told


def test_a_named_value_is_found_among_more_than_are_told_apart(run, folder):
    rows = [plain(**{"request.model": f"m{turn:04}"}) for turn in range(1_200)]
    rows += [plain(**{"request.model": "Zeta"}), plain(**{"request.model": "other"})]
    told = found(run, folder, rows, model="other, zeta")
    about = [message for code, _, message in told if code == "GR302" and "model" in message]

    assert any("`Zeta` was that of 1" in message for message in about)
    assert not any("other" in message for message in about)


@pytest.mark.parametrize(("kinds", "told"), [(4, "1 other"), (5, "2 others")])
def test_what_else_came_is_counted_in_words(run, folder, kinds, told):
    countries = ["DE", "FR", "GB", "IT", "NL"][:kinds]
    rows = [plain(**{"geo.country": country}) for country in countries]
    message = next(text for _, _, text in found(run, folder, rows) if "`embargo`" in text)

    assert message.endswith(f", {told}")


def test_a_rule_on_an_actor_that_is_an_account_by_itself_is_known_to_match(run, folder):
    rule = "{id: one, when: {actor.id: a7}, unknown: skip, block: {}}"
    (folder / "p.yaml").write_text(f"guardrail: 1\npolicy: p\nrules: [{rule}]\n")
    rows = [{"ts": MONDAY + n, "facts": {"account.id": f"a{n % 10}"}} for n in range(40)]
    write_traffic(folder / "t.jsonl", *rows)
    told = json.loads(run("check", "p.yaml", "--traffic", "t.jsonl", "--format", "json").out)

    assert told["warnings"] == []
    assert told["traffic"]["rules"][0]["matched"] == 4


KEYED = """\
guardrail: 1
policy: p
rules:
  - {id: day, when: always, budget: {requests: %s, per: day, key: account.id}}
  - {id: key, when: always, rate: {requests: 900k/minute, key: credential.id}}
  - {id: known, when: {credential.id: {exists: true}},
     rate: {requests: 9/minute, key: credential.id}}
tests:
  - {name: t, facts: {account.id: a}, expect: allow}
"""


@pytest.mark.parametrize(
    ("limit", "nameless", "expected"),
    [
        # Each rule lacks its fact in as many requests as say so; `known` never does.
        ("900k", 0, {("credential.id", "note")}),
        ("900k", 4, {("account.id", "note"), ("credential.id", "note")}),
        ("1", 4, {("account.id", "warning"), ("credential.id", "note")}),
    ],
)
def test_a_fact_that_a_rule_counts_by_and_that_is_often_missing_is_told(
    run, folder, limit, nameless, expected
):
    (folder / "p.yaml").write_text(KEYED % limit)
    rows = [{"geo.country": "DE"}] * nameless
    rows += [{"account.id": f"a{turn}", "geo.country": "DE"} for turn in range(12 - nameless)]
    rows[-1]["credential.id"] = "k"
    write_traffic(folder / "t.jsonl", *({"ts": MONDAY, "facts": facts} for facts in rows))
    told = json.loads(
        run("check", "p.yaml", "--traffic", "t.jsonl", "--format", "json").out,
    )["warnings"]
    keys = [one for one in told if "by which rule" in one["message"]]

    assert {(one["message"].split("`")[1], one["severity"]) for one in keys} == expected
    assert "is missing in 91.67% of the requests that it matched" in keys[-1]["message"]
    if ("account.id", "warning") in expected:
        assert "and decided 3 requests" in keys[0]["message"]


def test_rows_that_stand_for_no_request_are_told_not_hidden(run, folder):
    (folder / "m.yaml").write_text(
        "guardrail_map: 1\nformat: csv\nrows_with: n\nts: {column: t}\n"
        "facts: {account.id: {column: key}}\nusage: {requests: {column: n}}\n"
    )
    (folder / "log.csv").write_text(f"t,key,n\n{MONDAY},,\n{MONDAY + 60},k1,4\n")
    command = ("check", "policies", "--traffic", "log.csv", "--map", "m.yaml")
    told = run(*command, "--format", "json")

    assert json.loads(told.out)["traffic"]["map"]["rows_passed_over"] == 1
    assert json.loads(told.out)["traffic"]["requests"] == 1
    shown = " ".join(run(*command).out.split())
    assert "1 row without a value of `n` stand for no request" in shown


@pytest.mark.parametrize("mapped", [False, True])
def test_traffic_without_tokens_is_told_where_to_state_them(run, folder, mapped):
    (folder / "p.yaml").write_text(
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: day, when: always, budget: {tokens: 900k, per: day, key: account.id}}\n"
    )
    write_traffic(folder / "t.jsonl", {"ts": MONDAY, "facts": {"account.id": "a1"}})
    (folder / "m.yaml").write_text(
        "guardrail_map: 1\nts: {column: ts}\nfacts: {account.id: {column: facts.account.id}}\n"
    )
    options = ("--map", "m.yaml") if mapped else ()
    told = run("check", "p.yaml", "--traffic", "t.jsonl", "--format", "json", *options)
    (help,) = (one["help"] for one in json.loads(told.out)["warnings"] if one["code"] == "GR316")

    assert help.startswith("say in the map" if mapped else "record `usage`, or an `estimate`")


@pytest.mark.parametrize(("at", "told"), [(0, True), (315_532_799, True), (MONDAY, False)])
def test_times_that_no_log_of_requests_has_are_remarked(run, folder, at, told):
    (folder / "p.yaml").write_text(RULES % ("skip", "other"))
    write_traffic(folder / "t.jsonl", {"ts": at, "facts": {"account.id": "a"}})
    checked = run("check", "p.yaml", "--traffic", "t.jsonl", "--format", "json")

    remarks = json.loads(checked.out)["traffic"]["remarks"]
    assert any("before any log of requests" in remark for remark in remarks) is told

"""`guardrail lint`: what it tells of policies and their tests, and when it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from guardrail.cli.pages import document
from guardrail.loading import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
SET = """\
guardrail: 1
policy: p
rules:
  - id: banned
    when: {account.id: b}
    block: {}
tests:
  - {name: banned, facts: {account.id: b}, expect: {block: banned, by: banned}}
"""


def codes(out: str) -> list[str]:
    """Return the codes of the findings in an output, in their order."""
    return re.findall(r"^\S+:\d+:\d+:? (GR\d+)", out, re.MULTILINE)


@pytest.fixture
def written(folder):
    """Writes a policy set to `p.yaml`."""

    def write(text: str = SET) -> None:
        (folder / "p.yaml").write_text(text, "utf-8")

    write()
    return write


@pytest.mark.parametrize(("least", "code"), [("error", 0), ("warn", 0), ("note", 1)])
def test_a_note_fails_only_where_it_is_asked_to(run, written, least, code):
    outcome = run("lint", "p.yaml", "--fail-on", least)

    assert (outcome.code, codes(outcome.out)) == (code, ["GR204"])
    assert outcome.out.endswith("0 errors, 0 warnings, 1 note\n")


@pytest.mark.parametrize(("least", "code"), [("error", 0), ("warn", 1), ("note", 1)])
def test_a_warning_fails_unless_only_errors_are_to(run, written, least, code):
    unused = SET.replace("rules:", "lists: {gone: [a]}\nrules:")
    written(unused.replace("block: {}", "block: {}\n    unknown: skip"))
    outcome = run("lint", "p.yaml", "--fail-on", least)

    assert (outcome.code, codes(outcome.out)) == (code, ["GR208"])


def test_nothing_found_is_said(run, written):
    written(SET.replace("block: {}", "block: {}\n    unknown: match"))
    outcome = run("lint", "p.yaml")

    assert outcome.code == 0
    assert outcome.out.endswith("\nno findings\n")


@pytest.mark.parametrize("least", ["error", "warn", "note"])
def test_a_test_that_fails_is_an_error_with_what_came_instead(run, written, least):
    written(SET.replace("by: banned}", "by: banned, retry_after: 5}"))
    outcome = run("lint", "p.yaml", "--fail-on", least)

    assert outcome.code == 1
    assert "GR401" in codes(outcome.out)
    assert "test `banned` expects retry_after 5s, and got retry_after none" in outcome.out


def test_a_rule_that_no_test_decides_and_a_set_without_tests_are_notes(run, written):
    more = "  - {id: two, when: {account.id: c}, unknown: skip, block: {}}\ntests:"
    written(SET.replace("tests:", more))
    undecided = run("lint", "p.yaml")
    written(SET.replace("tests:", more).partition("tests:")[0])
    untested = run("lint", "p.yaml")

    assert codes(undecided.out) == ["GR204", "GR402"]
    assert "no test decides rule `two`" in undecided.out
    assert sorted(codes(untested.out)) == ["GR204", "GR402"]
    assert "there are no tests" in untested.out


def test_many_rules_that_no_test_decides_are_told_together(run, written):
    more = "".join(
        f"  - {{id: r{n}, when: {{account.id: a{n}}}, unknown: skip, block: {{}}}}\n"
        for n in range(21)
    )
    written(SET.replace("tests:", f"{more}tests:"))
    outcome = run("lint", "p.yaml")

    assert codes(outcome.out).count("GR402") == 1
    assert "no test decides rules `r0`, `r1`, `r2` and 18 more" in outcome.out


def test_a_store_that_forgets_is_told_once_and_only_where_it_is_named(run, written):
    written(
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: ever, when: always, budget: {requests: 9, per: lifetime, key: account.id}}\n"
        "  - {id: day, when: {account.id: a}, budget: {requests: 5, per: 2d, key: account.id}}\n"
        "  - {id: hour, when: always, budget: {requests: 2, per: 1h, key: account.id}}\n"
    )
    forgets = run("lint", "p.yaml", "--store", "memory://")

    assert codes(forgets.out).count("GR211") == 1
    assert "forgets at every restart what `ever` and `day` count" in forgets.out
    assert "GR211" not in run("lint", "p.yaml").out
    assert "GR211" not in run("lint", "p.yaml", "--store", "lmdb:///var/lib/x").out
    assert "GR211" not in run("lint", "p.yaml", "--store", "redis://localhost/0").out
    fleeting = run("lint", "p.yaml", "--store", "lmdb:///dev/shm/x").out
    assert "`lmdb:///dev/shm/x` forgets when its host starts anew what `ever`" in fleeting


def test_a_store_that_is_none_is_told_as_such(run, written):
    outcome = run("lint", "p.yaml", "--store", "memry://")

    assert outcome.code == 2
    assert "no store is known for `memry://`: did you mean `memory://`?" in outcome.err


def test_a_door_that_cannot_feed_a_rule_is_told(run, written):
    written(SET.replace("{account.id: b}\n", "{request.model: b}\n    unknown: skip\n"))

    assert "GR205" in codes(run("lint", "p.yaml", "--door", "authorizer").out)
    assert "GR205" not in codes(run("lint", "p.yaml").out)
    assert run("lint", "p.yaml", "--door", "asgy").code == 2


def test_a_comment_is_of_use_only_where_what_it_accepts_was_looked_for(run, written):
    written(
        SET.replace("when: {account.id: b}", "when: {account.id: b} # guardrail: ignore %s why")
    )
    text = Path("p.yaml").read_text()
    told = {}
    for code in ("GR204", "GR205", "GR211", "GR307", "GR502", "GR223", "GR401"):
        written(text.replace("%s", code))
        told[code] = codes(run("lint", "p.yaml").out)

    assert told.pop("GR204") == []
    assert told.pop("GR223") == ["GR204", "GR230"]
    assert set(map(tuple, told.values())) == {("GR204",)}
    written(text.replace("%s", "GR205"))
    assert "GR230" in codes(run("lint", "p.yaml", "--door", "asgi").out)


def test_a_claim_that_does_not_hold_is_told_unless_a_comment_accepts_it(run, written):
    claim = "prove:\n  - {id: all, when: {geo.country: CU}, always: block}%s\n"
    written(SET + claim % "")
    told = run("lint", "p.yaml")
    written(SET + claim % " # guardrail: ignore GR501 not yet")
    accepted = run("lint", "p.yaml")

    assert (told.code, codes(told.out)) == (1, ["GR204", "GR501"])
    assert (accepted.code, codes(accepted.out)) == (0, ["GR204"])


def test_check_tells_all_but_notes(run, written):
    written(SET.replace("rules:", "lists: {gone: [a]}\nrules:"))
    outcome = run("check", "p.yaml")

    assert (outcome.code, codes(outcome.out)) == (1, ["GR208"])
    assert codes(run("lint", "p.yaml").out) == ["GR208", "GR204"]


def test_every_format_tells_the_same_findings(run, written):
    written(SET.replace("rules:", "lists: {gone: [a]}\nrules:"))
    whole = json.loads(run("lint", "p.yaml", "--format", "json").out)
    lines = run("lint", "p.yaml", "--format", "jsonl").out.splitlines()
    sarif = json.loads(run("lint", "p.yaml", "--format", "sarif").out)
    concise = run("lint", "p.yaml", "--format", "concise").out
    commands = run("lint", "p.yaml", "--format", "github").out
    expected = [("GR208", "warning"), ("GR204", "note")]

    assert [(one["code"], one["severity"]) for one in whole["findings"]] == expected
    assert [json.loads(line)["code"] for line in lines if "GR" in line] == ["GR208", "GR204"]
    assert [one["ruleId"] for one in sarif["runs"][0]["results"]] == ["GR208", "GR204"]
    assert codes(concise) == ["GR208", "GR204"]
    assert re.findall(r"^::(\w+) .*\((GR\d+)\)", commands, re.MULTILINE) == [
        ("warning", "GR208"),
        ("notice", "GR204"),
    ]


def test_what_cannot_be_loaded_ends_as_for_every_command(run, written):
    written(SET.replace("block:", "blokc:"))

    assert run("lint", "p.yaml").code == 3
    assert run("lint", "nowhere").code == 2


def test_the_document_of_all_pages_is_made_from_them():
    written, made = (ROOT / "docs/rules.md").read_text("utf-8"), document()
    different = list(zip(written.split("\n"), made.split("\n"), strict=False))
    same = written == made

    assert same, next((pair for pair in different if pair[0] != pair[1]), "one is longer")
    assert [code for code in CATALOGUE if f"\n## {code}: " not in made] == []


def test_all_codes_are_listed(run):
    outcome = run("rule")

    assert outcome.code == 0
    assert re.findall(r"^(GR\d+)", outcome.out, re.MULTILINE) == list(CATALOGUE)
    assert re.search(r"^GR204 +note +rule that blocks whoever lacks a fact$", outcome.out, re.M)


def test_the_document_of_lint_has_every_code_that_is_looked_for_in_policies():
    text = (ROOT / "docs/lint.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (GR\d+) \| (\w+) \|", text, re.MULTILINE))

    assert set(rows) >= {code for code in CATALOGUE if code[2] in "24"}
    assert {code: str(CATALOGUE[code].severity) for code in rows} == rows


def test_the_schema_of_a_set_is_printed(run, written):
    outcome = run("schema", "p.yaml")
    schema = json.loads(outcome.out)

    assert outcome.code == 0
    assert schema["title"] == "guardrail policy files of `p`"
    assert schema["$defs"]["ConditionMap"]["additionalProperties"] is False
    assert json.loads(run("schema").out)["title"] == "guardrail policy file, version 1"
    assert run("schema", "p.yaml", "--of", "map").code == 2
    assert run("schema", "nowhere").code == 2

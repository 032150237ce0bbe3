"""`guardrail diff`: what it tells of two versions, where they may come from, and how it ends."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest

from tests.cli.conftest import POLICY
from tests.replay.reported import parts_of


@pytest.fixture
def versions(folder):
    """Return a function that writes the two versions of a policy, the new one changed."""

    def write(*changes: tuple[str, str]) -> None:
        text = POLICY
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        (folder / "old.yaml").write_text(POLICY)
        (folder / "new.yaml").write_text(text)

    return write


def test_what_did_not_change_is_said_to_be_proved(run, versions):
    versions()
    outcome = run("diff", "old.yaml", "new.yaml", "--exit-code")

    assert outcome.code == 0
    assert "Nothing became looser: no request is asked for less than before.\n" in outcome.out
    assert "Nothing became stricter.\n" in outcome.out


def test_a_country_that_is_left_out_is_named_with_a_request_that_explain_takes(run, versions):
    versions(("[CU, IR]", "[CU]"))
    outcome = run("diff", "old.yaml", "new.yaml", "--exit-code")
    request = '{"geo.country": "IR"}'

    assert outcome.code == 1
    assert "~ embargo  changed: applies to fewer requests" in outcome.out
    assert f"e.g. {request}\n           at first: block → allow\n" in outcome.out
    line = next(line for line in outcome.out.splitlines() if "guardrail explain" in line)
    words = shlex.split(line)
    assert run(*words[1:]).out.startswith("ALLOW")
    words[2] = "old.yaml"
    assert run(*words[1:]).out.startswith("BLOCK geo_embargo")
    assert run("diff", "old.yaml", "new.yaml").code == 0


def test_an_amount_is_judged_by_its_order(run, versions):
    versions(("tokens: 100,", "tokens: 200,"))
    looser = json.loads(run("diff", "old.yaml", "new.yaml", "--format", "json").out)
    tighter = json.loads(run("diff", "new.yaml", "old.yaml", "--format", "json").out)

    assert {one["rule"] for one in looser["looser"]} == {"tokens-per-day"}
    assert looser["looser"][-1]["was"].startswith("100 tokens per day for each `account.id`, then")
    assert looser["looser"][-1]["is"].startswith("200 tokens per day")
    assert looser["stricter"] == []
    assert looser["nothing_looser"] is False
    assert tighter["looser"] == []
    assert tighter["nothing_looser"] is True
    assert {one["rule"] for one in tighter["stricter"]} == {"tokens-per-day"}
    assert looser["counters"] == []


def test_counters_that_start_afresh_are_told(run, versions):
    versions(("per: day", "per: 1d"), ("id: burst", "id: bursts"))
    outcome = run("diff", "old.yaml", "new.yaml")

    assert "tokens-per-day starts afresh (another window)" in outcome.out
    assert "bursts starts afresh (`burst` has another id): add `was: burst`" in outcome.out
    assert "> bursts (was burst)  renamed" in outcome.out


def test_a_shadow_rule_asks_for_nothing_until_it_is_enforced(run, versions):
    versions(("    mode: shadow\n", ""))
    outcome = run("diff", "old.yaml", "new.yaml", "--format", "concise")

    assert "rule ~ burst changed: mode shadow → enforce\n" in outcome.out
    request = '{"geo.country": "DE"}'
    limit = "2 requests a minute, 2 at once for each `account.id`, then throttle"
    assert f"stricter burst: nothing -> {limit} e.g. {request}\n" in outcome.out
    assert outcome.out.endswith("0 looser, 1 stricter\n")


def git(*arguments: str) -> None:
    """Run git as nobody in particular."""
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(("git", *who, *arguments), check=True, capture_output=True)


def test_a_version_may_be_a_revision(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "set").mkdir()
    (folder / "set" / "p.yaml").write_text(
        POLICY.replace("in: [CU, IR]", "in: $embargoed").replace(
            "rules:", "lists: {embargoed: {file: e.txt}}\nrules:", 1
        )
    )
    (folder / "set" / "e.txt").write_text("CU\nIR\n")
    git("init", "-q")
    git("add", "set")
    git("commit", "-qm", "first")
    (folder / "set" / "e.txt").write_text("CU\n")
    outcome = run("diff", "HEAD:set/", "set")

    assert outcome.code == 0, outcome.err
    assert 'e.g. {"geo.country": "IR"}\n' in outcome.out
    assert run("diff", "HEAD:set", "HEAD:set").out.count("Nothing became looser") == 1
    for wrong, said in {
        "no-such:set": "git knows no revision `no-such`",
        "HEAD:sets": "git says: fatal: pathspec 'sets' did not match any files",
        "HEAD:../set": "write the path as it is in the repository",
        "set/q.yaml": "there is no `set/q.yaml`",
    }.items():
        failed = run("diff", wrong, "set")
        assert failed.code == 2
        assert said in failed.err
    (folder / "set" / "p.yaml").write_text("guardrail: 1\npolicy: p\nrulez: []\n")
    git("commit", "-qam", "broken")
    broken = run("diff", "HEAD:set", "set")
    assert broken.code == 3
    assert broken.out.startswith("HEAD:set/p.yaml:")


def test_a_list_of_a_revision_may_stand_beside_its_policies(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "set").mkdir()
    (folder / "lists").mkdir()
    policy = POLICY.replace("in: [CU, IR]", "in: $embargoed").replace(
        "rules:", "lists: {embargoed: {file: ../lists/e.txt}}\nrules:", 1
    )
    (folder / "set" / "p.yaml").write_text(policy)
    (folder / "lists" / "e.txt").write_text("CU\nIR\n")
    git("init", "-q")
    git("add", "set", "lists")
    git("commit", "-qm", "first")
    (folder / "lists" / "e.txt").write_text("CU\n")

    for old in ("HEAD:set", "HEAD:set/p.yaml"):
        assert 'e.g. {"geo.country": "IR"}\n' in run("diff", old, "set").out
    git("rm", "-q", "--cached", "lists/e.txt")
    git("commit", "-qm", "without")
    lost = run("diff", "HEAD:set", "set")
    assert lost.code == 3
    assert "it is looked for beside `HEAD:set/p.yaml`" in lost.out


def test_a_revision_outside_of_a_repository_is_said_to_be_none(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    failed = run("diff", "main:policies/", "policies")

    assert failed.code == 2
    assert "there is no `main:policies/`, and no git repository here" in failed.err


def test_a_claim_that_does_not_hold_is_a_finding_of_check_and_test(run, folder):
    claim = "prove: [{id: ir-blocked, when: {geo.country: {in: [IR, SY]}}, always: block}]\n"
    (folder / "policies" / "prove.yaml").write_text(f"guardrail: 1\n{claim}")
    for command in ("check", "test"):
        outcome = run(command, "policies")
        assert outcome.code == 1
        assert (
            "prove.yaml:2:9 GR501 claim `ir-blocked` does not hold: a request gets" in outcome.out
        )
        assert """guardrail explain policies --request '{"geo.country": "SY"}'""" in outcome.out
        assert "0 of 1 claim proved of all requests" in outcome.out
    (folder / "policies" / "prove.yaml").write_text(
        f"guardrail: 1\n{claim}".replace("[IR, SY]", "[IR]")
    )

    assert run("check", "policies").code == 0
    fields = json.loads(run("check", "policies", "--format", "json").out)
    assert fields["claims"] == [
        {
            "id": "ir-blocked",
            "holds": True,
            "failure": None,
            "answered": True,
            "request": None,
        }
    ]


def test_a_page_tells_over_traffic_what_changed(run, versions, folder):
    versions(("tokens: 100,", "tokens: 200,"))
    plain = run("diff", "old.yaml", "new.yaml", "--traffic", "week.jsonl")
    given = ("--traffic", "week.jsonl", "--report", "out.html")
    outcome = run("diff", "old.yaml", "new.yaml", *given)
    told = json.loads(run("diff", "old.yaml", "new.yaml", *given, "--format", "json").out)
    text = (folder / "out.html").read_text("utf-8")
    found = parts_of(text)

    assert outcome.out == f"{plain.out}report   written to `out.html`\n"
    assert told["traffic"]["looser"]
    for one in told["traffic"]["looser"]:
        cells = f"{one['requests']} {one['accounts']} no longer {one['rule']}"
        assert cells in found["looser"]
        assert f"line {one['first']['line']}" in found["looser"]
    matrix = told["traffic"]["matrix"]
    counts = " ".join(f"{matrix['throttle'][now]}" for now in matrix)
    assert f"told to wait {counts}" in found["matrix"]
    assert "before 100 per day, now 200 per day" in found["changed"]
    assert "tokens-per-day 100 tokens per day for each `account.id`" in found["looser"]


def test_a_page_is_the_same_from_several_processes(run, versions, folder):
    versions(("tokens: 100,", "tokens: 200,"))
    given = ("diff", "old.yaml", "new.yaml", "--traffic", "week.jsonl", "--report")
    run(*given, "one.html")
    run(*given, "two.html", "--workers", "2")

    assert (folder / "one.html").read_text("utf-8") == (folder / "two.html").read_text("utf-8")


def test_a_page_of_one_version_says_that_none_became_looser(run, versions, folder):
    versions()
    given = ("--traffic", "week.jsonl", "--report", "out.html")
    assert run("diff", "old.yaml", "new.yaml", *given, "--exit-code").code == 0
    found = parts_of((folder / "out.html").read_text("utf-8"))

    assert "none . No decision became looser." in found["looser"]
    assert "and that is proved" in found["looser"]
    assert "changed" not in found


def test_a_page_names_accounts_by_number_unless_asked(run, versions, folder):
    versions(("[CU, IR]", "[CU, IR, DE]"))
    given = ("--traffic", "week.jsonl", "--report", "out.html")
    run("diff", "old.yaml", "new.yaml", *given)
    hidden = (folder / "out.html").read_text("utf-8")
    run("diff", "old.yaml", "new.yaml", *given, "--show-identifiers")
    shown = (folder / "out.html").read_text("utf-8")

    assert "account 1 " in parts_of(hidden)["first"]
    assert not re.search(r"\ba[0-9]\b", hidden)
    assert re.search(r"\ba[0-9]\b", parts_of(shown)["first"])


def test_a_page_needs_traffic_and_does_not_overwrite_it(run, versions, folder):
    versions()
    outcome = run("diff", "old.yaml", "new.yaml", "--report", "out.html")
    assert (outcome.code, outcome.err) == (
        2,
        "error: `--report` replays traffic: give it with `--traffic`\n",
    )
    before = (folder / "week.jsonl").read_bytes()
    given = ("--traffic", "week.jsonl", "--report", "week.jsonl")
    outcome = run("diff", "old.yaml", "new.yaml", *given)
    assert outcome.code == 2
    assert "would overwrite the traffic" in outcome.err
    assert (folder / "week.jsonl").read_bytes() == before


def test_a_fact_that_one_of_the_versions_does_not_know_is_named(run, versions):
    versions(("facts:\n", "facts:\n  account.seats: {type: integer, source: server}\n"))
    outcome = run(
        "diff", "old.yaml", "new.yaml", "--traffic", "week.jsonl", "--by", "account.seats"
    )

    assert outcome.code == 2
    assert "there is no fact `account.seats`" in outcome.err


TABLES = """\
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [free, email, paid], default: free}}
models: {small: {price: {input: 1, output: 1}, max_output: 10}}
tables:
  daily: {by: account.tier, free: 10, email: 100, paid: 5000}
  earned: {by: account.paid_usd, bands: {0: 50, 20: 500, 500: unlimited}}
rules:
  - {id: day, when: always, budget: {requests: $daily, per: day, key: account.id}}
  - {id: grown, when: always, budget: {cost_usd: $earned, per: month, key: account.id}}
  - {id: flight, when: always, concurrency: {max: 4, key: account.id}}
exemptions:
  - {id: pilot, rules: [flight], when: {account.id: a}, raise: {max: 9}, reason: x,
     expires: 2198-01-01}
tests:
  - {name: stays, facts: {account.id: a}, expect: allow}
  - {name: goes, facts: {account.id: a}, expect: allow}
prove:
  - {id: stopped, when: {account.id: b}, never: degrade}
expect:
  - {refused: {lte: 5%}}
"""


@pytest.fixture
def tables(run, folder):
    """Compares a set of tables with what becomes of it when some words are others."""

    def compared(*words: tuple[str, str]) -> dict:
        text = TABLES
        for before, after in words:
            assert before in text
            text = text.replace(before, after)
        (folder / "a.yaml").write_text(TABLES, "utf-8")
        (folder / "b.yaml").write_text(text, "utf-8")
        found: dict = json.loads(run("diff", "a.yaml", "b.yaml", "--format", "json").out)
        return found

    return compared


def test_a_row_of_a_named_table_is_judged_by_order_with_a_request(tables):
    found = tables(("email: 100, paid: 5000", "email: 500, paid: 400"))
    (rule,), (looser,), (stricter,) = found["rules"], found["looser"], found["stricter"]

    assert rule["differs"] == ["amount by account.tier (email: 100 → 500, paid: 5,000 → 400)"]
    assert looser["was"].startswith("100 requests")
    assert looser["is"].startswith("500 requests")
    assert looser["request"]["facts"] == {"account.tier": "email"}
    assert stricter["request"]["facts"] == {"account.tier": "paid"}


def test_bands_are_compared_from_each_start(tables):
    found = tables(("20: 500,", "20: 500, 100: 600,"))
    (looser,) = found["looser"]

    assert found["rules"][0]["differs"] == ["amount by account.paid_usd (from 100: 500 → 600)"]
    assert looser["request"]["facts"] == {"account.paid_usd": 100}
    assert found["stricter"] == []


def test_a_raised_amount_and_another_kind_of_amount_are_told(tables):
    raised = tables(("max: 9", "max: 12"))
    another = tables(("max: 4", "max: {by: account.tier, paid: 8, else: 4}"))

    assert raised["rules"][0]["differs"] == ["raised by pilot: 9 → 12"]
    assert raised["looser"][0]["request"]["facts"] == {"account.id": "a"}
    assert another["rules"][0]["differs"] == ["amount 4 → by account.tier"]


@pytest.mark.parametrize("clock", ["time.hour: {gte: 22}", "time.weekday: {in: [sat, sun]}"])
def test_rules_by_the_hour_are_not_judged_where_the_time_zone_differs(run, folder, clock):
    text = f"""\
guardrail: 1
policy: zones
defaults: {{timezone: Asia/Tokyo}}
rules:
  - {{id: shut, when: {{{clock}}}, block: {{}}}}
  - {{id: day, when: always, budget: {{requests: 9, per: day, key: account.id}}}}
"""
    (folder / "old.yaml").write_text(text)
    (folder / "new.yaml").write_text(text.replace("Asia/Tokyo", "UTC"))
    found = json.loads(run("diff", "old.yaml", "new.yaml", "--format", "json").out)

    assert found["unjudged"] == [
        "what hour and what day it is changes with the time zone: when `shut` applies is not judged"
    ]
    assert not found["nothing_looser"]
    assert run("diff", "old.yaml", "new.yaml", "--exit-code").code == 1
    (folder / "new.yaml").write_text(text.replace("9, per", "8, per"))
    assert json.loads(run("diff", "old.yaml", "new.yaml", "--format", "json").out)["unjudged"] == []


def test_tests_and_claims_that_are_not_the_same_are_noted(tables):
    changed = tables(("name: goes", "name: comes"), ("never: degrade", "never: throttle"))
    expected = tables(
        ("name: stays, facts: {account.id: a}", "name: stays, facts: {account.id: b}")
    )

    assert changed["notes"] == [
        "test `goes` no longer there, test `comes` new",
        "claim of `prove` `stopped` changed",
    ]
    assert expected["notes"] == ["test `stays` changed"]
    assert tables()["notes"] == []
    assert "expectation" in tables(("lte: 5%", "lte: 6%"))["notes"][0]

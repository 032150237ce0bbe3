"""`guardrail diff --traffic`: what may be asked of it, and what it says of the traffic it read."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.cli.conftest import POLICY, request, write_traffic
from tests.cli.interrupting import interrupted

LATER = "  - {id: closed, when: {geo.country: DE}, from: 2026-04-01, block: {}}\n"
DIFF = ("diff", "old.yaml", "new.yaml", "--traffic", "week.jsonl")


@pytest.fixture(autouse=True)
def versions(folder):
    """Two versions: the new one allows less a day, and has a rule that begins after the traffic."""
    (folder / "old.yaml").write_text(POLICY)
    changed = POLICY.replace("tokens: 100,", "tokens: 60,")
    (folder / "new.yaml").write_text(changed.replace("tests:\n", f"{LATER}tests:\n"))


def counted(run, *options: str) -> Counter[tuple[str, str]]:
    """Return how `check` decides the week by both versions, line by line."""
    effects = []
    for version in ("old.yaml", "new.yaml"):
        given = ("--traffic", "week.jsonl", "--decisions", "out.jsonl", "--format", "concise")
        run("check", version, *given, *options)
        with open("out.jsonl") as file:
            effects.append([json.loads(line)["effect"] for line in file])
    return Counter(zip(*effects, strict=True))


def matrix(run, *options: str) -> Counter[tuple[str, str]]:
    """Return how `diff` says that both versions decide the week."""
    told = json.loads(run(*DIFF, *options, "--format", "json").out)["traffic"]["matrix"]
    return Counter(
        {(was, now): count for was, row in told.items() for now, count in row.items() if count}
    )


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--today", "2026-04-02"),
        ("--sample", "50%", "--sample-key", "b"),
        ("--seed-counters", "saved"),
        ("--store-down",),
    ],
    ids=lambda options: " ".join(options) or "none",
)
def test_a_comparison_is_that_of_two_replays_with_the_same_options(run, folder, options):
    seed = ("--traffic", "before.jsonl", "--save-counters", "saved")
    usage = {"input_tokens": 50, "output_tokens": 5}
    write_traffic(folder / "before.jsonl", *(request(turn, usage=usage) for turn in range(2)))
    run("check", "old.yaml", *seed)
    plain = matrix(run)
    found = matrix(run, *options)

    assert found == counted(run, *options)
    assert (found == plain) is (not options)


def test_several_processes_take_the_same_options_and_come_to_the_same(run):
    options = ("--today", "2026-04-02", "--sample", "80%", "--expect", "refused <= 1%")
    one = run(*DIFF, *options, "--format", "json")
    two = run(*DIFF, *options, "--format", "json", "--workers", "2")

    assert (two.out, two.code) == (one.out, one.code) == (one.out, 1)


def test_what_holds_throughout_is_remarked(run):
    out = run(*DIFF, "--today", "2026-04-02").out

    assert "rules and exemptions stand throughout as on 2026-04-02" in out
    assert "`--as-of" not in out


def test_lines_that_cannot_be_read_are_told_and_too_many_are_a_finding(run, folder):
    one, other = (request(turn, usage={"input_tokens": 1}) for turn in range(2))
    write_traffic(folder / "half.jsonl", one, "nonsense", other, "more nonsense")
    command = ("diff", "old.yaml", "old.yaml", "--traffic", "half.jsonl")
    outcome = run(*command)
    allowed = run(*command, "--bad-lines", "50%")
    told = json.loads(run(*command, "--format", "json").out)["traffic"]

    assert outcome.code == 1
    assert "traffic  2 requests, 1 account, " in outcome.out
    assert ", 2 bad lines\n" in outcome.out
    assert "bad line half.jsonl:2: not JSON\n" in outcome.out
    assert "GR305 2 of 4 lines could not be read (50.00%)" in outcome.out
    assert (allowed.code, "GR305" in allowed.out) == (0, False)
    assert told["bad_lines"]["count"] == 2
    assert [one["line"] for one in told["bad_lines"]["first"]] == [2, 4]


MAP = """\
guardrail_map: 1
ts: {column: at}
facts:
  account.id: {column: who}
  geo.country: {column: from.country}
"""


def test_a_map_that_misses_the_log_is_no_comparison_without_changes(run, folder):
    (folder / "m.yaml").write_text(MAP)
    write_traffic(folder / "log.jsonl", {"at": 1772409600, "who": "a"})
    given = ("--traffic", "log.jsonl", "--map", "m.yaml")
    outcome = run("diff", "old.yaml", "old.yaml", *given)

    assert "no decision became looser" in outcome.out
    assert "GR308 column `from.country`, which the map names, has no value" in outcome.out
    assert outcome.code == 1


def test_a_column_that_a_csv_lacks_is_named(run, folder):
    (folder / "m.yaml").write_text(MAP.replace("\nts:", "\nformat: csv\nts:"))
    (folder / "log.csv").write_text("at,user\n1772409600,a\n")
    outcome = run("diff", "old.yaml", "old.yaml", "--traffic", "log.csv", "--map", "m.yaml")

    assert outcome.code == 2
    assert "`log.csv` has no column `from.country` that the map names" in outcome.err


def test_what_the_new_version_was_expected_to_come_to_is_judged(run):
    expected = ("--expect", "account.tier=email refused <= 10%", "--expect", "bad lines <= 1%")
    outcome = run(*DIFF, *expected, "--format", "full", "--format", "junit=out.xml")
    with open("out.xml") as file:
        junit = file.read()

    assert outcome.code == 1
    assert "expect   1 of 2 expectations of traffic hold" in outcome.out
    assert "GR502 expected `account.tier = email refused <= 10%`, but it is" in outcome.out
    assert junit.count("<testcase") == 3
    assert "<failure" in junit


@pytest.mark.parametrize(
    "option",
    [
        ("--today", "2026-04-02"),
        ("--map", "nginx"),
        ("--sample", "5%"),
        ("--expect", "blocked <= 1%"),
        ("--by", "geo.country"),
        ("--warmup", "1d"),
        ("--store-down",),
        ("--workers", "2"),
    ],
    ids=lambda option: option[0],
)
@pytest.mark.parametrize("command", [("diff", "old.yaml", "new.yaml"), ("check", "old.yaml")])
def test_what_is_about_traffic_is_refused_without_any(run, command, option):
    outcome = run(*command, *option)

    assert (outcome.code, outcome.out) == (2, "")
    assert f"error: `{option[0]}` " in outcome.err
    assert "give it with `--traffic`" in outcome.err


@pytest.mark.parametrize("option", ["--seed-counters", "--save-counters"])
def test_a_store_that_is_down_has_no_counters(run, option):
    outcome = run("check", "old.yaml", "--traffic", "week.jsonl", "--store-down", option, "f")

    assert outcome.code == 2
    assert f"`--store-down` has no counters: leave `{option}` out" in outcome.err


def test_a_sample_that_draws_nobody_and_a_warm_up_of_all_are_said(run):
    nobody = run(*DIFF, "--sample", "0.0001%")
    nothing = run(*DIFF, "--warmup", "30d")

    assert (nobody.code, nothing.code) == (2, 2)
    assert "the sample drew no account: take a larger `--sample`" in nobody.err
    assert "no request is left after the warm-up" in nothing.err


def test_an_interrupted_comparison_tells_what_it_saw(folder):
    code, out, err = interrupted(*DIFF[:-1], "pipe.jsonl", folder=folder)

    assert "interrupted at `pipe.jsonl` line " in err
    assert code == 130
    assert "decisions: before ↓, after →" in out

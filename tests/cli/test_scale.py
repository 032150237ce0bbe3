"""Replays in several processes, in shards and of samples, as the command line has them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.conftest import request, write_traffic
from tests.cli.interrupting import interrupted
from tests.replay.test_parts import HEAD, POLICIES

ROOT = Path(__file__).resolve().parents[2]
WEEK = ROOT / "examples" / "traffic" / "sample-week.jsonl.gz"
TRAFFIC = ("--traffic", "week.jsonl")


def test_two_processes_and_three_shards_print_what_one_does(run, folder):
    with gzip.open(WEEK) as week:
        lines = b"".join(line for line, _ in zip(week, range(3_000), strict=False))
    (folder / "part.jsonl").write_bytes(lines)
    (folder / "linked.yaml").write_text(HEAD + POLICIES["global"] + POLICIES["links"])
    check = ["check", "linked.yaml", "--traffic", "part.jsonl", "--allow-empty"]
    check += ["--by", "account.tier,network.kind"]
    one = run(*check, "--format", "json", "--decisions", "d1")
    two = run(*check, "--format", "json", "--decisions", "d2", "--workers", "2")
    for shard in (1, 2, 3):
        run(*check, "--shard", f"{shard}/3", "--result", f"r{shard}")
    merged = run("merge", "r3", "r1", "r2", "--format", "json", "--allow-empty")

    assert two.out == merged.out == one.out
    assert two.code == merged.code == one.code
    assert json.loads(one.out)["traffic"]["requests"] == 3_000
    assert (folder / "d1").read_bytes() == (folder / "d2").read_bytes()
    assert "note: 2 parts by account; accounts stay together that share counters of `all`" in (
        two.err
    )


def test_a_part_says_what_it_is_and_that_all_are_to_be_merged(run):
    outcome = run("check", "policies", *TRAFFIC, "--shard", "2/2", "--result", "r2")

    assert outcome.code == 0
    assert "part 2 of 2" in outcome.out
    assert "merge all 2 with `guardrail merge`" in outcome.out
    assert "note: 2 parts by account: no rule counts for several accounts together" in outcome.err


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("always", "`all`: the largest such group has 100.00% of the requests, so one process"),
        (
            "{account.id: {in: [a, b]}}",
            "66.67% of the requests, so several processes are at most 1.5",
        ),
        ("{account.id: a}", "no rule counts for several accounts together"),
    ],
)
def test_how_far_accounts_can_be_divided_is_said(run, folder, when, told):
    (folder / "all.yaml").write_text(
        "guardrail: 1\npolicy: p\nrules:\n"
        f"  - {{id: all, when: {when}, budget: {{requests: 9, per: day, key: global}}}}\n"
    )
    write_traffic(folder / "abc.jsonl", *(request(0, account) for account in "abc"))
    shard = ("--traffic", "abc.jsonl", "--shard", "1/2", "--result", "r")
    outcome = run("check", "all.yaml", *shard)

    assert outcome.code == 0
    assert told in outcome.err


WRONG = {
    ("--workers", "2"): "`--workers` replays traffic: give it with `--traffic`",
    ("--sample", "5%"): "`--sample` replays traffic: give it with `--traffic`",
    (*TRAFFIC, "--shard", "1/2"): "`--shard K/N` and `--result OUT` go together",
    (*TRAFFIC, "--shard", "3/2", "--result", "r"): "`--shard 3/2` is no part: write `1/4`",
    (*TRAFFIC, "--shard", "x", "--result", "r"): "`--shard x` is no part: write `1/4`",
    (*TRAFFIC, "--workers", "2", "--store-down"): "`--store-down` does not go with `--workers`",
    (*TRAFFIC, "--workers", "2", "--store", "lmdb://x"): "`--store` does not go with `--workers`",
    (*TRAFFIC, "--workers", "2", "--save-counters", "c"): "`--save-counters` does not go with",
    (*TRAFFIC, "--workers", "2", "--shard", "1/2", "--result", "r"): "leave `--workers` out",
    ("--traffic", "-", "--workers", "2"): "`--traffic -` does not go with `--workers`",
}


@pytest.mark.parametrize("options", WRONG)
def test_what_does_not_go_together_is_said(run, options):
    outcome = run("check", "policies", *options)

    assert outcome.code == 2
    assert WRONG[options] in outcome.err


def shards(run, *names):
    for name in names:
        shard(run, name)


def shard(run, name, *options):
    part = f"{name[1]}/{name[2]}"
    run("check", "policies", *TRAFFIC, *options, "--shard", part, "--result", name)


def test_parts_that_are_no_whole_are_not_merged(run, folder):
    shards(run, "r13", "r23", "r33", "r12")
    (folder / "none").write_text("no result")

    for names, message in (
        (("r13", "r33"), "parts are missing: 2/3"),
        (("r13", "r23", "r33", "r13"), "a part is given twice"),
        (("r12", "r23", "r33"), "parts of different replays"),
        (("none",), "`none` is no result of a replay"),
        (("gone",), "cannot read `gone`"),
    ):
        outcome = run("merge", *names)

        assert (outcome.code, message in outcome.err) == (2, True), outcome.err

    policy = folder / "policies" / "public.yaml"
    policy.write_text(policy.read_text().replace("tokens: 100", "tokens: 200"))

    assert "have changed since the parts were replayed" in run("merge", "r13", "r23", "r33").err


def test_a_sample_that_draws_nobody_asks_for_a_larger_one(run):
    outcome = run("check", "policies", *TRAFFIC, "--sample", "0.0001%")

    assert outcome.code == 1
    assert "the sample drew no account: take a larger `--sample`" in outcome.out
    assert "no readable line" not in outcome.out


def test_a_sample_says_what_it_left_out(run):
    outcome = run("check", "policies", *TRAFFIC, "--sample", "50%", "--sample-key", "x")
    everybody = run("check", "policies", *TRAFFIC, "--sample", "100%")

    assert "a sample of 50% of the accounts: " in outcome.out
    assert "a sample of 100% of the accounts: 0 requests of others passed over" in everybody.out
    assert "36 requests" in everybody.out


SHARED = """
  - {id: card, when: always,
     distinct: {count: account.id, max: 3, per: 1d, key: payment.fingerprint}}
  - {id: own, when: always, budget: {requests: 9, per: day, key: actor.id}}
  - {id: "off", when: always, mode: "off", budget: {requests: 9, per: day, key: global}}
"""


def test_a_sample_names_the_rules_that_it_fills_less_than_all_accounts_do(run, folder):
    own = "guardrail: 1\npolicy: p\nrules:\n  - {id: day, when: always,"
    own += " budget: {requests: 9, per: day, key: account.id}}\n"
    (folder / "own.yaml").write_text(own)
    (folder / "shared.yaml").write_text(own + SHARED.strip("\n") + "\n")
    (folder / "linked.yaml").write_text(
        own + SHARED.strip("\n") + "\nlinks: {trusted: {account.paid_usd: {gte: 5}},"
        " strong: [payment.fingerprint]}\n"
    )
    told = {}
    for name in ("own", "shared", "linked"):
        outcome = run("check", f"{name}.yaml", *TRAFFIC, "--sample", "100%", "--format", "json")
        remarks = json.loads(outcome.out)["traffic"]["remarks"]
        told[name] = next(one for one in remarks if one.startswith("a sample"))

    assert "so the sample is exact for each of them" in told["own"]
    assert "; `card` may count several accounts together" in told["shared"]
    assert "; `card`, `own`, links may count several accounts together" in told["linked"]


def test_counters_are_saved_and_gone_on_with(run, folder):
    saved = run("check", "policies", *TRAFFIC, "--save-counters", "c.jsonl")
    row = {
        "ts": 1772409600 + 604_000 + 60,
        "facts": {"account.id": "a4", "geo.country": "DE", "request.model": "large"},
        "usage": {"input_tokens": 80, "output_tokens": 5},
    }
    (folder / "next.jsonl").write_text(json.dumps(row) + "\n")
    check = ("check", "policies", "--traffic", "next.jsonl", "--decisions", "d", "--format", "json")
    run(*check)
    cold = json.loads((folder / "d").read_text())["effect"]
    warm = run(*check, "--seed-counters", "c.jsonl")

    assert "saved to `c.jsonl`" in saved.err
    assert (cold, json.loads((folder / "d").read_text())["effect"]) == ("degrade", "degrade")
    assert "held before what they held when they were saved" in warm.out


def test_an_interrupted_replay_reports_what_it_saw(folder):
    code, out, err = interrupted("check", "policies", "--traffic", "pipe.jsonl", folder=folder)

    assert "interrupted at `pipe.jsonl` line " in err
    assert "the figures are of what was read by then" in err
    assert code == 130
    assert "traffic  " in out
    assert " 0 bad lines" in out


EXPECTED = ("account.tier=email refused <= 1%", "blocked accounts <= 1")


def test_parts_merged_are_judged_by_what_was_expected_of_them(run, folder):
    options = [part for one in EXPECTED for part in ("--expect", one)]
    one = run("check", "policies", *TRAFFIC, *options, "--format", "json")
    for name in ("e12", "e22"):
        shard(run, name, *options)
    merged = run("merge", "e12", "e22", "--format", "json")
    other = run("merge", "e12", "e22", "--expect", "account.tier=email refused <= 90%")
    unknown = run("merge", "e12", "e22", "--expect", "account.tier=verified refused <= 1%")

    assert merged.err == ""
    assert (merged.out, merged.code) == (one.out, one.code)
    assert one.code == 1
    assert [row["holds"] for row in json.loads(merged.out)["expected"]] == [False, False]
    assert "1 of 1 expectation of traffic holds" in other.out
    assert unknown.code == 2
    assert "nothing was counted for `account.tier = verified refused <= 1%`" in unknown.err


def test_parts_counted_by_several_facts_are_told_by_fewer(run):
    by = ("--by", "account.tier,geo.country")
    for name in ("b12", "b22"):
        shard(run, name, *by)
    shard(run, "c22")
    alone = run("check", "policies", *TRAFFIC, "--by", "geo.country", "--format", "json")

    merged = run("merge", "b12", "b22", "--by", "geo.country", "--format", "json")
    assert (merged.out, merged.code) == (alone.out, alone.code)
    assert '"geo.country": "' in merged.out
    uncounted = run("merge", "b12", "b22", "--by", "network.kind")
    assert "`--by network.kind`: the parts were counted by `account.tier,geo.country`" in (
        uncounted.err
    )
    assert "with the same `--by`" in run("merge", "b12", "c22").err


@pytest.mark.parametrize("options", [(), ("--warmup", "1d", "--by", "network.kind")])
def test_versions_compared_in_two_processes_tell_what_one_does(run, folder, options):
    with gzip.open(WEEK) as week:
        lines = b"".join(line for line, _ in zip(week, range(2_500), strict=False))
    (folder / "part.jsonl").write_bytes(lines)
    (folder / "old.yaml").write_text(HEAD + POLICIES["global"])
    (folder / "new.yaml").write_text(HEAD + POLICIES["global"] + POLICIES["links"])
    diff = ["diff", "old.yaml", "new.yaml", "--traffic", "part.jsonl", *options]
    one = run(*diff, "--format", "json")
    two = run(*diff, "--format", "json", "--workers", "2")

    assert (two.out, two.code) == (one.out, one.code)
    assert json.loads(one.out)["traffic"]["accounts"] > 10
    assert "note: 2 parts by account; accounts stay together that share counters of `all`" in (
        two.err
    )
    alone = run("diff", "old.yaml", "new.yaml", "--workers", "2")
    assert "`--workers` replays traffic: give it with `--traffic`" in alone.err


def test_a_replay_as_of_today_says_so_whole_and_in_parts(run, folder):
    (folder / "dated.yaml").write_text(
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: autumn, when: always, block: {}, from: 2026-09-01}\n"
    )
    check = ("check", "dated.yaml", *TRAFFIC, "--format", "json")
    now, then = run(*check, "--as-of", "2026-09-02"), run(*check, "--today", "2026-09-02")
    two = run(*check, "--today", "2026-09-02", "--workers", "2")

    blocked = [json.loads(told.out)["traffic"]["decisions"]["block"] for told in (now, then)]
    assert [found["requests"] for found in blocked] == [0, 36]
    assert "stand throughout as on 2026-09-02T00:00:00Z" in then.out
    assert "stand throughout" not in now.out
    assert (two.out, two.code) == (then.out, then.code)
    alone = run("check", "dated.yaml", "--today", "2026-09-02")
    assert "`--today` replays traffic: give it with `--traffic`" in alone.err

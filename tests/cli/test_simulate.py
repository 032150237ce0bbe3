"""`guardrail simulate` on the command line."""

from __future__ import annotations

import json
import re

import pytest

SMALL = ("--accounts", "40", "--fleet", "10", "--days", "2")


def test_a_simulation_reports_what_attackers_got_and_whom_it_harmed(run):
    code, out, err = run("simulate", "policies", "--seed", "3", *SMALL)

    assert (code, err) == (0, "")
    assert out.startswith("policy     public-api  sha256:…")
    assert "40 honest accounts, 2 days, seed 3" in out
    assert re.search(r"served by day 2 +[\d.]+% +[\d.]+%", out)
    assert re.search(r"^established +\d+", out, re.MULTILINE)
    assert re.search(r"decisions in [\d.]+ s: [\d,]+ a second", out)


def test_a_report_fits_a_terminal_of_eighty_columns(run):
    out = run("simulate", "policies", "--seeds", "0..1", "--supply", "unlimited", *SMALL).out

    assert max(map(len, out.splitlines()[3:])) <= 80
    assert "fresh: unlimited" in out


def test_several_seeds_have_a_mean_and_a_worst(run):
    out = run("simulate", "policies", "--seeds", "1..3", *SMALL).out

    assert re.findall(r"^(1|2|3|mean|worst) {2,}", out, re.MULTILINE) == [
        "1",
        "2",
        "3",
        "mean",
        "worst",
    ]


def test_workers_find_what_one_finds(run):
    alone = run("simulate", "policies", "--seeds", "0..1", "--json", "-", *SMALL)
    shared = run("simulate", "policies", "--seeds", "0..1", "--workers", "2", "--json", "-", *SMALL)

    first, second = (json.loads(result.out)["seeds"] for result in (alone, shared))
    for told in (*first, *second):
        del told["seconds"], told["decisions_per_second"]
    assert first == second


def test_json_on_standard_output_is_alone_there(run):
    result = run("simulate", "policies", "--json", "-", *SMALL)
    told = json.loads(result.out)

    assert told["policy"] == "public-api"
    assert told["mode"] == "plain"
    assert told["options"]["accounts"] == 40
    assert told["options"]["prices"]["identity"] == 150.0
    assert [found["seed"] for found in told["seeds"]] == [0]
    assert "honest accounts" in result.err


def test_a_page_is_written_where_it_is_wanted(run, folder):
    assert run("simulate", "policies", "--html", "page.html", *SMALL).code == 0

    assert (folder / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("mode", ["null", "placebo", "twin", "ablate"])
def test_modes_report_what_they_found(run, mode):
    result = run("simulate", "policies", "--mode", mode, *SMALL)

    assert result.code == 0
    assert f"mode `{mode}`" in result.out
    assert ("attack:" in result.out) == (mode != "null")


def test_a_baseline_stands_in_for_the_policies(run):
    out = run("simulate", "policies", "--baseline", "ip", *SMALL).out

    assert out.startswith("policy     baseline-ip")
    assert "baseline `ip`" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "3..1"), "is no range of seeds"),
        (("--seeds", "x"), "is no range of seeds"),
        (("--supply", "-1"), "is no supply"),
        (("--supply", "much"), "is no supply"),
        (("--tiers", "a,b"), "are not three tiers"),
        (("--tiers", "a,b,c"), "`account.tier` has no value `a`"),
        (("--html", "no/such/page.html"), "cannot be written"),
        (("--price", "card"), "`card` is no price"),
        (("--price", "card=-1"), "`card=-1` is no price"),
        (("--price", "boat=1"), "nothing called `boat` has a price: name one of `account`, `aged`"),
        (("--days", "0"), "give at least 1"),
    ],
)
def test_what_is_not_usable_is_said(run, arguments, message):
    result = run("simulate", "policies", *SMALL, *arguments)

    assert result.code == 2
    assert message in " ".join(result.err.split())


def test_prices_are_what_they_are_said_to_be(run):
    def cost(*arguments):
        told = json.loads(run("simulate", "policies", "--json", "-", *arguments, *SMALL).out)
        return told["seeds"][0]["attacker"]

    usual, dear = cost(), cost("--price", "card=104", "--price", "residential=3")
    assert dear["cards_bought"] == usual["cards_bought"] > 0
    more = dear["cost_usd"] - usual["cost_usd"]
    assert more == pytest.approx(100 * usual["cards_bought"])


def test_policies_that_do_not_load_are_not_simulated(run):
    result = run("simulate", "broken", *SMALL)

    assert result.code == 3
    assert "Policy not loaded; nothing was simulated." in result.out


def test_typical_limits_stand_beside_the_policies_in_one_table(run):
    arguments = ("--beside", "account", "--beside", "none", "--seeds", "1..2", *SMALL)
    out = run("simulate", "policies", *arguments).out

    assert re.findall(r"^  (public-api|baseline `\w+`) ", out, re.MULTILINE) == [
        "public-api",
        "baseline `account`",
        "baseline `none`",
    ]
    assert re.search(r"baseline `none` +100\.00% +100\.00% +1\.0× +0\.00% ", out, re.M)
    assert max(map(len, out.splitlines()[3:])) <= 80
    assert "decisions in" not in out


def test_what_stands_beside_is_what_a_baseline_alone_comes_to(run):
    beside = json.loads(run("simulate", "policies", "--beside", "ip", "--json", "-", *SMALL).out)
    alone = json.loads(run("simulate", "policies", "--baseline", "ip", "--json", "-", *SMALL).out)

    assert beside["baseline"] is None
    (one,), (other,) = beside["beside"]["ip"], alone["seeds"]
    assert one["attacker"] == other["attacker"]
    assert one["honest"] == other["honest"]
    assert "beside" not in alone

"""Expectations of traffic: how they are written, and how a check ends that does not meet them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from guardrail.loading import load_policies, policy_schema
from tests.cli.conftest import POLICY

CHECK = ("check", "policies", "--traffic", "week.jsonl")
FILE = "guardrail: 1\nexpect:\n"


def texts(run, *options: str) -> list[tuple[str, bool | None]]:
    """Return each expectation in words, and whether it holds."""
    told = json.loads(run(*CHECK, "--format", "json", *options).out)
    return [(one["text"], one["holds"]) for one in told["expected"]]


WRITTEN = {
    "refused <= 50%": ("refused <= 50%", True),
    "account.tier=verified refused <= 0.1%": ("account.tier = verified refused <= 0.1%", True),
    "account.tier = email refused accounts<1%": (
        "account.tier = email refused accounts < 1%", False,
    ),
    "blocked >= 8 by embargo": ("blocked >= 8 by embargo", True),
    "blocked > 8 by embargo": ("blocked > 8 by embargo", False),
    "bad lines <= 0": ("bad lines <= 0", True),
    "geo.country=DE,account.tier=email degraded accounts >= 1": (
        "geo.country = DE and account.tier = email degraded accounts >= 1", True,
    ),
    "{account.tier: {below: verified}} stepped up <= 0": (
        "account.tier below verified stepped up <= 0", True,
    ),
    "{any: [{geo.country: CU}, {geo.country: FR}]} refused <= 0": (
        "(geo.country = CU or geo.country = FR) refused <= 0", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("option", "told"), WRITTEN.items(), ids=list(WRITTEN))
def test_an_option_is_an_expectation(run, option, told):
    assert texts(run, "--expect", option) == [told]
    outcome = run(*CHECK, "--expect", option)
    code = {True: None, False: "GR502", None: "GR503"}[told[1]]

    assert outcome.code == (told[1] is not True)
    assert ("GR502" in outcome.out, "GR503" in outcome.out) == (code == "GR502", code == "GR503")


WRONG = {
    "refused": "has no bound: write",
    "refused = 5%": "has no bound: write",
    "refsed <= 5%": "did you mean `refused`?",
    "account.tier:verified refused <= 5%": "has the condition `account.tier:verified`: write",
    "<= 5%": 'measures `""`',
    "refused <= 0.1": "has the bound `0.1`, which is neither a share up to 100% nor a whole number",
    "refused <= 105%": "has the bound `105%`, which is neither a share up to 100% nor a whole",
    "account.tier=gold refused <= 5%": "refused <= 5%`: `gold` is not a value of `account.tier`",
    "geo.contry=DE refused <= 5%": "did you mean `geo.country`?",
    "blocked <= 5% by embrago": "did you mean `embargo`?",
    "{geo.country: [} refused <= 5%": "cannot be read: write",
}


@pytest.mark.parametrize(("option", "told"), WRONG.items(), ids=list(WRONG))
def test_an_option_that_is_none_is_wrong_usage(run, option, told):
    outcome = run(*CHECK, "--expect", option)

    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err
    assert f"`--expect {option}`" in outcome.err


def test_a_single_expectation_is_told_in_the_singular(run):
    out = run(*CHECK, "--expect", "refused <= 100%").out

    assert "1 of 1 expectation of traffic holds\n" in out


def test_a_wrong_option_is_named_among_right_ones(run, folder):
    (folder / "e.yaml").write_text(f"{FILE}  - {{bad_lines: {{lte: 1%}}}}\n")
    right = ("--expect", "refused <= 50%", "--expect", "e.yaml", "--expect", "blocked >= 0")
    outcome = run(*CHECK, *right, "--expect", "account.tier=gold refused <= 5%")

    assert outcome.code == 2
    assert "`--expect account.tier=gold refused <= 5%`" in outcome.err


def test_a_policy_that_does_not_load_is_told_before_a_wrong_option(run):
    outcome = run("check", "broken", "--traffic", "week.jsonl", "--expect", "a.b=x refused <= 5%")

    assert outcome.code == 3
    assert "--expect" not in outcome.out


LOADED = {
    "{refused: 0.1%}": ("GR102", "write `refused: {lte: 0.1%}`"),
    "{refused: {lte: 1.5}}": ("GR110", "neither a share nor a whole number"),
    "{refused: {lte: 101%}}": ("GR110", "neither a share nor a whole number"),
    "{refused: {lte: -1}}": ("GR110", "neither a share nor a whole number"),
    "{refused: {max: 1%}}": ("GR101", "unknown key `max`"),
    "{refsed: {lte: 1%}}": ("GR101", "did you mean `refused`?"),
    "{when: always}": ("GR102", "measures nothing"),
    "{when: {geo.contry: DE}, refused: {lte: 1%}}": ("GR105", "did you mean `geo.country`?"),
    "{by: embrago, refused: {lte: 1%}}": ("GR107", "did you mean `embargo`?"),
    "{when: {geo.country: DE}, bad_lines: {lte: 1%}}": ("GR102", "`bad_lines` are no requests"),
    "refused": ("GR102", "an expectation is a map"),
}


@pytest.mark.parametrize(("entry", "told"), LOADED.items(), ids=list(LOADED))
def test_what_is_wrong_in_a_file_is_told_at_its_place(run, folder, entry, told):
    (folder / "e.yaml").write_text(f"{FILE}  - {entry}\n")
    outcome = run(*CHECK, "--expect", "e.yaml")

    assert outcome.code == 3
    assert outcome.out.startswith("e.yaml:3:")
    assert all(part in outcome.out for part in told), outcome.out


@pytest.mark.parametrize(
    ("entry", "fits"),
    [
        ("{when: {account.tier: verified}, refused: {lte: 0.1%}}", True),
        ("{by: embargo, stepped_up_accounts: {gte: 5, lt: 10}}", True),
        ("{bad_lines: {lte: 1%}}", True),
        ("{refused: 0.1%}", False),
        ("{refused: {}}", False),
        ("{refused: {lte: 1.5}}", False),
        ("{refused: {max: 1%}}", False),
        ("{refsed: {lte: 1%}}", False),
    ],
)
def test_editors_know_expectations_as_they_are_loaded(entry, fits):
    document = yaml.safe_load(f"{FILE}  - {entry}\n")
    problems = list(jsonschema.Draft7Validator(policy_schema()).iter_errors(document))

    assert (problems == []) is fits


def test_a_file_of_expectations_holds_nothing_else(run, folder):
    (folder / "e.yaml").write_text(f"{FILE}  - {{bad_lines: {{lte: 1%}}}}\nrules: []\n")
    outcome = run(*CHECK, "--expect", "e.yaml")

    assert outcome.code == 3
    assert "`rules` cannot stand in a file of expectations" in outcome.out


def test_expectations_of_policies_files_and_options_are_all_looked_at(run, folder):
    text = POLICY + "expect: [{refused: {lte: 50%}, blocked: {gte: 1}}]\n"
    (folder / "policies" / "public.yaml").write_text(text)
    (folder / "e.yaml").write_text(f"{FILE}  - {{bad_lines: {{lte: 1%}}}}\n")

    assert texts(run, "--expect", "e.yaml", "--expect", "degraded <= 0") == [
        ("refused <= 50%", True),
        ("blocked >= 1", True),
        ("degraded <= 0", False),
        ("bad lines <= 1%", True),
    ]


def test_what_is_only_expected_is_no_part_of_the_set(folder):
    plain = load_policies(["policies"])
    (folder / "e.yaml").write_text(f"{FILE}  - {{bad_lines: {{lte: 1%}}}}\n")
    expecting = load_policies(["policies"], expected=["e.yaml", "refused <= 1%"])

    assert len(expecting.thresholds) == 2
    assert (expecting.revision, expecting.files) == (plain.revision, plain.files)


def test_without_traffic_expectations_are_said_not_to_be_looked_at(run, folder):
    text = POLICY + "expect: [{refused: {lte: 50%}}]\n"
    (folder / "policies" / "public.yaml").write_text(text)

    assert "expect   1 expectation of traffic not looked at: give `--traffic`" in (
        run("check", "policies").out
    )
    outcome = run("check", "policies", "--expect", "refused <= 1%")
    assert (outcome.code, "give it with `--traffic`" in outcome.err) == (2, True)
    assert (
        run(*CHECK, "--expect", "none.yaml").err == "error: `--expect`: there is no `none.yaml`\n"
    )


def test_hostile_expectations_are_inert(run):
    outcome = run(*CHECK, "--expect", "account.tier=\x1b[31m refused <= 1%")

    assert "\x1b" not in outcome.out + outcome.err


def test_workers_measure_what_one_process_does(run, folder):
    entry = "{refused_accounts: {lte: 1%}, blocked: {gte: 1}}"
    (folder / "e.yaml").write_text(f"{FILE}  - {entry}\n")
    options = ("--expect", "e.yaml", "--by", "geo.country", "--format", "json")
    alone, apart = run(*CHECK, *options), run(*CHECK, *options, "--workers", "2")

    assert alone.out == apart.out
    assert (alone.code, Path("e.yaml").exists()) == (1, True)

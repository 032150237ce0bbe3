"""Results for other programs: each form as what reads it does, several at once, the same bytes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import junitparser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from guardrail.cli.output import Entries, json_pieces
from tests.cli.conftest import POLICY, request, write_traffic

HOSTILE = "x\x1b[31m%,:\n::error::]]>&<\u202e"
COMMANDS = {
    "check": ("check", "failing", "--traffic", "week.jsonl"),
    "broken": ("check", "broken"),
    "test": ("test", "failing"),
    "lint": ("lint", "failing"),
    "diff": ("diff", "policies", "later", "--traffic", "week.jsonl"),
    "fine": ("check", "policies"),
}


@pytest.fixture
def hostile(folder: Path) -> tuple[str, ...]:
    """A policy and traffic whose texts try to be commands and markup."""
    named = json.dumps(f"embargo holds {HOSTILE}")
    text = POLICY.replace("name: embargo holds", f"name: {named}").replace(
        "IR}\n    expect", "FR}\n    expect"
    )
    (folder / "hostile").mkdir()
    (folder / "hostile" / "a,b:c%.yaml").write_text(text)
    rows = [request(turn, f"a{HOSTILE}", facts={f"f{HOSTILE}": "x"}) for turn in range(4)]
    write_traffic(folder / "t.jsonl", *rows)
    return ("check", "hostile", "--traffic", "t.jsonl")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_sarif_is_valid_and_tells_every_finding(run, command):
    outcome = run(*command, "--format", "sarif")
    log = json.loads(outcome.out)
    Sarif.model_validate(log)
    fields = json.loads(run(*command, "--format", "json").out)
    told = log["runs"][0]["results"]

    rules = [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]]
    assert [rules[one["ruleIndex"]] for one in told] == [one["ruleId"] for one in told]
    if "diagnostics" in fields:
        assert [one["ruleId"] for one in told] == [one["code"] for one in fields["diagnostics"]]
    assert bool(told) is (command not in (COMMANDS["fine"],))


def test_a_log_that_is_no_sarif_is_found_to_be_none(run):
    log = json.loads(run("test", "failing", "--format", "sarif").out)
    log["runs"][0]["results"][0]["level"] = "warn"

    with pytest.raises(ValueError, match="level"):
        Sarif.model_validate(log)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_junit_is_read_with_as_many_failures_as_there_are(run, command):
    outcome = run(*command, "--format", "junit")
    read = junitparser.JUnitXml.fromstring(outcome.out.encode())
    cases = [case for suite in read for case in suite]
    failed = [case for case in cases if not case.is_passed]

    assert cases
    assert read.tests == len(cases)
    assert read.failures == len(failed)
    assert all(suite.tests == len(list(suite)) for suite in read)
    if command[0] != "diff":
        assert bool(failed) is (outcome.code != 0)


def test_junit_has_a_case_for_each_test_and_expectation(run):
    outcome = run(
        "check", "failing", "--traffic", "week.jsonl", "--format", "junit",
        "--expect", "account.tier=verified refused <= 0", "--expect", "geo.country=FR refused <= 0",
    )  # fmt: skip
    read = junitparser.JUnitXml.fromstring(outcome.out.encode())
    passed = {case.name: case.is_passed for suite in read for case in suite}

    assert passed["embargo holds"] is False
    assert passed["degrade, then throttle"] is True
    assert passed["account.tier = verified refused <= 0"] is True
    assert passed["geo.country = FR refused <= 0"] is False


COMMAND = re.compile(r"::(error|warning|notice) ((?:\w+=[^,:\r\n]*,?)+)::([^\r\n]*)")


def unescaped(text: str) -> str:
    """Return a value of a workflow command as the runner reads it."""
    for written, meant in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(written, meant)
    return text


def test_workflow_commands_are_one_line_each_with_what_they_quote_escaped(run, hostile):
    for command in (*COMMANDS.values(), hostile):
        outcome = run(*command, "--format", "github")
        lines = outcome.out.splitlines()

        assert bool(lines) is (command != COMMANDS["fine"])
        for line in lines:
            assert COMMAND.fullmatch(line), line
    found = [COMMAND.fullmatch(line) for line in lines if "file=" in line]
    properties = [dict(part.split("=") for part in one[2].split(",")) for one in found if one]
    files = [unescaped(one["file"]) for one in properties]
    assert "hostile/a,b:c%.yaml" in files


@pytest.mark.parametrize("form", ["json", "jsonl", "junit", "sarif", "github", "concise", "full"])
def test_hostile_texts_are_inert_in_every_form(run, hostile, form):
    out = run(*hostile, "--format", form).out

    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\n::error::]]" not in out
    if form == "junit":
        junitparser.JUnitXml.fromstring(out.encode())
    if form == "sarif":
        Sarif.model_validate(json.loads(out))


def test_json_lines_hold_what_the_object_holds(run):
    whole = json.loads(run(*COMMANDS["check"], "--format", "json").out)
    out = run(*COMMANDS["check"], "--format", "jsonl").out
    lines = [json.loads(line) for line in io.StringIO(out)]
    by_kind: dict[str, list[dict[str, object]]] = {}
    for line in lines:
        by_kind.setdefault(line.pop("kind"), []).append(line)

    assert by_kind["tests"] == whole["tests"]
    assert by_kind["traffic"] == [whole["traffic"]]
    assert by_kind["bounds"] == whole["bounds"]
    (summary,) = by_kind["summary"]
    assert summary["policy"] == whole["policy"]
    assert summary["findings"] == whole["findings"]


@pytest.mark.parametrize("command", ["check", "test", "lint", "diff"])
def test_several_forms_in_one_run_are_those_of_a_run_each(run, folder, command):
    alone = {
        form: run(*COMMANDS[command], "--format", form).out for form in ("sarif", "junit", "full")
    }
    both = ("--format", "sarif=out.sarif", "--format", "full", "--format", "junit=out.xml")
    outcome = run(*COMMANDS[command], *both)
    without = run(*COMMANDS[command], "--format", "sarif=again.sarif")

    assert outcome.out == without.out == alone["full"]
    assert json.loads((folder / "out.sarif").read_text())["version"] == "2.1.0"
    assert (folder / "out.sarif").read_bytes() == (folder / "again.sarif").read_bytes()
    assert (folder / "out.xml").read_text() == alone["junit"]


@pytest.mark.parametrize("form", ["json", "jsonl", "junit", "sarif", "github", "concise", "full"])
def test_the_same_input_gives_the_same_bytes(run, form):
    first = run(*COMMANDS["check"], "--format", form, "--as-of", "2026-06-01")

    assert run(*COMMANDS["check"], "--format", form, "--as-of", "2026-06-01") == first


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["full", "json"], "both go to stdout: write `--format json=FILE`"),
        (["sarif=x", "json=x"], "`--format sarif=x` and `--format json=x` go to one place"),
        (["sarif=nowhere/x"], "cannot be written: name a file"),
        (["sarif=policies"], "cannot be written: name a file"),
    ],
)
def test_formats_that_have_no_place_are_wrong_usage(run, asked, told):
    options = [word for form in asked for word in ("--format", form)]
    outcome = run("check", "policies", *options)

    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err


@pytest.mark.parametrize("form", ["xml", "sarif=", "=x", ""])
def test_a_format_that_is_none_is_wrong_usage(run, form):
    assert run("check", "policies", "--format", form).code == 2


NOTED = (
    "rules:\n  - {id: never, when: {geo.country: CU}, unknown: skip, block: {}}\n"
    "tests:\n  - {name: t, facts: {account.id: a, geo.country: CU}, expect: block}\n"
)


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warn", 0), ("note", 1)])
def test_what_fails_is_as_grave_as_asked(run, folder, fail_on, code):
    (folder / "p.yaml").write_text(f"guardrail: 1\npolicy: p\n{NOTED}")
    write_traffic(folder / "t.jsonl", request(0))
    command = ("check", "p.yaml", "--traffic", "t.jsonl", "--fail-on", fail_on)
    outcome = run(*command)

    assert outcome.code == code
    assert "GR301" in outcome.out
    assert ("no findings" in outcome.out) is not code
    assert ("<failure" in run(*command, "--format", "junit").out) is bool(code)


def test_errors_fail_whatever_is_asked(run):
    assert run(*COMMANDS["check"], "--fail-on", "error").code == 1
    assert run(*COMMANDS["broken"], "--fail-on", "error").code == 3


KEYS = st.one_of(st.text(max_size=3), st.none(), st.booleans(), st.integers(-9, 9))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS, part, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.sampled_from([None, 2]))
def test_json_told_piece_by_piece_is_that_of_the_whole(value: object, indent: int | None):
    assert "".join(json_pieces(value, indent)) == json.dumps(value, indent=indent)


@pytest.mark.parametrize("rows", [[], [{"a": 1}, {"b": [2]}]])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_made_when_they_are_told_stand_as_a_list(rows, indent):
    entries = Entries(lambda: iter(rows))

    for _ in range(2):
        told = "".join(json_pieces({"x": entries}, indent))
        assert told == json.dumps({"x": rows}, indent=indent)

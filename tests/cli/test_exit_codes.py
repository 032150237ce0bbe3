"""How commands end: every bad input gets a clear sentence and the right exit code."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guardrail.cli import checking
from tests.cli.conftest import POLICY, request, write_traffic

CHECK = ("check", "policies", "--traffic")


def test_a_policy_that_holds_is_fine(run):
    assert run("check", "policies").code == 0
    assert run("test", "policies").code == 0


def test_a_failed_test_is_a_finding_and_hides_no_later_stage(run):
    outcome = run("check", "failing", "--traffic", "week.jsonl")

    assert outcome.code == 1
    assert "FAIL  embargo holds" in outcome.out
    assert "traffic  36 requests" in outcome.out
    assert outcome.out.endswith("\nfinding  1 of 2 tests failed\n")


def test_a_policy_that_cannot_be_loaded_ends_in_3(run):
    for command in ("check", "test"):
        outcome = run(command, "broken")

        assert outcome.code == 3
        assert "did you mean `geo.country`?" in outcome.out
    assert run("explain", "broken", "--request", "{}").code == 3


def test_what_was_not_run_is_said(run):
    last = run("check", "broken", "--traffic", "week.jsonl").out.splitlines()[-1]

    assert last == "1 error, 0 warnings. Policy not loaded; tests and traffic were not run."


def test_a_folder_without_policies_is_nothing_to_check(run, folder):
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("nothing")
    for command in ("check", "test"):
        outcome = run(command, "empty")

        assert outcome.code == 1
        assert outcome.err == (
            "error: nothing to check: no policy file under `empty` (`*.yaml` or `*.yml`)\n"
        )
        assert run(command, "empty", "--allow-empty").code == 0


def test_policies_without_tests_and_traffic_are_nothing_to_check(run, folder):
    (folder / "policies" / "public.yaml").write_text(POLICY.partition("tests:")[0])
    outcome = run("check", "policies")

    assert outcome.code == 1
    assert "finding  nothing to check: no tests and no claims" in outcome.out
    assert run("check", "policies", "--allow-empty").code == 0
    assert run(*CHECK, "week.jsonl").code == 0
    assert run("test", "policies").code == 1
    assert run("test", "policies", "--allow-empty").code == 0


USAGE = {
    ("check",): "`PATH…` is missing: `guardrail check --help` tells what it takes",
    ("chekc", "policies"): "there is no command `chekc`: did you mean `check`?",
    ("actor", "sho", "a"): "there is no command `sho`: did you mean `show`?",
    ("init", "--traffic", "x"): "no option `--traffic`: did you mean `--from-traffic`?",
    ("check", "policies", "--door-name", "x"): "no option `--door-name`: did you mean `--door`?",
    ("check", "policies", "--trafic", "x"): "no option `--trafic`: did you mean `--traffic`?",
    ("check", "policies", "--zz"): "no option `--zz`: `guardrail check --help` tells what",
    ("check", "policies", "--traffic"): "`--traffic` needs a value",
    ("check", "policies", "--allow-empty=no"): "`--allow-empty` takes no value",
    ("rule", "GR101", "GR102"): "`GR102` is more than the command takes: `guardrail rule --help`",
    ("simulate", "policies", "--attack", "white-box"): (
        "error: `--attack` is `white-box`: did you mean `whitebox`?"
    ),
    ("check", "policies", "--fail-on", "x"): "is `x`: it can be `error`, `warn`, `note`",
    ("check", "policies", "--workers", "0"): "`--workers` is `0`: give at least 1",
    ("check", "policies", "--workers=900"): "`--workers` is `900`: give at most 256",
    ("simulate", "policies", "--seed", "x"): "`--seed` is `x`: give a whole number",
    ("check", "policies", "--warmup", "1 day"): "`1 day` is not a duration",
    ("check", "policies", "--format", "xml"): "error: `--format`: `xml` is not FORM",
    ("check", "absent"): "there is no `absent`",
    (*CHECK, "absent.jsonl"): "cannot read `absent.jsonl`: no such file or directory",
    (*CHECK, "policies"): "cannot read `policies`: is a directory",
    ("check", "policies", "week.jsonl"): "`week.jsonl` is traffic, not a policy",
    (*CHECK, "week.jsonl", "--map", "absent.yaml"): "cannot read `absent.yaml`",
    (*CHECK, "week.jsonl", "--map", "policies/public.yaml"): "map not loaded",
    (*CHECK, "week.jsonl", "--decisions", "absent/out"): "cannot write `absent/out`: no such file",
    (*CHECK, "week.jsonl", "--decisions", "week.jsonl"): "would overwrite the traffic",
    (*CHECK, "week.jsonl", "--decisions", "policies/public.yaml"): "would overwrite the policies",
    (*CHECK, "week.jsonl", "--save-counters", "policies/public.yaml"): "overwrite the policies",
    (
        "check", "policies", "--format", "json=policies/public.yaml"
    ): "`--format json=policies/public.yaml` would overwrite the policies",
    ("lint", "policies/public.yaml", "--format", "sarif=policies/public.yaml"): "overwrite the pol",
    ("test", "policies", "--format", "junit=policies/public.yaml"): "overwrite the policies",
    ("diff", "policies", "policies", "--format", "json=policies/public.yaml"): "overwrite the pol",
    ("simulate", "policies", "--json", "policies/public.yaml"): "would overwrite the policies",
    ("simulate", "policies", "--json", "-", "--html", "-"): "`--json -` and `--html -` go to one",
    (
        "bench", "policies", "--traffic", "week.jsonl", "--save", "week.jsonl"
    ): "`--save week.jsonl` would overwrite the traffic",
    (
        *CHECK, "week.jsonl", "--decisions", "out", "--save-counters", "./out"
    ): "`--decisions out` and `--save-counters ./out` go to one place: give each a file of its own",
    (*CHECK, "week.jsonl", "--store", "mongodb://x"): "mongodb://x",
    (*CHECK, "week.jsonl", "--store", "redis://x", "--store-down"): "leave `--store` out",
    ("check", "policies", "--store-down"): "give it with `--traffic`",
    (*CHECK, "week.jsonl", "--geo", "absent.mmdb"): "absent.mmdb",
    ("explain", "policies"): "give either `--request`, or `--traffic` and `--line`",
    ("explain", "policies", "--traffic", "week.jsonl"): "`--traffic` and `--line` go together",
    ("explain", "policies", "--traffic", "week.jsonl", "--line", "99"): "no request stands there",
    ("explain", "policies", "--request", "{"): "`--request`: not JSON",
    ("explain", "policies", "--request", "[]"): "`--request`: not a JSON object",
    ("explain", "policies", "--request", '{"a": NaN}'): "`NaN` is not a number",
    ("explain", "policies", "--request", '{"a": {}}'): "facts are flat",
    ("explain", "policies", "--request", "{}", "--at", "noon"): "`noon` is not a time",
    ("explain", "policies", "--request", "{}", "--tokens", "-1"): "`--tokens -1` is not an amount",
    ("explain", "policies", "--request", "{}", "--used", "r"): "`--used r` is not `RULE=AMOUNT`",
    ("explain", "policies", "--request", "{}", "--used", "r=1"): "there is no rule `r`",
    (
        "explain", "policies", "--request", '{"geo.country":"DE"}', "--used", "burst=many"
    ): "`burst=many` is not an amount",
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), USAGE.items(), ids=map(" ".join, USAGE))
def test_a_wrong_use_ends_in_2_and_says_what_is_wrong(run, arguments, message):
    outcome = run(*arguments)

    assert outcome.code == 2
    assert message in outcome.err.replace("\n", " ")


@pytest.mark.parametrize("name", ["map.yaml", "link.jsonl", "expected.yaml"])
def test_what_a_command_reads_stays_as_it_is(run, folder, name):
    (folder / "map.yaml").write_text("guardrail_map: 1\nts: {column: ts}\n")
    (folder / "expected.yaml").write_text("guardrail: 1\nexpect: [{bad_lines: {lte: 1%}}]\n")
    (folder / "link.jsonl").symlink_to("week.jsonl")
    before = (folder / name).read_bytes()
    asked = (*CHECK, "week.jsonl", "--map", "map.yaml", "--expect", "expected.yaml")

    assert "would overwrite" in run(*asked, "--decisions", name).err
    assert (folder / name).read_bytes() == before


def test_counters_are_saved_where_they_were_read_and_a_device_takes_several_outputs(run):
    nothing = ("--fail-on", "error", "--decisions", "/dev/null", "--format", "json=/dev/null")
    assert run(*CHECK, "week.jsonl", "--save-counters", "counters", *nothing).code == 0

    again = ("--seed-counters", "counters", "--save-counters", "counters")
    assert run(*CHECK, "week.jsonl", *again, *nothing).code == 0


UNREADABLE = {
    "empty": b"",
    "blank lines": b"\n\n  \n",
    "binary": bytes(range(256)) * 100,
    "another encoding": '{"ts":1,"facts":{"account.id":"é"}}\n'.encode("latin-1"),
    "utf-16": '{"ts":1,"facts":{}}\n'.encode("utf-16"),
    "all bad": b'{"ts":NaN,"facts":{}}\n{"ts":true,"facts":{}}\n',
    "gzip cut at its start": gzip.compress(b'{"ts":1,"facts":{}}\n')[:15],
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_traffic_without_a_readable_line_is_a_finding(run, folder, data):
    (folder / "t.jsonl").write_bytes(data)
    outcome = run(*CHECK, "t.jsonl")

    assert outcome.code == 1
    assert "finding  the traffic has no readable line" in outcome.out


def test_bad_lines_are_reported_and_the_others_replayed(run, folder):
    bad = [
        '{"ts":-1,"facts":{}}',
        '{"ts":1,"facts":{},"usage":{"tokens":Infinity}}',
        "x" * 2_000_000,
    ]
    good = [request(at, usage={"input_tokens": 40, "output_tokens": 5}) for at in (0, 1)]
    write_traffic(folder / "t.jsonl", good[0], *bad, *["nonsense"] * 5, good[1])
    outcome = run(*CHECK, "t.jsonl", "--bad-lines", "80%")

    assert outcome.code == 0
    assert "traffic  2 requests, 1 account" in outcome.out
    assert "8 bad lines" in outcome.out
    assert "bad line t.jsonl:2: `ts` is negative\n" in outcome.out
    assert "bad line t.jsonl:3: not JSON: `Infinity` is not a number there\n" in outcome.out
    assert "bad line t.jsonl:4: longer than 1 MiB\n" in outcome.out
    assert "bad line and 3 more\n" in outcome.out


def test_a_file_cut_short_is_a_finding_though_its_start_is_replayed(run, folder):
    rows = b"".join(
        json.dumps(request(n, f"a{n * 7919 % 104729}")).encode() + b"\n" for n in range(9999)
    )
    packed = gzip.compress(rows)
    (folder / "t.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    outcome = run(*CHECK, "t.jsonl.gz")

    assert outcome.code == 1
    assert "finding  traffic could not be read to its end: `t.jsonl.gz`" in outcome.out
    assert "the compressed data is cut short" in outcome.out
    assert "  decision  requests" in outcome.out


def test_nothing_left_after_the_warm_up_is_a_finding(run):
    outcome = run(*CHECK, "week.jsonl", "--warmup", "30d")

    assert outcome.code == 1
    assert "finding  no request is left after the warm-up" in outcome.out


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read_is_said_to_be_so(run, folder):
    (folder / "t.jsonl").write_bytes(b"{}\n")
    (folder / "t.jsonl").chmod(0)
    outcome = run(*CHECK, "t.jsonl")

    assert outcome.code == 2
    assert "cannot read `t.jsonl`: permission denied" in outcome.err


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x00\x01\x02", b"\x89PNG\r\n"])
def test_a_policy_that_is_no_text_cannot_be_loaded(run, folder: Path, data):
    (folder / "policies" / "public.yaml").write_bytes(data)

    assert run("check", "policies").code == 3


def test_our_own_fault_ends_in_4_with_a_way_to_report_it(run, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by \x1b[31mnothing")

    monkeypatch.setattr(checking, "run_suite", fail)
    outcome = run("check", "policies")

    assert outcome.code == 4
    assert outcome.err == (
        "error: this is a fault in guardrail, not in your files "
        "(ZeroDivisionError: by \\x1b[31mnothing); please report it, with what "
        "GUARDRAIL_TRACEBACK=1 prints\n"
    )
    monkeypatch.setenv("GUARDRAIL_TRACEBACK", "1")
    assert "in run_check" in run("check", "policies").err


def test_an_interruption_ends_in_130(run, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checking, "run_suite", interrupt)
    outcome = run("check", "policies")

    assert (outcome.code, outcome.err) == (130, "error: interrupted\n")


INTERRUPTED_AT = """
import os, runpy, signal, sys

signal.signal(signal.SIGINT, {handler})

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["guardrail", "--version"]
runpy.run_module("guardrail", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["guardrail.cli", "typer", "guardrail.cli.watching"])
def test_an_interruption_while_the_command_line_is_imported_tells_no_traceback(module):
    program = INTERRUPTED_AT.format(handler="signal.default_int_handler", module=module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_command_that_was_started_to_ignore_interruptions_ignores_them_from_the_start():
    program = INTERRUPTED_AT.format(handler="signal.SIG_IGN", module="typer")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("guardrail ")


def test_once_imported_the_command_line_hears_of_interruptions_as_before():
    program = INTERRUPTED_AT.format(handler="signal.default_int_handler", module="none")
    heard = "import atexit\natexit.register(lambda: print(signal.getsignal(signal.SIGINT)))\n"
    done = subprocess.run([sys.executable, "-c", heard + program], capture_output=True, text=True)

    assert "default_int_handler" in done.stdout

"""Where output goes: streams, colours, decisions, pipes and terminals."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from tests.cli.conftest import MONDAY, request, week, write_traffic

GUARDRAIL = (sys.executable, "-m", "guardrail")
CHECK = ("check", "policies", "--traffic", "week.jsonl")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a command run on its own, in which it finds the package."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def decided(data: bytes) -> list[dict[str, object]]:
    """Return the decisions in the text of a file."""
    return [json.loads(line) for line in data.splitlines()]


def test_there_is_a_decision_for_every_request_in_its_order(run, folder):
    rows = [*week(), request(5, "late")]
    write_traffic(folder / "t.jsonl", "nonsense", "", *rows)
    check = ("check", "policies", "--traffic", "t.jsonl", "--bad-lines", "3%")
    outcome = run(*check, "--decisions", "out.jsonl")
    found = decided((folder / "out.jsonl").read_bytes())

    assert outcome.code == 0
    assert [row["line"] for row in found] == list(range(3, 3 + len(rows)))
    assert [row["ts"] for row in found] == [row["ts"] for row in rows]
    assert found[1] == {
        "line": 4,
        "ts": MONDAY + 10,
        "effect": "degrade",
        "rule": "tokens-per-day",
        "reason": "tokens-per-day",
        "retry_after": None,
        "obligations": {"model": "small"},
        "shadow": [],
        "facts": {"account.id": "a1", "geo.country": "DE"},
    }
    assert found[2]["shadow"] == [{"rule": "burst", "effect": "throttle", "reason": "burst"}]
    assert found[2]["retry_after"] == 86380.0


def test_decisions_are_made_during_the_warm_up_too(run, folder):
    run(*CHECK, "--warmup", "3d", "--decisions", "out.jsonl")

    assert len(decided((folder / "out.jsonl").read_bytes())) == 36


@pytest.mark.parametrize(
    ("name", "unpack"),
    [("out.jsonl.gz", gzip.decompress), ("out.jsonl.zst", zstandard.decompress)],
)
def test_decisions_are_packed_as_their_file_is_named(run, folder, name, unpack):
    run(*CHECK, "--decisions", "out.jsonl")
    run(*CHECK, "--decisions", name)
    packed = (folder / name).read_bytes()
    if name.endswith(".zst"):
        unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    else:
        unpacked = unpack(packed)

    assert unpacked == (folder / "out.jsonl").read_bytes()


def test_decisions_on_stdout_leave_the_report_to_stderr(run, folder):
    outcome = run(*CHECK, "--decisions", "-")

    assert len(decided(outcome.out.encode())) == 36
    assert "no findings" in outcome.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_decisions_on_stdout_are_spaced_as_in_a_file_whatever_names_hold(run, folder, workers):
    write_traffic(folder / "t.jsonl", request(0, "a1"), request(1, "b1"), request(2, "zoë"))
    check = ("check", "policies", "--traffic", "t.jsonl", "--workers", workers)
    run(*check, "--decisions", "out.jsonl")
    outcome = run(*check, "--decisions", "-")

    assert outcome.out.replace(r"\u00eb", "ë") == (folder / "out.jsonl").read_text("utf-8")


def test_several_files_are_replayed_in_order_and_named(run, folder):
    write_traffic(folder / "a.jsonl", request(0), request(1))
    write_traffic(folder / "b.jsonl", request(2))
    traffic = ("--traffic", "a.jsonl", "--traffic", "b.jsonl")
    run("check", "policies", *traffic, "--decisions", "out.jsonl")
    found = decided((folder / "out.jsonl").read_bytes())

    assert [(row["file"], row["line"]) for row in found] == [
        ("a.jsonl", 1),
        ("a.jsonl", 2),
        ("b.jsonl", 1),
    ]


def test_traffic_may_come_from_the_standard_input(run, folder):
    data = (folder / "week.jsonl").read_bytes()
    plain = run("check", "policies", "--traffic", "-", stdin=data)
    packed = run("check", "policies", "--traffic", "-", stdin=zstandard.compress(data))

    assert plain.code == 0
    assert plain.out == packed.out == run(*CHECK).out


def test_unknown_facts_and_wrong_values_are_remarked(run, folder):
    write_traffic(
        folder / "t.jsonl",
        request(0, facts={"geo.contry": "DE"}),
        request(1, facts={"geo.contry": "DE", "account.tier": "gold"}),
    )
    out = run("check", "policies", "--traffic", "t.jsonl").out

    assert "fact `geo.contry` is in no policy (2 requests); did you mean `geo.country`?" in out
    note = 'fact `account.tier` is `"gold"`, none of its values: taken as missing (1 request)'
    assert note in out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_amounts_under_what_is_no_unit_are_remarked(run, folder, workers):
    rows = [
        request(at, f"a{at}", usage={"input_tokens": 5, "completion_tokens": 7}) for at in range(4)
    ]
    write_traffic(folder / "t.jsonl", *rows, request(9, usage={"input_tokens": 5, "requests": 1}))
    out = run("check", "policies", "--traffic", "t.jsonl", "--workers", workers).out

    assert "what stands under `completion_tokens` counts nothing: it is no unit," in out
    assert "(4 amounts)" in out


def test_facts_of_an_explained_request_that_no_policy_knows_are_noted(run):
    stated = '{"acount.id": "x", "account.tier": "verified", "zzzz": 1}'
    command = ("explain", "policies", "--request", stated)
    told = [
        "fact `acount.id` is in no policy: did you mean `account.id`?",
        "fact `zzzz` is in no policy: declare it under `facts:`, or leave it out",
    ]
    out = run(*command).out

    assert all(note in out for note in told)
    assert "fact `account.tier`" not in out
    printed = run(*command, "--format", "json").out
    assert all(json.dumps(note) in printed for note in told)


def test_late_requests_are_remarked(run, folder):
    write_traffic(folder / "t.jsonl", request(100), request(40), request(101))
    out = run("check", "policies", "--traffic", "t.jsonl").out

    assert "1 request came after a later one, by up to 1m; each was decided at its own time" in out


def test_columns_that_have_no_value_are_remarked(run, folder):
    (folder / "map.yaml").write_text(
        "guardrail_map: 1\nts: {column: t}\nfacts: {account.id: {column: wo}}\n"
    )
    (folder / "log").write_text('{"t": 1, "who": "a1"}\n')
    out = run("check", "policies", "--traffic", "log", "--map", "map.yaml").out

    assert "column `wo`, which the map names, has no value in any line" in out


def test_the_emergency_switch_has_no_say_in_a_replay(run, monkeypatch):
    plain = run(*CHECK).out
    monkeypatch.setenv("GUARDRAIL_MODE", "shadow")
    monkeypatch.setenv("GUARDRAIL_MODE_UNTIL", "2199-01-01")

    assert run(*CHECK).out == plain


def test_what_shadow_rules_would_change_is_said(run, folder):
    rows = [request(turn, "a3", facts={"account.tier": "verified"}) for turn in range(5)]
    write_traffic(folder / "t.jsonl", *rows)

    assert (
        "enforcing the shadow rules, too: 3 throttled (60.00%), of 1 account; most of a3 (3)"
        in run("check", "policies", "--traffic", "t.jsonl").out
    )


def test_colour_is_for_terminals_unless_asked_for(run, monkeypatch):
    assert "\x1b[" not in run("check", "broken").out
    assert "\x1b[" in run("check", "broken", "--color", "always").out
    assert "\x1b[" not in run("check", "broken", "--color", "never").out


def on_a_terminal(arguments: tuple[str, ...], environment: dict[str, str]) -> bytes:
    """Return what a command writes to a terminal."""
    outer, inner = pty.openpty()
    with subprocess.Popen(
        (*GUARDRAIL, *arguments), stdin=inner, stdout=inner, stderr=inner, env=environment
    ) as process:
        os.close(inner)
        written = b""
        while True:
            try:
                data = os.read(outer, 65536)
            except OSError:
                break
            if not data:
                break
            written += data
        process.wait()
    os.close(outer)
    return written


def test_a_terminal_gets_colour_and_a_progress_bar_unless_it_says_no(environment):
    environment |= {"TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    coloured = on_a_terminal(CHECK, environment)
    plain = on_a_terminal(CHECK, environment | {"NO_COLOR": "1"})
    dumb = on_a_terminal(CHECK, environment | {"TERM": "dumb"})

    assert b"\x1b[32mno findings" in coloured
    assert b"replaying week.jsonl" in coloured
    assert b"\x1b[32m" not in plain
    assert b"\x1b[32m" not in dumb
    assert b"no findings" in plain


def test_no_progress_is_drawn_where_nobody_watches(environment):
    command = (*GUARDRAIL, *CHECK, "--color", "always")
    done = subprocess.run(command, capture_output=True, env=environment, check=True)

    assert done.stderr == b""


@pytest.mark.parametrize(
    "arguments", [CHECK, (*CHECK, "--decisions", "-"), ("schema",), ("check", "bad.yaml")]
)
def test_a_closed_pipe_is_no_fault(arguments, environment, folder):
    (folder / "bad.yaml").write_text("guardrail: 1\nrules: [{id: one, where: always}]\n")
    write_traffic(folder / "week.jsonl", *week() * 300)
    command = (*GUARDRAIL, *arguments)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.wait()

    assert process.returncode == 141
    assert b"Traceback" not in errors
    assert b"Exception ignored" not in errors


def test_an_encoding_that_lacks_a_sign_stops_no_report(environment):
    environment |= {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run((*GUARDRAIL, *CHECK), capture_output=True, env=environment, check=True)

    assert b"\\u2192" in done.stdout


def test_results_are_the_same_from_run_to_run(environment, folder):
    (folder / "policies" / "more.yaml").write_text(
        "guardrail: 1\nrules:\n  - {id: zz, when: always, budget: {requests: 3, per: day, key: "
        "account.id}, mode: shadow}\n"
    )
    runs = {
        subprocess.run(
            (*GUARDRAIL, *CHECK, "--decisions", "-"),
            capture_output=True,
            env=environment | {"PYTHONHASHSEED": seed},
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(runs) == 1


def test_the_schema_is_json(run):
    outcome = run("schema")

    assert outcome.code == 0
    assert json.loads(outcome.out)["properties"]["rules"]


def test_only_finished_commands_are_there(run):
    out = run("--help").out

    assert [word for word in ("check", "test", "explain", "schema") if f"\n  {word} " in out] == [
        "check",
        "test",
        "explain",
        "schema",
    ]
    for absent in ("lint", "diff", "bench", "init"):
        assert run(absent).code == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
@pytest.mark.parametrize(
    "arguments",
    [CHECK, ("check", "policies", "--format", "json"), ("rule", "GR203"), ("--help",), ("schema",)],
    ids=" ".join,
)
def test_results_that_a_full_disk_does_not_take_are_no_fault_of_ours(
    folder, environment, arguments
):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*GUARDRAIL, *arguments],
            cwd=folder, env=environment, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert ended.stderr.splitlines()[-1] == (
        "error: cannot write the results: no space left on device"
    )
    assert ended.returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_remarks_that_cannot_be_written_change_no_exit_code(folder, environment):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*GUARDRAIL, "check", "absent"],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=full,
        )  # fmt: skip

    assert ended.returncode == 2


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        (">&-", "check policies", 0),
        (">&- 2>&-", "check failing", 1),
        (">&-", "--version", 0),
        ("2>&-", "check absent", 2),
        ("<&-", "check policies --traffic -", 1),
    ],
)
def test_streams_that_were_closed_beforehand_change_no_exit_code(
    folder, environment, closed, arguments, code
):
    command = f'exec "{sys.executable}" -m guardrail {arguments} {closed}'
    ended = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )

    assert ended.returncode == code
    assert "Traceback" not in ended.stderr

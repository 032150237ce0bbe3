"""`guardrail watch`: a check for each change, once it is whole, until it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from datetime import UTC, datetime

from guardrail.cli.output import Color, Output
from guardrail.cli.watching import keep_checking, seen_under, told_changes
from tests.cli.interrupting import started

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def watched(states, checks=None):
    """Watch files that look as they are told to, one look after the other, then be interrupted."""
    looks = iter(states)
    pauses: list[int] = []
    checked: list[int] = []

    def look():
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    def check():
        checked.append(len(pauses))
        return (checks or [0] * 99)[len(checked) - 1]

    code = keep_checking(
        check, look, lambda: pauses.append(1), lambda: NOON, Output(Color.NEVER)
    )  # fmt: skip
    return code, checked


def test_policies_are_checked_at_once_and_after_each_change(capsys):
    a, b, c = {"p": (1, 1)}, {"p": (2, 1)}, {"p": (3, 1)}
    code, checked = watched([a, a, a, b, b, b, c, c], [0, 3, 0])
    out = capsys.readouterr().out

    assert code == 0
    assert len(checked) == 3
    assert out.count("12:00:00  ") == 5
    assert out.splitlines()[:3] == [
        "12:00:00  exit 0; waiting for a file to be saved",
        "12:00:00  `p` was saved",
        "12:00:00  exit 3; waiting for a file to be saved",
    ]


def test_a_file_that_is_still_being_written_is_left_alone(capsys):
    steps = [{"p": (number, number)} for number in range(1, 6)]
    _, checked = watched([{"p": (0, 0)}, *steps, steps[-1]])

    assert len(checked) == 2


def test_what_changes_during_a_check_is_checked_after_it(capsys):
    a, b = {"p": (1, 1)}, {"p": (2, 1)}
    _, checked = watched([a, b, b])

    assert len(checked) == 2


def test_changes_are_told_by_what_became_of_files():
    before = {"a": (1, 1), "b": (1, 1), "c": (1, 1)}
    after = {"a": (1, 1), "b": (2, 1), "d": (1, 1)}

    assert told_changes(before, after) == "`b` was saved, `c` is gone, `d` is new"
    many = {f"f{n}": (1, 1) for n in range(5)}
    assert told_changes({}, many) == "`f0` is new, `f1` is new, `f2` is new and 2 other files"
    assert told_changes({}, {"\x1b[2J": (1, 1)}) == r"`\x1b[2J` is new"


def test_files_are_seen_by_time_and_size_and_hidden_ones_are_not(folder):
    first = seen_under(["policies", "week.jsonl", "gone.yaml"])
    assert set(first) == {"policies/public.yaml", "week.jsonl"}

    (folder / "policies/.public.yaml.swp").write_text("")
    (folder / "policies/.git").mkdir()
    (folder / "policies/.git/index").write_text("")
    assert seen_under(["policies", "week.jsonl"]) == first

    os.utime("policies/public.yaml", ns=(1, 1))
    (folder / "policies/list.txt").write_text("a\n")
    second = seen_under(["policies", "week.jsonl"])
    assert second["policies/public.yaml"] != first["policies/public.yaml"]
    assert "policies/list.txt" in second


def test_what_can_be_read_once_is_not_watched(run):
    outcome = run("watch", "policies", "--traffic", "-")

    assert outcome.code == 2
    assert "give a file to watch" in outcome.err


def test_a_process_checks_on_save_and_ends_clean(folder):
    watch = started("watch", "policies", "--every", "1s", cwd=folder, stderr=subprocess.STDOUT)
    with watch as process:
        assert process.stdout is not None
        seen = ""
        while "exit 0; waiting" not in seen:
            seen += process.stdout.readline()
        policy = folder / "policies/public.yaml"
        policy.write_text(policy.read_text().replace("geo.country: {in", "geo.contry: {in"))
        while "exit 3; waiting" not in seen:
            seen += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert "`policies/public.yaml` was saved" in seen
    assert "did you mean `geo.country`?" in seen
    assert re.sub(r"\s", "", rest) == "", seen

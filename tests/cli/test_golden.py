"""What commands print, whole, for a small set of policies and traffic."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_command_prints_what_it_printed(run, path):
    expected = path.read_text("utf-8")
    command = shlex.split(expected.partition("\n")[0].removeprefix("$ guardrail "))
    outcome = run(*command)
    assert outcome.err == ""
    printed = f"$ guardrail {shlex.join(command)}\n{outcome.out}exit {outcome.code}\n"

    assert printed == expected

"""What commands print, whole, for a small set of policies and traffic, at several widths.

A golden file starts with its command: `$ COLUMNS=60 guardrail check policies`. All are written
anew by `python -m scripts.printed --write`, and then looked at.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from guardrail.cli.inert import width

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
WIDEST = 80


class Command(NamedTuple):
    """The first line of a golden file: its text, the settings before the command, the arguments."""

    text: str
    settings: dict[str, str]
    arguments: list[str]

    @classmethod
    def of(cls, golden: str) -> Command:
        """Read the first line of a golden file."""
        text = golden.partition("\n")[0]
        before, _, rest = text.removeprefix("$ ").partition("guardrail ")
        settings = dict(word.split("=", 1) for word in before.split())
        return cls(text, settings, shlex.split(rest))

    def shown(self, out: str, code: int) -> str:
        """Return the golden file of what the command printed, and how it ended."""
        return f"{self.text}\n{out}exit {code}\n"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_command_prints_what_it_printed(run, path, monkeypatch):
    expected = path.read_text("utf-8")
    command = Command.of(expected)
    monkeypatch.setenv("COLUMNS", str(WIDEST))
    for name, value in command.settings.items():
        monkeypatch.setenv(name, value)
    outcome = run(*command.arguments)
    assert outcome.err == ""

    assert command.shown(outcome.out, outcome.code) == expected


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_is_printed_for_people_fits_the_width(path):
    first, *lines = path.read_text("utf-8").splitlines()
    command = Command.of(first)
    if set(command.arguments) & {"json", "jsonl", "junit", "sarif", "github", "concise", "always"}:
        pytest.skip("for programs, or one line each")
    most = int(command.settings.get("COLUMNS", WIDEST))

    # What is to be copied into a shell stands in one line.
    told = [line for line in lines if not line.strip().startswith("guardrail ")]
    assert [line for line in told if width(line) > most] == []

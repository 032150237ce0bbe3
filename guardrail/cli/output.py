"""Where output goes: results to stdout, progress and warnings to stderr, coloured or not."""

from __future__ import annotations

import enum
import json
import os
import sys
from typing import IO

from rich.console import Console
from rich.text import Text

from guardrail.cli.inert import inert

EFFECT_STYLES = {"allow": "green", "degrade": "yellow", "throttle": "magenta", "block": "red"}


class Color(enum.StrEnum):
    """When output is coloured; auto is on a terminal, unless NO_COLOR is set."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Format(enum.StrEnum):
    """How results are printed: for people, a line a finding, or one JSON object."""

    FULL = "full"
    CONCISE = "concise"
    JSON = "json"


class Output:
    """The two streams of a command.

    `color` is the wish of the command line; `results_to_stderr` is for a command whose stdout
    carries data of its own.
    """

    def __init__(self, color: Color, *, results_to_stderr: bool = False) -> None:
        self._results = _console(sys.stderr if results_to_stderr else sys.stdout, color)
        self._notes = _console(sys.stderr, color)

    @property
    def interactive(self) -> bool:
        """Whether somebody watches stderr on a terminal."""
        return sys.stderr.isatty()

    @property
    def notes(self) -> Console:
        """The console that progress is drawn on."""
        return self._notes

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Print a line of results; a part is text or text with a style."""
        self._results.print(Text.assemble(*parts), soft_wrap=True)

    def text(self, text: str) -> None:
        """Print text of results as it is."""
        self._results.print(Text(text), soft_wrap=True)

    def json(self, value: object) -> None:
        """Print a value as JSON, in plain ASCII so that no terminal acts on what it quotes."""
        self.text(json.dumps(value, indent=2))

    def warn(self, message: str) -> None:
        """Print a warning to stderr."""
        self._notes.print(Text.assemble(("warning: ", "yellow"), inert(message)), soft_wrap=True)

    def note(self, message: str) -> None:
        """Print a note to stderr."""
        self._notes.print(Text.assemble(("note: ", "cyan"), inert(message)), soft_wrap=True)

    def error(self, message: str) -> None:
        """Print an error to stderr."""
        self._notes.print(Text.assemble(("error: ", "red"), inert(message)), soft_wrap=True)


class _Console(Console):
    """A console whose closed pipe is the command's to answer for."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stream: IO[str], color: Color) -> Console:
    styled = color is Color.ALWAYS or (color is Color.AUTO and _wants_color(stream))
    return _Console(
        file=stream,
        force_terminal=styled,
        color_system="standard" if styled else None,
        no_color=not styled,
        markup=False,
        highlight=False,
        emoji=False,
    )


def _wants_color(stream: IO[str]) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()

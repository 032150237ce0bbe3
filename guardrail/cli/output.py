"""Where output goes: results to stdout, progress and warnings to stderr, coloured or not."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO

from rich.console import Console
from rich.text import Text

from guardrail.cli.inert import inert, wrapped

LABEL = 9
"""How wide the column of labels is, where text stands beside them."""
EFFECT_STYLES = {"allow": "green", "degrade": "yellow", "throttle": "magenta", "block": "red"}


class Color(enum.StrEnum):
    """When output is coloured; auto is on a terminal, unless NO_COLOR is set."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Format(enum.StrEnum):
    """How results are printed.

    For people (`full`), a line a finding (`concise`), one JSON object, one a line (`jsonl`), or as
    the programs that show results take them: JUnit's XML, SARIF 2.1.0, GitHub's commands.
    """

    FULL = "full"
    CONCISE = "concise"
    JSON = "json"
    JSONL = "jsonl"
    JUNIT = "junit"
    SARIF = "sarif"
    GITHUB = "github"


NARROWEST, USUAL = 40, 80
"""How many columns text is laid out for: at least, and where nothing is known."""


class Output:
    """The two streams of a command.

    `color` is the wish of the command line; `results_to_stderr` is for a command whose stdout
    carries data of its own; `results` is another stream than stdout for them, never coloured.
    """

    def __init__(
        self, color: Color, *, results_to_stderr: bool = False, results: IO[str] | None = None
    ) -> None:
        stream = results or (sys.stderr if results_to_stderr else sys.stdout)
        self._results = _console(stream, Color.NEVER if results else color)
        self._notes = _console(sys.stderr, color)
        self.width = _columns(stream)
        """How many columns results are laid out for."""

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

    def told(self, label: str, text: str, style: str = "bold") -> None:
        """Print a label and text beside it, in as many lines as it takes; the text is inert."""
        lines = wrapped(text, max(self.width - LABEL, NARROWEST - LABEL))
        self.line((label.ljust(LABEL), style), lines[0])
        for line in lines[1:]:
            self.line(" " * LABEL, line)

    def lines(self, lines: Iterable[str], indent: int = 2) -> None:
        """Print lines of results, indented."""
        for line in lines:
            self.line(" " * indent if line else "", line)

    def paragraph(self, text: str, label: str = "") -> None:
        """Print text, after a label if there is one, in as many lines as it takes.

        Those after the first stand further to the right.
        """
        first, *more = wrapped(text, self.width - 2 - max(2, len(label)))
        self.line("  ", label, first)
        self.lines(more, 2 + max(2, len(label)))

    def text(self, text: str) -> None:
        """Print text of results as it is."""
        self._results.print(Text(text), soft_wrap=True)

    def json(self, value: object, indent: int | None = 2) -> None:
        """Print a value as JSON, in plain ASCII so that no terminal acts on what it quotes."""
        stream = self._results.file
        for piece in json_pieces(value, indent):
            stream.write(piece)
        stream.write("\n")
        stream.flush()

    def warn(self, message: str) -> None:
        """Print a warning to stderr."""
        self._remark(("warning: ", "yellow"), message)

    def note(self, message: str) -> None:
        """Print a note to stderr."""
        self._remark(("note: ", "cyan"), message)

    def error(self, message: str) -> None:
        """Print an error to stderr."""
        self._remark(("error: ", "red"), message)

    def _remark(self, label: tuple[str, str], message: str) -> None:
        try:
            self._notes.print(Text.assemble(label, inert(message)), soft_wrap=True)
        except BrokenPipeError:
            raise
        except OSError:
            pass  # where there is no room for remarks, results and the exit code still tell


class Entries(Iterable[Mapping[str, object]]):
    """The entries of a JSON array, too many to be kept: made anew whenever they are told."""

    def __init__(self, made: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        self._made = made

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        return self._made()


def json_pieces(value: object, indent: int | None = 2, level: int = 0) -> Iterator[str]:
    """Yield a value as JSON, piece by piece; together they are what `json.dumps` makes of it.

    A value's `Entries` stand for an array.
    """
    inner = outer = ""
    if indent is not None:
        inner = "\n" + " " * (indent * (level + 1))
        outer = "\n" + " " * (indent * level)
    between = ", " if indent is None else "," + inner
    if isinstance(value, Mapping):
        start = "{" + inner
        for name, part in value.items():
            text = name if isinstance(name, str) else json.dumps(name)
            yield f"{start}{json.dumps(text)}: "
            yield from json_pieces(part, indent, level + 1)
            start = between
        yield "{}" if start is not between else outer + "}"
    elif isinstance(value, list | tuple | Entries):
        start = "[" + inner
        for part in value:
            yield start
            yield from json_pieces(part, indent, level + 1)
            start = between
        yield "[]" if start is not between else outer + "]"
    else:
        yield json.dumps(value)


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


def _columns(stream: IO[str]) -> int:
    """Return how wide text may be: as COLUMNS says, or the terminal."""
    stated = os.environ.get("COLUMNS", "")
    columns = int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 6 else 0
    if not columns and stream.isatty():
        with contextlib.suppress(OSError, ValueError):
            columns = os.get_terminal_size(stream.fileno()).columns
    return max(NARROWEST, columns or USUAL)


def _wants_color(stream: IO[str]) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()

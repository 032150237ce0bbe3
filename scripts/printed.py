"""Writes down anew what commands print: in the documents, and in the tests' golden files.

    python -m scripts.printed           name each block and file that is not what is printed
    python -m scripts.printed --write   write them anew, then look at `git diff`

In a document, `…` goes on standing for what is left out: a line of the block is replaced by the
printed line most like it, in order, and one that nothing is like any more is left out. A block
without `…` alone on a line is replaced whole. What stands as `…` within a line stays so where it
can be told; where it cannot, the line is named, to be looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from guardrail.cli import main as guardrail
from tests import test_docs
from tests.cli.conftest import fill, masked
from tests.cli.test_golden import GOLDEN, WIDEST, Command

ALIKE = 0.6
"""How like a printed line must be to stand for a shown one, from 0 to 1, figures apart."""
LEFT_OUT = "…"


def main() -> int:
    """Compare, or write anew; return 1 where something is not as it is printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("--write", action="store_true", help="write what differs anew")
    parser.add_argument("only", nargs="*", help="parts of the paths to look at; all if left out")
    asked = parser.parse_args()
    differing = 0
    for path in [*GOLDEN, *test_docs.DOCUMENTS]:
        name = path.relative_to(test_docs.ROOT).as_posix()
        if asked.only and not any(part in name for part in asked.only):
            continue
        before = path.read_text("utf-8")
        after = golden(before) if path in GOLDEN else document(before, name)
        if after != before:
            differing += 1
            print(f"{name} {'written anew' if asked.write else 'differs'}")
            if asked.write:
                path.write_text(after, "utf-8")
    return 0 if asked.write or not differing else 1


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def golden(text: str) -> str:
    """Return a golden file as its command prints it now."""
    command = Command.of(text)
    settings = {"COLUMNS": str(WIDEST), **command.settings}
    with tempfile.TemporaryDirectory() as folder, _moved(Path(folder), settings):
        fill(Path(folder))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = guardrail(command.arguments)
    return command.shown(masked(printed.getvalue()), code)


def document(text: str, name: str) -> str:
    """Return a document with what its console blocks print now; `name` is for what is told."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part in ("policies", "examples"):
            shutil.copytree(test_docs.ROOT / part, place / part)
        names: dict[str, object] = {"__name__": "__main__"}
        with _moved(place, {}):
            for block in test_docs.blocks(text):
                if block.language == "python":
                    with contextlib.redirect_stdout(io.StringIO()):
                        exec(compile(block.text, "<example>", "exec", dont_inherit=True), names)
                elif block.language == "sh":
                    test_docs.shell(f"set -e\n{block.text}", place)
                elif block.language == "console":
                    body = console(block.text, place, f"{name}:{block.line}")
                    text = _replaced(text, block.text, body)
    return text


def console(text: str, folder: Path, place: str) -> str:
    """Return a console block with what its commands print now; `place` is for what is told."""
    typed = test_docs.commands(text)
    script = "".join(
        f"{command.text}\nstatus=$?; printf '{test_docs.MARK}'; (exit $status)\n"
        for command in typed
    )
    printed = test_docs.shell(script, folder).stdout.split(test_docs.MARK)
    for command, output in zip(typed, printed, strict=False):
        if command.runs and not test_docs.agrees(command.shown, output):
            whole = f"{_typed(text, command.text)}\n{command.shown}".rstrip()
            shown = "\n".join(renewed(command.shown, output, place))
            text = text.replace(whole, f"{_typed(text, command.text)}\n{shown}".rstrip(), 1)
    return text


def renewed(shown: str, output: str, place: str) -> Iterator[str]:
    """Yield the lines that stand for `output` where `shown` stood: with the same left out."""
    printed = [line.rstrip() for line in output.rstrip().splitlines()]
    lines = shown.rstrip().splitlines()
    if not any(line.strip() == LEFT_OUT for line in lines):
        known = [_kept(line, _likest(line, lines)[0], place) for line in printed]
        yield from known
        return
    at, out = 0, False
    for line in lines:
        if line.strip() == LEFT_OUT:
            if not out:
                yield line
            out = True
            continue
        found, number = _likest(line, printed[at:])
        if number is None:
            if not out:
                yield LEFT_OUT
            out = True
            continue
        if number and not out:
            yield LEFT_OUT
        yield _kept(found, line, place)
        at, out = at + number + 1, False
    if at < len(printed) and not out:
        yield LEFT_OUT


def _likest(line: str, others: list[str]) -> tuple[str, int | None]:
    """Return which line is most like one, and where; none where nothing is like it."""
    wanted = _shape(line)
    known = [
        (difflib.SequenceMatcher(None, wanted, _shape(other)).ratio(), -number)
        for number, other in enumerate(others)
    ]
    alike, number = max(known, default=(0.0, 0))
    return (others[-number], -number) if alike >= ALIKE else ("", None)


def _shape(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", line)).strip()


def _kept(printed: str, shown: str, place: str) -> str:
    """Return a printed line with what was left out of the shown one left out of it."""
    if LEFT_OUT not in shown or printed.count(LEFT_OUT) >= shown.count(LEFT_OUT):
        return masked(printed)
    known = masked(printed)
    if known.count(LEFT_OUT) >= shown.count(LEFT_OUT):
        return known
    pattern = LEFT_OUT.join(re.escape(part) for part in shown.split(LEFT_OUT))
    if re.fullmatch(pattern.replace(LEFT_OUT, ".*"), printed):
        return shown
    print(f"{place}: look at `{printed.strip()}`: it was `{shown.strip()}`", file=sys.stderr)
    return known


def _typed(text: str, command: str) -> str:
    """Return a command as it stands in a block, with its prompts."""
    lines = command.splitlines()
    for mark in ("> ", ""):
        written = "\n".join(["$ " + lines[0], *(mark + line for line in lines[1:])])
        if written in text:
            return written
    return "$ " + command


def _replaced(text: str, before: str, after: str) -> str:
    """Return a document with one block's text replaced, indented as it was."""
    for indent in ("", "  ", "   ", "    "):
        old, new = (_indented(body, indent) for body in (before, after))
        if old in text:
            return text.replace(old, new, 1)
    return text


def _indented(body: str, indent: str) -> str:
    return "".join(indent + line if line.strip() else line for line in body.splitlines(True))


@contextlib.contextmanager
def _moved(folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Work in a folder with some settings, and come back."""
    before, environment = Path.cwd(), dict(os.environ)
    os.environ.update(settings)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


if __name__ == "__main__":
    raise SystemExit(main())

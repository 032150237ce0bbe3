"""`guardrail watch`: check again whenever a file is saved, until it is stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from guardrail.cli import options
from guardrail.cli.checking import CheckRequest, run_check
from guardrail.cli.failures import OK, ended, reported
from guardrail.cli.figures import plural
from guardrail.cli.inert import shortened
from guardrail.cli.output import Color, Format, Output
from guardrail.errors import SettingError

Seen = Mapping[str, tuple[int, int]]
"""The files there are, each with the time of its last change in nanoseconds, and its size."""

EVERY = 0.5
"""How often files are looked at, in seconds."""
_SHOWN = 3


def watch(
    paths: options.Paths,
    traffic: options.Traffic = None,
    map: options.Map = None,
    geo: options.Geo = None,
    form: options.Formats = None,
    color: options.ColorOption = Color.AUTO,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            metavar="DURATION",
            parser=options.seconds,
            help="How often to look; twice a second, if left out.",
        ),
    ] = None,
) -> None:
    """Check policies each time one of their files is saved; end it with Ctrl-C."""
    output = Output(color)
    watched = [*paths, *(name for name in traffic or [] if name != "-")]
    if map is not None:
        watched.append(map)
    asked = CheckRequest(paths=paths, traffic=traffic or [], map=map, geo=geo)

    def check() -> int:
        not_run = "; tests were not run" if not traffic else "; tests and traffic were not run"
        return reported(
            lambda reports: run_check(asked, output, reports),
            output,
            form,
            not_run=not_run,
            files=asked.files,
        )

    def run() -> int:
        if "-" in (traffic or []):
            raise SettingError("`--traffic -` can be read once: give a file to watch")
        return keep_checking(
            check,
            lambda: seen_under(watched),
            lambda: time.sleep(every or EVERY),
            lambda: datetime.now().astimezone(),
            output,
        )

    raise typer.Exit(ended(run, output, Format.FULL))


def keep_checking(
    check: Callable[[], int],
    look: Callable[[], Seen],
    pause: Callable[[], None],
    clock: Callable[[], datetime],
    output: Output,
) -> int:
    """Check now and after each change until interrupted, and return the exit code.

    `look` returns the files as they are. A change is checked once two looks in a row, with a
    `pause` between them, find the same: an editor may write a file in several steps. What changes
    during a check is checked after it.
    """
    try:
        before = look()
        while True:
            _say(output, clock(), f"exit {check()}; waiting for a file to be saved")
            after = look()
            while after == before:
                pause()
                after = look()
            while True:
                pause()
                again = look()
                if again == after:
                    break
                after = again
            _say(output, clock(), told_changes(before, after))
            before = after
    except KeyboardInterrupt:
        # Past the console: what it was printing when it was interrupted must not come again.
        typer.echo()
        return OK


def seen_under(paths: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the files under some paths; hidden ones and what cannot be read are left out."""
    found: dict[str, tuple[int, int]] = {}
    for path in paths:
        for file in _files(Path(path)):
            try:
                stat = file.stat()
            except OSError:
                continue
            found[str(file)] = (stat.st_mtime_ns, stat.st_size)
    return found


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith((".", "#"))]
    return found


def told_changes(before: Seen, after: Seen) -> str:
    """Return in words which files changed, came or went."""
    changed = sorted(
        name for name in {*before, *after} if before.get(name) != after.get(name)
    )  # fmt: skip
    named = ", ".join(
        f"`{shortened(name)}`{_how(name, before, after)}" for name in changed[:_SHOWN]
    )
    more = len(changed) - _SHOWN
    return named + (f" and {plural(more, 'other file')}" if more > 0 else "")


def _how(name: str, before: Seen, after: Seen) -> str:
    if name not in before:
        return " is new"
    return " is gone" if name not in after else " was saved"


def _say(output: Output, now: datetime, text: str) -> None:
    output.line((f"{now:%H:%M:%S}  ", "bold"), text)

"""How a command ends: its exit code, and what is said when something stands in the way."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from guardrail.cli.excerpts import counted, print_diagnostics
from guardrail.cli.files import Files
from guardrail.cli.inert import wrapped
from guardrail.cli.machine import finding_fields
from guardrail.cli.output import Format, Output
from guardrail.cli.reports import Reports, Results, Wanted, opened
from guardrail.errors import GuardrailError, PolicyError
from guardrail.traffic.mapfile import MapError

OK = 0
FINDINGS = 1
USAGE = 2
NOT_LOADED = 3
OUR_FAULT = 4
INTERRUPTED = 130
PIPE_CLOSED = 141

TRACEBACK_SETTING = "GUARDRAIL_TRACEBACK"


class NothingToCheckError(Exception):
    """There is nothing a command could find fault with, which is no success."""


def ended(
    run: Callable[[], int],
    output: Output,
    form: Format,
    *,
    not_run: str = "",
    allow_empty: bool = False,
    files: Files | None = None,
) -> int:
    """Run a command and return its exit code, whatever happens in it.

    `not_run` says, after a policy that could not be loaded, which stages were not reached. Of
    `files` none may take the place of another.
    """

    def kept() -> int:
        if files is not None:
            files.keep_apart()
        return run()

    try:
        return _ended(kept, output, form, not_run, allow_empty)
    except BrokenPipeError:
        silence_stdout()
        return PIPE_CLOSED


def _ended(
    run: Callable[[], int], output: Output, form: Format, not_run: str, allow_empty: bool
) -> int:
    """Run a command, and tell what went wrong; whoever reads that may have gone."""
    try:
        return run()
    except PolicyError as error:
        _print_unloaded(output, error, form, not_run)
        return NOT_LOADED
    except MapError as error:
        print_diagnostics(output, error.diagnostics, form)
        output.error(f"map not loaded: {counted(error.diagnostics)}")
        return USAGE
    except GuardrailError as error:
        output.error(str(error))
        return USAGE
    except NothingToCheckError as error:
        output.error(str(error))
        return OK if allow_empty else FINDINGS
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        output.error("interrupted")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and no_room(error):
            return unwritten(output, error)
        _print_our_fault(output, error)
        return OUR_FAULT


def no_room(error: OSError) -> bool:
    """Tell whether a stream of ours takes no more: its disk is full, or failed.

    Whoever opens a file says so of it, by a `DataError` that names it.
    """
    return error.filename is None and error.errno in _NO_ROOM


_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


def unwritten(output: Output, error: OSError) -> int:
    """Tell that results could not be written, and return the exit code."""
    silence_stdout()
    output.error(f"cannot write the results: {(error.strerror or str(error)).lower()}")
    return USAGE


def silence_stdout() -> None:
    """Send what is still to be written nowhere: whoever read it has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def reported(
    run: Callable[[Reports], int],
    output: Output,
    asked: Sequence[Wanted] | None,
    *,
    name: str = "check",
    not_run: str = "",
    allow_empty: bool = False,
    files: Files | None = None,
) -> int:
    """Run a command that reports in several formats, and return its exit code, whatever happens.

    A policy that cannot be loaded is told in each of them.
    """

    def every() -> int:
        with opened(asked, output) as reports:
            try:
                return run(reports)
            except PolicyError as error:
                reports.tell(_unloaded(error, name, not_run))
                return NOT_LOADED

    known = files or Files()
    forms = ((f"--format {one.form}=", one.file) for one in asked or ())
    every_file = Files(reads=known.reads, writes=(*known.writes, *forms))
    return ended(every, output, Format.FULL, allow_empty=allow_empty, files=every_file)


def _unloaded(error: PolicyError, name: str, not_run: str) -> Results:
    def text(output: Output, form: Format) -> None:
        print_diagnostics(output, error.diagnostics, form)
        told = f"{counted(error.diagnostics)}. Policy not loaded{not_run}."
        output.lines(wrapped(told, output.width), 0)

    fields = [finding_fields(found) for found in error.diagnostics]
    return Results(
        name=name,
        text=text,
        fields={"loaded": False, "diagnostics": fields},
        findings=error.diagnostics,
    )


def _print_unloaded(output: Output, error: PolicyError, form: Format, not_run: str) -> None:
    results = _unloaded(error, "", not_run)
    if form is Format.JSON:
        output.json(results.fields)
    else:
        results.text(output, form)


def _print_our_fault(output: Output, error: Exception) -> None:
    if os.environ.get(TRACEBACK_SETTING) == "1":
        output.error("".join(traceback.format_exception(error)))
        return
    output.error(
        f"this is a fault in guardrail, not in your files ({type(error).__name__}: {error}); "
        f"please report it, with what {TRACEBACK_SETTING}=1 prints"
    )

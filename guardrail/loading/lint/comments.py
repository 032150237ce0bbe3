"""Comments that accept findings, which findings they accept, and which of them accept none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from guardrail.errors import Diagnostic, Ignore, finding
from guardrail.loading.findings import Scope
from guardrail.loading.notation import NotationError, read_instant
from guardrail.loading.text import Source, listed, quoted
from guardrail.model.amounts import SECOND
from guardrail.model.policy import PolicySet

IDLE = "GR230"


def accepted(
    policies: PolicySet, found: Iterable[Diagnostic], now: int
) -> tuple[list[Diagnostic], list[Diagnostic]]:
    """Return what no comment accepts, by its place, and what one does."""
    left: list[Diagnostic] = []
    ignored: list[Diagnostic] = []
    for one in sorted(found, key=lambda one: one.sort_key):
        taken = any(ignore.accepts(one.code, one.span, now) for ignore in policies.ignores)
        (ignored if taken else left).append(one)
    return left, ignored


def idle_comments(
    policies: PolicySet, ignored: Iterable[Diagnostic], now: int, sought: Collection[str]
) -> list[Diagnostic]:
    """Return a finding for each comment that accepts nothing any more, at `now` (microseconds).

    `ignored` is what comments accepted, and `sought` the codes that were looked for: a comment
    about others may have its use elsewhere.
    """
    found: list[Diagnostic] = []
    taken = {(one.code, one.span.file, one.span.line) for one in ignored}
    for ignore in policies.ignores:
        span = ignore.written or ignore.span
        message = ""
        if ignore.until is not None and ignore.until <= now:
            day = datetime.fromtimestamp(ignore.until // SECOND - 1, UTC)
            message = f"this comment accepts nothing since {day:%Y-%m-%d}"
        else:
            idle = [
                code
                for code in ignore.codes
                if code in sought and (code, ignore.span.file, ignore.span.line) not in taken
            ]
            if idle:
                message = f"this comment accepts {listed(idle, 'or')}, which is not found here"
        if message:
            help = "leave it out, or put it into the line of what is found, or above that"
            found.append(finding(IDLE, message, span, help))
    return found


_COMMENT = re.compile(r"(?:^|\s)#\s*guardrail:\s*ignore\b(?P<what>.*)$")
_WHAT = re.compile(r"\s+(?P<codes>GR\d+(?:\s*,\s*GR\d+)*)(?:\s+until\s+(?P<until>\S+))?(?:\s+.*)?")
_HELP = "write `# guardrail: ignore GR203 until 2026-12-31 why`"


def read_ignores(scope: Scope) -> tuple[Ignore, ...]:
    """Return the comments of all files that accept findings; report those that cannot be read.

    One behind something is for its line, one alone in its line for the next line that is none.
    """
    found = [
        ignore
        for source in scope.findings.sources()
        for number, line in enumerate(source.lines, 1)
        if "guardrail:" in line and (ignore := _read(scope, source, number, line)) is not None
    ]
    return tuple(found)


def _read(scope: Scope, source: Source, number: int, line: str) -> Ignore | None:
    comment = _COMMENT.search(line)
    if comment is None:
        return None
    span = source.span(number, comment.start("what") + 1, len(comment["what"]))
    what = _WHAT.fullmatch(comment["what"])
    if what is None:
        message = "this comment does not say which findings to ignore"
        scope.report("GR102", span, message, help=_HELP)
        return None
    codes = tuple(re.findall(r"GR\d+", what["codes"]))
    errors = [code for code in codes if code < "GR2"]
    if errors:
        message = f"{quoted(errors[0])} is an error, and cannot be ignored"
        scope.report("GR102", span, message, help="correct what it is about")
        return None
    until = None
    if what["until"] is not None:
        try:
            until = read_instant(what["until"], scope.zone, last=True)
        except NotationError as error:
            message = f"{quoted(what['until'])} {error.message}"
            scope.report("GR110", span, message, help=error.help)
            return None
    at = number
    if line.lstrip().startswith("#"):
        at = _next_line(source, number)
    start = line.index("#", comment.start()) + 1
    written = source.span(number, start, len(line) + 1 - start)
    return Ignore(codes, source.span(at, 1), until, written)


def _next_line(source: Source, number: int) -> int:
    for following in range(number + 1, len(source.lines) + 1):
        line = source.lines[following - 1].strip()
        if line and not line.startswith("#"):
            return following
    return number

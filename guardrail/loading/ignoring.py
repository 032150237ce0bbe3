"""Comments that accept a finding: `# guardrail: ignore GR203 until 2026-12-31 why`."""

from __future__ import annotations

import re

from guardrail.errors import Ignore
from guardrail.loading.findings import Scope
from guardrail.loading.notation import NotationError, read_instant
from guardrail.loading.text import Source, quoted

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
        scope.findings.report("GR102", span, message, help=_HELP)
        return None
    codes = tuple(re.findall(r"GR\d+", what["codes"]))
    errors = [code for code in codes if code < "GR2"]
    if errors:
        message = f"{quoted(errors[0])} is an error, and cannot be ignored"
        scope.findings.report("GR102", span, message, help="correct what it is about")
        return None
    until = None
    if what["until"] is not None:
        try:
            until = read_instant(what["until"], scope.zone, last=True)
        except NotationError as error:
            message = f"{quoted(what['until'])} {error.message}"
            scope.findings.report("GR110", span, message, help=error.help)
            return None
    if line.lstrip().startswith("#"):
        number = _next_line(source, number)
    return Ignore(codes, source.span(number, 1), until)


def _next_line(source: Source, number: int) -> int:
    for following in range(number + 1, len(source.lines) + 1):
        line = source.lines[following - 1].strip()
        if line and not line.startswith("#"):
            return following
    return number

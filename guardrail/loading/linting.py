"""Findings about a policy set that loads, and the comments that accept them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from guardrail.errors import Diagnostic, Ignore, warning
from guardrail.loading.findings import Scope
from guardrail.loading.notation import NotationError, read_instant
from guardrail.loading.text import Source, quoted
from guardrail.model.amounts import DAY, SECOND
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet

SOON = 14 * DAY
"""How long before its end, in microseconds, something that ends is told."""

ENDED = "GR206"


def lint(policies: PolicySet, now: int) -> list[Diagnostic]:
    """Return what was found at loading, and what has ended at `now` (microseconds)."""
    return [*policies.warnings, *(found for end, found in _ends(policies) if end <= now)]


def ending_soon(policies: PolicySet, now: int) -> list[str]:
    """Return a line for each exemption and rule that ends within two weeks of `now`."""
    return [
        f"{found.message.partition(':')[0].replace('ended', 'ends')} ({found.span})"
        for end, found in _ends(policies)
        if now < end <= now + SOON
    ]


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


def _ends(policies: PolicySet) -> Iterator[tuple[int, Diagnostic]]:
    for exemption in policies.exemptions:
        message = f"exemption {quoted(exemption.id)} ended {_last(exemption.expires)}"
        again = "the amounts it raised are the rules' own" if exemption.raises else ""
        message += f": {again or 'the rules it lifted apply'} again"
        help = "leave it out, or renew it"
        yield exemption.expires, warning(ENDED, message, exemption.span, help)
    for rule in policies.rules:
        if rule.end is not None and rule.mode is not Mode.OFF:
            message = f"rule {quoted(rule.id)} ended {_last(rule.end)}: it applies no longer"
            yield rule.end, warning(ENDED, message, rule.span, "leave it out, or renew its `until`")


def _last(end: int) -> str:
    return f"{datetime.fromtimestamp(end // SECOND - 1, UTC):%Y-%m-%d}"


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
    if line.lstrip().startswith("#"):
        number = _next_line(source, number)
    return Ignore(codes, source.span(number, 1), until)


def _next_line(source: Source, number: int) -> int:
    for following in range(number + 1, len(source.lines) + 1):
        line = source.lines[following - 1].strip()
        if line and not line.startswith("#"):
            return following
    return number

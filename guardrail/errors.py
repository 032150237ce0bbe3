"""The exceptions guardrail raises, and the located findings about policy files as data.

GuardrailError
├── PolicyError     the policy files cannot be loaded
├── DataError       a data file (geo, ranges, traffic, map) cannot be read
├── SettingError    an argument, a URI or an environment variable is wrong
└── StoreError      the store did not answer
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Severity(enum.Enum):
    """How grave a finding is: an error keeps a policy from loading, a note is no fault by itself.

    They stand from the gravest down.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def __str__(self) -> str:
        return self.value

    def reaches(self, least: Severity) -> bool:
        """Tell whether it is as grave as another, or graver."""
        order = list(Severity)
        return order.index(self) <= order.index(least)


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a file: lines and columns count from 1, the end column is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Ignore:
    """A comment that accepts findings: `# guardrail: ignore GR203 until 2026-12-01 why`.

    It stands in the line of what is found, or alone in the line above. `until` is the first
    instant at which it holds no longer, in microseconds since the epoch, None for never. `span` is
    in the line of what it accepts, and `written` is the comment itself.
    """

    codes: tuple[str, ...]
    span: Span
    until: int | None = None
    written: Span | None = None

    def accepts(self, code: str, at: Span, now: int) -> bool:
        """Tell whether it accepts a finding of that code and place, at `now` (microseconds)."""
        in_force = self.until is None or now < self.until
        return (
            in_force
            and code in self.codes
            and at.file == self.span.file
            and (at.line == self.span.line)
        )


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: a stable code, a sentence in the author's words, and where it applies.

    `excerpt` is the source line at the span (None where there is none to show); `label` stands
    under the caret; `help` says what to do next. `owner` is whom the rule that it is about names.
    `about` names all that it is about, where that may be more than its message tells.
    """

    code: str
    severity: Severity
    message: str
    span: Span
    excerpt: str | None = None
    label: str | None = None
    help: str | None = None
    owner: str | None = None
    about: tuple[str, ...] = ()

    @property
    def sort_key(self) -> tuple[str, int, int, str]:
        """The deterministic order of findings: file, line, column, code."""
        return (self.span.file, self.span.line, self.span.column, self.code)


_ERRORS = frozenset(("GR401", "GR502", "GR503"))
_NOTES = frozenset(("GR204", "GR211", "GR214", "GR236", "GR239", "GR301", "GR402"))


def severity_of(code: str) -> Severity:
    """Return how grave a finding of some code is at its gravest."""
    if code < "GR2" or code in _ERRORS:
        return Severity.ERROR
    return Severity.NOTE if code in _NOTES else Severity.WARNING


def finding(
    code: str,
    message: str,
    span: Span,
    help: str | None = None,
    *,
    label: str | None = None,
    is_mild: bool = False,
) -> Diagnostic:
    """Return a finding, as grave as its code is; `is_mild` makes a note of it."""
    severity = Severity.NOTE if is_mild else severity_of(code)
    return Diagnostic(code, severity, message, span, None, label, help)


class GuardrailError(Exception):
    """The base of every error guardrail raises on purpose."""


class PolicyError(GuardrailError):
    """The policy files cannot be loaded; `diagnostics` lists everything that is wrong."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        lines = [f"{d.span}: {d.code} {d.message}" for d in self.diagnostics]
        super().__init__("policy not loaded\n" + "\n".join(lines))


class DataError(GuardrailError):
    """A data file cannot be read; the message names the file and what to do."""


class SettingError(GuardrailError, ValueError):
    """An argument, a URI or an environment variable is not usable."""


class StoreError(GuardrailError):
    """The store did not answer, or answered with an error.

    `unsure` tells that the call may have been applied all the same: what may be repeated safely
    depends on it.
    """

    def __init__(self, message: str, *, unsure: bool = False) -> None:
        super().__init__(message)
        self.unsure = unsure


def not_installed(problem: ImportError, what: str, extra: str) -> SettingError:
    """Return the error about a package that is not there, with the extra that installs it."""
    return SettingError(
        f"{what} needs `{(problem.name or '').partition('.')[0]}`, which is not installed: "
        f"pip install 'guardrail-engine[{extra}]'"
    )

"""Located findings about policy files, as data; renderers stand elsewhere."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """How grave a finding is: an error keeps a policy from loading."""

    ERROR = "error"
    WARNING = "warning"

    def __str__(self) -> str:
        return self.value


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
class Diagnostic:
    """One finding: a stable code, a sentence in the author's words, and where it applies.

    `excerpt` is the source line at the span (None where there is none to show); `label` stands
    under the caret; `help` says what to do next.
    """

    code: str
    severity: Severity
    message: str
    span: Span
    excerpt: str | None = None
    label: str | None = None
    help: str | None = None

    @property
    def sort_key(self) -> tuple[str, int, int, str]:
        """The deterministic order of findings: file, line, column, code."""
        return (self.span.file, self.span.line, self.span.column, self.code)

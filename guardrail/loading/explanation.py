"""What is said of one code: what to avoid, what to write instead, and why."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import Severity


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code explained; `avoid` and `prefer` are parts of a policy file, or files by name.

    `severity` is that of its gravest finding.
    """

    code: str
    title: str
    avoid: str
    prefer: str
    why: str
    severity: Severity = Severity.WARNING

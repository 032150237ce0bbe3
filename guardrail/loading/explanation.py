"""What is said of one code: what to avoid, what to write instead, and why."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import Severity, severity_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code explained; `avoid` and `prefer` are parts of a policy file, or files by name."""

    code: str
    title: str
    avoid: str
    prefer: str
    why: str

    @property
    def severity(self) -> Severity:
        """How grave its gravest finding is."""
        return severity_of(self.code)

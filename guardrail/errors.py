"""The exceptions guardrail raises.

GuardrailError
├── PolicyError     the policy files cannot be loaded
├── DataError       a data file (geo, ranges, traffic, map) cannot be read
├── SettingError    an argument, a URI or an environment variable is wrong
└── StoreError      the store did not answer
"""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.diagnostics import Diagnostic


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
        f"{what} needs `{problem.name}`, which is not installed: "
        f"pip install 'guardrail-engine[{extra}]'"
    )

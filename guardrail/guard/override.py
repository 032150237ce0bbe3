"""The emergency switch: `GUARDRAIL_MODE=shadow` until a stated time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from guardrail.errors import SettingError
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.typed import epoch_of

MODE, UNTIL = "GUARDRAIL_MODE", "GUARDRAIL_MODE_UNTIL"


@dataclass(frozen=True, slots=True)
class Override:
    """Shadows every rule that may be exempted, until a time (seconds since the epoch)."""

    until: float
    text: str

    def shadowed(self, policies: PolicySet) -> PolicySet:
        """Return the policy set with every enforced rule in shadow, but those never exempted."""
        rules = tuple(
            replace(rule, mode=Mode.SHADOW)
            if rule.exemptible and rule.mode is Mode.ENFORCE
            else rule
            for rule in policies.rules
        )
        return replace(policies, rules=rules)

    @property
    def notice(self) -> str:
        """What every decision made under the override says."""
        return (
            f"`{MODE}=shadow` until `{self.text}`: only rules that cannot be exempted are enforced"
        )


def override_from(environ: Mapping[str, str]) -> Override | None:
    """Return the override that the environment asks for, None for none.

    Raises:
        SettingError: the mode is not `shadow`, or its end is missing or not a time.
    """
    mode = environ.get(MODE, "")
    if mode in ("", "enforce"):
        return None
    if mode != "shadow":
        raise SettingError(f"`{MODE}` is `{mode}`: it can be `shadow`, or be left unset")
    text = environ.get(UNTIL, "")
    until = epoch_of(text)
    if until is None:
        stated = f"`{text}` is not a time" if text else "is not set"
        raise SettingError(
            f"`{MODE}=shadow` needs an end, and `{UNTIL}` {stated}: "
            "give an RFC 3339 time such as `2026-12-01T00:00:00Z`"
        )
    return Override(until, text)

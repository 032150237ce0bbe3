"""What the declarations of a policy set establish: the names that everything else may use."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrail.errors import Span
from guardrail.loading.findings import Findings, did_you_mean, place_of, quoted
from guardrail.loading.suggest import nearest
from guardrail.model.amounts import UNITS
from guardrail.model.effects import Mode
from guardrail.model.facts import STANDARD_FACTS, Fact
from guardrail.model.policy import Model


@dataclass(slots=True)
class Scope:
    """The names in force, filled section by section before the rules are compiled.

    `doubtful` holds the names of facts, and of lists with a `$` before them, whose declaration
    is itself in error: using one is not reported again; so does `models_doubtful` for models.
    `rules` maps each rule's id to whether it is exemptible. In a `partial` scope some file or
    section could not be read, and unknown names are not reported at all.
    """

    findings: Findings
    facts: dict[str, Fact] = field(default_factory=lambda: dict(STANDARD_FACTS))
    facts_at: Span | None = None
    models: dict[str, Model] = field(default_factory=dict)
    models_doubtful: bool = False
    unlisted_model: str | None = None
    doubtful: set[str] = field(default_factory=set)
    units: frozenset[str] = frozenset(UNITS)
    mode: Mode = Mode.ENFORCE
    timezone: str = "UTC"
    zone: datetime.tzinfo = datetime.UTC
    rules: Mapping[str, bool] = field(default_factory=dict)
    partial: bool = False

    def fact(
        self, name: str, span: Span, *, help: str | None = None, also: tuple[str, ...] = ()
    ) -> Fact | None:
        """Return the fact of that name; report an unknown one.

        `help` replaces the usual one, and `also` names what could stand here besides facts.
        """
        found = self.facts.get(name)
        if name in self.doubtful:
            return None
        if found is None and not self.partial:
            label = "not in the standard vocabulary, and no `facts:` declare it"
            if self.facts_at is not None:
                label = f"not declared under `facts:` ({place_of(self.facts_at)})"
            near = nearest(name, (*self.facts, *also))
            if help is None and near is not None:
                help = did_you_mean(name, near, (), "facts")
            elif help is None and len(name) < 40:
                help = f"declare it: `{name}: {{type: string}}`"
            self.findings.report(
                "GR105", span, f"unknown fact {quoted(name)}", label=label, help=help
            )
        return found

    def listed_model(self, name: str) -> str | None:
        """Return the name of the model that is listed under a name or alias, None if none is."""
        return next(
            (m.name for m in self.models.values() if name == m.name or name in m.aliases), None
        )

    def rule(self, name: str, span: Span) -> bool:
        """Whether a rule of that id exists; report an unknown one as a test names it."""
        if name in self.rules or self.partial:
            return True
        known = tuple(self.rules)
        help = did_you_mean(name, nearest(name, known), known, "rules")
        self.findings.report("GR107", span, f"unknown rule {quoted(name)}", help=help)
        return False

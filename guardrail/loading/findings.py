"""The findings of one loading run, where they stand, and the names that are in force."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Unpack

from guardrail.errors import Diagnostic, Severity, Span
from guardrail.loading.foreign import declaration, fact_name
from guardrail.loading.nodes import ListNode, MapNode, Node
from guardrail.loading.suggest import did_you_mean, suggestion
from guardrail.loading.text import Advice, Source, place_of, quoted
from guardrail.model.amounts import UNITS
from guardrail.model.effects import Mode
from guardrail.model.facts import STANDARD_FACTS, Fact
from guardrail.model.policy import Model


@dataclass(slots=True)
class Findings:
    """Collects diagnostics, each with the source line it stands on."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    _sources: dict[str, Source] = field(default_factory=dict)

    def add_source(self, file: str, text: str) -> None:
        """Remember the text of a file, so that findings in it can show their line."""
        self._sources[file] = Source(file, text.removeprefix("\ufeff"))

    def report(self, code: str, at: Node | Span, message: str, **advice: Unpack[Advice]) -> None:
        """Record a finding at a node or a place, as grave as its code is."""
        span = at if isinstance(at, Span) else at.span
        self.diagnostics.append(self._sources[span.file].error(code, message, span, **advice))

    def note(self, code: str, at: Node | Span, message: str, **advice: Unpack[Advice]) -> None:
        """Record a finding that is milder than others of its code: a note."""
        self.report(code, at, message, **advice)
        self.diagnostics[-1] = replace(self.diagnostics[-1], severity=Severity.NOTE)

    @property
    def failed(self) -> bool:
        """Whether anything was found that keeps the set from loading."""
        return any(found.severity is Severity.ERROR for found in self.diagnostics)

    def within(self, span: Span, code: str) -> bool:
        """Tell whether a finding of some code was made within the lines of a span."""
        return any(
            found.code == code
            and found.span.file == span.file
            and span.line <= found.span.line <= span.end_line
            for found in self.diagnostics
        )

    def sources(self) -> tuple[Source, ...]:
        """Return the files that findings can be about."""
        return tuple(self._sources.values())

    def report_file(self, code: str, file: str, message: str, *, help: str | None = None) -> None:
        """Record an error about a whole file, at its start."""
        self.report(code, self._sources[file].span(1, 1), message, help=help)

    def in_order(self) -> list[Diagnostic]:
        """Return everything found by file, line and column, each finding once."""
        return sorted(dict.fromkeys(self.diagnostics), key=lambda found: found.sort_key)


Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A construct in a file: its node, and where errors in it are reported.

    `title` is the node that stands for the whole construct, such as a rule's id.
    """

    node: Node
    findings: Findings
    title: Node | None = None

    def at(self, *path: str | int) -> Node:
        """Return the node at a path, or the nearest one around it."""
        node = self.node
        for name in path:
            inner = _child(node, name)
            if inner is None:
                break
            node = inner
        return node

    def key_span(self, path: Path) -> Span:
        """Return where the last key of a path is written; of the whole construct, its title."""
        node = self.node
        span = (self.title or self.node).span
        for name in path:
            inner = _child(node, name)
            if inner is None:
                break
            span = inner.span
            if isinstance(node, MapNode):
                span = next(e.key.span for e in node.entries if e.key.text == name)
            node = inner
        return span

    def report(self, code: str, path: Path, message: str, **advice: Unpack[Advice]) -> None:
        """Record an error at the value of a path."""
        self.findings.report(code, self.at(*path), message, **advice)

    def report_key(self, code: str, path: Path, message: str, **advice: Unpack[Advice]) -> None:
        """Record an error at the key of a path."""
        self.findings.report(code, self.key_span(path), message, **advice)


def _child(node: Node, name: str | int) -> Node | None:
    if isinstance(node, MapNode) and isinstance(name, str):
        return node.get(name)
    if isinstance(node, ListNode) and isinstance(name, int) and name < len(node.parts):
        return node.parts[name]
    return None


@dataclass(slots=True)
class Scope:
    """The names in force, filled section by section before the rules are compiled.

    `doubtful` holds the names of facts, and of lists with a `$` before them, whose declaration
    is itself in error: using one is not reported again; so does `models_doubtful` for models.
    `tables` and `fixtures` are as declared; `today` is when tests start that do not say.
    `rules` maps each rule's id to whether it is exemptible. In a `partial` scope some file or
    section could not be read, and unknown names are not reported at all.
    """

    findings: Findings
    facts: dict[str, Fact] = field(default_factory=lambda: dict(STANDARD_FACTS))
    facts_at: Span | None = None
    tables: dict[str, Node] = field(default_factory=dict)
    fixtures: dict[str, MapNode] = field(default_factory=dict)
    today: Node | None = None
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

    def report(self, code: str, at: Node | Span, message: str, **advice: Unpack[Advice]) -> None:
        """Record an error at a node or a place."""
        self.findings.report(code, at, message, **advice)

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
            if help is None:
                declare = f"declare it: {declaration(name)}" if len(name) < 40 else None
                help = fact_name(name, self.facts)
                help = help or suggestion(name, (*self.facts, *also), declare)
            self.findings.report(
                "GR105", span, f"unknown fact {quoted(name)}", label=label, help=help
            )
        return found

    def model(self, name: str, at: Node | Span) -> str | None:
        """Return the name of the model that is listed under a name or alias; report an unknown one.

        Where the list itself is doubtful, None is returned and nothing reported.
        """
        if self.models_doubtful:
            return None
        for model in self.models.values():
            if name == model.name or name in model.aliases:
                return model.name
        help = did_you_mean(name, self.models, "models")
        self.report("GR116", at, f"unknown model {quoted(name)}", help=help)
        return None

    def rule(self, name: str, span: Span) -> bool:
        """Whether a rule of that id exists; report an unknown one as a test names it."""
        if name in self.rules or self.partial:
            return True
        help = did_you_mean(name, self.rules, "rules")
        self.findings.report("GR107", span, f"unknown rule {quoted(name)}", help=help)
        return False

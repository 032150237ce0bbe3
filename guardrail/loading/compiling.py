"""Compiles the documents of a policy set into one `PolicySet`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from guardrail.errors import PolicyError
from guardrail.loading.conditions import COMBINATORS, Conditions
from guardrail.loading.declarations import (
    compile_defaults,
    compile_fact,
    compile_models,
    compile_unit,
    compile_unlisted,
)
from guardrail.loading.documents import (
    Document,
    check_name,
    only_once,
    read_document,
    report_twice,
)
from guardrail.loading.files import PolicyFile
from guardrail.loading.findings import Findings, Scope
from guardrail.loading.ignoring import read_ignores
from guardrail.loading.listfiles import list_texts
from guardrail.loading.lists import Lists, NamedList
from guardrail.loading.nodes import Entry, MapNode, Node, Scalar, kind_of
from guardrail.loading.rules import Rules
from guardrail.loading.scenarios import Scenarios
from guardrail.loading.text import place_of, quoted
from guardrail.model.amounts import UNITS
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Exemption, Rule
from guardrail.model.scenarios import Scenario


def compile_set(files: Sequence[PolicyFile], findings: Findings) -> PolicySet:
    """Compile the files of one policy set, in the order that breaks ties.

    `findings` holds what was wrong with finding the files.

    Raises:
        PolicyError: anything is wrong in any of them; it lists everything that is.
    """
    return _Compilation(files, Scope(findings, partial=bool(findings.diagnostics))).policy_set()


@dataclass(slots=True)
class _Compilation:
    """One run over one set; each step fills the scope that the next ones read."""

    files: Sequence[PolicyFile]
    scope: Scope
    contents: list[tuple[str, bytes]] = field(default_factory=list)
    lists: Lists = field(init=False)
    conditions: Conditions = field(init=False)

    def __post_init__(self) -> None:
        self.lists = Lists(self.scope)
        self.conditions = Conditions(self.scope, self.lists)

    def policy_set(self) -> PolicySet:
        """Compile everything, and report everything that is wrong at once."""
        documents = self._documents()
        once = only_once(documents, self.scope.findings)
        self._declare(documents, once)
        self._require(documents, once)
        rules = self._rules(documents)
        exemptions = self._exemptions(documents)
        scenarios = self._scenarios(documents)
        ignores = read_ignores(self.scope)
        findings = self.scope.findings.in_order()
        if self.scope.findings.failed:
            raise PolicyError(findings)
        return PolicySet(
            name=_text_of(once["policy"].value),
            revision=revision(self.contents),
            files=tuple(file.relative for file in self.files),
            facts=MappingProxyType(self.scope.facts),
            rules=tuple(rules),
            exemptions=tuple(exemptions),
            models=MappingProxyType(self.scope.models),
            units=tuple(sorted(self.scope.units - set(UNITS))),
            timezone=self.scope.timezone,
            scenarios=tuple(scenarios),
            unlisted_model=self.scope.unlisted_model,
            warnings=tuple(findings),
            ignores=ignores,
        )

    def _documents(self) -> list[Document]:
        self.contents.extend((file.relative, file.data) for file in self.files)
        read = [read_document(file, self.scope) for file in self.files]
        return [document for document in read if document is not None]

    def _declare(self, documents: list[Document], once: Mapping[str, Entry]) -> None:
        scope = self.scope
        if "policy" in once:
            check_name(scope.findings, once["policy"].value, "name of a policy")
        if "defaults" in once:
            compile_defaults(once["defaults"].value, once["defaults"].key, scope)
        for document in documents:
            for unit in document.parts("units"):
                compile_unit(unit, scope)
        for section in (document.sections.get("facts") for document in documents):
            scope.facts_at = scope.facts_at or (section.key.span if section else None)
        for _, entry in self._unique("facts", "fact", documents):
            compile_fact(entry, scope)
        if "models" in once and isinstance(once["models"].value, MapNode):
            compile_models(once["models"].value, scope)
        if "defaults" in once:
            compile_unlisted(once["defaults"].value, scope)
        for document, entry in self._unique("lists", "list", documents):
            self._declare_list(document, entry)
        for _, entry in self._unique("conditions", "condition", documents):
            if entry.key.text in COMBINATORS:
                message = f"{quoted(entry.key.text)} cannot be a condition's name"
                scope.findings.report("GR102", entry.key.span, message, help="choose another")
            self.conditions.named[entry.key.text] = entry.value
        self.conditions.compile_named()

    def _unique(
        self, section: str, kind: str, documents: list[Document]
    ) -> list[tuple[Document, Entry]]:
        first: dict[str, tuple[Document, Entry]] = {}
        for document in documents:
            for entry in document.entries(section):
                name = entry.key.text
                if name in first:
                    report_twice(self.scope.findings, kind, entry.key, name, first[name][1].key)
                else:
                    first[name] = document, entry
        return list(first.values())

    def _declare_list(self, document: Document, entry: Entry) -> None:
        name = entry.key.text
        check_name(self.scope.findings, entry.key, "name of a list")
        read = list_texts(entry, document.source, self.scope, self.contents)
        if read is None:
            self.scope.doubtful.add(f"${name}")
            return
        self.lists.named[name] = NamedList(*read)

    def _require(self, documents: list[Document], once: Mapping[str, Entry]) -> None:
        if self.scope.partial or not documents:
            return
        named = [document for document in documents if not document.source.is_test]
        at = (named or documents)[0].root.entries[0].key.span
        if "policy" not in once and not any(d.root.get("policy") for d in documents):
            help = "add `policy: NAME` to one file; it is the namespace of the counters"
            self.scope.findings.report("GR102", at, "the set has no name", help=help)
        if not any(document.root.get("rules") for document in documents):
            help = "add `rules:`"
            message = "there is no rule: everything would be allowed"
            self.scope.findings.report("GR102", at, message, help=help)

    def _rules(self, documents: list[Document]) -> list[Rule]:
        nodes = self._maps("rules", "rule", documents)
        first = self._named(nodes, "rule", "id")
        self.scope.rules = {name: _exemptible(node) for name, node in first.items()}
        self._former_ids(nodes, first)
        rules = Rules(self.scope, self.conditions)
        compiled = [rules.rule(node, index) for index, node in enumerate(nodes)]
        return [rule for rule in compiled if rule is not None]

    def _exemptions(self, documents: list[Document]) -> list[Exemption]:
        nodes = self._maps("exemptions", "exemption", documents)
        self._named(nodes, "exemption", "id")
        rules = Rules(self.scope, self.conditions)
        compiled = [rules.exemption(node) for node in nodes]
        return [exemption for exemption in compiled if exemption is not None]

    def _scenarios(self, documents: list[Document]) -> list[Scenario]:
        nodes = self._maps("tests", "test", documents)
        self._named(nodes, "test", "name")
        scenarios = Scenarios(self.scope)
        compiled = [scenarios.scenario(node) for node in nodes]
        return [scenario for scenario in compiled if scenario is not None]

    def _maps(self, section: str, kind: str, documents: list[Document]) -> list[MapNode]:
        maps = []
        for node in (part for document in documents for part in document.parts(section)):
            if isinstance(node, MapNode):
                maps.append(node)
            else:
                self.scope.partial = self.scope.partial or section == "rules"
                message = f"a {kind} is a map, not {kind_of(node)}"
                self.scope.findings.report("GR102", node.span, message)
        return maps

    def _named(self, nodes: list[MapNode], kind: str, key: str) -> dict[str, MapNode]:
        first: dict[str, MapNode] = {}
        for node in nodes:
            written = node.get(key)
            if not isinstance(written, Scalar) or not isinstance(written.value, str):
                continue
            if key == "id":
                check_name(self.scope.findings, written, f"id of a {kind}")
            name = written.value
            if name in first:
                before = first[name].get(key) or first[name]
                report_twice(self.scope.findings, kind, written, name, before)
            else:
                first[name] = node
        return first

    def _former_ids(self, nodes: list[MapNode], rules: Mapping[str, MapNode]) -> None:
        taken: dict[str, Node] = {name: node.get("id") or node for name, node in rules.items()}
        for node in nodes:
            written = node.get("was")
            if not isinstance(written, Scalar) or not isinstance(written.value, str):
                continue
            check_name(self.scope.findings, written, "former id of a rule")
            if written.value in taken:
                message = f"the counters of {quoted(written.value)} are another rule's"
                label = f"taken in {place_of(taken[written.value].span)}"
                help = "`was` names an id that no rule has any more"
                self.scope.findings.report("GR104", written.span, message, label=label, help=help)
            taken[written.value] = written


def revision(contents: Iterable[tuple[str, bytes]]) -> str:
    """Return the digest of a set's files: their names within it, and what they hold."""
    digest = hashlib.sha256()
    for name, content in sorted((name.encode(), content) for name, content in contents):
        for part in (name, content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def _exemptible(node: MapNode) -> bool:
    written = node.get("exemptible")
    return not (isinstance(written, Scalar) and written.value is False)


def _text_of(node: Node) -> str:
    assert isinstance(node, Scalar)
    return str(node.value)

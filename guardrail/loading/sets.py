"""Compiles the files of a policy set, or a text that is one, into one `PolicySet`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from guardrail.errors import PolicyError, SettingError, Severity
from guardrail.loading.claims import Claims
from guardrail.loading.conditions import COMBINATORS, Conditions
from guardrail.loading.declarations import (
    compile_defaults,
    compile_fact,
    compile_models,
    compile_unit,
    compile_unlisted,
)
from guardrail.loading.files import PolicyFile, kept_out, policy_files
from guardrail.loading.findings import Findings, Place, Scope
from guardrail.loading.foreign import file_key, whole_section
from guardrail.loading.links import check_actor_keys, compile_links, compile_score
from guardrail.loading.lint import Written, lint_written, read_ignores
from guardrail.loading.lists import Lists
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of, text_in
from guardrail.loading.raises import with_raises
from guardrail.loading.rules import Rules
from guardrail.loading.scenarios import Scenarios
from guardrail.loading.shaping import report_unknown_key
from guardrail.loading.text import listed, place_of, quoted
from guardrail.loading.thresholds import Thresholds, written_out
from guardrail.loading.verdicts import CODE
from guardrail.loading.yaml import read_yaml
from guardrail.model.amounts import UNITS
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule

T = TypeVar("T")

_WRITTEN_OUT = "--expect"
_FIRST_LINE = 3
"""Where the first expectation that is written out stands in the text made of all of them."""
_NOT_YAML = "GR100"
_ENDINGS = (".yaml", ".yml")


def load_policies(
    paths: Sequence[Path | str], *, linted: bool = False, expected: Sequence[str] = ()
) -> PolicySet:
    """Load every policy file under the given files and folders as one set.

    `linted` adds to its warnings what is most likely not meant. `expected` are more expectations of
    traffic, each a file of them or one written out: `account.tier=verified refused <= 0.1%`.

    Raises:
        PolicyError: anything is wrong in any file; it lists everything that is, in order.
        SettingError: no path is given, or an expectation is none.
    """
    if not paths:
        raise SettingError("no policy is named: give a folder or a file")
    findings = Findings()
    files = policy_files([Path(path) for path in paths], findings.diagnostics)
    if linted:
        findings.diagnostics.extend(kept_out([Path(path) for path in paths]))
    files += _expectations(expected, findings)
    try:
        return compile_set(files, findings, linted=linted)
    except PolicyError as error:
        raise _without_options(error, expected) from None


def _without_options(error: PolicyError, expected: Sequence[str]) -> PolicyError | SettingError:
    """Return what is wrong with files, or else with the first wrong expectation written out."""
    of_files = [one for one in error.diagnostics if one.span.file != _WRITTEN_OUT]
    if any(one.severity is Severity.ERROR for one in of_files):
        return PolicyError(of_files)
    first = next(one for one in error.diagnostics if one.span.file == _WRITTEN_OUT)
    options = [one for one in expected if not one.endswith(_ENDINGS)]
    option = options[min(max(first.span.line - _FIRST_LINE, 0), len(options) - 1)]
    if first.code == _NOT_YAML:
        return SettingError(
            f"`--expect {option}` cannot be read: write `account.tier=verified refused <= 0.1%`, "
            "or a condition as in a rule, `{account.tier: {at_least: verified}}`, before it"
        )
    help = f"; {first.help}" if first.help is not None else ""
    return SettingError(f"`--expect {option}`: {first.message}{help}")


def _expectations(expected: Sequence[str], findings: Findings) -> list[PolicyFile]:
    files: list[PolicyFile] = []
    lines: list[str] = []
    for one in expected:
        if one.endswith(_ENDINGS):
            read = policy_files([Path(one)], findings.diagnostics)
            files += [replace(file, is_aside=True, is_test=False) for file in read]
            continue
        try:
            lines.append(f"  - {written_out(one)}\n")
        except ValueError as error:
            raise SettingError(f"`--expect {one}` {error}") from None
    if lines:
        text = f"guardrail: 1\nexpect:\n{''.join(lines)}"
        name = _WRITTEN_OUT
        data = text.encode(errors="surrogatepass")
        files.append(
            PolicyFile(
                name=name,
                relative=name,
                path=Path(name),
                data=data,
                text=text,
                is_test=False,
                is_aside=True,
            )
        )
    return files


def load_text(text: str, file: str = "policy.yaml", *, linted: bool = False) -> PolicySet:
    """Load a policy set that is one text; list files are looked for beside `file`.

    `linted` adds to its warnings what is most likely not meant.

    Raises:
        PolicyError: anything is wrong in it; it lists everything that is, in order.
    """
    path = Path(file)
    source = PolicyFile(
        name=file,
        relative=path.name,
        path=path,
        data=text.encode(errors="surrogatepass"),
        text=text.removeprefix("\ufeff"),
        is_test=file.endswith(("_test.yaml", "_test.yml")),
    )
    return compile_set([source], Findings(), linted=linted)


MAPS = (
    "facts",
    "lists",
    "tables",
    "models",
    "defaults",
    "conditions",
    "links",
    "score",
    "fixtures",
)
LISTS = ("units", "rules", "exemptions", "tests", "expect", "prove")
ONCE = ("policy", "models", "defaults", "links", "score")
"""The sections that stand in one file of a set."""

KEYS = ("guardrail", "policy", *MAPS, *LISTS)
_TEST_KEYS = ("guardrail", "tests", "fixtures", "expect")
_ASIDE_KEYS = ("guardrail", "expect")
_OTHERS = {
    "guardrail_map": ("a map of a log", "`--map`"),
    "guardrail_directory": ("a file of accounts", "the setting `directory`"),
}
"""What other files of YAML begin with, what they are, and what names them."""
_DECLARING = ("facts", "lists", "tables", "models", "conditions", "units", "rules", "fixtures")


@dataclass(frozen=True, slots=True)
class Document:
    """A policy file's sections, those of the wrong kind left out."""

    source: PolicyFile
    root: MapNode
    sections: Mapping[str, Entry] = field(default_factory=dict)

    def entries(self, section: str) -> Iterable[Entry]:
        """Return the entries of a section that is a map."""
        entry = self.sections.get(section)
        return entry.value.entries if entry and isinstance(entry.value, MapNode) else ()

    def parts(self, section: str) -> Iterable[Node]:
        """Return the parts of a section that is a list."""
        entry = self.sections.get(section)
        return entry.value.parts if entry and isinstance(entry.value, ListNode) else ()


def read_document(source: PolicyFile, scope: Scope) -> Document | None:
    """Read one file; what is wrong is reported, and a file that is no policy file is None."""
    findings = scope.findings
    findings.add_source(source.name, source.text)
    before = len(findings.diagnostics)
    root = read_yaml(source.text, source.name, findings.diagnostics)
    if root is None and len(findings.diagnostics) > before:
        scope.partial = True
        return None
    if root is None:
        findings.report_file("GR102", source.name, "the file is empty", help="write `guardrail: 1`")
        return None
    if not isinstance(root, MapNode):
        scope.partial = True
        message = f"a policy file is a map, not {kind_of(root)}"
        findings.report("GR102", root, message, help="start with `guardrail: 1`")
        return None
    place = Place(root, findings, root.entries[0].key if root.entries else None)
    other = next((name for name in _OTHERS if root.get(name) is not None), None)
    if other is not None and root.get("guardrail") is None:
        scope.partial = True
        what, named = _OTHERS[other]
        help = f"keep it outside the folder of policies, and name it with {named}"
        place.report_key("GR101", (other,), f"{what} is no policy", help=help)
        return None
    _check_version(root, place)
    sections = {}
    for entry in root.entries:
        if _stands(entry, source, place) and _is_kind(entry, scope):
            sections[entry.key.text] = entry
    return Document(source, root, sections)


def _check_version(root: MapNode, place: Place) -> None:
    version = root.get("guardrail")
    help = "the first line of every policy file is `guardrail: 1`"
    if version is None:
        if any(entry.key.text.lower() == "guardrail" for entry in root.entries):
            return
        place.report_key("GR102", (), "missing `guardrail: 1`", help=help)
    elif not isinstance(version, Scalar) or type(version.value) is not int or version.value != 1:
        shown = quoted(version.text) if isinstance(version, Scalar) else kind_of(version)
        message = f"version {shown} of the policy language is not known"
        place.report("GR102", ("guardrail",), message, label="this is version 1", help=help)


def _stands(entry: Entry, source: PolicyFile, place: Place) -> bool:
    name = entry.key.text
    if name not in KEYS:
        report_unknown_key(place, (name,), KEYS, file_key(name))
        return False
    if source.is_test and name not in _TEST_KEYS:
        message = f"`{name}` cannot stand in a file of tests"
        help = "move it, or name the file without `_test`"
        label = "`*_test.yaml` files hold tests and fixtures only"
        place.report_key("GR101", (name,), message, label=label, help=help)
        return False
    if source.is_aside and name not in _ASIDE_KEYS:
        message = f"`{name}` cannot stand in a file of expectations"
        help = "move it to a policy file"
        label = "files given with `--expect` hold `expect` only"
        place.report_key("GR101", (name,), message, label=label, help=help)
        return False
    return name != "guardrail"


def _is_kind(entry: Entry, scope: Scope) -> bool:
    name, node = entry.key.text, entry.value
    wanted = "a name"
    if name in MAPS:
        wanted, fits = "a map", isinstance(node, MapNode)
    elif name in LISTS:
        wanted, fits = "a list", isinstance(node, ListNode)
    else:
        fits = text_in(node) is not None
    if not fits:
        scope.partial = scope.partial or name in _DECLARING
        span = entry.key.span if kind_of(node) == "nothing" else node.span
        help = "leave it out while it is empty" if kind_of(node) == "nothing" else None
        if name in ("rules", "exemptions") and isinstance(node, MapNode) and node.entries:
            first = node.entries[0].key.text
            help = (
                f"write {quoted(f'- id: {first}')}, and below it what stands below {quoted(first)}"
            )
            if node.get("id") is not None:
                help = "write `- ` before each, also where there is one alone"
        message = f"`{name}` must be {wanted}, not {kind_of(node)}"
        scope.report("GR102", span, message, help=help or whole_section(name, wanted, node))
        return False
    if isinstance(node, ListNode) and not node.parts:
        help = "add a rule" if name == "rules" else "leave it out while it is empty"
        scope.report("GR108", entry.key, f"`{name}` is empty", help=help)
        return False
    return True


def only_once(documents: Iterable[Document], findings: Findings) -> dict[str, Entry]:
    """Return the sections a set has once, reporting those that stand in two files."""
    found: dict[str, Entry] = {}
    for document in documents:
        for name in ONCE:
            entry = document.sections.get(name)
            if entry is None:
                continue
            first = found.setdefault(name, entry)
            if first is not entry:
                message = f"`{name}` is set in two files"
                label = f"also set in {place_of(first.key.span)}"
                help = f"keep one; {listed(ONCE)} hold for all files of a set"
                findings.report("GR121", entry.key, message, label=label, help=help)
    return found


def _report_twice(scope: Scope, kind: str, again: Node, name: str, first: Node) -> None:
    """Report a name that is declared a second time."""
    message = f"{kind} {quoted(name)} is there twice"
    label = f"first in {place_of(first.span)}"
    help = "ids and names are unique across all files of a set"
    scope.report("GR104", again, message, label=label, help=help)


def _check_name(scope: Scope, node: Node, kind: str) -> None:
    """Report a name that is not written as names are."""
    text = text_in(node)
    if text is not None and not CODE.fullmatch(text):
        help = "letters, digits, `-`, `_` and `.`; at most 64"
        message = f"{quoted(text)} cannot be the {kind}"
        scope.report("GR102", node, message, help=help)


def compile_set(
    files: Sequence[PolicyFile], findings: Findings, *, linted: bool = False
) -> PolicySet:
    """Compile the files of one policy set, in the order that breaks ties.

    `findings` holds what was wrong with finding the files; `linted` adds what is most likely not
    meant.

    Raises:
        PolicyError: anything is wrong in any of them; it lists everything that is.
    """
    compilation = _Compilation(files, Scope(findings, partial=findings.failed))
    policies = compilation.policy_set()
    return compilation.linted(policies) if linted else policies


@dataclass(slots=True)
class _Compilation:
    """One run over one set; each step fills the scope that the next ones read."""

    files: Sequence[PolicyFile]
    scope: Scope
    contents: list[tuple[str, bytes]] = field(default_factory=list)
    lists: Lists = field(init=False)
    conditions: Conditions = field(init=False)
    roots: list[MapNode] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lists = Lists(self.scope)
        self.conditions = Conditions(self.scope, self.lists)

    def policy_set(self) -> PolicySet:
        """Compile everything, and report everything that is wrong at once."""
        documents = self._documents()
        once = only_once(documents, self.scope.findings)
        self._declare(documents, once)
        self._require(documents, once)
        compiler = Rules(self.scope, self.conditions)
        rules = self._rules(compiler, documents)
        links = None
        if "links" in once:
            links = compile_links(once["links"], self.scope, self.conditions)
            check_actor_keys(self.scope, rules)
        score = None
        if "score" in once:
            score = compile_score(once["score"], self.scope, self.conditions, "links" in once)
        nodes, _ = self._maps("exemptions", "exemption", "id", documents)
        exempting = [(node, compiler.exemption(node)) for node in nodes]
        exemptions = _without_none(exemption for _, exemption in exempting)
        rules = with_raises(rules, exempting, self.scope)
        nodes, _ = self._maps("tests", "test", "name", documents)
        compiled = Scenarios(self.scope)
        scenarios = tuple(made for node in nodes for made in compiled.scenarios(node))
        compile_threshold = Thresholds(self.scope, self.conditions).thresholds
        expected = [part for document in documents for part in document.parts("expect")]
        thresholds = tuple(one for part in expected for one in compile_threshold(part))
        nodes, _ = self._maps("prove", "claim", "id", documents)
        claims = _without_none(map(Claims(self.scope, self.conditions).claim, nodes))
        ignores = read_ignores(self.scope)
        findings = self.scope.findings.in_order()
        if self.scope.findings.failed:
            raise PolicyError(findings)
        return PolicySet(
            name=text_in(once["policy"].value) or "",
            revision=revision(self.contents),
            files=tuple(file.relative for file in self.files if not file.is_aside),
            facts=MappingProxyType(self.scope.facts),
            rules=rules,
            exemptions=exemptions,
            models=MappingProxyType(self.scope.models),
            units=tuple(sorted(self.scope.units - set(UNITS))),
            timezone=self.scope.timezone,
            scenarios=scenarios,
            thresholds=thresholds,
            unlisted_model=self.scope.unlisted_model,
            links=links,
            score=score,
            warnings=tuple(findings),
            ignores=ignores,
            declared={
                "lists": tuple(self.lists.named),
                "tables": tuple(self.scope.tables),
                "conditions": tuple(self.conditions.named),
                "fixtures": tuple(self.scope.fixtures),
            },
            claims=claims,
        )

    def linted(self, policies: PolicySet) -> PolicySet:
        """Return the set that came of it with what is most likely not meant, and with places."""
        written = Written(policies, self.roots, self.scope, self.lists.named)
        lint_written(written)
        found = tuple(self.scope.findings.in_order())
        return replace(policies, warnings=found, places=written.amounts())

    def _documents(self) -> list[Document]:
        self.contents.extend((file.relative, file.data) for file in self.files if not file.is_aside)
        read = [read_document(file, self.scope) for file in self.files]
        documents = [document for document in read if document is not None]
        self.roots.extend(document.root for document in documents)
        return documents

    def _declare(self, documents: list[Document], once: Mapping[str, Entry]) -> None:
        scope = self.scope
        if "policy" in once:
            _check_name(scope, once["policy"].value, "name of a policy")
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
            _check_name(scope, entry.key, "name of a list")
            self.lists.declare(entry, document.source, self.contents)
        for _, entry in self._unique("tables", "table", documents):
            _check_name(scope, entry.key, "name of a table")
            scope.tables[entry.key.text] = entry.value
        for _, entry in self._unique("fixtures", "fixture", documents):
            _check_name(scope, entry.key, "name of a fixture")
            if isinstance(entry.value, MapNode):
                scope.fixtures[entry.key.text] = entry.value
            else:
                message = f"fixture {quoted(entry.key.text)} must be a map of facts"
                scope.report("GR102", entry.value, f"{message}, not {kind_of(entry.value)}")
        for _, entry in self._unique("conditions", "condition", documents):
            if entry.key.text in COMBINATORS:
                message = f"{quoted(entry.key.text)} cannot be a condition's name"
                scope.report("GR102", entry.key, message, help="choose another")
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
                    _report_twice(self.scope, kind, entry.key, name, first[name][1].key)
                else:
                    first[name] = document, entry
        return list(first.values())

    def _require(self, documents: list[Document], once: Mapping[str, Entry]) -> None:
        if self.scope.partial or not documents:
            return
        named = [document for document in documents if not document.source.is_test]
        at = (named or documents)[0].root.entries[0].key.span
        if "policy" not in once and not any(d.root.get("policy") for d in documents):
            help = "add `policy: NAME` to one file; it is the namespace of the counters"
            self.scope.report("GR102", at, "the set has no name", help=help)
        if not any(document.root.get("rules") for document in documents):
            help = "add `rules:`"
            message = "there is no rule: everything would be allowed"
            self.scope.report("GR102", at, message, help=help)

    def _rules(self, compiler: Rules, documents: list[Document]) -> tuple[Rule, ...]:
        nodes, by_id = self._maps("rules", "rule", "id", documents)
        self.scope.rules = {name: _exemptible(node) for name, node in by_id.items()}
        self._check_former_ids(nodes, by_id)
        return _without_none(compiler.rule(node, index) for index, node in enumerate(nodes))

    def _maps(
        self, section: str, kind: str, key: str, documents: list[Document]
    ) -> tuple[list[MapNode], dict[str, MapNode]]:
        """Return a section's constructs, and the first of each name that stands under `key`."""
        maps: list[MapNode] = []
        first: dict[str, MapNode] = {}
        for node in (part for document in documents for part in document.parts(section)):
            if not isinstance(node, MapNode):
                self.scope.partial = self.scope.partial or section == "rules"
                message = f"a {kind} is a map, not {kind_of(node)}"
                self.scope.report("GR102", node, message, help=f"start it with `- {key}: NAME`")
                continue
            maps.append(node)
            written = node.get(key)
            name = text_in(written)
            if written is None or name is None:
                continue
            if key == "id":
                _check_name(self.scope, written, f"id of a {kind}")
            if name in first:
                before = first[name].get(key) or first[name]
                _report_twice(self.scope, kind, written, name, before)
            else:
                first[name] = node
        return maps, first

    def _check_former_ids(self, nodes: list[MapNode], rules: Mapping[str, MapNode]) -> None:
        taken: dict[str, Node] = {name: node.get("id") or node for name, node in rules.items()}
        for node in nodes:
            written = node.get("was")
            name = text_in(written)
            if written is None or name is None:
                continue
            _check_name(self.scope, written, "former id of a rule")
            if name in taken:
                message = f"the counters of {quoted(name)} are another rule's"
                label = f"taken in {place_of(taken[name].span)}"
                help = "`was` names an id that no rule has any more"
                self.scope.report("GR104", written, message, label=label, help=help)
            taken[name] = written


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


def _without_none(parts: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(part for part in parts if part is not None)

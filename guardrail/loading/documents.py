"""The files of a policy set as documents: their sections, checked for what may stand in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from guardrail.loading.files import PolicyFile
from guardrail.loading.findings import Findings, Place, Scope
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of
from guardrail.loading.shaping import report_unknown_key
from guardrail.loading.text import listed, place_of, quoted
from guardrail.loading.verdicts import CODE
from guardrail.loading.yaml import read_yaml

MAPS = ("facts", "lists", "models", "defaults", "conditions")
LISTS = ("units", "rules", "exemptions", "tests")
ONCE = ("policy", "models", "defaults", "links")
"""The sections that stand in one file of a set."""

KEYS = ("guardrail", "policy", *MAPS, *LISTS, "links")
_TEST_KEYS = ("guardrail", "tests")
_DECLARING = ("facts", "lists", "models", "conditions", "units", "rules")


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
        findings.report("GR102", root.span, message, help="start with `guardrail: 1`")
        return None
    place = Place(root, findings, root.entries[0].key if root.entries else None)
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
        report_unknown_key(place, (name,), KEYS)
        return False
    if source.is_test and name not in _TEST_KEYS:
        message = f"`{name}` cannot stand in a file of tests"
        help = "move it, or name the file without `_test`"
        label = "`*_test.yaml` files hold tests only"
        place.report_key("GR101", (name,), message, label=label, help=help)
        return False
    if name == "links":
        message = "`links` is not available in this version"
        help = "leave it out; `actor.id` is then the account itself"
        place.report_key("GR102", (name,), message, help=help)
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
        fits = isinstance(node, Scalar) and isinstance(node.value, str)
    if not fits:
        scope.partial = scope.partial or name in _DECLARING
        span = entry.key.span if kind_of(node) == "nothing" else node.span
        help = "leave it out while it is empty" if kind_of(node) == "nothing" else None
        message = f"`{name}` must be {wanted}, not {kind_of(node)}"
        scope.findings.report("GR102", span, message, help=help)
        return False
    if isinstance(node, ListNode) and not node.parts:
        help = "add a rule" if name == "rules" else "leave it out while it is empty"
        scope.findings.report("GR108", entry.key.span, f"`{name}` is empty", help=help)
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
                findings.report("GR121", entry.key.span, message, label=label, help=help)
    return found


def report_twice(findings: Findings, kind: str, again: Node, name: str, first: Node) -> None:
    """Report a name that is declared a second time."""
    message = f"{kind} {quoted(name)} is there twice"
    label = f"first in {place_of(first.span)}"
    help = "ids and names are unique across all files of a set"
    findings.report("GR104", again.span, message, label=label, help=help)


def check_name(findings: Findings, node: Node, kind: str) -> None:
    """Report a name that is not written as names are."""
    if isinstance(node, Scalar) and isinstance(node.value, str) and not CODE.fullmatch(node.value):
        help = "letters, digits, `-`, `_` and `.`; at most 64"
        message = f"{quoted(node.text)} cannot be the {kind}"
        findings.report("GR102", node.span, message, help=help)

"""Names that nothing uses, and models that no entry knows."""

from __future__ import annotations

from collections.abc import Iterator

from guardrail.loading.findings import Place
from guardrail.loading.lint.written import Written, maps_in, scalars_in
from guardrail.loading.lists import list_name
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, text_in
from guardrail.loading.suggest import suggestion
from guardrail.loading.text import quoted

_MODEL = "request.model"


def lint_names(written: Written) -> None:
    """Report declared names that nothing uses, and models that are in no entry of `models`."""
    _unused_names(written)
    _unknown_models(written)


def _unused_names(written: Written) -> None:
    conditions = {entry.key.text: entry for entry in _declared(written, "conditions")}
    roots = [
        node
        for name, node in written.sections()
        if name not in ("conditions", "lists", "tables", "facts", "tests", "fixtures")
    ]
    used: set[str] = set()
    waiting = [name for root in roots for name in _names_used(root)]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            entry = conditions.get(name.removeprefix("use "))
            if entry is not None and name.startswith("use "):
                roots.append(entry.value)
                waiting.extend(_names_used(entry.value))
    for entry in conditions.values():
        if f"use {entry.key.text}" not in used:
            _unused(written, entry, "condition", "no rule uses it: leave it out, or `use` it")
    for section, kind in (("lists", "list"), ("tables", "table")):
        for entry in _declared(written, section):
            if f"${entry.key.text}" not in used:
                help = f"leave it out, or write `${entry.key.text}` where it is meant"
                _unused(written, entry, kind, help)
    _unused_fixtures(written)
    roots += [entry.value for entry in _declared(written, "tables")]
    _unused_facts(written, roots)


def _unused(written: Written, entry: Entry, kind: str, help: str) -> None:
    message = f"{kind} {quoted(entry.key.text)} is used nowhere"
    written.scope.findings.report("GR208", entry.key, message, help=help)


def _unused_fixtures(written: Written) -> None:
    used = {
        node.text
        for test in written.parts("tests")
        for name, node in scalars_in(test)
        if name == "use"
    }
    for entry in _declared(written, "fixtures"):
        if entry.key.text not in used:
            _unused(written, entry, "fixture", "leave it out, or `use` it in a test")


def _unused_facts(written: Written, roots: list[Node]) -> None:
    used = {node.text for root in roots for _, node in scalars_in(root)}
    for entry in _declared(written, "facts"):
        required = Place(entry.value, written.scope.findings).at("required")
        if entry.key.text not in used and not (isinstance(required, Scalar) and required.value):
            message = f"no rule reads the fact {quoted(entry.key.text)}"
            help = "leave it out, or keep it for what you split figures by"
            written.scope.findings.note("GR208", entry.key, message, help=help)


def _declared(written: Written, section: str) -> Iterator[Entry]:
    for _, node in written.sections(section):
        yield from node.entries if isinstance(node, MapNode) else ()


def _names_used(node: Node) -> Iterator[str]:
    """Yield the lists and tables a node uses, as `$NAME`, and the conditions, as `use NAME`."""
    for under, scalar in scalars_in(node):
        name = list_name(scalar)
        if name is not None:
            yield f"${name}"
        elif under == "use":
            yield f"use {scalar.text}"


def _unknown_models(written: Written) -> None:
    policies = written.policies
    if not policies.models or policies.unlisted_model is not None:
        return
    for node in _models_named(written):
        if policies.model_named(node.text) is None and "*" not in node.text:
            names = [name for model in policies.models.values() for name in model.aliases]
            message = f"model {quoted(node.text)} is in no entry of `models`"
            label = "it costs the dearest, and no degrade moves it"
            help = "list it, perhaps as an alias, or say what it counts as with `unlisted_model`"
            help = suggestion(node.text, [*policies.models, *names], help)
            written.scope.findings.report("GR222", node, message, label=label, help=help)


def _models_named(written: Written) -> Iterator[Scalar]:
    for tested in written.tested():
        if tested.fact.name == _MODEL and tested.operator in ("in", "not_in"):
            yield tested.node
    for _, section in written.sections("rules", "tables"):
        for node in maps_in(section):
            if text_in(node.get("by")) == _MODEL:
                yield from (e.key for e in node.entries if e.key.text not in ("by", "else"))
    for _, section in written.sections("tests", "fixtures"):
        for node in maps_in(section):
            value = node.get(_MODEL)
            if isinstance(value, Scalar):
                yield value
            yield from (
                part
                for part in (value.parts if isinstance(value, ListNode) else ())
                if isinstance(part, Scalar)
            )

"""A policy set as it is written: the nodes of its rules, and every value that a fact is tested for.

What is looked at here has loaded, so names lead to something and shapes are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from guardrail.errors import Span
from guardrail.loading.findings import Path, Place, Scope
from guardrail.loading.lists import NamedList, list_name
from guardrail.loading.nodes import ListNode, MapNode, Node, Scalar, text_in
from guardrail.model.amounts import Amount
from guardrail.model.facts import Fact
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Exemption, Rule

TESTING = ("rules", "exemptions", "conditions", "links", "score", "prove", "expect")
"""The sections in which a fact's name is the key of a test."""
_OF_VALUES = ("in", "not_in", "not", "prefix", "cidr")


class Tested(NamedTuple):
    """A value that a fact is compared with: where it is written, and by which operator.

    `operator` is `in` for a bare value. `in_list` tells an entry of a list, `from_file` a line of
    a list's file.
    """

    fact: Fact
    operator: str
    node: Scalar
    in_list: bool
    from_file: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A loaded set, its compiled rules beside the nodes they were made from."""

    policies: PolicySet
    roots: Sequence[MapNode]
    scope: Scope
    lists: Mapping[str, NamedList]
    _places: dict[tuple[str, str], Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section in ("rules", "exemptions"):
            for node in self.parts(section):
                name = text_in(node.get("id")) or ""
                place = Place(node, self.scope.findings, node.get("id"))
                self._places.setdefault((section, name), place)

    def place(self, of: Rule | Exemption) -> Place:
        """Return the node of a rule or an exemption."""
        return self._places["rules" if isinstance(of, Rule) else "exemptions", of.id]

    def amounts(self) -> dict[tuple[str, str], Span]:
        """Return where each amount of the rules is written, by its rule's id and its key."""
        return {
            (rule.id, str(path[-1])): self.place(rule).key_span(path)
            for rule in self.policies.rules
            for path, _ in allowances(rule)
        }

    def parts(self, section: str) -> Iterator[MapNode]:
        """Yield the maps of a section that is a list."""
        for root in self.roots:
            node = root.get(section)
            for part in node.parts if isinstance(node, ListNode) else ():
                if isinstance(part, MapNode):
                    yield part

    def sections(self, *names: str) -> Iterator[tuple[str, Node]]:
        """Yield the sections of those names, all of them if none is named."""
        for root in self.roots:
            for entry in root.entries:
                if not names or entry.key.text in names:
                    yield entry.key.text, entry.value

    def tested(self) -> Iterator[Tested]:
        """Yield every value that a condition compares a fact with, those of lists too."""
        for _, section in self.sections(*TESTING):
            for node in maps_in(section):
                for entry in node.entries:
                    fact = self.policies.facts.get(entry.key.text)
                    if fact is not None:
                        yield from self._compared(fact, "in", entry.value, in_list=False)

    def _compared(
        self, fact: Fact, operator: str, node: Node, *, in_list: bool
    ) -> Iterator[Tested]:
        if isinstance(node, MapNode):
            for entry in node.entries:
                if entry.key.text in _OF_VALUES:
                    name = operator if entry.key.text == "not" else entry.key.text
                    yield from self._compared(fact, name, entry.value, in_list=in_list)
        elif isinstance(node, ListNode):
            for part in node.parts:
                yield from self._compared(fact, operator, part, in_list=True)
        elif (listed := list_name(node)) is not None:
            listing = self.lists.get(listed)
            if listing is None:
                return
            for part in listing.entries:
                if isinstance(part, Scalar):
                    yield Tested(fact, operator, part, True, listing.from_file)
        else:
            yield Tested(fact, operator, node, in_list)


def allowances(rule: Rule) -> Iterator[tuple[Path, Amount]]:
    """Return the amounts of a rule, each with where it is written."""
    return (((rule.verb.name, key), amount) for key, amount in rule.verb.written)


def maps_in(node: Node) -> Iterator[MapNode]:
    """Yield every map in a node, itself included."""
    if isinstance(node, MapNode):
        yield node
        for entry in node.entries:
            yield from maps_in(entry.value)
    elif isinstance(node, ListNode):
        for part in node.parts:
            yield from maps_in(part)


def lists_in(node: Node) -> Iterator[ListNode]:
    """Yield every list in a node, itself included."""
    if isinstance(node, ListNode):
        yield node
        for part in node.parts:
            yield from lists_in(part)
    elif isinstance(node, MapNode):
        for entry in node.entries:
            yield from lists_in(entry.value)


def scalars_in(node: Node, under: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield every scalar in a node, the keys too, each with the key it stands under.

    A key stands under the empty name.
    """
    if isinstance(node, Scalar):
        yield under, node
    elif isinstance(node, ListNode):
        for part in node.parts:
            yield from scalars_in(part, under)
    else:
        for entry in node.entries:
            yield "", entry.key
            yield from scalars_in(entry.value, entry.key.text)

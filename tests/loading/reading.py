"""Reading a text in a test: for what is in it, or for what is wrong with it."""

from __future__ import annotations

from guardrail.errors import Diagnostic
from guardrail.loading import ListNode, Node, Scalar, read_yaml

PARSERS = ["CSafeLoader", "SafeLoader"]
"""libyaml's parser, and the one in Python that serves where it is missing."""


def plain(node: Node | None) -> object:
    """Return a node as plain data, with the texts of its keys."""
    if node is None:
        return None
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, ListNode):
        return [plain(part) for part in node.parts]
    return {entry.key.text: plain(entry.value) for entry in node.entries}


def found(text: str) -> list[Diagnostic]:
    """Return what is wrong with a text."""
    findings: list[Diagnostic] = []
    read_yaml(text, "policy.yaml", findings)
    return findings


def only(text: str) -> Diagnostic:
    """Return the one thing that is wrong with a text."""
    findings = found(text)
    assert len(findings) == 1, findings
    return findings[0]


def marked(finding: Diagnostic) -> str:
    """Return the characters of the excerpt that a finding is about."""
    span = finding.span
    assert finding.excerpt is not None
    assert span.line == span.end_line
    return finding.excerpt[span.column - 1 : span.end_column - 1]

"""Findings as other programs take them: JUnit's XML, SARIF 2.1.0, GitHub's commands, JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from guardrail.cli.inert import inert
from guardrail.errors import Diagnostic, Severity, Span
from guardrail.loading import CATALOGUE

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A finding about traffic or about the whole set, which stands in no file.

    `code` is a finding's code, or a few words joined by hyphens where there is none in the
    catalogue.
    """

    code: str
    severity: Severity
    message: str
    help: str | None = None

    @property
    def text(self) -> str:
        """The finding in one sentence, with its code if it has one."""
        code = f"{self.code} " if self.code in CATALOGUE else ""
        return f"{code}{self.message}" + (f"; {self.help}" if self.help else "")


Finding = Diagnostic | Unplaced
"""What was found, with its place in a file or without one."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was checked: of which suite, its name, its place, and how it failed."""

    suite: str
    name: str
    span: Span | None = None
    failure: str | None = None


def span_of(found: Finding) -> Span | None:
    """Return where a finding stands, None if it stands in no file."""
    return found.span if isinstance(found, Diagnostic) else None


def finding_fields(found: Finding) -> dict[str, object]:
    """Return a finding as JSON takes it; what has no place has null there."""
    span = span_of(found)
    return {
        "code": found.code,
        "severity": str(found.severity),
        "message": found.message,
        "file": span.file if span else None,
        "line": span.line if span else None,
        "column": span.column if span else None,
        "end_line": span.end_line if span else None,
        "end_column": span.end_column if span else None,
        "label": found.label if isinstance(found, Diagnostic) else None,
        "help": found.help,
        **({"owner": found.owner} if isinstance(found, Diagnostic) and found.owner else {}),
        **({"about": list(found.about)} if isinstance(found, Diagnostic) and found.about else {}),
    }


def json_lines(fields: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield the members of a JSON object one by one: each entry of a list, each map, the rest."""
    rest: dict[str, object] = {"kind": "summary"}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield {"kind": name, **value}
        elif isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value):
            yield from ({"kind": name, **one} for one in value)
        else:
            rest[name] = value
    yield rest


def github(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a workflow command of GitHub's for each finding."""
    for found in findings:
        title = f"guardrail ({found.code})"
        properties = {"title": title}
        span = span_of(found)
        if span is not None:
            properties = {"file": span.file, "line": str(span.line), "col": str(span.column)}
            if span.end_line == span.line:
                properties["endColumn"] = str(span.end_column)
            properties["title"] = title
        told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        yield f"::{_COMMANDS[found.severity]} {told}::{_data(_sentence(found))}"


def sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as a SARIF 2.1.0 log of one run."""
    codes = sorted({found.code for found in findings})
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "guardrail",
                        "version": metadata.version("guardrail-engine"),
                        "rules": [_rule(code) for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(found, codes) for found in findings],
            }
        ],
    }


def junit(name: str, findings: Sequence[Finding], cases: Sequence[Case], least: Severity) -> str:
    """Return what was checked as JUnit's XML: a test case each, and one for each finding.

    Findings milder than `least` stand as passed, with what they say. Where nothing was found one
    case says so.
    """
    entries = [*cases, *(_case(found, least) for found in findings)]
    if not findings:
        entries.append(Case("findings", "no findings"))
    root = ElementTree.Element("testsuites", name=f"guardrail {name}")
    _count(root, entries)
    for suite, group in groupby(entries, key=lambda entry: entry.suite):
        members = list(group)
        element = ElementTree.SubElement(root, "testsuite", name=inert(suite))
        _count(element, members)
        for entry in members:
            _add_case(element, entry)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode")


def _case(found: Finding, least: Severity) -> Case:
    span = span_of(found)
    where = f" ({span})" if span else ""
    failure = _sentence(found) if found.severity.reaches(least) else None
    return Case("findings", f"{found.code} {found.message}{where}", span, failure)


def _count(element: ElementTree.Element, entries: Sequence[Case]) -> None:
    element.set("tests", str(len(entries)))
    element.set("failures", str(sum(entry.failure is not None for entry in entries)))
    element.set("errors", "0")


def _add_case(parent: ElementTree.Element, entry: Case) -> None:
    element = ElementTree.SubElement(
        parent, "testcase", name=inert(entry.name), classname=inert(entry.suite)
    )
    if entry.span is not None:
        element.set("file", inert(entry.span.file))
        element.set("line", str(entry.span.line))
    if entry.failure is not None:
        first, *more = [inert(line) for line in entry.failure.split("\n")]
        failure = ElementTree.SubElement(element, "failure", message=first, type="finding")
        failure.text = "\n".join([first, *more])


def _sentence(found: Finding) -> str:
    label = owner = None
    if isinstance(found, Diagnostic):
        label, owner = found.label, found.owner and f"owner: {found.owner}"
    parts = [found.message, *filter(None, (label, found.help, owner))]
    return "; ".join(inert(part) for part in parts)


def _rule(code: str) -> dict[str, Any]:
    entry = CATALOGUE.get(code)
    if entry is None:
        return {"id": code, "shortDescription": {"text": code.replace("-", " ")}}
    told = f"Avoid:\n\n{entry.avoid}\n\nPrefer:\n\n{entry.prefer}\n\n{entry.why}"
    return {
        "id": code,
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": entry.why},
        "help": {"text": told},
    }


def _result(found: Finding, codes: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": found.code,
        "ruleIndex": codes.index(found.code),
        "level": _LEVELS[found.severity],
        "message": {"text": _sentence(found)},
    }
    if isinstance(found, Diagnostic) and found.about:
        result["properties"] = {"about": list(found.about)}
    span = span_of(found)
    if span is not None:
        result["locations"] = [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(span.file)},
                    "region": {
                        "startLine": span.line,
                        "startColumn": span.column,
                        "endLine": span.end_line,
                        "endColumn": span.end_column,
                    },
                }
            }
        ]
    return result


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(inert(text)).replace(":", "%3A").replace(",", "%2C")

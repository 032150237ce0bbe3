"""The sentences about what YAML allows and a policy file does not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NoReturn

from guardrail.errors import Diagnostic, Span
from guardrail.loading.findings import quoted
from guardrail.loading.nodes import ListNode, MapNode, Scalar
from guardrail.loading.scalars import CORE_TAGS, short_tag
from guardrail.loading.source import Source
from guardrail.loading.suggest import nearest
from guardrail.loading.syntax import NEST_LESS, NO_TAGS, TOO_DEEP

MAX_EXPANDED: Final = 10_000
MAX_REPORTED: Final = 100

_MAX_COMPARED: Final = 1_000
_QUOTE: Final = "put it in quotes if it is meant as text"
_NAME_IT: Final = "conditions and lists that repeat can have a name"


class UnreadableError(Exception):
    """A file cannot be read any further; `finding` says why."""

    def __init__(self, finding: Diagnostic) -> None:
        self.finding = finding
        super().__init__(finding.message)


class Complaints:
    """Appends to the findings what is wrong with one file's nodes, and stops where reading must.

    Methods that do not return raise `UnreadableError`; so does the hundredth report.
    """

    __slots__ = ("_findings", "_reported", "_source")

    def __init__(self, source: Source, findings: list[Diagnostic]) -> None:
        self._source = source
        self._findings = findings
        self._reported = 0

    def duplicate_key(self, key: Scalar, first: Scalar) -> None:
        """Report a key that its map has already, by its text or its value."""
        as_text = "" if first.text == key.text else f" as {quoted(first.text)}"
        self._report(
            "GR103",
            f"the key {quoted(key.text)} is there twice in this map",
            key.span,
            label=f"first written in line {first.span.line}{as_text}",
            help="keep one of them",
        )

    def merge_key(self, key: Scalar) -> None:
        """Report a `<<`."""
        self._report(
            "GR109",
            "the merge key `<<` is not allowed",
            key.span,
            help=f"write the keys out; {_NAME_IT}",
        )

    def wrong_key(self, key: MapNode | ListNode) -> None:
        """Report a map or list that stands as a key."""
        self._report(
            "GR100",
            f"{'a map' if isinstance(key, MapNode) else 'a list'} cannot be a key",
            key.span,
            help="put text that starts with a bracket in quotes",
        )

    def wrong_tag(self, tag: str, what: str, span: Span) -> None:
        """Report a tag that is not of the core schema, or not of what it stands at."""
        shown = short_tag(tag)
        message = (
            f"{what} is not what the tag {quoted(shown)} says"
            if tag in CORE_TAGS
            else f"the tag {quoted(shown)} is not allowed"
        )
        place = self._source.span(span.line, span.column, len(shown))
        self._report("GR109", message, place, help=NO_TAGS)

    def long_number(self, text: str, span: Span) -> None:
        """Report a number longer than numbers are."""
        message = f"a number of {len(text):,} characters is too long"
        self._report("GR100", message, span, help=_QUOTE)

    def unknown_alias(self, name: str, known: Collection[str], span: Span) -> None:
        """Report an alias of nothing, or of a part that is still open and would hold itself."""
        shown = quoted(f"*{name}")
        near = nearest(name, known) if len(known) <= _MAX_COMPARED else None
        if name in known:
            message, advice = f"{shown} stands inside the part it repeats", "write that part out"
        elif near is not None:
            message, advice = f"unknown alias {shown}", f"did you mean {quoted(f'*{near}')}?"
        else:
            message, advice = f"unknown alias {shown}", _QUOTE
        self._report("GR100", message, span, help=advice)

    def too_much_repeated(self, span: Span) -> NoReturn:
        """Stop at the alias that makes the file too large once all are expanded."""
        message = f"the aliases up to here repeat more than {MAX_EXPANDED:,} values"
        self.stop(message, span, help=f"repeat less; {_NAME_IT}")

    def too_deep(self, span: Span) -> NoReturn:
        """Stop at the map, list or alias that nests too deep."""
        self.stop(TOO_DEEP, span, help=NEST_LESS)

    def second_document(self, span: Span) -> NoReturn:
        """Stop at a `---` after a document."""
        self.stop(
            "a second document starts here",
            span,
            help="a file holds one document: remove this line, or make what follows its own file",
        )

    def half_character(self, span: Span) -> NoReturn:
        """Stop at a quoted text with a surrogate, which no encoding has bytes for."""
        self.stop("an escape in this text does not name a character", span)

    def stop(self, message: str, span: Span, *, help: str | None = None) -> NoReturn:
        """Raise `UnreadableError` with a finding."""
        raise UnreadableError(self._source.error("GR100", message, span, help=help))

    def _report(
        self, code: str, message: str, span: Span, *, label: str | None = None, help: str
    ) -> None:
        self._findings.append(self._source.error(code, message, span, label=label, help=help))
        self._reported += 1
        if self._reported == MAX_REPORTED:
            message = f"reading stops after {MAX_REPORTED} errors"
            self.stop(message, span, help="correct these first")

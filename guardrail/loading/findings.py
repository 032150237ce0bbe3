"""The findings of one loading run: where they collect, and how their sentences quote the author."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from guardrail.errors import Diagnostic, Severity, Span
from guardrail.loading.source import Source

_SHOWN = 60


@dataclass(slots=True)
class Findings:
    """Collects diagnostics, each with the source line it stands on."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    _sources: dict[str, Source] = field(default_factory=dict)

    def add_source(self, file: str, text: str) -> None:
        """Remember the text of a file, so that findings in it can show their line."""
        self._sources[file] = Source(file, text.removeprefix("\ufeff"))

    def report(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        label: str | None = None,
        help: str | None = None,
    ) -> None:
        """Record an error at a place."""
        source = self._sources[span.file]
        self.diagnostics.append(source.error(code, message, span, label=label, help=help))

    def warn(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        label: str | None = None,
        help: str | None = None,
    ) -> None:
        """Record a finding that keeps nothing from loading."""
        self.report(code, span, message, label=label, help=help)
        self.diagnostics[-1] = replace(self.diagnostics[-1], severity=Severity.WARNING)

    @property
    def failed(self) -> bool:
        """Whether anything was found that keeps the set from loading."""
        return any(found.severity is Severity.ERROR for found in self.diagnostics)

    def sources(self) -> tuple[Source, ...]:
        """Return the files that findings can be about."""
        return tuple(self._sources.values())

    def report_file(self, code: str, file: str, message: str, *, help: str | None = None) -> None:
        """Record an error about a whole file, at its start."""
        self.report(code, self._sources[file].span(1, 1), message, help=help)

    def in_order(self) -> list[Diagnostic]:
        """Return everything found by file, line and column, each finding once."""
        return sorted(dict.fromkeys(self.diagnostics), key=lambda found: found.sort_key)


def quoted(text: str) -> str:
    """Return the author's text in backticks, shortened and on one line."""
    if not text:
        return '`""`'
    short = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return "`" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in short) + "`"


def listed(names: Iterable[str], word: str = "and", most: int = 8) -> str:
    """Return names as a sentence lists them, each in backticks: `a`, `b` and `c`."""
    every = list(names)
    shown = [quoted(name) for name in every[:most]]
    if len(every) > most:
        return ", ".join(shown) + f" {word} {len(every) - most} more"
    if len(shown) < 2:
        return "".join(shown)
    return ", ".join(shown[:-1]) + f" {word} {shown[-1]}"


def did_you_mean(name: str, near: str | None, known: Sequence[str], kind: str) -> str:
    """Return the help for an unknown name: the nearest one, or what there is."""
    if near is not None:
        return f"did you mean {quoted(near)}?"
    if not known:
        return f"there are no {kind}; declare {quoted(name)} first"
    return f"known {kind}: {listed(known)}"


def place_of(span: Span) -> str:
    """Return a place as a label names it: the file's own name and the line."""
    return f"{span.file.rpartition('/')[2]}:{span.line}"

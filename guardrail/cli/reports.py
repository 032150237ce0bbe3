"""The results of one command in several formats at once: one on stdout, others in files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from guardrail.cli.machine import Case, Finding, github, json_lines, junit, sarif
from guardrail.cli.output import Color, Format, Output
from guardrail.errors import DataError, SettingError, Severity


class Wanted(NamedTuple):
    """One format that is wanted, and the file it goes to; None is stdout."""

    form: Format
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a command has to tell, in every format.

    `text` prints it for people, to an output, in full or concise. `fields` are for JSON. `cases`
    are what was checked, passed or failed, and `findings` what was found besides; `failures` tell
    of the cases that failed where findings are all there is. `fail_on` is the mildest finding that
    fails, `name` the command.
    """

    name: str
    text: Callable[[Output, Format], None]
    fields: Mapping[str, object]
    findings: Sequence[Finding] = ()
    cases: Sequence[Case] = ()
    failures: Sequence[Finding] = ()
    fail_on: Severity = Severity.WARNING

    @property
    def failed(self) -> bool:
        """Whether anything was found that is grave enough to fail."""
        return any(found.severity.reaches(self.fail_on) for found in self.findings) or any(
            case.failure is not None for case in self.cases
        )


@dataclass(slots=True)
class Reports:
    """The formats wanted of one command; `main` is the output of stdout."""

    main: Output
    forms: Sequence[Format]
    files: dict[str, tuple[Format, io.StringIO]] = field(default_factory=dict)

    @property
    def form(self) -> Format:
        """The format of what goes to stdout."""
        return self.forms[0]

    def tell(self, results: Results) -> None:
        """Print results in every format that is wanted."""
        _print(self.main, self.form, results)
        for form, text in self.files.values():
            _print(Output(Color.NEVER, results=text), form, results)


@contextmanager
def opened(asked: Sequence[Wanted] | None, output: Output) -> Iterator[Reports]:
    """Give the reports that are asked for; what goes to files is written when all is told.

    Raises:
        SettingError: two go to stdout, or a file cannot be one.
        DataError: a file cannot be written.
    """
    wanted = asked or []
    shown = [one.form for one in wanted if one.file is None]
    if len(shown) > 1:
        both = f"`--format {shown[0]}` and `--format {shown[1]}`"
        raise SettingError(f"{both} both go to stdout: write `--format {shown[1]}=FILE`")
    reports = Reports(output, shown or [Format.FULL])
    for form, file in wanted:
        if file is not None:
            if Path(file).is_dir() or not Path(file).parent.is_dir():
                raise SettingError(f"`--format {form}={file}` cannot be written: name a file")
            reports.files[file] = form, io.StringIO()
    yield reports
    for file, (_, text) in reports.files.items():
        try:
            Path(file).write_text(text.getvalue(), "utf-8")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DataError(f"cannot write `{file}`: {reason}") from error


def _print(output: Output, form: Format, results: Results) -> None:
    if form in (Format.FULL, Format.CONCISE):
        results.text(output, form)
    elif form is Format.JSON:
        output.json(results.fields)
    elif form is Format.JSONL:
        for line in json_lines(results.fields):
            output.json(line, None)
    elif form is Format.SARIF:
        output.json(sarif([*results.failures, *results.findings]))
    elif form is Format.JUNIT:
        output.text(junit(results.name, results.findings, results.cases, results.fail_on))
    else:
        for command in github([*results.failures, *results.findings]):
            output.text(command)

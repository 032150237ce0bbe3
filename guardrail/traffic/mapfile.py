"""Map files: how an author says which columns of a log are the facts and amounts of a request.

A map is one YAML file, read as strictly as a policy: unknown keys are errors, with positions.
`docs/traffic.md` describes the format; `guardrail schema --of map` prints its JSON Schema.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

from guardrail.errors import DataError, Diagnostic
from guardrail.loading import (
    Findings,
    Node,
    Place,
    Scope,
    did_you_mean,
    nearest,
    plain,
    quoted,
    read_yaml,
    shaped,
    typed,
)
from guardrail.model.amounts import UNITS
from guardrail.model.cells import TOP
from guardrail.model.facts import Fact, epoch_of
from guardrail.model.policy import PolicySet
from guardrail.model.spellings import Spellings
from guardrail.traffic.maps import (
    SCALES,
    Amount,
    Column,
    FactSource,
    Lasting,
    Layout,
    Moment,
    TimeUnit,
    TrafficMap,
)
from guardrail.traffic.mapshapes import (
    AmountShape,
    DurationShape,
    FactSourceShape,
    MapShape,
    TimeShape,
)
from guardrail.traffic.requests import MONEY, FactValue

MAPS = Path(__file__).parent.parent / "data" / "maps"
"""Where the maps stand that come with guardrail."""


class MapError(DataError):
    """A map file cannot be used; `diagnostics` lists everything that is wrong with it."""

    def __init__(self, path: str, diagnostics: list[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        lines = [f"{found.span}: {found.code} {found.message}" for found in self.diagnostics]
        super().__init__(f"map `{path}` not loaded\n" + "\n".join(lines))


def load_map(path: str, policies: PolicySet) -> TrafficMap:
    """Return a map file's map, or one that comes with guardrail, for a policy set.

    Raises:
        DataError: the file cannot be read, or no map has that name.
        MapError: it is not a map, or names facts or units that the policies do not have.
    """
    name = built_in(path)
    if name is None:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DataError(f"cannot read `{path}`: {reason}{_meant(path)}") from error
    else:
        data = text_of_map(name).encode()
    return read_map(data, path, policies)


def read_map(data: bytes, path: str, policies: PolicySet) -> TrafficMap:
    """Return the map that stands in a file's bytes; `path` is what messages call it.

    Raises:
        DataError: it is not text.
        MapError: it is not a map, or names facts or units that the policies do not have.
    """
    findings = Findings()
    node = _parsed(data, path, findings)
    found = None if node is None else _Reading(node, findings, policies).map()
    if found is None or findings.diagnostics:
        raise MapError(path, findings.in_order())
    return found


def built_in_names() -> tuple[str, ...]:
    """Return the names of the maps that come with guardrail."""
    return tuple(sorted(path.stem for path in MAPS.glob("*.yaml")))


def built_in(written: str) -> str | None:
    """Return the name of a map that comes with guardrail, None if a file is meant."""
    return written if written in built_in_names() else None


def text_of_map(name: str) -> str:
    """Return the text of a map that comes with guardrail."""
    return (MAPS / f"{name}.yaml").read_text("utf-8")


def patterns_of(name: str) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of the lines that a map reads which comes with guardrail."""
    findings = Findings()
    node = _parsed(text_of_map(name).encode(), name, findings)
    shape = None if node is None else shaped(MapShape, Place(node, findings))
    return () if shape is None else tuple(map(compiled_pattern, shape.pattern or ()))


def _meant(written: str) -> str:
    if "/" in written or written.endswith((".yaml", ".yml")):
        return ""
    near = nearest(written, built_in_names())
    if near is not None:
        return f"; did you mean `{near}`?"
    return f"; maps by name are {', '.join(built_in_names())}"


def _parsed(data: bytes, path: str, findings: Findings) -> Node | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise DataError(f"`{path}` is not UTF-8 text") from None
    findings.add_source(path, text)
    node = read_yaml(text, path, findings.diagnostics)
    if node is None and not findings.diagnostics:
        findings.report_file(
            "GR100", path, "the file is empty", help="start with `guardrail_map: 1`"
        )
    return node


class _Reading:
    """One map file being read."""

    def __init__(self, node: Node, findings: Findings, policies: PolicySet) -> None:
        self._place = Place(node, findings)
        self._findings = findings
        self._scope = Scope(findings, facts=dict(policies.facts))
        self._units = frozenset((*UNITS, *policies.units))
        self._spellings = Spellings(policies.models) if policies.models else None

    def map(self) -> TrafficMap | None:
        shape = shaped(MapShape, self._place)
        if shape is None:
            return None
        if plain(shape.guardrail_map) != 1:
            self._report(
                ("guardrail_map",), "this is not version 1 of a map", "write `guardrail_map: 1`"
            )
        self._decimal = shape.decimal
        self._empty = frozenset(shape.empty or ())
        layout = self._layout(shape)
        moment = self._moment(shape.ts)
        return TrafficMap(
            moment=moment,
            facts=tuple(
                source
                for name, part in shape.facts.items()
                if (source := self._fact(name, part)) is not None
            ),
            estimate=self._amounts("estimate", shape.estimate),
            usage=self._amounts("usage", shape.usage),
            duration=self._duration(shape.duration, moment),
            layout=layout,
            totals=shape.totals,
            rows_with=None if shape.rows_with is None else self._column(shape.rows_with),
        )

    def _report(self, path: tuple[str, ...], message: str, help: str | None = None) -> None:
        self._place.report("GR102", path, message, help=help)

    def _column(self, name: str) -> Column:
        return Column(name, self._empty)

    def _layout(self, shape: MapShape) -> Layout:
        kind = shape.format
        for key, of in (
            ("delimiter", "csv"), ("columns", "csv"),
            ("pattern", "line"), ("rows", "json"), ("pairs", "json"),
        ):  # fmt: skip
            if getattr(shape, key) is not None and kind != of:
                article = "a csv" if of == "csv" else f"`format: {of}`"
                self._report((key,), f"only {article} has a {key}", f"write `format: {of}`")
        if shape.pairs is not None and len(shape.pairs) != 2:
            self._report(
                ("pairs",), "pairs have two members: a name and its value", "write `[field, value]`"
            )
        delimiter = shape.delimiter or ","
        if len(delimiter) != 1 or delimiter in '"\r\n':
            self._report(("delimiter",), "a delimiter is one character", 'write `delimiter: ";"`')
            delimiter = ","
        columns = None if shape.columns is None else tuple(shape.columns)
        rows = tuple(shape.rows or ("[]",))
        for path in rows:
            if kind == "json" and not _ROWS.fullmatch(path):
                self._report(
                    ("rows",), f"{quoted(path)} is no path to rows", "write `data[].results[]`"
                )
        return Layout(
            kind=kind,
            delimiter=delimiter,
            columns=columns,
            patterns=self._patterns(shape) if kind == "line" else (),
            rows=rows,
            pairs=(shape.pairs[0], shape.pairs[-1]) if shape.pairs else None,
            unpack=tuple(shape.unpack or ()),
            lift=tuple(shape.lift or ()),
            encoding=self._encoding(shape.encoding),
        )

    def _encoding(self, written: str) -> str:
        try:
            found = codecs.lookup(written)
        except LookupError:
            found = None
        if found is None or not getattr(found, "_is_text_encoding", True):
            self._report(
                ("encoding",), f"unknown encoding {quoted(written)}", "write `utf-8` or `latin-1`"
            )
            return "utf-8"
        return found.name

    def _patterns(self, shape: MapShape) -> tuple[re.Pattern[str], ...]:
        written = shape.pattern or ()
        if not written:
            self._report(
                ("format",),
                "a line needs a pattern",
                "write `pattern:` with the `log_format` of your server, such as `$remote_addr …`",
            )
        found: list[re.Pattern[str]] = []
        for pattern in written:
            names = _VARIABLE.findall(pattern)
            repeated = sorted({name for name in names if names.count(name) > 1})
            if not names or repeated:
                message = (
                    f"`${repeated[0]}` stands twice in the pattern"
                    if repeated
                    else "the pattern names no column"
                )
                self._report(("pattern",), message, "write each column once, as `$name`")
            else:
                found.append(compiled_pattern(pattern))
        return tuple(found)

    def _moment(self, shape: TimeShape) -> Moment:
        unit: TimeUnit = shape.unit or ("s" if shape.format is None else "format")
        if shape.format is not None and shape.unit is not None:
            self._report(("ts", "unit"), "a time with a format has no unit", "leave it out")
        is_text = unit in ("rfc3339", "format")
        zone = None
        if shape.timezone is not None:
            if not is_text:
                self._report(
                    ("ts", "timezone"),
                    "only a time in text has a time zone",
                    "write `unit: rfc3339`",
                )
            try:
                zone = ZoneInfo(shape.timezone)
            except (KeyError, OSError, ValueError):
                self._report(
                    ("ts", "timezone"),
                    f"unknown time zone {quoted(shape.timezone)}",
                    "write an IANA name such as `Europe/Berlin`",
                )
        if shape.format is not None:
            self._try_format(shape.format)
        if shape.numbers is not None and not is_text:
            self._report(
                ("ts", "numbers"), "the unit says already what numbers are", "leave it out"
            )
        return Moment(
            columns=tuple(map(self._column, shape.column)),
            match=self._match(("ts", "match"), shape.match),
            unit=unit,
            offset=self._offset(shape.offset),
            zone=zone,
            format=shape.format,
            numbers=shape.numbers,
            second=shape.doubled == "second",
            decimal=self._decimal,
        )

    def _try_format(self, written: str) -> None:
        try:
            text = datetime(2026, 3, 2, 9, 30, 1, tzinfo=UTC).strftime(written)
            datetime.strptime(text, written)
        except (ValueError, re.error):
            self._report(
                ("ts", "format"),
                f"{quoted(written)} is no format of a time",
                "write it as `strptime` takes it, such as `%d/%b/%Y:%H:%M:%S %z`",
            )

    def _offset(self, node: Node | None) -> float:
        if node is None:
            return 0.0
        written = plain(node)
        offset = epoch_of(written) if isinstance(written, str) else _amount(written, signed=True)
        if offset is None:
            self._report(
                ("ts", "offset"),
                "an offset is a time or a number of seconds",
                "write `2026-03-02T00:00:00Z` or `3600`",
            )
        return float(offset or 0)

    def _fact(self, name: str, shape: FactSourceShape) -> FactSource | None:
        path = ("facts", name)
        fact = self._scope.fact(name, self._place.key_span(path))
        if not self._one_source(path, shape) or fact is None:
            return None
        if shape.constant is not None:
            return FactSource(fact=fact, default=self._value(fact, shape.constant))
        values = None
        if shape.values is not None:
            values = {text: self._value(fact, node) for text, node in shape.values.items()}
        default = None if shape.default is None else self._value(fact, shape.default)
        return FactSource(
            fact=fact,
            columns=tuple(map(self._column, shape.column or ())),
            match=self._match((*path, "match"), shape.match),
            case=shape.case,
            values=values,
            default=default,
            optional=shape.optional,
            decimal=self._decimal,
            spellings=self._spellings if name == "request.model" else None,
        )

    def _match(self, path: tuple[str, ...], written: str | None) -> re.Pattern[str] | None:
        if written is None:
            return None
        try:
            found = re.compile(written)
        except re.error as error:
            self._report(path, f"{quoted(written)} is no regular expression: {error.msg}")
            return None
        if found.groups != 1:
            self._report(
                path, "a match has one group, which is the value", "write `^\\S+ ([^ ?]+)`"
            )
            return None
        return found

    def _value(self, fact: Fact, node: Node) -> FactValue:
        value = typed(fact, node, self._scope)
        return cast(FactValue, list(value) if isinstance(value, tuple) else value)

    def _one_source(self, path: tuple[str, ...], shape: FactSourceShape | AmountShape) -> bool:
        summed = isinstance(shape, AmountShape) and bool(shape.sum)
        if bool(shape.column) + (shape.constant is not None) + summed != 1:
            name = quoted(path[-1])
            self._place.report_key(
                "GR102",
                path,
                f"{name} needs either `column` or `constant`",
                help=f"write `{path[-1]}: {{column: NAME}}`",
            )
            return False
        for key in ("values", "default", "match", "case"):
            if shape.constant is not None and getattr(shape, key, None) is not None:
                self._place.report_key(
                    "GR102", (*path, key), f"a constant has no `{key}`", help="leave it out"
                )
                return False
        return True

    def _amounts(
        self, member: str, shapes: dict[str, AmountShape] | None
    ) -> tuple[tuple[str, Amount], ...]:
        found: list[tuple[str, Amount]] = []
        for unit, shape in (shapes or {}).items():
            path = (member, unit)
            if unit not in self._units:
                known = sorted(self._units)
                help = did_you_mean(unit, known, "units")
                self._place.report_key("GR101", path, f"unknown unit {quoted(unit)}", help=help)
            elif self._one_source(path, shape):
                found.append((unit, self._amount(path, shape)))
        return tuple(found)

    def _amount(self, path: tuple[str, ...], shape: AmountShape) -> Amount:
        key = "default" if shape.constant is None else "constant"
        written = getattr(shape, key)
        default = None if written is None else _amount(plain(written))
        if written is not None and default is None:
            self._report((*path, key), "an amount is a number, 0 or more")
        names = shape.sum or ([] if shape.column is None else [shape.column])
        return Amount(
            columns=tuple(map(self._column, names)),
            whole=path[-1] != MONEY,
            default=default,
            decimal=self._decimal,
        )

    def _duration(self, shape: DurationShape | None, moment: Moment) -> Amount | Lasting | None:
        if shape is None:
            return None
        if (shape.column is None) == (shape.until is None):
            self._report(
                ("duration",),
                "a duration is a `column`, or lasts `until` another time",
                "write `duration: {column: NAME}`",
            )
            return None
        if shape.until is not None:
            return Lasting(until=replace(moment, columns=(self._column(shape.until),)))
        return Amount(
            columns=(self._column(str(shape.column)),),
            scale=SCALES[shape.unit],
            decimal=self._decimal,
        )


_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_ROWS = re.compile(
    r"(?:\[\]\.)?(?:[A-Za-z_][A-Za-z0-9_]*(?:\[\])?\.)*(?:[A-Za-z_][A-Za-z0-9_]*)?\[\]"
)


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """Return a line's pattern: `$name` is a column, all else stands as it is.

    A column ends before what follows it in the pattern. In quotes, a quote after a backslash is a
    part of the text.
    """
    pieces = _VARIABLE.split(pattern)
    made = [re.escape(pieces[0])]
    for name, before, after in zip(pieces[1::2], pieces[:-1:2], pieces[2::2], strict=True):
        if before.endswith('"') and after.startswith('"'):
            value = r'(?:[^"\\]|\\.)*'
        elif after:
            value = f"[^{re.escape(after[0])}]*"
        else:
            value = ".*"
        made += (f"(?P<{name}>{value})", re.escape(after))
    return re.compile("".join(made) + r"\s*")


def _amount(written: object, *, signed: bool = False) -> int | float | None:
    if isinstance(written, bool) or not isinstance(written, int | Decimal):
        return None
    number = written if isinstance(written, int) else float(written)
    return None if abs(number) > TOP or (number < 0 and not signed) else number

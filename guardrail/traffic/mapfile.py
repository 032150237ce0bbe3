"""Map files: how an author says which columns of a log are the facts and amounts of a request.

A map is one YAML file, read as strictly as a policy (unknown keys are errors, with positions)::

    guardrail_map: 1
    format: csv                 # or jsonl, the default
    delimiter: ";"              # of a csv; a comma if left out
    ts: {column: started, unit: ms, offset: 2026-03-02T00:00:00Z}
    facts:
      account.id:         {column: customer}
      request.capability: {column: kind, values: {rag: chat, coder: code}, default: other}
      account.tier:       {constant: email}
    estimate:
      input_tokens:  {column: usage.prompt_tokens}
      output_tokens: {column: max_tokens, default: 1024}
    usage:
      input_tokens:  {column: usage.prompt_tokens}
      output_tokens: {column: usage.completion_tokens}
    duration: {column: latency, unit: ms}

* A `column` is a header's cell in a csv, a member in JSON lines; there, dots step into objects. A
  column that is absent, null or empty has no value.
* `ts`: `unit` is s (the default), ms, us, ns or rfc3339; `timezone` is that of RFC 3339 times
  without an offset; `offset`, a time or a number of seconds, is added (for logs that count from
  their first line).
* A fact is a `column` or a `constant`. `values` translates the column's texts; what it does not
  list becomes the `default`, as does a missing value; without a default the fact is left out.
  Values take the shape of the fact's type: `"12"` becomes a number for an integer, `"true"` a
  bool, a number becomes text for a string, and text with commas a list.
* `estimate` and `usage` map units to a `column` (with a `default`) or a `constant`. A request
  without an estimate reserves what a door would: the input it used, and the longest answer of its
  model. Where the log tells what was asked for, or a length is to be assumed, state both under
  `estimate`. One without a usage settles at its estimate.
* `duration` is how long the request took: `unit` s, ms, us or ns.
"""

from __future__ import annotations

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
from guardrail.traffic.maps import (
    SCALES,
    Amount,
    Column,
    FactSource,
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


class MapError(DataError):
    """A map file cannot be used; `diagnostics` lists everything that is wrong with it."""

    def __init__(self, path: str, diagnostics: list[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        lines = [f"{found.span}: {found.code} {found.message}" for found in self.diagnostics]
        super().__init__(f"map `{path}` not loaded\n" + "\n".join(lines))


def load_map(path: str, policies: PolicySet) -> TrafficMap:
    """Return a map file's map, bound to the facts and units of a policy set.

    Raises:
        DataError: the file cannot be read.
        MapError: it is not a map, or names facts or units that the policies do not have.
    """
    findings = Findings()
    node = _parsed(path, findings)
    found = None if node is None else _Reading(node, findings, policies).map()
    if found is None or findings.diagnostics:
        raise MapError(path, findings.in_order())
    return found


def _parsed(path: str, findings: Findings) -> Node | None:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"cannot read `{path}`: {reason}") from error
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

    def map(self) -> TrafficMap | None:
        shape = shaped(MapShape, self._place)
        if shape is None:
            return None
        if plain(shape.guardrail_map) != 1:
            self._report(
                ("guardrail_map",), "this is not version 1 of a map", "write `guardrail_map: 1`"
            )
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
            duration=self._duration(shape.duration),
            delimiter=self._delimiter(shape),
        )

    def _report(self, path: tuple[str, ...], message: str, help: str | None = None) -> None:
        self._place.report("GR102", path, message, help=help)

    def _delimiter(self, shape: MapShape) -> str | None:
        delimiter = shape.delimiter
        if shape.format == "jsonl":
            if delimiter is not None:
                self._report(("delimiter",), "only a csv has a delimiter", "write `format: csv`")
            return None
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            self._report(("delimiter",), "a delimiter is one character", 'write `delimiter: ";"`')
        return delimiter or ","

    def _moment(self, shape: TimeShape) -> Moment:
        unit: TimeUnit = shape.unit
        zone = None
        if shape.timezone is not None:
            if unit != "rfc3339":
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
        return Moment(
            column=Column(shape.column), unit=unit, offset=self._offset(shape.offset), zone=zone
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
        column = Column(str(shape.column))
        values = None
        if shape.values is not None:
            values = {text: self._value(fact, node) for text, node in shape.values.items()}
        default = None if shape.default is None else self._value(fact, shape.default)
        return FactSource(fact=fact, column=column, values=values, default=default)

    def _value(self, fact: Fact, node: Node) -> FactValue:
        value = typed(fact, node, self._scope)
        return cast(FactValue, list(value) if isinstance(value, tuple) else value)

    def _one_source(self, path: tuple[str, ...], shape: FactSourceShape | AmountShape) -> bool:
        if (shape.column is None) == (shape.constant is None):
            name = quoted(path[-1])
            self._place.report_key(
                "GR102",
                path,
                f"{name} needs either `column` or `constant`",
                help=f"write `{path[-1]}: {{column: NAME}}`",
            )
            return False
        for key in ("values", "default"):
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
        column = None if shape.column is None else Column(shape.column)
        return Amount(column=column, whole=path[-1] != MONEY, default=default)

    def _duration(self, shape: DurationShape | None) -> Amount | None:
        if shape is None:
            return None
        return Amount(column=Column(shape.column), scale=SCALES[shape.unit])


def _amount(written: object, *, signed: bool = False) -> int | float | None:
    if isinstance(written, bool) or not isinstance(written, int | Decimal):
        return None
    number = written if isinstance(written, int) else float(written)
    return None if abs(number) > TOP or (number < 0 and not signed) else number

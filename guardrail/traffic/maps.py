"""Maps at work: how a row of somebody's log becomes a request."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from guardrail.model.cells import TOP
from guardrail.model.facts import Fact, FactType
from guardrail.model.spellings import Spellings
from guardrail.traffic.notes import MapNotes
from guardrail.traffic.requests import (
    LATEST,
    LONGEST,
    UNDECODABLE,
    FactValue,
    Request,
    known_beforehand,
    quoted,
)

Row = dict[str, Any]
TimeUnit = Literal["s", "ms", "us", "ns", "rfc3339", "format"]

SCALES: Mapping[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many of each unit make a second."""

EARLY = 315_532_800.0
"""The year 1980, in seconds since the epoch: no log of requests is older."""
_KEPT = 4_096

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


class RowError(Exception):
    """A row is not a request; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column by name; in a JSON row a dot also steps into an object, whose keys may have dots.

    The texts in `empty` are no value.
    """

    name: str
    empty: frozenset[str] = frozenset()

    def of(self, row: Row) -> Any:
        """Return the row's value, None where the column is absent, null or empty."""
        value = row.get(self.name)
        if value is None and "." in self.name:
            value = _within(row, self.name)
        if value == "" or (self.empty and value.__class__ is str and value in self.empty):
            return None
        return value


def _within(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return None
    found = value.get(name)
    if found is None:
        first, dot, rest = name.partition(".")
        return _within(value.get(first), rest) if dot else None
    return found


def first_value(columns: tuple[Column, ...], row: Row) -> Any:
    """Return the row's value in the first of some columns that has one, None if none has."""
    for column in columns:
        value = column.of(row)
        if value is not None:
            return value
    return None


_NUMERAL = re.compile(r"[0-9]+(?:[.,][0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The time of a request: a column, its unit, and what is added to it in seconds.

    Of several `columns` the first counts that has a value; of a text, `match` takes what its first
    group finds. A text is read by `format` (as `strptime` does) where the unit says so. A text
    without an offset stands in `zone`; without a zone it is refused. A number where texts are
    expected, also one written as a text as in a csv, is in the unit `numbers`, or in that which its
    size tells where this is `any`. Of an hour that a clock showed twice, `second` takes the later.
    """

    columns: tuple[Column, ...]
    match: re.Pattern[str] | None = None
    unit: TimeUnit = "s"
    offset: float = 0.0
    zone: ZoneInfo | None = None
    format: str | None = None
    numbers: str | None = None
    second: bool = False
    decimal: str = "."
    _read_before: dict[str, tuple[float, str | None]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def seconds(self, row: Row, notes: MapNotes) -> float:
        """Return the row's time in seconds since the epoch.

        Raises:
            RowError: there is none, or it is not a time.
        """
        column, value = self._found(row)
        if value is None:
            raise RowError(f"time {quoted(column.name)} is missing")
        seconds = self._seconds(value, column, notes) + self.offset
        if not 0 <= seconds < LATEST:
            raise RowError(f"time {quoted(column.name)} is before 1970 or after 2200")
        if seconds < EARLY and not self.offset:
            notes.early += 1
            notes.example("early", text_of(value))
        return seconds

    def is_in(self, row: Row) -> bool:
        """Tell whether a row has a value for the time."""
        return self._found(row)[1] is not None

    def _found(self, row: Row) -> tuple[Column, Any]:
        """Return the first column that has a value, with it; the first, if none has."""
        for column in self.columns:
            value = column.of(row)
            if value is not None:
                if self.match is None:
                    return column, value
                found = self.match.search(text_of(value))
                if found is None or not found[1]:
                    raise RowError(f"time {quoted(column.name)} does not fit `match`")
                return column, found[1]
        return self.columns[0], None

    def _seconds(self, value: Any, column: Column, notes: MapNotes) -> float:
        if self.unit in SCALES:
            number = number_of(value, column, self.decimal)
            return number / SCALES[self.unit]
        if self.numbers is not None and (not isinstance(value, str) or _NUMERAL.fullmatch(value)):
            number = number_of(value, column, self.decimal)
            return number / (
                _scale_by_size(number) if self.numbers == "any" else SCALES[self.numbers]
            )
        text = str(value)
        found = self._read_before.get(text)
        if found is None:
            if len(self._read_before) >= _KEPT:
                self._read_before.clear()
            found = self._read_before[text] = self._read(text, column)
        if found[1] is not None:
            if found[1] == "doubled":
                notes.doubled += 1
            else:
                notes.skipped += 1
            notes.example(found[1], text)
        return found[0]

    def _read(self, text: str, column: Column) -> tuple[float, str | None]:
        """Return a text's time, and whether a clock showed it twice or never."""
        try:
            if self.unit == "format":
                moment = datetime.strptime(text, self.format or "")
            else:
                moment = datetime.fromisoformat(text)
        except ValueError:
            wanted = "RFC 3339" if self.format is None else f"of the format `{self.format}`"
            raise RowError(f"time {quoted(column.name)} is not {wanted}") from None
        if moment.tzinfo is not None:
            return moment.timestamp(), None
        if self.zone is None:
            raise RowError(f"time {quoted(column.name)} has no time zone")
        first = moment.replace(tzinfo=self.zone, fold=0)
        second = moment.replace(tzinfo=self.zone, fold=1)
        if first.utcoffset() == second.utcoffset():
            return first.timestamp(), None
        shown = datetime.fromtimestamp(first.timestamp(), self.zone).replace(tzinfo=None)
        if shown != moment:
            return first.timestamp(), "skipped"
        return (second if self.second else first).timestamp(), "doubled"


def _scale_by_size(number: float) -> int:
    """Return how many of its units make a second: from 1980 to 2200, no two units share a size."""
    return next((scale for scale in SCALES.values() if number < LATEST * scale), SCALES["ns"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """An amount: columns added up, what stands in where all lack a value, or a constant."""

    columns: tuple[Column, ...] = ()
    scale: int = 1
    whole: bool = False
    default: int | float | None = None
    decimal: str = "."

    def of(self, row: Row) -> int | float | None:
        """Return the row's amount, None if it has none.

        Raises:
            RowError: it is not a number, or negative, or too large.
        """
        total: int | float | None = None
        for column in self.columns:
            number = self._of(column, row)
            if number is not None:
                total = number if total is None else total + number
        return self.default if total is None else total

    def _of(self, column: Column, row: Row) -> int | float | None:
        value = column.of(row)
        if value is None:
            return None
        number = number_of(value, column, self.decimal)
        if number < 0:
            raise RowError(f"{quoted(column.name)} is negative")
        if number > TOP:
            raise RowError(f"{quoted(column.name)} is too large")
        if self.whole and isinstance(number, float):
            if not number.is_integer():
                raise RowError(f"{quoted(column.name)} is not a whole number")
            return int(number)
        return number / self.scale if self.scale != 1 else number


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """How long a request took: from its time until another."""

    until: Moment

    def of(self, row: Row, ts: float) -> float:
        """Return the length in seconds, 0 where the end is missing.

        Raises:
            RowError: the end is not a time, or before the beginning.
        """
        if not self.until.is_in(row):
            return 0.0
        length = self.until.seconds(row, MapNotes()) - ts
        if length < 0:
            raise RowError(f"{quoted(self.until.columns[0].name)} is before the request")
        return length


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSource:
    """Where a fact comes from: a column, perhaps translated, or a constant (`default` alone).

    Of several `columns` the first counts that has a value. Of a text, `match` takes what its first
    group finds; `case` makes it upper or lower. A value that `values` does not list becomes
    `default`, like a missing one; without a default the fact is left out. That an `optional` fact
    is missing is no news. A value that is another spelling of one of `spellings` is that one.
    """

    fact: Fact
    columns: tuple[Column, ...] = ()
    match: re.Pattern[str] | None = None
    case: str | None = None
    values: Mapping[str, FactValue] | None = None
    default: FactValue = None
    optional: bool = False
    decimal: str = "."
    spellings: Spellings | None = None

    def of(self, row: Row, notes: MapNotes) -> FactValue:
        """Return the fact's value for a row, None if it is missing; note what is not known."""
        if not self.columns:
            return self.default
        value = first_value(self.columns, row)
        if value is None:
            return self._missing(notes)
        if self.match is not None:
            text = text_of(value)
            found = self.match.search(text)
            if found is None:
                lacks = self.optional and self.default is None
                return self._missing(notes) if lacks else self._unknown(text, notes)
            value = found[1]
            if not value:
                return self._missing(notes)
        if self.case is not None:
            text = text_of(value)
            value = text.upper() if self.case == "upper" else text.lower()
        if self.values is not None:
            text = text_of(value)
            known = self.values.get(text)
            return self._unknown(text, notes) if known is None else known
        if self.decimal != "." and value.__class__ is str and self.fact.type in _NUMBERS:
            number = _number(value, self.decimal)
            value = value if number is None else number
        made = shaped(self.fact, value)
        if self.spellings is not None and isinstance(made, str):
            listed = self.spellings.listed(made)
            if listed != made:
                notes.count(notes.respelt, listed, made)
                return listed
        return made

    def _missing(self, notes: MapNotes) -> FactValue:
        if self.default is None:
            notes.missing[self.fact.name] += 1
        return self.default

    def _unknown(self, text: str, notes: MapNotes) -> FactValue:
        where = notes.unknown if self.default is None else notes.replaced
        notes.count(where, self.fact.name, text)
        return self.default


_NUMBERS = (FactType.INTEGER, FactType.NUMBER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a log's rows stand in its file.

    `kind` is jsonl, csv, line or json. A csv has a `delimiter`, and either a header line or
    `columns`; a line is matched by the first of `patterns` that fits, each of whose groups is a
    column; `rows` are paths to the rows of a JSON document, of which the first counts that finds
    any. Rows that are lists of `pairs` have in each of them a member that names a column, and one
    that is its value. The texts of the columns in `unpack` and `lift` are JSON themselves: what the
    latter hold is the row's, where it has no such column of its own.
    """

    kind: Literal["jsonl", "csv", "line", "json"] = "jsonl"
    delimiter: str = ","
    columns: tuple[str, ...] | None = None
    patterns: tuple[re.Pattern[str], ...] = ()
    rows: tuple[str, ...] = ("[]",)
    pairs: tuple[str, str] | None = None
    unpack: tuple[str, ...] = ()
    lift: tuple[str, ...] = ()
    encoding: str = "utf-8"


@dataclass(slots=True, kw_only=True)
class TrafficMap:
    """A map bound to a policy set's facts and units.

    Where rows are `totals`, each stands for all requests of a time. A row without a value in the
    column `rows_with` stands for none. `notes` count what it met in the rows so far.
    """

    moment: Moment
    facts: tuple[FactSource, ...]
    estimate: tuple[tuple[str, Amount], ...] = ()
    usage: tuple[tuple[str, Amount], ...] = ()
    duration: Amount | Lasting | None = None
    layout: Layout = field(default_factory=Layout)
    totals: bool = False
    rows_with: Column | None = None
    notes: MapNotes = field(default_factory=MapNotes, init=False)

    def __post_init__(self) -> None:
        self.notes.unseen = set(self.columns)
        self.notes.totals = self.totals
        self.notes.rows_with = None if self.rows_with is None else self.rows_with.name
        self.notes.tells_requests = any(unit == "requests" for unit, _ in self.usage)
        self.notes.optional = frozenset(
            source.fact.name for source in self.facts if source.optional
        )
        self.notes.dispensable = self._dispensable()
        self.notes.together = tuple(
            frozenset(column.name for column in columns)
            for columns in self._sources()
            if len(columns) > 1
        )

    @property
    def is_by_line(self) -> bool:
        """Whether each line can be read without the others."""
        return self.layout.kind in ("jsonl", "line")

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns the map reads."""
        return frozenset(column.name for columns in self._sources() for column in columns)

    def request(self, row: Row) -> tuple[float, Request] | None:
        """Return a row's time and the request it stands for, None if it stands for none.

        Raises:
            RowError: the row is not a request.
        """
        notes = self.notes
        for name in self.layout.unpack:
            _unpack(row, name)
        for name in self.layout.lift:
            _unpack(row, name)
            within = row.get(name)
            if isinstance(within, dict):
                row = {**within, **row}
        if self.rows_with is not None and self.rows_with.of(row) is None:
            notes.passed_over += 1
            return None
        ts = self.moment.seconds(row, notes)
        duration = 0.0
        if isinstance(self.duration, Lasting):
            duration = self.duration.of(row, ts)
        elif self.duration is not None:
            duration = float(self.duration.of(row) or 0)
        if duration > LONGEST:
            raise RowError("the duration is over a week")
        estimate, usage = _amounts(self.estimate, row), _amounts(self.usage, row)
        if estimate is not None and usage is not None:
            estimate = known_beforehand(usage) | estimate
        # From here on the row is a request, and what it lacks is counted.
        notes.rows += 1
        if notes.unseen:
            notes.unseen = {name for name in notes.unseen if Column(name).of(row) is None}
        facts: dict[str, FactValue] = {}
        for source in self.facts:
            value = source.of(row, notes)
            if value is not None:
                facts[source.fact.name] = value
        return ts, Request(ts=ts, facts=facts, estimate=estimate, usage=usage, duration=duration)

    def _sources(self) -> Iterator[tuple[Column, ...]]:
        """Yield the columns that the map reads, those together that one thing is read from."""
        yield self.moment.columns
        yield from (source.columns for source in self.facts)
        yield from (amount.columns for _, amount in (*self.estimate, *self.usage))
        if isinstance(self.duration, Lasting):
            yield self.duration.until.columns
        elif self.duration is not None:
            yield self.duration.columns

    def _dispensable(self) -> frozenset[str]:
        """Return the columns of which the map says what holds where they have no value."""
        spared = [
            source.columns for source in self.facts if source.optional or source.default is not None
        ]
        amounts = (amount for _, amount in (*self.estimate, *self.usage))
        spared += (amount.columns for amount in amounts if amount.default is not None)
        every = Counter(column.name for columns in self._sources() for column in columns)
        every.subtract(column.name for columns in spared for column in columns)
        return frozenset(name for name, needed in every.items() if not needed)


def _unpack(row: Row, name: str) -> None:
    """Put a JSON text's members where the text stands."""
    value = row.get(name)
    if value.__class__ is str:
        try:
            row[name] = msgspec.json.decode(str(value))
        except UNDECODABLE:
            raise RowError(f"{quoted(name)} is not JSON") from None


def number_of(value: object, column: Column, decimal: str = ".") -> int | float:
    """Return a number, also from its text, in which `decimal` stands before decimals.

    Raises:
        RowError: it is not a finite number; a bool is none.
    """
    if isinstance(value, str):
        number = _number(value, decimal)
    else:
        number = value if isinstance(value, int | float) else None
    if number is None or isinstance(value, bool):
        raise RowError(f"{quoted(column.name)} is not a number")
    return number


def text_of(value: object) -> str:
    """Return a value as the text a map file writes it as: `true`, `12`, `chat`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def shaped(fact: Fact, value: Any) -> FactValue:
    """Return a log's value in the shape of the fact's type, as it is where it has no such shape."""
    shape = _SHAPES.get(fact.type, _shaped_text)
    found: FactValue = shape(value)
    return found


def _amounts(sources: tuple[tuple[str, Amount], ...], row: Row) -> dict[str, int | float] | None:
    if not sources:
        return None
    found = ((unit, source.of(row)) for unit, source in sources)
    return {unit: amount for unit, amount in found if amount is not None}


_SPACES = str.maketrans("", "", " \u00a0\u202f")


def _number(text: str, decimal: str = ".") -> int | float | None:
    text = text.strip()
    if decimal == ",":
        # What groups thousands there: points, spaces, and spaces that do not break.
        text = text.translate(_SPACES).replace(".", "").replace(",", ".")
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _shaped_text(value: Any) -> Any:
    return value if isinstance(value, list | dict) else text_of(value)


def _shaped_bool(value: Any) -> Any:
    text = text_of(value).lower()
    return {"true": True, "1": True, "false": False, "0": False}.get(text, value)


def _shaped_integer(value: Any) -> Any:
    number = _shaped_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _shaped_number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    number = _number(value)
    return value if number is None else number


def _shaped_list(value: Any) -> Any:
    if isinstance(value, str):
        return [part for part in (part.strip() for part in value.split(",")) if part]
    return value


_SHAPES: Mapping[FactType, Callable[[Any], Any]] = {
    FactType.BOOL: _shaped_bool,
    FactType.INTEGER: _shaped_integer,
    FactType.NUMBER: _shaped_number,
    FactType.TIMESTAMP: _shaped_number,
    FactType.DURATION: _shaped_number,
    FactType.LIST: _shaped_list,
}

"""Maps at work: how a row of somebody's log becomes a request."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from guardrail.model.cells import TOP
from guardrail.model.facts import Fact, FactType
from guardrail.traffic.notes import MapNotes
from guardrail.traffic.requests import LATEST, LONGEST, FactValue, Request, quoted

Row = dict[str, Any]
TimeUnit = Literal["s", "ms", "us", "ns", "rfc3339"]

SCALES: Mapping[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many of each unit make a second."""

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


class RowError(Exception):
    """A row is not a request; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column by name; in a JSON row a dot also steps into an object."""

    name: str

    def of(self, row: Row) -> Any:
        """Return the row's value, None where the column is absent, null or empty."""
        value = row.get(self.name)
        if value is None and "." in self.name:
            value = row
            for part in self.name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        return None if value == "" else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The time of a request: a column, its unit, and what is added to it in seconds.

    A text without an offset stands in `zone`; without a zone it is refused.
    """

    column: Column
    unit: TimeUnit = "s"
    offset: float = 0.0
    zone: ZoneInfo | None = None

    def seconds(self, row: Row) -> float:
        """Return the row's time in seconds since the epoch.

        Raises:
            RowError: there is none, or it is not a time.
        """
        value = self.column.of(row)
        if value is None:
            raise RowError(f"time {quoted(self.column.name)} is missing")
        if self.unit == "rfc3339":
            seconds = self._read(value) + self.offset
        else:
            seconds = number_of(value, self.column) / SCALES[self.unit] + self.offset
        if not 0 <= seconds < LATEST:
            raise RowError(f"time {quoted(self.column.name)} is before 1970 or after 2200")
        return seconds

    def _read(self, value: object) -> float:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise RowError(f"time {quoted(self.column.name)} is not RFC 3339") from None
        if moment.tzinfo is None:
            if self.zone is None:
                raise RowError(f"time {quoted(self.column.name)} has no time zone")
            moment = moment.replace(tzinfo=self.zone)
        return moment.timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """An amount: a column, what stands in where it has none, or a constant."""

    column: Column | None = None
    scale: int = 1
    whole: bool = False
    default: int | float | None = None

    def of(self, row: Row) -> int | float | None:
        """Return the row's amount, None if it has none.

        Raises:
            RowError: it is not a number, or negative, or too large.
        """
        value = None if self.column is None else self.column.of(row)
        if value is None or self.column is None:
            return self.default
        number = number_of(value, self.column)
        if number < 0:
            raise RowError(f"{quoted(self.column.name)} is negative")
        if number > TOP:
            raise RowError(f"{quoted(self.column.name)} is too large")
        if self.whole and isinstance(number, float):
            if not number.is_integer():
                raise RowError(f"{quoted(self.column.name)} is not a whole number")
            return int(number)
        return number / self.scale if self.scale != 1 else number


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSource:
    """Where a fact comes from: a column, perhaps translated, or a constant (`default` alone).

    A value that `values` does not list becomes `default`, like a missing one; without a default
    the fact is left out.
    """

    fact: Fact
    column: Column | None = None
    values: Mapping[str, FactValue] | None = None
    default: FactValue = None

    def of(self, row: Row) -> FactValue:
        """Return the fact's value for a row, None if it is missing."""
        value = None if self.column is None else self.column.of(row)
        if value is None:
            return self.default
        if self.values is not None:
            return self.values.get(text_of(value), self.default)
        return shaped(self.fact, value)

    def unknown(self, row: Row) -> str | None:
        """Return the text of a row that `values` does not list, None if there is none.

        A default is for those too: with one nothing is unknown.
        """
        if self.values is None or self.column is None or self.default is not None:
            return None
        value = self.column.of(row)
        text = None if value is None else text_of(value)
        return None if text in self.values else text


@dataclass(slots=True, kw_only=True)
class TrafficMap:
    """A map bound to a policy set's facts and units; `delimiter` None means rows are JSON.

    `notes` count what it met in the rows so far.
    """

    moment: Moment
    facts: tuple[FactSource, ...]
    estimate: tuple[tuple[str, Amount], ...] = ()
    usage: tuple[tuple[str, Amount], ...] = ()
    duration: Amount | None = None
    delimiter: str | None = None
    notes: MapNotes = field(default_factory=MapNotes, init=False)
    _translating: tuple[FactSource, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.notes.unseen = set(self.columns)
        closed = (source for source in self.facts if source.values is not None)
        self._translating = tuple(source for source in closed if source.default is None)

    @property
    def is_by_line(self) -> bool:
        """Whether each line can be read without the others."""
        return self.delimiter is None

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns the map reads."""
        return frozenset(column.name for column in self._columns())

    def request(self, row: Row) -> tuple[float, Request]:
        """Return a row's time and the request it stands for.

        Raises:
            RowError: the row is not a request.
        """
        if self.notes.unseen:
            unseen = self.notes.unseen
            self.notes.unseen = {name for name in unseen if Column(name).of(row) is None}
        ts = self.moment.seconds(row)
        facts: dict[str, FactValue] = {}
        for source in self.facts:
            value = source.of(row)
            if value is not None:
                facts[source.fact.name] = value
        for source in self._translating:
            if (text := source.unknown(row)) is not None:
                self.notes.count(self.notes.unknown, source.fact.name, text)
        duration = 0.0 if self.duration is None else float(self.duration.of(row) or 0)
        if duration > LONGEST:
            raise RowError("the duration is over a week")
        return ts, Request(
            ts=ts,
            facts=facts,
            estimate=_amounts(self.estimate, row),
            usage=_amounts(self.usage, row),
            duration=duration,
        )

    def _columns(self) -> Iterator[Column]:
        yield self.moment.column
        sources: list[FactSource | Amount] = [*self.facts]
        sources += [amount for _, amount in (*self.estimate, *self.usage)]
        if self.duration is not None:
            sources.append(self.duration)
        for source in sources:
            if source.column is not None:
                yield source.column


def number_of(value: object, column: Column) -> int | float:
    """Return a number, also from its text.

    Raises:
        RowError: it is not a finite number; a bool is none.
    """
    if isinstance(value, str):
        number = _number(value)
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


def _number(text: str) -> int | float | None:
    text = text.strip()
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

"""Reading traffic: from the lines of a file to requests in our own form."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import msgspec

from guardrail.errors import DataError
from guardrail.traffic.lines import LineSource
from guardrail.traffic.maps import RowError, TrafficMap
from guardrail.traffic.requests import (
    LATEST,
    UNDECODABLE,
    BadLines,
    Request,
    WholeRequest,
    decoded_loosely,
    quoted,
    why_bad,
)

Recorded = tuple[int, float, Request]
"""A request with the line it stands on and its time in seconds since the epoch."""


def recorded_requests(
    source: LineSource, bad: BadLines, mapping: TrafficMap | None = None
) -> Iterator[Recorded]:
    """Yield the requests of a traffic file in its order; bad lines are counted and passed over.

    Raises:
        DataError: the file is damaged; what stands before the damage has been given out.
    """
    if mapping is None:
        return _own_requests(source, bad)
    if mapping.delimiter is not None:
        return _csv_requests(source, bad, mapping, mapping.delimiter)
    return _mapped_requests(source, bad, mapping)


def _own_requests(source: LineSource, bad: BadLines) -> Iterator[Recorded]:
    decode = msgspec.json.Decoder(WholeRequest).decode
    for first, lines in source.blocks():
        for number, line in enumerate(lines, first):
            request: Request | None
            try:
                request = decode(line)
            except UNDECODABLE:
                request = decoded_loosely(line)
                if request is None:
                    _count_bad(source, bad, number, line)
                    continue
            ts = request.ts
            if not isinstance(ts, float):
                ts = ts.timestamp()
                if not 0 <= ts < LATEST:
                    _count_bad(source, bad, number, line)
                    continue
            facts = request.facts
            if None in facts.values():
                request.facts = {name: value for name, value in facts.items() if value is not None}
            yield number, ts, request


def _count_bad(source: LineSource, bad: BadLines, number: int, line: bytes) -> None:
    if not line or line.isspace():
        return
    bad.add(source.name, number, "" if bad.full else why_bad(line))


def _mapped_requests(source: LineSource, bad: BadLines, mapping: TrafficMap) -> Iterator[Recorded]:
    decode = msgspec.json.decode
    for first, lines in source.blocks():
        for number, line in enumerate(lines, first):
            try:
                row = decode(line)
                if row.__class__ is not dict:
                    raise RowError("not a JSON object")
                ts, request = mapping.request(row)
            except RowError as error:
                bad.add(source.name, number, str(error))
                continue
            except UNDECODABLE:
                _count_bad(source, bad, number, line)
                continue
            yield number, ts, request


def _csv_requests(
    source: LineSource, bad: BadLines, mapping: TrafficMap, delimiter: str
) -> Iterator[Recorded]:
    lines = _TextLines(source, bad)
    rows = csv.reader(lines, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        try:
            cells = next(rows, None)
            if cells is None:
                return
            if not cells:
                continue
            if header is None:
                header = _checked_header(source, cells, mapping)
                continue
            if len(cells) != len(header):
                raise RowError(f"{len(cells)} cells under a header of {len(header)}")
            ts, request = mapping.request(dict(zip(header, cells, strict=True)))
        except RowError as error:
            bad.add(source.name, lines.number, str(error))
            continue
        except csv.Error:
            bad.add(source.name, lines.number, "not CSV")
            continue
        yield lines.number, ts, request


class _TextLines:
    """The lines of a file as text, with the number of the last one given out."""

    def __init__(self, source: LineSource, bad: BadLines) -> None:
        self.number = 0
        self._lines = self._texts(source, bad)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _texts(self, source: LineSource, bad: BadLines) -> Iterator[str]:
        for first, lines in source.blocks():
            for number, line in enumerate(lines, first):
                self.number = number
                try:
                    yield line.decode() + "\n"
                except UnicodeDecodeError:
                    bad.add(source.name, number, "not UTF-8")


def _checked_header(source: LineSource, cells: list[str], mapping: TrafficMap) -> list[str]:
    repeated = sorted({cell for cell in cells if cells.count(cell) > 1})
    if repeated:
        raise DataError(f"`{source.name}` has two columns named {quoted(repeated[0])}")
    for column in sorted(mapping.columns):
        if column not in cells:
            shown = ", ".join(quoted(cell) for cell in cells[:20])
            raise DataError(
                f"`{source.name}` has no column {quoted(column)} that the map names; it has {shown}"
            )
    return cells

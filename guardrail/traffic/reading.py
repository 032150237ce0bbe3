"""Reading traffic: from the lines of a file to requests in our own form."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator
from typing import Any

import msgspec

from guardrail.errors import DataError
from guardrail.traffic.lines import MAX_LINE, LineSource
from guardrail.traffic.maps import Row, RowError, TrafficMap
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
        return in_order(_own_requests(source, bad))
    source.encoding = mapping.layout.encoding
    reading = {
        "jsonl": _mapped_requests,
        "csv": _csv_requests,
        "line": _line_requests,
        "json": _document_requests,
    }[mapping.layout.kind]
    return _noting(reading(source, bad, mapping), source, mapping)


def _noting(
    requests: Iterator[Recorded], source: LineSource, mapping: TrafficMap
) -> Iterator[Recorded]:
    """Yield requests, and note how many characters of the file could not be decoded."""
    yield from requests
    mapping.notes.undecoded += source.replaced


HELD = 3600.0
"""For how long, in seconds of the traffic, a logged request waits for those that came before."""
MOST_HELD = 200_000
"""How many requests wait at most."""


def in_order(requests: Iterator[Recorded]) -> Iterator[Recorded]:
    """Yield requests in the order of their times, as far as logs are written when requests end.

    A request that came more than `HELD` before another in the log is given out late. Requests that
    were not logged by us come as they stand.
    """
    waiting: list[tuple[float, int, Request]] = []
    newest = 0.0
    for recorded in requests:
        line, ts, request = recorded
        if request.v is None:
            while waiting:
                before, number, held = heapq.heappop(waiting)
                yield number, before, held
            yield recorded
            continue
        heapq.heappush(waiting, (ts, line, request))
        newest = max(newest, ts)
        while waiting[0][0] < newest - HELD or len(waiting) > MOST_HELD:
            before, number, held = heapq.heappop(waiting)
            yield number, before, held
    while waiting:
        before, number, held = heapq.heappop(waiting)
        yield number, before, held


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
                    _count_bad(source, bad, number, line, ends=True)
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


def _count_bad(
    source: LineSource, bad: BadLines, number: int, line: bytes, *, ends: bool = False
) -> None:
    if not line or line.isspace():
        return
    why = "" if bad.full else why_bad(line)
    if source.is_torn and ends and why.startswith(("not JSON", "not UTF-8")):
        why += ": the file ends within the line"
    bad.add(source.name, number, why)


def _mapped_requests(source: LineSource, bad: BadLines, mapping: TrafficMap) -> Iterator[Recorded]:
    decode = msgspec.json.decode
    for first, lines in source.blocks():
        for number, line in enumerate(lines, first):
            try:
                row = decode(line)
                if row.__class__ is not dict:
                    raise RowError("not a JSON object")
                made = mapping.request(row)
            except RowError as error:
                bad.add(source.name, number, str(error))
                continue
            except UNDECODABLE:
                _count_bad(source, bad, number, line)
                continue
            if made is not None:
                yield number, *made


def _line_requests(source: LineSource, bad: BadLines, mapping: TrafficMap) -> Iterator[Recorded]:
    patterns = mapping.layout.patterns
    for number, text in _texts(source, bad):
        line = text.rstrip("\r\n")
        if not line or line.isspace():
            continue
        fitting = (found for pattern in patterns if (found := pattern.fullmatch(line)) is not None)
        found = next(fitting, None)
        try:
            if found is None:
                raise RowError("the line does not fit the pattern")
            made = mapping.request(found.groupdict())
        except RowError as error:
            bad.add(source.name, number, str(error))
            continue
        if made is not None:
            yield number, *made


def _csv_requests(source: LineSource, bad: BadLines, mapping: TrafficMap) -> Iterator[Recorded]:
    layout = mapping.layout
    lines = _TextLines(source, bad)
    rows = csv.reader(lines, delimiter=layout.delimiter)
    header: list[str] | None = None
    if layout.columns is not None:
        header = _checked_header(source, list(layout.columns), mapping)
    while True:
        try:
            cells = next(rows, None)
            if cells is None:
                break
            if not cells:
                continue
            if header is None:
                header = _checked_header(source, cells, mapping)
                continue
            if len(cells) != len(header):
                raise RowError(f"{len(cells)} cells under a header of {len(header)}")
            made = mapping.request(dict(zip(header, cells, strict=True)))
        except RowError as error:
            bad.add(source.name, lines.number, str(error))
            continue
        except csv.Error:
            bad.add(source.name, lines.number, "not CSV")
            continue
        if made is not None:
            yield lines.number, *made


def _document_requests(
    source: LineSource, bad: BadLines, mapping: TrafficMap
) -> Iterator[Recorded]:
    """Yield the requests of JSON documents, in the order of their times; rows count from 1."""
    found: list[Recorded] = []
    number = 0
    for document in _documents(source, bad):
        for row in rows_of(document, *mapping.layout.rows):
            number += 1
            try:
                made = mapping.request(_named(row, mapping.layout.pairs))
            except RowError as error:
                bad.add(source.name, number, str(error))
                continue
            if made is not None:
                found.append((number, *made))
    if not number:
        paths = " or ".join(f"`{path}`" for path in mapping.layout.rows)
        raise DataError(
            f"`{source.name}` has no rows at {paths}: see with `guardrail map guess` which map "
            "reads it"
        )
    found.sort(key=lambda recorded: recorded[1])
    yield from found


def _named(row: Any, pairs: tuple[str, str] | None) -> Row:
    """Return a row with its values by their names.

    Raises:
        RowError: it is no object, and no list of such pairs.
    """
    if isinstance(row, dict):
        return row
    if not isinstance(row, list) or pairs is None:
        raise RowError("not a JSON object")
    name, value = pairs
    named = {pair[name]: pair.get(value) for pair in row if isinstance(pair, dict) and name in pair}
    if len(named) < len(row) or not all(isinstance(key, str) for key in named):
        raise RowError(f"not a list of {quoted(name)} and {quoted(value)}, each named once")
    return named


def _documents(source: LineSource, bad: BadLines) -> Iterator[Any]:
    """Yield the one document of a file, or those on its lines."""
    data = source.whole()
    try:
        yield msgspec.json.decode(data)
        return
    except UNDECODABLE:
        lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        try:
            yield msgspec.json.decode(line)
        except UNDECODABLE:
            bad.add(source.name, number, why_bad(line))


def rows_of(document: Any, *paths: str) -> Iterator[Any]:
    """Yield the rows of a document at the first of some paths that finds any.

    What stands beside a list above them is theirs too. A document that is no list where one is
    expected is a row by itself, unless it is a page whose list is empty.
    """
    is_page = False
    for path in paths:
        name = path.partition(".")[0].removesuffix("[]")
        if name and isinstance(document, dict):
            is_page = is_page or isinstance(document.get(name), list)
        elif is_page:
            continue
        rows = _rows(document, path.split("."), {})
        for row in rows:
            yield row
            yield from rows
            return


def _rows(part: Any, path: list[str], beside: dict[str, Any]) -> Iterator[Any]:
    if not path:
        if isinstance(part, dict) and beside:
            yield {**beside, **part}
        else:
            yield part
        return
    name = path[0].removesuffix("[]")
    if name:
        if not isinstance(part, dict):
            return
        beside = {**beside, **{k: v for k, v in part.items() if k != name and not _holds(v)}}
        part = part.get(name)
    if part is None:
        return
    for below in part if isinstance(part, list) else [part]:
        yield from _rows(below, path[1:], beside)


def _holds(value: object) -> bool:
    return isinstance(value, list | dict)


def _texts(source: LineSource, bad: BadLines) -> Iterator[tuple[int, str]]:
    for first, lines in source.blocks():
        for number, line in enumerate(lines, first):
            if len(line) > MAX_LINE:
                bad.add(source.name, number, "longer than 1 MiB")
                continue
            try:
                yield number, line.decode() + "\n"
            except UnicodeDecodeError:
                bad.add(source.name, number, "not UTF-8: say its `encoding` in the map")


class _TextLines:
    """The lines of a file as text, with the number of the last one given out."""

    def __init__(self, source: LineSource, bad: BadLines) -> None:
        self.number = 0
        self._lines = self._numbered(source, bad)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _numbered(self, source: LineSource, bad: BadLines) -> Iterator[str]:
        for self.number, text in _texts(source, bad):
            yield text


def _checked_header(source: LineSource, cells: list[str], mapping: TrafficMap) -> list[str]:
    repeated = sorted({cell for cell in cells if cells.count(cell) > 1})
    if repeated:
        raise DataError(f"`{source.name}` has two columns named {quoted(repeated[0])}")
    layout = mapping.layout
    within = tuple(f"{name}." for name in layout.unpack)
    # What is within a cell's JSON is looked for in each row.
    named = mapping.columns if not layout.lift else frozenset[str]()
    for column in sorted({*named, *layout.unpack, *layout.lift}):
        if column not in cells and not column.startswith(within):
            shown = ", ".join(quoted(cell) for cell in cells[:20])
            raise DataError(
                f"`{source.name}` has no column {quoted(column)} that the map names; it has {shown}"
            )
    return cells

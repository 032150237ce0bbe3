"""Proposing a map for a log: which of its columns is what, and by which values that was taken so.

A proposal says of each column what it was taken for and why, and which were not taken for anything,
so that nothing is guessed in silence.
"""

from __future__ import annotations

import csv
import ipaddress
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from guardrail.errors import DataError
from guardrail.model.facts import CAPABILITIES, COUNTRIES, STANDARD_FACTS
from guardrail.traffic.lines import LineSource
from guardrail.traffic.mapfile import patterns_of, text_of_map
from guardrail.traffic.reading import rows_of
from guardrail.traffic.requests import LATEST, UNDECODABLE, decoded_loosely

LOOKED_AT = 500
"""How many rows a proposal is made from."""
MOST_VALUES = 30
"""How many different values of a column are written into a map."""

_KNOWN: Mapping[str, tuple[str, ...]] = {
    "cloudflare": ("EdgeStartTimestamp", "ClientIP"),
    "litellm": ("startTime", "prompt_tokens", "completion_tokens", "call_type"),
    "bedrock": ("schemaType", "modelId", "operation", "timestamp"),
    "anthropic-csv": ("usage_date_utc", "usage_input_tokens_cache_write_5m", "usage_output_tokens"),
    "anthropic-csv-older": (
        "usage_date_utc", "usage_input_tokens_cache_write", "usage_output_tokens"
    ),
    "openai-csv": ("start_time_iso", "num_model_requests", "input_tokens", "output_tokens"),
    "openai-csv-older": ("n_requests", "n_context_tokens_total", "n_generated_tokens_total"),
}  # fmt: skip
_COSTS = ("start_time_iso", "amount_value", "line_item")
"""Columns of the costs that OpenAI exports, which are no requests."""
_DOCUMENTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "openai": (("data[].results[]", "[].results[]"), "num_model_requests"),
    "openai-older": (("data[]",), "aggregation_timestamp"),
    "anthropic": (("data[].results[]",), "uncached_input_tokens"),
}
_EVENTS = ("events[]", "logEvents[]", "results[]", "[]")
"""Where CloudWatch has the events of a log, and what a query found in it."""
_PAIRS = ("field", "value")
_ACCESS_LOGS = ("nginx", "apache")
_EXPORTED = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z \{.*\}")

_DECIMAL = 'decimal: ","'
_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+,\d+|\d+,(\d{1,2}|\d{4,})|(0|\d{4,}),\d+)")
"""A number whose decimals stand behind a comma: three digits there may as well be thousands.

They are none behind a 0, or behind more than three digits.
"""
_COMMAS = re.compile(r"[+-]?(\d{1,3}(\.\d{3}){1,2}|\d+)(,\d+)?")
"""Any number, where decimals stand behind commas."""
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
_LATIN = "encoding: latin-1"

_FORMATS = (
    "%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p",
    "%Y%m%d%H%M%S", "%Y-%m-%d",
)  # fmt: skip
_UNITS = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
_RECENT = 946_684_800.0

_ACCOUNT = (
    "account accountid customer customerid user userid username enduser enduserid requestuserid "
    "tenant session sessionid client identityarn"
).split()
_PLANS = ("tier", "plan", "accounttier", "subscription", "pricingplan")
_WANTED: Sequence[tuple[str, Sequence[str], str]] = (
    ("account.org", ("org", "orgid", "organization", "organisation", "team", "teamid", "workspace",
                     "project", "projectid", "company"), "text"),
    ("credential.id", ("apikey", "apikeyid", "key", "keyid", "credential", "token"), "text"),
    ("account.id", _ACCOUNT, "text"),
    ("client.ip", ("ip", "clientip", "remoteaddr", "remotehost", "address", "sourceip",
                   "ipaddress", "requesteripaddress"), "ip"),
    ("geo.country", ("country", "countrycode", "clientcountry", "geocountry"), "country"),
    ("request.model", ("model", "modelid", "modelname", "modelversion", "modelgroup",
                       "requestmodel"), "text"),
    ("request.capability", ("capability", "kind", "type", "calltype", "task", "operation"), "text"),
    ("request.endpoint", ("endpoint", "path", "route", "uri", "url", "requesturi"), "text"),
    ("client.agent", ("agent", "useragent", "httpuseragent"), "text"),
)  # fmt: skip
_AMOUNTS: Sequence[tuple[str, Sequence[str]]] = (
    ("cached_input_tokens", ("cachedtokens", "cachedinputtokens", "cachereadinputtokens",
                             "inputcachedtokens")),
    ("reasoning_tokens", ("reasoningtokens",)),
    ("input_tokens", ("inputtokens", "prompttokens", "tokensin", "intokens", "contexttokens",
                      "input", "prompt", "inputtokencount")),
    ("output_tokens", ("outputtokens", "completiontokens", "tokensout", "outtokens",
                       "generatedtokens", "output", "completion", "outputtokencount")),
    ("tokens", ("tokens", "totaltokens", "tokencount", "tokensused", "tokenstotal")),
    ("requests", ("requests", "nummodelrequests", "calls")),
    ("cost_usd", ("cost", "costusd", "spend", "usd", "price")),
)  # fmt: skip
_TIMES = (
    "ts timestamp time datetime date start starttime started startedat createdat created "
    "requesttime eventtime timelocal at"
).split()
_DURATIONS = (
    "duration latency elapsed elapsedtime responsetime requestduration requesttime took"
).split()
_DURATION_UNITS = {
    "milliseconds": "ms", "millis": "ms", "ms": "ms", "microseconds": "us", "us": "us",
    "nanoseconds": "ns", "ns": "ns", "seconds": "s", "secs": "s", "sec": "s", "s": "s",
}  # fmt: skip
"""What a duration's name may end in, and the unit that says."""

Row = dict[str, Any]


@dataclass(slots=True)
class Proposal:
    """A map that was proposed: its `text`, and in `taken` what was taken for what, and why.

    `name` is that of a map that comes with guardrail, where the log is one of those; then the text
    is that map's name alone. `unused` are the columns that nothing was taken from.
    """

    text: str = ""
    name: str | None = None
    taken: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def proposed(path: str, tiers: Sequence[str] = ()) -> Proposal:
    """Return a map for a log, by its first rows; `tiers` are the values of `account.tier`.

    Raises:
        DataError: the file cannot be read, is traffic already, or shows no time.
    """
    if path == "-":
        raise DataError("`-` can be read once, and a proposal is tried on the log: give a file")
    encoding = _encoding(path)
    with _opened(path, encoding) as source:
        lines = [line for line in _first_lines(source) if line.strip()]
    if not lines:
        raise DataError(f"`{path}` has no line to propose a map from")
    if encoding is None and any(b"\0" in line for line in lines):
        raise DataError(f"`{path}` is no text: export it as JSON lines or CSV")
    if decoded_loosely(lines[0]) is not None:
        raise DataError(f"`{path}` is traffic in guardrail's own form: it needs no map")
    document = _document(path, lines, encoding)
    name = _known(document, lines) if encoding is None else None
    if name is not None and _is_spread(lines, name):
        taken = f"the log is one that the map `{name}` reads a line at a time: this is a document"
        text = text_of_map(name).replace("guardrail_map: 1\n", "guardrail_map: 1\nformat: json\n")
        return Proposal(text=text, taken=[taken])
    if name is not None:
        return Proposal(name=name, taken=[f"the log is one that the map `{name}` reads"])
    rows, layout = _rows_and_layout(path, lines, document)
    packed = _packed(rows)
    if packed:
        layout.append(f"unpack: [{', '.join(map(_quoted, packed))}]")
        rows = [
            _flat(row | {name: _decoded(row[name].encode()) for name in packed}) for row in rows
        ]
    if encoding is not None:
        layout.append(f"encoding: {encoding}")
    return _of_rows(path, rows, layout, tiers)


def _encoding(path: str) -> str | None:
    """Return the encoding that a log's first bytes say, None if they say none."""
    with LineSource(path) as source:
        return "utf-16" if source.is_utf16() else None


def _opened(path: str, encoding: str | None) -> LineSource:
    source = LineSource(path)
    source.encoding = encoding or source.encoding
    return source


def _first_lines(source: LineSource) -> Iterator[bytes]:
    lines = (line.rstrip(b"\r") for _, block in source.blocks() for line in block)
    return itertools.islice(lines, LOOKED_AT)


def _known(document: Any, lines: list[bytes]) -> str | None:
    """Return the name of the map that reads a log, None if none is known to."""
    texts = [line.decode("utf-8", "replace") for line in lines]
    for name in _ACCESS_LOGS:
        patterns = patterns_of(name)
        fitting = sum(any(one.fullmatch(text) for one in patterns) for text in texts)
        if fitting * 10 >= len(texts) * 9:
            return name
    if sum(_EXPORTED.fullmatch(text) is not None for text in texts) * 10 >= len(texts) * 9:
        return "cloudwatch-export"
    cells = _cells(texts) if document is None else []
    if cells and all(map(_is_plain, cells)):
        return "csv"
    if document is not None:
        if _is_invocation(next(rows_of(document, *_EVENTS), None)):
            return "cloudwatch"
        for name, (rows, column) in _DOCUMENTS.items():
            first = next(rows_of(document, *rows), None)
            if isinstance(first, dict) and column in first:
                return name
        first = next(rows_of(document, "data[]", "[]"), None)
        columns = set(first) if isinstance(first, dict) else set()
    else:
        columns = set(next(iter(_cells(texts[:1])), []))
        if columns.issuperset(_COSTS):
            raise DataError(
                "these are costs: they tell neither requests nor tokens; export the usage "
                "(`completions_usage_….csv`), which the map `openai-csv` reads"
            )
    return next((name for name, wanted in _KNOWN.items() if columns.issuperset(wanted)), None)


def _is_invocation(row: Any) -> bool:
    """Tell whether an event of CloudWatch, or what a query says of it, is a model's invocation."""
    if is_list_of_pairs(row):
        row = {pair[_PAIRS[0]]: pair.get(_PAIRS[1]) for pair in row}
    if not isinstance(row, dict):
        return False
    event = row.get("message", row.get("@message"))
    if isinstance(event, str):
        event = _decoded(event.encode())
    return "input.inputTokenCount" in row or (isinstance(event, dict) and "modelId" in event)


def is_list_of_pairs(row: Any) -> bool:
    """Tell whether a row is a list of names and values, as a query of CloudWatch prints it."""
    return (
        isinstance(row, list)
        and bool(row)
        and all(isinstance(pair, dict) and set(_PAIRS) <= set(pair) for pair in row)
    )


def _is_spread(lines: list[bytes], name: str) -> bool:
    """Tell whether a log is one JSON document over several lines, and a map reads JSON lines."""
    return _decoded(lines[0]) is None and "\nformat:" not in text_of_map(name)


def _is_plain(cells: Sequence[str]) -> bool:
    """Tell whether a line without a header is as the map `csv` has it."""
    if len(cells) != 6:
        return False
    time, _, capability, _, *tokens = cells
    is_time = re.fullmatch(r"\d{9,10}(\.\d+)?", time) is not None or _has_zone(time)
    return is_time and capability in CAPABILITIES and all(part.isdigit() for part in tokens)


def _document(path: str, lines: list[bytes], encoding: str | None) -> Any:
    """Return the first line's JSON, or the whole file's, None if neither is any."""
    try:
        return msgspec.json.decode(lines[0])
    except UNDECODABLE:
        pass
    if lines[0].lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        with _opened(path, encoding) as source:
            return msgspec.json.decode(source.whole())
    except UNDECODABLE:
        return None


def _rows_and_layout(path: str, lines: list[bytes], document: Any) -> tuple[list[Row], list[str]]:
    """Return the first rows of a log, and how they stand in it as lines of a map."""
    if isinstance(document, list):
        rows = [row for row in document[:LOOKED_AT] if isinstance(row, dict)]
        return [_flat(row) for row in rows], ["format: json"]
    if isinstance(document, dict):
        found = next((name for name, part in document.items() if _has_pairs(part)), None)
        if found is not None:
            rows = [{pair[_PAIRS[0]]: pair[_PAIRS[1]] for pair in row} for row in document[found]]
            return rows[:LOOKED_AT], ["format: json", f"rows: {found}[]", "pairs: [field, value]"]
        rows = [row for row in map(_decoded, lines) if isinstance(row, dict)]
        within = _path_within(document)
        if within and len(rows) <= 1:
            rows = list(itertools.islice(rows_of(document, within), LOOKED_AT))
            return [_flat(row) for row in rows], ["format: json", f"rows: {within}"]
        return [_flat(row) for row in rows], []
    layout = ["format: csv"]
    try:
        texts = [line.decode("utf-8-sig") for line in lines]
    except UnicodeDecodeError:
        texts = [line.decode("latin-1") for line in lines]
        layout.append(_LATIN)
    delimiter = max(",;\t|", key=lambda sign: _steady(texts, sign))
    if not _steady(texts, delimiter):
        if lines[0].lstrip()[:1] == b"{" or lines[0].strip() == b"[":
            raise DataError(
                f"`{path}` is neither one JSON document nor JSON lines: write each document in a "
                "line of its own, as `jq -c .` does"
            )
        raise DataError(
            f"`{path}` is neither JSON nor CSV nor a log that is known by name; write a map with "
            "`format: line` and a `pattern`"
        )
    table = [cells for cells in _cells(texts, delimiter) if cells]
    if delimiter != ",":
        layout.append(f"delimiter: {json.dumps(delimiter)}")
    header = table[0]
    if all(_is_name(cell) for cell in header) and len(set(header)) == len(header):
        table = table[1:]
    else:
        header = [f"column_{number}" for number in range(1, len(header) + 1)]
        layout.append(f"columns: [{', '.join(header)}]")
    rows = [dict(zip(header, cells, strict=True)) for cells in table if len(cells) == len(header)]
    if any(_COMMA.fullmatch(str(value)) for row in rows for value in row.values()):
        layout.append(_DECIMAL)
    return rows, layout


def _has_pairs(part: Any) -> bool:
    return isinstance(part, list) and bool(part) and all(map(is_list_of_pairs, part))


def _packed(rows: list[Row]) -> list[str]:
    """Return the columns whose texts are JSON objects in all rows."""
    return [
        name
        for name in (rows[0] if rows else ())
        if all(
            isinstance(text := row.get(name), str)
            and text.startswith("{")
            and isinstance(_decoded(text.encode()), dict)
            for row in rows
        )
    ]


def _path_within(part: dict[str, Any]) -> str:
    """Return the path to the innermost list of objects in a document, empty where there is none."""
    for name, value in part.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            inner = next((path for row in value if (path := _path_within(row))), "")
            return f"{name}[].{inner}" if inner else f"{name}[]"
    return ""


def _cells(texts: list[str], delimiter: str = ",") -> list[list[str]]:
    """Return the cells of each line, nothing where the lines are no table."""
    try:
        return list(csv.reader(texts, delimiter=delimiter))
    except csv.Error:
        return []


def _steady(texts: list[str], delimiter: str) -> int:
    """Return how many cells each line has that are not the only one, 0 if lines differ."""
    counts = [len(cells) for cells in _cells(texts, delimiter) if cells]
    usual = max(set(counts), key=counts.count) if counts else 1
    return usual if usual > 1 and counts.count(usual) * 10 >= len(counts) * 9 else 0


def _decoded(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except UNDECODABLE:
        return None


def _flat(row: Row, before: str = "") -> Row:
    """Return a row with the members of objects as columns with dots."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat


def _is_name(cell: str) -> bool:
    return re.fullmatch(r"[A-Za-z_@][\w .\-/()%]*", cell.strip()) is not None


def _of_rows(path: str, rows: list[Row], layout: list[str], tiers: Sequence[str]) -> Proposal:
    made = Proposal()
    if any(line.startswith("encoding: utf") for line in layout):
        made.taken.append(f"{'encoding':<20} by its first two bytes: UTF-16")
    if _LATIN in layout:
        made.taken.append(f"{'encoding':<20} the log is not UTF-8: taken as latin-1")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    values = {
        name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in columns
    }
    left = [name for name in columns if values[name]]
    if _DECIMAL in layout:
        values = {name: [_dotted(value) for value in seen] for name, seen in values.items()}
    time = next(_times(left, values), None)
    if time is None:
        raise DataError(
            f"`{path}` shows no column that is a time{_mixed(left, values)}; write a map, and say "
            "under `ts` what it is"
        )
    column, spec, why = time
    lines = ["guardrail_map: 1", *layout, f"ts: {{column: {_quoted(column)}{spec}}}"]
    made.taken.append(f"ts                   `{column}`: {why}")
    left.remove(column)
    lines += _facts(left, values, made, tiers)
    lines += _amounts(left, values, made)
    for name in left:
        if (found := _duration(name, values[name])) is not None:
            unit, why = found
            lines.append(f"duration: {{column: {_quoted(name)}, unit: {unit}}}")
            made.taken.append(f"duration             `{name}`: {why}")
            left.remove(name)
            break
    for name in left:
        grouped = [value for value in values[name] if _THOUSANDS.fullmatch(str(value))]
        if grouped:
            text = (
                f"numbers such as `{grouped[0]}` have a sign between thousands: write them without"
            )
            made.taken.append(f"{'nothing':<20} `{name}`: {text}")
    made.unused = [*left, *(name for name in columns if not values[name])]
    made.text = "\n".join(lines) + "\n"
    return made


def _duration(name: str, seen: Sequence[Any]) -> tuple[str, str] | None:
    """Return in which unit a column says how long a request took, and why; None if it does not."""
    plain = _plain(name)
    if not _all(seen, _is_number):
        return None
    for ending, unit in _DURATION_UNITS.items():
        if plain.endswith(ending) and plain.removesuffix(ending) in _DURATIONS:
            return unit, "by its name"
    if plain not in _DURATIONS:
        return None
    numbers = sorted(float(value) for value in seen if _is_number(value))
    are_whole = all(number == int(number) for number in numbers)
    is_long = numbers[-1] > 1000 or (are_whole and numbers[len(numbers) // 2] >= 100)
    unit = "ms" if is_long else "s"
    return (
        unit,
        f"by its name, and by its numbers taken as {unit}: change the unit if it is another",
    )


def _dotted(value: Any) -> Any:
    """Return a number with a decimal comma as it is written with a point."""
    if isinstance(value, str) and _COMMAS.fullmatch(value):
        return value.replace(".", "").replace(",", ".")
    return value


def _mixed(columns: list[str], values: Mapping[str, list[Any]]) -> str:
    """Return, in words, the two forms of the first column that a time's name is given to."""
    for name in columns:
        if _plain(name) in _TIMES:
            first = str(values[name][0])
            shape = _shape(first)
            other = next((str(v) for v in values[name] if _shape(str(v)) != shape), None)
            if other is not None:
                return f": `{name}` has `{first[:30]}` and `{other[:30]}`"
            return f": `{name}` has `{first[:30]}`"
    return ""


def _shape(text: str) -> str:
    return re.sub(r"\d+", "0", text)


def _times(columns: list[str], values: Mapping[str, list[Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield the columns that may be the time: how it is written, and why it is one."""
    ordered = sorted(columns, key=lambda name: (_plain(name) not in _TIMES, columns.index(name)))
    for name in ordered:
        seen = values[name]
        if _all(seen, _is_number):
            numbers = [float(value) for value in seen]
            for unit, scale in _UNITS:
                if all(_RECENT < number / scale < LATEST for number in numbers):
                    spec = "" if unit == "s" else f", unit: {unit}"
                    yield name, spec, f"numbers that are times of our days in {unit}"
                    break
            else:
                if _plain(name) in _TIMES and max(numbers) < _RECENT:
                    yield (
                        name,
                        ", offset: 2026-01-05T00:00:00Z",
                        "small numbers by a name of times: taken to count seconds from the first "
                        "line, which is put at 2026-01-05",
                    )
            continue
        texts = [str(value) for value in seen]
        if _all(texts, _is_iso):
            zone = "" if _all(texts, _has_zone) else ", timezone: UTC"
            why = "RFC 3339" if not zone else "RFC 3339 without an offset: taken as UTC"
            yield name, f", unit: rfc3339{zone}", why
            continue
        spans = {form: span for form in _FORMATS if (span := _span(texts, form)) is not None}
        if not spans:
            continue
        # Of days and months in either order, that which puts the log into the shorter time.
        form = min(spans, key=lambda form: spans[form])
        zone = "" if "%z" in form else ", timezone: UTC"
        why = f"of the format `{form}`" + ("" if not zone else ", taken as UTC")
        for other in spans.keys() - {form}:
            days, more = (round(spans[which].total_seconds() / 86_400) for which in (form, other))
            why += (
                f"; `{other}` fits as well, over {more:,} days instead of {days:,}: change it if so"
            )
        yield name, f", format: {json.dumps(form)}{zone}", why


def _span(texts: Sequence[str], form: str) -> timedelta | None:
    """Return how long a time some texts span by a format, None if nearly all are not of it."""
    moments = [moment for text in texts if (moment := _by(form, text)) is not None]
    if not moments or len(moments) * 100 < len(texts) * 98:
        return None
    return max(moments) - min(moments)


def _facts(
    left: list[str], values: Mapping[str, list[Any]], made: Proposal, tiers: Sequence[str]
) -> Iterator[str]:
    checks: Mapping[str, Callable[[str], bool]] = {
        "text": lambda text: True,
        "ip": _is_address,
        "country": lambda text: text.upper() in COUNTRIES,
    }
    yield "facts:"
    done: set[str] = set()
    for name in list(left):
        fact = name.removeprefix("facts.")
        if fact in STANDARD_FACTS and fact != "account.tier":
            yield f"  {fact}: {{column: {_quoted(name)}}}"
            made.taken.append(f"{fact:<20} `{name}`: it is the fact's own name")
            left.remove(name)
            done.add(fact)
        elif _plain(name) in _PLANS and "account.tier" not in done:
            levels = _levels(values[name], tiers)
            if levels:
                yield f"  account.tier: {{column: {_quoted(name)}, values: {{{levels}}}}}"
                made.taken.append(f"{'account.tier':<20} `{name}`: by its name and its values")
                left.remove(name)
                done.add("account.tier")
    for fact, names, kind in _WANTED:
        if fact in done:
            continue
        for name in list(left):
            texts = [str(value) for value in values[name]]
            named = names
            if fact == "client.ip":
                named = (*names, *_ACCOUNT)  # a log may name who asks by where from
            elif fact == "account.id" and _all(texts, _is_address):
                continue
            if not _is_named(name, named) or not _all(texts, checks[kind]):
                continue
            spec, why = _fact_spec(fact, texts)
            yield f"  {fact}: {{column: {_quoted(name)}{spec}}}"
            made.taken.append(f"{fact:<20} `{name}`: by its name{why}")
            left.remove(name)
            done.add(fact)
            break
    if done.isdisjoint(("account.id", "client.ip", "credential.id")):
        yield "  account.id: {constant: everybody}"
        made.taken.append(
            f"{'account.id':<20} no column names who asked: one account for all, which you should "
            "change"
        )


def _levels(seen: Sequence[Any], tiers: Sequence[str]) -> str:
    """Return which of a column's values is which tier, as a map has it."""
    known = {tier.lower(): tier for tier in tiers}
    pairs = {str(value): known.get(str(value).lower()) for value in seen}
    listed = (f"{_quoted(text)}: {tier}" for text, tier in sorted(pairs.items()) if tier)
    return ", ".join(listed)


def _fact_spec(fact: str, texts: list[str]) -> tuple[str, str]:
    if fact == "request.capability":
        seen = sorted(set(texts))
        if set(seen) <= set(CAPABILITIES):
            return "", " and its values"
        known = {text: text if text in CAPABILITIES else "other" for text in seen[:MOST_VALUES]}
        listed = ", ".join(f"{_quoted(text)}: {taken}" for text, taken in known.items())
        spec = f", values: {{{listed}}}"
        if len(seen) > MOST_VALUES:
            spec += ", default: other"
        shown = ", ".join(seen[:8])
        return spec, f"; it says {shown}: what is no capability is taken as other"
    if fact == "geo.country" and any(text != text.upper() for text in texts):
        return ", case: upper", ", in lower case"
    return "", ""


def _amounts(left: list[str], values: Mapping[str, list[Any]], made: Proposal) -> Iterator[str]:
    lines: list[str] = []
    for unit, names in _AMOUNTS:
        if unit == "tokens" and any("put_tokens:" in line for line in lines):
            continue  # their sum says nothing more
        for name in list(left):
            if _plain(name) in names and _all(values[name], _is_number):
                lines.append(f"  {unit}: {{column: {_quoted(name)}}}")
                made.taken.append(f"usage.{unit:<14} `{name}`: by its name and its numbers")
                left.remove(name)
                break
    if lines:
        yield "usage:"
        yield from lines


def _all(values: Sequence[Any], holds: Callable[[Any], bool]) -> bool:
    """Tell whether something holds for nearly all of some values."""
    return bool(values) and sum(map(holds, values)) * 100 >= len(values) * 98


def _plain(name: str) -> str:
    """Return the last part of a column's name, without what only sets words apart."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower())


def _is_named(name: str, names: Sequence[str]) -> bool:
    """Tell whether a column's last part is one of some names, or its last two, as in `user.id`."""
    before, _, last = name.rpartition(".")
    return _plain(name) in names or _plain(f"{before.rpartition('.')[2]}{last}") in names


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w.]*", name) else json.dumps(name, ensure_ascii=False)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return True
    return re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", str(value).strip()) is not None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_iso(text: str) -> bool:
    return len(text) > 10 and _moment(text) is not None


def _has_zone(text: str) -> bool:
    moment = _moment(text)
    return moment is not None and moment.tzinfo is not None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _by(form: str, text: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None

"""One line of recorded traffic: a request as JSON, and why a line is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import msgspec

from guardrail.model.cells import TOP
from guardrail.traffic.lines import MAX_LINE

LATEST = 7258118400.0
"""The end of the times that are believed, in seconds since the epoch: the year 2200."""
LONGEST = 604800.0
"""The longest duration of a request that is believed, in seconds: a week."""
KEPT = 5
"""How many bad lines are kept with their reasons."""

MONEY = "cost_usd"
"""The unit that may have decimals."""

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Whole = Annotated[int, msgspec.Meta(ge=0, le=TOP)]
_Real = Annotated[float, msgspec.Meta(ge=0, le=float(TOP))]
_Seconds = Annotated[float, msgspec.Meta(ge=0, lt=LATEST)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_Duration = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]

RELEASED = "released"
_KNOWN_AFTERWARDS = (
    "tokens", "output_tokens", "reasoning_tokens", "cached_input_tokens", "cost_usd",
)  # fmt: skip

_OLDER = {
    "account": "account.id",
    "org": "account.org",
    "credential": "credential.id",
    "network": "client.network",
    "country": "geo.country",
    "capability": "request.capability",
    "model": "request.model",
    "endpoint": "request.endpoint",
}

FactValue = str | int | float | bool | list[str] | None
Amounts = dict[str, int | float]


class Request(msgspec.Struct, gc=False):
    """One recorded request; a line of a decision log is one.

    `estimate` and `usage` map units to amounts; `duration` is in seconds; `ending` is a decision
    log's, and so is `v`: its lines are written when requests end. Members of a line that are not
    named here are ignored.
    """

    ts: _Seconds | _Moment
    facts: dict[str, FactValue]
    estimate: dict[str, _Whole | _Real] | None = None
    usage: dict[str, _Whole | _Real] | None = None
    duration: _Duration = 0.0
    ending: Any = None
    v: Any = None

    @property
    def reserved(self) -> Amounts | None:
        """What it states of its cost beforehand: its estimate, or what a door knows of its usage.

        Nobody knows the answer before it is there: how long it became is no estimate of it. What
        is not stated is reserved as for any request, the longest answer of its model.
        """
        if self.estimate is not None or self.usage is None:
            return self.estimate
        return known_beforehand(self.usage)

    @property
    def released(self) -> bool:
        """Whether everything was given back, as a decision log tells of a host's failure."""
        return bool(self.ending == RELEASED)


def known_beforehand(usage: Amounts) -> Amounts:
    """Return what of a request's usage a door knows before its answer is there."""
    known = {unit: n for unit, n in usage.items() if unit not in _KNOWN_AFTERWARDS}
    total = usage.get("tokens")
    if "input_tokens" not in known and total is not None:
        known["input_tokens"] = max(0, total - usage.get("output_tokens", 0))
    return known


class WholeRequest(Request, gc=False):
    """A request whose amounts are all written as whole numbers, as nearly all are."""

    estimate: dict[str, _Whole] | None = None  # type: ignore[assignment]
    usage: dict[str, _Whole] | None = None  # type: ignore[assignment]


def decoded_loosely(line: bytes) -> Request | None:
    """Return the request of a line that is none of whole amounts only, None if it is none at all.

    Money may have decimals; other amounts may be written as `12.0`.
    """
    try:
        request = msgspec.json.decode(line, type=Request)
    except UNDECODABLE:
        return _of_older_log(line)
    for amounts in (request.estimate, request.usage):
        for unit, amount in (amounts or {}).items():
            if isinstance(amount, float) and unit != MONEY:
                if not amount.is_integer():
                    return None
                amounts[unit] = int(amount)  # type: ignore[index]
    return request


def _of_older_log(line: bytes) -> Request | None:
    """Return the request of a decision log's line that has no `facts`, None if it is none.

    Logs had none before they were meant to be replayed; what they tell by other names is taken.
    """
    if b'"revision"' not in line:
        return None
    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
        if row.get("v") != 1 or "facts" in row:
            return None
        facts = {fact: row[name] for name, fact in _OLDER.items() if row.get(name) is not None}
        return msgspec.convert({**row, "facts": facts}, Request)
    except UNDECODABLE:
        return None


def stated_facts(line: bytes) -> dict[str, FactValue]:
    """Return the facts of a JSON object that is nothing but facts; null is no value.

    Raises:
        ValueError: it is none; the message says why in a few words.
    """
    facts = _row(line)
    if isinstance(facts, str):
        raise ValueError(facts)
    if (reason := _why_bad_facts({"facts": facts})) is not None:
        raise ValueError(reason)
    return {name: value for name, value in facts.items() if value is not None}


@dataclass(slots=True)
class BadLines:
    """The lines that could not be read: how many, and the first few as (file, line, reason)."""

    count: int = 0
    first: list[tuple[str, int, str]] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str) -> None:
        """Count a line, and keep it if it is among the first."""
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append((file, line, reason))

    @property
    def full(self) -> bool:
        """Whether reasons of further lines would not be kept."""
        return len(self.first) >= KEPT


def why_bad(line: bytes) -> str:
    """Return in a few words why a line is not a request."""
    if len(line) > MAX_LINE:
        return "longer than 1 MiB"
    row = _row(line)
    if isinstance(row, str):
        return row
    return (
        _why_bad_time(row)
        or _why_bad_facts(row)
        or _why_bad_amounts(row, "estimate")
        or _why_bad_amounts(row, "usage")
        or _why_bad_duration(row)
        or "not a request"
    )


def _row(line: bytes) -> dict[str, Any] | str:
    """Return a line as a JSON object, or why it is none."""
    try:
        row = msgspec.json.decode(line.decode())
    except UnicodeDecodeError:
        return "not UTF-8"
    except RecursionError:
        return "nested too deeply"
    except msgspec.DecodeError as error:
        return _why_no_json(line, str(error))
    if isinstance(row, list) and row and all(isinstance(part, dict) for part in row):
        return "a list of objects: a document needs a map with `format: json`"
    return row if isinstance(row, dict) else "not a JSON object"


def _why_no_json(line: bytes, report: str) -> str:
    for word in (b"NaN", b"Infinity"):
        if word in line:
            return f"not JSON: `{word.decode()}` is not a number there"
    if "out of range" in report:
        return "a number is too large"
    if line.strip() in (b"{", b"["):
        return "not JSON by itself: a document over several lines needs a map with `format: json`"
    return "not JSON"


def _why_bad_time(row: dict[str, object]) -> str | None:
    if "ts" not in row:
        return "`ts` is missing"
    ts = row["ts"]
    if isinstance(ts, str):
        try:
            moment = msgspec.convert(ts, datetime)
        except msgspec.ValidationError:
            return "`ts` is not an RFC 3339 time"
        if moment.tzinfo is None:
            return "`ts` has no time zone"
        return None if 0 <= moment.timestamp() < LATEST else "`ts` is before 1970 or after 2200"
    if (reason := _why_no_amount(ts)) is not None:
        return f"`ts` {reason}"
    if ts >= LATEST:  # type: ignore[operator]
        return "`ts` is after the year 2200; seconds are expected, not milliseconds"
    return None


def _why_bad_facts(row: dict[str, object]) -> str | None:
    if "facts" not in row:
        return "`facts` is missing"
    facts = row["facts"]
    if not isinstance(facts, dict):
        return "`facts` is not an object"
    for name, value in facts.items():
        if isinstance(value, dict):
            return f"fact {quoted(name)} is an object; facts are flat, with dotted names"
        if isinstance(value, list) and not all(isinstance(part, str) for part in value):
            return f"fact {quoted(name)} is a list of other things than strings"
    return None


def _why_bad_amounts(row: dict[str, object], member: str) -> str | None:
    amounts = row.get(member)
    if amounts is None:
        return None
    if not isinstance(amounts, dict):
        return f"`{member}` is not an object"
    for unit, amount in amounts.items():
        reason = _why_no_amount(amount)
        if reason is None and unit != MONEY and not float(amount).is_integer():
            reason = "is not a whole number"
        if reason is not None:
            return f"{quoted(f'{member}.{unit}')} {reason}"
    return None


def _why_bad_duration(row: dict[str, object]) -> str | None:
    duration = row.get("duration", 0)
    if (reason := _why_no_amount(duration)) is not None:
        return f"`duration` {reason}"
    if duration > LONGEST:  # type: ignore[operator]
        return "`duration` is over a week; seconds are expected, not milliseconds"
    return None


def _why_no_amount(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    if value < 0:
        return "is negative"
    return "is too large" if value > TOP else None


def quoted(text: str) -> str:
    """Return a name from a traffic file in backticks, cut to a readable length."""
    return f"`{text if len(text) <= 60 else text[:59] + '…'}`"

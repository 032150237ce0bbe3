"""The fields of an answer: RateLimit, the vendors' own, obligations, and what pages may read.

RateLimit follows draft-ietf-httpapi-ratelimit-headers-11, as RFC 9651 lists. The draft may still
rename its parameters: all that knows them is here, under one version. The vendors' fields are
those that OpenAI's and Anthropic's clients read. What lets a page of another origin read an answer
is in the Fetch standard, §3.2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import NamedTuple

from guardrail.engine import SEPARATOR, Case, Decision, Engine, Limit, Receipt
from guardrail.http.dialects import Dialect
from guardrail.http.responses.client_view import (
    ClientView,
    Jitter,
    Shown,
    ShownLimit,
    pace_window,
    shown_of,
    view_of,
)
from guardrail.model.amounts import SECOND
from guardrail.model.cells import IDENT_LENGTH
from guardrail.model.effects import Mode

VERSION = "ietf-11"
"""The revision of the draft that these fields follow."""

LARGEST = 10**15 - 1
"""The largest Integer of a structured field (RFC 9651 §3.3.1)."""

PARTITION_BYTES = 9
_MOST_KEPT = 4096
_TIGHTNESS, _STANDS = itemgetter(0, 1), itemgetter(2)
_WORDED = itemgetter(0, 1, 2, 3)  # the name, the unit, the quota and the window of a limit

Field = tuple[bytes, bytes]

_ANTHROPIC = Dialect.ANTHROPIC
_ENFORCE = Mode.ENFORCE


class Worded(NamedTuple):
    """What does not change of how some limits are written, in their order.

    `limits` are what `RateLimit` says of each before its number, `policies` what `RateLimit-Policy`
    says of each without its partition, and `field` all of that in one.
    """

    limits: list[str]
    policies: list[str]
    field: bytes


class Wording:
    """How the limits of an answer are written, kept: nearly every answer says the same again."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[object, ...], ...], Worded] = {}

    def of(self, standings: Sequence[ShownLimit]) -> Worded:
        """Return what does not change of how limits are written."""
        key = tuple(map(_WORDED, standings))
        worded = self._known.get(key)
        if worded is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            texts = [_wording(*_WORDED(standing)) for standing in standings]
            policies = [policy for _, policy in texts]
            joined = ", ".join(policies).encode("ascii")
            limits = [f"{name};r=" for name, _ in texts]
            worded = self._known[key] = Worded(limits, policies, joined)
        return worded


def ratelimit_fields(
    standings: Sequence[ShownLimit],
    partition: bytes | None = None,
    wording: Wording | None = None,
) -> list[Field]:
    """Return `RateLimit-Policy` and `RateLimit`, or nothing where no limit may show.

    The tightest limit comes first in `RateLimit`. A unit that the draft does not register is
    stated all the same: left out, it would mean requests. With a `partition` key, `pk` carries
    a keyed hash that is the same for the requests that share a counter.
    """
    if not standings:
        return []
    worded = (wording or Wording()).of(standings)
    policy = worded.field
    limits = []
    for said, (_, _, quota, _, left, resets, wait, _) in zip(worded.limits, standings, strict=True):
        # `t` is the wait of one that refuses, else the time to full.
        micros = resets if wait is None else wait
        until = "" if micros is None else f";t={-(-micros // SECOND)}"
        stands = f"{said}{left if left <= LARGEST else LARGEST}{until}"
        limits.append((wait is None, left / (quota or 1), stands))
    if partition is not None:
        pks = [_partition(standing.key, partition) for standing in standings]
        policy = ", ".join(map("".join, zip(worded.policies, pks, strict=True))).encode()
        limits = [(a, b, stands + pk) for (a, b, stands), pk in zip(limits, pks, strict=True)]
    limits.sort(key=_TIGHTNESS)
    every = ", ".join(map(_STANDS, limits))
    return [(b"ratelimit-policy", policy), (b"ratelimit", every.encode("ascii"))]


def sf_string(text: str) -> str:
    """Return text as a String of RFC 9651; what is not printable ASCII becomes `?`."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _wording(called: str, unit: str, quota: int, window: int | None) -> tuple[str, str]:
    """Return a limit's name and parameters; `requests` is the draft's unit where none is named."""
    name = sf_string(called)
    text = f"{name};q={_integer(quota)}"
    if unit != "requests":
        text += f";qu={sf_string(unit)}"
    if window is not None:
        text += f";w={_integer(window)}"
    return name, text


def _integer(value: int) -> int:
    return value if 0 <= value <= LARGEST else max(0, min(value, LARGEST))


def _partition(counter: str, key: bytes) -> str:
    text = counter.encode("utf-8", "surrogatepass")
    digest = hmac.new(key, text, hashlib.sha256).digest()[:PARTITION_BYTES]
    return f";pk=:{base64.b64encode(digest).decode('ascii')}:"


Names = tuple[bytes, bytes, bytes]
"""The fields of one unit: its limit, what remains of it, and when it resets."""


def _names(form: str, unit: str) -> Names:
    limit, left, reset = (
        form.format(part=part, unit=unit).encode() for part in ("limit", "remaining", "reset")
    )
    return limit, left, reset


OPENAI_NAMES: Mapping[str, Names] = {
    unit: _names("x-ratelimit-{part}-{unit}", unit) for unit in ("requests", "tokens")
}
ANTHROPIC_NAMES: Mapping[str, Names] = {
    unit: _names("anthropic-ratelimit-{unit}-{part}", unit.replace("_", "-"))
    for unit in ("requests", "tokens", "input_tokens", "output_tokens")
}
VENDOR_NAMES: Mapping[Dialect, Mapping[str, Names]] = {
    Dialect.OPENAI: OPENAI_NAMES,
    _ANTHROPIC: ANTHROPIC_NAMES,
}
"""The dialects that have quota headers of their own."""
_NO_NAMES: Mapping[str, Names] = {}


def vendor_fields(dialect: Dialect, standings: Sequence[ShownLimit], now: int) -> list[Field]:
    """Return a dialect's own quota headers, by the tightest limit of each unit.

    OpenAI states resets as Go durations; Anthropic as the RFC 3339 time of full replenishment,
    counted from `now` (microseconds since the epoch).
    """
    tightest: dict[str, tuple[int, bytes, int | None]] = {}
    for _, unit, quota, _, left, resets, _, _ in standings:
        if unit not in tightest or left < tightest[unit][0]:
            tightest[unit] = left, b"%d" % quota, resets
    return _vendor_fields(dialect, tightest, now)


def _vendor_fields(
    dialect: Dialect, tightest: Mapping[str, tuple[int, bytes, int | None]], now: int
) -> list[Field]:
    """Return the same by what is left of the tightest limit of each unit, its quota and reset."""
    fields: list[Field] = []
    for unit, (limit, remaining, reset) in VENDOR_NAMES.get(dialect, _NO_NAMES).items():
        if (known := tightest.get(unit)) is None:
            continue
        left, quota, resets = known
        fields += (limit, quota), (remaining, b"%d" % left)
        if resets is not None:
            anthropic = dialect is _ANTHROPIC
            until = rfc3339(now + resets) if anthropic else go_duration(resets)
            fields.append((reset, until.encode("ascii")))
    return fields


def go_duration(micros: int) -> str:
    """Return microseconds as Go's `time.Duration` prints them, rounded up to milliseconds."""
    millis = -(-micros // 1000)
    if millis < 1000:
        return f"{millis}ms" if millis else "0s"
    whole, millis = divmod(millis, 1000)
    minutes, seconds = divmod(whole, 60)
    tail = f"{seconds}.{millis:03d}".rstrip("0") + "s" if millis else f"{seconds}s"
    if minutes < 60:
        return f"{minutes}m{tail}" if minutes else tail
    return f"{minutes // 60}h{minutes % 60}m{tail}"


def rfc3339(moment: int) -> str:
    """Return a time (microseconds since the epoch) in RFC 3339, rounded up to whole seconds."""
    return datetime.fromtimestamp(-(-moment // SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_ENGINES_KEPT = 4
_JOINED = f"{SEPARATOR}="
_FIRST = itemgetter(0)


class Receipts:
    """Writes the fields of requests that were simply admitted, straight from their receipts.

    They are those that `quota_fields` writes of the view of the decision, in one pass; what does
    not change of the counters of the policy sets last seen is remembered.
    """

    def __init__(self) -> None:
        self._known: dict[Engine, tuple[_Counter | None, ...]] = {}

    def fields(self, case: Case, dialect: Dialect, style: Style) -> list[Field] | None:
        """Return the fields for a case in which nothing was found.

        Nothing spilled in such a case. Whose a counter is follows from its rule alone, unless
        something stands in for a missing fact of its key: None then.
        """
        known = self._known.get(case.engine) or self._seen(case.engine)
        now, units, partition = case.now, style.units, style.partition
        policies: list[str] = []
        limits: list[tuple[float, str]] = []
        tightest: dict[str, tuple[int, bytes, int | None]] = {}
        for row in case.debits:
            if row is None or (counter := known[row[0]]) is None:
                continue
            (stand, paces, _, unit, window, own, joins), words = counter
            key = row[1]
            if not key.startswith("=", IDENT_LENGTH) or (joins and key.count(_JOINED) != joins):
                return None
            if not own or (units is not None and unit not in units):
                continue
            receipt = tuple.__new__(Receipt, row)
            quota, _, left, resets = stand(receipt, now, True)
            if paces:
                window = pace_window(receipt[2])
            said = words.get((quota, window)) or counter.say(quota, window)
            name, policy, most = said
            stands = f"{name}{left if left <= LARGEST else LARGEST}"
            if resets is not None:
                stands = f"{stands};t={-(-resets // SECOND)}"
            if partition is not None:
                pk = _partition(key, partition)
                policy, stands = policy + pk, stands + pk
            policies.append(policy)
            limits.append((left / (quota or 1), stands))
            if unit not in tightest or left < tightest[unit][0]:
                tightest[unit] = left, most, resets
        fields: list[Field] = []
        if limits and style.fields is not None:
            fields.append((b"ratelimit-policy", ", ".join(policies).encode("ascii")))
            limits.sort(key=_FIRST)
            every = ", ".join([stands for _, stands in limits])
            fields.append((b"ratelimit", every.encode("ascii")))
        if style.vendor:
            fields += _vendor_fields(dialect, tightest, now)
        return fields

    def _seen(self, engine: Engine) -> tuple[_Counter | None, ...]:
        if len(self._known) >= _ENGINES_KEPT:
            self._known = {}
        counters = tuple(_counter(limit, part) for limit, part in engine.counters)
        self._known[engine] = counters
        return counters


class _Counter(NamedTuple):
    """A counter that may show, and how it is written, by its quota and its window.

    That is what `RateLimit` says before the number, what `RateLimit-Policy` says, and the quota.
    """

    shown: Shown
    words: dict[tuple[int, int | None], tuple[str, str, bytes]]

    def say(self, quota: int, window: int | None) -> tuple[str, str, bytes]:
        """Return how the counter is written with a quota and a window, and remember it."""
        if len(self.words) >= _MOST_KEPT:
            self.words.clear()
        name, policy = _wording(self.shown.name, self.shown.unit, quota, window)
        said = self.words[quota, window] = f"{name};r=", policy, b"%d" % quota
        return said


def _counter(limit: Limit, part: int) -> _Counter | None:
    hidden = not limit.shown or limit.rule.mode is not _ENFORCE
    return None if hidden else _Counter(shown_of(limit, part), {})


EXPOSED = (
    b"retry-after, retry-after-ms, x-should-retry, ratelimit, ratelimit-policy, x-request-id, "
    b"request-id, x-guardrail-decision, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, "
    b"x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, "
    b"x-ratelimit-reset-tokens"
)

_BODY = frozenset({b"transfer-encoding", b"content-encoding"})


@dataclass(frozen=True, slots=True)
class CrossOrigin:
    """The origins whose pages may read answers; `*` is any, without credentials."""

    origins: frozenset[str]

    def fields(self, request: Iterable[Field]) -> list[Field]:
        """Return the fields for the answer to a request; none if its origin is not allowed."""
        origin = value_of(request, b"origin")
        if origin is None:
            return []
        named = origin.decode("latin-1")
        if named in self.origins:
            allowed = [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                (b"vary", b"Origin"),
            ]
        elif "*" in self.origins:
            allowed = [(b"access-control-allow-origin", b"*")]
        else:
            return []
        return [*allowed, (b"access-control-expose-headers", EXPOSED)]


def is_preflight(method: str, request: Iterable[Field]) -> bool:
    """Tell whether a request only asks which cross-origin requests are allowed.

    A browser sends none with a body: with one, it is a request like any other, for a host may not
    look at its method.
    """
    if method != "OPTIONS":
        return False
    fields = {name.lower(): value for name, value in request}
    if fields.get(b"content-length", b"0").strip() != b"0" or not fields.keys().isdisjoint(_BODY):
        return False
    return b"origin" in fields and b"access-control-request-method" in fields


def value_of(request: Iterable[Field], name: bytes) -> bytes | None:
    """Return the first value of a header, None if there is none; `name` is in lower case."""
    for key, value in request:
        if key == name or key.lower() == name:
            return value
    return None


DEGRADED_BY = "x-guardrail-decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How answers are written.

    `fields` is the version of the RateLimit fields, None for none; `vendor` whether a dialect's
    own quota headers are sent. `partition` is the key of `pk`, None to leave it out. `links` maps
    remedies to addresses, `blocked_by` is who implements legal blocks (RFC 7725): this server.
    Waits that end at a calendar reset are spread over `spread` seconds by `jitter`. `receipts`
    and `wording` remember what does not change from one answer to the next. `units` are those
    whose limits are enforced here, and so may show, None for all.
    """

    fields: str | None = VERSION
    vendor: bool = True
    partition: bytes | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    blocked_by: str = "/"
    cross_origin: CrossOrigin | None = None
    spread: float = 30.0
    units: frozenset[str] | None = None
    jitter: Jitter = random.random
    receipts: Receipts = field(default_factory=Receipts, compare=False, repr=False)
    wording: Wording = field(default_factory=Wording, compare=False, repr=False)


class Addressee(NamedTuple):
    """What of a request decides how it is answered."""

    dialect: Dialect
    headers: Sequence[Field]


def admitted_fields(decision: Decision, addressee: Addressee, style: Style) -> list[Field]:
    """Return the fields that go with the host's response to a request that was admitted.

    Only what the caller's own limits say shows; that less is served than was asked always does.
    """
    case = decision.case
    # Where nothing was found, its receipts tell all that may show.
    fields = style.receipts.fields(case, addressee.dialect, style) if case.simple else None
    if fields is None:
        reading = view_of(decision)
        fields = quota_fields(reading.standings, addressee.dialect, style, case.now)
        fields += _declared(decision, reading)
    named = id_field(addressee.dialect)
    fields.append((named, case.engine.ids.name(case.serial).encode("ascii")))
    if style.cross_origin is not None:
        fields += style.cross_origin.fields(addressee.headers)
    return fields


def quota_fields(
    standings: Sequence[ShownLimit], dialect: Dialect, style: Style, now: int
) -> list[Field]:
    """Return the RateLimit fields and the dialect's own, for limits that may show.

    `now` is in microseconds since the epoch.
    """
    fields: list[Field] = []
    if style.units is not None:
        standings = [standing for standing in standings if standing.unit in style.units]
    if style.fields is not None:
        fields += ratelimit_fields(standings, style.partition, style.wording)
    if style.vendor:
        fields += vendor_fields(dialect, standings, now)
    return fields


def id_field(dialect: Dialect) -> bytes:
    """Return the header that a dialect's clients read a request's id from."""
    return b"request-id" if dialect is _ANTHROPIC else b"x-request-id"


def _declared(decision: Decision, reading: ClientView) -> list[Field]:
    """Return what declares obligations: a degrade, and the `x-…` entries that may show."""
    obligations = decision.obligations
    if not obligations:
        return []
    fields: list[Field] = []
    served = [f";{name}={obligations[name]}" for name in SERVED if name in obligations]
    if decision.reason is not None or served:
        reason = "abnormal_usage_detected" if reading.shared else decision.reason
        disabled = obligations.get("disable")
        if isinstance(disabled, (list, tuple)):
            served.append(f";disable={'+'.join(map(str, disabled))}")
        fields.append((DEGRADED_BY.encode(), _visible(f"degrade; reason={reason}", *served)))
    shown: set[str] = set()
    for finding in reading.obliged:
        extra = finding.verdict.obligations.extra if finding.verdict.obligations else {}
        for name in extra:
            if name in obligations and name not in shown and name.lower() != DEGRADED_BY:
                shown.add(name)
                fields.append((name.lower().encode("ascii"), _visible(str(obligations[name]))))
    return fields


SERVED = ("model", "max_output_tokens")


def _visible(*parts: str) -> bytes:
    """Return text that can stand in a field: printable ASCII, the rest as `?` (RFC 9110 §5.5)."""
    return "".join(c if " " <= c <= "~" else "?" for c in "".join(parts)).encode("ascii")

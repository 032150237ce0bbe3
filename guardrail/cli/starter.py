"""The files of a first policy set: what they say, and the tests that show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from guardrail.cli.figures import length, period, plural
from guardrail.cli.inert import inert
from guardrail.replay.proposing import DAY, MINUTE, Basis, Busiest

_WARNING = "80% of the daily tokens are used"
POLICY, TESTS = "policy.yaml", "policy_test.yaml"
_STEP = 10
"""How many times as much the next kind of account may use, in a set that is not from traffic."""
_IN_FLIGHT = 4
"""How many requests may run at once where nothing tells how many did."""
_PACE = 20
"""How many requests may come in a minute where nothing tells how many did."""
_FLOOR = "the least that is proposed"
_DAILY = "tokens-per-day"
_WINDOWS = (("requests-per-minute", "minute", MINUTE), (_DAILY, "day", DAY))
_NEARLY = 0.95
"""The share of a window that traffic has to span: a day's log ends a little before midnight."""
_OUTPUT = 1_000
"""A model's longest answer is told in thousands of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What traffic showed: how many requests, which models and facts, and what accounts took.

    `models` maps each model to its longest answer in tokens; `strange` are facts, with their
    types, that guardrail does not know by itself. `tokens` are told for each of `tiers`, or
    once for all accounts, or not at all where the traffic has none; `kinds` are the tiers that
    the traffic has. `in_flight` is None where no request told how long it took. `first` and
    `last` are the times of the traffic's ends, in seconds.
    """

    requests: int
    first: float
    last: float
    nameless: int
    models: Mapping[str, int]
    strange: Mapping[str, str]
    tokens: tuple[Busiest, ...]
    tiers: tuple[str, ...]
    kinds: frozenset[str]
    pace: Busiest
    in_flight: Busiest | None
    totals: bool = False
    """Whether what stands for a request is all of a time, so that nobody knows a pace."""

    @property
    def span(self) -> float:
        """How many seconds the traffic spans."""
        return self.last - self.first

    def too_short_for(self, limits: Limits) -> list[tuple[str, str]]:
        """Return the proposed rules with a longer window than the traffic, and their windows."""
        return [
            (rule, window)
            for rule, window, seconds in _WINDOWS
            if self.span < _NEARLY * seconds
            and (limits.tokens if rule == _DAILY else not self.totals)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The numbers of a first set: tokens a day by tier, requests a minute, requests in flight.

    `tiers` is empty where one number is for all accounts, `tokens` where tokens are not limited.
    """

    tiers: tuple[str, ...]
    tokens: tuple[int, ...]
    pace: int
    in_flight: int

    @classmethod
    def starting(cls, tokens: int, tiers: tuple[str, ...]) -> Limits:
        """Return limits to start from: each kind of account may use ten times the one before."""
        by_tier = tuple(tokens * _STEP**place for place in range(len(tiers)))
        return cls(tiers=tiers, tokens=by_tier, pace=_PACE, in_flight=_IN_FLIGHT)

    @classmethod
    def proposed(cls, seen: Seen) -> Limits:
        """Return limits that leave room above what was seen."""
        in_flight = _IN_FLIGHT if seen.in_flight is None else seen.in_flight.proposed
        return cls(
            tiers=seen.tiers,
            tokens=tuple(found.proposed for found in seen.tokens),
            pace=_PACE if seen.totals else seen.pace.proposed,
            in_flight=in_flight,
        )


def starter_files(name: str, key: str, limits: Limits, seen: Seen | None) -> dict[str, str]:
    """Return the files of a first set by name: the policy, and its tests."""
    policy = "\n".join(_policy(name, key, limits, seen)) + "\n"
    return {POLICY: policy, TESTS: "\n".join(_tests(key, limits, seen)) + "\n"}


def counted(number: int, key: str) -> str:
    """Return how many there are whom a key tells apart: `2 accounts`, `1 value of client.ip`."""
    if key == "account.id":
        return plural(number, "account")
    return f"{plural(number, 'value')} of {key}"


def amount_text(amount: int) -> str:
    """Return an amount as the policy language writes it: `200k`, `1.5M`, `250`."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if amount >= size and amount * 10 % size == 0:
            return f"{amount / size:g}{letter}"
    return str(amount)


def _policy(name: str, key: str, limits: Limits, seen: Seen | None) -> Iterator[str]:
    yield "# What this API allows. Each rule is evaluated for each request, and the strictest wins."
    yield "# After a change run guardrail check, with --traffic on last week's requests."
    if seen is not None:
        accounts = seen.pace.accounts
        yield "#"
        keys = plural(accounts, "key")
        what = "totals" if seen.totals else "requests"
        yield f"# The numbers come from {seen.requests:,} {what} of {keys} ({key})."
        yield f"# The traffic spans {length(seen.span)}, {period(seen.first, seen.last)}."
        yield "# Where a limit does not say otherwise it is half as much again as what 99% of them"
        yield "# stayed at or below at their busiest: that was usual, and may not be right. How"
        yield "# many took more is counted for each limit alone, by the clock's minutes and days in"
        yield "# UTC; replay the traffic to see whom all rules refuse, by windows of their own."
        if accounts == 1:
            yield f"# ATTENTION: {key} is the same in all of the traffic: the numbers are what"
            yield "# all took together, as a limit for each. Map it to what tells customers apart."
        if seen.nameless:
            yield f"# {seen.nameless:,} requests had no {key}; they are not in the numbers."
    yield "guardrail: 1"
    yield f"policy: {_quoted(name)}" + " " * 4 + "# the namespace of its counters: keep it"
    yield ""
    yield from _facts(limits, seen)
    yield from _models(seen)
    yield "rules:"
    yield from _pace(key, limits, seen)
    yield ""
    if limits.tokens:
        yield from _tokens(key, limits, seen)
    else:
        yield from _no_tokens()
    yield ""
    yield from _in_flight(key, limits, seen)
    yield ""
    yield from _trial(key, limits)


def _facts(limits: Limits, seen: Seen | None) -> Iterator[str]:
    strange = {} if seen is None else seen.strange
    if not limits.tiers and not strange:
        return
    yield "facts:"
    if limits.tiers:
        lowest = limits.tiers[0]
        yield "  # The lowest first. Who is not known counts as the lowest."
        tiers = ", ".join(limits.tiers)
        yield f"  account.tier: {{type: level, values: [{tiers}], default: {lowest}}}"
    if strange:
        yield "  # In the traffic, and in no rule yet."
        for name, kind in strange.items():
            yield f"  {name}: {{type: {kind}}}"
    yield ""


def _models(seen: Seen | None) -> Iterator[str]:
    if seen is not None and seen.totals:
        yield "# What a request reserves that does not say how long its answer may be: the longest"
        yield "# of its model, which totals do not tell. Put in what your models can give, such as"
        yield "# models: {large: {max_output: 8192}}"
        yield ""
        return
    if seen is None or not any(seen.models.values()):
        return
    yield "# What a request reserves that does not say how long its answer may be. Put in what your"
    yield "# models can give: these are the longest answers seen."
    longest = max(seen.models, key=lambda model: (seen.models[model], model))
    yield f"defaults: {{unlisted_model: {_quoted(longest)}}}"
    yield "models:"
    for model, most in sorted(seen.models.items()):
        yield f"  {_quoted(model)}: {{max_output: {roomy(most)}}}"
    yield ""


def roomy(most: int) -> int:
    """Return the longest answer of a model, in tokens, as it is written where this is the most."""
    return max(1, -(-most // _OUTPUT)) * _OUTPUT


def _seen_line(what: str, busiest: Busiest, key: str, floor: str = _FLOOR) -> Iterator[str]:
    if not busiest.accounts:
        yield f"  # {what}: nobody in the traffic, so the number is a guess."
        return
    yield (
        f"  # {what}: at their busiest, half of all stayed at or below {busiest.median:,},"
        f"\n  # 99% of all at or below {busiest.usual:,}; the most was {busiest.most:,}."
    )
    number = amount_text(busiest.proposed)
    if busiest.basis is Basis.ROUNDING:
        yield f"  # The limit is half as much again, rounded up to {number}."
    elif busiest.basis is Basis.FLOOR:
        yield f"  # Half as much again would be less than {number}, {floor}."
    whom = f"{busiest.over:,} of {counted(busiest.accounts, key)}" if busiest.over else "None"
    yield f"  # {whom} took more than {number} at their busiest."


def _short(rule: str, limits: Limits, seen: Seen) -> Iterator[str]:
    for short, window in seen.too_short_for(limits):
        if short == rule:
            yield f"  # The traffic spans only {length(seen.span)}: in a whole {window} one may"
            yield "  # take more than was seen, and then the number is too small."


def _pace(key: str, limits: Limits, seen: Seen | None) -> Iterator[str]:
    yield "  # A pace, against loops that run away: so many at once, then so many a minute."
    if seen is not None and seen.totals:
        yield "  # Each line of the traffic stands for all requests of a time, so how many came"
        yield f"  # in a minute is not known: {_PACE} is where to start, not what was seen. In"
        yield "  # shadow it refuses nothing until you have a number of your own."
    elif seen is not None:
        flying = 0 if seen.in_flight is None else seen.in_flight.proposed
        floor = "as many as may run at once" if flying == seen.pace.proposed else _FLOOR
        yield from _seen_line("Requests a minute", seen.pace, key, floor)
        yield from _short("requests-per-minute", limits, seen)
    yield "  - id: requests-per-minute"
    yield "    when: always"
    yield f"    rate: {{requests: {limits.pace}/minute, key: {key}}}"
    if seen is not None and seen.totals:
        yield "    mode: shadow"


def _tokens(key: str, limits: Limits, seen: Seen | None) -> Iterator[str]:
    yield "  # An amount a day, input and output together. At 80% the client is told in a header."
    if seen is not None:
        floor = _FLOOR
        for tier, busiest in zip(seen.tiers or ("",), seen.tokens, strict=True):
            yield from _seen_line(f"Tokens a day of {tier or 'all'}", busiest, key, floor)
            if busiest.basis is not Basis.FLOOR:
                floor = f"what {tier} has"
        yield from _short(_DAILY, limits, seen)
        if any(busiest.over for busiest in seen.tokens):
            yield "  # Who needs more gets it by a kind of account of their own, or an exemption."
    yield "  - id: tokens-per-day"
    yield "    when: always"
    yield "    budget:"
    if limits.tiers:
        pairs = zip(limits.tiers, limits.tokens, strict=True)
        amounts = ", ".join(f"{tier}: {amount_text(amount)}" for tier, amount in pairs)
        yield f"      tokens: {{by: account.tier, {amounts}}}"
    else:
        yield f"      tokens: {amount_text(limits.tokens[0])}"
    yield "      per: day"
    yield f"      key: {key}"
    yield "    steps:"
    yield f'      - {{at: 80%, notify: {{x-budget-warning: "{_WARNING}"}}}}'
    yield "      - {at: 100%, throttle: {reason: daily_tokens}}"


def _no_tokens() -> Iterator[str]:
    yield "  # No limit of tokens: no request of the traffic tells how many it took. To add one,"
    yield "  # map input_tokens and output_tokens and propose again, or see what guardrail init"
    yield "  # --tokens 200k writes."


def _in_flight(key: str, limits: Limits, seen: Seen | None) -> Iterator[str]:
    yield "  # How many requests may run at once; a lost one frees its place after ten minutes."
    if seen is not None and seen.in_flight is not None:
        yield from _seen_line("Requests at once", seen.in_flight, key)
    elif seen is not None:
        yield "  # No request of the traffic tells how long it took (a `duration`), so how many ran"
        yield f"  # at once is not known: {_IN_FLIGHT} is where to start, not what was seen. In"
        yield "  # shadow it refuses nothing until you have a number of your own."
    yield "  - id: in-flight"
    yield "    when: always"
    yield f"    concurrency: {{max: {limits.in_flight}, lease: 10m, key: {key}}}"
    if seen is not None and seen.in_flight is None:
        yield "    mode: shadow"


def _trial(key: str, limits: Limits) -> Iterator[str]:
    tighter = max(1, limits.pace // 2)
    yield "  # In shadow a rule counts and reports, and refuses nothing: to try another number."
    yield "  - id: requests-per-minute-tighter"
    yield "    when: always"
    yield f"    rate: {{requests: {tighter}/minute, key: {key}}}"
    yield "    mode: shadow"


def _tests(key: str, limits: Limits, seen: Seen | None) -> Iterator[str]:
    pace, most = limits.pace, limits.in_flight
    tighter = max(1, pace // 2)
    model = "" if seen is None or not seen.models else f", request.model: {_quoted(_any(seen))}"
    who = f"{key}: {_WHO.get(key, 'a1')}"
    facts = f"{{{who}{model}}}"
    yield "# What the rules are meant to do: guardrail test says whether they do."
    yield "guardrail: 1"
    yield "tests:"
    waits = "would have" if seen is not None and seen.totals else "is told"
    yield f"  - name: {pace} requests at once are served, and the next {waits} to wait"
    yield f"    facts: {facts}"
    yield "    steps:"
    yield f"      - {{repeat: {tighter}, tokens: 0, output_tokens: 0, expect: allow}}"
    if pace > tighter:
        yield (
            f"      - {{repeat: {pace - tighter}, tokens: 0, output_tokens: 0, "
            "expect: {allow: null, shadow: [requests-per-minute-tighter]}}"
        )
    expected = "{throttle: requests-per-minute, by: requests-per-minute}"
    if seen is not None and seen.totals:
        expected = "{allow: null, shadow: [requests-per-minute, requests-per-minute-tighter]}"
    yield f"      - {{tokens: 0, output_tokens: 0, expect: {expected}}}"
    if limits.tokens:
        yield from _token_tests(limits, who, model)
    if seen is not None and seen.in_flight is None:
        yield f"  - name: {most} requests run at once, and one more would have to wait"
        yield f"    facts: {facts}"
        yield "    steps:"
        yield f"      - {{repeat: {most}, tokens: 0, output_tokens: 0, every: 1m, duration: 9m}}"
        yield "      - {tokens: 0, output_tokens: 0, expect: {allow: null, shadow: [in-flight]}}"
        return
    yield f"  - name: {most} requests run at once, and one more has to wait"
    yield f"    facts: {facts}"
    yield "    steps:"
    yield f"      - {{repeat: {most}, tokens: 0, output_tokens: 0, every: 0s, duration: 5m}}"
    yield "      - {tokens: 0, output_tokens: 0, expect: {throttle: in-flight, by: in-flight}}"


def _token_tests(limits: Limits, who: str, model: str) -> Iterator[str]:
    tokens, facts = limits.tokens[0], f"{{{who}{model}}}"
    yield f"  - name: {amount_text(tokens)} tokens are a day's, and the next day has as many"
    yield f"    facts: {facts}"
    yield "    steps:"
    warned = tokens - tokens // 10
    yield f"      - {{tokens: {warned}, output_tokens: 0, expect: {{allow: null, obligations:"
    yield f'          {{x-budget-warning: "{_WARNING}"}}}}}}'
    yield f"      - {{tokens: {tokens - warned}, output_tokens: 0, every: 1h}}"
    yield (
        "      - {tokens: 1, output_tokens: 0, "
        "expect: {throttle: daily_tokens, by: tokens-per-day}}"
    )
    yield f"      - {{advance: 24h, tokens: {tokens}, output_tokens: 0, expect: allow}}"
    for tier, amount in zip(limits.tiers[1:], limits.tokens[1:], strict=True):
        yield f"  - name: an account that is {tier} has {amount_text(amount)} a day"
        yield f"    facts: {{{who}, account.tier: {tier}{model}}}"
        yield "    steps:"
        yield f"      - {{tokens: {amount}, output_tokens: 0, every: 1h, expect: allow}}"
        yield "      - {tokens: 1, output_tokens: 0, expect: {throttle: daily_tokens}}"


def _any(seen: Seen) -> str:
    return min(seen.models)


def _quoted(text: str) -> str:
    """Return a text as a YAML scalar that is a text, whatever is in it."""
    plain = text.replace("-", "").replace("_", "")
    if plain.isascii() and plain.isalnum() and text[0].isalpha() and text not in _WORDS:
        return text
    return '"' + inert(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


_WHO = {"client.ip": "192.0.2.1"}
"""Whom tests ask for, where a name will not do."""
_WORDS: Sequence[str] = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")

"""A traffic run as text: who was refused and by what first, then a table of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from guardrail.cli.figures import NONE, columns, first_of, length, moment, period, plural, share
from guardrail.cli.inert import shortened
from guardrail.cli.output import Output
from guardrail.cli.traffic import TrafficRun
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Effect, Mode, StoreMode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import CALENDAR, Concurrency, Rule
from guardrail.replay.ties import shared_rules
from guardrail.traffic.maps import EARLY
from guardrail.traffic.notes import MapNotes

PAST = {Effect.DEGRADE: "degraded", Effect.THROTTLE: "throttled", Effect.BLOCK: "blocked"}
_FILLED = ("budget", "distinct")
"""The verbs whose windows start empty in a replay."""
_SHOWN = 5
_NAMED = 3
_RULES = 5


def print_head(output: Output, run: TrafficRun, policies: PolicySet) -> None:
    """Print what matters first: who was refused, by which rules, and whether they are customers."""
    output.told("traffic", headline(run))
    if not run.tally.requests:
        return
    output.told("refused", refused_line(run))
    by = by_line(run, policies)
    if by is not None:
        output.told("by", by)
    for number, line in enumerate(whom_lines(run)):
        output.told("" if number else "whom", line)
    shadow = shadow_line(run, policies)
    if shadow is not None:
        output.told("shadow", shadow)


def print_tables(output: Output, run: TrafficRun, policies: PolicySet) -> None:
    """Print the decisions and the rules that decided, those without events in one line."""
    cells = output.width - 2
    idle = idle_line(run, policies)
    quiet = [] if idle is None else [idle]
    for title, lines, more in (
        ("decisions", _effect_table(run, cells), []),
        ("rules, by requests refused", _rule_table(run, policies, cells), quiet),
        ("shadow rules, had they been enforced", _shadow_table(run, policies, cells), []),
    ):
        if lines or more:
            output.line()
            output.line((title, "bold"))
            output.lines(lines)
        for line in more:
            output.paragraph(line)


def print_remarks(output: Output, run: TrafficRun, told: Iterable[str]) -> None:
    """Print what a reader must know to trust the figures, and what could not be read."""
    every = list(told)
    if every:
        output.line()
        output.line(("remarks", "bold"))
    for remark in every:
        output.paragraph(remark)
    print_unreadable(output, run)


def headline(run: TrafficRun) -> str:
    """Return the traffic in one line: how much, whose, when."""
    tally, course = run.tally, run.course
    parts = [plural(run.readable, "request")]
    if tally.accounts:
        parts.append(plural(len(tally.accounts), "account"))
    if course.first is not None:
        parts.append(period(course.first, course.newest))
    parts.append(plural(run.bad.count, "bad line"))
    return ", ".join(parts)


def refused_line(run: TrafficRun) -> str:
    """Return how many requests and accounts were refused, and how many were degraded."""
    tally = run.tally
    refused = sum(tally.effect_requests(effect) for effect in Effect if effect.refuses)
    told = "nothing"
    if refused:
        told = f"{plural(refused, 'request')} ({share(refused, tally.requests)})"
        if tally.accounts:
            told += f" of {plural(len(tally.harm.hits), 'account')}"
            told += f" ({share(len(tally.harm.hits), len(tally.accounts))})"
    degraded = tally.effect_requests(Effect.DEGRADE)
    return f"{told}; {degraded:,} more degraded" if degraded else told


def by_line(run: TrafficRun, policies: PolicySet) -> str | None:
    """Return the rules that refused most, None where nothing was refused."""
    known = [(name, count) for name, count in _refusals(run) if count]
    if not known:
        return None
    shown = [f"{_rule_name(name)} {count:,}" for name, count in known[:_NAMED]]
    more = known[_NAMED:]
    if more:
        rest = sum(count for _, count in more)
        shown.append(f"{plural(len(more), 'other')} {rest:,}")
    return ", ".join(shown)


def whom_lines(run: TrafficRun) -> Iterator[str]:
    """Yield whether those who were refused act together, and whether they look like customers."""
    hits = run.tally.harm.hits.values()
    if not hits:
        return
    groups = [hit for hit in hits if hit.in_a_group]
    alone = [hit for hit in hits if not hit.in_a_group]
    if groups:
        requests = sum(hit.refused for hit in groups)
        yield (
            f"{plural(len(groups), 'account')} that act as one with others: "
            f"{plural(requests, 'request')}"
        )
    if alone:
        requests = sum(hit.refused for hit in alone)
        yield f"{plural(len(alone), 'account')} on their own: {plural(requests, 'request')}"
    customers = [hit for hit in hits if hit.standing.like_customer]
    new = sum(hit.standing.new for hit in hits)
    told = "none looks like a customer"
    if customers:
        look = "looks like a customer" if len(customers) == 1 else "look like customers"
        requests = sum(hit.refused for hit in customers)
        told = f"{len(customers):,} of all these {look}: {plural(requests, 'request')}"
    yield f"{told}; {new:,} younger than a week" if new else told


def remarks(run: TrafficRun, policies: PolicySet) -> Iterator[str]:
    """Yield what a reader must know to trust the figures."""
    course = run.course
    if run.today is not None:
        yield (
            f"rules and exemptions stand throughout as on {moment(run.today)}, whenever they begin "
            "or end"
        )
    if run.notes is None and course.first is not None and course.first < EARLY:
        yield (
            f"the traffic begins on {moment(course.first)[:10]}, before any log of requests: `ts` "
            "is in seconds since the epoch, or in RFC 3339"
        )
    if course.late:
        yield (
            f"{plural(course.late, 'request')} came after a later one, by up to "
            f"{length(course.furthest)}; each was decided at its own time"
        )
    yield from _store_lines(run)
    if run.notes is not None:
        yield from map_remarks(run.notes)
    if run.sample is not None:
        yield (
            f"a sample of {float(100 * run.sample):g}% of the accounts: "
            f"{plural(run.passed_over, 'request')} of others passed over; {_half_filled(policies)}"
        )
    if run.seeded is not None:
        yield f"{plural(run.seeded, 'counter')} held before what they held when they were saved"
        if policies.links is not None:
            yield "who acts as one is not saved: accounts start alone"
    if run.warmup:
        yield f"warm-up: the first {plural(run.warmed, 'request')} are decided but not counted"
    else:
        yield from _cold_counters(run, policies)
    yield from _without_durations(run, policies)
    if policies.unlisted_model is not None and run.tally.unlisted:
        names = [f"`{shortened(name, 40)}`" for name in sorted(run.tally.unlisted)]
        yield (
            f"{plural(run.tally.unlisted.total(), 'request')} for models not listed count as "
            f"`{policies.unlisted_model}`: {first_of(names, _SHOWN)}"
        )
    uncounted = [f"`{shortened(unit, 40)}`" for unit in sorted(run.tally.uncounted)]
    if uncounted:
        yield (
            f"what stands under {first_of(uncounted, _SHOWN)} counts nothing: it is no unit, "
            "neither built in, such as `input_tokens` and `output_tokens`, nor declared under "
            f"`units` ({plural(run.tally.uncounted.total(), 'amount')})"
        )
    notes = sorted(run.tally.notes.items(), key=lambda pair: (-pair[1], pair[0]))
    for note, count in notes[:_SHOWN]:
        yield f"{shortened(note, 160)} ({plural(count, 'request')})"


def _without_durations(run: TrafficRun, policies: PolicySet) -> Iterator[str]:
    """Yield that limits of what runs at once met requests that do not say how long they took."""
    requests, timed = run.tally.requests, run.tally.timed
    limits = [
        rule.id
        for rule in policies.rules
        if rule.mode is not Mode.OFF and isinstance(rule.verb, Concurrency)
    ]
    if not limits or 2 * timed >= requests:
        return
    whose = "no request says how long it took"
    if timed:
        whose = f"{share(requests - timed, requests)} of the requests do not say how long they took"
    yield (
        f"{whose} (`duration`), and counts as over at once: what {', '.join(named_rules(limits))} "
        "would refuse is not shown"
    )


def _half_filled(policies: PolicySet) -> str:
    """Return what a sample of the accounts fills less than all accounts do."""
    names = named_rules(shared_rules(policies))
    if policies.links is not None:
        names.append("links")
    if not names:
        return "no rule counts several accounts together, so the sample is exact for each of them"
    return f"{', '.join(names)} may count several accounts together, and only those of the sample"


def named_rules(names: Sequence[str]) -> list[str]:
    """Return the names of rules to show, those after the first five as their number."""
    shown = [f"`{shortened(name, 48)}`" for name in names[:_RULES]]
    if len(names) > _RULES:
        shown.append(plural(len(names) - _RULES, "more rule"))
    return shown


def map_remarks(notes: MapNotes) -> Iterator[str]:
    """Yield what a map met that is no finding: what is missing, and what took a default."""
    if notes.passed_over:
        rows = plural(notes.passed_over, "row")
        column = shortened(notes.rows_with or "", 40)
        yield f"{rows} without a value of `{column}` stand for no request"
    lacking = sorted(notes.missing.items(), key=lambda pair: (-pair[1], pair[0]))
    if lacking:
        names = [f"{name} {share(count, notes.rows)}" for name, count in lacking]
        yield f"missing in the log: {first_of(names, _SHOWN)} of the requests"
    if notes.respelt:
        requests = plural(sum(notes.respelt.values()), "request")
        most = sorted(notes.respelt.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]
        shown = ", ".join(
            f"`{shortened(text, 40)}` as `{shortened(name, 40)}` {count:,}"
            for (name, text), count in most
        )
        yield f"models that the log names otherwise, in {requests}, as a door takes them: {shown}"
    by_fact: dict[str, list[tuple[int, str]]] = {}
    for (fact, text), count in notes.replaced.items():
        by_fact.setdefault(fact, []).append((-count, text))
    for fact, texts in sorted(by_fact.items()):
        total = -sum(count for count, _ in texts)
        shown = ", ".join(f"`{shortened(text, 40)}` {-n:,}" for n, text in sorted(texts)[:_SHOWN])
        yield (
            f"`{fact}` took its default in {plural(total, 'request')} with a value that the map "
            f"does not list: {shown}"
        )


def shadow_line(run: TrafficRun, policies: PolicySet) -> str | None:
    """Return what enforcing the shadow rules would change, None if there are none."""
    if not any(rule.mode is Mode.SHADOW for rule in policies.rules):
        return None
    shadow = run.tally.shadow
    if not shadow.stricter:
        return "enforcing the shadow rules would decide nothing more strictly"
    changes = ", ".join(
        f"{shadow.stricter[effect]:,} {PAST[effect]} "
        f"({share(shadow.stricter[effect], run.tally.requests)})"
        for effect in sorted(shadow.stricter)
    )
    told = f"enforcing the shadow rules, too: {changes}"
    refused = sum(count for effect, count in shadow.stricter.items() if effect.refuses)
    already = refused - run.tally.harm.whole.shadow_refused
    if already:
        told += f", {already:,} of them refused for now already"
    if not shadow.accounts:
        return told
    worst = min(shadow.accounts, key=lambda account: (-shadow.accounts[account], account))
    return (
        f"{told}, of {plural(len(shadow.accounts), 'account')}; "
        f"most of {shortened(worst, 40)} ({shadow.accounts[worst]:,})"
    )


def hinge_lines(run: TrafficRun) -> Iterator[str]:
    """Yield the decisions that hinged on a missing fact."""
    hinged = run.tally.matching.hinged
    for (rule, missing), count in sorted(hinged.items(), key=lambda pair: (-pair[1], pair[0])):
        facts = ", ".join(missing)
        yield (
            f"unknown facts decided {plural(count, 'request')}: "
            f"{facts} missing → {rule} (unknown: match)"
        )


def ceiling_lines(run: TrafficRun) -> Iterator[str]:
    """Yield what was asked of each budget that all share, and what would leave room for it."""
    for found in run.tally.ceilings.found():
        day = datetime.fromtimestamp(found.busiest_at, UTC)
        limit = "" if not found.limit else f", {share(found.busiest, found.limit)} of its limit"
        yield (
            f"ceiling `{found.rule}`: at most {found.busiest:,.0f} {found.unit} were asked for in "
            f"{length(found.length)} (from {day:%Y-%m-%d %H:%M}{limit}); "
            f"{found.proposed:,.0f} would leave half as much again, judged by "
            f"{plural(found.windows, 'window')}"
        )


def idle_line(run: TrafficRun, policies: PolicySet) -> str | None:
    """Return the rules that decided nothing in one line, None if all decided something."""
    decided = {name for name, _ in run.tally.decided}
    shadowed = {name for name, _ in run.tally.shadow.by_rule}
    quiet = [
        rule
        for rule in policies.rules
        if rule.mode is not Mode.OFF
        and rule.id not in decided | shadowed
        and not run.tally.idle.get(rule.id)
    ]
    if not quiet:
        return None
    matched = [rule.id for rule in quiet if run.tally.matching.matched.get(rule.id)]
    never = [rule.id for rule in quiet if rule.id not in matched]
    parts = []
    if matched:
        parts.append(f"{len(matched):,} let all they matched pass ({_some(matched)})")
    if never:
        parts.append(f"{len(never):,} matched nothing ({_some(never)})")
    return f"{plural(len(quiet), 'rule')} without events: {', '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(shortened(name, 48) for name in names[:_NAMED])
    return shown + (", …" if len(names) > _NAMED else "")


def _store_lines(run: TrafficRun) -> Iterator[str]:
    modes, refused = run.tally.modes, run.tally.unavailable
    if not modes:
        return
    counts = ", ".join(f"{modes[mode]:,} {mode}" for mode in StoreMode if modes[mode])
    yield f"without the store, at {run.local_share} of each limit: {counts}"
    if refused:
        by_rule = sorted(refused.items(), key=lambda pair: (-pair[1], str(pair[0])))
        named = ", ".join(f"{shortened(str(rule), 48)} {count:,}" for rule, count in by_rule)
        yield f"refused for want of the store (503): {plural(refused.total(), 'request')}: {named}"


def _cold_counters(run: TrafficRun, policies: PolicySet) -> Iterator[str]:
    if run.course.first is None:
        return
    span = run.course.newest - run.course.first
    windows = sorted({_window(rule) / SECOND for rule in policies.rules} - {0.0})
    filled = [window for window in windows if window < span]
    if filled:
        longest = length(filled[-1])
        yield (
            f"counters start empty: the first {longest} understates limits (use --warmup {longest})"
        )
    if len(filled) < len(windows):
        longer = ", ".join(length(window) for window in windows[len(filled) :])
        yield f"counters start empty, and {length(span)} of traffic never fill windows of {longer}"


def _window(rule: Rule) -> int:
    verb = rule.verb
    fills = rule.mode is not Mode.OFF and verb.name in _FILLED and verb.lasts < CALENDAR["lifetime"]
    return verb.lasts if fills else 0


def _effect_table(run: TrafficRun, cells: int) -> list[str]:
    tally = run.tally
    rows: list[tuple[str, ...]] = [("decision", "requests", "share", "accounts")]
    for effect in Effect:
        count = tally.effect_requests(effect)
        accounts = f"{tally.effect_accounts(effect):,}" if tally.accounts else NONE
        rows.append((str(effect), f"{count:,}", share(count, tally.requests), accounts))
    return columns(rows, (False, True, True, True), cells=cells)


def _refusals(run: TrafficRun) -> list[tuple[str | None, int]]:
    """Return the rules that decided something with how much they refused, by impact."""
    decided = run.tally.decided
    names = {name for name, effect in decided if effect is not Effect.ALLOW}

    def refused(name: str | None) -> int:
        return sum(decided[name, effect] for effect in Effect if effect.refuses)

    order = sorted(
        names, key=lambda name: (-refused(name), -decided[name, Effect.DEGRADE], name or "")
    )
    return [(name, refused(name)) for name in order]


def _rule_table(run: TrafficRun, policies: PolicySet, cells: int) -> list[str]:
    tally = run.tally
    rows: list[tuple[str, ...]] = [("rule", "matched", "accounts", "decided")]
    idle = [name for name in tally.idle if name in {rule.id for rule in policies.rules}]
    names = [name for name, _ in _refusals(run)]
    names += [one for one in idle if one not in names]
    for name in names:
        matched = NONE if name is None else f"{tally.matching.matched.get(name, 0):,}"
        accounts = len(tally.harm.by_rule.get(name or "", ())) if name else 0
        did = _did({effect: tally.decided[name, effect] for effect in PAST})
        if name is not None and tally.idle.get(name):
            did += (", " if did else "") + f"{tally.idle[name]:,} without effect"
        rows.append((_rule_name(name), matched, f"{accounts:,}" if accounts else NONE, did))
    return _with_owners(rows, names, policies, (False, True, True, False), cells)


def _shadow_table(run: TrafficRun, policies: PolicySet, cells: int) -> list[str]:
    counts = run.tally.shadow.by_rule
    rows: list[tuple[str, ...]] = [("rule", "matched", "would have")]
    acted = Counter[str]()
    for (name, _), count in counts.items():
        acted[name] += count
    names = sorted(acted, key=lambda name: (-acted[name], name))
    for name in names:
        matched = f"{run.tally.matching.matched.get(name, 0):,}"
        did = _did({effect: counts[name, effect] for effect in PAST})
        rows.append((shortened(name, 48), matched, did))
    return _with_owners(rows, names, policies, (False, True, False), cells)


def _with_owners(
    rows: Sequence[tuple[str, ...]],
    names: Sequence[str | None],
    policies: PolicySet,
    right: tuple[bool, ...],
    cells: int,
) -> list[str]:
    """Return a table of rules, with whom to ask about each where any of them says it."""
    if len(rows) < 2:
        return []
    known = {rule.id: shortened(rule.about.contact, 48) for rule in policies.rules}
    asked = [known.get(name or "", "") for name in names]
    if any(asked):
        told = ("owner", *(one or NONE for one in asked))
        rows = [(*row, owner) for row, owner in zip(rows, told, strict=True)]
        right = (*right, False)
    return columns(rows, right, cells=cells)


def _did(counts: dict[Effect, int]) -> str:
    return ", ".join(f"{counts[effect]:,} {PAST[effect]}" for effect in PAST if counts[effect])


def _rule_name(name: str | None) -> str:
    return "(no rule)" if name is None else shortened(name, 48)


def print_unreadable(output: Output, run: TrafficRun) -> None:
    """Print the first lines that could not be read, and files that end damaged."""
    for file, line, reason in run.bad.first:
        output.told("bad line", f"{shortened(file)}:{line}: {shortened(reason, 120)}", "yellow")
    more = run.bad.count - len(run.bad.first)
    if more > 0:
        output.told("bad line", f"and {more:,} more", "yellow")
    for fault in run.faults:
        output.told("damaged", shortened(fault, 200), "red")

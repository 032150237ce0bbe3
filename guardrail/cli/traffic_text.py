"""A traffic run as text: what was decided, by which rules, and what to make of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from guardrail.cli.figures import NONE, beside, columns, length, period, plural, share
from guardrail.cli.inert import shortened
from guardrail.cli.output import Output
from guardrail.cli.traffic import TrafficRun
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Effect, Mode, StoreMode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import CALENDAR, Rule
from guardrail.traffic.notes import MapNotes

_PAST = {Effect.DEGRADE: "degraded", Effect.THROTTLE: "throttled", Effect.BLOCK: "blocked"}
_FILLED = ("budget", "distinct")
"""The verbs whose windows start empty in a replay."""
_SHOWN = 5
_MARGIN = " " * 9


def print_traffic(output: Output, run: TrafficRun, policies: PolicySet, *, tables: bool) -> None:
    """Print what came of the traffic; `tables` adds the figures by effect and by rule."""
    output.line(("traffic  ", "bold"), headline(run))
    for remark in remarks(run, policies):
        output.line(_MARGIN, remark)
    if run.tally.requests and tables:
        output.line()
        for line in beside(_effect_table(run), _rule_table(run, policies), 8):
            output.line("  ", line)
        output.line()
        for line in _afterwords(run, policies):
            output.line("  ", line)
    _print_unreadable(output, run)


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


def remarks(run: TrafficRun, policies: PolicySet) -> Iterator[str]:
    """Yield what a reader must know to trust the figures."""
    course = run.course
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
            f"{plural(run.passed_over, 'request')} of others passed over; what is shared by more "
            "than one account is filled by the sample alone"
        )
    if run.seeded is not None:
        yield f"{plural(run.seeded, 'counter')} held before what they held when they were saved"
        if policies.links is not None:
            yield "who acts as one is not saved: accounts start alone"
    if run.warmup:
        yield f"warm-up: the first {plural(run.warmed, 'request')} are decided but not counted"
    else:
        yield from _cold_counters(run, policies)
    if policies.unlisted_model is not None and run.tally.unlisted:
        count, names = run.tally.unlisted.total(), list(run.tally.unlisted)
        shown = ", ".join(f"`{shortened(name, 40)}`" for name in sorted(names)[:_SHOWN])
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        yield (
            f"{plural(count, 'request')} for models not listed count as "
            f"`{policies.unlisted_model}`: {shown}{more}"
        )
    notes = sorted(run.tally.notes.items(), key=lambda pair: (-pair[1], pair[0]))
    for note, count in notes[:_SHOWN]:
        yield f"{shortened(note, 160)} ({plural(count, 'request')})"


def map_remarks(notes: MapNotes) -> Iterator[str]:
    """Yield what a map met that is no finding: what is missing, and what took a default."""
    lacking = sorted(notes.missing.items(), key=lambda pair: (-pair[1], pair[0]))
    if lacking:
        shown = ", ".join(f"{name} {share(count, notes.rows)}" for name, count in lacking[:_SHOWN])
        more = f" and {len(lacking) - _SHOWN:,} more" if len(lacking) > _SHOWN else ""
        yield f"missing in the log: {shown}{more} of the requests"
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
        return "if shadow rules were enforced: no request would be decided more strictly"
    changes = ", ".join(
        f"+{shadow.stricter[effect]:,} {_PAST[effect]} "
        f"({share(shadow.stricter[effect], run.tally.requests)})"
        for effect in sorted(shadow.stricter)
    )
    if not shadow.accounts:
        return f"if shadow rules were enforced: {changes}"
    worst = min(shadow.accounts, key=lambda account: (-shadow.accounts[account], account))
    return (
        f"if shadow rules were enforced: {changes}, {plural(len(shadow.accounts), 'account')}; "
        f"worst {shortened(worst, 40)} ({shadow.accounts[worst]:,})"
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
            f"{found.proposed:,.0f} would leave half as much again, by "
            f"{plural(found.windows, 'window')}"
        )


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


def _effect_table(run: TrafficRun) -> list[str]:
    tally = run.tally
    rows: list[tuple[str, ...]] = [("decision", "requests", "share", "accounts")]
    for effect in Effect:
        count = tally.effect_requests(effect)
        accounts = f"{tally.effect_accounts(effect):,}" if tally.accounts else NONE
        rows.append((str(effect), f"{count:,}", share(count, tally.requests), accounts))
    return columns(rows, (False, True, True, True))


def _rule_table(run: TrafficRun, policies: PolicySet) -> list[str]:
    tally = run.tally
    idle = bool(tally.idle)
    rows: list[tuple[str, ...]] = [("rule", "mode", "matched", "degr.", "thrtl.", "block")]
    if idle:
        # Degrades that were asked for and changed nothing.
        rows = [(*rows[0], "no effect")]
    for rule in policies.rules:
        shadow = rule.mode is Mode.SHADOW
        counts = tally.shadow.by_rule if shadow else tally.decided
        cells = [_cell(counts.get((rule.id, effect), 0), shadow) for effect in _PAST]
        matched = NONE if rule.mode is Mode.OFF else f"{tally.matching.matched.get(rule.id, 0):,}"
        if idle:
            cells.append(_cell(tally.idle.get(rule.id, 0), shadow))
        rows.append((shortened(rule.id, 48), rule.mode.value, matched, *cells))
    by_none = [tally.decided.get((None, effect), 0) for effect in _PAST]
    if any(by_none):
        rows.append(("(no rule)", "", "", *(_cell(count, False) for count in by_none)))
    width = max(map(len, rows))
    rows = [(*row, *[""] * (width - len(row))) for row in rows]
    return columns(rows, (False, False, *[True] * (width - 2)))


def _cell(count: int, shadow: bool) -> str:
    if not count:
        return NONE
    return f"({count:,})" if shadow else f"{count:,}"


def _afterwords(run: TrafficRun, policies: PolicySet) -> Iterator[str]:
    shadow = shadow_line(run, policies)
    if shadow is not None:
        yield shadow
    yield from hinge_lines(run)
    yield from ceiling_lines(run)


def _print_unreadable(output: Output, run: TrafficRun) -> None:
    for file, line, reason in run.bad.first:
        output.line(("bad line ", "yellow"), f"{shortened(file)}:{line}: {shortened(reason, 120)}")
    more = run.bad.count - len(run.bad.first)
    if more > 0:
        output.line(("bad line ", "yellow"), f"and {more:,} more")
    for fault in run.faults:
        output.line(("damaged  ", "red"), shortened(fault, 200))

"""What `check` and `test` find fault with: located in a file, or told in a sentence."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import TypeVar

from guardrail.cli.excerpts import counted, print_diagnostics
from guardrail.cli.figures import plural, share
from guardrail.cli.inert import inert, shortened
from guardrail.cli.machine import Finding, Unplaced
from guardrail.cli.output import Format, Output
from guardrail.cli.policy_findings import Setting, policy_findings, with_excerpts
from guardrail.cli.traffic import TrafficRun
from guardrail.cli.traffic_findings import rule_findings, thin_sample
from guardrail.engine import no_estimate
from guardrail.errors import Diagnostic, SettingError, Severity, finding, severity_of
from guardrail.http.doors import DOORS
from guardrail.loading import ending_soon, nearest
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Concurrency, Rate
from guardrail.scenarios import SuiteResult
from guardrail.traffic.notes import MapNotes

Counted = TypeVar("Counted")
_SHOWN = 5
_NOTES = 10
FAILED_TESTS = "failed-tests"
"""What stands for failed tests among findings, where each stands for itself elsewhere."""


@dataclass(slots=True)
class Found:
    """What was found: in files, in no file, what comments accept, and what is no finding yet."""

    located: list[Diagnostic] = field(default_factory=list)
    ignored: list[Diagnostic] = field(default_factory=list)
    unplaced: list[Unplaced] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mildest: Severity = Severity.WARNING
    """The mildest finding that is told as one; what is milder is noted."""

    @property
    def every(self) -> list[Finding]:
        """Everything that was found, by its place; what has none comes last."""
        return [*sorted(self.located, key=lambda one: one.sort_key), *self.unplaced]

    def add(
        self,
        code: str,
        message: str,
        help: str | None = None,
        severity: Severity | None = None,
    ) -> None:
        """Add a finding that stands in no file; one of a code is as grave as its code is."""
        self.unplaced.append(Unplaced(code, severity or severity_of(code), message, help))

    def told(self) -> list[str]:
        """Return everything as sentences, what is only noted left out."""
        located = [d for d in self.located if d.severity.reaches(self.mildest)]
        return [
            *(f"{d.code} {d.message} ({d.span})" for d in located),
            *(found.text for found in self.unplaced if found.severity.reaches(self.mildest)),
        ]


def moment_of(as_of: float | None) -> int:
    """Return the time that what ends is judged by, in microseconds: now if none is given."""
    return round((time.time() if as_of is None else as_of) * SECOND)


def known_doors(names: Sequence[str]) -> None:
    """Check the names of doors.

    Raises:
        SettingError: one is not known.
    """
    for name in names:
        if name not in DOORS:
            near = nearest(name, DOORS)
            meant = f"did you mean `{near}`?" if near else f"it can be {', '.join(DOORS)}"
            raise SettingError(f"`--door {name}` is no door: {meant}")


def findings_of_policies(
    policies: PolicySet, suite: SuiteResult, doors: Sequence[str], now: int, geo: str | None
) -> Found:
    """Return what is wrong with policies that load, and with their tests."""
    setting = Setting(now=now, doors=doors, geo=geo)
    made = policy_findings(policies, suite, setting)
    return Found(with_excerpts(made.faults), made.ignored, notes=ending_soon(policies, now))


def findings_of_traffic(
    run: TrafficRun, policies: PolicySet, most: Fraction, missing: Fraction
) -> Found:
    """Return what is wrong with recorded traffic, or shows that the policies miss it.

    `most` is the share of lines that may be unreadable, `missing` that of requests which may lack
    a fact that a rule tests.
    """
    found = findings_of_reading(run, policies, most)
    tally = run.tally
    if policies.unlisted_model is None:
        for model, count in _first(tally.unlisted):
            message = (
                f"model `{shortened(model)}` is not in `models` "
                f"({plural(count, 'request')}): it costs the dearest, and no degrade moves it"
            )
            help = "list it, or say what it counts as with `defaults: {unlisted_model: MODEL}`"
            found.add("GR306", message, help)
    found.located += rule_findings(run, policies, missing)
    by_id = {rule.id: rule for rule in policies.rules}
    for name, count in _first(tally.idle):
        message = f"rule `{name}` asked for a weaker model without effect "
        message += f"({plural(count, 'request')}): they were served as they were"
        help = "list the models asked for, with their `weaker`, or refuse instead"
        found.located.append(finding("GR307", message, by_id[name].span, help))
    return found


def findings_of_reading(run: TrafficRun, policies: PolicySet, most: Fraction) -> Found:
    """Return why traffic, as it was read, may show less of policies than it seems to.

    `most` is the share of lines that may be unreadable.
    """
    found = Found()
    _of_lines(found, run, most)
    for name, count in _first(run.tally.strange):
        near = nearest(name, policies.facts)
        advice = "declare it under `facts:`, or leave it out of the traffic"
        if near:
            advice = f"did you mean `{near}`?"
        message = f"fact `{shortened(name)}` is in no policy ({plural(count, 'request')})"
        found.add("GR309", message, advice)
    for note, count in _first(run.tally.matching.notes):
        found.add("GR311", f"{shortened(note, 160)} ({plural(count, 'request')})")
    found.located += _without_tokens(run, policies)
    found.located += _of_totals(run, policies)
    thin = thin_sample(run, policies)
    if thin is not None:
        found.unplaced.append(thin)
    return found


def _without_tokens(run: TrafficRun, policies: PolicySet) -> list[Diagnostic]:
    """Return a finding if most of what limits in tokens met does not say how many it took."""
    lacking = run.tally.notes[no_estimate("input_tokens")]
    limited = [
        rule
        for rule in policies.rules
        if rule.mode is not Mode.OFF and not _IN_TOKENS.isdisjoint(rule.verb.units)
    ]
    if not limited or 2 * lacking <= run.tally.requests:
        return []
    names = f"`{limited[0].id}`"
    if len(limited) > 1:
        names += f" and {plural(len(limited) - 1, 'other rule')}"
    whose = "no request says how many tokens it took"
    if lacking < run.tally.requests:
        part = share(lacking, run.tally.requests)
        whose = f"{part} of the requests do not say how many tokens they took"
    message = f"{whose}: {names} counted one for each"
    help = "say in the map which column holds `input_tokens`, or record them, else nothing is shown"
    if run.notes is None:
        help = "record `usage`, or an `estimate`, with `input_tokens`, else nothing is shown"
    return [finding("GR316", message, limited[0].span, help)]


def _of_totals(run: TrafficRun, policies: PolicySet) -> list[Diagnostic]:
    """Return a finding if rules limit a pace, or what runs at once, which totals do not show."""
    uncounted = () if run.notes is None or run.notes.tells_requests else (("requests",),)
    paced = [
        rule
        for rule in policies.rules
        if rule.mode is not Mode.OFF
        and (isinstance(rule.verb, Rate | Concurrency) or rule.verb.units in uncounted)
    ]
    if run.notes is None or not run.notes.totals or not run.notes.rows or not paced:
        return []
    others = plural(len(paced) - 1, "other rule")
    whose = f"`{paced[0].id}` and {others} limit" if paced[1:] else f"`{paced[0].id}` limits"
    message = f"each line stands for all requests of a time: {whose} how many come, or run at once"
    help = "what such rules would refuse is shown by a log of single requests alone"
    is_mild = all(rule.mode is Mode.SHADOW for rule in paced)
    return [finding("GR317", message, paced[0].span, help, is_mild=is_mild)]


_IN_TOKENS = frozenset(("tokens", "input_tokens", "cost_usd"))


def _of_lines(found: Found, run: TrafficRun, most: Fraction) -> None:
    bad, every = run.bad.count, run.bad.count + run.readable
    if bad and bad > most * every:
        message = (
            f"{bad:,} of {plural(every, 'line')} could not be read ({share(bad, every)}), "
            f"more than `--bad-lines {float(100 * most):g}%`"
        )
        help = None
        # A map that fits a log reads nearly all of it.
        if run.notes is not None and 2 * bad > every:
            message += ": the map does not fit the log"
            help = "see with `guardrail map guess` which does"
        elif run.notes is None and not run.readable:
            message += ": this is not guardrail's own form"
            help = "say with `--map` how to read it: `guardrail map guess` tells which map does"
        found.add("GR305", message, help)
    if run.notes is not None and run.notes.rows:
        _of_map(found, run.notes)


MOST_MISSING = Fraction(1, 5)
"""The share of requests that may lack a fact before that is a finding."""


def _of_map(found: Found, notes: MapNotes) -> None:
    """Add what a map met that may make figures wrong."""
    for name in sorted(notes.unseen):
        message = f"column `{shortened(name)}`, which the map names, has no value in any line"
        found.add("GR308", message, severity=None if notes.is_missed(name) else Severity.NOTE)
    for (fact, text), count in _first(notes.unknown):
        message = (
            f"`{shortened(text)}` is no value of `{fact}` that the map knows "
            f"({plural(count, 'request')}): the fact was left out"
        )
        found.add("GR310", message, "list it in `values`, let `match` find it, or add a `default`")
    for name, count in _first(notes.missing):
        # What no line has at all is told by its column.
        is_told = count == notes.rows and bool(notes.unseen)
        if count > MOST_MISSING * notes.rows and name not in notes.optional and not is_told:
            message = (
                f"fact `{name}` is missing in {share(count, notes.rows)} of the requests "
                f"({count:,})"
            )
            found.add("GR312", message, "add a `default`, or say `optional: true`")
    examples = {what: shortened(text) for what, text in notes.examples.items()}
    if notes.doubled:
        message = (
            f"{plural(notes.doubled, 'time')} lay in an hour that the clock showed twice, "
            f"such as `{examples.get('doubled', '')}`"
        )
        found.add("GR313", message, "say which one with `doubled`, or log offsets")
    if notes.skipped:
        message = (
            f"{plural(notes.skipped, 'time')} lay in an hour that the clock never showed, "
            f"such as `{examples.get('skipped', '')}`"
        )
        found.add("GR313", message, "is the time zone that of the log?")
    if notes.early:
        message = (
            f"{plural(notes.early, 'time')} lay before 1980, such as `{examples.get('early', '')}`"
        )
        found.add("GR314", message, _early_help(examples.get("early", "")))
    if notes.undecoded:
        message = f"{plural(notes.undecoded, 'character')} could not be decoded and were replaced"
        found.add("GR315", message, "say the file's `encoding` in the map")


_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_OURS = (946_684_800, 4_102_444_800)
"""The seconds of 2000 and 2100, between which times that are meant lie."""


def _early_help(example: str) -> str:
    """Return what to do about a time before 1980: read it in another unit, if it is one of ours."""
    number = int(example) if re.fullmatch(r"\d{9,20}", example) else 0
    for unit, of_a_second in _UNITS.items():
        if _OURS[0] <= number / of_a_second < _OURS[1]:
            day = datetime.fromtimestamp(number / of_a_second, UTC)
            return f"in {unit} that is {day:%Y-%m-%d}: say so with `unit`, or with `numbers`"
    return "say with `offset` when the first line was"


def _first(counts: Mapping[Counted, int]) -> list[tuple[Counted, int]]:
    """Return the most frequent few."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:_SHOWN]


def print_notes(output: Output, found: Found) -> None:
    """Print what is no finding yet, and what comments accept."""
    for note in found.notes:
        output.told("note", shortened(note, 200), "yellow")
    print_accepted(output, found.ignored)


def print_accepted(output: Output, accepted: Sequence[Diagnostic]) -> None:
    """Print how many findings comments accept, nothing where they accept none."""
    if accepted:
        codes = ", ".join(sorted({one.code for one in accepted}))
        text = f"{plural(len(accepted), 'finding')} accepted by a comment ({codes})"
        output.told("note", text, "yellow")


def print_found(output: Output, found: Found, form: Format) -> None:
    """Print what was found, or that nothing was."""
    output.line()
    notes = [one for one in found.located if not one.severity.reaches(found.mildest)]
    _print_notes(output, notes, form)
    print_diagnostics(output, tuple(one for one in found.located if one not in notes), form)
    if not found.told():
        output.line(("no findings", "green"))
    for one in found.unplaced:
        label = "finding" if one.severity.reaches(found.mildest) else "note"
        output.told(label, inert(one.text), "blue" if label == "note" else "red")
    graver = [one for one in found.located if one not in notes]
    if graver:
        codes = ", ".join(sorted({one.code for one in graver}))
        output.told("finding", f"{counted(tuple(graver))} ({codes})", "red")


def _print_notes(output: Output, notes: list[Diagnostic], form: Format) -> None:
    """Print what is no fault by itself, a paragraph each; in concise form a line each."""
    if form is not Format.FULL or not notes:
        print_diagnostics(output, tuple(notes), Format.CONCISE)
        return
    output.line(("notes, which are no faults by themselves", "bold"))
    for note in notes[:_NOTES]:
        file = note.span.file.rpartition("/")[2]
        output.paragraph(inert(f"{file}:{note.span.line} {note.code} {note.message}"))
    if len(notes) > _NOTES:
        output.paragraph(f"and {len(notes) - _NOTES:,} more: `--format concise` has all")
    output.line()

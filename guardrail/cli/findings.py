"""What `check` and `test` find fault with: located in a file, or told in a sentence."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

from guardrail.analysis import analyse
from guardrail.cli.excerpts import print_diagnostics
from guardrail.cli.figures import plural, share
from guardrail.cli.inert import shortened
from guardrail.cli.output import Format, Output
from guardrail.cli.traffic import TrafficRun
from guardrail.errors import Diagnostic, SettingError
from guardrail.http.doors import DOORS, unfed_by_all
from guardrail.loading import accepted, ending_soon, lint, nearest, warning
from guardrail.model.amounts import SECOND
from guardrail.model.policy import PolicySet
from guardrail.scenarios import SuiteResult, suite_findings

Counted = TypeVar("Counted")
_SHOWN = 5


@dataclass(slots=True)
class Found:
    """What was found: located findings, those that comments accept, sentences, and notes.

    Notes tell what is no finding yet.
    """

    located: list[Diagnostic] = field(default_factory=list)
    ignored: list[Diagnostic] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether anything was found."""
        return bool(self.located or self.sentences)

    def told(self) -> list[str]:
        """Return everything as sentences."""
        return [f"{d.code} {d.message} ({d.span})" for d in self.located] + self.sentences


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
    every = [*lint(policies, now), *suite_findings(policies, suite, now, geo)]
    every += analyse(policies, now)
    for unfed in unfed_by_all(policies, doors):
        message = f"rule `{unfed.rule.id}` cannot be enforced: {unfed.why}"
        help = "leave it to another door, or set its `mode: off` here"
        every.append(warning("GR205", message, unfed.rule.span, help))
    located, ignored = accepted(policies, every, now)
    return Found(located, ignored, notes=ending_soon(policies, now))


def findings_of_traffic(run: TrafficRun, policies: PolicySet, most: Fraction) -> Found:
    """Return what is wrong with recorded traffic, or shows that the policies miss it.

    `most` is the share of lines that may be unreadable.
    """
    found = Found(sentences=list(_of_lines(run, most)))
    tally = run.tally
    for name, count in _first(tally.strange):
        near = nearest(name, policies.facts)
        advice = "declare it under `facts:`, or leave it out of the traffic"
        if near:
            advice = f"did you mean `{near}`?"
        found.sentences.append(
            f"GR309 fact `{shortened(name)}` is in no policy ({plural(count, 'request')}); {advice}"
        )
    for note, count in _first(tally.matching.notes):
        found.sentences.append(f"GR311 {shortened(note, 160)} ({plural(count, 'request')})")
    if policies.unlisted_model is None:
        for model, count in _first(tally.unlisted):
            found.sentences.append(
                f"GR306 model `{shortened(model)}` is not in `models` "
                f"({plural(count, 'request')}): it costs the dearest, and no degrade moves it; "
                "list it, or say what it counts as with `defaults: {unlisted_model: MODEL}`"
            )
    by_id = {rule.id: rule for rule in policies.rules}
    for name, count in _first(tally.idle):
        message = f"rule `{name}` asked for a weaker model without effect "
        message += f"({plural(count, 'request')}): they were served as they were"
        help = "list the models asked for, with their `weaker`, or refuse instead"
        found.located.append(warning("GR307", message, by_id[name].span, help))
    return found


def _of_lines(run: TrafficRun, most: Fraction) -> list[str]:
    found: list[str] = []
    bad, every = run.bad.count, run.bad.count + run.readable
    if bad and bad > most * every:
        found.append(
            f"GR305 {bad:,} of {plural(every, 'line')} could not be read ({share(bad, every)}), "
            f"more than `--bad-lines {float(100 * most):g}%`"
        )
    if run.mapping is None or not run.readable:
        return found
    for name in sorted(run.mapping.unseen):
        found.append(
            f"GR308 column `{shortened(name)}`, which the map names, has no value in any line"
        )
    for (fact, text), count in _first(run.mapping.unknown):
        found.append(
            f"GR310 `{shortened(text)}` is not among the `values` of `{fact}` "
            f"({plural(count, 'request')}): the fact was left out; list it, or add a `default`"
        )
    return found


def _first(counts: Mapping[Counted, int]) -> list[tuple[Counted, int]]:
    """Return the most frequent few."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:_SHOWN]


def print_found(output: Output, found: Found, form: Format) -> None:
    """Print what was found, or that nothing was."""
    for note in found.notes:
        output.line(("note     ", "yellow"), shortened(note, 200))
    if found.ignored:
        codes = ", ".join(sorted({one.code for one in found.ignored}))
        text = f"{plural(len(found.ignored), 'finding')} accepted by a comment ({codes})"
        output.line(("note     ", "yellow"), text)
    output.line()
    if found.located:
        print_diagnostics(output, tuple(found.located), form)
    if not found.any:
        output.line(("no findings", "green"))
    for sentence in found.sentences:
        output.line(("finding  ", "red"), sentence)
    if found.located:
        codes = ", ".join(sorted({one.code for one in found.located}))
        output.line(("finding  ", "red"), f"{plural(len(found.located), 'warning')} ({codes})")

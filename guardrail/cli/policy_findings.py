"""All that is found in policies and their tests, without traffic: `lint` tells it, `check` too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from guardrail.analysis import analyse, folded
from guardrail.errors import Diagnostic, Severity, finding
from guardrail.http.doors import unfed_by_all
from guardrail.loading import CATALOGUE, accepted, idle_comments, lint
from guardrail.model.policy import PolicySet
from guardrail.scenarios import ScenarioResult, SuiteResult, suite_findings, undecided_rules

MOST_UNDECIDED = 20
"""How many rules that no test decides are told one by one."""

DOORS_CODE, STORE_CODE, FAILED = "GR205", "GR211", "GR401"
_OF_TRAFFIC = ("GR3", "GR502", "GR503")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What policies are judged by: the time in microseconds, and where they will be enforced.

    `doors` are names of doors and `store` is the URI of the store, None where that is not said;
    `geo` is a country database instead of the embedded one.
    """

    now: int
    doors: Sequence[str] = ()
    store: str | None = None
    geo: str | None = None


@dataclass(slots=True)
class PolicyFindings:
    """What was found, gravest and mildest, and what of it comments accept."""

    found: list[Diagnostic] = field(default_factory=list)
    ignored: list[Diagnostic] = field(default_factory=list)

    @property
    def faults(self) -> list[Diagnostic]:
        """What is more than a note."""
        return [one for one in self.found if one.severity is not Severity.NOTE]


def policy_findings(policies: PolicySet, suite: SuiteResult, setting: Setting) -> PolicyFindings:
    """Return what is wrong with policies that load, and with their tests."""
    now = setting.now
    every = lint(policies, now, setting.store)
    every += suite_findings(policies, suite, now, setting.geo)
    every += analyse(policies, now)
    for unfed in unfed_by_all(policies, setting.doors):
        message = f"rule `{unfed.rule.id}` cannot be enforced {unfed.why}"
        help = "leave it to another door, or set its `mode: off` here"
        every.append(finding(DOORS_CODE, message, unfed.rule.span, help))
    every += _undecided(policies, suite)
    found, ignored = accepted(policies, dict.fromkeys(every), now)
    return PolicyFindings(folded(found), ignored)


def failed_tests(suite: SuiteResult) -> list[Diagnostic]:
    """Return an error for each test that expects what does not happen."""
    return [_failed(result) for result in suite.results if result.mismatch is not None]


def comments_without_use(
    policies: PolicySet, ignored: Iterable[Diagnostic], setting: Setting, *, traffic: bool
) -> list[Diagnostic]:
    """Return a warning for each comment that accepts none of what was looked for.

    `ignored` is all that comments accepted, `traffic` whether requests were replayed.
    """
    looked_for: dict[str, Callable[[], bool]] = {
        DOORS_CODE: lambda: bool(setting.doors),
        STORE_CODE: lambda: setting.store is not None,
        FAILED: lambda: False,
    }
    sought = {
        code
        for code in CATALOGUE
        if looked_for.get(code, lambda: True)() and (traffic or not code.startswith(_OF_TRAFFIC))
    }
    return idle_comments(policies, ignored, setting.now, sought)


def _undecided(policies: PolicySet, suite: SuiteResult) -> list[Diagnostic]:
    by_id = {rule.id: rule for rule in policies.rules}
    undecided = [by_id[name] for name in undecided_rules(policies, suite.decided)]
    help = "add one that it decides: `expect: {EFFECT: REASON, by: RULE}`"
    if not policies.scenarios:
        undecided = undecided[:1]
    if len(undecided) > MOST_UNDECIDED:
        named = "`, `".join(rule.id for rule in undecided[:3])
        message = f"no test decides rules `{named}` and {len(undecided) - 3:,} more"
        return [finding("GR402", message, undecided[0].span, help)]
    return [
        finding(
            "GR402",
            f"no test decides rule `{rule.id}`" if policies.scenarios else "there are no tests",
            rule.span,
            help,
        )
        for rule in undecided
    ]


def _failed(result: ScenarioResult) -> Diagnostic:
    mismatch = result.mismatch
    assert mismatch is not None
    expected, got = mismatch.differences[0]
    message = f"test `{result.scenario.name}` expects {expected}, and got {got}"
    help = "`guardrail test` shows what every rule made of the request"
    span = mismatch.expectation.span
    return finding(FAILED, message, span, help)


def with_owners(found: Iterable[Diagnostic], policies: PolicySet) -> list[Diagnostic]:
    """Return findings with whom the rule that they stand in names, where it names someone."""
    named = [(rule.span, rule.about.contact) for rule in policies.rules if rule.about.contact]

    def owner(one: Diagnostic) -> str | None:
        for span, contact in named:
            if span.file == one.span.file and span.line <= one.span.line <= span.end_line:
                return contact
        return None

    return [replace(one, owner=owner(one)) for one in found]


def with_excerpts(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return findings with the lines they stand on, where those can be read."""
    lines: dict[str, list[str]] = {}
    shown: list[Diagnostic] = []
    for one in found:
        if one.excerpt is None and one.span.file not in lines:
            try:
                text = Path(one.span.file).read_text("utf-8-sig")
            except (OSError, ValueError):
                text = ""
            lines[one.span.file] = text.split("\n")
        read = lines.get(one.span.file, [])
        if one.excerpt is None and one.code != "GR228" and one.span.line <= len(read):
            line = read[one.span.line - 1].rstrip("\r")
            one = replace(one, excerpt=line or None)
        shown.append(one)
    return shown

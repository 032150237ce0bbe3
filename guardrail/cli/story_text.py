"""The story of a decision as text: each rule, why it matched or not, how its counters stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guardrail.cli.figures import columns, length, moment
from guardrail.cli.inert import padded, shortened, width, wrapped
from guardrail.engine import (
    NEVER_FITS,
    Answered,
    BandStory,
    ConditionStory,
    ExemptionStory,
    Explanation,
    LimitStatus,
    RuleStory,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule

Row = tuple[str, str, str, str]
_ANSWERS = {True: "yes", False: "no", None: "unknown"}
_WORD = {"match": "MATCH", "exempt": "exempt", "off": "off", "not in force": "not in force"}


def heading(told: Explanation) -> str:
    """Return a decision in one line: `DEGRADE to small   by tokens-per-day (public.yaml:32)`."""
    words = [str(told.effect).upper()]
    model = told.obligations.get("model")
    if told.effect is Effect.DEGRADE and model is not None:
        words.append(f"to {shortened(model)}")
    elif told.reason is not None:
        words.append(shortened(told.reason))
    by = ""
    if told.rule is not None:
        place = next((rule.place for rule in told.rules if rule.rule == told.rule), "")
        by = f"   by {shortened(told.rule)} ({shortened(place.rpartition('/')[2])})"
    elif told.effect is Effect.ALLOW:
        by = "   no rule objects"
    wait = ""
    if told.effect.refuses:
        after = told.retry_after
        wait = "   no retry helps" if after is None else f"   retry after {length(after)}"
    return " ".join(words) + by + wait


def rule_lines(
    told: Explanation, policies: PolicySet, only: Sequence[str] | None = None, cells: int = 0
) -> list[str]:
    """Return the rules of a decision as lines of four columns; `only` some of them.

    With `cells` they take no more than that.
    """
    by_id = {rule.id: rule for rule in policies.rules}
    rows = [
        row
        for story in told.rules
        if only is None or story.rule in only
        for row in _rule_rows(story, by_id[story.rule], told)
    ]
    # What stands alone in its line may be longer than the column of tests.
    tests = max((width(text) for _, _, text, answer in rows if answer), default=0)
    texts = [f"{padded(text, tests)}   {answer}".rstrip() for _, _, text, answer in rows]
    named = [(name, word) for name, word, _, _ in rows]
    first = max((width(name) for name, _ in named), default=0)
    first += max((width(word) for _, word in named), default=0) + 6
    if cells and first + max(map(width, texts), default=0) > cells:
        # Too narrow for columns: the name of a rule stands alone, what it came to beneath it.
        return list(_stacked(rows, cells))
    return columns(
        [(*pair, text) for pair, text in zip(named, texts, strict=True)], (False,) * 3, "   "
    )


def _stacked(rows: Sequence[Row], cells: int) -> Iterator[str]:
    words = max(width(word) for _, word, _, _ in rows)
    for name, word, text, answer in rows:
        if name:
            yield name
        first, *more = wrapped(f"{text}   {answer}".rstrip(), cells - words - 5)
        yield f"  {padded(word, words)}   {first}".rstrip()
        yield from (" " * (words + 5) + line for line in more)


def after_lines(told: Explanation) -> Iterator[tuple[str, str]]:
    """Yield what else is to be said: obligations, what went wrong, which data was read."""
    for name, value in told.obligations.items():
        yield "obligation  ", f"{shortened(name)}: {shortened(_shown(value))}"
    for error in told.errors:
        yield "note        ", shortened(error, 160)
    for source in told.sources:
        yield "data        ", shortened(source, 160)


def _rule_rows(story: RuleStory, rule: Rule, told: Explanation) -> Iterator[Row]:
    name, word = shortened(story.rule, 48), _standing(story)
    tests = list(_condition_cells(story.condition))
    if story.exemption is not None:
        tests.append((f"exempt by {shortened(story.exemption)}", ""))
    first, *more = tests
    yield name, word, *first
    for text, value in more:
        yield "", "", text, value
    if story.standing in ("match", "exempt"):
        for exemption in story.exemptions:
            yield from _exemption_rows(exemption)
    if story.standing != "match":
        return
    if story.unknown:
        yield "", "unknown", "the condition hinges on a missing fact", ""
    for band in story.bands:
        yield "", "amount", *_band_cells(band)
    for status in story.counters:
        yield "", "counter", _counter(status), ""
        yield from (("", "steps", text, "") for text in _steps(status, rule))
    if story.effect is not None:
        yield "", "asks for", _asked(story), ""
        if told.rule == story.rule and told.reason == NEVER_FITS and told.message:
            yield "", "", shortened(told.message, 160), ""
        for name, text in rule.about.lines().items():
            yield "", name, shortened(text, 160), ""


def _exemption_rows(told: ExemptionStory) -> Iterator[Row]:
    """Yield why an exemption of the rule does not apply, or that it raises its amounts."""
    if told.applies:
        if told.raises:
            yield "", "amount", f"raised by {shortened(told.exemption)}", ""
        return
    name = f"{shortened(told.exemption)} does not apply"
    if told.ended:
        yield "", "exemption", f"{name}: it has ended ({moment(told.expires - 1)})", ""
        return
    yield "", "exemption", name + (": it hinges on a missing fact" if told.unknown else ""), ""
    for cells in _condition_cells(told.condition, failed=True):
        yield "", "", *cells


def _standing(story: RuleStory) -> str:
    if story.mode is Mode.SHADOW and story.standing == "match":
        return "shadow"
    return _WORD.get(story.standing, story.standing)


def _condition_cells(
    told: ConditionStory, *, failed: bool = False, depth: int = 0
) -> Iterator[tuple[str, str]]:
    """Yield the lines of a condition as it stands in the policy, `any` and `not` with their parts.

    Of `failed` only the parts that keep it from holding.
    """
    space = "  " * depth
    if told.test is not None:
        text, answer = _test_cells(told.test)
        yield space + text, answer
    elif told.word == "all" and depth == 0 and told.parts:
        for part in told.parts:
            if not (failed and part.answer is True):
                yield from _condition_cells(part, failed=failed)
    elif not told.parts:
        yield (f"{space}always", "") if told.word == "all" else (f"{space}never", "")
    else:
        yield f"{space}{told.word}", _ANSWERS[told.answer]
        for part in told.parts:
            yield from _condition_cells(part, depth=depth + 1)


def _test_cells(test: Answered) -> tuple[str, str]:
    if test.value is None:
        # The test of a missing fact for being there has an answer.
        return shortened(test.text), f"missing: {_ANSWERS[test.answer]}"
    return shortened(test.text), f"{_shown(test.value)}: {_ANSWERS[test.answer]}"


def _band_cells(band: BandStory) -> tuple[str, str]:
    most = "unlimited" if band.amount is None else f"{band.amount:,.10g}"
    where = "below its first band" if band.start is None else f"from {shortened(band.start)}"
    value = _shown(band.value)
    if band.value is None:
        where, value = "its bands", "missing"
    return f"{most} {band.unit} by {shortened(band.fact)}, {where}", value


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{shortened(value, 60)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(shortened(part, 30) for part in value[:10]) + "]"
    return shortened(value, 60)


def _counter(status: LimitStatus) -> str:
    portion = f" ({100 * status.used / status.limit:.1f}%)" if status.limit else ""
    text = (
        f"{status.used:,.10g} of {status.limit:,.10g} {status.unit}{portion}, "
        f"{status.remaining:,.10g} left"
    )
    return (
        text
        if status.reset_after is None
        else f"{text}, full again in {length(status.reset_after)}"
    )


def _steps(status: LimitStatus, rule: Rule) -> Iterator[str]:
    parts = []
    for step in rule.verb.on_the_way:
        effect = step.verdict.effect
        name = "notify" if effect is Effect.ALLOW else str(effect)
        left = status.limit * step.percent / 100 - status.used
        parts.append(f"{step.percent}% {name} " + ("reached" if left < 0 else f"at +{left:,.10g}"))
    if parts:
        yield ", ".join(parts)


def _asked(story: RuleStory) -> str:
    words = [f"would {story.effect}" if story.mode is Mode.SHADOW else str(story.effect)]
    if story.reason not in (None, story.rule):
        words.append(shortened(story.reason))
    if story.effect is not None and story.effect.refuses and story.retry_after is not None:
        words.append(f"for {length(story.retry_after)}")
    if story.idle is not None:
        words.append(f"({shortened(story.idle, 160)})")
    return " ".join(words)

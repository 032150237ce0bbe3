"""What `guardrail diff` found for all requests, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guardrail.analysis import Change, Changes, Restart, RuleChange
from guardrail.cli.claims_text import explain_line, request_text, witness_fields
from guardrail.cli.inert import shortened, wrapped
from guardrail.cli.output import EFFECT_STYLES, Format, Output

_SIGNS = {"added": "+", "removed": "-", "renamed": ">", "changed": "~"}
_STYLES = {"added": "green", "removed": "red", "renamed": "cyan", "changed": "yellow"}
NOTHING_LOOSER = "Nothing became looser: no request is asked for less than before."
NOTHING_STRICTER = "Nothing became stricter."
_INDENT = " " * 9


def print_changes(output: Output, found: Changes, form: Format, new: str) -> None:
    """Print what differs between two policy sets, for all requests; `new` is the new one's path."""
    if form is Format.CONCISE:
        _print_concise(output, found)
        return
    _print_rules(output, found.rules)
    _print_classes(output, "looser", found.looser, NOTHING_LOOSER, new)
    _print_classes(output, "stricter", found.stricter, NOTHING_STRICTER, new)
    _print_restarts(output, found.restarts)
    for note in (*found.notes, *found.unjudged):
        output.told("note", shortened(note, 300), "yellow")


def _grouped(changes: Sequence[Change]) -> list[list[Change]]:
    """Return the changes of one rule that one request shows together."""
    groups: dict[tuple[str, str, int | None], list[Change]] = {}
    for one in changes:
        key = one.rule, request_text(one.witness), one.witness.at
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _print_classes(
    output: Output, title: str, changes: Sequence[Change], none: str, path: str
) -> None:
    groups = _grouped(changes)
    count = f"{len(groups):,} {'class' if len(groups) == 1 else 'classes'} of requests"
    output.told(title, count if groups else none)
    for group in groups:
        _print_change(output, group, path)


def _print_rules(output: Output, changes: Sequence[RuleChange]) -> None:
    title = ("rules    ", "bold")
    if not changes:
        output.line(title, "no rule differs")
    for place, change in enumerate(changes):
        name = shortened(change.rule)
        if change.was is not None:
            name += f" (was {shortened(change.was)})"
        words = "; ".join([*change.lines, *_condition(change)])
        told = f"{change.kind}" + (f": {shortened(words, 300)}" if words else "")
        signed = f"{_SIGNS[change.kind]} {name}"
        lines = wrapped(f"{signed}  {told}", output.width - len(_INDENT) - 2)
        first = lines[0].removeprefix(signed)
        output.line(title if place == 0 else _INDENT, (signed, _STYLES[change.kind]), first)
        output.lines(lines[1:], len(_INDENT) + 2)


def _condition(change: RuleChange) -> Iterator[str]:
    if change.gained and change.lost:
        yield "applies to other requests"
    elif change.gained:
        yield "applies to more requests"
    elif change.lost:
        yield "applies to fewer requests"
    if change.gained:
        yield f"now also to {request_text(change.gained)}"
    if change.lost:
        yield f"no longer to {request_text(change.lost)}"


def _print_change(output: Output, group: Sequence[Change], path: str) -> None:
    first = group[0]
    before, after = first.effects
    output.line(_INDENT, (shortened(first.rule), "bold"))
    room = output.width - len(_INDENT) - 6
    for one in group:
        for word, text in (("was ", one.before), ("is  ", one.after)):
            told = wrapped(shortened(text, 200), room)
            output.line(_INDENT, f"  {word}{told[0]}")
            output.lines(told[1:], len(_INDENT) + 6)
    shown = wrapped(f"e.g. {shortened(request_text(first.witness), 400)}", room)
    output.lines(shown, len(_INDENT) + 2)
    changed = (" → ", (str(after), EFFECT_STYLES[str(after)])) if before != after else ()
    output.line(_INDENT, "  at first: ", (str(before), EFFECT_STYLES[str(before)]), *changed)
    output.line(_INDENT, f"  {explain_line(first.witness, (path,))}")


def _print_restarts(output: Output, restarts: Sequence[Restart]) -> None:
    title = ("counters ", "bold")
    if not restarts:
        output.line(title, "all go on")
    for place, one in enumerate(restarts):
        text = f"{shortened(one.rule)} starts afresh ({shortened(one.why, 120)}): {one.help}"
        output.told("" if place else "counters", text)


def _print_concise(output: Output, found: Changes) -> None:
    for change in found.rules:
        words = "; ".join([*change.lines, *_condition(change)])
        line = f"rule {_SIGNS[change.kind]} {shortened(change.rule)} {change.kind}"
        output.line(line + (f": {shortened(words, 300)}" if words else ""))
    for word, changes in (("looser", found.looser), ("stricter", found.stricter)):
        for one in changes:
            output.line(
                f"{word} {shortened(one.rule)}: {shortened(one.before, 200)} -> "
                f"{shortened(one.after, 200)} e.g. {shortened(request_text(one.witness), 400)}"
            )
    for restart in found.restarts:
        output.line(f"counters {shortened(restart.rule)} start afresh: {restart.why}")
    for note in (*found.notes, *found.unjudged):
        output.line(f"note {shortened(note, 300)}")
    output.line(f"{len(found.looser)} looser, {len(found.stricter)} stricter")


def changes_fields(found: Changes) -> dict[str, object]:
    """Return what differs as JSON takes it."""
    return {
        "looser": [_change_fields(one) for one in found.looser],
        "stricter": [_change_fields(one) for one in found.stricter],
        "nothing_looser": not found.looser and not found.unjudged,
        "rules": [_rule_fields(one) for one in found.rules],
        "counters": [{"rule": r.rule, "why": r.why, "help": r.help} for r in found.restarts],
        "notes": list(found.notes),
        "unjudged": list(found.unjudged),
    }


def _change_fields(one: Change) -> dict[str, object]:
    before, after = one.effects
    return {
        "rule": one.rule,
        "was": one.before,
        "is": one.after,
        "request": witness_fields(one.witness),
        "before": str(before),
        "after": str(after),
    }


def _rule_fields(one: RuleChange) -> dict[str, object]:
    return {
        "rule": one.rule,
        "change": one.kind,
        "was": one.was,
        "differs": list(one.lines),
        "now_also": witness_fields(one.gained),
        "no_longer": witness_fields(one.lost),
    }

"""Compiles what a replay of traffic must come to: `expect` of policy files and of `--expect`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from guardrail.loading.conditions import Conditions, written
from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import MapNode, Node, Scalar, kind_of, text_in
from guardrail.loading.notation import share_of
from guardrail.loading.shapes import BoundsShape, ThresholdShape
from guardrail.loading.shaping import keys_of, shaped
from guardrail.loading.suggest import nearest
from guardrail.loading.text import listed, quoted
from guardrail.model.cells import TOP
from guardrail.model.conditions import ALWAYS, Condition, Some, text_of
from guardrail.model.policy import BoundOperator, Measure, Threshold

_ACCOUNTS = "_accounts"
_BAD_LINES = "bad_lines"
_OPERATORS = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_SIGNS = {sign: name for name, sign in _OPERATORS.items()}
_HELP = "write `{lte: 0.1%}`, or a number: `{lte: 10}`; operators: lt, lte, gt, gte"


def measures() -> list[str]:
    """Return the names of what can be measured, as a file writes them."""
    return [name for name in keys_of(ThresholdShape) if name not in ("when", "by")]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Compiles thresholds over one scope."""

    scope: Scope
    conditions: Conditions

    def thresholds(self, node: Node) -> Iterator[Threshold]:
        """Yield the thresholds of one entry; what is wrong is reported."""
        place = Place(node, self.scope.findings)
        if not isinstance(node, MapNode):
            message = f"an expectation is a map, not {kind_of(node)}"
            help = "write `{when: {account.tier: verified}, refused: {lte: 0.1%}}`"
            place.report("GR102", (), message, help=help)
            return
        shape = shaped(ThresholdShape, place)
        if shape is None:
            return
        named = [name for name in measures() if getattr(shape, name) is not None]
        if not named:
            help = f"add one of {listed(measures(), 'or', 12)}"
            place.report("GR102", (), "the expectation measures nothing", help=help)
        if shape.by is not None:
            self.scope.rule(shape.by, place.at("by").span)
        when: Condition | None = ALWAYS
        if shape.when is not None:
            when = self.conditions.compile(shape.when)
        for name in named:
            bounds = getattr(shape, name)
            if when is not None:
                yield from self._bounds(name, bounds, when, shape, place)

    def _bounds(
        self, name: str, node: Node, when: Condition, shape: ThresholdShape, place: Place
    ) -> Iterator[Threshold]:
        if not isinstance(node, MapNode) or not node.entries:
            message = f"`{name}` takes an operator and a bound, not {kind_of(node)}"
            help = f"write `{name}: {{lte: {written(node)}}}`" if _is_bound(node) else _HELP
            place.report("GR102", (name,), message, help=help)
            return
        if name == _BAD_LINES and (shape.when is not None or shape.by is not None):
            message = "`bad_lines` are no requests: `when` and `by` do not apply to them"
            place.report_key("GR102", (name,), message, help="put them into an entry of their own")
            return
        inner = Place(node, self.scope.findings)
        if shaped(BoundsShape, inner) is None:
            return
        for entry in node.entries:
            bound = _bound(entry.value)
            if bound is None:
                shown = quoted(written(entry.value))
                message = f"{shown} is neither a share nor a whole number"
                self.scope.report("GR110", entry.value, message, help=_HELP)
                continue
            operator = cast(BoundOperator, entry.key.text)
            measure = name.removesuffix(_ACCOUNTS)
            yield Threshold(
                when=when,
                measure=cast(Measure, measure),
                operator=operator,
                bound=bound[0],
                is_share=bound[1],
                accounts=name.endswith(_ACCOUNTS),
                by=shape.by,
                text=_text(name, operator, written(entry.value), shape, when),
                span=entry.value.span if place.node.span.file == "--expect" else node.span,
            )


def _is_bound(node: Node) -> bool:
    return isinstance(node, Scalar) and _bound(node) is not None


def _bound(node: Node) -> tuple[Fraction, bool] | None:
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is int and 0 <= value <= TOP:
        return Fraction(value), False
    share = share_of(text_in(node) or "")
    return None if share is None else (share, True)


def _text(
    name: str, operator: BoundOperator, bound: str, shape: ThresholdShape, when: Condition
) -> str:
    segment = f"({text_of(when)})" if isinstance(when, Some) else text_of(when)
    words = [] if when is ALWAYS else [segment]
    words += [name.replace("_", " "), _OPERATORS[operator], bound]
    if shape.by is not None:
        words.append(f"by {shape.by}")
    return " ".join(words)


_TERM = re.compile(r"\s*([\w.]+)\s*=\s*([^,{}\[\]]+?)\s*")
_LINE = re.compile(
    r"\s*(?P<before>.*?)\s*(?P<sign><=|>=|<|>|==?|!=)\s*(?P<bound>[^\s=<>]+)"
    r"(?:\s+by\s+(?P<by>\S+))?\s*",
    re.DOTALL,
)
_COUNT = re.compile(r"[0-9]{1,16}")
_WORDS = re.compile(r"(?:(?P<when>.*\S)\s+)?(?P<measure>\S+)", re.DOTALL)


def written_out(option: str) -> str:
    """Return an option such as `account.tier=verified refused <= 0.1%` as an entry of `expect`.

    Raises:
        ValueError: it is none; the message says what to write.
    """
    example = "write `account.tier=verified refused <= 0.1%`"
    # The last sign is the bound's: a condition may hold others.
    at = max((option.rfind(sign) for sign in ("<", ">")), default=-1)
    found = _LINE.fullmatch(option[at:]) if at >= 0 else None
    if found is None or found["before"]:
        raise ValueError(f"has no bound: {example}")
    before = option[:at].strip()
    for word in ("accounts", "lines", "up"):
        before = re.sub(rf"\s+{word}\b(?=$|_accounts$)", f"_{word}", before)
    words = _WORDS.fullmatch(before)
    name = words["measure"].replace(" ", "_") if words else ""
    if words is None or name not in measures():
        near = nearest(name, measures())
        meant = f"did you mean `{near}`?" if near else f"it can be {listed(measures(), 'or', 12)}"
        raise ValueError(f"measures {quoted(name)}: {meant}")
    bound = found["bound"]
    is_count = _COUNT.fullmatch(bound) is not None and int(bound) <= TOP
    if not is_count and share_of(bound) is None:
        raise ValueError(
            f"has the bound {quoted(bound)}, which is neither a share up to 100% nor a whole "
            "number: write `refused <= 0.1%`, or `refused <= 10`"
        )
    parts = []
    if words["when"]:
        parts.append(f"when: {_when(words['when'])}")
    if found["by"]:
        parts.append(f"by: {found['by']}")
    parts.append(f"{name}: {{{_SIGNS[found['sign']]}: {bound}}}")
    return "{" + " ".join(", ".join(parts).splitlines()) + "}"


def _when(text: str) -> str:
    if text.startswith("{") or text == "always":
        return text
    terms = []
    for term in text.split(","):
        found = _TERM.fullmatch(term)
        if found is None:
            raise ValueError(
                f"has the condition {quoted(text)}: write `account.tier=verified`, or a condition "
                "as in a rule, `{account.tier: {at_least: verified}}`"
            )
        terms.append(f"{found[1]}: {found[2]}")
    return "{" + ", ".join(terms) + "}"

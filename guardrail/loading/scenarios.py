"""Compiles the tests that policy authors write."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from guardrail.loading.conditions import written
from guardrail.loading.findings import Path, Place, Scope
from guardrail.loading.foreign import effect as other_effect
from guardrail.loading.nodes import (
    NOTHING,
    ListNode,
    MapNode,
    Node,
    Scalar,
    all_or_none,
    kind_of,
    plain,
    text_in,
)
from guardrail.loading.notation import (
    MONEY,
    read_amount,
    read_at,
    read_duration,
    read_instant,
    typed,
)
from guardrail.loading.shapes import Degrading, ExpectShape, ScenarioShape, ScenarioStepShape
from guardrail.loading.shaping import report_unknown_key, shaped
from guardrail.loading.suggest import did_you_mean, suggestion
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import MICRO, SECOND
from guardrail.model.cells import TOP
from guardrail.model.effects import EFFECTS, Effect
from guardrail.model.facts import FactType
from guardrail.model.policy import Expectation, Scenario, ScenarioStep

MOST_CASES = 1_000
"""How many tests one matrix may make."""
_SECONDS = (FactType.TIMESTAMP, FactType.DURATION)


@dataclass(frozen=True, slots=True)
class Scenarios:
    """Compiles tests over one scope."""

    scope: Scope

    def scenarios(self, node: MapNode) -> tuple[Scenario, ...]:
        """Compile one test, or those of its matrix; report what is wrong, and return none."""
        place = Place(node, self.scope.findings, node.get("name"))
        shape = shaped(ScenarioShape, place, self.scope.units)
        if shape is None:
            return ()
        start = node.get("now") or self.scope.today or shape.now
        now = read_at(self.scope, start, partial(read_instant, zone=self.scope.zone))
        given = self._given(shape.use)
        facts = self._facts(shape.facts, place, ("facts",))
        cases = self._cases(shape.matrix, place)
        if (shape.expect is None) == (shape.steps is None):
            message = "a test has either `expect` or `steps`"
            help = "put what each request is expected to do into its step"
            if shape.steps is None:
                help = "add `expect: allow`, or another effect"
            place.report_key("GR102", (), message, help=help)
            return ()
        steps = self._steps(shape, place)
        if now is None or given is None or facts is None or cases is None or steps is None:
            return ()
        return tuple(
            Scenario(
                name=f"{shape.name} ({told})" if told else shape.name,
                now=now,
                facts={**given, **facts, **case},
                steps=steps,
                span=node.span,
            )
            for told, case in cases
        )

    def _given(self, node: Node | None) -> dict[str, object] | None:
        """Return the facts of the fixtures that a test uses, those of later ones first."""
        given: dict[str, object] = {}
        fine = True
        parts = node.parts if isinstance(node, ListNode) else () if node is None else (node,)
        for part in parts:
            name = text_in(part)
            fixture = None if name is None else self.scope.fixtures.get(name)
            if fixture is None:
                fine = False
                if name is None:
                    message = f"`use` takes the name of a fixture, not {kind_of(part)}"
                    self.scope.report("GR102", part, message)
                elif not self.scope.partial:
                    help = did_you_mean(name, self.scope.fixtures, "fixtures")
                    self.scope.report("GR107", part, f"unknown fixture {quoted(name)}", help=help)
                continue
            named = {entry.key.text: entry.value for entry in fixture.entries}
            facts = self._facts(named, Place(fixture, self.scope.findings), ())
            fine = fine and facts is not None
            given.update(facts or {})
        return given if fine else None

    def _cases(
        self, matrix: dict[str, Node] | None, place: Place
    ) -> list[tuple[str, dict[str, object]]] | None:
        """Return every combination of a matrix, each with what it is called; one without any."""
        columns: list[list[tuple[str, str, object]]] = []
        fine = True
        for name, node in (matrix or {}).items():
            parts = node.parts if isinstance(node, ListNode) else ()
            if not parts:
                message = f"the matrix needs a list of values for {quoted(name)}"
                place.report("GR102", ("matrix", name), message, help=f"write `{name}: [A, B]`")
                fine = False
            column = []
            for part in parts:
                found = self._facts({name: part}, place, ("matrix",))
                fine = fine and found is not None
                column.append((name, written(part), (found or {}).get(name)))
            columns.append(column)
        if matrix is not None and not matrix:
            place.report("GR108", ("matrix",), "`matrix` is empty", help="leave it out")
            return None
        if math.prod(map(len, columns)) > MOST_CASES:
            message = f"the matrix has more than {MOST_CASES:,} combinations"
            place.report_key("GR102", ("matrix",), message, help="leave out some of the values")
            return None
        if not fine:
            return None
        return [
            (
                ", ".join(f"{name} {text}" for name, text, _ in chosen),
                {name: value for name, _, value in chosen},
            )
            for chosen in product(*columns)
        ]

    def _steps(self, shape: ScenarioShape, place: Place) -> tuple[ScenarioStep, ...] | None:
        if shape.steps is None:
            expect = self._expect(place, ("expect",))
            if expect is None:
                return None
            return (ScenarioStep(expect=expect, span=place.node.span),)
        if not shape.steps:
            place.report("GR108", ("steps",), "`steps` is empty", help="add a request")
            return None
        return all_or_none(
            [self._step(step, place, ("steps", i)) for i, step in enumerate(shape.steps)]
        )

    def _step(self, shape: ScenarioStepShape, place: Place, path: Path) -> ScenarioStep | None:
        facts = self._facts(shape.facts, place, (*path, "facts"))
        estimate = self._amounts(shape.entries, place, path)
        usage = None
        if shape.usage is not None:
            usage = self._amounts(shape.usage, place, (*path, "usage"))
        advance, every, duration = map(self._duration, (shape.advance, shape.every, shape.duration))
        expect = self._expect(place, (*path, "expect")) if shape.expect is not None else None
        failed = usage is None and shape.usage is not None
        failed = failed or (expect is None and shape.expect is not None)
        if failed or facts is None or estimate is None:
            return None
        if advance is None or every is None or duration is None:
            return None
        return ScenarioStep(
            facts=facts,
            estimate=estimate,
            usage=usage,
            advance=advance,
            repeat=shape.repeat,
            every=every,
            duration=duration,
            expect=expect,
            span=place.at(*path).span,
        )

    def _facts(
        self, written: dict[str, Node], place: Place, path: Path
    ) -> dict[str, object] | None:
        facts: dict[str, object] = {}
        for name, node in written.items():
            help = None
            if name in self.scope.units:
                help = f"an amount stands in a step: write `steps: [{{{name}: …, expect: …}}]`"
            fact = self.scope.fact(name, place.key_span((*path, name)), help=help)
            value: object = None
            if fact is not None and fact.type in _SECONDS:
                value = _seconds(node)
            if fact is not None and value is None:
                value = typed(fact, node, self.scope)
            facts[name] = value
        return None if None in facts.values() else facts

    def _amounts(
        self, entries: dict[str, Node], place: Place, path: Path
    ) -> dict[str, object] | None:
        amounts: dict[str, object] = {}
        fine = True
        for name, node in entries.items():
            if name not in self.scope.units:
                report_unknown_key(place, (*path, name), sorted(self.scope.units))
                fine = False
                continue
            unit = "input_tokens" if name == "tokens" else name
            if unit in amounts:
                message = "`tokens` and `input_tokens` both give the input"
                place.report_key("GR103", (*path, name), message, help="keep one of them")
                fine = False
            money = name == MONEY
            amount = read_at(self.scope, node, partial(read_amount, money=money))
            fine = fine and amount is not None
            amounts[unit] = amount / MICRO if money and amount is not None else amount
        return amounts if fine else None

    def _duration(self, node: Node | None) -> int | None:
        return 0 if node is None else read_at(self.scope, node, partial(read_duration, least=0))

    def _expect(self, place: Place, path: Path) -> Expectation | None:
        node = place.at(*path)
        if isinstance(node, Scalar) and isinstance(node.value, str):
            if node.value in EFFECTS:
                return Expectation(effect=Effect[node.value.upper()], span=node.span)
            help = other_effect(node.value) or suggestion(node.value, EFFECTS, None)
            label = f"one of {listed(EFFECTS, 'or')}"
            message = f"{quoted(node.text)} is not an effect"
            self.scope.report("GR106", node, message, label=label, help=help)
            return None
        inner = Place(node, self.scope.findings, _key_node(place, path))
        shape = shaped(ExpectShape, inner)
        return None if shape is None else self._expectation(shape, inner)

    def _expectation(self, shape: ExpectShape, place: Place) -> Expectation | None:
        chosen = [name for name in EFFECTS if getattr(shape, name) is not None]
        if len(chosen) != 1:
            message = f"a decision has one effect, this says {listed(chosen)}"
            if not chosen:
                message = "this does not say which effect to expect"
            help = f"write one of {listed(EFFECTS, 'or')}, such as `{{allow: true}}`"
            place.report_key("GR102", (), message, help=help)
            return None
        effect = chosen[0]
        written: Node = getattr(shape, effect)
        detail: Any = plain(written)
        fine = self._known_rules(shape, place)
        if detail is True or detail is NOTHING:
            detail = None
        elif not isinstance(detail, str) or effect == "allow":
            wanted = {"allow": "`true`", "degrade": "a model"}.get(effect, "a reason")
            found = kind_of(written)
            place.report("GR102", (effect,), f"`{effect}` must be {wanted}, not {found}")
            fine = False
        retry_after = None
        if shape.retry_after is not None:
            retry_after = self._wait(shape.retry_after)
            fine = fine and retry_after is not None
        if not fine:
            return None
        return Expectation(
            effect=Effect[effect.upper()],
            detail=detail,
            by=shape.by,
            retry_after=retry_after,
            obligations=_obligations(shape.obligations),
            shadow=None if shape.shadow is None else tuple(shape.shadow),
            span=place.node.span,
        )

    def _wait(self, node: Node) -> float | None:
        seconds = _seconds(node)
        if seconds is None:
            length = self._duration(node)
            return None if length is None else length / SECOND
        return float(seconds)

    def _known_rules(self, shape: ExpectShape, place: Place) -> bool:
        fine = shape.by is None or self.scope.rule(shape.by, place.at("by").span)
        for index, rule in enumerate(shape.shadow or ()):
            fine = self.scope.rule(rule, place.at("shadow", index).span) and fine
        return fine


def _seconds(node: Node) -> int | float | None:
    """Return what is written as plain seconds, as traffic files have it."""
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= TOP:
        return None
    return value


def _key_node(place: Place, path: Path) -> Node | None:
    around = place.at(*path[:-1])
    for entry in around.entries if isinstance(around, MapNode) else ():
        if entry.key.text == path[-1]:
            return entry.key
    return None


def _obligations(shape: Degrading | None) -> dict[str, object] | None:
    if shape is None:
        return None
    obligations = {name: plain(node) for name, node in shape.entries.items()}
    for name in ("model", "max_output_tokens"):
        if getattr(shape, name) is not None:
            obligations[name] = getattr(shape, name)
    if shape.disable is not None:
        obligations["disable"] = tuple(shape.disable)
    return obligations

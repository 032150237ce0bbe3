"""Checks a construct against its shape, and says what is wrong in the author's words."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from guardrail.loading import foreign
from guardrail.loading.findings import Path, Place
from guardrail.loading.foreign_keys import key_within
from guardrail.loading.foreign_values import boolean
from guardrail.loading.nodes import ListNode, MapNode, Node, Scalar, kind_of, plain
from guardrail.loading.shapes import (
    COUNTING,
    OPEN,
    VERBS,
    ExpectShape,
    FactShape,
    OpenShape,
    Refusal,
    RuleShape,
    ScenarioShape,
    Shape,
)
from guardrail.loading.suggest import nearest, suggestion
from guardrail.loading.text import listed, quoted

S = TypeVar("S", bound=Shape)

_WANTED = {
    "model_type": "a map",
    "dict_type": "a map",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "`true` or `false`",
}


_THOUSANDS = re.compile(r"(?<![^\s:])([1-9]\d{0,2}(?:,\d{3})*),\Z")
_MORE = re.compile(r"\d{3}(?:,\d{3})*(?=\s*[,}])")


def shaped(shape: type[S], place: Place, units: frozenset[str] = frozenset()) -> S | None:
    """Return a construct in its shape; report what does not fit and return None.

    `units` are the keys that amounts may stand under.
    """
    node = place.node
    try:
        return shape.model_validate(
            node if isinstance(node, MapNode) else plain(node), context=units
        )
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    suggested = {
        (*detail["loc"][:-1], near)
        for detail in details
        if detail["type"] == "extra_forbidden"
        and (near := _nearest_key(shape, detail["loc"], units)) is not None
    }
    for detail in details:
        if detail["type"] == "extra_forbidden":
            _unknown_key(shape, detail["loc"], place, units)
        elif detail["type"] == "missing":
            if detail["loc"] not in suggested:
                _missing_key(detail["loc"], place)
        elif detail["type"] == "literal_error":
            _not_a_choice(shape, detail["loc"], place)
        else:
            _wrong_kind(shape, detail, place)
    return None


def keys_of(shape: type[BaseModel]) -> list[str]:
    """Return the keys a construct has, as a file writes them."""
    names = (field.alias or name for name, field in shape.model_fields.items())
    return [name for name in names if name != OPEN]


def report_unknown_key(
    place: Place, path: Path, known: Sequence[str], advice: str | None = None
) -> None:
    """Report a key that is not among those a map can have; `advice` knows what it is meant as."""
    name = str(path[-1])
    help = advice or _without_commas(place, path)
    help = help or suggestion(name, known, f"known keys: {listed(known, most=12)}")
    place.report_key("GR101", path, f"unknown key {quoted(name)}", help=help)


def only_keys(place: Place, known: Sequence[str]) -> bool:
    """Tell whether a map has no other keys than these; what else it has is reported."""
    entries = place.node.entries if isinstance(place.node, MapNode) else ()
    others = [entry.key.text for entry in entries if entry.key.text not in known]
    for name in others:
        report_unknown_key(place, (name,), known)
    return not others


def _without_commas(place: Place, path: Path) -> str | None:
    """Return the advice on a key that is the rest of a number such as `1,000`."""
    span = place.key_span(path)
    source = next(one for one in place.findings.sources() if one.file == span.file)
    before = _THOUSANDS.search(source.rest(span.line, 1)[: span.column - 1])
    after = _MORE.match(source.rest(span.line, span.column))
    if before is None or after is None:
        return None
    number = (before[1] + after[0]).replace(",", "")
    if number.endswith("000"):
        short = f"{number[:-6]}M" if number.endswith("000000") else f"{number[:-3]}k"
        return f"write `{number}` or `{short}`: a comma ends a value here"
    return f"write `{number}`: a comma ends a value here"


def _nearest_key(shape: type[Shape], path: Path, units: frozenset[str]) -> str | None:
    return nearest(str(path[-1]), _known_keys(shape, path[:-1], units))


def _known_keys(shape: type[Shape], path: Path, units: frozenset[str]) -> list[str]:
    inner = _shape_at(shape, path)
    known = keys_of(inner)
    if issubclass(inner, OpenShape):
        known += sorted(unit for unit in units if inner.takes(unit, units))
    return known


def _unknown_key(shape: type[Shape], path: Path, place: Place, units: frozenset[str]) -> None:
    known = _known_keys(shape, path[:-1], units)
    around = place.at(*path[:-1])
    if isinstance(around, Scalar):
        _report_choice(place, path[:-1], around, known)
    else:
        report_unknown_key(place, path, known, _advice(shape, path, place, units))


def _advice(shape: type[Shape], path: Path, place: Place, units: frozenset[str]) -> str | None:
    """Return the advice on a key that other tools have, or that stands on another level."""
    name, owner = str(path[-1]), path[-2] if len(path) > 1 else None
    if shape is ScenarioShape and owner is None and name in _known_keys(shape, ("steps",), units):
        return f"it stands in a step: write `steps: [{{{name}: …, expect: …}}]`"
    if shape is not RuleShape:
        return key_within(_shape_at(shape, path[:-1]).__name__, name)
    if owner is None:
        present = [verb for verb in VERBS if place.at(verb) is not place.node]
        advice = foreign.rule_key(name, place.at(*path))
        limit = next((verb for verb in present if verb in COUNTING), None)
        if name == "throttle" and limit is not None:
            return f"write `over: {{{name}: {{…}}}}`"
        inner = {verb: _known_keys(shape, (verb,), units) for verb in present}
        if limit is not None and name in Refusal.model_fields:
            return f"it stands one level down: write `over: {{throttle: {{{name}: …}}}}`"
        return advice or foreign.lower(name, inner)
    advice = None
    if owner in COUNTING:
        advice = foreign.limit_key(str(owner), name)
        if advice is None and owner in ("rate", "budget") and _may_be_unit(place, path, units):
            advice = foreign.undeclared_unit(name)
    elif owner in ("block", "throttle"):
        advice = foreign.refusal_key(name)
    return advice or foreign.higher(name, keys_of(RuleShape), str(path[0]))


def _may_be_unit(place: Place, path: Path, units: frozenset[str]) -> bool:
    """Whether a key of a limit that nothing else is near has an amount, as a unit has."""
    name, value = str(path[-1]), place.at(*path)
    known = (*_known_keys(RuleShape, path[:-1], units), *keys_of(RuleShape))
    amount = isinstance(value, Scalar) and re.match(r"\d", value.text) is not None
    return (
        amount and re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not nearest(name, known)
    )


def _missing_key(path: Path, place: Place) -> None:
    name, owner = str(path[-1]), path[:-1]
    verb = owner[-1] if owner else None
    if name == "key" and verb in COUNTING:
        help = "add `key: account.id`, another fact, a list of facts, or `key: global`"
        place.report_key(
            "GR111", owner, f"`{verb}` has no `key`", label="whose limit is it?", help=help
        )
        return
    if isinstance(verb, int):
        place.report("GR102", owner, f"missing `{name}`", help=f"add `{name}:`")
        return
    message = f"{quoted(str(verb))} has no `{name}`" if verb else f"missing `{name}`"
    paced = foreign.missing_window(place.at(*owner)) if (verb, name) == ("budget", "per") else None
    place.report_key("GR102", owner, message, help=paced or f"add `{name}:`")


def _not_a_choice(shape: type[Shape], path: Path, place: Place) -> None:
    node = place.at(*path)
    choices = _choices_at(shape, path)
    if isinstance(node, Scalar) and isinstance(node.value, str):
        _report_choice(place, path, node, choices)
    else:
        message = f"{_name(path)} must be one of {listed(choices, 'or', 12)}, not {kind_of(node)}"
        place.report("GR106", path, message)


def _report_choice(place: Place, path: Path, node: Scalar, choices: Sequence[str]) -> None:
    meant = foreign.choice(str(path[-1]), node.text) if path else None
    help = f"did you mean `{meant}`?" if meant in choices else suggestion(node.text, choices, None)
    label = f"one of {listed(choices, 'or', 12)}"
    place.report(
        "GR106", path, f"{_name(path)} cannot be {quoted(node.text)}", label=label, help=help
    )


def _wrong_kind(shape: type[Shape], detail: ErrorDetails, place: Place) -> None:
    path = detail["loc"]
    node = place.at(*path)
    wanted = _WANTED.get(detail["type"], "of another kind")
    bound = detail["type"] in ("greater_than_equal", "less_than_equal")
    if bound:
        wanted = _bound(detail["ctx"])
    found = quoted(node.text) if bound and isinstance(node, Scalar) else kind_of(node)
    name, advice = _name(path), None
    if not path and isinstance(place.title, Scalar):
        name = quoted(place.title.text)
        advice = foreign.fact(place.title.text, node) if shape is FactShape else None
    if not path and shape is ExpectShape and isinstance(node, Scalar):
        advice = foreign.effect(node.text)
    place.report(
        "GR110" if bound else "GR102",
        path,
        f"{name} must be {wanted}, not {found}",
        help=advice or _as_wanted(wanted, node, path) or _keys_of_a_map(shape, detail, node),
    )


def _keys_of_a_map(shape: type[Shape], detail: ErrorDetails, node: Node) -> str | None:
    """Return the advice on a list where a map is wanted: which keys it has."""
    if not isinstance(node, ListNode) or detail["type"] not in ("model_type", "dict_type"):
        return None
    if detail["type"] == "dict_type":
        return f"write `{detail['loc'][-1]}: {{NAME: …}}`"
    return f"its keys: {listed(keys_of(_shape_at(shape, detail['loc'])), most=12)}"


def _as_wanted(wanted: str, node: Node, path: Path) -> str | None:
    """Return how to write a node as what is wanted in its place, None where that is not known."""
    key = path[-1] if path and isinstance(path[-1], str) else None
    if not isinstance(node, Scalar):
        if wanted == "a list" and isinstance(node, MapNode):
            return "write `- ` before each, also where there is one alone"
        return None
    if node.value is None:
        is_map = wanted == "a map" and key is not None
        return f"write `{key}: {{}}` if there is nothing to add" if is_map else None
    text = node.text
    if wanted == "text":
        return f'quote it: `"{text}"`' if len(text) < 40 else "quote it"
    if wanted == "`true` or `false`":
        return boolean(text)
    if wanted == "a whole number":
        return _whole(text) or (f"such as `{key}: 10`" if key else None)
    if wanted == "a list" and key:
        return f"write `{key}: [{text}]`" if len(text) < 40 else f"write `{key}: […]`"
    return foreign.map_of(key, node) if wanted == "a map" and key else None


def _whole(text: str) -> str | None:
    """Return how to write the whole number that a text means, None where it means none."""
    thousands = r"[.]" if re.fullmatch(r"\d{1,3}(\.\d{3})+", text) else r"[,_' ]"
    joined = re.sub(rf"(?<=\d){thousands}(?=\d{{3}}(\D|$))", "", text.strip())
    found = re.match(r"(\d+(?:\.\d+)?) ?([kKmMgG])?(?![\w.,])", joined)
    if found is None:
        return None
    number = Decimal(found[1]) * _TIMES[(found[2] or "").lower()]
    whole = number.to_integral_value()
    return f"write `{whole:f}`" if number == whole else None


_TIMES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def _bound(limits: Mapping[str, Any]) -> str:
    return f"{limits['ge']:,} or more" if "ge" in limits else f"at most {limits['le']:,}"


def _name(path: Path) -> str:
    if not path:
        return "this"
    if isinstance(path[-1], int):
        owner = next((name for name in reversed(path) if isinstance(name, str)), None)
        return f"an entry of `{owner}`" if owner else "this"
    return quoted(path[-1])


def _shape_at(shape: type[Shape], path: Path) -> type[Shape]:
    for name in path:
        if isinstance(name, str):
            shape = _inner(_annotation(shape, name)) or shape
    return shape


def _annotation(shape: type[Shape], name: str) -> Any:
    for attribute, field in shape.model_fields.items():
        if (field.alias or attribute) == name:
            return field.annotation
    return None


def _inner(annotation: Any) -> type[Shape] | None:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return annotation
    found = (_inner(part) for part in typing.get_args(annotation))
    return next((inner for inner in found if inner is not None), None)


def _choices_at(shape: type[Shape], path: Path) -> list[str]:
    names = [name for name in path if isinstance(name, str)]
    owner = _shape_at(shape, tuple(names[:-1]))
    return _literals(_annotation(owner, names[-1]))


def _literals(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    return [choice for part in typing.get_args(annotation) for choice in _literals(part)]

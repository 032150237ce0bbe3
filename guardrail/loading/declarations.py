"""Compiles what a policy set declares: facts, units, models, defaults."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from dataclasses import replace
from decimal import Decimal

from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import Entry, MapNode, Node, Scalar, plain, text_in
from guardrail.loading.notation import read_at, read_instant, typed
from guardrail.loading.shapes import DefaultsShape, FactShape, ModelShape, PriceShape
from guardrail.loading.shaping import shaped
from guardrail.loading.suggest import suggestion
from guardrail.loading.text import listed, quoted
from guardrail.model.cells import TOP
from guardrail.model.effects import Mode
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source
from guardrail.model.policy import PRICE_SCALE, Model, Price

_FACT_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", re.ASCII)
_UNIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_NO_FACTS = ("any", "all", "not", "use", "always", "global", "by", "else")
_NO_UNITS = frozenset(
    "by else fact key per burst facts usage duration advance repeat every expect".split()
)
_ORDERED = (FactType.ENUM, FactType.LEVEL)


def compile_fact(entry: Entry, scope: Scope) -> None:
    """Add the declaration of one fact to the scope; one in error is doubtful."""
    name = entry.key.text
    scope.doubtful.add(name)
    if _FACT_NAME.fullmatch(name) is None or name in _NO_FACTS or len(name) > 100:
        help = "dotted words of small letters, digits and `_`, such as `account.region`"
        message = f"{quoted(name)} cannot be a fact's name"
        scope.report("GR102", entry.key, message, help=help)
        return
    place = Place(entry.value, scope.findings, entry.key)
    shape = shaped(FactShape, place)
    if shape is None or not _as_standard(name, shape, place) or not _values_fit(shape, place):
        return
    fact = _fact(name, shape)
    if shape.default is not None:
        value = typed(fact, shape.default, scope)
        if value is None:
            return
        fact = replace(fact, default=value)
    scope.doubtful.discard(name)
    scope.facts[name] = fact


def _fact(name: str, shape: FactShape) -> Fact:
    standard = STANDARD_FACTS.get(name)
    return Fact(
        name=name,
        type=FactType(shape.type),
        source=Source(shape.source or "client") if standard is None else standard.source,
        values=tuple(shape.values or (() if standard is None else standard.values)),
        required=shape.required,
        declared=True,
    )


def _as_standard(name: str, shape: FactShape, place: Place) -> bool:
    standard = STANDARD_FACTS.get(name)
    if standard is None:
        return True
    if shape.type != standard.type.value:
        message = f"{quoted(name)} is of type `{standard.type.value}` in the standard vocabulary"
        place.report("GR102", ("type",), message, help=f"write `type: {standard.type.value}`")
        return False
    if shape.source is not None and shape.source != standard.source.value:
        message = f"{quoted(name)} is a {standard.source.value} fact in the standard vocabulary"
        help = "leave `source` out, or declare a fact of another name"
        place.report("GR102", ("source",), message, help=help)
        return False
    return True


def _values_fit(shape: FactShape, place: Place) -> bool:
    ordered = FactType(shape.type) in _ORDERED
    if shape.values is None:
        if ordered and title_name(place) not in STANDARD_FACTS:
            message = f"a fact of type `{shape.type}` lists its `values`"
            place.report_key("GR102", (), message, help="add `values: […]`")
            return False
        return True
    if not ordered:
        message = f"a fact of type `{shape.type}` has no `values`"
        place.report_key("GR101", ("values",), message, help="write `type: enum` or `type: level`")
        return False
    if not shape.values:
        place.report("GR108", ("values",), "`values` is empty", help="list what it can be")
        return False
    for index, value in enumerate(shape.values):
        if value in shape.values[:index] or value in ("by", "else", ""):
            wrong = "is listed twice" if value in shape.values[:index] else "cannot be a value"
            place.report(
                "GR102", ("values", index), f"{quoted(value)} {wrong}", help="leave it out"
            )
            return False
    return True


def title_name(place: Place) -> str:
    """Return the name that a declaration declares."""
    return place.title.text if isinstance(place.title, Scalar) else ""


def compile_unit(node: Node, scope: Scope) -> None:
    """Add one declared unit to the scope."""
    name = text_in(node)
    if name is None:
        scope.report("GR102", node, "a unit is a name", help="such as `images`")
    elif _UNIT_NAME.fullmatch(name) is None or name in _NO_UNITS:
        help = "small letters, digits and `_`, such as `images`"
        message = f"{quoted(name)} cannot be a unit's name"
        scope.report("GR102", node, message, help=help)
    elif name in scope.units:
        message = f"unit {quoted(name)} is there already"
        scope.report("GR104", node, message, help="leave it out")
    else:
        scope.units |= {name}


def compile_models(node: MapNode, scope: Scope) -> None:
    """Add the models to the scope, their chains of `weaker` checked."""
    places = {}
    for entry in node.entries:
        place = Place(entry.value, scope.findings, entry.key)
        shape = shaped(ModelShape, place)
        price = None
        if shape is not None and shape.price is not None:
            price = _price(shape.price, place)
        if shape is None or (price is None and shape.price is not None):
            scope.models_doubtful = True
            continue
        places[entry.key.text] = place
        scope.models[entry.key.text] = Model(
            name=entry.key.text,
            price=price,
            max_output=shape.max_output,
            weaker=shape.weaker,
            aliases=tuple(shape.aliases),
        )
    _check_names(scope, places)
    if not scope.models_doubtful:
        _check_chains(scope, places)


def _price(shape: PriceShape, place: Place) -> Price | None:
    parts = {"input": shape.input, "output": shape.output, "cached_input": shape.cached_input}
    prices: dict[str, int] = {}
    for name, node in parts.items():
        node = shape.input if node is None else node
        price = _usd(plain(node))
        if price is None:
            shown = quoted(node.text) if isinstance(node, Scalar) and node.text else "this"
            help = "USD per million tokens, 0 or more, with at most six decimals"
            place.findings.report("GR110", node, f"{shown} is not a price", help=help)
            return None
        prices[name] = price
    return Price(**prices)


def _usd(written: object) -> int | None:
    if isinstance(written, bool) or not isinstance(written, (int, Decimal)):
        return None
    if not 0 <= written <= TOP // PRICE_SCALE:
        return None
    scaled = Decimal(written) * PRICE_SCALE
    return int(scaled) if scaled == scaled.to_integral_value() else None


def _check_names(scope: Scope, places: dict[str, Place]) -> None:
    taken = {name: name for name in scope.models}
    for model in scope.models.values():
        for index, alias in enumerate(model.aliases):
            if alias in taken:
                owner = quoted(taken[alias])
                message = f"{quoted(alias)} is already a name of model {owner}"
                path = ("aliases", index)
                places[model.name].report("GR104", path, message, help="a name is one model's")
            taken[alias] = model.name


def _check_chains(scope: Scope, places: dict[str, Place]) -> None:
    weaker = {
        name: scope.model(model.weaker, places[name].at("weaker"))
        for name, model in scope.models.items()
        if model.weaker is not None
    }
    if None in weaker.values():
        scope.models_doubtful = True
        return
    for name, found in weaker.items():
        scope.models[name] = replace(scope.models[name], weaker=found)
    _check_circles(scope, places)


def _check_circles(scope: Scope, places: dict[str, Place]) -> None:
    ended: set[str] = set()
    for start in scope.models:
        chain: list[str] = []
        name: str | None = start
        while name is not None and name not in ended and name not in chain:
            chain.append(name)
            name = scope.models[name].weaker
        if name in chain:
            circle = chain[chain.index(name) :]
            message = f"{listed(circle)} lead to each other by `weaker`"
            if len(circle) == 1:
                message = f"model {quoted(circle[0])} is its own `weaker`"
            help = "the weakest model has no `weaker`"
            places[circle[-1]].report("GR116", ("weaker",), message, help=help)
            scope.models_doubtful = True
        ended.update(chain)


def compile_defaults(node: Node, title: Node, scope: Scope) -> None:
    """Take over the defaults of the set: its mode and its time zone."""
    place = Place(node, scope.findings, title)
    shape = shaped(DefaultsShape, place)
    if shape is None:
        return
    scope.mode = Mode(shape.mode or "enforce")
    if shape.timezone is not None and shape.timezone != "UTC":
        zone = _zone(shape.timezone, place)
        if zone is not None:
            scope.zone, scope.timezone = zone, shape.timezone
    if shape.today is not None:
        scope.today = place.at("today")
        read_at(scope, scope.today, lambda it: read_instant(it, scope.zone))


def compile_unlisted(node: Node, scope: Scope) -> None:
    """Take over which of the models one that is not listed counts as."""
    written = node.get("unlisted_model") if isinstance(node, MapNode) else None
    name = text_in(written)
    if written is not None and name is not None and not scope.partial:
        scope.unlisted_model = scope.model(name, written)


def _zone(name: str, place: Place) -> datetime.tzinfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        zones = zoneinfo.available_timezones()
        help = suggestion(name, zones, "write an IANA name such as `Europe/Berlin`")
        place.report("GR106", ("timezone",), f"unknown time zone {quoted(name)}", help=help)
        return None

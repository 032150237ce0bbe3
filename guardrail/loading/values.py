"""Reads the values of facts as their types have them."""

from __future__ import annotations

import math
from collections.abc import Callable

from guardrail.loading.findings import Scope
from guardrail.loading.nodes import ListNode, Node, Scalar, kind_of
from guardrail.loading.notation import NotationError, read_duration, read_instant
from guardrail.loading.suggest import nearest
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import SECOND
from guardrail.model.cells import TOP
from guardrail.model.facts import COUNTRIES, Fact, FactType
from guardrail.model.typed import typed_value

NOUNS = {
    FactType.STRING: "text",
    FactType.BOOL: "`true` or `false`",
    FactType.INTEGER: "a whole number",
    FactType.NUMBER: "a number",
    FactType.COUNTRY: "a country",
    FactType.IP: "an address",
    FactType.TIMESTAMP: "a time",
    FactType.DURATION: "a duration",
    FactType.ENUM: "one of its values",
    FactType.LEVEL: "one of its levels",
    FactType.LIST: "a list of texts",
}
"""What a value of each type is, in the author's words."""

_OTHER_CODES = {"UK": "GB", "EL": "GR", "EN": "GB", "JA": "JP", "KO": "KR", "USA": "US"}
_BOOLS = {
    "yes": "true",
    "no": "false",
    "on": "true",
    "off": "false",
    "true": "true",
    "false": "false",
}
_NO_COUNTRIES = {
    "EU": "the European Union is not a country; list its members",
    "AP": "Asia/Pacific is a region, not a country",
    "XX": "leave the fact out where no country is known",
    "ZZ": "leave the fact out where no country is known",
    "T1": "Tor exits are `network.kind: tor`",
}


def typed(fact: Fact, node: Node, scope: Scope) -> object | None:
    """Return the value a node gives a fact; report one that is not of its type, as None."""
    try:
        if fact.type is FactType.LIST:
            return _texts(fact, node)
        if not isinstance(node, Scalar):
            raise _not_a(fact, node)
        if fact.type is FactType.TIMESTAMP:
            return read_instant(node.value, scope.zone) / SECOND
        return _READERS[fact.type](fact, node)
    except NotationError as error:
        report_notation(scope, node, error)
        return None


def report_notation(scope: Scope, node: Node, error: NotationError) -> None:
    """Report that a node is not written as it must be."""
    shown = kind_of(node)
    if isinstance(node, Scalar) and node.value is not None:
        shown = quoted(node.text)
    scope.findings.report(
        error.code, node.span, f"{shown} {error.message}", label=error.label, help=error.help
    )


def as_fact_of_texts(fact: Fact) -> Fact:
    """Return the fact that stands for one entry of a list fact; any other as it is."""
    if fact.type is not FactType.LIST:
        return fact
    return Fact(name=fact.name, type=FactType.STRING, source=fact.source)


def _not_a(fact: Fact, node: Node, help: str | None = None) -> NotationError:
    return NotationError(
        f"is not {NOUNS[fact.type]}",
        help,
        label=f"{quoted(fact.name)} is of type {fact.type.value}",
        code="GR102",
    )


def _texts(fact: Fact, node: Node) -> tuple[str, ...]:
    if not isinstance(node, ListNode):
        raise _not_a(fact, node)
    one = as_fact_of_texts(fact)
    texts = []
    for part in node.parts:
        if not isinstance(part, Scalar):
            raise _not_a(fact, node, "each entry is a text")
        texts.append(_text(one, part))
    return tuple(texts)


def _text(fact: Fact, node: Scalar) -> str:
    if not isinstance(node.value, str):
        short = node.value is not None and len(node.text) < 40
        raise _not_a(fact, node, f'quote it: `"{node.text}"`' if short else None)
    if not node.quoted and node.text.startswith("$"):
        name = node.text[:40]
        raise NotationError(
            "names a list", f"write `{{in: {name}}}`, or quote it if it is text", code="GR102"
        )
    return node.value


def _bool(fact: Fact, node: Scalar) -> bool:
    if not isinstance(node.value, bool):
        meant = _BOOLS.get(node.text.lower()) if isinstance(node.value, str) else None
        raise _not_a(fact, node, f"did you mean `{meant}`?" if meant else None)
    return node.value


def _integer(fact: Fact, node: Scalar) -> int:
    if isinstance(node.value, bool) or not isinstance(node.value, int):
        raise _not_a(fact, node)
    return int(_bounded(node.value))


def _number(fact: Fact, node: Scalar) -> int | float:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise _not_a(fact, node)
    return _bounded(value)


def _bounded(value: int | float) -> int | float:
    if not -TOP <= value <= TOP:
        raise NotationError("is too large", f"numbers go up to {TOP:,}")
    return value


def _country(fact: Fact, node: Scalar) -> str:
    code = _text(fact, node)
    if code in COUNTRIES:
        return code
    near = _OTHER_CODES.get(code.upper(), code.upper())
    help = _NO_COUNTRIES.get(code.upper(), "write its ISO 3166-1 code of two letters, such as `DE`")
    if near in COUNTRIES:
        help = f"did you mean `{near}`?"
    raise NotationError("is not a country", help, code="GR106")


def _address(fact: Fact, node: Scalar) -> object:
    address = typed_value(fact, _text(fact, node))
    if address is None:
        raise _not_a(fact, node, "write it as `192.0.2.1` or `2001:db8::1`")
    return address


def _duration(fact: Fact, node: Scalar) -> int:
    return read_duration(node.value, least=0) // SECOND


def _choice(fact: Fact, node: Scalar) -> str:
    if not isinstance(node.value, str) or node.value not in fact.values:
        raise _no_choice(fact, node)
    return node.value


def _no_choice(fact: Fact, node: Scalar) -> NotationError:
    name = quoted(fact.name)
    if not fact.values:
        return NotationError(
            f"is not a value of {name}",
            f"declare them: `{fact.name}: {{type: {fact.type.value}, values: […]}}`",
            label=f"{name} lists no values",
            code="GR106",
        )
    if node.text in fact.values:
        return NotationError("is not text", f'quote it: `"{node.text}"`', code="GR102")
    near = nearest(node.text, fact.values)
    return NotationError(
        f"is not a value of {name}",
        f"did you mean {quoted(near)}?" if near else None,
        label=f"one of {listed(fact.values, 'or', 12)}",
        code="GR106",
    )


_READERS: dict[FactType, Callable[[Fact, Scalar], object]] = {
    FactType.STRING: _text,
    FactType.BOOL: _bool,
    FactType.INTEGER: _integer,
    FactType.NUMBER: _number,
    FactType.COUNTRY: _country,
    FactType.IP: _address,
    FactType.DURATION: _duration,
    FactType.ENUM: _choice,
    FactType.LEVEL: _choice,
}

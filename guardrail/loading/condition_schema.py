"""The JSON Schema of conditions: combinators, the standard facts, the operators of each type."""

from __future__ import annotations

from typing import Any

from guardrail.loading.notation import DURATION
from guardrail.loading.operators import OPERATORS, operators_of
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_VALUES: dict[FactType, Json] = {
    FactType.STRING: _TEXT,
    FactType.BOOL: {"type": "boolean"},
    FactType.INTEGER: {"type": "integer"},
    FactType.NUMBER: {"type": "number"},
    FactType.COUNTRY: {"type": "string", "pattern": "^[A-Z]{2}$"},
    FactType.IP: _TEXT,
    FactType.DURATION: {"type": "string", "pattern": f"^(?:{DURATION.pattern})$"},
    FactType.LEVEL: _TEXT,
    FactType.ENUM: _TEXT,
    FactType.LIST: _TEXT,
}
_LIST_NAME: Json = {"type": "string", "pattern": "^\\$"}


def condition_schemas() -> dict[str, Json]:
    """Return the definitions that conditions are made of."""
    several = {"type": "array", "minItems": 1, "items": _ref("ConditionMap")}
    names = {"type": "array", "minItems": 1, "items": _TEXT}
    combinators: Json = {
        "any": several | {"description": "At least one of these holds."},
        "all": several | {"description": "All of these hold."},
        "not": _ref("ConditionMap"),
        "use": {"anyOf": [_TEXT, names], "description": "The named conditions that hold."},
    }
    facts = {name: _test(fact) for name, fact in STANDARD_FACTS.items()}
    return {
        "Condition": {"anyOf": [{"const": "always"}, _ref("ConditionMap")]},
        "ConditionMap": {
            "type": "object",
            "minProperties": 1,
            "properties": combinators | facts,
            "additionalProperties": _ref("AnyTest"),
        },
        "AnyTest": {
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                _operators({name: {} for name in OPERATORS} | {"not": {}}),
            ]
        },
    }


def _test(fact: Fact) -> Json:
    value = {"enum": list(fact.values)} if fact.values else _VALUES.get(fact.type)
    operators = _operators({name: _operand(name, value) for name in operators_of(fact)})
    described = {"description": f"{fact.type.value}, established by the {fact.source.value}"}
    return described | ({"anyOf": [value, operators]} if value is not None else operators)


def _operand(name: str, value: Json | None) -> Json:
    if name == "exists":
        return {"type": "boolean"}
    if name in ("same_as", "before", "after"):
        return _TEXT
    if name in ("in", "not_in", "cidr", "prefix") and value is not None:
        entry = value if name in ("in", "not_in") else _TEXT
        several = {"type": "array", "minItems": 1, "items": entry}
        one = [_TEXT] if name in ("cidr", "prefix") else [_LIST_NAME]
        return {"anyOf": [several, *one]}
    return {} if name == "not" or value is None else value


def _operators(operators: Json) -> Json:
    return {
        "type": "object",
        "minProperties": 1,
        "properties": operators,
        "additionalProperties": False,
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}

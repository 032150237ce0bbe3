"""The JSON Schema of policy files, for editors: made from the shapes, and what they leave open."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any, cast

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from guardrail.loading import shapes
from guardrail.loading.claims import KINDS
from guardrail.loading.conditions import OPERATORS, operators_of
from guardrail.loading.notation import AMOUNT, DATE, DURATION, PERCENT, RATE, SHARE, TIME
from guardrail.loading.shapes import (
    OPEN,
    USE,
    VERBS,
    BoundsShape,
    BudgetShape,
    ClaimShape,
    DefaultsShape,
    Degrading,
    ExemptionShape,
    ExpectShape,
    FactShape,
    LinksShape,
    ModelShape,
    Over,
    RateShape,
    RuleShape,
    ScenarioShape,
    ScenarioStepShape,
    ScoreShape,
    Shape,
    ThresholdShape,
)
from guardrail.loading.verdicts import CODE
from guardrail.model.amounts import UNITS
from guardrail.model.effects import EFFECTS
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType

Json = dict[str, Any]

_SHAPES: tuple[type[Shape], ...] = (
    RuleShape,
    ExemptionShape,
    FactShape,
    LinksShape,
    ScoreShape,
    ModelShape,
    DefaultsShape,
    ScenarioShape,
    ExpectShape,
    ThresholdShape,
    BoundsShape,
    ClaimShape,
)
_EFFECTS = list(EFFECTS)
_TEXT: Json = {"type": "string"}
VALUES: dict[FactType, Json] = {
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
LIST_NAME: Json = {"type": "string", "pattern": "^\\$", "description": "A list of `lists`."}
TABLE_NAME: Json = {"type": "string", "pattern": "^\\$", "description": "A table of `tables`."}
"""Where the name of any list, or of any table, may stand."""


def policy_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 7) of a policy file.

    It knows every key; what it cannot know are the names that a set declares: facts, units,
    lists, conditions. A `*_test.yaml` fits it too.
    """
    _, made = models_json_schema(
        [(shape, "validation") for shape in _SHAPES], schema_generator=_Generator, by_alias=True
    )
    _describe(made["$defs"])
    definitions = cast(Json, _resolved(made["$defs"])) | _parts() | _conditions()
    for name in (Degrading, RateShape, BudgetShape, ScenarioStepShape):
        _opened(definitions[name.__name__])
    definitions["Degrading"]["patternProperties"] = {"^x-": {"type": "string"}}
    rule = definitions["RuleShape"]
    rule["properties"]["over"] = _or_word(["throttle", "block"], Over, rule["properties"]["over"])
    rule["required"] = ["id", "when"]
    rule["oneOf"] = [{"required": [verb]} for verb in VERBS]
    definitions["ExemptionShape"]["required"].append("when")
    claim = definitions["ClaimShape"]
    claim["oneOf"] = [{"required": [kind]} for kind in KINDS]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "guardrail policy file, version 1",
        "type": "object",
        "required": ["guardrail"],
        "additionalProperties": False,
        "properties": _sections(),
        "$defs": definitions,
    }


def _describe(definitions: Json) -> None:
    """Say of each key what stands below its field in the source of the shapes.

    pydantic can do so (`use_attribute_docstrings`), but whenever the shapes are imported, which
    every command and server then waits for.
    """
    for made in ast.parse(inspect.getsource(shapes)).body:
        if not isinstance(made, ast.ClassDef) or made.name not in definitions:
            continue
        fields = getattr(shapes, made.name).model_fields
        properties = definitions[made.name]["properties"]
        for field, below in pairwise(made.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    key = fields[name].alias or name
                    described = {**properties[key], "description": inspect.cleandoc(text)}
                    properties[key] = dict(sorted(described.items()))


class _Generator(GenerateJsonSchema):
    """Writes a schema as an author needs it: no nulls, no defaults of ours, no made-up titles."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) in (None, [], {}):
            made.pop("default", None)
        return made

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _sections() -> Json:
    def maps(name: str, text: str) -> Json:
        return {"type": "object", "description": text, "additionalProperties": _ref(name)}

    def lists(name: str, text: str) -> Json:
        return {"type": "array", "description": text, "minItems": 1, "items": _ref(name)}

    return {
        "guardrail": {"const": 1, "description": "The version of the policy language."},
        "policy": {
            "type": "string",
            "pattern": f"^{CODE.pattern}$",
            "description": "The name of the set, and the namespace of its counters.",
        },
        "facts": maps("FactShape", "Facts beyond the standard vocabulary."),
        "lists": maps("List", "Lists that conditions use as `$NAME`."),
        "tables": maps("Table", "Tables of amounts that limits use as `$NAME`."),
        "fixtures": maps("Facts", "Facts that tests `use` by name."),
        "units": lists("UnitName", "Units beyond the built-in ones."),
        "models": maps("ModelShape", "The models the host serves."),
        "defaults": _ref("DefaultsShape"),
        "links": _ref("LinksShape"),
        "score": _ref("ScoreShape"),
        "conditions": maps("Condition", "Conditions that others `use` by name."),
        "rules": lists("RuleShape", "The rules: all are evaluated, the strongest effect wins."),
        "exemptions": lists("ExemptionShape", "Named exceptions to rules."),
        "tests": lists("ScenarioShape", "Tests of the rules."),
        "expect": lists("ThresholdShape", "What a replay of traffic must come to."),
        "prove": lists("ClaimShape", "Claims about all requests, which `check` proves."),
    }


def _parts() -> Json:
    amount = {"anyOf": [_pattern(f"{AMOUNT.pattern}|unlimited"), {"type": "number", "minimum": 0}]}
    rate = _pattern(f"{RATE.pattern}|unlimited")
    duration = _pattern(DURATION.pattern)
    scalar: Json = {"type": ["string", "number", "boolean"]}
    table = {"by": {"type": "string", "description": "The fact that the amount depends on."}}

    def banded(entry: Json) -> Json:
        text = "The amount from each value of a number or a duration on; the values rise."
        bands = {"type": "object", "minProperties": 1, "additionalProperties": entry}
        properties = {**table, "bands": bands | {"description": text}, "else": entry}
        return _map(properties, ["by", "bands"], False)

    from_fact = {"fact": {"type": "string"}, "else": _ref("PlainAmount")}
    calendar = {"enum": ["hour", "day", "week", "month", "lifetime"]}
    several = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    fact_table = _map(from_fact, ["fact"], False)
    return {
        "PlainAmount": amount,
        "Names": {"anyOf": [_TEXT, several]},
        "Matrix": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "array", "minItems": 1, "items": _ref("Value")},
        },
        "Table": {
            "anyOf": [
                _map(table, ["by"], {"anyOf": [_ref("PlainAmount"), rate]}),
                banded({"anyOf": [_ref("PlainAmount"), rate]}),
                fact_table,
            ]
        },
        "Amount": {
            "anyOf": [
                dict(TABLE_NAME),
                _ref("PlainAmount"),
                _map(table, ["by"], _ref("PlainAmount")),
                banded(_ref("PlainAmount")),
                fact_table,
            ]
        },
        "Rate": {"anyOf": [dict(TABLE_NAME), rate, _map(table, ["by"], rate), banded(rate)]},
        "Key": {"anyOf": [{"type": "string"}, several]},
        "Duration": duration,
        "Wait": {"anyOf": [duration, {"type": "number", "minimum": 0}]},
        "Window": {"anyOf": [calendar, duration]},
        "Raise": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"anyOf": [_ref("PlainAmount"), rate]},
        },
        "Share": _pattern(SHARE.pattern),
        "Percent": _pattern(PERCENT.pattern),
        "Above": {"anyOf": [_pattern(PERCENT.pattern), {"type": "integer", "minimum": 0}]},
        "Bounds": {"allOf": [_ref("BoundsShape")], "minProperties": 1},
        "Bound": {"anyOf": [_pattern(SHARE.pattern), {"type": "integer", "minimum": 0}]},
        "Instant": {"anyOf": [_pattern(DATE.pattern), _pattern(TIME.pattern)]},
        "List": {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": scalar},
                _map({"file": {"type": "string"}}, ["file"], False),
                _map({"empty": {"const": "intended"}}, ["empty"], False),
            ]
        },
        "Value": {"anyOf": [scalar, {"type": "array", "items": {"type": "string"}}]},
        "Price": {"type": "number", "minimum": 0},
        "Detail": {"type": ["string", "boolean", "null"]},
        "Facts": {"type": "object", "additionalProperties": _ref("Value")},
        "Usage": _map({unit: _ref("PlainAmount") for unit in UNITS}, [], _ref("PlainAmount")),
        "Expectation": {"anyOf": [{"enum": _EFFECTS}, _ref("ExpectShape")]},
        "Effects": {"anyOf": [{"enum": _EFFECTS}, {**several, "items": {"enum": _EFFECTS}}]},
        "Period": {"anyOf": [{"enum": ["ever"]}, calendar, duration]},
        "ClientFacts": {"anyOf": [{"const": "never_admit"}, several]},
        "UnitName": {"type": "string"},
    }


def _opened(definition: Json) -> None:
    """Let a definition have the keys that its shape gathers as its entries."""
    definition["properties"].pop(OPEN)
    amount = {"RateShape": "Rate", "BudgetShape": "Amount", "ScenarioStepShape": "PlainAmount"}
    part = amount.get(definition["title"])
    if part is not None:
        definition["properties"] |= {unit: _ref(part) for unit in UNITS}
        definition["additionalProperties"] = _ref(part)


def _or_word(words: list[str], shape: type[Shape], written: Json) -> Json:
    return {
        "description": written.get("description", ""),
        "anyOf": [{"enum": words}, _ref(shape.__name__)],
    }


def _resolved(part: object) -> object:
    """Turn the marks of parts into references."""
    if isinstance(part, list):
        return [_resolved(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    if USE in part:
        others = {name: inner for name, inner in part.items() if name != USE}
        return {"allOf": [_ref(part[USE])], **others} if others else _ref(part[USE])
    return {name: _resolved(inner) for name, inner in part.items()}


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _pattern(pattern: str) -> Json:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _map(properties: Json, required: list[str], others: Json | bool) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": others,
    }


def _conditions() -> Json:
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
    value = {"enum": list(fact.values)} if fact.values else VALUES.get(fact.type)
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
        one = [_TEXT] if name in ("cidr", "prefix") else [dict(LIST_NAME)]
        return {"anyOf": [several, *one]}
    return {} if name == "not" or value is None else value


def _operators(operators: Json) -> Json:
    return {
        "type": "object",
        "minProperties": 1,
        "properties": operators,
        "additionalProperties": False,
    }

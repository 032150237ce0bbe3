"""The JSON Schema of one policy set: its facts, levels, lists, models and rules, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from guardrail.loading.conditions import comparable, operators_of
from guardrail.loading.schema import LIST_NAME, TABLE_NAME, VALUES, Json, policy_schema
from guardrail.model.amounts import UNITS
from guardrail.model.facts import COUNTRIES, Fact, FactType, Source
from guardrail.model.policy import PolicySet

_TEXT: Json = {"type": "string"}
_TABLED = (
    FactType.STRING,
    FactType.BOOL,
    FactType.INTEGER,
    FactType.COUNTRY,
    FactType.ENUM,
    FactType.LEVEL,
)
_BANDED = (FactType.INTEGER, FactType.NUMBER, FactType.DURATION)
_TIMES = (FactType.DURATION, FactType.TIMESTAMP)


def closed_schema(policies: PolicySet) -> dict[str, object]:
    """Return the JSON Schema (draft 7) of the files of one set, in which every name is known.

    A name that the set does not declare does not fit: neither a fact nor a value of an enum or a
    level, a list, a table, a condition, a fixture, a model, a unit or a rule that others name.
    """
    schema = policy_schema()
    definitions = cast(Json, schema["$defs"])
    closed = _Closed(policies)
    closed.name_tables_and_lists(definitions)
    closed.close_conditions(definitions)
    closed.close_amounts(definitions)
    closed.close_names(definitions)
    closed.close_tests(definitions)
    schema["title"] = f"guardrail policy files of `{policies.name}`"
    return schema


class _Closed:
    """What one set knows, as parts of a schema."""

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
        self.facts = policies.facts
        self.units = (*UNITS, *policies.units)

    def name_tables_and_lists(self, part: Any) -> None:
        """Put the set's own names where any name of a list or a table may stand."""
        own = {
            str(LIST_NAME): self._named("lists"),
            str(TABLE_NAME): self._named("tables"),
        }
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        for each in inner:
            if isinstance(each, dict) and str(each) in own:
                names = own[str(each)]
                each.clear()
                each.update(names)
            else:
                self.name_tables_and_lists(each)

    def close_conditions(self, definitions: Json) -> None:
        """Let conditions test the set's facts alone, for values that they can have."""
        definitions["Country"] = {"enum": sorted(COUNTRIES)}
        whole = definitions["ConditionMap"]
        use = _one_or_several(_any_of(self.policies.declared.get("conditions", ())))
        described = {"description": "The named conditions that hold."}
        kept = {name: whole["properties"][name] for name in ("any", "all", "not")}
        tests = {name: self._test(fact) for name, fact in self.facts.items()}
        whole["properties"] = kept | {"use": use | described} | tests
        whole["additionalProperties"] = False

    def _test(self, fact: Fact) -> Json:
        value = self._value(fact)
        operators = {name: self._operand(name, fact, value) for name in operators_of(fact)}
        tests: Json = {
            "type": "object",
            "minProperties": 1,
            "properties": operators,
            "additionalProperties": False,
        }
        if "not" in operators:
            without = {name: each for name, each in operators.items() if name != "not"}
            operators["not"] = {"anyOf": [value, {**tests, "properties": without}]}
        told = f"{fact.type.value}, established by the {fact.source.value}"
        if fact.type is FactType.TIMESTAMP:
            return {"description": told, **tests}
        return {"description": told, "anyOf": [value, tests]}

    def _operand(self, name: str, fact: Fact, value: Json) -> Json:
        if name == "exists":
            return {"type": "boolean"}
        if name == "same_as":
            same = [f.name for f in self.facts.values() if comparable(f) == comparable(fact)]
            return _any_of(same)
        if name in ("before", "after"):
            return _TEXT
        if name in ("in", "not_in", "cidr", "prefix"):
            entry = value if name in ("in", "not_in") else _TEXT
            alone = [_TEXT] if name in ("cidr", "prefix") else []
            several = {"type": "array", "minItems": 1, "items": entry}
            return {"anyOf": [several, *alone, self._named("lists")]}
        return value

    def _value(self, fact: Fact) -> Json:
        """Return what a condition may compare a fact with."""
        if fact.values:
            return {"enum": list(fact.values)}
        if fact.type is FactType.COUNTRY:
            return {"$ref": "#/$defs/Country"}
        listed = bool(self.policies.models) and self.policies.unlisted_model is None
        if fact.name == "request.model" and listed:
            return _any_of(self._models())
        return VALUES.get(fact.type, _TEXT)

    def _stated(self, fact: Fact) -> Json:
        """Return what a test may state a fact as."""
        if fact.type is FactType.LIST:
            return {"type": "array", "items": _TEXT}
        if fact.type in _TIMES:
            return {"type": ["string", "number"]}
        return self._value(fact) if fact.name != "request.model" else _TEXT

    def close_amounts(self, definitions: Json) -> None:
        """Let amounts depend on the set's facts alone, row by row."""
        plain, rate = {"$ref": "#/$defs/PlainAmount"}, definitions["Rate"]["anyOf"][1]
        for name, entry in (("Amount", plain), ("Rate", rate), ("Table", {"anyOf": [plain, rate]})):
            part = definitions[name]
            kept = [one for one in part["anyOf"] if "by" not in one.get("properties", {})]
            part["anyOf"] = kept + self._tables(entry)
        for name, of in (("RateShape", "Rate"), ("BudgetShape", "Amount")):
            self._close_units(definitions[name], of)
        self._close_units(definitions["ScenarioStepShape"], "PlainAmount")
        self._close_units(definitions["Usage"], "PlainAmount")

    def _close_units(self, part: Json, of: str) -> None:
        part["properties"] |= {unit: {"$ref": f"#/$defs/{of}"} for unit in self.policies.units}
        part["additionalProperties"] = False

    def _tables(self, entry: Json) -> list[Json]:
        tabled = [fact for fact in self.facts.values() if fact.type in _TABLED]
        made = [self._rows(fact, entry) for fact in tabled if fact.values]
        free = [fact.name for fact in tabled if not fact.values]
        made.append(_object({"by": _any_of(free)}, ["by"], entry))
        banded = [
            fact.name
            for fact in self.facts.values()
            if fact.type in _BANDED and fact.source is Source.SERVER
        ]
        bands = {"type": "object", "minProperties": 1, "additionalProperties": entry}
        parts: Json = {"by": _any_of(banded), "bands": bands, "else": entry}
        return [*made, _object(parts, ["by", "bands"], False)]

    def _rows(self, fact: Fact, entry: Json) -> Json:
        rows: Json = dict.fromkeys((*fact.values, "else"), entry)
        whole = {"anyOf": [{"required": ["else"]}, {"required": list(fact.values)}]}
        return _object({"by": {"const": fact.name}} | rows, ["by"], False) | whole

    def close_names(self, definitions: Json) -> None:
        """Let keys, models and rules be the set's own."""
        facts = _any_of([*self.facts])
        alone = _any_of([*self.facts, "global"])
        several = {"type": "array", "minItems": 1, "items": facts}
        definitions["Key"] = {"anyOf": [alone, several]}
        properties = {name: part.get("properties", {}) for name, part in definitions.items()}
        _put(properties["DistinctShape"], "count", facts)
        for name in ("strong", "weak"):
            _put(properties["LinksShape"], name, {"type": "array", "items": facts})
        for name in ("count", "same"):
            _put(properties["SignShape"], name, facts)
        models = _any_of(self._models())
        _put(properties["Degrading"], "model", models)
        _put(properties["ModelShape"], "weaker", models)
        _put(properties["DefaultsShape"], "unlisted_model", models)
        exemptible = [rule.id for rule in self.policies.rules if rule.exemptible]
        named = {"type": "array", "minItems": 1, "items": _any_of(exemptible)}
        _put(properties["ExemptionShape"], "rules", named)

    def close_tests(self, definitions: Json) -> None:
        """Let tests state the set's facts, and expect of its rules."""
        stated = {name: self._stated(fact) for name, fact in self.facts.items()}
        definitions["Facts"] = _object(stated, [], False)
        columns = {
            name: {"type": "array", "minItems": 1, "items": value} for name, value in stated.items()
        }
        definitions["Matrix"] = _object(columns, [], False) | {"minProperties": 1}
        fixtures = _any_of(self.policies.declared.get("fixtures", ()))
        definitions["Names"] = _one_or_several(fixtures)
        rules = _any_of([rule.id for rule in self.policies.rules])
        expect = definitions["ExpectShape"]["properties"]
        _put(expect, "by", rules)
        _put(expect, "shadow", {"type": "array", "items": rules})
        for name in ("ClaimShape", "ThresholdShape"):
            if "by" in definitions[name]["properties"]:
                _put(definitions[name]["properties"], "by", rules)

    def _named(self, section: str) -> Json:
        return _any_of([f"${name}" for name in self.policies.declared.get(section, ())])

    def _models(self) -> list[str]:
        every = self.policies.models.values()
        return [name for model in every for name in (model.name, *model.aliases)]


def _any_of(names: Iterable[str]) -> Json:
    """Return a choice of names; without any, what nothing fits."""
    known = list(names)
    return {"enum": known} if known else {"not": {}}


def _one_or_several(name: Json) -> Json:
    return {"anyOf": [name, {"type": "array", "minItems": 1, "items": name}]}


def _put(properties: Json, name: str, part: Json) -> None:
    """Put a part into the place of another, whose description stays."""
    description = properties[name].get("description")
    properties[name] = part | ({"description": description} if description else {})


def _object(properties: Json, required: Sequence[str], others: Json | bool) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": others,
    }

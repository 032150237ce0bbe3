"""Editors check policy files by the schema: what loads fits it, what is misspelt does not."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from guardrail.loading import policy_schema
from guardrail.loading.catalogue import CATALOGUE
from guardrail.loading.documents import KEYS
from guardrail.loading.places import plain
from guardrail.loading.yaml import read_yaml
from guardrail.model.facts import STANDARD_FACTS
from tests.loading.error_cases import cases, completed

WHOLE = (Path(__file__).parent / "whole_set/policy.yaml").read_text("utf-8")


@pytest.fixture(scope="module")
def schema():
    return policy_schema()


@pytest.fixture(scope="module")
def validator(schema):
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def data(text: str) -> object:
    node = read_yaml(text, "policy.yaml", [])
    assert node is not None
    return plain(node)


def test_the_whole_language_fits(validator):
    assert [error.message for error in validator.iter_errors(data(WHOLE))] == []


@pytest.mark.parametrize(
    "entry", [entry for entry in CATALOGUE.values() if "# file:" not in entry.prefer]
)
def test_what_the_catalogue_prefers_fits(validator, entry):
    assert list(validator.iter_errors(data(completed(entry.prefer)))) == []


def test_every_unknown_key_of_a_file_is_flagged(validator):
    unknown = [case for case in cases() if "GR101 unknown key" in case.expected]
    unseen = [case.title for case in unknown if validator.is_valid(data(case.text))]

    # A unit that is not built in may be declared in another file.
    assert unseen == ["a misspelt unit", "an unknown unit", "an unknown unit used"]
    assert len(unknown) > 10


def test_the_keys_of_a_file_and_the_standard_facts_are_there_to_complete(schema):
    assert set(schema["properties"]) == set(KEYS) - {"links"}
    assert set(STANDARD_FACTS) <= set(schema["$defs"]["ConditionMap"]["properties"])


def test_every_part_is_described(schema):
    rule = schema["$defs"]["RuleShape"]["properties"]

    assert [name for name, part in rule.items() if not part.get("description")] == []


def test_every_reference_leads_somewhere(schema):
    waiting, used = [schema], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            used |= {part["$ref"].rpartition("/")[2]} if "$ref" in part else set()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part

    assert used == set(schema["$defs"])

"""Editors check policy files by the schema: what loads fits it, what is misspelt does not."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from guardrail.loading import CATALOGUE, load_text, plain, policy_schema, read_yaml
from guardrail.loading.sets import KEYS
from guardrail.model.facts import STANDARD_FACTS
from tests.loading.error_cases import cases, completed

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"^( *)```yaml\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
WHOLE = (Path(__file__).parent / "whole_set/policy.yaml").read_text("utf-8")


def own_files() -> Iterator[tuple[str, str]]:
    """Yield every policy file that we ship, in files and in documents, by where it stands."""
    for folder in ("policies", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.y*ml")):
            text = path.read_text("utf-8")
            if re.search(r"^guardrail: 1\b", text, re.MULTILINE):
                yield str(path.relative_to(ROOT)), text
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        for number, found in enumerate(FENCED.finditer(path.read_text("utf-8"))):
            text = textwrap.dedent(found[2])
            if re.search(r"^guardrail: 1\b", text, re.MULTILINE):
                yield f"{path.name} {number}", text


OWN = dict(own_files())


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
    assert [title for title in unseen if not title.startswith("elsewhere: budget")] == [
        "elsewhere: units that nothing declares",
        "a misspelt unit",
        "an unknown unit",
        "an unknown unit used",
    ]
    assert len(unknown) > 10


BANDED = "{by: account.paid_age, bands: {0d: %s, 30d: %s}, else: %s}"


@pytest.mark.parametrize(
    ("verb", "fits"),
    [
        (f"budget: {{tokens: {BANDED % (5, '1M', 'unlimited')}, per: day, key: global}}", True),
        (f"rate: {{requests: {BANDED % ('1/day', '5/day', '0/day')}, key: global}}", True),
        (f"rate: {{requests: 1/day, burst: {BANDED % (1, 2, 3)}, key: global}}", True),
        (f"concurrency: {{max: {BANDED % (1, 2, 3)}, key: global}}", True),
        (f"rate: {{requests: {BANDED % (1, 5, '0/day')}, key: global}}", False),
        (f"budget: {{tokens: {BANDED % ('often', 5, 5)}, per: day, key: global}}", False),
        ("budget: {tokens: {by: account.paid_usd, bands: {}}, per: day, key: global}", False),
        ("budget: {tokens: {bands: {0: 5}}, per: day, key: global}", False),
    ],
)
def test_bands_fit_wherever_an_amount_does(validator, verb, fits):
    text = f"guardrail: 1\nrules: [{{id: r, when: always, {verb}}}]"

    assert validator.is_valid(data(text)) is fits


def test_the_keys_of_a_file_and_the_standard_facts_are_there_to_complete(schema):
    assert set(schema["properties"]) == set(KEYS)
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


@pytest.mark.parametrize("text", OWN.values(), ids=OWN)
def test_every_policy_file_of_our_own_fits(validator, text):
    assert [error.message for error in validator.iter_errors(data(text))] == []


def test_there_are_policy_files_of_our_own_in_folders_and_documents():
    assert {"policies/budgets.yaml", "policies/budgets_test.yaml"} <= OWN.keys()
    assert sum(name.endswith(("yaml", "yml")) for name in OWN) > 10
    assert sum(not name.endswith(("yaml", "yml")) for name in OWN) > 2


LOADED = {
    "a wait in seconds": "expect: {throttle: r, retry_after: 3}",
    "a wait with decimals": "expect: {throttle: r, retry_after: 0.5}",
    "a wait as a duration": "expect: {throttle: r, retry_after: 3s}",
    "an effect that is true": "expect: {block: true}",
    "a shadow list": "expect: {allow: true, shadow: []}",
    "a time in seconds": "now: 2026-01-05, expect: allow",
    "a time with an offset": 'now: "2026-01-05T12:00:00+02:00", expect: allow',
    "amounts": "steps: [{tokens: 5k, images: 2, cost_usd: 0.5, usage: {tokens: 1.5M}}]",
    "a moment": "steps: [{advance: 1d, every: 1s, repeat: 3, duration: 0s, expect: degrade}]",
    "facts": "facts: {account.age: 90, account.tier: low, x.tags: [a, b], x.on: true}, "
    "expect: allow",
}


@pytest.mark.parametrize("test", LOADED.values(), ids=LOADED)
def test_what_loads_in_a_test_fits(validator, test):
    declared = (
        "units: [images]\nmodels: {m: {price: {input: 1, output: 1}, max_output: 0}}\n"
        "defaults: {unlisted_model: m}\n"
        "facts: {account.tier: {type: level, values: [low, high]}, x.tags: {type: list}, "
        "x.on: {type: bool}}\n"
    )
    text = completed(f"{declared}tests: [{{name: t, {test}}}]\n")

    assert load_text(text).scenarios
    assert [error.message for error in validator.iter_errors(data(text))] == []

"""The schema of one set: its own files fit it, and no name that the set does not have does."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from guardrail.loading import closed_schema, load_policies, plain, read_yaml
from tests.loading.test_language_schema import OWN, WHOLE

POLICIES = Path(__file__).resolve().parents[2] / "policies"
SET = """\
guardrail: 1
policy: p
units: [images]
facts:
  account.tier: {type: level, values: [email, verified], default: email}
  account.plan: {type: string, source: server}
lists: {partners: [o1], few: {empty: intended}}
tables: {daily: {by: account.tier, email: 10, verified: 50}}
models: {large: {weaker: small, aliases: [large-latest]}, small: {}}
conditions: {known: {account.tier: verified}}
fixtures: {someone: {account.id: a1, account.tier: email}}
rules:
  - {id: embargo, when: {geo.country: CU}, block: {}, exemptible: false}
  - {id: day, when: always, budget: {requests: $daily, images: 5, per: day, key: account.id}}
exemptions:
  - {id: pilot, rules: [day], when: {use: known, account.org: {in: $partners}}, reason: pilot,
     expires: 2030-01-01}
tests:
  - {name: t, use: someone, facts: {geo.country: CU}, expect: {block: embargo, by: embargo}}
"""


def data(text: str) -> object:
    node = read_yaml(text, "policy.yaml", [])
    assert node is not None
    return plain(node)


def validator(policies) -> jsonschema.Draft7Validator:
    schema = closed_schema(policies)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(json.loads(json.dumps(schema)))


@pytest.fixture(scope="module")
def shipped():
    return validator(load_policies([POLICIES]))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "p.yaml"
    path.write_text(SET)
    return validator(load_policies([path]))


@pytest.mark.parametrize("path", sorted(POLICIES.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_files_of_a_set_fit_its_schema(shipped, path):
    assert [error.message for error in shipped.iter_errors(data(path.read_text()))] == []


@pytest.mark.parametrize("name", [name for name in OWN if " " in name])
def test_what_is_a_set_alone_fits_its_own_schema(name, tmp_path):
    if "policy:" not in OWN[name]:
        pytest.skip("one file of a larger set")
    path = tmp_path / "p.yaml"
    path.write_text(OWN[name], "utf-8")
    found = validator(load_policies([path])).iter_errors(data(OWN[name]))

    assert [error.message for error in found] == []


def test_the_whole_language_fits_its_own_schema():
    path = Path(__file__).parent / "whole_set" / "policy.yaml"

    assert list(validator(load_policies([path.parent])).iter_errors(data(WHOLE))) == []


MISTAKES = {
    "a fact": ("geo.country: CU}, block", "geo.contry: CU}, block"),
    "a country": ("geo.country: CU}, block", "geo.country: UK}, block"),
    "a value of a level": ("account.tier: verified}}", "account.tier: verifed}}"),
    "a level that is none": ("{account.tier: verified}}", "{account.tier: {below: gold}}}"),
    "an operator of another type": ("geo.country: CU}, block", "geo.country: {gt: CU}}, block"),
    "a list": ("$partners", "$partner"),
    "a table": ("$daily, images", "$dayly, images"),
    "a list for a table": ("$daily, images", "$partners, images"),
    "a table for a list": ("$partners", "$daily"),
    "a condition": ("use: known", "use: knwon"),
    "one of several conditions": ("use: known", "use: [known, other]"),
    "a rule that is exempt": ("rules: [day]", "rules: [days]"),
    "a rule that cannot be exempt": ("rules: [day]", "rules: [embargo]"),
    "a rule that a test expects": ("by: embargo", "by: embargoed"),
    "a shadow rule that a test expects": ("by: embargo", "shadow: [embargoed]"),
    "a fixture": ("use: someone", "use: sumone"),
    "a fact of a test": ("facts: {geo.country: CU}", "facts: {geo.contry: CU}"),
    "a value in a test": ("facts: {geo.country: CU}", "facts: {account.tier: gold}"),
    "a fact of a fixture": ("someone: {account.id", "someone: {acount.id"),
    "a matrix of what is none": ("facts: {geo.country: CU}", "matrix: {account.tier: [gold]}"),
    "a unit": ("images: 5, per", "image: 5, per"),
    "a key": ("key: account.id}}", "key: acount.id}}"),
    "one of several keys": ("key: account.id}}", "key: [account.id, account.orgg]}}"),
    "a row of a table": ("email: 10, verified: 50", "email: 10, verifed: 50"),
    "a row that a table lacks": ("email: 10, verified: 50", "email: 10"),
    "a table by what is none": ("by: account.tier, email", "by: account.teir, email"),
    "a weaker model": ("weaker: small", "weaker: smal"),
    "a model that is asked for": ("geo.country: CU}, block", "request.model: larg}, block"),
    "a model to degrade to": ("block: {}, exempt", "degrade: {model: smal}, exempt"),
    "a default that is no model": ("lists:", "defaults: {unlisted_model: huge}\nlists:"),
    "a fact to be the same as": ("geo.country: CU}, block",
                                 "geo.country: {same_as: account.id}}, block"),
    "a section": ("fixtures:", "fixture:"),
}  # fmt: skip


@pytest.mark.parametrize("flow", [False, True], ids=["block style", "flow style"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_name_that_the_set_does_not_have_does_not_fit(small, name, flow):
    before, after = MISTAKES[name]
    assert SET.count(before) == 1
    text = SET.replace(before, after)
    if flow:
        text = json.dumps(data(text), default=str)

    assert list(small.iter_errors(data(SET))) == []
    assert list(small.iter_errors(data(text))) != []


def test_what_may_be_anything_fits_still(small):
    for before, after in [
        ("geo.country: CU}, block", "account.id: anyone}, block"),
        ("geo.country: CU}, block", "account.plan: {prefix: pro}}, block"),
        ("geo.country: CU}, block", "client.ip: {cidr: [192.0.2.0/24]}}, block"),
        ("geo.country: CU}, block", "account.org: {not_in: $few}}, block"),
        ("geo.country: CU}, block", "request.model: {in: [large-latest, small]}}, block"),
        ("facts: {geo.country: CU}", "facts: {request.model: tomorrow, account.age: 30}"),
        ("$daily, images", "{by: account.plan, pro: 5, else: 1}, images"),
        ("$daily, images", "{by: account.age, bands: {0d: 1, 30d: 2}}, images"),
    ]:
        assert [e.message for e in small.iter_errors(data(SET.replace(before, after)))] == []

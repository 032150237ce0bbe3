"""Facts are read by type, defaulted, derived, and what is wrong with them is said."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from random import Random

import pytest

from guardrail.engine.expressions import value_text
from guardrail.engine.facts import FactReader
from guardrail.model.amounts import SECOND
from guardrail.model.facts import AGES
from tests.engine.policies import START, declared_facts

NOW = START / SECOND
FACTS = declared_facts(Random(0))

TYPED = [
    ("account.id", "a", "a", (1, True, b"a", ["a"])),
    ("x.flag", False, False, (0, 1, "true")),
    ("request.tools", 2**53 - 1, 2**53 - 1, (2**53, 1.0, True, "1")),
    ("x.quota", 1.5, 1.5, (float("nan"), float("inf"), False, "1", 2.0**54)),
    ("geo.country", "XK", "XK", ("xk", "ZZ", "", 7)),
    ("client.ip", "::ffff:192.0.2.1", "192.0.2.1", ("192.0.2.1/32", "fe80::1%eth0", 5)),
    ("x.since", "2026-01-01", 1767225600.0, ("2026-01-01T00:00:00", -1, "soon", 1e12)),
    ("account.age", "2d", 172800, ("2 days", -1, "d")),
    ("request.capability", "chat", "chat", ("Chat", "talk", None.__class__)),
    ("account.tier", "email", "email", ("gold", 1)),
    ("x.tags", ["a", "b"], ("a", "b"), ("a", ["a", 1], {"a"})),
]


@pytest.mark.parametrize(("name", "stated", "value", "wrong"), TYPED)
def test_a_fact_is_read_by_its_type_or_missing_with_a_note(
    name: str, stated: object, value: object, wrong: tuple[object, ...]
) -> None:
    reader = FactReader(FACTS, [name], "UTC")

    assert reader.read({name: stated}, NOW)[0][name] == value
    for odd in wrong:
        known, notes = reader.read({name: odd}, NOW)
        assert name not in known
        assert len(notes) == 1
        assert f"`{name}`" in notes[0]


def test_a_default_fills_what_is_missing_or_none_but_nothing_ill_typed_or_unavailable() -> None:
    facts = next(f for f in map(declared_facts, map(Random, range(99))) if f["x.score"].default)
    reader = FactReader(facts, ["x.score"], "UTC")

    assert reader.read({}, NOW)[0]["x.score"] == 3
    assert reader.read({"x.score": None}, NOW) == reader.read({}, NOW)
    assert "x.score" not in reader.read({"x.score": "many"}, NOW)[0]
    assert "x.score" not in reader.read({}, NOW, frozenset(("x.score",)))[0]


def test_derived_facts_follow_from_others_and_from_the_clock() -> None:
    names = ["account.age", "time.hour", "time.weekday", "actor.id", "actor.accounts"]
    reader = FactReader(FACTS, names, "Asia/Tokyo")

    known, _ = reader.read({"account.id": "a", "account.created": NOW - 60}, NOW + 6 * 3600)

    assert known["account.age"] == 6 * 3600 + 60
    assert (known["time.hour"], known["time.weekday"]) == (3, "tue")
    assert (known["actor.id"], known["actor.accounts"]) == ("a", 1)


def test_a_stated_fact_is_not_derived_and_an_ill_typed_one_is_not_replaced() -> None:
    reader = FactReader(FACTS, ["account.age", "actor.id", "time.hour"], "UTC")
    stated = {"account.id": "a", "account.created": NOW, "account.age": 5, "actor.id": 7}

    known, _ = reader.read(stated, NOW)

    assert known["account.age"] == 5
    assert "actor.id" not in known


@pytest.mark.parametrize(("age", "time"), AGES.items())
def test_an_age_counts_from_its_time_one_of_the_future_is_0_and_without_a_time_there_is_none(
    age: str, time: str
) -> None:
    reader = FactReader(FACTS, [age], "UTC")

    assert reader.read({time: NOW - 60}, NOW)[0][age] == 60
    assert reader.read({time: NOW + 9}, NOW)[0][age] == 0
    assert age not in reader.read({}, NOW)[0]
    assert age in reader.widened(frozenset((time,)))


def test_facts_that_no_rule_uses_are_not_read() -> None:
    reader = FactReader({**FACTS, "x.quota": FACTS["x.flag"]}, ["account.id"], "UTC")

    assert reader.read({"account.id": "a", "geo.country": 5}, NOW) == ({"account.id": "a"}, ())


def test_a_note_shows_a_huge_value_cut_short() -> None:
    _, notes = FactReader(FACTS, ["geo.country"], "UTC").read({"geo.country": "x" * 10**6}, NOW)

    assert len(notes[0]) < 120


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        ("seven", "seven"),
        (("a", "bc"), "1:a2:bc"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "#b9ee96f69e8210c624fee55d71d5a54f"),
    ],
)
def test_a_value_stands_in_a_key_as_it_always_did(value: object, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("it's", '"it\'s"'),
        (True, "true"),
        (["a", None], '["a", null]'),
        ({"a": 1.5}, '{"a": 1.5}'),
        ("Zürich", '"Zürich"'),
        ("a\n\u202eb", '"a\\n\\u202eb"'),
        ("x" * 50, '"' + "x" * 39 + "…"),
        (b"a", "b'a'"),
    ],
)
def test_a_note_shows_a_value_as_json_has_it(value: object, shown: str) -> None:
    _, notes = FactReader(FACTS, ["geo.country"], "UTC").read({"geo.country": value}, NOW)

    assert notes == (f"fact `geo.country` is `{shown}`, not a country: taken as missing",)


class Tier(StrEnum):
    """What a host may have where a text is asked for."""

    EMAIL = "email"


class Count(IntEnum):
    TWO = 2


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("account.tier", Tier.EMAIL, 'Tier("email")'),
        ("account.id", Tier.EMAIL, 'Tier("email")'),
        ("request.tools", Count.TWO, "Count(2)"),
    ],
)
def test_a_note_tells_a_value_of_a_class_of_its_own_from_the_plain_one(
    name: str, value: object, shown: str
) -> None:
    known, notes = FactReader(FACTS, [name], "UTC").read({name: value}, NOW)

    assert known == {}
    assert notes == (f"fact `{name}` is `{shown}`, no plain value: taken as missing",)

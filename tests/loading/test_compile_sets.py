"""Rules, exemptions, tests and declarations of a set compile to what they say."""

from __future__ import annotations

import pytest

from guardrail.loading import load_policies, load_text
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import STANDARD_FACTS, Source
from guardrail.model.policy import Expectation, ScenarioStep
from guardrail.model.rules import Rule
from tests.loading.error_cases import RULE, START

HOUR = 3_600_000_000


def only_rule(keys: str, more: str = "") -> Rule:
    """Return the one rule of a set that says more about it."""
    return load_text(f"{START}{more}rules: [{{id: r, when: always, block: {{}}, {keys}}}]\n").rules[
        0
    ]


def step_of(step: str) -> ScenarioStep:
    """Return the one step of a set's one test."""
    tests = f"tests: [{{name: t, steps: [{step}]}}]\n"
    rules = "rules: [{id: r, when: always, block: {}}, {id: s, when: always, block: {}}]\n"
    return load_text(f"{START}units: [images]\n{rules}{tests}").scenarios[0].steps[0]


@pytest.mark.parametrize(
    ("zone", "start", "end"),
    [
        ("UTC", 1774742400, 1774828800),
        ("Europe/Berlin", 1774738800, 1774821600),  # the day the clocks go forward: 23 hours
        ("America/New_York", 1774756800, 1774843200),
    ],
)
def test_a_date_is_its_first_instant_in_from_and_its_last_in_until(zone, start, end):
    rule = only_rule("from: 2026-03-29, until: 2026-03-29", f"defaults: {{timezone: {zone}}}\n")

    assert (rule.start, rule.end) == (start * 1_000_000, end * 1_000_000)


def test_a_time_is_the_instant_it_says():
    rule = only_rule("from: 2026-03-29T10:00:00Z, until: 2026-03-29T10:00:00.25-02:00")
    local = only_rule("from: 2026-03-29T12:00", "defaults: {timezone: Europe/Berlin}\n")

    assert rule.start == local.start == 1_774_778_400_000_000
    assert rule.end == 1_774_785_600_250_000


def test_what_a_rule_says_of_itself():
    plain, told = only_rule("was: q"), only_rule("unknown: skip, mode: off, exemptible: false")
    limit = load_text(
        f"{START}rules:\n  - id: r\n    when: always\n    on_store_error: deny\n"
        "    concurrency: {max: 1, key: account.id}\n"
    ).rules[0]

    assert (plain.unknown, plain.mode, plain.exemptible) == (None, Mode.ENFORCE, True)
    assert (plain.was, plain.counter_id) == ("q", "q")
    assert (told.unknown, told.mode, told.exemptible) == ("skip", Mode.OFF, False)
    assert (plain.on_store_error, limit.on_store_error) == (None, "deny")


def test_defaults_hold_for_rules_that_do_not_say():
    defaults = "defaults: {mode: shadow, timezone: Europe/Berlin}\n"

    assert only_rule("unknown: match", defaults).mode is Mode.SHADOW
    assert only_rule("mode: enforce", defaults).mode is Mode.ENFORCE
    assert load_text(START + defaults + RULE).timezone == "Europe/Berlin"


def test_an_exemption_ends_with_its_last_day():
    exemption = (
        "exemptions:\n  - id: e\n    rules: [r, r]\n    when: {account.id: a}\n"
        "    reason: a pilot, signed\n    unknown: match\n    expires: 2026-12-31\n"
    )

    (compiled,) = load_text(START + RULE + exemption).exemptions

    assert (compiled.rules, compiled.reason) == (("r",), "a pilot, signed")
    assert compiled.unknown_holds is True
    assert compiled.expires == 1_798_761_600_000_000


def test_facts_are_declared_beside_the_standard_ones():
    text = (
        START + RULE + "facts:\n"
        "  account.region: {type: enum, values: [eu, us], default: eu, source: server}\n"
        "  account.since: {type: timestamp, default: 2026-01-01}\n"
        "  account.labels: {type: list, default: [a, b]}\n"
        "  request.capability: {type: enum, values: [chat, other]}\n"
        "  geo.country: {type: country, required: true}\n"
    )

    facts = load_text(text).facts

    assert facts["account.region"].source is Source.SERVER
    assert facts["account.region"].default == "eu"
    assert facts["account.since"].default == 1767225600.0
    assert facts["account.since"].source is Source.CLIENT
    assert facts["account.labels"].default == ("a", "b")
    assert facts["request.capability"].values == ("chat", "other")
    assert facts["geo.country"].required
    assert facts["geo.country"].source is Source.SERVER
    assert facts["account.id"] is STANDARD_FACTS["account.id"]


def test_a_weaker_model_may_be_named_by_an_alias():
    models = "models: {large: {weaker: tiny}, small: {aliases: [tiny]}}\n"

    loaded = load_text(START + models + RULE)

    assert loaded.models["large"].weaker == "small"
    assert loaded.models["large"].price is None


def test_steps_of_tests_have_amounts_by_unit():
    step = step_of(
        "{tokens: 1.5k, output_tokens: 20, images: 3, cost_usd: 0.25, usage: {tokens: 7},"
        " facts: {account.age: 3600, account.created: 2026-01-01, geo.country: NO},"
        " advance: 1h, every: 60s, duration: 2s, repeat: 3}"
    )

    assert step.estimate == {
        "input_tokens": 1500,
        "output_tokens": 20,
        "images": 3,
        "cost_usd": 0.25,
    }
    assert step.usage == {"input_tokens": 7}
    assert step.facts == {
        "account.age": 3600,
        "account.created": 1767225600.0,
        "geo.country": "NO",
    }
    assert (step.advance, step.every, step.duration) == (HOUR, 60_000_000, 2_000_000)
    assert (step.repeat, step.expect) == (3, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("allow", {"effect": Effect.ALLOW}),
        ("{allow: true, shadow: [r, s]}", {"effect": Effect.ALLOW, "shadow": ("r", "s")}),
        ("{allow: , shadow: []}", {"effect": Effect.ALLOW, "shadow": ()}),
        ("{block: x, by: r}", {"effect": Effect.BLOCK, "detail": "x", "by": "r"}),
        ("{throttle: x, retry_after: 2m}", {"detail": "x", "retry_after": 120.0}),
        ("{throttle: x, retry_after: 1.5}", {"detail": "x", "retry_after": 1.5}),
        (
            "{degrade: small, obligations: {max_output_tokens: 9, disable: [tools], x-a: b}}",
            {
                "detail": "small",
                "obligations": {"max_output_tokens": 9, "disable": ("tools",), "x-a": "b"},
            },
        ),
    ],
)
def test_expectations(written, expected):
    expectation = step_of(f"{{expect: {written}}}").expect

    assert isinstance(expectation, Expectation)
    assert {name: getattr(expectation, name) for name in expected} == expected


def test_order_is_relative_path_bytewise_then_line(tmp_path):
    files = {"b.yaml": "b", "a/z.yaml": "az", "B.yaml": "B", "é.yml": "e", "a-b.yaml": "ab"}
    for name, id_ in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        rules = "".join(
            f"  - {{id: {id_}-{number}, when: always, block: {{}}}}\n" for number in (2, 1)
        )
        path.write_text("guardrail: 1\nrules:\n" + rules, "utf-8")
    (tmp_path / "name.yaml").write_text("guardrail: 1\npolicy: demo\n")
    (tmp_path / "b_test.yaml").write_text("guardrail: 1\ntests: [{name: t, expect: allow}]\n")

    loaded = load_policies([tmp_path])

    assert loaded.files == (
        "B.yaml",
        "a-b.yaml",
        "a/z.yaml",
        "b.yaml",
        "b_test.yaml",
        "name.yaml",
        "é.yml",
    )
    assert [rule.id for rule in loaded.rules] == [
        f"{name}-{number}" for name in ("B", "ab", "az", "b", "e") for number in (2, 1)
    ]
    assert [rule.index for rule in loaded.rules] == list(range(10))
    assert len(loaded.scenarios) == 1

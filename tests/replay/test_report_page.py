"""The page on a replay: what it says of figures that were chosen for it."""

from __future__ import annotations

import pytest

from guardrail.replay.report import report_page
from tests.replay.reported import START, limit, parts_of, rule, told


def sections(figures):
    """Return the text of each section of the page on some figures."""
    return parts_of(report_page(figures))


def test_the_summary_names_how_much_whom_and_which_rules():
    text = sections(told(ending=["one"]))["short"]

    assert "30.0% of 100 requests refused 20.0% of 40 accounts refused at least once" in text
    assert "Of 100 requests, 30 (30.0%) are refused: 10 blocked and 20 told to wait." in text
    assert "That meets 8 of 40 accounts." in text
    assert "The rules that refuse most: day (66.7%) and embargo (33.3%)." in text
    assert "Refused by tier: email 37.5%, paid 0.0%." in text
    assert "Of exemptions and rules, 1 ends within two weeks." in text


def test_one_rule_that_refuses_is_one():
    text = sections(told(rules=[rule("day", throttle=30)]))["short"]

    assert "The rule that refuses most: day (100.0%)." in text


def test_where_nothing_is_refused_nothing_is_made_of_it():
    effects = {name: {"requests": 0, "accounts": 0} for name in told()["effects"]}
    effects["allow"] = {"requests": 100, "accounts": 40}
    found = sections(
        told(
            effects=effects,
            accounts_refused=0,
            rules=[rule("quiet")],
            series=[[START, 50, 0, 0, 0], [START + 3600, 50, 0, 0, 0]],
        )
    )

    assert "None of 100 requests would have been refused." in found["short"]
    assert "That meets" not in found["short"]
    assert "No request was refused, or served with less." in found["time"]
    assert found["rules"] == "Rules that decided nothing here (1): quiet ."
    assert "segments" not in found


def test_without_requests_a_page_says_so():
    effects = {name: {"requests": 0, "accounts": 0} for name in told()["effects"]}
    found = sections(told(requests=0, accounts=0, effects=effects, series=[], rules=[]))

    assert "There was no request to decide." in found["short"]


def test_rules_are_told_by_what_they_refused_and_the_others_by_name():
    text = sections(told())["rules"]

    assert "day 20 (66.7%) embargo 10 (33.3%)" in text
    assert "day budget enforce 50 – 20 –" in text
    assert "Rules that decided nothing here (1): quiet ." in text
    assert "refused by no rule" not in text
    assert "3 requests were refused by no rule" in sections(told(by_no_rule=3))["rules"]


def test_owners_and_descriptions_stand_beside_rules_where_any_has_one():
    rules = [rule("day", throttle=20, owner="abuse team, OPS-1"), rule("embargo", block=10)]
    text = sections(told(rules=rules))["rules"]

    assert "told to wait blocked owner day" in text
    assert "day budget enforce 50 – 20 – abuse team, OPS-1" in text
    assert "embargo budget enforce 50 – – 10 –" in text
    assert "owner" not in sections(told())["rules"]


def test_segments_of_one_value_are_left_out_and_many_values_are_added_up():
    countries = [[f"C{number:02}", 9, 0, 0, 1] for number in range(15)]
    found = told()["segments"] + [
        {"fact": "geo.country", "rows": countries},
        {"fact": "request.model", "rows": [["one", 90, 0, 10, 0]]},
    ]
    text = sections(told(segments=found))["segments"]

    assert "email 37.5% of 80 paid 0.0% of 20" in text
    assert "C11 10.0% of 10 (3 others) 10.0% of 30" in text
    assert "C12" not in text
    assert "request.model" not in text


def test_limits_that_keys_come_near_are_told_at_length_and_the_others_in_a_row():
    near = limit("near", [5, 2, 1, 1, 0, 0, 0])
    far = limit("far", [5, 0, 3, 0, 0, 0, 0], key=["device.fingerprint"])
    least = limit("least", [5, 0, 0, 0, 0, 0, 0])
    over = limit("over", [0, 0, 0, 0, 2, 0, 1], refused=9, every=4, mode="shadow", key=[])
    text = sections(told(limits=[near, far, least, over]))["limits"]

    # What refuses most comes first.
    assert text.index("over : 5,000 tokens per day (budget, in shadow)") < text.index(
        "near : 5,000"
    )
    assert "3 keys by the most they asked of the limit, estimated from one in 4" in text
    assert "9 keys by the most they asked of the limit; 1 came past 80% of it, 0 past all" in text
    assert "share of the limit (all together)" in text
    assert "80 to 100% 1 (11.1%)" in text
    assert "as measured, this limit refused 9" in text
    assert "×0.5 40 4 ×0.8 30 3 ×1 (now) 20 2 ×1.25 10 1 ×2 0 0" in text
    assert "far tokens 5,000 per day 8 50 to 80%" in text
    assert "least tokens 5,000 per day 5 under 10%" in text


def test_the_accounts_hurt_most_are_told_with_when_and_by_what():
    worst = [
        {
            "account": "a1",
            "requests": 20,
            "refused": 15,
            "first": START + 90,
            "rules": ["day", "x"],
        },
        {"account": "a2", "requests": 9, "refused": 5, "first": None, "rules": ["embargo"]},
    ]
    found = sections(told(worst=worst))

    assert "The 2 accounts with the most requests refused, of 8 that were" in found["accounts"]
    assert "a1 20 15 75.0% 2026-03-01 12:01 day, x a2 9 5 55.6% – embargo" in found["accounts"]
    assert "The 2 accounts hurt most carry 66.7% of the refusals." in found["short"]


def test_shadow_rules_are_told_as_if_they_were_enforced():
    rules = [*told()["rules"], rule("trial", mode="shadow", block=7)]
    shadow = {"requests": {"degrade": 1, "block": 4}, "accounts": 2}
    found = sections(told(rules=rules, shadow=shadow))

    assert "5 requests (5.0%) of 2 accounts would be decided more strictly" in found["shadow"]
    assert "1 degraded, 4 blocked" in found["shadow"]
    assert "trial 50 0 0 7" in found["shadow"]
    assert "Shadow rules, if enforced, would treat 5 requests more strictly." in found["short"]
    assert "trial budget shadow 50 – – 7" in found["rules"]
    assert "shadow" not in sections(told())


def test_what_had_no_effect_or_hinged_on_the_unknown_is_told():
    stepped = limit("day", [1, 0, 0, 0, 0, 0, 0], steps=[(80, 0), (100, 2)])
    unknown = [{"rule": "embargo", "missing": ["geo.country"], "requests": 2}]
    found = sections(told(limits=[stepped], idle={"save": 4}, unknown=unknown))

    assert "day 80% tokens no request reached it" in found["steps"]
    assert "100%" not in found["steps"]
    assert "save – 4 requests could not be served by the weaker model" in found["steps"]
    assert "embargo geo.country 2" in found["unknown"]
    assert "2 requests were decided on a fact that was missing." in found["short"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "by second"), (15, "by 15 seconds"), (60, "by minute"), (300, "by 5 minutes"),
        (3600, "by hour"), (43200, "by 12 hours"), (86400, "by day"), (604800, "by week"),
    ],
)  # fmt: skip
def test_how_long_a_bin_is_is_told_in_words(seconds, text):
    series = [[START, 1, 0, 1, 0], [START + seconds, 1, 0, 1, 0]]

    assert f"Share of requests {text} " in sections(told(bin=seconds, series=series))["time"]


def test_sentences_of_others_are_listed():
    found = sections(told(findings=["GR301 <b>"], notes=["counters start empty"], ending=["soon"]))

    assert found["findings"] == "GR301 <b>"
    assert found["ends"] == "soon"
    assert found["reading"].endswith("counters start empty")

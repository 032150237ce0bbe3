"""The page on two versions of the policies: what it says of figures that were chosen for it."""

from __future__ import annotations

import pytest

from guardrail.replay.report import changes_page
from guardrail.replay.report.fills import SPREAD
from tests.replay.reported import START, limit, parts_of, rule, told

EFFECTS = ("allow", "degrade", "throttle", "block")


def kind(before, after, rule, **changes):
    return {
        "before": before,
        "after": after,
        "rule": rule,
        "requests": 7,
        "accounts": 3,
        "first": START + 90,
        "where": "line 12",
        **changes,
    }


def changes(**others):
    return {
        "looser": [],
        "stricter": [],
        "matrix": {was: dict.fromkeys(EFFECTS, 0) for was in EFFECTS},
        "otherwise": 0,
        "renamed": 0,
        "first_refused": [],
        "no_longer": 0,
        "proved": {"looser": [], "stricter": [], "unjudged": []},
        **others,
    }


def sections(changed, before=None, after=None):
    return parts_of(changes_page(changed, before or told(), after or told()))


def test_what_became_looser_comes_first_and_none_is_said():
    found = sections(changes())

    assert list(found)[:3] == ["short", "looser", "stricter"]
    assert "In this traffic: none . No decision became looser." in found["looser"]
    assert "For all requests: nothing became looser, and that is proved." in found["looser"]
    assert "No decision became stricter." in found["stricter"]
    assert "0 are decided more loosely than before and 0 more strictly." in found["short"]
    assert "No account is refused for the first time, 0 no longer." in found["short"]


def test_kinds_of_changes_are_told_with_their_cause_and_the_first_of_them():
    looser, stricter = kind("block", "allow", "embargo"), kind("allow", "throttle", "day")
    found = sections(changes(looser=[looser], stricter=[stricter, kind("allow", "block", None)]))

    row = "blocked served 7 3 no longer embargo 2026-03-01 12:01 line 12"
    assert row in found["looser"]
    assert "served told to wait 7 3 day 2026-03-01 12:01 line 12" in found["stricter"]
    assert "served blocked 7 3 no rule" in found["stricter"]
    assert "7 are decided more loosely than before and 14 more strictly." in found["short"]
    assert "That is about each request for itself." in found["looser"]


def test_what_is_proved_for_all_requests_stands_beside_the_traffic():
    one = {"rule": "embargo", "was": "block", "is": "nothing", "example": '{"geo.country": "IR"}'}
    proved = {"looser": [one], "stricter": [], "unjudged": ["`a` is judged by examples"]}
    found = sections(changes(proved=proved))

    assert 'embargo block nothing {"geo.country": "IR"}' in found["looser"]
    assert "proved" not in found["stricter"]
    assert "not everything could be judged: `a` is judged by examples" in found["stricter"]


def test_decisions_before_stand_against_decisions_after():
    matrix = changes()["matrix"]
    matrix["block"]["allow"] = 4
    matrix["allow"]["allow"] = 1200
    text = sections(changes(matrix=matrix, otherwise=2, renamed=3))

    assert "served 1,200 0 0 0" in text["matrix"]
    assert "blocked 4 0 0 0" in text["matrix"]
    assert "2 are degraded to something else, and 3 have the same effect" in text["short"]


def test_accounts_refused_for_the_first_time_are_named():
    account = {
        "account": "a1",
        "requests": 9,
        "refused": 2,
        "signs": ["paid", "known"],
        "first": START,
        "rule": "day",
    }
    found = sections(changes(first_refused=[account], no_longer=4))

    assert "a1 9 2 paid, known 2026-03-01 12:00 day" in found["first"]
    assert "1 account is refused for the first time, 4 no longer." in found["short"]
    assert "None: whoever is refused now was refused before." in sections(changes())["first"]


def test_rules_and_segments_are_told_before_and_after():
    before = told(
        rules=[rule("day", throttle=5), rule("embargo", block=10), rule("old", block=2)],
        segments=[{"fact": "account.tier", "rows": [["email", 60, 0, 10, 10]]}],
        series=[[START, 50, 0, 0, 0], [START + 3600, 40, 0, 0, 10]],
    )
    found = sections(changes(), before)

    assert "day 20 (before 5) embargo 10 (before 10) old 0 (before 2)" in found["rules"]
    assert "day 5 20 +15 old 2 no such rule −2" in found["rules"]
    assert "email 37.5% (before 25.0%) paid 0.0% (before 0.0%)" in found["segments"]
    assert "refused before" in found["time"]
    assert "03-01" not in found["time"]
    assert "12:00 0% 10%" in found["time"]
    assert "Each rule refuses as many requests as before." in sections(changes())["rules"]


def test_a_limit_that_changed_is_marked_where_it_was_and_where_it_is():
    spread = [round(40 - 16 * part) for part in SPREAD]
    bands = [20, 10, 5, 5, 0, 0, 0]
    now = limit("day", bands, refused=9, spread=spread)
    same = limit("same", bands)
    old = limit("day", bands, refused=2, limit="7,500", amount=7500.0)
    text = sections(changes(), told(limits=[old, same]), told(limits=[now, same]))["changed"]

    assert "day : tokens, before 7,500 per day, now 5,000 per day" in text
    assert "It refused 2 requests before, and 9 now." in text
    assert "before 7.5k" in text
    assert "now 5k" in text
    assert "Of 40 keys (account.id), how many asked for at least so many tokens" in text
    assert "same" not in text
    page = changes_page(changes(), told(limits=[old]), told(limits=[now]))
    # Of 640 points for 0 to 2.5 times the limit.
    assert 'transform="translate(384,' in page
    assert 'transform="translate(256,' in page


@pytest.mark.parametrize(
    ("was", "told_of"),
    [
        ({"amount": 50_000.0, "limit": "50,000"}, "before, 50k, lies to the right of the plot"),
        ({"amount": None, "limit": "5 to 9 by account.tier"}, "before 5 to 9 by account.tier"),
        ({"per": "per month"}, "before 5,000 per month, now 5,000 per day"),
    ],
)
def test_a_limit_that_cannot_be_marked_is_told_in_words(was, told_of):
    bands = [20, 10, 5, 5, 0, 0, 0]
    before = told(limits=[limit("day", bands, **was)])
    text = sections(changes(), before, told(limits=[limit("day", bands)]))["changed"]

    assert told_of in text


def test_a_limit_on_all_together_says_how_much_they_asked_for():
    bands = [0, 0, 0, 0, 0, 1, 0]
    spread = [int(part <= 1.5) for part in SPREAD]
    now = limit("all", bands, spread=spread, key=[])
    old = limit("all", bands, limit="9", amount=9.0, key=[])
    text = sections(changes(), told(limits=[old]), told(limits=[now]))["changed"]

    assert "All that it counts together asked for 150% of it or more." in text

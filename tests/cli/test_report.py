"""`check --report`: a page about the replay, without the names of accounts unless asked for."""

from __future__ import annotations

import json
import re

from guardrail.decisionlog import LoggedNames
from tests.cli.conftest import request, write_traffic

HOSTILE = "<script>alert(1)</script>"
KEY = "0123456789abcdef0123456789abcdef"


def report(run, folder, *options):
    outcome = run("check", "policies", "--traffic", "week.jsonl", "--report", "out.html", *options)
    assert outcome.err == ""
    return outcome, (folder / "out.html").read_text("utf-8")


def lead(text):
    found = re.search('<p class="lead">(.*?)</p>', text)
    assert found is not None
    return re.sub("<.*?>", "", found[1])


def test_a_report_tells_what_check_tells(run, folder):
    outcome, text = report(run, folder)

    plain = run("check", "policies", "--traffic", "week.jsonl")
    assert outcome.code == plain.code
    assert outcome.out == f"{plain.out}report   written to `out.html`\n"
    assert lead(text) == (
        "Of 36 requests, 15 (41.7%) are refused: 8 blocked and 7 told to wait. That meets 3 of 4 "
        "accounts. The rules that refuse "
        "most: embargo (53.3%) and tokens-per-day (46.7%). Refused by tier: email 51.7%, verified "
        "0.0%. Shadow rules, if enforced, would treat no request more strictly. 1 request was "
        "decided on a fact that was missing."
    )


def test_a_report_is_the_same_each_time(run, folder):
    assert report(run, folder)[1] == report(run, folder)[1]


def test_a_report_tells_of_segments_and_accounts_what_check_tells(run, folder):
    by = ("--by", "account.tier,geo.country", "--by", "account.tier")
    outcome, text = report(run, folder, "--show-identifiers", "--format", "json", *by)
    told = json.loads(outcome.out)["traffic"]
    rows = [tuple(re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)) for row in text.split("<tr>")]

    assert [found["by"] for found in told["segments"]] == [
        ["account.tier", "geo.country"],
        ["account.tier"],
    ]
    for segment in (one for found in told["segments"] for one in found["segments"]):
        name, asked = " · ".join(segment["values"].values()), segment["requests"]
        refused = segment["decided"]["throttle"] + segment["decided"]["block"]
        assert (name, f"{100 * refused / asked:.1f}% of {asked}") in rows
    assert "Share of requests refused, by geo.country" in text
    for account in told["refused_accounts"]:
        name, counts = account["account"], (account["requests"], account["refused"])
        assert (name, *map(str, counts)) in [row[:3] for row in rows]


def test_accounts_are_numbered_unless_their_names_are_asked_for(run, folder):
    rows = [request(n, "jane@example.org", facts={"geo.country": "IR"}) for n in range(3)]
    write_traffic(folder / "week.jsonl", *rows)
    _, text = report(run, folder)
    assert "jane@example.org" not in text
    assert "account 1" in text

    _, text = report(run, folder, "--show-identifiers")
    assert "jane@example.org" in text


def test_under_a_hash_key_accounts_are_named_as_the_decision_log_names_them(
    run, folder, monkeypatch
):
    monkeypatch.setenv("GUARDRAIL_HASH_KEY", KEY)
    _, text = report(run, folder)

    assert LoggedNames(KEY.encode()).of("a1") in text
    assert "account 1" not in text


def test_names_in_traffic_are_inert(run, folder):
    rows = [request(n, HOSTILE, facts={"geo.country": "IR"}) for n in range(3)]
    write_traffic(folder / "week.jsonl", *rows)
    _, text = report(run, folder, "--show-identifiers")

    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_report_needs_traffic_and_does_not_overwrite_it(run, folder):
    outcome = run("check", "policies", "--report", "out.html")
    assert (outcome.code, outcome.err) == (
        2,
        "error: `--report` replays traffic: give it with `--traffic`\n",
    )

    before = (folder / "week.jsonl").read_bytes()
    outcome = run("check", "policies", "--traffic", "week.jsonl", "--report", "week.jsonl")
    assert (outcome.code, outcome.err) == (
        2,
        "error: `--report week.jsonl` would overwrite the traffic\n",
    )
    assert (folder / "week.jsonl").read_bytes() == before


def test_a_report_that_cannot_be_written_is_said(run):
    outcome = run("check", "policies", "--traffic", "week.jsonl", "--report", "no/out.html")

    assert outcome.code == 2
    assert "`no/out.html` cannot be written" in outcome.err


def test_a_warm_up_is_left_out_of_the_figures(run, folder):
    _, text = report(run, folder, "--warmup", "1d")

    assert lead(text).startswith("Of 31 requests")
    assert "The first 1d are left out of the figures." in text

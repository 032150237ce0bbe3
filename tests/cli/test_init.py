"""`guardrail init`: a first set that loads, tests itself, and finds nothing to complain about."""

from __future__ import annotations

import io
import json
import math
import random
import re
import shlex
import sys

import pytest

from guardrail.cli.figures import length
from guardrail.cli.starter import amount_text
from guardrail.loading import load_policies, read_amount
from guardrail.model.amounts import Lookup
from guardrail.replay.proposing import Proposal
from guardrail.traffic.requests import FactValue, Request
from tests.cli.conftest import MONDAY, request, write_traffic


class Terminal(io.StringIO):
    """Typed answers, as from a terminal."""

    def isatty(self):
        return True


def checked(run, folder):
    outcome = run("check", folder, "--format", "json")
    told = json.loads(outcome.out)
    assert outcome.code == 0, told["findings"]
    return told


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--tiers", "anonymous,email,verified,enterprise"),
        ("--tiers", "one", "--tokens", "1k"),
        ("--tokens", "2.5M", "--key", "credential.id", "--name", "on"),
        ("--tiers", "no,yes,on", "--name", "007"),
    ],
)
def test_what_is_written_loads_passes_its_tests_and_has_no_findings(run, folder, options):
    outcome = run("init", "new", *options)
    told = checked(run, "new")

    assert (outcome.code, outcome.err) == (0, "")
    assert told["tests"]
    assert all(test["passed"] for test in told["tests"])
    assert not any(told["coverage"].values())
    assert "# the namespace of its counters" in (folder / "new/policy.yaml").read_text()


def test_each_kind_of_account_may_use_ten_times_the_one_before(run):
    run("init", "new", "--tiers", "a,b,c", "--tokens", "5k")
    rule = next(rule for rule in load_policies(["new"]).rules if rule.id == "tokens-per-day")
    (amount,) = rule.verb.allowances
    assert isinstance(amount, Lookup)

    assert list(amount.table.values()) == [5_000, 50_000, 500_000]


def test_a_terminal_is_asked_three_questions(run, monkeypatch, folder):
    monkeypatch.setattr(sys, "stdin", Terminal("shop\nguest,member\n\n"))
    outcome = run("init", "new")

    assert outcome.code == 0
    assert outcome.err.count("?") == 3
    text = (folder / "new/policy.yaml").read_text()
    assert "policy: shop " in text
    assert "tokens: {by: account.tier, guest: 200k, member: 2M}" in text


def test_an_answer_that_is_not_usable_is_asked_for_again(run, monkeypatch):
    answers = "My Shop!\nshop\nfree,free\nguest,member\nlots\n5k\n"
    monkeypatch.setattr(sys, "stdin", Terminal(answers))
    outcome = run("init", "new")

    assert outcome.code == 0
    assert outcome.err.count("?") == 6
    assert "error: `My Shop!` is no name" in outcome.err
    assert "error: `free` is there twice" in outcome.err
    assert "error: `lots` " in outcome.err
    assert "answers  `shop`; guest 5k tokens a day, member 50k tokens a day" in outcome.out


def test_an_option_that_is_not_usable_is_not_asked_for(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("shop\n"))
    outcome = run("init", "new", "--tiers", "free,free")

    assert outcome.code == 2
    assert "`free` is there twice: write `free,paid`" in outcome.err


def test_what_to_do_next_can_be_pasted_into_a_shell(run, folder):
    write_traffic(folder / "last week.jsonl", request(0, usage={"input_tokens": 9}))
    outcome = run("init", "my set", "--from-traffic", "last week.jsonl", "--name", "p")
    *_, check, replay = outcome.out.splitlines()

    assert run(*shlex.split(check)[1:]).code == 0
    assert shlex.split(replay)[2:5] == ["my set", "--traffic", "last week.jsonl"]


def test_nobody_is_asked_without_a_terminal(run):
    assert run("init", "new", stdin=b"").err == ""


def test_nothing_is_overwritten(run, folder):
    before = (folder / "policies/public.yaml").read_text()
    outcome = run("init")

    assert outcome.code == 2
    assert outcome.err == (
        "error: `policies/public.yaml` is there already, and nothing is overwritten: "
        "name another folder\n"
    )
    assert (folder / "policies/public.yaml").read_text() == before
    assert run("init", "week.jsonl").err == (
        "error: `week.jsonl` is a file: name a folder to write\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--name", "A b"), "`A b` is no name"),
        (("--name", "\x1b[1m"), r"`\x1b[1m` is no name"),
        (("--tiers", "a,b,a"), "`a` is there twice"),
        (("--tiers", "a: b}"), "`a: b}` is no kind of account: write small letters"),
        (("--tiers", "guest, Pro Plus"), "`Pro Plus` is no kind of account"),
        (("--tiers", "a,,b"), "`a,,b` are no kinds of accounts: write `free,paid`"),
        (("--tokens", "many"), "`many` "),
        (("--tokens", "10"), "less than one request"),
        (("--key", "client.agent"), "`--key client.agent` is not known"),
        (("--map", "m.yaml"), "`--map` reads traffic"),
        (("--from-traffic", "week.jsonl", "--tokens", "5k"), "give `--tokens` or"),
        (("--from-traffic", "week.jsonl", "--tiers", "a"), "accounts of `verified`"),
        (("--from-traffic", "week.jsonl", "--map", "tiers.yaml"), "with `--tiers`"),
        (("--from-traffic", "week.jsonl", "--map", "own.yaml"), "leave it out of the map"),
        (("--from-traffic", "gone.jsonl"), "gone.jsonl"),
    ],
)
def test_an_answer_that_is_none_writes_nothing(run, folder, options, said):
    (folder / "tiers.yaml").write_text(
        "guardrail_map: 1\nts: {column: ts}\nfacts: {account.tier: {constant: verified}}\n"
    )
    (folder / "own.yaml").write_text(
        "guardrail_map: 1\nts: {column: ts}\nfacts: {course.id: {column: course}}\n"
    )
    outcome = run("init", "new", *options)

    assert outcome.code == 2
    assert said in outcome.err
    assert not (folder / "new").exists()


def test_limits_from_traffic_say_where_they_come_from_and_whom_they_refuse(run, folder):
    rows = [
        request(60 * n, f"a{n % 50}", usage={"input_tokens": 900, "output_tokens": 100})
        for n in range(500)
    ]
    rows += [
        request(40_000 + n, "whale", usage={"input_tokens": 10_000, "output_tokens": 0})
        for n in range(300)
    ]
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl", "--name", "shop")
    text = (folder / "new/policy.yaml").read_text()

    assert outcome.code == 0
    assert "# The numbers come from 800 requests of 51 keys (account.id)." in text
    assert "half of all stayed at or below 10,000" in text
    assert "99% of all at or below 3,000,000" in text
    told = json.loads(
        run("check", "new", "--traffic", "week.jsonl", "--format", "json").out
    )["traffic"]  # fmt: skip
    refused = told["decisions"]["throttle"]["requests"] + told["decisions"]["block"]["requests"]
    assert f"replay   {refused:,} of 800 requests refused" in outcome.out


@pytest.mark.parametrize(("members", "measured"), [({}, False), ({"duration": 9}, True)])
def test_requests_at_once_are_no_claim_where_no_duration_is_told(run, folder, members, measured):
    usage = {"input_tokens": 900, "output_tokens": 0}
    rows = [request(n, f"a{n % 9}", usage=usage, **members) for n in range(90)]
    write_traffic(folder / "week.jsonl", *rows)
    run("init", "new", "--from-traffic", "week.jsonl")
    text = (folder / "new/policy.yaml").read_text()

    assert ("Requests at once: at their busiest" in text) is measured
    assert ("tells how long it took" in text) is not measured
    assert ("{max: 2," if measured else "{max: 4,") in text
    checked(run, "new")


@pytest.mark.parametrize("options", [(), ("--tiers", "free,paid")])
def test_traffic_without_tokens_proposes_no_limit_of_them(run, folder, options):
    facts = {"account.tier": "free"}
    rows = [request(n, f"a{n % 9}", facts=facts, duration=9) for n in range(90)]
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl", *options)

    assert "no limit of tokens" in outcome.out
    assert (
        "# No limit of tokens: no request of the traffic tells"
        in (folder / "new/policy.yaml").read_text()
    )
    assert not any(rule.id == "tokens-per-day" for rule in load_policies(["new"]).rules)
    checked(run, "new")


def test_whom_limits_meet_is_counted_by_the_key(run, folder):
    rows = [
        request(n / 10, None, facts={"client.ip": f"192.0.2.{n % 200 if n < 200 else 7}"})
        for n in range(400)
    ]
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl", "--key", "client.ip")

    assert "; 1 of 200 values of client.ip met a refusal" in outcome.out
    assert "# 1 of 200 values of client.ip took more" in (folder / "new/policy.yaml").read_text()


@pytest.mark.parametrize(
    ("seconds", "short"),
    [
        (30, ["requests-per-minute", "tokens-per-day"]),
        (780, ["tokens-per-day"]),
        (86_390, []),
    ],
)
def test_traffic_that_is_shorter_than_a_limits_window_is_warned_of(run, folder, seconds, short):
    usage = {"input_tokens": 900, "output_tokens": 0}
    rows = [request(seconds * n / 50, f"a{n % 9}", usage=usage) for n in range(51)]
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl")
    text = (folder / "new/policy.yaml").read_text()

    assert [line.split("`")[1] for line in outcome.err.splitlines()] == short
    assert text.count("# The traffic spans only") == len(short)
    assert f"traffic  51 requests in {length(seconds)}: 2026-03-02T00:00:00Z" in outcome.out
    assert f"# The traffic spans {length(seconds)}, 2026-03-02T00:00:00Z" in text


@pytest.mark.parametrize(("accounts", "warned"), [(1, True), (2, False)])
def test_one_account_in_all_of_the_traffic_is_warned_of(run, folder, accounts, warned):
    usage = {"input_tokens": 900, "output_tokens": 0}
    rows = [request(9000 * n, f"a{n % accounts}", usage=usage) for n in range(51)]
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl")

    assert outcome.code == 0
    assert ("warning: `account.id` is the same in all of the traffic" in outcome.err) is warned
    assert ("# ATTENTION: account.id" in (folder / "new/policy.yaml").read_text()) is warned


def test_a_number_that_is_not_half_as_much_again_says_what_decided_it(run, folder):
    rows = []
    for number in range(30):
        for tier, tokens in (("free", 1000), ("paid", 50_001), ("big", 9)):
            usage = {"input_tokens": tokens, "output_tokens": 0}
            facts = {"account.tier": tier}
            rows.append(
                request(6000 * number, f"{tier}{number}", facts=facts, usage=usage, duration=1)
            )
    write_traffic(folder / "week.jsonl", *rows)
    run("init", "new", "--from-traffic", "week.jsonl", "--tiers", "none,free,paid,big")
    text = (folder / "new/policy.yaml").read_text()
    said = {part.split(":")[0]: part for part in re.split("(?=  # (?:Requests|Tokens) a)", text)}

    assert "less than 5, the least that is proposed." in said["  # Requests a minute"]
    assert "rounded up to 2." in said["  # Requests at once"]
    assert "rounded up to 76k." in said["  # Tokens a day of paid"]
    assert "less than 76k, what paid has." in said["  # Tokens a day of big"]
    assert "again" not in said["  # Tokens a day of free"]
    assert "tokens: {by: account.tier, none: 1k, free: 1.5k, paid: 76k, big: 76k}" in text


def test_who_took_more_and_who_is_refused_are_told_apart(run, folder):
    usage = {"input_tokens": 100, "output_tokens": 0}
    rows = [request(60 * n, f"a{n}", usage=usage) for n in range(200)]
    rows += [
        request(86_000 + n * 10, "late", usage={**usage, "input_tokens": 90}) for n in range(80)
    ]
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl")
    text = (folder / "new/policy.yaml").read_text()

    assert "# 1 of 201 accounts took more than 1k at their busiest." in text
    assert "# 1 of 201 accounts took more than 5 at their busiest." in text
    assert "; 1 of 201 accounts met a refusal, by any rule\n" in outcome.out


def test_each_kind_of_account_gets_a_number_of_its_own(run, folder):
    rows = []
    for number in range(30):
        for tier, tokens in (("free", 1000), ("paid", 50_000)):
            usage = {"input_tokens": tokens + number, "output_tokens": 0}
            facts = {"account.tier": tier}
            rows.append(request(60 * number, f"{tier}{number}", facts=facts, usage=usage))
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl")
    assert "accounts are of kinds (`free`, `paid`)" in outcome.out
    outcome = run("init", "by-kind", "--from-traffic", "week.jsonl", "--tiers", "none,free,paid")
    (rule,) = [rule for rule in load_policies(["by-kind"]).rules if rule.id == "tokens-per-day"]
    (amount,) = rule.verb.allowances
    assert isinstance(amount, Lookup)

    assert amount.table == {"none": 1_000, "free": 1_600, "paid": 76_000}
    assert "of none: nobody in the traffic" in (folder / "by-kind/policy.yaml").read_text()
    checked(run, "by-kind")


def test_whose_kind_the_traffic_does_not_tell_counts_as_the_lowest(run, folder):
    usage = {"input_tokens": 9_000, "output_tokens": 0}
    rows = [request(60 * n, f"a{n}", usage=usage) for n in range(20)]
    for row in rows:
        row["facts"].pop("account.tier", None)  # type: ignore[attr-defined]
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl", "--tiers", "free,paid")
    (rule,) = [rule for rule in load_policies(["new"]).rules if rule.id == "tokens-per-day"]
    (amount,) = rule.verb.allowances
    assert isinstance(amount, Lookup)

    assert amount.table == {"free": 14_000, "paid": 14_000}
    assert "0 of 20 requests refused" in outcome.out
    assert "of free: nobody in the traffic" not in (folder / "new/policy.yaml").read_text()


@pytest.mark.parametrize(("requests", "seconds", "duration"), [(3000, 0.01, 0), (60, 30, 7200)])
def test_a_set_from_extreme_traffic_passes_its_tests(run, folder, requests, seconds, duration):
    usage = {"input_tokens": 1, "output_tokens": 0}
    rows = [
        request(seconds * number, "a1", usage=usage, duration=duration)
        for number in range(requests)
    ]
    write_traffic(folder / "week.jsonl", *rows)
    run("init", "new", "--from-traffic", "week.jsonl")

    checked(run, "new")


def test_limits_are_for_what_tells_callers_apart_where_no_account_is_named(run, folder):
    rows = [request(n, None, facts={"client.ip": f"192.0.2.{n % 3}"}) for n in range(9)]
    write_traffic(folder / "week.jsonl", *rows)

    asked = run("init", "asked", "--from-traffic", "week.jsonl", "--key", "account.id")
    assert "it has `client.ip`: name one with `--key`" in asked.err
    assert asked.code != 0

    found = run("init", "new", "--from-traffic", "week.jsonl")
    assert "no request has `account.id`: the limits are for each `client.ip`" in found.out
    assert found.code == 0
    text = (folder / "new" / "policy.yaml").read_text("utf-8")
    assert "key: client.ip" in text
    assert "account.id" not in text
    checked(run, "new")


def test_a_log_of_another_form_is_told_how_to_be_read(run, folder):
    (folder / "log.jsonl").write_text('{"when": 1, "who": "a1"}\n' * 3, "utf-8")
    outcome = run("init", "new", "--from-traffic", "log.jsonl")

    assert "no readable line to propose limits from; `guardrail map guess` tells" in outcome.err
    assert not (folder / "new").exists()


def test_facts_and_models_of_the_traffic_are_no_findings(run, folder):
    facts = {
        "shop.cart": 3,
        "shop.tags": ["a"],
        "request.model": 'odd "name"\\',
        "account.tier": "x",
    }
    rows = [
        request(60 * n, "a1", facts=facts, usage={"input_tokens": 9, "output_tokens": 1500})
        for n in range(20)
    ]
    write_traffic(folder / "week.jsonl", *rows)
    assert run("init", "new", "--from-traffic", "week.jsonl").code == 0
    policies = load_policies(["new"])

    assert policies.models['odd "name"\\'].max_output == 2000
    assert policies.facts["shop.cart"].type.value == "number"
    outcome = run("check", "new", "--traffic", "week.jsonl")
    assert outcome.code == 0, outcome.out


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((), "the traffic has no readable line"),
        ((request(0, None),), "no request of the traffic has `account.id`"),
    ],
)
def test_traffic_that_says_nothing_proposes_nothing(run, folder, rows, said):
    write_traffic(folder / "week.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "week.jsonl")

    assert outcome.code == 1
    assert said in outcome.err
    assert not (folder / "new").exists()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_proposed_is_counted_right_whole_and_in_parts(seed):
    chance = random.Random(seed)
    whole, parts = Proposal("account.id"), [Proposal("account.id"), Proposal("account.id")]
    days: dict[tuple[int, float], int] = {}
    minutes: dict[tuple[int, float], int] = {}
    ts = float(MONDAY)
    for _ in range(2000):
        ts += chance.expovariate(1 / 90)
        account = chance.randrange(40)
        used = {"input_tokens": chance.randrange(500), "output_tokens": chance.randrange(500)}
        facts = {"account.id": f"a{account}", "request.model": f"m{account % 3}"}
        asked = Request(ts=ts, facts={**facts}, usage={**used, "requests": 2})
        whole.add(ts, asked)
        parts[account % 2].add(ts, asked)
        days[account, ts // 86400] = days.get((account, ts // 86400), 0) + sum(used.values())
        minutes[account, ts // 60] = minutes.get((account, ts // 60), 0) + 2
    parts[0].merge(parts[1])

    for found, counts in ((whole.tokens_a_day(1_000), days), (whole.requests_a_minute, minutes)):
        peaks = sorted(
            max(count for (who, _), count in counts.items() if who == account)
            for account in range(40)
        )
        assert (found.accounts, found.median, found.most) == (40, peaks[19], peaks[-1])
        assert found.usual == peaks[math.ceil(0.99 * 40) - 1]
        assert found.proposed >= 1.5 * found.usual
        assert found.over == 0
    assert parts[0].tokens_a_day(1_000) == whole.tokens_a_day(1_000)
    assert parts[0].requests_a_minute == whole.requests_a_minute
    assert parts[0].in_flight == whole.in_flight
    assert (parts[0].models, parts[0].requests) == (whole.models, 2000)


def test_requests_at_once_are_those_that_have_not_ended():
    proposal = Proposal("account.id")
    for at, lasts in ((0.0, 100.0), (1.0, 10.0), (2.0, 1.0), (50.0, 1.0), (60.0, 1.0)):
        facts: dict[str, FactValue] = {"account.id": "a1"}
        proposal.add(MONDAY + at, Request(ts=MONDAY + at, facts=facts, duration=lasts))

    assert proposal.in_flight.most == 3
    assert proposal.in_flight.proposed == 5


@pytest.mark.parametrize("amount", [1, 999, 1000, 1500, 12_345, 26_000_000, 2_500_000, 10**9])
def test_an_amount_is_written_as_it_is_read(amount):
    assert read_amount(amount_text(amount), money=False) == amount


def test_a_number_in_flight_that_nothing_showed_only_counts(run, folder):
    rows = [request(turn * 70, usage={"input_tokens": 9}) for turn in range(9)]
    write_traffic(folder / "bare.jsonl", *rows)
    write_traffic(folder / "timed.jsonl", *({**row, "duration": 2.5} for row in rows))
    for name in ("bare", "timed"):
        run("init", name, "--from-traffic", f"{name}.jsonl", "--name", "p")
        assert checked(run, name)["tests"][-1]["passed"]
    modes = {
        name: {rule.id: rule.mode.value for rule in load_policies([name]).rules}["in-flight"]
        for name in ("bare", "timed")
    }

    assert modes == {"bare": "shadow", "timed": "enforce"}


def test_totals_of_a_time_propose_no_pace_and_no_longest_answer(run, folder):
    rows = [
        f"2026-03-{day:02},large,key-{day % 3},Default,standard,short,900000,0,0,0,250000,0,,\n"
        for day in range(2, 30)
    ]
    (folder / "usage.csv").write_text(
        "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,"
        "usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,"
        "web_search_count,inference_geo,speed\n" + "".join(rows)
    )
    outcome = run("init", "new", "--from-traffic", "usage.csv", "--map", "anthropic-csv")
    written = (folder / "new/policy.yaml").read_text()
    paces = [rule for rule in load_policies(["new"]).rules if rule.verb.name == "rate"]
    replayed = run("check", "new", "--traffic", "usage.csv", "--map", "anthropic-csv")

    assert outcome.code == 0
    assert "minute is not known" in " ".join(written.split())
    assert {rule.mode.value for rule in paces} == {"shadow"}
    assert "max_output: 250000" not in written
    assert "tokens: 1.8M" in written
    assert checked(run, "new")["tests"]
    assert replayed.code == 0
    assert "GR317 each line stands for all requests of a time" in " ".join(replayed.out.split())


def test_a_key_that_most_requests_lack_is_warned_of(run, folder):
    rows = [request(n, None, facts={"client.ip": "192.0.2.9"}) for n in range(9)]
    write_traffic(folder / "log.jsonl", request(0), *rows)
    outcome = run("init", "new", "--from-traffic", "log.jsonl")
    told = " ".join(outcome.err.split())

    assert "90.00% of the requests have no `account.id`, and are not in the numbers" in told
    assert "it has `client.ip`: name one with `--key`" in told
    assert "`account.id` has one value in the traffic" in told


def test_what_is_proposed_from_little_has_room_for_what_a_request_reserves(run, folder):
    used = {"input_tokens": 10, "output_tokens": 20}
    rows = [request(n * 3600, facts={"request.model": "tiny"}, usage=used) for n in range(3)]
    write_traffic(folder / "log.jsonl", *rows)
    outcome = run("init", "new", "--from-traffic", "log.jsonl")

    assert "tokens: 2k" in (folder / "new/policy.yaml").read_text()
    assert "0 of 3 requests refused" in outcome.out

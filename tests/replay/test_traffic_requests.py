"""Lines of traffic as requests, and in a few words what is wrong with those that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.replay.running import Replay
from guardrail.testing import guard_of
from guardrail.traffic.lines import MAX_LINE, LineSource
from guardrail.traffic.reading import Recorded, recorded_requests
from guardrail.traffic.requests import KEPT, BadLines


def read(folder: Path, *lines: bytes | str) -> tuple[list[Recorded], BadLines]:
    """Return the requests in some lines, and the bad ones among them."""
    path = folder / "traffic.jsonl"
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    )
    bad = BadLines()
    with LineSource(str(path)) as source:
        return list(recorded_requests(source, bad)), bad


def test_a_request_is_read_with_all_its_members(tmp_path):
    line = (
        '{"ts":1.5,"facts":{"account.id":"a1","request.tools":2,"l":["x"]},"unknown":{"a":[1]},'
        '"estimate":{"input_tokens":3},"usage":{"cost_usd":0.25},"duration":2}'
    )
    [(number, ts, request)], bad = read(tmp_path, line)

    assert (number, ts, bad.count) == (1, 1.5, 0)
    assert request.facts == {"account.id": "a1", "request.tools": 2, "l": ["x"]}
    assert request.estimate == {"input_tokens": 3}
    assert request.usage == {"cost_usd": 0.25}
    assert request.duration == 2.0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0", 0.0),
        ("1746057600.25", 1746057600.25),
        ('"2026-03-01T09:00:00Z"', 1772355600.0),
        ('"2026-03-01T10:00:00.5+01:00"', 1772355600.5),
    ],
)
def test_a_time_is_in_seconds_or_rfc_3339(tmp_path, written, seconds):
    [(_, ts, _)], _ = read(tmp_path, f'{{"ts":{written},"facts":{{}}}}')

    assert ts == seconds


def test_a_fact_that_is_null_is_missing(tmp_path):
    [(_, _, request)], _ = read(tmp_path, '{"ts":1,"facts":{"account.id":null,"geo.country":"DE"}}')

    assert request.facts == {"geo.country": "DE"}


def test_a_whole_amount_may_be_written_with_a_point(tmp_path):
    [(_, _, request)], _ = read(tmp_path, '{"ts":1,"facts":{},"usage":{"tokens":12.0}}')

    assert request.usage == {"tokens": 12}
    assert type(request.usage["tokens"]) is int


def test_empty_lines_are_neither_requests_nor_bad(tmp_path):
    requests, bad = read(tmp_path, "", '{"ts":1,"facts":{}}', "  \r", "\t", '{"ts":2,"facts":{}}\r')

    assert [number for number, _, _ in requests] == [2, 5]
    assert bad.count == 0


BAD = {
    "[]": "not a JSON object",
    '"x"': "not a JSON object",
    '[{"ts":1,"facts":{}}]': "a list of objects: a document needs a map with `format: json`",
    "{": "not JSON by itself: a document over several lines needs a map with `format: json`",
    '{"ts": 1': "not JSON",
    "nonsense": "not JSON",
    '{"ts":NaN,"facts":{}}': "not JSON: `NaN` is not a number there",
    '{"ts":-Infinity,"facts":{}}': "not JSON: `Infinity` is not a number there",
    '{"ts":1e999,"facts":{}}': "a number is too large",
    '{"facts":{}}': "`ts` is missing",
    '{"ts":null,"facts":{}}': "`ts` is not a number",
    '{"ts":true,"facts":{}}': "`ts` is not a number",
    '{"ts":-1,"facts":{}}': "`ts` is negative",
    '{"ts":1746057600250,"facts":{}}': "`ts` is after the year 2200; "
    "seconds are expected, not milliseconds",
    '{"ts":"yesterday","facts":{}}': "`ts` is not an RFC 3339 time",
    '{"ts":"2026-03-01T09:00:00","facts":{}}': "`ts` has no time zone",
    '{"ts":"1969-03-01T09:00:00Z","facts":{}}': "`ts` is before 1970 or after 2200",
    '{"ts":1}': "`facts` is missing",
    '{"ts":1,"facts":[]}': "`facts` is not an object",
    '{"ts":1,"facts":{"account":{"id":"a"}}}': "fact `account` is an object; "
    "facts are flat, with dotted names",
    '{"ts":1,"facts":{"l":[1]}}': "fact `l` is a list of other things than strings",
    '{"ts":1,"facts":{},"estimate":7}': "`estimate` is not an object",
    '{"ts":1,"facts":{},"estimate":{"tokens":-1}}': "`estimate.tokens` is negative",
    '{"ts":1,"facts":{},"usage":{"tokens":true}}': "`usage.tokens` is not a number",
    '{"ts":1,"facts":{},"usage":{"tokens":"7"}}': "`usage.tokens` is not a number",
    '{"ts":1,"facts":{},"usage":{"tokens":1.5}}': "`usage.tokens` is not a whole number",
    '{"ts":1,"facts":{},"usage":{"tokens":9007199254740992}}': "`usage.tokens` is too large",
    '{"ts":1,"facts":{},"usage":{"cost_usd":-0.1}}': "`usage.cost_usd` is negative",
    '{"ts":1,"facts":{},"duration":-1}': "`duration` is negative",
    '{"ts":1,"facts":{},"duration":false}': "`duration` is not a number",
    '{"ts":1,"facts":{},"duration":2500000}': "`duration` is over a week; "
    "seconds are expected, not milliseconds",
    '{"ts":1,"facts":{},"x":' + "[" * 500_000 + "]" * 500_000 + "}": "nested too deeply",
    '{"ts":1,"facts":{"a":"' + "x" * MAX_LINE + '"}}': "longer than 1 MiB",
}


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=[line[:40] for line in BAD])
def test_a_bad_line_is_kept_with_its_number_and_its_reason(tmp_path, line, reason):
    requests, bad = read(tmp_path, '{"ts":1,"facts":{}}', line, '{"ts":2,"facts":{}}')

    assert [number for number, _, _ in requests] == [1, 3]
    assert bad.first == [(str(tmp_path / "traffic.jsonl"), 2, reason)]


@pytest.mark.parametrize(("line", "cut"), [('{"ts":1', True), ("[]", False), ('{"ts":1}', False)])
def test_a_last_line_that_is_whole_is_not_said_to_be_cut(tmp_path, line, cut):
    _, bad = read(tmp_path, '{"ts":1,"facts":{}}', line)

    assert bad.first[0][2].endswith(": the file ends within the line") is cut


def test_bytes_that_are_not_utf_8_make_a_bad_line(tmp_path):
    _, bad = read(tmp_path, b'{"ts":1,"facts":{"a":"\xff"}}')

    assert bad.first[0][2] == "not UTF-8: the file ends within the line"


def test_a_fact_of_just_under_a_megabyte_is_read(tmp_path):
    text = "x" * (MAX_LINE - 100)
    [(_, _, request)], bad = read(tmp_path, f'{{"ts":1,"facts":{{"account.id":"{text}"}}}}')

    assert (request.facts["account.id"], bad.count) == (text, 0)


def test_of_many_bad_lines_all_are_counted_and_the_first_few_kept(tmp_path):
    _, bad = read(tmp_path, *["nonsense"] * 1000)

    assert bad.count == 1000
    assert [line for _, line, _ in bad.first] == list(range(1, KEPT + 1))


JSON_LIKE = st.text(st.sampled_from('{}[]",:.e-+0123456789tsfactunulre \\\u202e'), max_size=80)


@given(st.lists(st.binary(max_size=60) | JSON_LIKE.map(str.encode), max_size=10))
def test_no_bytes_make_reading_fail(tmp_path_factory, lines):
    lines = [
        line.replace(b"\n", b"").replace(b"\xff\xfe", b"").replace(b"\x1f", b"") for line in lines
    ]
    requests, bad = read(tmp_path_factory.getbasetemp(), b"{}", *lines)
    blank = sum(not line or line.isspace() for line in lines)

    assert len(requests) + bad.count == 1 + len(lines) - blank


@pytest.mark.parametrize(
    ("members", "reserved"),
    [
        ("", None),
        ('"usage":{"input_tokens":9,"output_tokens":5}', {"input_tokens": 9}),
        ('"usage":{"tokens":9,"output_tokens":5}', {"input_tokens": 4}),
        ('"usage":{"tokens":9}', {"input_tokens": 9}),
        ('"usage":{"output_tokens":5,"reasoning_tokens":1,"cost_usd":0.5}', {}),
        ('"usage":{"input_tokens":9,"cached_input_tokens":8}', {"input_tokens": 9}),
        ('"usage":{"requests":3,"images":2}', {"requests": 3, "images": 2}),
        ('"usage":{"input_tokens":9},"estimate":{"tokens":3}', {"tokens": 3}),
        ('"usage":{"input_tokens":9},"estimate":{}', {}),
    ],
)
def test_what_is_known_only_afterwards_is_not_reserved(tmp_path, members, reserved):
    line = f'{{"ts":1,"facts":{{}}{"," if members else ""}{members}}}'
    [(_, _, request)], _ = read(tmp_path, line)

    assert request.reserved == reserved


def test_a_released_request_of_a_decision_log_gives_everything_back(tmp_path):
    lines = [
        '{"ts":1,"facts":{"account.id":"a"},"estimate":{"input_tokens":60,"output_tokens":0},'
        f'"usage":null,"ending":"{ending}"}}'
        for ending in ("released", "released", "settled", "settled")
    ]
    found, bad = read(tmp_path, *lines)
    guard = guard_of(
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: r, when: always, budget: {tokens: 100, per: day, key: account.id}}\n"
    )
    effects = [str(decision.effect) for *_, decision in Replay(guard).run(found)]

    assert bad.count == 0
    assert effects == ["allow", "allow", "allow", "throttle"]


def test_a_line_of_an_older_decision_log_is_a_request(tmp_path):
    log = (
        '{"v":1,"ts":5.5,"id":"x","revision":"sha256:1","effect":"allow","rule":null,"reason":null,'
        '"mode":"normal","ending":"settled","account":"AAAAAAAAAAAAAAAA","model":"large",'
        '"capability":"chat","country":null,"estimate":{"input_tokens":3},"usage":null}'
    )
    found, bad = read(tmp_path, log, log.replace('"v":1', '"v":9'), log.replace('"ts":5.5,', ""))
    [(_, ts, request)] = found

    assert bad.count == 2
    assert (ts, request.estimate) == (5.5, {"input_tokens": 3})
    assert request.facts == {
        "account.id": "AAAAAAAAAAAAAAAA",
        "request.model": "large",
        "request.capability": "chat",
    }

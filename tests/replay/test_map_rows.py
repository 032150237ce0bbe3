"""What a map makes of rows that are no plain objects, or that stand for no request."""

from __future__ import annotations

import json

import pytest

from guardrail.cli.traffic_text import map_remarks
from guardrail.errors import DataError
from guardrail.loading import load_text
from guardrail.traffic.guessing import proposed
from guardrail.traffic.mapfile import MapError, read_map
from tests.replay.test_named_maps import MARCH, POLICIES, Read, by_map, by_name

INVOCATION = {
    "timestamp": "2026-03-01T09:00:00Z",
    "accountId": "111122223333",
    "identity": {"arn": "arn:aws:iam::111122223333:user/ada"},
    "modelId": "large-v1:0",
    "operation": "Converse",
    "input": {"inputTokenCount": 12, "cacheReadInputTokenCount": 5},
    "output": {"outputTokenCount": 3},
    "schemaType": "ModelInvocationLog",
}
MESSAGE = json.dumps(INVOCATION)
WHOLE = {
    "account.id": "arn:aws:iam::111122223333:user/ada",
    "account.org": "111122223333",
    "request.model": "large-v1:0",
    "request.endpoint": "Converse",
    "request.capability": "chat",
}


def pairs(**fields: str) -> list[dict[str, str]]:
    return [{"field": name, "value": value} for name, value in fields.items()]


QUERIED = {
    "results": [
        pairs(**{"@timestamp": "2026-03-01 09:00:00.500", "@message": MESSAGE, "@ptr": "x"}),
    ],
    "status": "Complete",
}


@pytest.mark.parametrize(
    ("document", "second"),
    [
        ({"events": [{"timestamp": 1772355600000, "message": MESSAGE}]}, 0),
        ({"logEvents": [{"id": "1", "timestamp": 1772355601000, "message": MESSAGE}]}, 1),
        (QUERIED, 0.5),
        ([{"@timestamp": "2026-03-01 09:00:02.000", "@message": INVOCATION}], 2),
    ],
    ids=["filter-log-events", "subscription", "get-query-results", "console"],
)
def test_cloudwatch_tells_the_same_of_an_invocation_in_each_form(tmp_path, document, second):
    read = by_name(tmp_path, "cloudwatch", json.dumps(document))

    assert read.bad.count == 0
    assert read.times == [MARCH + second]
    assert read.facts == [WHOLE]
    assert read.first.usage == {"input_tokens": 17, "cached_input_tokens": 5, "output_tokens": 3}
    assert proposed(str(tmp_path / "log")).name == "cloudwatch"


def test_a_query_that_shows_fields_alone_is_read_by_their_names(tmp_path):
    row = pairs(
        **{
            "@timestamp": "2026-03-01 09:00:00.000",
            "accountId": "111122223333",
            "modelId": "large-v1:0",
            "input.inputTokenCount": "12",
            "output.outputTokenCount": "3",
        }
    )
    read = by_name(tmp_path, "cloudwatch", json.dumps({"results": [row]}))

    assert read.facts[0]["account.id"] == "111122223333"
    assert read.first.usage == {"input_tokens": 12, "cached_input_tokens": 0, "output_tokens": 3}
    assert proposed(str(tmp_path / "log")).name == "cloudwatch"


def test_what_a_row_says_itself_counts_before_what_is_lifted(tmp_path):
    text = "lift: [inner]\nts: {column: t}\nfacts: {account.id: {column: user}}\n"
    log = (
        '{"t": 1772355600, "user": "ada", "inner": "{\\"user\\": \\"bob\\"}"}\n'
        '{"t": 1772355601, "inner": {"user": "bob"}}\n'
        '{"t": 1772355602, "inner": "no JSON"}\n'
    )
    read = by_map(tmp_path, text, log)

    assert [facts["account.id"] for facts in read.facts] == ["ada", "bob"]
    assert read.bad.first == [(str(tmp_path / "log"), 3, "`inner` is not JSON")]


@pytest.mark.parametrize(
    "row",
    ['[{"field": "t"}, 5]', '[{"field": "t"}, {"field": "t"}]', '[{"field": 5}]', '"text"'],
)
def test_a_list_that_is_not_of_pairs_is_a_bad_line(tmp_path, row):
    text = "format: json\nrows: 'rows[]'\npairs: [field, value]\nts: {column: t}\nfacts: {}\n"
    good = '[{"field": "t", "value": 1772355600}]'
    read = by_map(tmp_path, text, f'{{"rows": [{row}, {good}]}}')

    assert read.times == [MARCH]
    assert read.bad.count == 1


def test_a_time_is_the_first_column_that_has_one_and_what_matches(tmp_path):
    text = (
        "ts: {column: [at, id], match: '^(\\d{8})', format: '%Y%m%d', timezone: UTC}\n"
        "facts: {account.id: {column: user}}\n"
    )
    log = (
        '{"id": "20260301-5ea3", "user": "a"}\n'
        '{"at": "20260302T1", "id": "20260301-5ea3", "user": "a"}\n'
        '{"id": "x", "user": "a"}\n{"user": "a"}\n'
    )
    read = by_map(tmp_path, text, log)

    midnight = 1772323200.0
    assert read.times == [midnight, midnight + 86_400]
    assert [why for _, _, why in read.bad.first] == [
        "time `id` does not fit `match`",
        "time `at` is missing",
    ]


EXPORTED = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,"
    "api_key_id,model,input_tokens,output_tokens,input_cached_tokens\n"
    "1772352000,1772355600,2026-03-01T08:00:00+00:00,2026-03-01T09:00:00+00:00,,,,,,,,\n"
    "1772355600,1772359200,2026-03-01T09:00:00+00:00,2026-03-01T10:00:00+00:00,"
    "p1,4.0,,k1,large,120.0,30.0,20.0\n"
)


def test_openais_export_has_lines_for_times_without_requests(tmp_path):
    read = by_name(tmp_path, "openai-csv", EXPORTED)

    assert read.times == [MARCH]
    assert (read.bad.count, read.notes.passed_over, read.notes.rows) == (0, 1, 1)
    assert read.facts[0]["account.id"] == "k1"
    assert read.first.usage == {
        "requests": 4,
        "input_tokens": 120,
        "cached_input_tokens": 20,
        "output_tokens": 30,
    }
    assert proposed(str(tmp_path / "log")).name == "openai-csv"


def test_what_an_export_had_before_has_a_map_of_its_own(tmp_path):
    log = (
        "organization_id,n_requests,operation,n_context_tokens_total,n_generated_tokens_total,"
        "usage_type,model,timestamp,user\norg-1,3,completion,100,20,text,small,1772355600,ada\n"
    )
    read = by_name(tmp_path, "openai-csv-older", log)
    assert read.first.usage == {"requests": 3, "input_tokens": 100, "output_tokens": 20}
    assert read.facts[0]["account.id"] == "ada"
    assert proposed(str(tmp_path / "log")).name == "openai-csv-older"

    log = (
        "usage_date_utc,model_version,api_key,workspace,usage_input_tokens_no_cache,"
        "usage_input_tokens_cache_write,usage_input_tokens_cache_read,usage_output_tokens\n"
        "2026-03-01T09:00:00Z,large,k1,Default,100,5,7,20\n"
    )
    read = by_name(tmp_path, "anthropic-csv-older", log)
    assert read.first.usage == {
        "input_tokens": 112,
        "cached_input_tokens": 7,
        "output_tokens": 20,
    }
    assert proposed(str(tmp_path / "log")).name == "anthropic-csv-older"


def test_costs_are_not_taken_for_requests(tmp_path):
    (tmp_path / "log").write_text(
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item\n"
        "1772352000,1772355600,2026-03-01T08:00:00+00:00,2026-03-01T09:00:00+00:00,0.5,usd,x\n"
    )
    with pytest.raises(DataError, match="neither requests nor tokens; export the usage"):
        proposed(str(tmp_path / "log"))


def test_other_events_of_cloudwatch_are_proposed_by_what_their_texts_hold(tmp_path):
    log = tmp_path / "log"
    event = {"timestamp": 1772355600000, "message": '{"user": "ada", "path": "/v1/chat"}'}
    log.write_text(json.dumps({"events": [event]}))
    made = proposed(str(log))
    assert "unpack: [message]" in made.text
    assert "account.id: {column: message.user}" in made.text

    log.write_text(json.dumps({"results": [pairs(**{"@timestamp": "2026-03-01 09:00:00.000"})]}))
    made = proposed(str(log))
    read = by_map(tmp_path, made.text.removeprefix("guardrail_map: 1\n"), log.read_text())
    assert "pairs: [field, value]" in made.text
    assert read.times == [MARCH]


def test_a_model_of_another_spelling_is_the_listed_one_as_at_a_door(tmp_path):
    policies = load_text(
        "guardrail: 1\npolicy: p\nmodels: {large: {aliases: [anthropic.claude-large]}}\n"
        "rules: [{id: r, when: {request.model: large}, block: {}}]\n"
    )
    text = b"guardrail_map: 1\nts: {column: t}\nfacts: {request.model: {column: model}}\n"
    names = ["openai/large", "us.anthropic.claude-large", "large", "large-2026-03-01", "other"]
    rows = [{"t": 1772355600 + n, "model": name} for n, name in enumerate(names)]
    (tmp_path / "log").write_text("\n".join(map(json.dumps, rows)))
    read = Read(tmp_path / "log", read_map(text, "map", policies))

    assert [facts["request.model"] for facts in read.facts] == [
        "large", "anthropic.claude-large", "large", "large-2026-03-01", "other",
    ]  # fmt: skip
    assert read.notes.respelt == {
        ("large", "openai/large"): 1,
        ("anthropic.claude-large", "us.anthropic.claude-large"): 1,
    }
    told = "models that the log names otherwise, in 2 requests, as a door takes them: "
    assert any(line.startswith(told) for line in map_remarks(read.notes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: json\npairs: [field]\n", "pairs have two members"),
        ("pairs: [field, value]\n", "only `format: json` has a pairs"),
        ("ts: {column: t, match: 'a'}\n", "a match has one group"),
    ],
)
def test_what_is_wrong_with_pairs_and_matches_is_said(text, message):
    whole = f"guardrail_map: 1\n{text}" + ("" if "ts:" in text else "ts: {column: t}\n")
    with pytest.raises(MapError, match=message):
        read_map(f"{whole}facts: {{}}\n".encode(), "map", POLICIES)


def test_every_process_counts_the_rows_that_it_passed_over(tmp_path):
    text = b"guardrail_map: 1\nrows_with: n\nts: {column: t}\nfacts: {}\n"
    one, two = (read_map(text, "map", POLICIES).notes for _ in range(2))
    one.passed_over, two.passed_over = 2, 3
    one.merge(two)

    assert one.passed_over == 5

"""Maps by name, on logs in the shapes their programs are documented to write, and a real one's."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guardrail.errors import DataError
from guardrail.loading import load_text, plain, read_yaml
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.guessing import proposed
from guardrail.traffic.mapfile import (
    MapError,
    built_in_names,
    compiled_pattern,
    load_map,
    read_map,
    text_of_map,
)
from guardrail.traffic.maps import TrafficMap
from guardrail.traffic.requests import BadLines
from guardrail.traffic.schemas import TRAFFIC_SCHEMA, map_schema

POLICIES = load_text("""
guardrail: 1
policy: p
rules:
  - {id: r, when: always, budget: {requests: 10, per: day, key: account.id}}
""")
MARCH = 1772355600.0
"""1 March 2026, nine in the morning, UTC."""


class Read:
    """What a map makes of a log."""

    def __init__(self, path: Path, mapping: TrafficMap):
        with ExitStack() as closing:
            files = TrafficFiles([str(path)], closing)
            self.rows = list(files.requests(mapping))
        self.bad: BadLines = files.bad
        self.faults = files.faults
        self.notes = mapping.notes
        self.first: Any = self.rows[0][2] if self.rows else None
        self.times = [ts for _, ts, _ in self.rows]

    @property
    def facts(self) -> list[dict[str, Any]]:
        return [request.facts for _, _, request in self.rows]


def by_name(tmp_path: Path, name: str, data: str | bytes) -> Read:
    path = tmp_path / "log"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return Read(path, load_map(name, POLICIES))


def by_map(tmp_path: Path, text: str, data: str | bytes) -> Read:
    path = tmp_path / "log"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return Read(path, read_map(f"guardrail_map: 1\n{text}".encode(), "map", POLICIES))


COMBINED = (
    '203.0.113.9 - ada [01/Mar/2026:10:00:00 +0100] "POST /v1/chat/completions?x=1 HTTP/1.1" 200 12'
    ' "-" "an \\"agent\\""\n'
    '2001:db8::1 - - [01/Mar/2026:09:00:01 +0000] "GET /metrics HTTP/1.1" 200 12 "-" "-"\n'
    '203.0.113.9 - - [01/Mar/2026:09:00:02 +0000] "\\x16\\x03" 400 0 "-" "-"\n'
    "something else\n"
)


@pytest.mark.parametrize("name", ["nginx", "apache"])
def test_access_logs_tell_who_and_which_endpoint(tmp_path, name):
    read = by_name(tmp_path, name, COMBINED)

    assert read.times == [MARCH, MARCH + 1, MARCH + 2]
    assert read.facts[0] == {
        "account.id": "ada",
        "client.ip": "203.0.113.9",
        "client.agent": 'an \\"agent\\"',
        "request.endpoint": "/v1/chat/completions",
        "request.capability": "chat",
    }
    assert read.facts[1] == {
        "client.ip": "2001:db8::1",
        "request.endpoint": "/metrics",
        "request.capability": "other",
    }
    assert read.facts[2]["request.capability"] == "other"
    assert read.bad.first == [(str(tmp_path / "log"), 4, "the line does not fit the pattern")]
    assert read.notes.missing == {"account.id": 2, "client.agent": 2, "request.endpoint": 1}
    assert not read.notes.unknown
    assert set(read.notes.replaced) == {
        ("request.capability", "/metrics"),
        ("request.capability", "\\x16\\x03"),
    }


@pytest.mark.parametrize(
    "stamp",
    ['"2026-03-01T09:00:00Z"', "1772355600000000000", '"1772355600000000000"', "1772355600"],
)
def test_cloudflare_logs_have_times_of_each_kind(tmp_path, stamp):
    line = (
        '{"ClientIP":"203.0.113.9","ClientCountry":"de","ClientASN":64500,"ClientRequestUserAgent":'
        f'"x","ClientRequestURI":"/v1/embeddings?a","EdgeStartTimestamp":{stamp},'
        '"EdgeEndTimestamp":"2026-03-01T09:00:02Z"}'
    )
    read = by_name(tmp_path, "cloudflare", line + "\n")

    assert read.first.duration == 2

    assert read.times == [MARCH]
    assert read.facts[0]["geo.country"] == "DE"
    assert read.facts[0]["geo.asn"] == 64500
    assert read.facts[0]["request.capability"] == "embedding"


ASKED = '203.0.113.9 - ada [01/Mar/2026:09:00:00 +0000] "POST /v1/messages HTTP/1.1"'


@pytest.mark.parametrize(
    "line",
    [
        f"{ASKED} 200 12",
        f'{ASKED} 200 - "-" "x" 7',
        f'api.example:443 {ASKED} 200 12 "-" "x"',
    ],
)
def test_apaches_other_usual_formats_are_read(tmp_path, line):
    read = by_name(tmp_path, "apache", line + "\n")

    assert read.times == [MARCH]
    assert read.facts[0]["client.ip"] == "203.0.113.9"
    assert read.facts[0]["account.id"] == "ada"
    assert read.facts[0]["request.capability"] == "chat"
    assert proposed(str(tmp_path / "log")).name in ("nginx", "apache")


def test_the_format_that_packages_of_nginx_set_up_is_read(tmp_path):
    line = f'{ASKED} 200 12 "-" "x" "198.51.100.7, 203.0.113.9"\n'
    read = by_name(tmp_path, "nginx", line + "no such line\n")

    assert read.facts[0]["client.ip"] == "203.0.113.9"
    assert read.facts[0]["client.agent"] == "x"
    assert read.bad.count == 1


INVOKED: dict[str, Any] = {
    "schemaType": "ModelInvocationLog",
    "timestamp": "2026-03-01T09:00:00Z",
    "accountId": "111122223333",
    "identity": {"arn": "arn:aws:iam::111122223333:user/ada"},
    "requestId": "r1",
    "operation": "InvokeModel",
    "modelId": "large",
    "input": {"inputContentType": "application/json", "inputTokenCount": 40},
    "output": {"outputContentType": "application/json", "outputTokenCount": 7},
}


USED = {"input_tokens": 40, "cached_input_tokens": 0, "output_tokens": 7}


def test_cloudwatch_events_are_unpacked_in_the_order_of_their_times(tmp_path):
    events = [
        {"timestamp": int(MARCH + late) * 1000, "message": json.dumps(INVOKED), "eventId": "e"}
        for late in (5, 0)
    ]
    document = {"events": events, "searchedLogStreams": []}
    whole = by_name(tmp_path, "cloudwatch", json.dumps(document, indent=2))
    pages = by_name(
        tmp_path, "cloudwatch", "".join(json.dumps({"events": [e]}) + "\n" for e in events)
    )

    delivered = {"messageType": "DATA_MESSAGE", "logGroup": "g", "logEvents": events}
    subscribed = by_name(tmp_path, "cloudwatch", json.dumps(delivered) + "\n")

    assert proposed(str(tmp_path / "log")).name == "cloudwatch"
    assert whole.times == pages.times == subscribed.times == [MARCH, MARCH + 5]
    assert [line for line, _, _ in whole.rows] == [2, 1]
    assert whole.first.usage == USED
    assert whole.facts[0]["account.id"].endswith("user/ada")
    assert whole.facts[0]["request.model"] == "large"


def test_cloudwatch_exports_are_lines_of_a_time_and_an_event(tmp_path):
    line = f"2026-03-01T09:00:00.000Z {json.dumps(INVOKED)}\n"
    read = by_name(tmp_path, "cloudwatch-export", line + "2026-03-01T09:00:00.000Z no json\n")

    assert read.times == [MARCH]
    assert read.first.usage == USED
    assert read.bad.first[0][2] == "`message` is not JSON"


def test_invocations_delivered_to_s3_are_a_line_each(tmp_path):
    read = by_name(tmp_path, "bedrock", (json.dumps(INVOKED) + "\n") * 2)

    assert read.times == [MARCH, MARCH]
    assert read.first.usage == USED
    assert read.facts[0]["account.id"].endswith("user/ada")


def test_openais_usage_is_a_row_for_the_requests_of_a_bucket(tmp_path):
    result = {
        "object": "organization.usage.completions.result",
        "input_tokens": 1000, "output_tokens": 500, "input_cached_tokens": 800,
        "num_model_requests": 5, "project_id": "proj_1", "user_id": "user-1",
        "api_key_id": "key_1", "model": "large", "batch": False,
    }  # fmt: skip
    page = {
        "object": "page",
        "data": [
            {"object": "bucket", "start_time": int(MARCH), "end_time": 0, "results": [result] * 2},
            {"object": "bucket", "start_time": int(MARCH) + 60, "end_time": 0, "results": []},
        ],
        "has_more": False,
        "next_page": None,
    }
    read = by_name(tmp_path, "openai", json.dumps(page))

    assert read.times == [MARCH, MARCH]
    assert read.first.reserved == {"requests": 5, "input_tokens": 1000}
    assert read.first.usage == {
        "requests": 5, "input_tokens": 1000, "cached_input_tokens": 800, "output_tokens": 500,
    }  # fmt: skip
    assert read.facts[0]["credential.id"] == "key_1"


def test_buckets_of_several_pages_are_read_as_a_list_and_without_a_user_by_key(tmp_path):
    result = {
        "input_tokens": 10, "output_tokens": 5, "num_model_requests": 2, "user_id": None,
        "api_key_id": "key_1", "model": "large",
    }  # fmt: skip
    buckets = [{"start_time": int(MARCH) + n, "end_time": 0, "results": [result]} for n in (0, 60)]
    read = by_name(tmp_path, "openai", json.dumps([*buckets, {"start_time": 0, "results": []}]))

    assert read.times == [MARCH, MARCH + 60]
    assert read.facts[0]["account.id"] == "key_1"
    assert proposed(str(tmp_path / "log")).name == "openai"


def test_openais_older_usage_is_a_row_for_five_minutes(tmp_path):
    row = {
        "aggregation_timestamp": int(MARCH), "n_requests": 2, "operation": "completion",
        "snapshot_id": "large", "n_context": 2, "n_context_tokens_total": 244, "n_generated": 2,
        "n_generated_tokens_total": 128,
    }  # fmt: skip
    document = {"object": "list", "data": [row], "dalle_api_data": [], "current_usage_usd": 0}
    (tmp_path / "log").write_text(json.dumps(document, indent=2))
    read = Read(tmp_path / "log", load_map("openai-older", POLICIES))

    assert read.times == [MARCH]
    assert read.first.usage == {
        "requests": 2, "input_tokens": 244, "cached_input_tokens": 0, "output_tokens": 128,
    }  # fmt: skip
    assert read.facts[0] == {
        "account.id": "everybody", "request.model": "large", "request.capability": "chat",
    }  # fmt: skip
    assert proposed(str(tmp_path / "log")).name == "openai-older"
    with ExitStack() as closing:
        files = TrafficFiles([str(tmp_path / "log")], closing)
        assert not list(files.requests(load_map("openai", POLICIES)))
    assert "see with `guardrail map guess` which map reads it" in files.faults[0]


def test_anthropics_usage_adds_up_what_went_in(tmp_path):
    result = {
        "uncached_input_tokens": 100, "cache_read_input_tokens": 30, "output_tokens": 9,
        "cache_creation": {"ephemeral_1h_input_tokens": 4, "ephemeral_5m_input_tokens": 2},
        "api_key_id": "apikey_1", "workspace_id": None, "model": "large",
    }  # fmt: skip
    bucket = {"starting_at": "2026-03-01T09:00:00Z", "ending_at": "", "results": [result]}
    read = by_name(tmp_path, "anthropic", json.dumps({"data": [bucket], "has_more": False}))
    table = by_name(
        tmp_path,
        "anthropic-csv",
        "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,"
        "usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,"
        "web_search_count,inference_geo,speed\n"
        "2026-03-01,large,key,Default,standard,≤ 200k,100,2,4,30,9,0,global,\n",
    )

    hourly = by_name(
        tmp_path, "anthropic-csv", (tmp_path / "log").read_text().replace("-01,", "-01 09:00,")
    )

    for found in (read, table, hourly):
        assert found.first.usage == {
            "input_tokens": 136, "cached_input_tokens": 30, "output_tokens": 9,
        }  # fmt: skip
    assert (read.times, table.times) == ([MARCH], [MARCH - 9 * 3600])
    assert hourly.times == [MARCH]


def test_litellms_spend_logs_are_read_as_a_list_and_by_line(tmp_path):
    rows = [
        {
            "request_id": str(late), "call_type": call, "api_key": "hash", "spend": 0.1,
            "total_tokens": 15, "prompt_tokens": 10, "completion_tokens": 5,
            "startTime": f"2026-03-01T09:00:0{late}{zone}", "endTime": f"2026-03-01T09:00:09{zone}",
            "model": "large", "model_group": "big", "user": "ada", "team_id": "",
            "requester_ip_address": "203.0.113.9", "metadata": {"a": 1},
        }
        for late, call, zone in ((4, "acompletion", "Z"), (1, "aembedding", ""))
    ]  # fmt: skip
    listed = by_name(tmp_path, "litellm", json.dumps(rows))
    lines = by_name(tmp_path, "litellm", "".join(json.dumps(row) + "\n" for row in rows))

    page = by_name(tmp_path, "litellm", json.dumps({"data": rows, "total": 2, "page": 1}))

    for read in (listed, lines, page):
        assert read.times == [MARCH + 1, MARCH + 4]
        assert [request.duration for _, _, request in read.rows] == [8, 5]
        assert [facts["request.capability"] for facts in read.facts] == ["embedding", "chat"]
        assert read.first.usage == {"input_tokens": 10, "output_tokens": 5}
        assert read.bad.count == 0


def test_a_key_stands_in_for_a_user_that_a_spend_log_lacks(tmp_path):
    row = {
        "call_type": "acompletion", "api_key": "hash", "prompt_tokens": 1, "completion_tokens": 1,
        "startTime": "2026-03-01T09:00:00Z", "user": "", "model": "large", "model_group": "",
    }  # fmt: skip
    read = by_name(tmp_path, "litellm", json.dumps(row, indent=2))

    assert read.facts[0]["account.id"] == "hash"
    assert read.facts[0]["request.model"] == "large"
    assert not read.notes.is_missed("user")
    assert not read.notes.is_missed("team_id")
    assert read.notes.is_missed("endTime")


def test_what_was_read_from_a_cache_counts_as_input(tmp_path):
    counts = {"inputTokenCount": 40, "cacheReadInputTokenCount": 100}
    row = {**INVOKED, "input": {**INVOKED["input"], **counts}}
    read = by_name(tmp_path, "bedrock", json.dumps(row) + "\n")

    assert read.first.usage == {
        "input_tokens": 140, "cached_input_tokens": 100, "output_tokens": 7,
    }  # fmt: skip
    assert not read.notes.is_missed("input.cacheWriteInputTokenCount")


def test_one_document_of_what_is_a_line_each_is_proposed_as_a_document(tmp_path):
    (tmp_path / "log").write_text(json.dumps(INVOKED, indent=2))
    made = proposed(str(tmp_path / "log"))
    read = Read(tmp_path / "log", read_map(made.text.encode(), "map", POLICIES))

    assert made.name is None
    assert "a line at a time: this is a document" in made.taken[0]
    assert read.first.usage == USED


@pytest.mark.parametrize("first", ["1772355600", "1772355600.0", "2026-03-01T09:00:00Z"])
def test_a_plain_csv_needs_no_header(tmp_path, first):
    read = by_name(tmp_path, "csv", f"{first},a1,chat,large,12,3\n1772355601,a2,code,,12,3\n")

    assert read.times == [MARCH, MARCH + 1]
    assert read.facts[1] == {"account.id": "a2", "request.capability": "code"}
    assert read.notes.missing == {"request.model": 1}


def test_the_log_of_a_real_nginx_is_read(tmp_path):
    """Nothing in the log is prepared: a server writes it, of requests that it served."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bodies = "".join(
        f'{kind}_temp_path "{tmp_path}/{kind}";'
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f'pid "{tmp_path}/pid"; error_log "{tmp_path}/errors"; events {{}}\n'
        f'http {{ {bodies} access_log "{tmp_path}/log";\n'
        f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }} }}\n'
    )
    start = [nginx, "-e", f"{tmp_path}/errors", "-c", f"{tmp_path}/nginx.conf"]
    subprocess.run(start, check=True, capture_output=True)
    try:
        for path, agent in (("/v1/messages?beta=true", 'a "b" \\ c'), ("/", "plain")):
            asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method="POST")
            asked.add_header("user-agent", agent)
            urllib.request.urlopen(asked).read()
    finally:
        subprocess.run([*start, "-s", "quit"], check=True, capture_output=True)
    # A request is logged after it was answered; the server takes its pid away when all is written.
    deadline = time.monotonic() + 20
    while (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    read = Read(tmp_path / "log", load_map("nginx", POLICIES))

    assert [facts["request.capability"] for facts in read.facts] == ["chat", "other"]
    assert read.facts[0]["client.agent"] == "a \\x22b\\x22 \\x5C c"
    assert {facts["client.ip"] for facts in read.facts} == {"127.0.0.1"}
    assert read.bad.count == 0
    assert proposed(str(tmp_path / "log")).name == "nginx"


BERLIN = "ts: {column: t, format: '%%Y-%%m-%%d %%H:%%M', timezone: Europe/Berlin%s}\nfacts: {}\n"


@pytest.mark.parametrize(
    ("more", "seconds"), [("", 1792888200.0), (", doubled: second", 1792891800.0)]
)
def test_an_hour_that_is_there_twice_is_counted(tmp_path, more, seconds):
    rows = '{"t": "2026-10-25 02:30"}\n{"t": "2026-10-25 03:30"}\n'
    read = by_map(tmp_path, BERLIN % more, rows)

    assert (read.times[0], read.notes.doubled, read.notes.skipped) == (seconds, 1, 0)
    assert read.notes.examples == {"doubled": "2026-10-25 02:30"}


def test_an_hour_that_never_was_is_counted(tmp_path):
    read = by_map(tmp_path, BERLIN % "", '{"t": "2026-03-29 02:30"}\n' * 2)

    assert (read.notes.doubled, read.notes.skipped) == (0, 2)
    assert read.times[0] == 1774747800.0


def test_times_that_count_from_the_first_line_are_noticed(tmp_path):
    bare = by_map(tmp_path, "ts: {column: t}\nfacts: {}", '{"t": 3}\n')
    put = by_map(tmp_path, "ts: {column: t, offset: 2026-03-01}\nfacts: {}", '{"t": 3}\n')

    assert (bare.notes.early, put.notes.early) == (1, 0)


def test_decimal_commas_encodings_and_texts_that_are_no_value(tmp_path):
    read = by_map(
        tmp_path,
        "format: csv\ndelimiter: ';'\ndecimal: ','\nencoding: cp1252\nempty: [n/a]\n"
        "ts: {column: Zeit}\nfacts: {account.id: {column: Kunde}, account.paid_usd: {column: €}}\n"
        "usage: {input_tokens: {column: Anzahl}, cost_usd: {column: Preis}}\n",
        "Zeit;Kunde;Anzahl;Preis;€\n1772355600,5;Zoë;1.200;1.000,25;12,5\n1;n/a;n/a;0,5;n/a\n"
        .encode("cp1252"),
    )  # fmt: skip

    assert read.times[0] == MARCH + 0.5
    assert read.facts[0] == {"account.id": "Zoë", "account.paid_usd": 12.5}
    assert read.first.usage == {"input_tokens": 1200, "cost_usd": 1000.25}
    assert read.rows[1][2].usage == {"cost_usd": 0.5}
    assert read.notes.undecoded == 0


def test_utf_16_is_read_and_what_is_of_no_encoding_is_counted(tmp_path):
    text = "ts: {column: t}\nencoding: %s\nfacts: {account.id: {column: who}}\n"
    row = '{"t": 1772355600, "who": "Zoë"}\n'
    wide = by_map(tmp_path, text % "utf-16", row.encode("utf-16"))
    wrong = by_map(tmp_path, text % "ascii", row)

    assert (wide.facts[0]["account.id"], wide.notes.undecoded) == ("Zoë", 0)
    assert (wrong.facts[0]["account.id"], wrong.notes.undecoded) == ("Zo��", 2)


WRONG = {
    "rows: data[]\nts: {column: t}\nfacts: {}": "only `format: json` has a rows",
    "format: json\nrows: data\nts: {column: t}\nfacts: {}": "`data` is no path to rows",
    "format: line\nts: {column: t}\nfacts: {}": "a line needs a pattern",
    "format: line\npattern: '$a $a'\nts: {column: t}\nfacts: {}": "`$a` stands twice",
    "format: line\npattern: abc\nts: {column: t}\nfacts: {}": "the pattern names no column",
    "encoding: utf-99\nts: {column: t}\nfacts: {}": "unknown encoding `utf-99`",
    "ts: {column: t, format: '%Q'}\nfacts: {}": "`%Q` is no format of a time",
    "ts: {column: t, format: '%Y', unit: s}\nfacts: {}": "a time with a format has no unit",
    "ts: {column: t, numbers: ms}\nfacts: {}": "the unit says already what numbers are",
    "ts: {column: t}\nfacts: {account.id: {column: a, match: '('}}": "is no regular expression",
    "ts: {column: t}\nfacts: {account.id: {column: a, match: 'a'}}": "a match has one group",
    "ts: {column: t}\nfacts: {}\nduration: {unit: s}": "a duration is a `column`, or lasts",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_the_new_keys_is_said(text):
    with pytest.raises(MapError) as raised:
        read_map(f"guardrail_map: 1\n{text}".encode(), "map", POLICIES)

    assert WRONG[text] in str(raised.value)


@pytest.mark.parametrize("name", built_in_names())
def test_named_maps_fit_the_schema_and_say_where_their_log_is_documented(name):
    text = text_of_map(name)
    node = read_yaml(text, name, [])
    assert node is not None
    written: Any = plain(node)
    jsonschema.validate(written, map_schema())

    assert name == "csv" or "# https://" in text
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**written, "fact": {}}, map_schema())


def test_a_name_that_no_map_has_is_suggested():
    with pytest.raises(DataError, match="did you mean `nginx`"):
        load_map("ngnix", POLICIES)
    with pytest.raises(DataError, match="maps by name are anthropic, "):
        load_map("zzz", POLICIES)


def test_the_schema_of_traffic_fits_what_is_read():
    valid = jsonschema.Draft202012Validator(TRAFFIC_SCHEMA)
    row = {"ts": 1.5, "facts": {"a": "b", "c": ["d"], "e": None}, "usage": {"tokens": 3}}

    assert valid.is_valid(row)
    assert not valid.is_valid({**row, "ts": -1})
    assert not valid.is_valid({**row, "facts": {"a": {}}})
    assert not valid.is_valid({"ts": 1})


def test_a_pattern_ends_a_column_before_what_follows_it():
    found = compiled_pattern('$a [$b] "$c" $d').fullmatch('x [y z] "q \\" r" the rest')

    assert found is not None
    assert found.groupdict() == {"a": "x", "b": "y z", "c": 'q \\" r', "d": "the rest"}


GUESSED = {
    "time;kunde;user;model\n01.03.2026 10:00:00;x;u1;m\n01.03.2026 10:00:01;y;u2;m\n": [
        "format: csv",
        'delimiter: ";"',
        'ts: {column: time, format: "%d.%m.%Y %H:%M:%S", timezone: UTC}',
        "account.id: {column: user}",
        "request.model: {column: model}",
    ],
    "1772355600000,203.0.113.9\n1772355601000,203.0.113.8\n": [
        "columns: [column_1, column_2]",
        "ts: {column: column_1, unit: ms}",
        "account.id: {constant: everybody}",
    ],
    '{"ts": "2026-03-01T09:00:00", "session": "203.0.113.9", "country": "de", "kind": "rag"}\n': [
        "ts: {column: ts, unit: rfc3339, timezone: UTC}",
        "client.ip: {column: session}",
        "geo.country: {column: country, case: upper}",
        "request.capability: {column: kind, values: {rag: other}}",
    ],
    '{"time": 12.5, "user": {"id": 7}, "usage": {"prompt_tokens": 3, "x": "y"}, "latency": 30}\n': [
        "ts: {column: time, offset: 2026-01-05T00:00:00Z}",
        "input_tokens: {column: usage.prompt_tokens}",
        "duration: {column: latency, unit: s}",
    ],
    '{"total": 2, "days": [\n{"day": "2026-03-01", "rows": [{"user": "u", "tokens_in": 3}]},\n'
    '{"day": "2026-03-02", "rows": [{"user": "v", "tokens_in": 4}]}]}\n': [
        "format: json",
        "rows: days[].rows[]",
        'ts: {column: day, format: "%Y-%m-%d", timezone: UTC}',
        "input_tokens: {column: tokens_in}",
    ],
    "time;user;cost;tokens\n01.03.2026 10:00:00;u1;1.234,5;7\n01.03.2026 10:00:01;u2;0,25;8\n": [
        'decimal: ","',
        "cost_usd: {column: cost}",
        "  tokens: {column: tokens}",
    ],
    "time,user\n03/01/2026 10:00,u1\n03/02/2026 10:00,u2\n": [
        'ts: {column: time, format: "%m/%d/%Y %H:%M", timezone: UTC}',
    ],
    "time,user\n01/03/2026 10:00,u1\n02/03/2026 10:00,u2\n": [
        'ts: {column: time, format: "%d/%m/%Y %H:%M", timezone: UTC}',
    ],
    '{"@timestamp": "2026-03-01T09:00:00Z", "caller": {"user": {"id": "u"}}, "latency_ms": 3}\n': [
        "account.id: {column: caller.user.id}",
        "duration: {column: latency_ms, unit: ms}",
    ],
    '{"ts": 1772355600, "user": "u", "elapsed_seconds": 2500}\n': [
        "duration: {column: elapsed_seconds, unit: s}",
    ],
    '{"ts": 1772355600, "user": "u", "latency": 250}\n': [
        "duration: {column: latency, unit: ms}",
    ],
    '{"ts": 1772355600, "user": "u", "latency": 250.5}\n': [
        "duration: {column: latency, unit: s}",
    ],
    '{"ts": "2026-03-01T09:00:00", "facts": {"account.id": "a"}, "tokens": 9, "input": 4}\n': [
        "account.id: {column: facts.account.id}",
        "  input_tokens: {column: input}\n",
    ],
}


@pytest.mark.parametrize("log", GUESSED)
def test_a_proposal_reads_the_log_and_says_what_it_took_for_what(tmp_path, log):
    (tmp_path / "log").write_text(log)
    made = proposed(str(tmp_path / "log"))
    read = Read(tmp_path / "log", read_map(made.text.encode(), "map", POLICIES))

    assert [line for line in GUESSED[log] if line not in made.text] == []
    assert read.bad.count == 0
    assert read.rows
    columns = {column for line in made.taken for column in line.split("`")[1::2]}
    assert all(column.name in columns for column in read_columns(made.text))
    assert not columns & set(made.unused)


def read_columns(text: str) -> list[Any]:
    mapping = read_map(text.encode(), "map", POLICIES)
    return [column for source in mapping.facts for column in source.columns]


def test_a_sum_of_tokens_is_left_out_beside_its_parts(tmp_path):
    (tmp_path / "log").write_text('{"ts": 1772355600, "user": "u", "tokens": 9, "input": 4}\n')
    made = proposed(str(tmp_path / "log"))

    assert "  tokens:" not in made.text
    assert made.unused == ["tokens"]


def test_signs_between_thousands_are_taken_for_no_decimals(tmp_path):
    (tmp_path / "log").write_text(
        'time,user,input_tokens\n1772355600,u,"1,050"\n1772355601,u,"9,999"\n'
    )
    made = proposed(str(tmp_path / "log"))

    assert "decimal" not in made.text
    assert made.unused == ["input_tokens"]
    assert "`1,050` have a sign between thousands" in made.taken[-1]


@pytest.mark.parametrize("took", [("0,849", "12,700"), ("1234,567", "0,100"), ("0,5", "7,123")])
def test_three_decimals_are_known_by_what_stands_before_a_comma(tmp_path, took):
    path = tmp_path / "log.csv"
    rows = "".join(f"2026-03-02 0{at}:00:00;a1;1.204;{value}\n" for at, value in enumerate(took))
    path.write_text("time;user;input_tokens;duration\n" + rows, "utf-8")
    made = proposed(str(path))

    assert 'decimal: ","' in made.text
    assert "input_tokens: {column: input_tokens}" in made.text
    assert "duration: {column: duration" in made.text
    assert not any("thousands" in note for note in made.taken)


def test_a_log_that_is_not_utf_8_is_read_all_the_same(tmp_path):
    (tmp_path / "log").write_bytes("time,user\n1772355600,Jörg\n1772355601,Zoë\n".encode("latin-1"))
    made = proposed(str(tmp_path / "log"))
    read = Read(tmp_path / "log", read_map(made.text.encode(), "map", POLICIES))

    assert made.taken[0].endswith("the log is not UTF-8: taken as latin-1")
    assert [facts["account.id"] for facts in read.facts] == ["Jörg", "Zoë"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "log",
    [
        "time,user\n1772355600,Jörg\n1772355601,Zoë\n",
        '{"time": 1772355600, "user": "Jörg"}\n{"time": 1772355601, "user": "Zoë"}\n',
        '[{"time": 1772355600, "user": "Jörg"},\n{"time": 1772355601, "user": "Zoë"}]\n',
    ],
)
def test_a_log_in_utf_16_is_read_all_the_same(tmp_path, encoding, log):
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "log").write_bytes(f"{mark}{log}".encode(encoding))
    made = proposed(str(tmp_path / "log"))
    read = Read(tmp_path / "log", read_map(made.text.encode(), "map", POLICIES))

    assert made.taken[0].endswith("by its first two bytes: UTF-16")
    assert [facts["account.id"] for facts in read.facts] == ["Jörg", "Zoë"]


def test_days_and_months_that_may_be_either_are_said(tmp_path):
    (tmp_path / "log").write_text("time,user\n03/01/2026 10:00,u\n03/02/2026 10:00,u\n")
    made = proposed(str(tmp_path / "log"))
    (tmp_path / "log").write_text("time,user\n03/14/2026 10:00,u\n03/15/2026 10:00,u\n")

    assert "`%d/%m/%Y %H:%M` fits as well, over 31 days instead of 1" in made.taken[0]
    assert "fits as well" not in proposed(str(tmp_path / "log")).taken[0]


@pytest.mark.parametrize(
    ("user", "model"),
    [("request_user_id", "request_model"), ("endUser", "model"), ("end_user_id", "requestModel")],
)
def test_who_asked_and_for_what_is_known_by_the_names_that_gateways_give(tmp_path, user, model):
    row = {"time": "2026-03-01T10:00:00Z", user: "u1", model: "large", "request_id": "r1"}
    (tmp_path / "log").write_text(f"{json.dumps(row)}\n")
    made = proposed(str(tmp_path / "log"))

    assert f"account.id: {{column: {user}}}" in made.text
    assert f"request.model: {{column: {model}}}" in made.text
    assert made.unused == ["request_id"]


def test_a_plan_is_taken_for_a_tier_where_the_tiers_are_known(tmp_path):
    (tmp_path / "log").write_text("time,user,plan\n1772355600,u,Free\n1772355601,v,gold\n")

    assert (
        "account.tier: {column: plan, values: {Free: free}}"
        in proposed(str(tmp_path / "log"), ("free", "paid")).text
    )
    assert proposed(str(tmp_path / "log")).unused == ["plan"]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "has no line to propose a map from"),
        ('{"ts": 1, "facts": {}}\n', "own form: it needs no map"),
        ("some words\nother words here\n", "neither JSON nor CSV"),
        ('{\n "time": 1\n}\n{\n "time": 2\n}\n', "neither one JSON document nor JSON lines"),
        ('{"time": 1\n', "neither one JSON document nor JSON lines"),
        ("PAR1\0\x15\x04,\r\x1f\n,PAR1\n", "is no text: export it as"),
        ("loading\r10%\rdone\nand, so, on\n", "neither JSON nor CSV"),
        (f"time,n\n1772355600,{'9' * 200_000}\n", "neither JSON nor CSV"),
        ('{"a": "b"}\n', "shows no column that is a time; write"),
        (
            "time,n\n2026-03-01T09:00:00Z,1\n03/02/2026 10:00,2\n",
            "is a time: `time` has `2026-03-01T09:00:00Z` and `03/02/2026 10:00`; write",
        ),
    ],
)
def test_where_nothing_can_be_proposed_that_is_said(tmp_path, log, message):
    (tmp_path / "log").write_text(log)
    with pytest.raises(DataError, match=message):
        proposed(str(tmp_path / "log"))


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("2026-03-01T09:00:00Z,a1,chat,large,12,3", "csv"),
        ("1772355600.5,a1,code,,12,3", "csv"),
        ("2026-03-01T09:00:00,a1,chat,large,12,3", None),
        ("1772355600000,a1,chat,large,12,3", None),
        ("1772355600,a1,chat,large,12,3,9", None),
        ("1772355600,a1,talk,large,12,3", None),
        ('1772355600,a1,chat,large,"1,200",3', None),
    ],
)
def test_a_plain_csv_is_known_by_its_six_columns(tmp_path, row, name):
    (tmp_path / "log").write_text(f"{row}\n{row}\n")

    assert proposed(str(tmp_path / "log")).name == name


def test_standard_input_is_not_proposed_from():
    with pytest.raises(DataError, match="`-` can be read once"):
        proposed("-")


def test_the_documented_map_is_one():
    document = Path(__file__).resolve().parents[2] / "docs" / "traffic.md"
    text = document.read_text("utf-8").partition("```text\nguardrail_map")[2].partition("```")[0]
    policies = load_text(
        "guardrail: 1\npolicy: p\nfacts: {account.tier: {type: level, values: [email, id]}}\n"
        "rules: [{id: r, when: {account.tier: id}, block: {}}]\n"
    )
    mapping = read_map(f"guardrail_map{text}".encode(), "map", policies)

    assert mapping.layout.delimiter == ";"
    assert {source.fact.name for source in mapping.facts} > {"account.id", "geo.country"}


def test_every_key_of_a_map_is_documented():
    document = Path(__file__).resolve().parents[2] / "docs" / "traffic.md"
    text = document.read_text("utf-8")
    schema = map_schema()
    keys = {*schema["properties"]}.union(*(part["properties"] for part in schema["$defs"].values()))

    assert [key for key in sorted(keys - {"guardrail_map"}) if f"`{key}" not in text] == []

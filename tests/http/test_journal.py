"""The decision log and the counts: what a line holds, and that labels stay few."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import threading

import jsonschema
import pytest
from typer.testing import CliRunner

from guardrail.cli import app as cli
from guardrail.decisionlog import SCHEMA, JsonLines
from guardrail.errors import SettingError
from guardrail.http import counts
from guardrail.http.recorder import DecisionRecorder
from guardrail.http.response import Settlement
from guardrail.signals.directory import Identity
from guardrail.testing import MovableClock, guard_of
from tests.http.driving import ASK, JSON, Guarded, Host, completion
from tests.http.test_asgi_realtime import CREATE, frame, talk, voice
from tests.http.test_door_callers import CARRIED, SECRETS
from tests.http.wsgi_driving import Hosted, answering

POLICY = """
guardrail: 1
policy: logged
models: {large: {max_output: 500, weaker: small}, small: {max_output: 200}, voice: {}}
rules:
  - {id: calls, when: always, budget: {requests: 4, per: day, key: account.id}}
  - {id: less, when: {request.model: large}, degrade: {model: small, disable: [tools, stream]}}
  - {id: closed, when: {request.model: closed}, block: {reason: "closed"}}
  - {id: iran, when: {geo.country: IR}, block: {reason: geo_embargo}}
  - {id: hush, when: {request.model: large}, block: {reason: hush}, mode: shadow}
"""
VALID = jsonschema.Draft202012Validator(SCHEMA)


class Kept:
    """A sink that keeps records as they would be read back."""

    def __init__(self):
        self.records: list[dict] = []

    def write(self, record):
        self.records.append(json.loads(json.dumps(record)))

    def close(self):
        pass


def guarded(host=None, **more):
    sink = Kept()
    return Guarded(POLICY, host, decision_sink=sink, **more), sink.records


def body(model):
    return json.dumps({"model": model, "messages": [], "max_tokens": 9}).encode()


def test_every_line_of_the_decision_log_is_valid():
    door, records = guarded()
    calls = [
        door.ask(body("small")),
        door.ask(body("large")),
        door.ask(body("closed")),
        door.ask(body("small"), client=("5.160.139.132", 1)),
        *[door.ask(body("small")) for _ in range(3)],
    ]
    door.host.status = 500
    calls.append(door.ask(body("small"), key="key-b"))
    sink = Kept()
    talk(Guarded(POLICY, voice, decision_sink=sink), *[frame(**CREATE)] * 5)

    for record in (*records, *sink.records):
        VALID.validate(record)
    assert [call.status for call in calls] == [200, 200, 403, 403, 200, 200, 429, 500]
    assert [record["ending"] for record in records] == [
        *("settled", "settled", "refused", "refused", "settled", "settled", "refused", "released")
    ]
    assert records[1]["obligations"] == {"model": "small", "disable": ["stream", "tools"]}
    assert records[1]["shadow"] == [{"rule": "hush", "effect": "block", "reason": "hush"}]
    assert records[0]["usage"]["output_tokens"] == 20
    assert records[0]["account"] == records[1]["account"] != records[-1]["account"]
    assert {"refused", "settled"} <= {record["ending"] for record in sink.records}


def test_a_line_that_is_no_record_is_found():
    door, records = guarded()
    door.ask()
    for change in ({"v": 2}, {"ending": "lost"}, {"prompt": "hi"}, {"account": "acct-a"}):
        assert not VALID.is_valid({**records[0], **change})


OWNED = POLICY.replace(
    'block: {reason: "closed"}}',
    'block: {reason: "closed"}, owner: abuse team, ticket: OPS-12, labels: {area: models}}',
)


def test_a_line_names_the_owner_of_the_rule_that_decided_where_it_has_one():
    sink = Kept()
    door = Guarded(OWNED, None, decision_sink=sink)
    for model in ("small", "large", "closed"):
        door.ask(body(model))
    told = [
        {name: record[name] for name in ("owner", "ticket", "labels") if name in record}
        for record in sink.records
    ]

    for record in sink.records:
        VALID.validate(record)
    assert [record["rule"] for record in sink.records] == [None, "less", "closed"]
    owned = {"owner": "abuse team", "ticket": "OPS-12", "labels": {"area": "models"}}
    assert told == [{}, {}, owned]


def test_the_schema_is_published():
    printed = CliRunner().invoke(cli, ["schema", "--decision-log"])

    assert json.loads(printed.stdout) == json.loads(json.dumps(SCHEMA))


def test_the_id_of_a_request_is_that_of_its_line():
    door, records = guarded()
    calls = [door.ask(body(model)) for model in ("small", "closed")]

    assert [r["id"] for r in records] == [call.headers["x-request-id"] for call in calls]


@pytest.mark.parametrize("way", CARRIED)
def test_no_line_holds_a_secret_or_a_prompt(way):
    door, records = guarded(credentials=[way])
    message = {"role": "user", "content": "CANARY-prompt"}
    text = json.dumps({"model": "small", "messages": [message]}).encode()
    door.ask(text, key=None, **CARRIED[way])

    assert len(records) == 1
    assert not any(secret in str(records) for secret in (*SECRETS, "8.8.8.8", "acct-"))


SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? [0-9]+$", re.MULTILINE)


def test_labels_stay_few_whatever_clients_send():
    door, _ = guarded()
    counts = []
    for number in range(40):
        text = json.dumps({"model": f"m{number}", "messages": [], "user": f"u{number}"}).encode()
        door.ask(text, path=f"/v1/x{number}/chat/completions", key=f"key-{number}")
        counts.append(len(SERIES.findall(door.app.metrics())))

    assert counts[20] == counts[-1] < 17
    names = {name for _, told in SERIES.findall(door.app.metrics()) for name in told.split(",")}
    assert {name.partition("=")[0] for name in names if name} <= {
        *("decision", "rule", "reason", "mode", "dialect", "ending", "result")
    }


def test_rules_that_come_and_go_are_counted_within_a_bound(monkeypatch):
    monkeypatch.setattr(counts, "MOST_SERIES", 3)
    door, _ = guarded()
    for model in ("small", "large", "closed", "closed"):
        door.ask(body(model))
    series = [name for name, _ in SERIES.findall(door.app.metrics())]

    assert series.count("guardrail_decisions_total") == 3
    assert 'decision="block",rule=""' in door.app.metrics()


def test_failures_of_ours_and_of_the_store_are_counted(monkeypatch):
    door, _ = guarded()
    monkeypatch.setattr(door.guard, "decide", None)
    door.ask()

    assert "guardrail_failures_total 1\n" in door.app.metrics()
    assert "guardrail_store_failures_total 0\n" in door.app.metrics()


def test_metrics_are_what_prometheus_reads():
    hosted = Hosted(answering([completion()]), POLICY)
    hosted.ask(body=body("small"))
    lines = hosted.app.metrics().splitlines()

    assert 'guardrail_endings_total{ending="settled"} 1' in lines
    for line in lines:
        assert re.fullmatch(
            r"# TYPE \w+ (counter|gauge)|\w+(\{(\w+=\"[^\"]*\",?)*\})? [0-9]+", line
        )


def test_a_file_gets_a_line_a_request_from_many_threads_and_after_rotation(tmp_path):
    path = tmp_path / "decisions.jsonl"
    log = JsonLines(path)

    def write():
        for number in range(200):
            log.write({"n": number})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.rename(path, tmp_path / "decisions.1")
    log.write({"n": "after"})
    log.close()

    before = [json.loads(line) for line in (tmp_path / "decisions.1").read_text().splitlines()]
    assert len(before) == 800
    assert path.read_text() == '{"n":"after"}\n'
    assert path.stat().st_mode & 0o007 == 0


def test_a_setting_names_the_file(tmp_path):
    door = Guarded(POLICY, decision_log=tmp_path / "log.jsonl")
    door.ask()
    asyncio.run(door.app.door.close())

    VALID.validate(json.loads((tmp_path / "log.jsonl").read_text()))
    with pytest.raises(SettingError, match="cannot be opened: no such file"):
        _ = Guarded(POLICY, decision_log=tmp_path / "nowhere" / "log.jsonl").app.door


def test_a_log_that_fails_stops_no_request(tmp_path, caplog):
    class Full:
        def write(self, record):
            raise OSError("no space left")

        def close(self):
            pass

    door = Guarded(POLICY, Host([completion()], headers=JSON), decision_sink=Full())

    for _ in range(2):
        assert door.ask(ASK).status == 200
        assert caplog.text.count("a decision was not logged") == 1
    assert door.used("calls", **{"request.model": "small", "geo.country": "DE"}) == 2
    assert "guardrail_records_lost_total 2\n" in door.app.metrics()
    lost = JsonLines(tmp_path / "log")
    (tmp_path / "log").unlink()
    os.rmdir(tmp_path)
    lost.write({})
    assert lost.lost == 1
    tmp_path.mkdir()


def test_a_line_that_did_not_fit_is_lost_alone(tmp_path):
    path = tmp_path / "log"
    log = JsonLines(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write({"n": 1})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4, hard))
        log.write({"n": 2})
        log.write({"n": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write({"n": 4})

    assert path.read_text().splitlines() == ['{"n":1}', '{"n"', '{"n":4}']
    assert log.lost == 2


def test_a_log_is_opened_with_its_first_line_and_stays_closed(tmp_path):
    log = JsonLines(tmp_path / "log")
    assert not held_open(tmp_path)
    log.write({"n": 1})
    assert held_open(tmp_path)
    log.close()
    log.write({"n": 2})

    assert not held_open(tmp_path)
    assert (tmp_path / "log").read_text() == '{"n":1}\n'
    assert log.lost == 1


def held_open(folder):
    links = (os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if alive(fd))
    return [link for link in links if link.startswith(str(folder))]


def alive(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_no_path_and_no_amount_of_a_callers_own_is_logged():
    door, records = guarded()
    door.ask(body("small"), path="/v1/keys/sk-live-secret/rotate")
    record = DecisionRecorder(None, b"key")._record
    asked = {"input_tokens": "the whole prompt", "requests": 2, "z": {"deep": [1]}, "tokens": True}
    decision = guard_of(POLICY, clock=MovableClock()).decide({"account.id": "a"}, asked)
    told = record(decision, "settled", Settlement(None))

    assert [r["endpoint"] for r in records] == ["other"]
    assert told["estimate"] == {"requests": 2}
    VALID.validate(json.loads(json.dumps(told)))


def test_a_sink_of_the_hosts_is_left_open_and_a_log_without_a_hash_key_is_warned_of(caplog):
    class Held(Kept):
        closed = False

        def close(self):
            self.closed = True

    sink = Held()
    door = Guarded(POLICY, decision_sink=sink, hash_key=None)
    asyncio.run(door.app.door.close())

    assert not sink.closed
    assert caplog.text.count("set `GUARDRAIL_HASH_KEY` to join its lines") == 1


def test_a_log_that_was_made_here_is_let_go_of_with_the_door(tmp_path):
    door = Guarded(POLICY, decision_log=tmp_path / "log.jsonl")
    door.ask(body("closed"))
    assert held_open(tmp_path)
    asyncio.run(door.app.door.close())

    assert not held_open(tmp_path)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CAME = [
    (b"x-request-id", b"req-7"),
    (b"traceparent", b"00-" + TRACE.encode() + b"-00f067aa0ba902b7-01"),
]


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        ({"body": b"{"}, 400, "invalid_request"),
        ({"headers": [(b"authorization", b"Bearer other")]}, 400, "ambiguous_credentials"),
        ({"body": b"x" * 4097}, 413, "request_too_large"),
        ({"path": "/v1/messages", "body": b"{"}, 400, "invalid_request"),
    ],
)
def test_a_refusal_by_the_door_itself_is_in_the_log_under_the_id_its_client_sees(
    asked, status, reason
):
    door, records = guarded(max_body=4096)
    asked = {**asked, "headers": [*asked.get("headers", ()), *CAME]}
    call = door.ask(asked.pop("body", ASK), **asked)

    (record,) = records
    VALID.validate(record)
    shown = call.headers.get("x-request-id") or call.headers["request-id"]
    assert (call.status, record["status"], record["reason"]) == (status, status, reason)
    assert record["id"] == shown
    assert (record["request_id"], record["trace_id"]) == ("req-7", TRACE)
    assert f'guardrail_door_refusals_total{{reason="{reason}"}} 1\n' in door.app.metrics()


def test_over_wsgi_a_refusal_by_the_door_itself_is_in_the_log_too():
    sink = Kept()
    hosted = Hosted(answering([completion()]), POLICY, decision_sink=sink)
    status, headers, _ = hosted.ask(body=b"{", HTTP_X_REQUEST_ID="req-8")

    (record,) = sink.records
    assert (status, record["reason"], record["request_id"]) == (400, "invalid_request", "req-8")
    assert record["id"] == headers["x-request-id"]


def test_a_failure_of_the_guard_is_in_both_logs_under_one_id(caplog):
    def no_mapping(scope):
        return ["a1"]

    door, records = guarded(identify=no_mapping)
    call = door.ask(ASK)

    assert (call.status, records[0]["reason"]) == (503, "guard_failed")
    assert records[0]["id"] == call.headers["x-request-id"]
    assert records[0]["id"] in caplog.text


@pytest.mark.parametrize("model", ["small", "closed"])
def test_what_a_request_came_with_is_in_the_line_of_its_decision(model):
    door, records = guarded()
    call = door.ask(body(model), headers=CAME)

    (record,) = records
    assert record["id"] == call.headers["x-request-id"]
    assert (record["request_id"], record["trace_id"]) == ("req-7", TRACE)


@pytest.mark.parametrize(
    "sent",
    [
        (b"x-request-id", b""),
        (b"x-request-id", b"a" * 129),
        (b"x-request-id", b'a"\nforged: line'),
        (b"x-request-id", b"a b"),
        (b"traceparent", b"00-" + b"g" * 32 + b"-00f067aa0ba902b7-01"),
        (b"traceparent", TRACE.encode()),
    ],
)
def test_what_can_be_no_id_is_not_logged(sent):
    door, records = guarded()
    door.ask(ASK, headers=[sent])

    assert not {"request_id", "trace_id"} & records[0].keys()


def test_a_directory_that_hands_over_a_wrong_identity_is_said_in_the_log(caplog):
    class Numbers:
        provides = frozenset({"account.id"})

        def look_up(self, credential, now):
            return Identity({"account.id": 42})

        async def find(self, credential, now):
            return self.look_up(credential, now)

        def warnings(self, now):
            return ()

        def close(self):
            pass

    door, records = guarded(directory=Numbers())
    calls = [door.ask(ASK) for _ in range(3)]

    assert [call.status for call in calls] == [503] * 3
    assert {record["reason"] for record in records} == {"invalid-fact"}
    said = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 1
    assert "`account.id` is of type `int`" in said[0].getMessage()

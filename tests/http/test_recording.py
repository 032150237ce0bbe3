"""Traffic recorded at the door: what a line holds and what not, and replaying it without a map."""

from __future__ import annotations

import json

import jsonschema
import pytest

from guardrail.cli import main
from guardrail.errors import SettingError
from guardrail.http.settings.build import configure
from guardrail.traffic.reading import in_order
from guardrail.traffic.requests import Request
from guardrail.traffic.schemas import TRAFFIC_SCHEMA
from tests.http.driving import Guarded
from tests.http.servers import PROXIES, serving

POLICY = """
guardrail: 1
policy: recorded
models: {small: {max_output: 200}, large: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 3, per: day, key: account.id}}
"""
TIGHTER = POLICY.replace("requests: 3", "requests: 1") + (
    "  - {id: lands, when: {geo.country: {in: [US]}}, unknown: skip, degrade: {x-land: seen}}\n"
)
BODY = {"messages": [{"role": "user", "content": "SECRET PROMPT"}], "max_tokens": 100}


def body(model="small"):
    return json.dumps({"model": model, **BODY}).encode()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_all_facts_that_are_known_and_no_name_and_no_text(tmp_path):
    record = tmp_path / "traffic.jsonl"
    door = Guarded(POLICY, record=str(record))
    for _ in range(4):
        door.ask(body())
    door.ask(body(), key="key-b")
    text, rows = record.read_text(), lines(record)
    facts = rows[0]["facts"]

    assert [row["ending"] for row in rows] == ["settled"] * 3 + ["refused", "settled"]
    assert [row["effect"] for row in rows] == ["allow"] * 3 + ["throttle", "allow"]
    assert facts["request.model"] == "small"
    assert facts["request.capability"] == "chat"
    assert facts["geo.country"] == "US"
    assert facts["account.id"] == rows[1]["facts"]["account.id"] != rows[4]["facts"]["account.id"]
    assert rows[0]["estimate"]["output_tokens"] == 100
    assert rows[0]["usage"]
    for secret in ("SECRET", "acct-a", "org-a", "key-a", "8.8.8.8"):
        assert secret not in text
    valid = jsonschema.Draft202012Validator(TRAFFIC_SCHEMA)
    assert all(valid.is_valid(row) for row in rows)


def test_a_share_of_accounts_is_recorded_with_all_their_requests(tmp_path):
    record = tmp_path / "traffic.jsonl"
    door = Guarded(POLICY, record=str(record), record_share="1/2", directory=lambda key: None)
    for number in range(40):
        for _ in range(2):
            door.ask(body(), client=(f"8.8.{number}.8", 1))
    counts: dict[str, int] = {}
    for row in lines(record):
        who = row["facts"]["client.network"]
        counts[who] = counts.get(who, 0) + 1

    assert 8 < len(counts) < 32
    assert set(counts.values()) == {2}


def test_a_share_needs_a_file(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    options = {"policies": str(tmp_path / "policy.yaml"), "environ": {}}
    with pytest.raises(SettingError, match="say with `record` where to write"):
        configure({**options, "record_share": "1/2"})
    with pytest.raises(SettingError, match=r"the record of traffic `.*` cannot be opened"):
        configure({**options, "record": str(tmp_path / "none" / "file")})


def test_a_record_that_cannot_be_written_stops_no_request(tmp_path, caplog):
    folder = tmp_path / "gone"
    folder.mkdir()
    door = Guarded(POLICY, record=str(folder / "traffic.jsonl"))
    (folder / "traffic.jsonl").unlink()
    folder.rmdir()
    sent = door.ask(body()).sent

    assert sent[0]["status"] == 200
    assert "are lost" in caplog.text


def test_lines_are_replayed_in_the_order_in_which_requests_came():
    made = [(line, ts, Request(ts, {}, v=1)) for line, ts in ((1, 50.0), (2, 10.0), (3, 4000.0))]
    plain = [(line, ts, Request(ts, {})) for line, ts in ((4, 9.0), (5, 3.0))]

    assert [line for line, _, _ in in_order(iter(made + plain))] == [2, 1, 3, 4, 5]
    assert [line for line, _, _ in in_order(iter(plain))] == [4, 5]


def test_what_was_served_is_tried_with_other_policies_the_next_day(tmp_path, capsys, monkeypatch):
    """From a server with one setting to what other policies would have done, with a real server."""
    settings = PROXIES + 'record = "traffic.jsonl"\nstore = "memory://"\n'
    with serving("uvicorn", tmp_path, POLICY, settings) as server:
        headers = {"x-forwarded-for": "8.8.8.8", "content-type": "application/json"}
        for _ in range(4):
            server.client.post("/v1/chat/completions", content=body(), headers=headers)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tighter.yaml").write_text(TIGHTER)
    with (tmp_path / "traffic.jsonl").open("a") as file:
        file.write('{"v":1,"ts":1796006106.8')

    def effects(policy):
        check = ["check", policy, "--traffic", "traffic.jsonl", "--format", "json"]
        main([*check, "--bad-lines", "30%"])
        return json.loads(capsys.readouterr().out)["traffic"]

    same, other = effects("policy.yaml"), effects("tighter.yaml")

    assert [line["effect"] for line in lines_before_the_torn_one(tmp_path)].count("throttle") == 1
    assert same["decisions"]["throttle"]["requests"] == 1
    assert other["decisions"]["throttle"]["requests"] == 3
    assert other["decisions"]["degrade"]["requests"] == 1
    assert other["accounts"] == 1
    assert other["bad_lines"]["first"][0]["reason"] == "not JSON: the file ends within the line"

    main(["explain", "tighter.yaml", "--traffic", "traffic.jsonl", "--line", "2"])
    assert "by calls" in capsys.readouterr().out


def lines_before_the_torn_one(folder):
    whole = (folder / "traffic.jsonl").read_text().splitlines()[:-1]
    return [json.loads(line) for line in whole]

"""`check --store-down`: what a dead store would refuse, before it dies."""

from __future__ import annotations

import json

CHECK = ("check", "policies", "--traffic", "week.jsonl", "--store-down")


def test_what_each_rule_does_without_the_store_is_counted(run, monkeypatch):
    monkeypatch.setenv("GUARDRAIL_LOCAL_SHARE", "1/2")
    outcome = run(*CHECK, "--format", "json", "--decisions", "out.jsonl")
    traffic = json.loads(outcome.out)["traffic"]
    with open("out.jsonl") as file:
        records = [json.loads(line) for line in file]
    modes = [record["mode"] for record in records if "mode" in record]
    refused = [record for record in records if record["reason"] == "store-unavailable"]

    assert (outcome.code, len(records)) == (0, 36)
    assert traffic["without_store"] == {
        "local_share": "1/2",
        "modes": {mode: modes.count(mode) for mode in sorted(set(modes), key=modes.index)},
        "refused": {"tokens-per-day": len(refused)} if refused else {},
    }
    assert set(modes) <= {"local", "open", "closed"}
    assert modes


def test_it_is_said_in_words(run):
    remark = "without the store, at 1/4 of each limit: "

    assert remark in run(*CHECK).out
    assert remark not in run(*CHECK[:-1]).out

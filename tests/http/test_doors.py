"""What each door can know: which rules it can never enforce, what the authorizer says of them."""

from __future__ import annotations

import json
import logging

import pytest

from guardrail.cli import main
from guardrail.engine.expressions import rule_facts
from guardrail.http.doors import DOORS, unfed, unfed_by_all
from guardrail.http.parsing.endpoints import DOCUMENTED, endpoint_of
from guardrail.loading import load_text
from tests.http.driving import Guarded
from tests.http.test_authorizer import SHOWN, ParsedRequest

POLICY = """
guardrail: 1
policy: doors
facts:
  account.tier: {type: level, values: [email, verified]}
  request.tools: {type: integer, default: 0}
models: {large: {weaker: small, max_output: 10}, small: {max_output: 10}, huge: {}}
rules:
  - {id: calls, when: always, budget: {requests: 9, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 1M, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 9, key: account.id}}
  - {id: models, when: {request.model: huge}, unknown: skip, block: {}}
  - {id: tools, when: {request.tools: {gt: 3}}, block: {}}
  - {id: quiet, when: {request.capability: batch}, unknown: skip, block: {}, mode: shadow}
  - {id: idle, when: {request.capability: code}, block: {}, mode: "off"}
"""


def test_an_authorizer_enforces_what_a_head_tells_and_nothing_else():
    policies = load_text(POLICY)

    found = {one.rule.id: one.why for one in unfed(policies, "authorizer")}

    assert found == {
        "tokens": "it counts `tokens`, which is never told there",
        "places": "it counts requests in flight, whose end is never told there",
        "models": "it rests on `request.model`, which is never seen there",
        "tools": "it rests on `request.tools`, which is never seen there",
        "quiet": "it rests on `request.capability`, which is never seen there",
    }
    assert [one.rule.id for one in unfed(policies, "authzen")] == ["places"]
    assert list(unfed(policies, "asgi")) == list(unfed(policies, "wsgi")) == []
    assert list(unfed_by_all(policies, ["authorizer", "asgi"])) == []
    assert list(unfed_by_all(policies, [])) == []


UNREAD = """
guardrail: 1
policy: doors
units: [audio_seconds, pages]
rules:
  - {id: sound, when: always, budget: {audio_seconds: 9, per: day, key: account.id}}
  - {id: pages, when: always, budget: {pages: 9, per: day, key: account.id}}
  - {id: chat, when: {request.endpoint: /v1/chat/completions}, block: {}}
  - {id: mounted, when: {request.endpoint: {in: [/v1/batches, /api/v1/batches]}}, block: {}}
  - {id: spared, when: {request.endpoint: {not: chat/completions}}, block: {}}
  - {id: bedrock, when: {request.endpoint: {in: ["/model/*/converse", "/v1/files/*"]}}, block: {}}
  - {id: any, when: {any: [{request.endpoint: "/v1/models:generateContent"}]}, block: {}}
  - {id: own, when: {request.endpoint: /internal/report}, block: {}}
"""


def test_what_no_request_or_response_says_in_its_words_is_found():
    policies = load_text(UNREAD)
    counted = "each request counts 1, unless a classifier or `guardrail.http.fastapi` states more"
    expected = {
        "pages": f"it counts `pages`, which no response tells: {counted}",
        "mounted": "it tests for the endpoint `/api/v1/batches`, which is called `/v1/batches`",
        "spared": "it tests for the endpoint `chat/completions`, which is called "
        "`/v1/chat/completions`",
    }

    for door in ("asgi", "wsgi", "litellm"):
        assert {one.rule.id: one.why for one in unfed(policies, door)} == expected
    assert [one.rule.id for one in unfed(policies, "authorizer")] == [
        "sound",
        "pages",
        "mounted",
        "spared",
    ]
    assert list(unfed(policies, "authzen")) == []
    told = {one.rule.id: one.why for one in unfed_by_all(policies, ["asgi", "litellm"])}
    assert told["mounted"] == f"by the doors `asgi`, `litellm`: {expected['mounted']}"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_endpoint_is_called_as_it_is_documented(name):
    assert endpoint_of(name).name == name


@pytest.mark.parametrize("profile", SHOWN)
def test_an_authorizer_says_at_its_start_which_rules_it_cannot_enforce(profile, caplog):
    with caplog.at_level(logging.WARNING, logger="guardrail"):
        asked = ParsedRequest(profile, policy=POLICY)
        asked()
        asked()
    told = [line for line in caplog.messages if "cannot be enforced by an authorizer" in line]

    assert [line.split("`")[1] for line in told] == ["tokens", "places", "models", "tools", "quiet"]


@pytest.mark.parametrize("profile", SHOWN)
def test_an_authorizer_tells_clients_no_limit_that_it_never_counts(profile):
    for key in ("key-a", "key-b"):
        headers = str(ParsedRequest(profile, policy=POLICY)(key=key).headers)

        assert '\\"calls\\"' in headers or '"calls"' in headers
        assert "tokens" not in headers
        assert "places" not in headers
        assert "1000000" not in headers


@pytest.mark.parametrize("profile", SHOWN)
def test_a_refusal_by_an_authorizer_tells_none_either(profile):
    asked = ParsedRequest(profile, policy=POLICY.replace("requests: 9", "requests: 1"))
    asked()
    refused = asked()

    assert refused.status_code in (403, 429)
    assert '"calls"' in str(refused.headers).replace("\\", "")
    assert "tokens" not in str(refused.headers)


@pytest.mark.parametrize(
    "estimate",
    [
        {"input_tokens": 1e308}, {"input_tokens": "5"}, {"input_tokens": -1}, {"images": True},
        {"input_tokens": {}}, "5", 5, [1], True,
    ],
)  # fmt: skip
def test_an_authzen_caller_s_estimate_that_is_none_permits_nothing(estimate):
    asked = ParsedRequest("authzen", policy=POLICY)
    question = {
        "subject": {"type": "user", "id": "acct-a"},
        "action": {"name": "chat"},
        "resource": {"type": "model", "id": "large"},
        "context": {"estimate": estimate},
    }
    answer = asked.send("POST", "/access/v1/evaluation", json=question).json()
    question["context"] = {"estimate": {"input_tokens": 5, "output_tokens": 5}}
    sound = asked.send("POST", "/access/v1/evaluation", json=question).json()

    assert answer["decision"] is False
    assert answer["context"]["reason"] == "invalid-estimate"
    assert sound["decision"] is True


def test_a_middleware_tells_all_of_them():
    headers = str(Guarded(POLICY).ask().headers)

    assert '"tokens"' in headers.replace("\\", "")


SEEN = """
guardrail: 1
policy: seen
rules:
  - id: r
    when:
      any:
        - {request.capability: {exists: true}}
        - {request.model: {exists: true}}
        - {request.tools: {exists: true}}
        - {request.stream: {exists: true}}
        - {request.reasoning: {exists: true}}
        - {request.template: {exists: true}}
        - {request.toolset: {exists: true}}
        - {request.endpoint: {exists: true}}
        - {client.agent: {exists: true}}
        - {client.ip: {exists: true}}
    budget: {requests: 9, per: day, key: account.id}
"""


def test_what_an_authorizer_is_said_to_be_blind_to_it_never_has():
    asked = ParsedRequest("forward", policy=SEEN)
    decided = []
    decide = asked.guard.decide

    async def kept(facts, *more, **others):
        decided.append(dict(facts))
        return await decide(facts, *more, **others)

    asked.guard.decide = kept  # type: ignore[method-assign]
    body = {"model": "large", "tools": [{"type": "function"}], "system": "x"}
    asked(**{"user-agent": "a"})
    asked.send("POST", "/v1/chat/completions", json=body)

    tested = rule_facts(load_text(SEEN).rules[0], (), stand_ins=False)
    assert decided[0].keys() & DOORS["authorizer"].blind == set()
    assert {"request.endpoint", "client.agent", "client.ip"} <= decided[0].keys()
    assert DOORS["authorizer"].blind <= tested


def test_the_decision_log_is_traffic(tmp_path, capsys):
    log, policy = tmp_path / "decisions.jsonl", tmp_path / "p.yaml"
    rules = POLICY.replace("requests: 9", "requests: 3") + (
        "  - {id: tier, when: {account.tier: verified}, degrade: {x-tier: verified}}\n"
    )
    policy.write_text(
        rules + "tests: [{name: t, facts: {account.id: a, account.tier: email}, expect: allow}]\n"
    )
    door = Guarded(rules, decision_log=log)
    body = json.dumps({"model": "large", "max_tokens": 9, "messages": []}).encode()
    answers = [door.ask(body) for _ in range(5)]
    answers += [door.ask(body, key="key-b")]

    code = main(["check", str(policy), "--traffic", str(log), "--format", "json"])
    found = json.loads(capsys.readouterr().out)

    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429, 200]
    assert (code, found["findings"]) == (0, [])
    assert found["traffic"]["requests"] == 6
    assert found["traffic"]["bad_lines"]["count"] == 0
    assert found["traffic"]["accounts"] == 2
    assert found["traffic"]["decisions"]["throttle"]["requests"] == 2
    assert "acct-a" not in log.read_text()
    assert json.loads(log.read_text().splitlines()[0])["facts"]["account.tier"] == "email"

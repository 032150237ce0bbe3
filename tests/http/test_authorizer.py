"""The guard as a service that proxies ask: what each of them gets, and what it must never get."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardrail.asgi.authorizer import Authorizer, serve
from guardrail.guard import AsyncGuard
from guardrail.testing import MovableClock
from tests.http.accounts import HASH_KEY, Accounts
from tests.loaded import loaded

POLICY = """
guardrail: 1
policy: proxied
facts: {account.tier: {type: level, values: [email, verified]}}
models: {large: {weaker: small}, small: {}}
rules:
  - id: calls
    when: {account.id: {exists: true}}
    budget: {requests: 2, per: day, key: account.id}
  - {id: places, when: always, concurrency: {max: 1, key: account.id}}
  - {id: geo, when: {geo.country: IR}, unknown: skip, block: {reason: geo_embargo, status: 451}}
  - {id: key, when: {account.id: {exists: false}}, block: {reason: no_key, status: 401}}
  - {id: file, when: {request.endpoint: /v1/files}, unknown: skip, block: {reason: no_files}}
  - {id: agents, when: {request.capability: agentic}, unknown: skip, block: {reason: agents}}
"""
CHAT = "/v1/chat/completions"
SHOWN = {
    "envoy": lambda path: ("POST", path, {}),
    "nginx": lambda path: ("GET", "/auth", {"x-original-method": "POST", "x-original-uri": path}),
    "forward": lambda path: (
        "GET",
        "/auth",
        {"x-forwarded-method": "POST", "x-forwarded-uri": path},
    ),
}


class ParsedRequest:
    """An authorizer, asked as a proxy at 10.0.0.1 asks it."""

    def __init__(self, profile, policy=POLICY, peer="10.0.0.1", **more):
        self.guard = AsyncGuard.from_policies(loaded(policy), clock=MovableClock(), environ={})
        self.app = Authorizer(
            profile,
            guard=self.guard,
            environ={},
            hash_key=HASH_KEY,
            directory=Accounts(),
            proxies=["10.0.0.0/8"],
            **more,
        )
        self.profile, self.peer = profile, peer

    def __call__(self, path=CHAT, key="key-a", client="8.8.8.8", **more):
        method, target, headers = SHOWN[self.profile](path)
        if key:
            headers["authorization"] = f"Bearer {key}"
        headers["x-forwarded-for"] = client
        return self.send(method, target, headers={**headers, **more})

    def send(self, method, target, **more):
        async def run():
            transport = httpx.ASGITransport(self.app, client=(self.peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
                return await client.request(method, target, **more)

        return asyncio.run(run())


@pytest.mark.parametrize("profile", SHOWN)
def test_an_admitted_request_is_a_200_that_holds_no_place(profile):
    asked = ParsedRequest(profile)
    answers = [asked(), asked()]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == b""
    assert answers[1].headers["ratelimit"].startswith('"calls";r=0')


REFUSED: dict[str, tuple[dict, int]] = {
    "throttle": ({}, 429),
    "block": ({"path": "/v1/files"}, 403),
    "legal": ({"client": "5.160.139.132"}, 451),
    "credential": ({"key": None}, 401),
    "unavailable": ({"key": "key-b"}, 503),
}


def refused(asked, why):
    if why == "throttle":
        asked(), asked()
    if why == "unavailable":
        asked.app.door.configured.callers.directory.down = True
    return asked(**REFUSED[why][0])


@pytest.mark.parametrize("why", REFUSED)
def test_envoy_never_gets_a_5xx_for_a_refusal(why):
    answer = refused(ParsedRequest("envoy"), why)

    assert answer.status_code == (429 if why == "unavailable" else REFUSED[why][1])
    assert answer.json()["error"]["message"]
    if why == "unavailable":
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-request-id"]


def test_envoy_gets_no_5xx_either_where_the_guard_itself_fails(monkeypatch):
    asked = ParsedRequest("envoy")
    monkeypatch.setattr(asked.guard, "decide", None)

    assert asked().status_code == 429


@pytest.mark.parametrize("why", REFUSED)
def test_nginx_gets_200_401_or_403_alone_and_the_status_beside(why):
    answer = refused(ParsedRequest("nginx"), why)
    status = REFUSED[why][1]

    assert answer.status_code == (401 if status == 401 else 403)
    assert answer.headers["x-guardrail-status"] == str(status)
    assert ("www-authenticate" in answer.headers) is (status == 401)
    if why == "throttle":
        assert int(answer.headers["retry-after"]) > 0


def test_the_documented_nginx_hands_every_status_on():
    document = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8")
    handed = set(re.findall(r"if \(\$guardrail_status = (\d+)\) { return \1; }", document))

    assert handed >= {str(status) for _, status in REFUSED.values() if status != 403} | {"400"}


@pytest.mark.parametrize("why", REFUSED)
def test_others_hand_a_refusal_on_as_it_is(why):
    assert refused(ParsedRequest("forward"), why).status_code == REFUSED[why][1]


@pytest.mark.parametrize("profile", ["nginx", "forward"])
def test_what_a_stranger_or_nobody_says_of_a_request_is_not_believed(profile):
    stranger = ParsedRequest(profile, peer="8.8.8.8")
    mute = ParsedRequest(profile)

    assert stranger().status_code == 403
    assert mute.send("GET", "/auth").status_code == 403
    assert mute().status_code == 200


@pytest.mark.parametrize("profile", ["nginx", "forward"])
def test_whoever_is_not_believed_is_told_what_may_be_wrong(profile, caplog):
    stranger = ParsedRequest(profile, peer="8.8.8.8")
    for _ in range(2):
        assert stranger().status_code == 403
    (line,) = (line for line in caplog.messages if "refused" in line)
    assert "`uvicorn --no-proxy-headers`" in line
    caplog.clear()

    mute = ParsedRequest(profile)
    for _ in range(2):
        assert mute.send("GET", "/auth").status_code == 403
    (line,) = (line for line in caplog.messages if "refused" in line)
    assert " and ".join(f"`{name}`" for name in SHOWN[profile]("/")[2]) in line


ASKS = {"origin": "https://app.example", "access-control-request-method": "POST"}


@pytest.mark.parametrize("profile", SHOWN)
@pytest.mark.parametrize("name", ["content-type", "cookie", "authorization", "x-api-key"])
def test_a_preflight_has_nothing_with_it_that_browsers_leave_out(profile, name):
    asked = ParsedRequest(profile, exempt=["/health"])

    def ask(path, **more):
        method, target, headers = SHOWN[profile](path)
        shown = {key: "OPTIONS" for key in headers if key.endswith("-method")}
        sent = {**headers, **shown, **ASKS, **more}
        return asked.send(method if shown else "OPTIONS", target, headers=sent).status_code

    assert ask("/v1/files") == 200
    assert ask("/v1/files", **{name: "a"}) in (401, 403)
    assert ask("/health", **{name: "a"}) == 200


def test_exempt_paths_pass_and_their_look_alikes_do_not():
    asked = ParsedRequest("nginx", exempt=["/health"])

    assert asked("/health", key=None).status_code == 200
    assert [asked(path, key=None).status_code for path in ("/health/", "/%68ealth")] == [401, 401]


def test_less_than_is_asked_for_cannot_be_served_without_the_body():
    rule = "  - {id: less, when: always, degrade: {max_output_tokens: 9}}\n"
    notice = "  - {id: note, when: always, degrade: {x-note: hi}}\n"

    assert ParsedRequest("envoy", POLICY + rule)().json()["error"]["code"] == "degrade_not_possible"
    assert ParsedRequest("envoy", POLICY + notice)().headers["x-note"] == "hi"


def evaluation(subject="acct-a", action="chat", **context):
    return {
        "subject": {"type": "user", "id": subject, "properties": {"account.tier": "verified"}},
        "action": {"name": action},
        "resource": {"type": "model", "id": "small"},
        "context": context,
    }


def evaluate(asked, body, **more):
    return asked.send("POST", "/access/v1/evaluation", json=body, **more)


def test_an_authzen_refusal_is_a_200_that_says_false():
    asked = ParsedRequest("authzen")
    answers = [evaluate(asked, evaluation()) for _ in range(3)]
    answers += [
        evaluate(asked, evaluation("acct-b", "agentic")),
        evaluate(asked, evaluation("acct-b", **{"geo.country": "IR"})),
    ]

    assert {answer.status_code for answer in answers} == {200}
    assert [a.json()["decision"] for a in answers] == [True, True, False, False, False]
    reasons = [a.json()["context"]["reason"] for a in answers]
    assert reasons == [None, None, "calls", "agents", "geo_embargo"]
    assert answers[2].json()["context"]["retry_after"] > 0


def test_an_evaluation_permits_a_degrade_with_its_obligations_and_charges_what_is_estimated():
    rules = (
        "  - {id: less, when: always, degrade: {max_output_tokens: 9}}\n"
        "  - {id: tokens, when: always, budget: {tokens: 100, per: day, key: account.id}}\n"
    )
    asked = ParsedRequest("authzen", POLICY + rules)
    told = [
        evaluate(asked, evaluation(estimate={"input_tokens": tokens, "output_tokens": 9})).json()
        for tokens in (51, 32, 31)
    ]

    assert [answer["decision"] for answer in told] == [True, False, True]
    assert told[0]["context"]["obligations"]["max_output_tokens"] == 9
    assert told[1]["context"]["reason"] == "tokens"


def test_an_evaluation_that_fails_permits_nothing(monkeypatch):
    asked = ParsedRequest("authzen")
    monkeypatch.setattr(asked.guard, "decide", None)
    answer = evaluate(asked, evaluation())

    assert (answer.status_code, answer.json()["decision"]) == (200, False)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"{}", b'{"subject": 1}', json.dumps({**evaluation(), "action": {}}).encode()],
)
def test_what_is_no_evaluation_is_a_400_and_costs_nothing(body):
    answer = ParsedRequest("authzen").send("POST", "/access/v1/evaluation", content=body)

    assert answer.status_code == 400
    assert "decision" not in answer.json()


def test_an_evaluation_needs_the_token_where_there_is_one():
    asked = ParsedRequest("authzen", token="t" * 32)

    assert evaluate(asked, evaluation()).status_code == 401
    for sent, status in (("t" * 31, 401), ("t" * 32, 200)):
        headers = {"authorization": f"Bearer {sent}"}
        assert evaluate(asked, evaluation(), headers=headers).status_code == status
    assert (
        asked.send("GET", "/", headers={"authorization": f"Bearer {'t' * 32}"}).status_code == 404
    )


def test_an_evaluator_without_a_token_warns_that_it_believes_whoever_asks(caplog):
    ParsedRequest("authzen", token="t" * 32)
    ParsedRequest("nginx")
    assert "is believed" not in caplog.text
    ParsedRequest("authzen")

    assert caplog.text.count("`GUARDRAIL_AUTHORIZER_TOKEN` is not set") == 1


@pytest.mark.parametrize(("profile", "warned"), [("authzen", False), ("nginx", True)])
def test_callers_are_known_where_those_who_ask_state_them(profile, warned, tmp_path, caplog):
    (tmp_path / "p.yaml").write_text(POLICY)
    app = Authorizer(profile, policies=str(tmp_path / "p.yaml"), environ={}, token="t" * 32)
    app.door.configured.async_guard()

    assert ("nobody is known here" in caplog.text) is warned


def test_the_environment_says_what_to_serve(tmp_path, monkeypatch):
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "gr.toml").write_text('policies = "p.yaml"\n')
    made: Any = serve()
    assert "names no profile" in str(made.problem)
    monkeypatch.setenv("GUARDRAIL_CONFIG", str(tmp_path / "gr.toml"))
    monkeypatch.setenv("GUARDRAIL_AUTHORIZER", "ngnix")
    made = serve()
    assert "did you mean `nginx`" in str(made.problem)
    monkeypatch.setenv("GUARDRAIL_AUTHORIZER", "nginx")
    made = serve()
    assert made.profile.value == "nginx"

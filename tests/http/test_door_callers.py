"""Who asks, through the whole middleware: addresses, claims of clients, secrets that stay so."""

from __future__ import annotations

import ast
import asyncio
import json
import logging

import pytest

from guardrail.http.flow import STATE_KEY
from guardrail.http.settings.build import configure
from guardrail.signals import Proxies
from guardrail.signals.directory import credential_id
from tests.http.accounts import HASH_KEY, Accounts
from tests.http.driving import ASK, CHAT, Call, Guarded, ask, body_messages, scope_of
from tests.http.test_asgi_websockets import CONNECT, socket_scope
from tests.http.wsgi_driving import Hosted
from tests.signals.test_client import TRUSTED, VECTORS
from tests.test_layers import PACKAGE

OPEN = "guardrail: 1\npolicy: p\nrules:\n  - {id: one, when: {request.model: none}, block: {}}"
NETWORKS = (
    "guardrail: 1\npolicy: p\nrules:\n"
    "  - {id: two, when: always, budget: {requests: 2, per: day, key: client.network}}"
)
GEO = "guardrail: 1\npolicy: p\nrules:\n  - {id: geo, when: {geo.country: IR}, block: {}}"
TIERS = """
guardrail: 1
policy: p
facts:
  account.tier: {type: level, values: [email, verified]}
rules:
  - {id: calls, when: always, budget: {requests: 2, per: day, key: account.id}}
  - id: verified-only
    when: {account.tier: {below: verified}, request.model: large}
    block: {reason: verification_required}
"""


@pytest.mark.parametrize("vector", VECTORS)
def test_every_address_vector_holds_through_asgi(vector):
    peer, headers, proxies, client = VECTORS[vector]
    guarded = Guarded(OPEN, proxies=proxies)
    guarded.ask(headers=headers, client=None if peer is None else (peer, 1))

    facts = guarded.host.scopes[-1][STATE_KEY].decision.facts
    assert facts.get("client.ip") == client
    if client is None and peer is not None:
        assert "geo.country" not in facts


@pytest.mark.parametrize("vector", [name for name in VECTORS if "underscores" not in name])
def test_every_address_vector_holds_through_wsgi(vector):
    peer, headers, proxies, client = VECTORS[vector]
    seen = []

    def app(environ, start_response):
        seen.append(environ[STATE_KEY].decision.facts)
        start_response("200 OK", [])
        return [b""]

    fields: dict[str, str] = {}
    for name, value in headers:
        key = "HTTP_" + name.decode().upper().replace("-", "_")
        fields[key] = ", ".join(filter(None, [fields.get(key), value.decode()]))
    Hosted(app, OPEN, proxies=proxies).ask(REMOTE_ADDR=peer or "", **fields)

    assert seen[-1].get("client.ip") == client


def test_the_trusted_proxies_may_be_settings_of_a_file():
    options = {"guard": Guarded(OPEN).guard, "environ": {}}
    for value in (list(TRUSTED), {"trusted": list(TRUSTED), "header": "x-forwarded-for"}):
        assert configure({**options, "proxies": value}).callers.proxies == Proxies.declare(TRUSTED)


def test_addresses_of_one_64_and_mapped_ones_share_a_bucket():
    def statuses(*peers):
        guarded = Guarded(NETWORKS)
        return [guarded.ask(client=(peer, 1)).status for peer in peers]

    near = ("2a00:1450:4001:81b::1", "2a00:1450:4001:81b:ffff::2", "2a00:1450:4001:81b::1")
    assert statuses(*near) == [200, 200, 429]
    assert statuses(*near[:2], "2a00:1450:4001:81c::1") == [200] * 3
    assert statuses("8.8.8.8", "::ffff:8.8.8.8", "8.8.8.8") == [200, 200, 429]


@pytest.mark.parametrize("peer", [None, "192.0.2.1", "10.0.0.1", "unknown"])
@pytest.mark.parametrize(("unknown", "status"), [("", 403), ("unknown: skip, ", 200)])
def test_an_unknown_country_or_address_is_refused_unless_the_rule_says_skip(peer, unknown, status):
    guarded = Guarded(GEO.replace("block", f"{unknown}block"))

    assert guarded.ask(client=None if peer is None else (peer, 1)).status == status
    assert guarded.ask(client=("8.8.8.8", 1)).status == 200


KEY = "CANARY-key"
SECRETS = (KEY, "CANARY-prompt")
CARRIED: dict[str, dict] = {
    "bearer": {"headers": [(b"authorization", b"Bearer CANARY-key")]},
    "x-api-key": {"headers": [(b"x-api-key", b"CANARY-key")]},
    "query": {"query_string": b"key=CANARY-key"},
}


@pytest.mark.parametrize("way", CARRIED)
@pytest.mark.parametrize("ends", ["admitted", "refused", "fails"])
def test_no_secret_is_logged_shown_or_sent(way, ends, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    policy = OPEN.replace("none", "small") if ends == "refused" else OPEN
    guarded = Guarded(policy, credentials=[way])
    if ends == "fails":
        monkeypatch.setattr(guarded.guard, "decide", lambda *a, **k: 1 / 0)
    body = {"model": "small", "messages": [{"role": "user", "content": "CANARY-prompt"}]}
    call = guarded.ask(json.dumps(body).encode(), key=None, **CARRIED[way])

    shown = [caplog.text, repr(call.sent), repr(guarded.app.door.settings), repr(vars(guarded.app))]
    for scope in guarded.host.scopes:
        passage = scope[STATE_KEY]
        told = passage.decision.explain()
        shown += [str(told), repr(told), repr(passage.decision), repr(passage.decision.facts)]
    assert call.status == {"admitted": 200, "refused": 403, "fails": 503}[ends]
    assert not any(secret in text for secret in SECRETS for text in shown)


def test_a_key_in_a_subprotocol_is_not_logged_or_shown(caplog):
    caplog.set_level(logging.DEBUG)
    policy = OPEN.replace("{request.model: none}", "always")
    guarded = Guarded(policy, credentials=["subprotocol"])
    scope = socket_scope(key=None) | {
        "subprotocols": ["realtime", f"openai-insecure-api-key.{KEY}"]
    }
    call = asyncio.run(Call(scope, [CONNECT]).run(guarded.app))

    assert guarded.directory.asked == 1
    assert KEY not in caplog.text + repr(call.sent)


def test_a_directory_is_asked_by_a_keyed_hash():
    asked = []

    class Noting(Accounts):
        def look_up(self, credential, now):
            asked.append((credential.id, repr(credential)))
            return super().look_up(credential, now)

    Guarded(OPEN, directory=Noting()).ask()

    assert asked[0][0] == credential_id("key-a", HASH_KEY)
    assert asked[0][0] != credential_id("key-a", b"another" * 5)
    assert "key-a" not in asked[0][1]


def test_no_secret_is_ever_compared_but_in_constant_time():
    """Whoever reveals a secret hashes it, sends it or verifies it; `==` would tell how far it fits.

    The one comparison there is of a request's own two credentials, which its sender knows both.
    """
    for path in (*PACKAGE.glob("http/**/*.py"), *PACKAGE.glob("signals/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                assert "reveal" not in ast.unparse(node), f"{path}:{node.lineno}"
                assert "signature" not in ast.unparse(node).lower(), f"{path}:{node.lineno}"


CLAIMS = [
    (b"x-user-id", b"acct-b"),
    (b"x-account-tier", b"verified"),
    (b"anthropic-user-profile-id", b"acct-b"),
    (b"openai-organization", b"org-b"),
    (b"safety-identifier", b"acct-b"),
    (b"x-api-key", b"key-b"),
]
CLAIMED = {"user": "acct-b", "safety_identifier": "acct-b", "metadata": {"user_id": "acct-b"}}
OTHERS = {"account.id": "acct-b", "account.tier": "verified", "request.model": "small"}
INSIDE = {"account.id": "acct-b", "account.tier": "verified", "account": {"tier": "verified"}}


def test_what_a_client_says_of_itself_raises_no_tier_and_resets_no_quota():
    guarded = Guarded(TIERS, directory=Accounts(b="verified"))

    def statuses(model, key="key-a"):
        body = json.dumps({"model": model, "messages": [], **CLAIMED, **INSIDE}).encode()
        return guarded.ask(body, key=key, headers=CLAIMS, query_string=b"user=acct-b").status

    assert statuses("large") == 403
    assert [statuses("small") for _ in range(3)] == [200, 200, 429]
    assert guarded.used("calls", **OTHERS) == 0
    assert statuses("large", key="key-b") == 200


def test_claims_without_a_credential_are_nobodys():
    guarded = Guarded(TIERS)
    call = Call(scope_of(key=None, headers=CLAIMS, body=ASK), body_messages(ASK))
    asyncio.run(call.run(guarded.app))

    assert "account.id" not in guarded.host.scopes[-1][STATE_KEY].decision.facts
    assert ask(guarded.app, path=CHAT, key="key-b").status == 200

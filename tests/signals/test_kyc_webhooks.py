"""Webhooks of identity verification: what changes a status, and what never does."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from guardrail.errors import SettingError
from guardrail.guard import AsyncGuard
from guardrail.signals.kyc import STATUSES, KycLedger, KycSignal, KycWebhooks
from tests.http.driving import Guarded
from tests.loaded import loaded

NOW = 1_780_000_000.0
SECRET = "a secret of a provider"
KEY = b"the hash key of a store"
POLICY = f"""
guardrail: 1
policy: known
facts:
  kyc.status: {{type: enum, values: [{", ".join(STATUSES)}], source: server}}
rules:
  - id: verified-only
    when: {{kyc.status: {{not: verified}}}}
    block: {{reason: verification_required, remedy: verify}}
"""
PROVIDERS = ("stripe", "persona", "veriff", "onfido")


def iso(at):
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def webhook(provider, status, at=NOW, name="e1", account="acct-a", kind=None):
    """Return what a provider sends about an account."""
    if provider == "stripe":
        kind = kind or f"identity.verification_session.{status}"
        found = {"id": "vs_1", "status": status, "client_reference_id": account}
        return {"id": name, "type": kind, "created": int(at), "data": {"object": found}}
    if provider == "persona":
        inner = {"data": {"attributes": {"status": status, "reference-id": account}}}
        told = {"name": kind or f"inquiry.{status}", "created-at": iso(at), "payload": inner}
        return {"data": {"type": "event", "id": name, "attributes": told}}
    if provider == "veriff":
        found = {"id": name, "code": status, "vendorData": account, "decisionTime": iso(at)}
        return {"status": "success", "verification": found}
    run = {"id": name, "status": status, "completed_at_iso8601": iso(at)}
    payload = {"resource_type": "workflow_run", "action": "workflow_run.completed", "object": run}
    return {"payload": {**payload, "resource": {"customer_user_id": account}}}


def signed(provider, body, secret=SECRET, at=NOW):
    def of(text):
        return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()

    if provider in ("stripe", "persona"):
        value = f"t={int(at)},v1={of(f'{int(at)}.'.encode() + body)}"
        return [(f"{provider.capitalize()}-Signature", value)]
    name = "X-HMAC-SIGNATURE" if provider == "veriff" else "X-SHA2-Signature"
    return [(name, of(body))]


VERIFIED = {"stripe": "verified", "persona": "approved", "veriff": 9001, "onfido": "approved"}
REJECTED = {"stripe": "canceled", "persona": "declined", "veriff": 9102, "onfido": "declined"}
PASSING = {
    "stripe": ("requires_input", "processing"),
    "persona": ("completed", "created", "pending", "needs_review", "failed"),
    "veriff": (7001, 7002, 9103, 9121),
    "onfido": ("processing", "awaiting_input", "review"),
}


class Host:
    """A host with a ledger: takes webhooks, and serves verified accounts alone."""

    def __init__(self, folder):
        self.ledger = KycLedger(folder / "kyc.db", KEY)
        self.webhooks = KycWebhooks(self.ledger, dict.fromkeys(PROVIDERS, SECRET))
        self.guard = AsyncGuard.from_policies(
            loaded(POLICY), signals=[KycSignal(self.ledger)], environ={}
        )

    def send(self, provider, document, now=NOW, headers=None):
        body = json.dumps(document).encode()
        return self.webhooks.receive(provider, headers or signed(provider, body), body, now)

    def served(self, account="acct-a"):
        facts = {"account.id": account}
        return asyncio.run(self.guard.decide(facts)).allowed


@pytest.fixture
def host(tmp_path):
    found = Host(tmp_path)
    yield found
    found.ledger.close()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_signed_verification_is_taken_and_no_other(host, provider):
    document = webhook(provider, VERIFIED[provider])
    body = json.dumps(document).encode()
    forged = [
        [],
        signed(provider, body, secret="another secret of another"),
        signed(provider, body + b" "),
        [(name, value[:-1] + "0z"[value.endswith("0")]) for name, value in signed(provider, body)],
        [(name, "") for name, _ in signed(provider, body)],
        [(name, "t=1,v1=") for name, _ in signed(provider, body)],
    ]
    for headers in forged:
        assert host.webhooks.receive(provider, headers, body, NOW) == 400
    assert not host.served()
    assert host.send(provider, document) == 204
    assert host.served()
    assert not host.served("acct-b")


@pytest.mark.parametrize("provider", ["stripe", "persona"])
@pytest.mark.parametrize("age", [301, -301, 10**6])
def test_a_stale_timestamp_changes_nothing(host, provider, age):
    document = webhook(provider, VERIFIED[provider])

    assert host.send(provider, document, now=NOW + age) == 400
    assert not host.served()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_replay_changes_nothing(host, provider):
    verified = webhook(provider, VERIFIED[provider], NOW, "e1")
    rejected = webhook(provider, REJECTED[provider], NOW + 60, "e2")
    assert host.send(provider, verified) == host.send(provider, rejected) == 204
    assert not host.served()

    for _ in range(3):
        assert host.send(provider, verified) == 204
        assert not host.served()


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (("approved", "declined", "expired"), "rejected"),
        (("approved", "expired"), "expired"),
        (("created", "needs_review", "failed"), "action_required"),
        (("brand new", "pending"), "pending"),
        (("failed", "approved"), "verified"),
    ],
)
def test_events_of_one_second_end_the_same_in_any_order_and_repeated(tmp_path, told, status):
    for number, order in enumerate(itertools.permutations(told)):
        (tmp_path / str(number)).mkdir()
        host = Host(tmp_path / str(number))
        for said in (*order, *order, order[0]):
            assert host.send("persona", webhook("persona", said, NOW, said)) == 204
        assert host.ledger.status("acct-a") == status, order
        host.ledger.close()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_any_order_of_arrival_ends_the_same(tmp_path, provider):
    told = [
        webhook(provider, PASSING[provider][0], NOW, "e1"),
        webhook(provider, VERIFIED[provider], NOW + 60, "e2"),
        webhook(provider, REJECTED[provider], NOW + 120, "e3"),
    ]
    for number, order in enumerate(itertools.permutations(range(3))):
        (tmp_path / str(number)).mkdir()
        host = Host(tmp_path / str(number))
        for place in order:
            host.send(provider, told[place])
        assert host.ledger.status("acct-a") in ("rejected", "expired"), order
        host.ledger.close()


@pytest.mark.parametrize(
    ("provider", "status"), [(p, s) for p, every in PASSING.items() for s in every]
)
def test_what_is_on_its_way_is_not_verified_and_does_not_unverify(host, provider, status):
    host.send(provider, webhook(provider, status, NOW, "e1"))
    assert not host.served()
    host.send(provider, webhook(provider, VERIFIED[provider], NOW + 60, "e2"))
    host.send(provider, webhook(provider, status, NOW + 120, "e3"))

    assert host.served()


@pytest.mark.parametrize("status", ["", "VERIFIED", "brand_new", None, 1, "redacted"])
def test_a_status_nobody_knows_grants_nothing(host, status):
    assert host.send("stripe", webhook("stripe", status)) in (204, 400)

    assert not host.served()


def test_deleting_a_persons_data_unverifies_nobody(host):
    host.send("persona", webhook("persona", "approved", NOW, "e1"))
    redacted = webhook("persona", "declined", NOW + 60, "e2", kind="inquiry.redacted")
    assert host.send("persona", redacted) == 204
    host.send("stripe", webhook("stripe", "verified", NOW, "e1", "acct-b"))
    kind = "identity.verification_session.redacted"
    host.send("stripe", webhook("stripe", "canceled", NOW + 60, "e2", "acct-b", kind))

    assert host.served()
    assert host.served("acct-b")


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"data": 1}', b"[" * 100_000, b"\xff"])
def test_a_signed_webhook_of_another_shape_is_refused_and_nothing_raises(host, body):
    for provider in PROVIDERS:
        assert host.webhooks.receive(provider, signed(provider, body), body, NOW) == 400


def test_providers_and_their_secrets_are_checked(host):
    assert host.send("strpe", {}, headers=[("a", "b")]) == 404
    for secrets, message in (({"strpe": SECRET}, "is no provider"), ({"stripe": "x"}, "shorter")):
        with pytest.raises(SettingError, match=message):
            KycWebhooks(host.ledger, secrets)


def test_another_process_reads_what_one_has_taken(host, tmp_path):
    host.send("stripe", webhook("stripe", "verified"))
    read = (
        "import sys\n"
        "from guardrail.signals.kyc import KycLedger\n"
        "print(KycLedger(sys.argv[1], sys.argv[2].encode()).status('acct-a'))"
    )
    command = [sys.executable, "-c", read, tmp_path / "kyc.db", KEY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "verified\n"


def test_the_door_refuses_whoever_is_not_verified(host):
    guarded = Guarded(POLICY)
    guarded.app.door.in_force.change(lambda _: host.guard)
    refused = guarded.ask()
    host.send("stripe", webhook("stripe", "verified"))

    assert (refused.status, refused.json["error"]["code"]) == (403, "verification_required")
    assert guarded.ask().status == 200


def test_the_document_names_the_statuses_that_there_are():
    text = (Path(__file__).parents[2] / "docs" / "identity.md").read_text("utf-8")
    told = text.partition("`kyc.status`: one of")[2].partition(", as")[0]

    assert sorted(re.findall(r"`(\w+)`", told)) == sorted(STATUSES)

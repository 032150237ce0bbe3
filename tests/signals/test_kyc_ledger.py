"""What the ledger of identity verifications keeps, and what it takes for true."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import sqlite3
import stat
from contextlib import ExitStack, closing

import pytest

from guardrail.errors import DataError, SettingError
from guardrail.signals.kyc import Event, KycLedger
from tests.signals.test_kyc_webhooks import KEY, NOW, REJECTED, VERIFIED, host, webhook

__all__ = ["host"]


@pytest.fixture
def ledger_of(tmp_path):
    """Give what makes ledgers of one file, closed at the end."""
    with ExitStack() as opened:
        yield lambda keys=KEY: opened.enter_context(closing(KycLedger(tmp_path / "kyc.db", keys)))


def test_a_decision_without_a_time_is_refused_and_a_step_without_one_goes_over_nothing(host):
    host.send("veriff", webhook("veriff", 9001))
    for code, answered in ((9102, 400), (9001, 400), (9104, 400), (7002, 204)):
        document = webhook("veriff", code, name="e2")
        del document["verification"]["decisionTime"]
        assert host.send("veriff", document) == answered

    assert host.ledger.status("acct-a") == "verified"


@pytest.mark.parametrize("provider", ["veriff", "onfido"])
@pytest.mark.parametrize(("ahead", "answered"), [(300, 204), (360, 400), (10**4, 400)])
def test_a_time_to_come_is_refused_beyond_what_clocks_differ(host, provider, ahead, answered):
    assert host.send(provider, webhook(provider, VERIFIED[provider], NOW + ahead)) == answered
    assert host.served() is (answered == 204)
    host.send(provider, webhook(provider, REJECTED[provider], NOW + 360, "e2"), now=NOW + 360)

    assert not host.served()


HALF = "\ud800"
UNREADABLE = {
    "half a character": ("veriff", {"vendorData": HALF}),
    "half a character of an id": ("veriff", {"id": HALF}),
    "endless code": ("veriff", {"code": float("inf")}),
    "no code": ("veriff", {"code": float("nan")}),
    "a list for a status": ("onfido", {"status": []}),
    "endless time": ("stripe", {"created": float("inf")}),
    "a time that is no number": ("stripe", {"created": float("nan")}),
    "a time of 400 digits": ("stripe", {"created": 10**400}),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_signed_values_that_cannot_be_are_refused_and_nothing_raises(host, what):
    provider, changed = UNREADABLE[what]
    document = webhook(provider, VERIFIED[provider])
    inner = document.get("verification") or document.get("payload", {}).get("object") or document
    inner |= changed

    assert host.send(provider, document) == 400
    assert host.ledger.status("acct-a") == "unknown"


def test_an_account_that_is_no_text_is_no_account_and_its_status_is_unavailable(host):
    with pytest.raises(DataError, match="half a character"):
        host.ledger.status(HALF)
    decision = asyncio.run(host.guard.decide({"account.id": HALF}))

    assert (decision.allowed, decision.reason) == (False, "facts-unavailable")


def test_accounts_are_told_apart_by_all_of_their_names(host):
    host.send("stripe", webhook("stripe", "verified", account="a" * 256 + "b"))

    assert host.served("a" * 256 + "b")
    assert not host.served("a" * 256)


def test_the_file_names_no_account_and_is_its_owners_alone(host, tmp_path):
    assert host.send("stripe", webhook("stripe", "verified")) == 204
    files = list(tmp_path.iterdir())

    assert {file.name for file in files} >= {"kyc.db", "kyc.db-wal"}
    for file in files:
        assert b"acct-a" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_new_hash_key_goes_on_with_what_is_kept_under_the_former_one(host, ledger_of, tmp_path):
    later = ledger_of([b"another hash key", KEY])
    # Some, as their hashes say in which order they are found.
    for account in (f"acct-{number}" for number in range(20)):
        host.send("stripe", webhook("stripe", "verified", account=account))
        assert later.status(account) == "verified"
        later.take(Event("e2", account, "rejected", NOW + 60))
        assert later.status(account) == "rejected"
        later.take(Event("e1", account, "verified", NOW))
        assert later.status(account) == "rejected"
    assert ledger_of(b"another hash key" * 2).status("acct-0") == "unknown"

    for keys in ((), b"short", [KEY, b"x" * 65]):
        with pytest.raises(SettingError, match="hash key"):
            KycLedger(tmp_path / "kyc.db", keys)


def test_nothing_is_opened_before_it_is_asked_and_each_process_opens_its_own(tmp_path):
    ledger = KycLedger(tmp_path / "kyc.db", KEY)
    assert not list(tmp_path.iterdir())
    ledger.take(Event("e1", "acct-a", "verified", NOW))
    before = open_files(tmp_path)
    child = os.fork()
    if child == 0:
        known = False
        try:
            known = ledger.status("acct-a") == "verified" and open_files(tmp_path) > before
            ledger.take(Event("e2", "acct-b", "verified", NOW))
        finally:
            os._exit(not known)
    _, status = os.waitpid(child, 0)

    assert status == 0
    assert ledger.status("acct-b") == "verified"
    ledger.close()


def open_files(folder):
    """Return how many files of a folder this process has open."""
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link).startswith(str(folder)) for link in links)


def test_what_cannot_be_kept_is_asked_for_again(host, tmp_path):
    assert host.ledger.status("acct-a") == "unknown"
    host.ledger.close()
    for file in tmp_path.iterdir():
        file.write_bytes(b"no database" * 100)

    assert host.send("stripe", webhook("stripe", "verified")) == 503
    decision = asyncio.run(host.guard.decide({"account.id": "acct-a"}))
    assert (decision.allowed, decision.reason) == (False, "facts-unavailable")
    with pytest.raises(DataError, match="is not readable"):
        KycLedger(tmp_path / "no" / "such.db", KEY).status("acct-a")


DAY = 86_400.0
V, R, E, P = "verified", "rejected", "expired", "pending"


@pytest.mark.parametrize(
    ("told", "stands"),
    [
        ([("s1", V), ("s2", E)], V),
        ([("s1", V), ("s2", P)], V),
        ([("s1", V), ("s2", "action_required")], V),
        ([("s1", V), ("s1", E)], E),
        ([("s1", V), ("s1", R)], R),
        ([("s1", V), ("s2", R)], R),
        ([("s1", R), ("s2", P)], R),
        ([("s1", R), ("s2", E)], R),
        ([("s1", R), ("s2", "action_required")], R),
        ([("s1", R), ("s2", V)], R),
        ([("s1", R), ("s1", P)], R),
        ([("s1", R), ("s1", E)], R),
        ([("s1", R), ("s1", V)], V),
        ([("s1", R), ("s1", E), ("s1", V)], V),
        ([("s1", R), ("s2", V), ("s1", V)], V),
        ([("s1", E), ("s2", P)], P),
        ([("s1", E), ("s2", V)], V),
        ([("s1", P), ("s2", E)], E),
    ],
)
def test_an_outcome_changes_by_its_own_attempt_alone_in_any_order(tmp_path, told, stands):
    events = [
        Event(f"e{place}", "acct-a", status, NOW + place * DAY, session)
        for place, (session, status) in enumerate(told)
    ]
    for number, order in enumerate(itertools.permutations(events)):
        ledger = KycLedger(tmp_path / f"{number}.db", KEY)
        for event in (*order, *order):
            ledger.take(event)
        assert ledger.status("acct-a") == stands
        ledger.close()


def test_an_event_that_comes_again_changes_nothing_and_a_rejection_outlasts_its_second(tmp_path):
    ledger = KycLedger(tmp_path / "kyc.db", KEY)
    for status, changes in zip((R, R, E, E, P, P), (True, False) * 3, strict=True):
        assert ledger.take(Event("e", "acct-a", status, NOW, "s1")) is changes, status
        assert ledger.status("acct-a") == R
    ledger.close()


@pytest.mark.parametrize("provider", ["stripe", "persona", "veriff", "onfido"])
def test_another_attempt_at_a_provider_neither_ends_nor_washes_off_an_outcome(host, provider):
    def told(status, at, session):
        document = webhook(provider, status, at, name=session)
        if provider == "stripe":
            document["data"]["object"]["id"] = session
        if provider == "persona":
            document["data"]["attributes"]["payload"]["data"]["id"] = session
        assert host.send(provider, document, now=at) == 204
        return host.ledger.status("acct-a")

    begun = {"stripe": "processing", "persona": "created", "veriff": 7002, "onfido": "processing"}
    ended = {"stripe": "canceled", "persona": "expired", "veriff": 9104, "onfido": "abandoned"}
    assert told(VERIFIED[provider], NOW, "s1") == "verified"
    assert told(begun[provider], NOW + 60, "s2") == "verified"
    assert told(ended[provider], NOW + 120, "s2") == "verified"
    if provider != "stripe":  # it has no status that refuses
        assert told(REJECTED[provider], NOW + 180, "s3") == "rejected"
        assert told(begun[provider], NOW + 240, "s4") == "rejected"
        assert told(ended[provider], NOW + 300, "s4") == "rejected"


def test_a_host_lifts_a_rejection_and_it_can_come_again(ledger_of):
    ledger = ledger_of()
    ledger.take(Event("e1", "acct-a", "rejected", NOW, "s1"))
    ledger.take(Event("e2", "acct-a", "verified", NOW + 60, "s2"))

    assert ledger.lift("acct-a")
    assert ledger.status("acct-a") == "verified"
    assert not ledger.lift("acct-a")
    ledger.take(Event("e3", "acct-a", "rejected", NOW + 90, "s3"))
    assert ledger.status("acct-a") == "rejected"


def test_an_attempt_goes_on_under_a_new_hash_key(ledger_of):
    ledger = ledger_of()
    ledger.take(Event("e1", "acct-a", "rejected", NOW, "s1"))
    later = ledger_of([b"another hash key", KEY])
    later.take(Event("e2", "acct-a", "verified", NOW + 60, "s2"))
    assert later.status("acct-a") == "rejected"
    later.take(Event("e3", "acct-a", "verified", NOW + 90, "s1"))

    assert later.status("acct-a") == "verified"


def test_what_a_ledger_without_attempts_kept_is_taken_over(tmp_path):
    name = hashlib.blake2b(b"acct-a", key=KEY, digest_size=16, person=b"kyc account").digest()
    with sqlite3.connect(tmp_path / "kyc.db") as former:
        former.execute(
            "CREATE TABLE accounts (account BLOB NOT NULL, final INTEGER NOT NULL, status TEXT NOT "
            "NULL, at REAL NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (account, final))"
        )
        former.execute("INSERT INTO accounts VALUES (?, 1, 'rejected', ?, 5)", (name, NOW))
    former.close()

    for _ in range(2):
        ledger = KycLedger(tmp_path / "kyc.db", KEY)
        assert ledger.status("acct-a") == "rejected"
        ledger.take(Event("e2", "acct-a", "pending", NOW + 60, "s2"))
        assert ledger.status("acct-a") == "rejected"
        ledger.close()

"""A directory in a file: read strictly, by keyed hashes, whole or not at all, again on change."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from guardrail.errors import DataError, SettingError
from guardrail.http.identity import CredentialSource, credential_of
from guardrail.http.identity.directory_file import DirectoryFileError, FileDirectory, written
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source
from guardrail.signals.directory import Credential, Identity

NOW = 1_780_000_000.0
HASH_KEY, FORMER = b"k" * 32, b"f" * 32
FACTS = {
    **STANDARD_FACTS,
    "account.tier": replace(STANDARD_FACTS["account.tier"], values=("email", "verified")),
    "account.seats": Fact(name="account.seats", type=FactType.INTEGER, source=Source.SERVER),
    "account.paid": Fact(name="account.paid", type=FactType.BOOL, source=Source.SERVER),
    "account.rate": Fact(name="account.rate", type=FactType.NUMBER, source=Source.SERVER),
    "account.groups": Fact(name="account.groups", type=FactType.LIST, source=Source.SERVER),
}
ONE, TWO, OLD = written("sk-1", HASH_KEY), written("sk-2", HASH_KEY), written("sk-3", FORMER)

YAML = f"""\
guardrail_directory: 1
accounts:
  - credentials: [{ONE}, {OLD}]
    account.id: a1
    account.tier: verified
    account.created: 2026-01-01
    account.seats: 12
    account.paid: true
    account.rate: 1.5
    account.groups: [red, blue]
  - credential: {TWO}
    account.id: a2
    enforcement.status: banned
"""
CSV = f"""\
credential,account.id,account.tier,account.created,account.seats,account.paid,account.rate,\
account.groups,enforcement.status
{ONE},a1,verified,2026-01-01,12,true,1.5,"red, blue",
{OLD},a1,verified,2026-01-01,12,true,1.5,"red, blue",
{TWO}, a2 ,,,,,,,banned
"""
A1 = {
    "account.id": "a1",
    "account.tier": "verified",
    "account.created": 1_767_225_600.0,
    "account.seats": 12,
    "account.paid": True,
    "account.rate": 1.5,
    "account.groups": ("red", "blue"),
}


def credential(key: str) -> Credential:
    found = credential_of(
        [(b"authorization", b"Bearer " + key.encode())],
        reads=CredentialSource.of("bearer"),
        hash_key=HASH_KEY,
    )
    assert found is not None
    return found


@pytest.fixture
def directory(tmp_path):
    """Return a function that writes a text to a file and opens it as a directory."""

    def opened(text: str, name: str = "who.yaml", keys=(HASH_KEY, FORMER)) -> FileDirectory:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return FileDirectory(path, FACTS, hash_keys=keys)

    return opened


def test_a_tier_where_no_policy_lists_tiers_is_told_what_to_declare(tmp_path):
    path = tmp_path / "who.yaml"
    path.write_text(YAML, encoding="utf-8")
    facts = {**FACTS, "account.tier": replace(FACTS["account.tier"], values=())}

    with pytest.raises(DirectoryFileError) as refused:
        FileDirectory(path, facts, hash_keys=(HASH_KEY, FORMER))
    assert "`account.tier` lists no values; declare them: `account.tier: {type: level" in str(
        refused.value
    )


@pytest.mark.parametrize(("name", "text"), [("who.yaml", YAML), ("who.csv", CSV)])
def test_a_file_tells_whose_a_credential_is(directory, name, text):
    who = directory(text, name)

    assert who.look_up(credential("sk-1"), NOW) == Identity(A1, expires=NOW + 1)
    assert asyncio.run(who.find(credential("sk-3"), NOW)).facts == A1
    assert who.look_up(credential("sk-2"), NOW).facts == {
        "account.id": "a2",
        "enforcement.status": "banned",
    }
    assert who.look_up(credential("sk-4"), NOW) == Identity(expires=NOW + 1)
    assert who.look_up(credential(ONE), NOW).known is False
    assert {"account.tier", "enforcement.status"} <= who.provides
    assert who.warnings(NOW) == ()


def test_a_file_tells_what_was_paid_and_when_an_identity_was_established(directory):
    earned = "    account.paid_usd: 120.5\n    account.paid_since: 2026-01-15\n"
    earned += "    account.verified_at: 2026-01-20T12:00:00Z\n"
    who = directory(YAML.replace("    account.seats: 12\n", earned))
    facts = who.look_up(credential("sk-1"), NOW).facts

    assert facts["account.paid_usd"] == 120.5
    assert facts["account.paid_since"] == 1_768_435_200.0
    assert facts["account.verified_at"] == 1_768_910_400.0


YAML_ERRORS = {
    "empty": ("", "the file lists no account"),
    "no accounts": ("guardrail_directory: 1\naccounts: []\n", "the file lists no account"),
    "a list": ("[]\n", "a directory is a map, not a list"),
    "no version": (YAML.replace("guardrail_directory: 1\n", ""), "start with `guardrail_direc"),
    "version 2": (YAML.replace("tory: 1", "tory: 2"), "start with `guardrail_directory: 1`"),
    "an unknown key": (YAML.replace("accounts:", "acounts:"), "did you mean `accounts`?"),
    "an unknown fact": (YAML.replace("account.tier", "account.teir"), "did you mean `account.t"),
    "a client's fact": (YAML.replace("account.tier", "request.model"), "is no fact of a direc"),
    "the connection's": (YAML.replace("account.tier", "geo.country"), "is no fact of a direc"),
    "an unknown tier": (YAML.replace("verified", "verfied"), "`verfied` is not a value of"),
    "seats as text": (YAML.replace("12", "'12'"), "is not a whole number"),
    "no account": (YAML.replace("account.id: a2", "account.org: o"), "needs an `account.id`"),
    "no credential": (YAML.replace(f"credential: {TWO}", "account.org: o"), "needs a `credential`"),
    "twice": (YAML.replace(TWO, ONE), "stands twice"),
    "a key, not its hash": (YAML.replace(TWO, "sk-CANARY"), "is not a credential's keyed hash"),
    "a number": (YAML.replace(TWO, "123456"), "is not a credential's keyed hash"),
    "another hash key": (
        YAML.replace(TWO, written("sk-2", b"x" * 32)),
        "which is not given",
    ),
    "no yaml": ("accounts: [", "GR100"),
    "accounts that are a map": (
        "guardrail_directory: 1\naccounts: {a: 1}\n",
        "write the accounts as a list",
    ),
    "an account that is text": (
        "guardrail_directory: 1\naccounts: [a1]\n",
        "an account is a map, not text",
    ),
}
CSV_ERRORS = {
    "empty": ("", "the file lists no account"),
    "a header alone": ("credential,account.id\n", "the file lists no account"),
    "an unknown column": (CSV.replace("account.tier", "acount.tier"), "did you mean `account.t"),
    "a column twice": (CSV.replace("account.tier", "account.id"), "two columns are called"),
    "a cell too many": (CSV + f"{ONE},a,,,,,,,,x\n", "more cells than the header"),
    "an unknown status": (CSV.replace("banned", "bannd"), "`bannd` is not a value of"),
    "seats that are none": (CSV.replace("12", "a dozen"), "is not a whole number"),
    "no account": (CSV.replace(" a2 ", ""), "needs an `account.id`"),
    "a key, not its hash": (CSV.replace(TWO, "sk-CANARY"), "is not a credential's keyed hash"),
    "a nul": ("credential\0,account.id\na,b\n", "credential"),
}


@pytest.mark.parametrize(("text", "message"), YAML_ERRORS.values(), ids=YAML_ERRORS)
def test_a_yaml_file_with_anything_wrong_is_not_taken(directory, text, message):
    with pytest.raises(DirectoryFileError) as caught:
        directory(text)

    assert "who.yaml" in str(caught.value)
    assert message in str(caught.value)
    assert "CANARY" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(("text", "message"), CSV_ERRORS.values(), ids=CSV_ERRORS)
def test_a_csv_file_with_anything_wrong_is_not_taken(directory, text, message):
    with pytest.raises(DirectoryFileError) as caught:
        directory(text, "who.csv")

    assert message in str(caught.value)
    assert "CANARY" not in str(caught.value) + repr(caught.value)


def test_errors_name_their_place(directory):
    with pytest.raises(DirectoryFileError, match=r"who\.csv:4:1: GR106 `bannd`"):
        directory(CSV.replace("banned", "bannd"), "who.csv")
    with pytest.raises(DirectoryFileError, match=r"who\.yaml:5:19: GR106 `verfied`"):
        directory(YAML.replace("verified", "verfied"))


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path):
    (tmp_path / "packed.csv").write_bytes(b"\x1f\x8b\xff")

    def opened(name: str, keys: tuple[bytes, ...] = (HASH_KEY,)) -> FileDirectory:
        return FileDirectory(tmp_path / name, FACTS, hash_keys=keys)

    with pytest.raises(DataError, match=r"lost\.yaml`: no such file or directory; check the path"):
        opened("lost.yaml")
    with pytest.raises(DataError, match=r"packed\.csv` is not UTF-8 text"):
        opened("packed.csv")
    with pytest.raises(SettingError, match=r"name a `\.yaml` or a `\.csv` file"):
        opened("who.json")
    with pytest.raises(SettingError, match="needs the hash key"):
        opened("packed.csv", ())


@pytest.mark.parametrize("way", ["threads", "tasks"])
def test_a_changed_file_is_taken_and_a_broken_one_is_not(directory, tmp_path, way):
    who = directory(YAML)
    path = tmp_path / "who.yaml"

    def status(now: float) -> object:
        if way == "threads":
            return who.look_up(credential("sk-1"), now).facts.get("enforcement.status")
        return asyncio.run(who.find(credential("sk-1"), now)).facts.get("enforcement.status")

    def replaced(text: str) -> None:
        (tmp_path / "new").write_text(text)
        os.replace(tmp_path / "new", path)

    assert status(NOW) is None
    replaced(YAML.replace("    account.tier", "    enforcement.status: banned\n    account.tier"))
    assert status(NOW + 0.5) is None
    assert status(NOW + 1) == "banned"
    replaced("accounts: [")
    assert status(NOW + 2) == "banned"
    assert "GR100" in who.warnings(NOW)[0]
    assert "the old one stays in use" in who.warnings(NOW)[0]
    path.unlink()
    assert status(NOW + 3) == "banned"
    assert "no such file" in who.warnings(NOW)[0]
    replaced(YAML)
    assert status(NOW + 4) is None
    assert who.warnings(NOW) == ()


def test_a_clock_set_back_does_not_keep_the_old_file(directory, tmp_path):
    who = directory(YAML)
    who.look_up(credential("sk-1"), NOW)
    (tmp_path / "who.yaml").write_text(YAML.replace("a1", "a111"))

    assert who.look_up(credential("sk-1"), NOW - 3600).facts["account.id"] == "a111"


def run_tool(text: bytes, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "guardrail.http.identity"],
        input=text,
        capture_output=True,
        env={**os.environ, **environ},
        timeout=60,
        check=False,
    )


def test_the_tool_makes_the_names_that_files_use(directory):
    made = run_tool(b"sk-1\n\n sk-2\r\n", GUARDRAIL_HASH_KEY=HASH_KEY.decode())

    assert made.stdout.decode().split() == [ONE, TWO]
    assert made.returncode == 0
    lacking = run_tool(b"sk-CANARY\n")
    assert lacking.returncode == 2
    assert b"set `GUARDRAIL_HASH_KEY`" in lacking.stderr
    short = run_tool(b"sk-CANARY\n", GUARDRAIL_HASH_KEY="short")
    assert short.returncode == 2
    assert b"CANARY" not in lacking.stderr + short.stderr + short.stdout


BROKEN = {
    "a typo elsewhere": (f"""\
  - credential: {ONE}
    account.id: a1
    enforcement.status: banned
  - credential: {TWO}
    acount.id: a2
    enforcement.status: banned
""", 2),
    "a status that is none": (f"""\
  - credential: {ONE}
    account.id: a1
    enforcement.status: baned
  - credential: {TWO}
    account.id: a2
    enforcement.status: banned
""", 1),
    "a fact that is none": (f"""\
  - {{credential: {ONE}, account.id: a1, enforcement.staus: banned}}
  - {{credential: {TWO}, account.id: a2, enforcement.status: banned}}
""", 1),
    "no YAML": ("  - {account.id: a1, enforcement.status: banned\n", 1),
    "nothing that can be read": ("  - [\n", 1),
    "no ban that is new": (f"""\
  - {{credential: {ONE}, account.id: a1, account.tier: gold}}
  - {{credential: {TWO}, account.id: a2, enforcement.status: banned}}
""", 0),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_ban_in_a_file_that_is_not_taken_is_an_alarm_at_the_first_request(
    directory, tmp_path, caplog, what
):
    who = directory(YAML)
    text, waiting = BROKEN[what]
    (tmp_path / "who.yaml").write_text(f"guardrail_directory: 1\naccounts:\n{text}")

    assert who.look_up(credential("sk-1"), NOW).facts == A1
    assert (who.health.failing, who.health.bans_waiting) == (True, waiting)
    assert [record.levelname for record in caplog.records] == ["CRITICAL" if waiting else "ERROR"]
    assert "the old one stays in use: mend the file" in caplog.text
    assert ("ARE NOT IN FORCE" in caplog.text) == bool(waiting)

    for second in range(1, 60):
        who.look_up(credential("sk-1"), NOW + second)
    assert len(caplog.records) == 1
    who.look_up(credential("sk-1"), NOW + 61)
    assert len(caplog.records) == 2
    (tmp_path / "who.yaml").write_text(YAML)
    who.look_up(credential("sk-1"), NOW + 63)
    assert who.health == (1, False, 0)
    assert "is in use as it stands" in caplog.records[-1].getMessage()


def test_a_broken_file_is_read_once_and_a_mended_one_at_the_next_look(
    directory, tmp_path, monkeypatch
):
    who = directory(YAML)
    (tmp_path / "who.yaml").write_text("accounts: [")
    read, load = [], FileDirectory._load

    def counted(self):
        read.append(self)
        return load(self)

    monkeypatch.setattr(FileDirectory, "_load", counted)
    for second in range(10):
        who.look_up(credential("sk-1"), NOW + 2 * second)
    assert len(read) == 1

    (tmp_path / "who.yaml").write_text(YAML.replace("a1", "a9"))
    assert who.look_up(credential("sk-1"), NOW + 100).facts["account.id"] == "a9"

"""`docs/http.md`: its exchanges happen as shown, and its reference leaves nothing out."""

from __future__ import annotations

import re

import pytest

from guardrail.decisionlog import SCHEMA
from guardrail.http.authorizing import Profile
from guardrail.http.settings.build import ARGUMENTS
from guardrail.http.settings.read import NAMES
from guardrail.signals.directory import CredentialKind
from tests.http.documented import DOCUMENT, exchanges, replayed
from tests.test_docs import agrees

SHOWN = exchanges()


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_every_exchange_happens_as_shown(number):
    answered = replayed(SHOWN[number])

    assert agrees(SHOWN[number].shown, answered), answered


def test_exchanges_are_of_every_kind():
    shown = "\n".join(exchange.shown for exchange in SHOWN)
    statuses = set(re.findall(r"^HTTP/1.1 (\d+)", shown, re.MULTILINE))

    assert {"200", "400", "403", "429", "451", "503"} <= statuses
    for word in ("RESOURCE_EXHAUSTED", "rate_limit_error", "problem+json", "insufficient_quota"):
        assert word in shown
    assert len(SHOWN) >= 14


def test_an_exchange_that_is_shown_wrong_is_found():
    first = SHOWN[0]
    for wrong in (
        first.shown.replace("200", "201", 1),
        first.shown.replace("content-type", "x-type", 1),
    ):
        assert not agrees(wrong, replayed(first))


@pytest.mark.parametrize("name", sorted({*NAMES, *ARGUMENTS}))
def test_every_setting_is_in_the_reference(name):
    assert re.search(rf"^\| (?:`\w+`, )*`{name}`", DOCUMENT.read_text("utf-8"), re.MULTILINE)


def test_nothing_is_in_the_reference_that_is_no_setting():
    table = DOCUMENT.read_text("utf-8").partition("## Settings")[2].partition("\n## ")[0]
    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)

    names = {name for row in named for name in re.findall(r"`(\w+)`", row)}
    assert names == {*NAMES, *ARGUMENTS}


def test_every_member_of_a_line_of_the_decision_log_is_in_the_reference():
    table = DOCUMENT.read_text("utf-8").partition("### The decision log")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)

    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {*SCHEMA["properties"]}


@pytest.mark.parametrize("kind", [*Profile, *CredentialKind])
def test_every_profile_and_place_of_a_credential_is_named(kind):
    assert f"`{kind.value}`" in DOCUMENT.read_text("utf-8")

"""A service behind a directory, for tests: whom it knows, and how it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source
from guardrail.signals.directory import Credential, CredentialKind, Freshness, Secret, credential_id
from guardrail.signals.directory.sources import ServiceDirectory
from tests.signals.servers import Server, answer

NOW = 1_780_000_000.0
FACTS = {
    **STANDARD_FACTS,
    "account.tier": replace(STANDARD_FACTS["account.tier"], values=("email", "verified")),
    "account.seats": Fact(name="account.seats", type=FactType.INTEGER, source=Source.SERVER),
    "app.name": Fact(name="app.name", type=FactType.STRING, source=Source.CLIENT),
}
TIMES = Freshness(timeout=10.0)
HASH_KEY = b"k" * 32
VERIFIED = {"account.id": "a1", "account.tier": "verified", "account.org": "o1"}
BANNED = {"account.id": "a2", "account.tier": "email", "enforcement.status": "banned"}


def credential(key: str) -> Credential:
    return Credential(credential_id(key, HASH_KEY), CredentialKind.BEARER, Secret(key.encode()))


GOOD, BAD, STRANGER, NEWCOMER = map(credential, ("sk-CANARY", "sk-bad", "sk-no", "sk-new"))
KNOWN = {GOOD.id: VERIFIED, BAD.id: BANNED}


def honest(server: Server, body: bytes) -> Iterable[bytes]:
    asked = json.loads(body)
    assert asked.keys() == {"credential"}
    yield answer({"facts": KNOWN.get(asked["credential"])})


def directory(server: Server | str, times: Freshness = TIMES, **given: object) -> ServiceDirectory:
    url = server if isinstance(server, str) else server.url
    return ServiceDirectory(url, FACTS, freshness=times, **given)  # type: ignore[arg-type]

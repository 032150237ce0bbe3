"""A directory for tests: `key-a` is the account `acct-a` of `org-a`, and so on; others are nobody."""

from __future__ import annotations

from guardrail.http.identity.credentials import CredentialSource, credential_of
from guardrail.signals.directory import Identity

HASH_KEY = b"k" * 32


class Accounts:
    """Knows the keys `key-…`; while it is `down`, what it knows is unavailable."""

    facts = ("account.id", "account.org", "account.tier", "enforcement.status")

    def __init__(self, names="abcdefgh", hash_key=HASH_KEY, **tiers):
        self.down = False
        self.asked = 0
        self.known = {}
        for name in names:
            fields = [(b"authorization", f"Bearer key-{name}".encode())]
            credential = credential_of(fields, b"", (), reads=CredentialSource(), hash_key=hash_key)
            self.known[credential.id] = {
                "account.id": f"acct-{name}",
                "account.org": f"org-{name}",
                "account.tier": tiers.get(name, "email"),
            }

    def look_up(self, credential, now):
        self.asked += 1
        if self.down:
            return Identity({}, frozenset(self.facts))
        return Identity(self.known.get(credential.id, {}), frozenset())

    async def find(self, credential, now):
        return self.look_up(credential, now)

    def warnings(self, now):
        return ()

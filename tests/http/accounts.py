"""A directory for tests: `key-a` is the account `acct-a` of `org-a`; other keys are nobody's."""

from __future__ import annotations

from guardrail.signals.directory import Identity, credential_id

HASH_KEY = b"k" * 32


class Accounts:
    """Knows the keys `key-…`; while it is `down`, what it knows is unavailable."""

    provides = frozenset({"account.id", "account.org", "account.tier", "enforcement.status"})

    def __init__(self, names="abcdefgh", hash_key=HASH_KEY, **tiers):
        self.down = False
        self.asked = 0
        self.known = {
            credential_id(f"key-{name}", hash_key): {
                "account.id": f"acct-{name}",
                "account.org": f"org-{name}",
                "account.tier": tiers.get(name, "email"),
            }
            for name in names
        }

    def look_up(self, credential, now):
        self.asked += 1
        if self.down:
            return Identity({}, self.provides)
        return Identity(self.known.get(credential.id, {}))

    async def find(self, credential, now):
        return self.look_up(credential, now)

    def warnings(self, now):
        return ()

    def close(self):
        pass

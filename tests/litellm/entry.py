"""What the proxy's configuration names in tests: the guard on a clock that tests move, and keys."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from guardrail.http.litellm import GuardrailCallback, facts_of_key
from guardrail.testing import MovableClock

CLOCK = MovableClock()
RECORDS: list[dict] = []
"""The records of the decision log."""


class Sink:
    """Keeps the records of decisions."""

    def write(self, record):
        RECORDS.append(dict(record))

    def close(self):
        """Do nothing."""


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Take `sk-NAME` for the key of a user of that name, as a host's own authentication does.

    Without a key it lets callers in whom nobody knows.
    """
    if not api_key:
        return UserAPIKeyAuth()
    if not api_key.startswith("sk-"):
        raise ProxyException("no such key", "auth_error", "key", 401)
    if api_key == "sk-away":
        raise ProxyException("the directory is away", "db_error", "key", 503)
    budget = {"max_budget": 0.2, "spend": 0.0} if api_key.startswith("sk-budget") else {}
    more = {"team_id": "team", "metadata": {"allowed_passthrough_routes": ["/mine"]}}
    return UserAPIKeyAuth(api_key=api_key, user_id=api_key[3:], **more, **budget)


def facts(key):
    """Return what a key establishes here: a tier beside who it is."""
    return {**facts_of_key(key), "account.tier": "paid" if "paid" in str(key.user_id) else "free"}


def __getattr__(name):
    if name == "guard":
        made = GuardrailCallback(
            policies=Path(__file__).parent / "policy.yaml",
            clock=CLOCK,
            environ={},
            jitter=lambda: 0.0,
            decision_sink=Sink(),
            facts=facts,
            proxies=["127.0.0.1"],
        )
        return globals().setdefault("guard", made)
    raise AttributeError(name)

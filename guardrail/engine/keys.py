"""Whose counter it is: keys as text, and the short name that starts them."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from guardrail.model.cells import IDENT_LENGTH
from guardrail.model.effects import Mode
from guardrail.model.rules import Rule

LONGEST = 128
SPILL_SHARDS = 64
SEPARATOR = "\x1f"
"""Stands between the parts of a key; a part that holds it is written with its length instead."""

KeyText = Callable[[Mapping[str, Any]], str | None]
"""Typed facts to the part of a key that says whose it is; None where the rule does not apply."""


def counter_ident(namespace: str, rule: Rule, *parts: str) -> str:
    """Return the name of one counter: 8 characters, the same for the same identity.

    `parts` are verb, unit, window and whatever else, changed, starts a counter afresh; amounts,
    steps and conditions are not among them.
    """
    shadow = "shadow" if rule.mode is Mode.SHADOW else ""
    text = "\0".join((namespace, rule.counter_id, shadow, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()[:IDENT_LENGTH]


def value_text(value: object) -> str:
    """Return a typed value as text that stands in a key; long ones by their digest."""
    if value is True or value is False:
        text = "true" if value else "false"
    elif isinstance(value, tuple):
        text = "".join(f"{len(part)}:{part}" for part in value)
    else:
        text = value if isinstance(value, str) else repr(value)
    if len(text) > LONGEST:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
        return f"#{digest.hexdigest()}"
    return text


def stand_in(facts: Mapping[str, Any], unknown: str | None) -> str | None:
    """Return what stands in for a missing key fact.

    Unless the rule says otherwise that is the account, or the network of a request without one,
    or else the one value "unknown". The leading character keeps them apart from real values.
    """
    if unknown == "skip":
        return None
    if unknown is None:
        account = facts.get("account.id")
        if account is not None:
            return "a" + value_text(account)
        network = facts.get("client.network")
        if network is not None:
            return "n" + value_text(network)
    return "u"


def key_text(names: tuple[str, ...], unknown: str | None) -> KeyText:
    """Return the function that writes the key of a rule."""
    if not names:
        return lambda facts: "="
    if len(names) == 1:
        return _single(names[0], unknown)

    def text(facts: Mapping[str, Any]) -> str | None:
        parts = []
        for name in names:
            value = facts.get(name)
            part = stand_in(facts, unknown) if value is None else "=" + value_text(value)
            if part is None:
                return None
            parts.append(part)
        return joined(*parts)

    return text


def joined(*parts: str) -> str:
    """Return several parts as one, no two different lists of parts alike."""
    if any(SEPARATOR in part for part in parts):
        return SEPARATOR + "".join(f"{len(part)}:{part}" for part in parts)
    return SEPARATOR.join(parts)


def _single(name: str, unknown: str | None) -> KeyText:
    def text(facts: Mapping[str, Any]) -> str | None:
        value = facts.get(name)
        return stand_in(facts, unknown) if value is None else "=" + value_text(value)

    return text


def spill_text(facts: Mapping[str, Any]) -> str | None:
    """Return where a full store counts a request without an account, None for one with."""
    if facts.get("account.id") is not None:
        return None
    network = facts.get("client.network")
    if network is None:
        return "~u"
    return f"~{zlib.crc32(str(network).encode('utf-8', 'surrogatepass')) % SPILL_SHARDS}"

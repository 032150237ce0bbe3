"""What a request shows of an account: the values that may link it, as numbers that tell nothing."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from guardrail.links.forest import FIRST_EVIDENCE, LAST_KIND
from guardrail.model.conditions import compile_condition
from guardrail.model.links import CARD, IDENTITY, Links


class Strong(NamedTuple):
    """A value that links alone."""

    name: int
    kind: int


class Weak(NamedTuple):
    """Two values that link together; `parts` name each of them alone."""

    name: int
    kind: int
    parts: tuple[int, int]


class Sighting(NamedTuple):
    """What one request shows of its account.

    `account` is its number and `handle` its id. `card` and `identity` are numbers of its own, 0
    where it has none.
    """

    account: int
    handle: str
    is_trusted: bool
    is_exempt: bool
    strong: tuple[Strong, ...]
    weak: tuple[Weak, ...]
    card: int
    identity: int


class Evidence:
    """Reads what requests show, under a secret key: without it no number leads back to a value."""

    def __init__(self, links: Links, secret: bytes, kinds: list[tuple[str, ...]]) -> None:
        """Take the links, the key, and the kinds of evidence so far; new ones are added."""
        self._links = links
        self._kinds = kinds
        self._hash = blake2b(key=secret, digest_size=8, person=b"link evidence")
        self._trusted = compile_condition(links.trusted)
        self._exempt = None if links.exempt is None else compile_condition(links.exempt)
        self._strong = [(self._kind((name,)), name) for name in links.strong]
        self._pairs = [(self._kind(pair), *pair) for pair in links.pairs]

    def sighting(self, facts: Mapping[str, object], now: float) -> Sighting | None:
        """Return what typed facts show at `now` (seconds), None where they name no account."""
        handle = facts.get("account.id")
        if not isinstance(handle, str):
            return None
        links = self._links
        strong = tuple(
            Strong(self._number(name, facts[name]), kind)
            for kind, name in self._strong
            if name in facts
        )
        alone = {name: self._number(name, facts[name]) for name in links.weak if name in facts}
        weak = tuple(
            Weak(_paired(alone[one], alone[other]), kind, (alone[one], alone[other]))
            for kind, one, other in self._pairs
            if one in alone and other in alone
        )
        return Sighting(
            account=self.account(handle),
            handle=handle,
            is_trusted=self._trusted(facts, now) is True,
            is_exempt=self._exempt is not None and self._exempt(facts, now) is True,
            strong=strong,
            weak=weak,
            card=self._number(CARD, facts[CARD]) if CARD in facts else 0,
            identity=self._number(IDENTITY, facts[IDENTITY]) if IDENTITY in facts else 0,
        )

    def account(self, handle: str) -> int:
        """Return the number of an account."""
        return self._number("account.id", handle)

    def facts_of(self, kind: int) -> tuple[str, ...]:
        """Return the facts that a kind of evidence is a value of."""
        return self._kinds[kind - FIRST_EVIDENCE]

    def _kind(self, names: tuple[str, ...]) -> int:
        if names not in self._kinds:
            self._kinds.append(names)
        # A byte holds it; after many changes of policies the last ones are told apart no more.
        return min(FIRST_EVIDENCE + self._kinds.index(names), LAST_KIND)

    def fresh(self, account: int, now: int) -> int:
        """Return a name for an actor that comes to be with an account at `now` (microseconds)."""
        return self._digest(b"actor%d %d" % (account, now))

    @staticmethod
    def crowd(value: int) -> int:
        """Return the number that stands for a value among those whom a full actor keeps out."""
        return (value * _ODD + 1) % 2**64 or 1

    def _number(self, name: str, value: object) -> int:
        text = value if isinstance(value, str) else f"{value.__class__.__name__}:{value}"
        return self._digest(f"{name}\0{text}".encode("utf-8", "surrogatepass"))

    def _digest(self, data: bytes) -> int:
        digest = self._hash.copy()
        digest.update(data)
        return int.from_bytes(digest.digest(), "big") or 1


_ODD, _OTHER = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F


def _paired(one: int, other: int) -> int:
    """Return the number of two values together: hashes already, they need only be told apart."""
    return (one * _ODD + other * _OTHER) % 2**64 or 1

"""What a request shows of an account: the values that may link it, as numbers that tell nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from itertools import chain
from struct import Struct
from typing import NamedTuple, Self

from guardrail.links.forest import FIRST_EVIDENCE, LAST_KIND
from guardrail.model.amounts import MINUTE, SECOND
from guardrail.model.conditions import Comparison, Condition, comparisons, compile_condition
from guardrail.model.facts import AGES
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
    where it has none. `parts` are the values of the weak pairs, each once.
    """

    account: int
    handle: str
    is_trusted: bool
    is_exempt: bool
    strong: tuple[Strong, ...]
    weak: tuple[Weak, ...]
    card: int = 0
    identity: int = 0
    parts: tuple[int, ...] = ()

    @property
    def data(self) -> bytes:
        """What is shown, as few bytes, to keep for long."""
        return b"".join(
            (
                _SHOWN.pack(self.account, self.card, self.identity, len(self.strong)),
                *(_STRONG.pack(*value) for value in self.strong),
                *(_WEAK.pack(pair.name, pair.kind, *pair.parts) for pair in self.weak),
            )
        )

    @classmethod
    def read(cls, data: bytes, handle: str, is_trusted: bool, is_exempt: bool) -> Self:
        """Return the sighting that showed what bytes hold."""
        account, card, identity, count = _SHOWN.unpack_from(data)
        end = _SHOWN.size + count * _STRONG.size
        strong = tuple(map(Strong._make, _STRONG.iter_unpack(data[_SHOWN.size : end])))
        weak = tuple(
            Weak(name, kind, (one, other))
            for name, kind, one, other in _WEAK.iter_unpack(data[end:])
        )
        parts = tuple(dict.fromkeys(chain.from_iterable(pair.parts for pair in weak)))
        return cls(account, handle, is_trusted, is_exempt, strong, weak, card, identity, parts)


_SHOWN, _STRONG, _WEAK = Struct("=QQQB"), Struct("=QB"), Struct("=QBQQ")


class Evidence:
    """Reads what requests show, under a secret key: without it no number leads back to a value."""

    def __init__(self, links: Links, secret: bytes, kinds: list[tuple[str, ...]]) -> None:
        """Take the links, the key, and the kinds of evidence so far; new ones are added."""
        self._links = links
        self._kinds = kinds
        self._hash = blake2b(key=secret, digest_size=8, person=b"link evidence")
        self._trusted = compile_condition(links.trusted)
        self._exempt = None if links.exempt is None else compile_condition(links.exempt)
        asked = (links.trusted,) if links.exempt is None else (links.trusted, links.exempt)
        self._turns = [turn for condition in asked for turn in _turns(condition)]
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
            parts=tuple(dict.fromkeys(part for pair in weak for part in pair.parts)),
        )

    def until(self, facts: Mapping[str, object], moment: int) -> int:
        """Return until when typed facts say the same of trust and exemption (microseconds).

        Nothing but time changes meanwhile; an account becomes trusted in the very moment in which
        it is old enough.
        """
        return min((turn(facts, moment) for turn in self._turns), default=FOREVER)

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


FOREVER = 2**63
"""Later than any time."""

_Turn = Callable[[Mapping[str, object], int], int]

_HOURS = ("time.hour", "time.weekday")
_TIMED = frozenset((*_HOURS, *AGES))
_OFTEN = 15 * MINUTE
"""What follows from the hour of a day, in any time zone, stays the same for as long."""


def _turns(condition: Condition) -> list[_Turn]:
    """Return, for each test of a condition, what tells when time alone may change its answer."""
    return [turn for test in comparisons(condition) if (turn := _turn(test)) is not None]


def _turn(test: Comparison) -> _Turn | None:
    if test.operator == "same_as" and not _TIMED.isdisjoint((test.fact, test.operand)):
        return lambda facts, moment: moment + 1
    if test.fact in _HOURS:
        return lambda facts, moment: moment - moment % _OFTEN + _OFTEN
    if test.operator in ("before", "after") and test.operand is None:
        return lambda facts, moment: _next(facts.get(test.fact), (0.0,), moment)
    since = AGES.get(test.fact)
    if since is None or test.operator == "exists":
        return None
    edges = test.operand if isinstance(test.operand, frozenset) else (test.operand,)
    ages = tuple(edge for edge in edges if isinstance(edge, int | float))
    return lambda facts, moment: _next(facts.get(since), ages, moment)


def _next(since: object, ages: tuple[float, ...], moment: int) -> int:
    """Return the next moment near which what counts from `since` (seconds) has one of some ages."""
    if not isinstance(since, int | float):
        return FOREVER
    found = FOREVER
    for age in ages:
        # A float of seconds is a little more or less than the microsecond it stands for.
        turned = int((since + age) * SECOND)
        for at in range(turned - 2, turned + 4):
            if moment < at < found:
                found = at
    return found

"""What a request shows of an account: the values that may link it, as numbers that tell nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from struct import Struct, pack
from typing import NamedTuple, Self

from guardrail.links.forest import FIRST_EVIDENCE, LAST_EVIDENCE
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
        values = [self.account, self.card, self.identity, len(self.strong)]
        for value in self.strong:
            values += value
        for name, kind, parts in self.weak:
            values += (name, kind, *parts)
        return pack(f"=QQQB{'QB' * len(self.strong)}{'QBQQ' * len(self.weak)}", *values)

    @classmethod
    def read(cls, data: bytes, handle: str, is_trusted: bool, is_exempt: bool) -> Self:
        """Return the sighting that showed what bytes hold."""
        account, card, identity, count = _SHOWN.unpack_from(data)
        end = _SHOWN.size + count * _STRONG.size
        strong = tuple(map(Strong._make, _STRONG.iter_unpack(data[_SHOWN.size : end])))
        weak, parts = [], dict[int, None]()
        for name, kind, one, other in _WEAK.iter_unpack(data[end:]):
            weak.append(Weak(name, kind, (one, other)))
            parts[one] = parts[other] = None
        return cls(
            account, handle, is_trusted, is_exempt, strong, tuple(weak), card, identity,
            tuple(parts),
        )  # fmt: skip


_SHOWN, _STRONG, _WEAK = Struct("=QQQB"), Struct("=QB"), Struct("=QBQQ")
"""The parts of what is shown, as `Sighting.data` writes them one after the other."""


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
        self._alone = tuple(dict.fromkeys((*links.strong, *links.weak, CARD, IDENTITY)))

    def sighting(self, facts: Mapping[str, object], now: float) -> Sighting | None:
        """Return what typed facts show at `now` (seconds), None where they name no account."""
        handle = facts.get("account.id")
        if not isinstance(handle, str):
            return None
        alone = {name: self._number(name, facts[name]) for name in self._alone if name in facts}
        strong = tuple([Strong(alone[name], kind) for kind, name in self._strong if name in alone])
        weak: list[Weak] = []
        parts: dict[int, None] = {}
        for kind, first, second in self._pairs:
            one, other = alone.get(first), alone.get(second)
            if one is not None and other is not None:
                pair = (one * _ODD + other * _OTHER) & _LAST or 1
                weak.append(Weak(pair, kind, (one, other)))
                parts[one] = parts[other] = None
        return Sighting(
            account=self.account(handle),
            handle=handle,
            is_trusted=self._trusted(facts, now) is True,
            is_exempt=self._exempt is not None and self._exempt(facts, now) is True,
            strong=strong,
            weak=tuple(weak),
            card=alone.get(CARD, 0),
            identity=alone.get(IDENTITY, 0),
            parts=tuple(parts),
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
        return min(FIRST_EVIDENCE + self._kinds.index(names), LAST_EVIDENCE)

    def fresh(self, account: int, now: int) -> int:
        """Return a name for an actor that comes to be with an account at `now` (microseconds)."""
        return self._digest(b"actor%d %d" % (account, now))

    @staticmethod
    def crowd(value: int) -> int:
        """Return the number that stands for a value among those whom a full actor keeps out."""
        return (value * _ODD + 1) % 2**64 or 1

    def _number(self, name: str, value: object) -> int:
        text = value if isinstance(value, str) else f"{value.__class__.__name__}:{value}"
        return self._digest(f"{name}\0{text}".encode(errors="surrogatepass"))

    def _digest(self, data: bytes) -> int:
        digest = self._hash.copy()
        digest.update(data)
        return int.from_bytes(digest.digest(), "big") or 1


_ODD, _OTHER, _LAST = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 2**64 - 1
"""Two values together are as many of each: hashes already, they need only be told apart."""

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
        if moment < turned + 3:
            found = min(found, max(moment + 1, turned - 2))
    return found

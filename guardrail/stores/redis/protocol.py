"""What is said to a server: calls and replies as they are written, and in what order, in steps.

Nothing here waits: so everything that is asked of a server is written once.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import msgspec
from hiredis import pack_command

from guardrail.model.cells import (
    CELL,
    IDENT_LENGTH,
    LEFT_OUT,
    MILLISECOND,
    TOP,
    Adjust,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Form,
    Leave,
    MemberReply,
    Outcome,
    Reply,
)
from guardrail.stores.cells import GarbledError, are_numbers, check_whole
from guardrail.stores.naming import Naming
from guardrail.stores.steps import Steps

REMEMBERED = 8192
"""How many names of keys are remembered before all are forgotten: hashing costs most of a call."""
SLOTS = 16384
COUNTED = b"c"
"""What stands before a counter among the links; the scripts know it."""

Command = tuple[bytes | str, ...]
"""What is sent. No whole number stands in it: an interrupt while hiredis writes one down ends the
process, as it takes for text what did not come about."""
Commands = Generator[Command, object, None]
"""Plain commands, each of which is sent its reply."""


def number(value: int) -> bytes:
    """Return a whole number as it stands in a command."""
    return b"%d" % value


_ADJUST, _DRAIN, _LEAVE, _RENEW, _UNDRAIN = 1, 2, 3, 4, 5
encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name that the server knows it by once it has run."""

    text: bytes
    sha: bytes

    @classmethod
    def of(cls, text: bytes) -> Script:
        """Return the script of a text."""
        return cls(text, sha1(text, usedforsecurity=False).hexdigest().encode())


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts of one layout; `settle_full` runs also where memory is full, from Redis 7 on."""

    acquire: Script
    settle: Script
    settle_full: Script


def load_scripts() -> Scripts:
    """Return the scripts that come with the package."""
    here = files(__package__)
    records, acquire, settle = (
        (here / f"{name}.lua").read_bytes() for name in ("records", "acquire", "settle")
    )
    acquire, settle = records + acquire, records + settle
    flagged = b"#!lua flags=allow-oom\n" + settle
    return Scripts(Script.of(acquire), Script.of(settle), Script.of(flagged))


@dataclass(frozen=True, slots=True)
class LinkScripts:
    """The scripts about links: one reads, one writes if nothing has changed since."""

    read: Script
    write: Script


def load_link_scripts() -> LinkScripts:
    """Return the scripts about links."""
    here = files(__package__)
    names = ("links_read.lua", "links_write.lua")
    return LinkScripts(*(Script.of((here / name).read_bytes()) for name in names))


class EndStay(NamedTuple):
    """Ends a stay that ends at `expires`, the one that nobody has renewed since."""

    key: str
    member: str
    expires: int


class Undrain(NamedTuple):
    """Takes back what a draining counter was charged at `since`, but for what has drained.

    `reach` is the counter's value after the charge and all that was refunded to it before: what
    others take back meanwhile tells nothing of this charge, which is why it is not a `Drain`.
    """

    key: str
    amount: int
    reach: int
    since: int
    ttl: int


Compensation = Correction | EndStay | Undrain
"""What takes a charge back."""


class Preconditions(NamedTuple):
    """What must hold for a call to be carried out, as the call itself states it.

    `ahead` is how many microseconds the call's time may be ahead of the server's, −1 for any;
    `before` when, by the server's clock, the names in the call are no longer good, −1 for never;
    `bound` how many keys the server may hold before unknown ones spill, −1 for any. `refuse`
    has the call refused whatever its cells say: they are answered, and nothing is charged.
    """

    ahead: int
    before: int
    bound: int
    refuse: bool = False


class Names(dict[str, bytes]):
    """The name of each key's record under one hash key: the latest are remembered.

    A name is the keyed hash of whose the record is, then which counter.
    """

    __slots__ = ("_prefix", "_shared", "_tags", "links", "naming")

    def __init__(self, naming: Naming, prefix: str, shared: Container[str] = frozenset()) -> None:
        """Take the prefix of all names, and the idents of counters that accounts share."""
        self.naming = naming
        self.links = prefix.encode() + b":{links}"
        self._shared = shared
        self._prefix = prefix.encode() + b":{"
        self._tags: dict[str, bytes] = {}

    def __missing__(self, key: str) -> bytes:
        """Return a record's name that is not remembered."""
        ident = key[:IDENT_LENGTH]
        if ident in self._shared:
            name = self.shared(self.naming.whose(key), ident)
        else:
            name = self.tag(key) + ident.encode()
        if len(self) >= REMEMBERED:
            self.clear()
        self[key] = name
        return name

    def of(self, keys: Iterable[str]) -> list[bytes]:
        """Return the names of records."""
        return list(map(self.__getitem__, keys))

    def tag(self, key: str) -> bytes:
        """Return what the names of all counters with the same key facts start with.

        Those that accounts share stand with the links: they move from one actor to another.
        """
        if key[:IDENT_LENGTH] in self._shared:
            return self.links
        whose = key[IDENT_LENGTH:]
        tag = self._tags.get(whose)
        if tag is None:
            if len(self._tags) >= REMEMBERED:
                self._tags = {}
            tag = self._tags[whose] = self._prefix + self.naming.whose(key) + b"}"
        return tag

    def shared(self, party: bytes, ident: str) -> bytes:
        """Return the name of a counter that accounts share, by the hash of whose it is."""
        return self.links + COUNTED + party + ident.encode()

    def member(self, member: str) -> str:
        """Return the name of a set's member, as text: a script's list knows no bytes."""
        return self.naming.member(member).decode()


class CallContext(NamedTuple):
    """How calls are made: under which names, on what conditions, by which scripts.

    `former` are the names of an epoch whose records are taken over when they are first needed.
    """

    names: Names
    former: Names | None
    preconditions: Preconditions
    acquire: Script
    settle: Script
    is_cluster: bool = False

    def slot(self, key: str) -> int:
        """Return the slot of a key's records: one for all limits of the same key facts."""
        return slot_of(self.names.tag(key)) if self.is_cluster else 0


packed: Callable[[Command], bytes] = pack_command  # type: ignore[assignment]
"""Returns a command as it is sent."""


class Call(NamedTuple):
    """One command to the server of a slot: a script with its keys and arguments, or a plain one.

    `asked` tells what a reply that comes too late has to be undone of; None if of nothing.
    """

    slot: int
    parts: Command
    script: Script | None = None
    asked: Form | None = None

    def command(self) -> bytes:
        """Return the command as it is sent, a script by its name."""
        if self.script is None:
            return packed(self.parts)
        return packed((b"EVALSHA", self.script.sha, *self.parts))

    def whole(self) -> bytes:
        """Return the command with the script's whole text, for a server that does not know it."""
        if self.script is None:
            return packed(self.parts)
        return packed((b"EVAL", self.script.text, *self.parts))


Ask = Callable[[Call], Steps[Any]]
"""Has one call answered, wherever its slot is; raises StoreError for an error it is answered."""


def slot_of(tag: bytes) -> int:
    """Return the cluster slot of a name with a hash tag.

    Source: the Redis Cluster specification, CRC16 (XMODEM) of what stands in braces.
    """
    return crc_hqx(tag[tag.index(b"{") + 1 : tag.index(b"}")], 0) % SLOTS


def answered(commands: Commands, ask: Callable[[Command], Steps[object]]) -> Steps[None]:
    """Have plain commands answered one after another."""
    try:
        command = next(commands)
        while True:
            command = commands.send((yield from ask(command)))
    except StopIteration:
        return


Taken = Mapping[int, bytes]
"""Records that are taken over from former names, by the places of their keys, from 1."""
_NOTHING: Taken = MappingProxyType({})


def acquired(context: CallContext, form: Form, now: int, slot: int, ask: Ask) -> Steps[list[int]]:
    """Ask the server of a slot for charges; return its reply, in numbers.

    Raises:
        GarbledError: the reply is not one of the script's.
    """
    places = {key: place for place, key in enumerate(form.keys, 1)}
    taken = yield from taken_over(context, places, ask)
    return read_reply((yield from ask(acquiring(context, form, now, slot, taken))))


def settled(
    context: CallContext, corrections: Sequence[Compensation], now: int, slot: int, ask: Ask
) -> Steps[None]:
    """Have the server of a slot apply corrections.

    Raises:
        StoreError: a number is not whole or past 2⁵³ − 1; nothing was sent.
    """
    taken = yield from taken_over(context, _places(corrections), ask)
    yield from ask(settling(context, corrections, now, slot, taken))


def taken_over(context: CallContext, places: Mapping[str, int], ask: Ask) -> Steps[Taken]:
    """Look up keys under their former names, if there are any; return the records found.

    `places` are those of the keys in the call. Nobody writes such records any more, so that they
    may be read ahead of it.
    """
    former = context.former
    if former is None:
        return _NOTHING
    by_slot: dict[int, list[str]] = {}
    for key in places:
        slot = slot_of(former.tag(key)) if context.is_cluster else 0
        by_slot.setdefault(slot, []).append(key)
    found: dict[int, bytes] = {}
    for slot, group in sorted(by_slot.items()):
        reply = yield from ask(Call(slot, ("MGET", *former.of(group))))
        values = reply if isinstance(reply, list) else []
        for key, value in zip(group, values, strict=True):
            if value is not None:
                found[places[key]] = value
    return found


def acquiring(
    context: CallContext, form: Form, now: int, slot: int = 0, taken: Taken = _NOTHING
) -> Call:
    """Return the call that asks the server of a slot for charges."""
    keys, charges, cells, members = form
    names, _, (ahead, before, bound, refuse), script, _, _ = context
    head = (now, ahead, before, bound, int(refuse), len(charges) // 2)
    argument: list[object] = [*head, *charges, len(cells) // CELL, *cells, *taken]
    for place in members:
        # The number of cells stands between.
        at = len(head) + len(charges) + 1 + place
        argument[at] = names.member(cast(str, argument[at]))
    parts: Command = (number(len(keys)), *names.of(keys), encode(argument), *taken.values())
    return Call(slot, parts, script, form)


def read_reply(reply: object) -> list[int]:
    """Return what the script that acquires answered, in numbers; see `outcome_of`.

    Raises:
        GarbledError: the reply is not one of the script's.
    """
    if are_numbers(reply):
        return reply  # type: ignore[return-value]
    raise GarbledError(f"the server answered `{reply!r}`, which is none of ours")


def settling(
    context: CallContext,
    corrections: Sequence[Compensation],
    now: int,
    slot: int = 0,
    taken: Taken = _NOTHING,
) -> Call:
    """Return the call that has the server of a slot apply corrections.

    Raises:
        StoreError: a number is not whole or past 2⁵³ − 1.
    """
    names, places = context.names, _places(corrections)
    argument: list[Any] = [now, context.preconditions.before, len(corrections)]
    for each in corrections:
        argument += _correcting(each, places[each.key], names)
    numbers = argument
    if set(map(type, argument)) != {int}:
        numbers = [each for each in argument if not isinstance(each, str)]
        check_whole(*map(abs, numbers))
    if min(numbers) < -TOP or max(numbers) > TOP:
        check_whole(*map(abs, numbers))
    parts: Command = (
        number(len(places)),
        *names.of(places),
        encode([*argument, *taken]),
        *taken.values(),
    )
    return Call(slot, parts, context.settle)


def _places(corrections: Sequence[Compensation]) -> dict[str, int]:
    """Return the place, from 1, that each key has in a call that applies corrections."""
    places: dict[str, int] = {}
    for each in corrections:
        places.setdefault(each.key, len(places) + 1)
    return places


def _correcting(each: Compensation, place: int, names: Names) -> tuple[object, ...]:
    """Return the six values that a call states a correction with; the third is in milliseconds."""
    if isinstance(each, (Leave, EndStay)):
        expires = each.expires if isinstance(each, EndStay) else 0
        return (_LEAVE, place, 0, names.member(each.member), expires, 0)
    # As `milliseconds` has it, which is a call for each correction.
    ttl = -(-each.ttl // MILLISECOND) or 1
    if isinstance(each, Adjust):
        return (_ADJUST, place, ttl, each.slot, each.delta, 0)
    if isinstance(each, Drain):
        return (_DRAIN, place, ttl, each.delta, each.charged, each.refunded)
    if isinstance(each, Undrain):
        return (_UNDRAIN, place, ttl, -each.amount, each.reach, each.since)
    return (_RENEW, place, ttl, names.member(each.member), each.expires, 0)


def compensating(
    charges: Sequence[Charge], cells: Sequence[Cell], outcome: Outcome, *, strikes: bool = True
) -> list[tuple[int, Compensation]]:
    """Return what takes back what an outcome says was charged, each with its charge's index.

    With `strikes` also what followed a refusal.
    """
    found: list[tuple[int, Compensation]] = []
    left_out = {
        cell.charge
        for cell, reply in zip(cells, outcome.replies, strict=True)
        if reply.spilled and cell.spill == LEFT_OUT
    }
    for cell, reply in zip(cells, outcome.replies, strict=True):
        charge = charges[cell.charge]
        tried = outcome.admitted if charge.after is None else outcome.refused[charge.after]
        if not tried or outcome.refused[cell.charge] or cell.charge in left_out:
            continue
        if charge.after is None or strikes:
            compensation = _compensation(cell, reply)
            if compensation is not None:
                found.append((cell.charge, compensation))
    return found


def _compensation(cell: Cell, reply: Reply) -> Compensation | None:
    key = cast(str, cell.spill) if reply.spilled else cell.key
    if not isinstance(cell, Counter):
        new = not cast(MemberReply, reply).present
        return EndStay(key, cell.member, cell.expires) if new else None
    counted = cast(CounterReply, reply)
    if cell.amount and cell.floor:
        reach = min(counted.used + cell.amount + counted.refunded, TOP)
        return Undrain(key, cell.amount, reach, cell.floor, cell.ttl)
    return Adjust(key, counted.slot, -cell.amount, cell.ttl) if cell.amount else None
